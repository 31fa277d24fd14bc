//! Any bytes: decoding them as a manifest never panics, with or without a checksum that fits, and what is decoded can
//! be written and read again without a source more or less.
#![no_main]

use std::sync::Arc;

use fuzz::manifest::{Scope, decode, encode, sealed};
use libfuzzer_sys::fuzz_target;

const SCOPE: Scope<'_> = Scope { bucket: "logs", prefix: "web/" };

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes, &sealed(bytes.to_vec())] {
        if let Ok(read) = decode(bytes, "r", SCOPE) {
            let merged = [Arc::clone(&read.merged)];
            let again = encode("r", read.base.as_ref(), SCOPE, &merged, &read.foreign, &read.uploads);
            assert_eq!(decode(&again, "r", SCOPE).expect("it was written just now"), read);
        }
    }
});

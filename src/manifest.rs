//! The manifest of a batch: which source objects' bytes are in a rollup once the batch commits.
//!
//! One JSON document, small enough per entry to be held in memory for a whole batch and plain enough to be read by a
//! person who looks into the bucket. Since it says what may be deleted, it carries its own checksum, whatever the store
//! does for the bytes. This module encodes and decodes; what a manifest means is `protocol`'s business.

use std::fmt;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, checksum};
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use crate::shown::shown;
use crate::source::{ETag, Source};

/// The only version so far. Another one is refused: its entries could mean something else.
const VERSION: u32 = 1;

/// The folder of manifests under the destination prefix. Names that start with `_` are ignored by Athena, Glue, Spark
/// and Hive.
pub const FOLDER: &str = "_manifests/";

/// What a probe's key begins with inside the folder; such keys are no manifests.
pub const PROBE: &str = "_probe";

/// A batch's id: 128 bits, 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchId(u128);

impl BatchId {
    /// A fresh id, as unlike all others as the generator's seed is unlike all others.
    #[must_use]
    pub fn fresh(random: &mut fastrand::Rng) -> Self {
        Self(random.u128(..))
    }

    /// Reads what [`fmt::Display`] wrote; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        digits.then(|| u128::from_str_radix(text, 16).ok().map(Self)).flatten()
    }
}

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The key of a batch's manifest.
#[must_use]
pub fn key(destination_prefix: &str, rollup: &str, batch: BatchId) -> String {
    format!("{destination_prefix}{FOLDER}{rollup}/{batch}")
}

/// Which rollup and batch a key below the manifests' folder belongs to; `None` for probes and for what is no manifest.
#[must_use]
pub fn parse_key<'k>(destination_prefix: &str, key: &'k str) -> Option<(&'k str, BatchId)> {
    let name = key.strip_prefix(destination_prefix)?.strip_prefix(FOLDER)?;
    let (rollup, batch) = name.rsplit_once('/')?;
    Some((rollup, BatchId::parse(batch)?)).filter(|_| !rollup.is_empty())
}

/// Entries of one bucket that are not this run's to delete.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Block {
    /// Their bucket.
    pub bucket: Box<str>,
    /// They themselves.
    pub objects: Arc<[Source]>,
}

/// The source bucket and prefix of this run: it deletes nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Bucket.
    pub bucket: &'a str,
    /// Literal prefix of keys.
    pub prefix: &'a str,
}

/// What a manifest holds, sorted into this run's sources and others'.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// `ETag` of the rollup that the batch was planned on; `None` where it was absent.
    pub base: Option<ETag>,
    /// Sources under this run's bucket and prefix.
    pub merged: Arc<[Source]>,
    /// All others.
    pub foreign: Arc<[Block]>,
    /// Ids of uploads under the rollup's key that can never be completed once the batch is committed.
    pub uploads: Vec<String>,
}

/// Why a manifest cannot be used. It is left alone, and its rollup fails.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Written by a newer version of this program.
    #[error("it has version {0}, and this program reads version {VERSION}: use the version that wrote it")]
    Version(u32),
    /// Not a manifest, or cut.
    #[error("it is damaged ({})", shown(&.0.to_string()))]
    Damaged(#[from] serde_json::Error),
    /// Some byte is not the one that was written.
    #[error("it is damaged (its bytes do not have its checksum)")]
    Altered,
    /// Of another rollup than its key says.
    #[error("it belongs to the rollup {}", shown(.0))]
    Misplaced(String),
}

/// Encodes a manifest. `merged` may come in several lists.
///
/// # Panics
/// Never: the document has no map with keys that are not strings.
#[must_use]
pub fn encode(
    rollup: &str,
    base: Option<&ETag>,
    scope: Scope<'_>,
    merged: &[Arc<[Source]>],
    foreign: &[Block],
    uploads: &[String],
) -> Vec<u8> {
    let document = Document { rollup, base, scope, merged, foreign, uploads };
    sealed(serde_json::to_vec(&document).expect("strings and numbers only"))
}

/// Adds the checksum of all that stands before it as the last entry of a JSON object.
#[must_use]
pub fn sealed(mut document: Vec<u8>) -> Vec<u8> {
    document.pop();
    let seal = seal(&document);
    document.extend_from_slice(seal.as_bytes());
    document
}

fn seal(before: &[u8]) -> String {
    format!(",\"crc64nvme\":\"{:016x}\"}}", checksum(CrcAlgorithm::Crc64Nvme, before))
}

/// Bytes of a seal.
const SEAL: usize = 32;

fn has_its_seal(bytes: &[u8]) -> bool {
    let cut = bytes.len().checked_sub(SEAL).map(|at| bytes.split_at(at));
    cut.is_some_and(|(before, end)| seal(before).as_bytes() == end)
}

struct Document<'a> {
    rollup: &'a str,
    base: Option<&'a ETag>,
    scope: Scope<'a>,
    merged: &'a [Arc<[Source]>],
    foreign: &'a [Block],
    uploads: &'a [String],
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &VERSION)?;
        map.serialize_entry("rollup", self.rollup)?;
        map.serialize_entry("base", &self.base.map(ToString::to_string))?;
        map.serialize_entry("merged", &Blocks(self))?;
        if !self.uploads.is_empty() {
            map.serialize_entry("uploads", self.uploads)?;
        }
        map.end()
    }
}

struct Blocks<'a>(&'a Document<'a>);

impl Serialize for Blocks<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Document { scope, merged, foreign, .. } = self.0;
        let mut blocks = serializer.serialize_seq(Some(1 + foreign.len()))?;
        blocks.serialize_element(&BlockDocument { bucket: scope.bucket, lists: merged })?;
        for Block { bucket, objects } in *foreign {
            blocks.serialize_element(&BlockDocument { bucket, lists: &[Arc::clone(objects)] })?;
        }
        blocks.end()
    }
}

struct BlockDocument<'a> {
    bucket: &'a str,
    lists: &'a [Arc<[Source]>],
}

impl Serialize for BlockDocument<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("bucket", self.bucket)?;
        map.serialize_entry("objects", &Objects(self.lists))?;
        map.end()
    }
}

struct Objects<'a>(&'a [Arc<[Source]>]);

impl Serialize for Objects<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let objects = self.0.iter().flat_map(|list| list.iter());
        serializer.collect_seq(objects.map(|source| (&*source.key, source.etag.to_string(), source.size)))
    }
}

#[derive(Deserialize)]
struct Read {
    rollup: String,
    base: Option<String>,
    merged: Vec<ReadBlock>,
    #[serde(default)]
    uploads: Vec<String>,
}

#[derive(Deserialize)]
struct ReadBlock {
    bucket: Box<str>,
    objects: Vec<(Box<str>, String, u64)>,
}

#[derive(Deserialize)]
struct ReadVersion {
    version: u32,
}

/// Decodes a manifest of `rollup`.
///
/// # Errors
/// For another version, for bytes that are not as they were written, and for another rollup's manifest.
pub fn decode(bytes: &[u8], rollup: &str, scope: Scope<'_>) -> Result<Manifest, Unreadable> {
    let ReadVersion { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
    }
    if !has_its_seal(bytes) {
        return Err(Unreadable::Altered);
    }
    let read: Read = serde_json::from_slice(bytes)?;
    if read.rollup != rollup {
        return Err(Unreadable::Misplaced(read.rollup));
    }
    let mut merged = Vec::new();
    let mut foreign = Vec::new();
    for ReadBlock { bucket, objects } in read.merged {
        let sources = objects.into_iter().map(|(key, etag, size)| Source { key, etag: ETag::new(&etag), size });
        let (own, others): (Vec<_>, Vec<_>) =
            sources.partition(|source| *bucket == *scope.bucket && source.key.starts_with(scope.prefix));
        merged.extend(own);
        if !others.is_empty() {
            foreign.push(Block { bucket, objects: others.into() });
        }
    }
    let base = read.base.as_deref().map(ETag::new);
    Ok(Manifest { base, merged: merged.into(), foreign: foreign.into(), uploads: read.uploads })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SCOPE: Scope<'_> = Scope { bucket: "logs", prefix: "web/" };

    fn source(key: &str) -> Source {
        Source { key: key.into(), etag: ETag::new("\"d41d8cd98f00b204e9800998ecf8427e\""), size: 7 }
    }

    #[test]
    fn a_manifest_comes_back_as_it_was_written_with_what_is_not_ours_apart() {
        let merged = [Arc::from([source("web/a\n\"ü")]), Arc::from([source("web/b"), source("other/c")])];
        let foreign = [Block { bucket: "elsewhere".into(), objects: Arc::from([source("web/d")]) }];
        let base = ETag::new("abc-3");
        let bytes = encode("r", Some(&base), SCOPE, &merged, &foreign, &[String::from("u\n1")]);
        let read = decode(&bytes, "r", SCOPE).expect("it was written just now");
        assert_eq!(read.base, Some(base));
        assert_eq!(read.uploads, ["u\n1"]);
        assert_eq!(*read.merged, [source("web/a\n\"ü"), source("web/b")]);
        let others: Vec<_> = read.foreign.iter().map(|b| (&*b.bucket, b.objects.len())).collect();
        assert_eq!(others, [("logs", 1), ("elsewhere", 1)]);
    }

    #[test]
    fn what_is_not_a_manifest_of_this_rollup_and_version_is_refused() {
        let good = encode("r", None, SCOPE, &[], &[], &[]);
        assert!(matches!(decode(&good, "other", SCOPE), Err(Unreadable::Misplaced(_))));
        assert!(matches!(decode(&good[..good.len() - 1], "r", SCOPE), Err(Unreadable::Damaged(_))));
        assert!(matches!(decode(b"{\"version\":2}", "r", SCOPE), Err(Unreadable::Version(2))));
        assert!(matches!(decode(b"", "r", SCOPE), Err(Unreadable::Damaged(_))));
        assert!(matches!(decode(b"{\"version\":1}", "r", SCOPE), Err(Unreadable::Altered)));
    }

    #[test]
    fn a_manifest_key_names_its_rollup_and_batch_and_a_probe_is_none() {
        let batch = BatchId::fresh(&mut fastrand::Rng::with_seed(1));
        assert_eq!(parse_key("out/", &key("out/", "web/2019-09", batch)), Some(("web/2019-09", batch)));
        assert_eq!(parse_key("out/", &format!("out/_manifests/_probe-{batch}")), None);
        assert_eq!(parse_key("out/", "out/_manifests/web/2019-09/notes.txt"), None);
        assert_eq!(parse_key("out/", "other/_manifests/web/2019-09/x"), None);
    }
    fn any_text() -> impl Strategy<Value = String> {
        "(web/)?[a-z]{0,3}|(web/)?(?s:.){0,9}|(\"|\\\\|,|\\[|\\]|\\{|\\}|\n|\u{0}|é){0,9}"
    }

    fn any_etag() -> impl Strategy<Value = ETag> {
        let digits = any::<u128>().prop_map(|digits| format!("{digits:032x}"));
        prop_oneof![digits, any_text()].prop_map(|text| ETag::new(&text))
    }

    fn any_sources() -> impl Strategy<Value = Vec<Source>> {
        let source = (any_text(), any_etag(), prop_oneof![0_u64..9, any::<u64>()]);
        let source = source.prop_map(|(key, etag, size)| Source { key: key.into(), etag, size });
        prop::collection::vec(source, 0..5)
    }

    /// A manifest of the rollup `r`, as it may be written: lists of sources of this run, blocks of others.
    #[derive(Clone, Debug)]
    struct Written {
        base: Option<ETag>,
        merged: Vec<Arc<[Source]>>,
        foreign: Vec<Block>,
        uploads: Vec<String>,
    }

    impl Written {
        fn bytes(&self) -> Vec<u8> {
            encode("r", self.base.as_ref(), SCOPE, &self.merged, &self.foreign, &self.uploads)
        }

        /// Every source with its bucket, those under `scope` first.
        fn sources(&self, scope: Scope<'_>) -> Vec<(String, Source)> {
            let merged = self.merged.iter().map(|list| (SCOPE.bucket, list));
            let lists = merged.chain(self.foreign.iter().map(|block| (&*block.bucket, &block.objects)));
            let mut sources: Vec<_> = lists
                .flat_map(|(bucket, list)| list.iter().map(move |source| (bucket.to_owned(), source.clone())))
                .collect();
            sources.sort_by_key(|(bucket, source)| !(bucket == scope.bucket && source.key.starts_with(scope.prefix)));
            sources
        }
    }

    fn any_manifest() -> impl Strategy<Value = Written> {
        let lists = prop::collection::vec(any_sources().prop_map(Arc::from), 0..4);
        let block = (prop_oneof![Just(String::from("logs")), any_text()], any_sources())
            .prop_map(|(bucket, sources)| Block { bucket: bucket.into(), objects: sources.into() });
        let uploads = prop::collection::vec(any_text(), 0..3);
        let parts = (prop::option::of(any_etag()), lists, prop::collection::vec(block, 0..3), uploads);
        parts.prop_map(|(base, merged, foreign, uploads)| Written { base, merged, foreign, uploads })
    }

    /// What was done to the bytes of a manifest: bits flipped, bytes left out, doubled, or put in.
    fn any_damage() -> impl Strategy<Value = Vec<(prop::sample::Index, usize, Vec<u8>)>> {
        let byte = prop_oneof![Just(b'"'), Just(b','), Just(b'['), b'0'..=b'9', b'a'..=b'z', any::<u8>()];
        let change = (any::<prop::sample::Index>(), 0_usize..4, prop::collection::vec(byte, 0..4));
        prop::collection::vec(change, 1..4)
    }

    proptest! {
        #[test]
        fn a_manifest_of_any_keys_comes_back_with_every_source_once_and_in_order(written in any_manifest(), prefix in "(web/)?.?") {
            let scope = Scope { prefix: &prefix, ..SCOPE };
            let read = decode(&written.bytes(), "r", scope).unwrap();
            prop_assert_eq!(&read.base, &written.base);
            prop_assert_eq!(&read.uploads, &written.uploads);
            let own = read.merged.iter().map(|source| (String::from("logs"), source.clone()));
            let others = read.foreign.iter().flat_map(|block| {
                block.objects.iter().map(|source| (block.bucket.to_string(), source.clone()))
            });
            prop_assert_eq!(own.chain(others).collect::<Vec<_>>(), written.sources(scope));
            let again = encode("r", read.base.as_ref(), scope, &[Arc::clone(&read.merged)], &read.foreign, &read.uploads);
            prop_assert_eq!(decode(&again, "r", scope).unwrap(), read);
        }

        #[test]
        fn a_manifest_of_which_any_byte_was_changed_is_refused(written in any_manifest(), damage in any_damage()) {
            let good = written.bytes();
            let mut bytes = good.clone();
            for (place, out, put) in damage {
                let place = place.index(bytes.len());
                let end = (place + out).min(bytes.len());
                bytes.splice(place..end, put);
                prop_assume!(!bytes.is_empty());
            }
            prop_assert_eq!(decode(&bytes, "r", SCOPE).is_ok(), bytes == good);
        }

        #[test]
        fn a_manifest_that_was_cut_or_flipped_in_one_bit_is_refused(written in any_manifest(), at in any::<prop::sample::Index>()) {
            let good = written.bytes();
            prop_assert!(decode(&good[..at.index(good.len())], "r", SCOPE).is_err());
            let mut bytes = good.clone();
            let bit = at.index(good.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(decode(&bytes, "r", SCOPE).is_err());
        }

        #[test]
        fn bytes_that_are_no_manifest_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            prop_assert!(decode(&bytes, "r", SCOPE).is_err());
        }

        #[test]
        fn documents_of_another_shape_are_refused_or_mean_what_they_say(text in "[\\[\\]{},:\"a-c0-9e.-]{0,30}", merged in any::<bool>()) {
            let document = if merged {
                format!("{{\"version\":1,\"rollup\":\"r\",\"base\":null,\"merged\":[{text}]}}")
            } else {
                format!("{{\"version\":1,{text}}}")
            };
            if let Ok(read) = decode(&sealed(document.into_bytes()), "r", SCOPE) {
                let again = encode("r", read.base.as_ref(), SCOPE, &[Arc::clone(&read.merged)], &read.foreign, &read.uploads);
                prop_assert_eq!(decode(&again, "r", SCOPE).unwrap(), read);
            }
        }

        #[test]
        fn a_manifests_key_comes_apart_into_what_it_was_made_of(
            prefix in "((?s:.){0,6}/)?",
            rollup in "(?s:.){1,12}|[a-z/_]{1,9}",
            batch in any::<u128>().prop_map(BatchId),
            other in "(_manifests/)?(?s:.){0,9}(/[0-9a-fA-F]{32})?",
        ) {
            let whole = key(&prefix, &rollup, batch);
            prop_assert_eq!(parse_key(&prefix, &whole), Some((&*rollup, batch)));
            prop_assert_eq!(BatchId::parse(&batch.to_string()), Some(batch));
            let other = format!("{prefix}{other}");
            if let Some((rollup, batch)) = parse_key(&prefix, &other) {
                prop_assert_eq!(key(&prefix, rollup, batch), other);
            }
        }
    }
}

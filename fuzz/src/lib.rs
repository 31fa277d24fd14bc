//! The program's modules that read hostile text, taken from its sources as they are.

#[path = "../../src/key.rs"]
pub mod key;
#[path = "../../src/layout.rs"]
pub mod layout;
#[path = "../../src/manifest.rs"]
pub mod manifest;
#[path = "../../src/period.rs"]
pub mod period;
#[path = "../../src/shown.rs"]
pub mod shown;
#[path = "../../src/source.rs"]
pub mod source;

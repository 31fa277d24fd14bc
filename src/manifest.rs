//! The manifest of a batch: which source objects' bytes are in a rollup once the batch commits.
//!
//! One JSON document, small enough per entry to be held in memory for a whole batch and plain enough to be read by a
//! person who looks into the bucket. This module encodes and decodes; what a manifest means is `protocol`'s business.

use std::fmt;
use std::sync::Arc;

use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use crate::source::{ETag, Source};

/// The only version so far. Another one is refused: its entries could mean something else.
const VERSION: u32 = 1;

/// The folder of manifests under the destination prefix. Names that start with `_` are ignored by Athena, Glue, Spark
/// and Hive.
pub const FOLDER: &str = "_manifests/";

/// What a probe's key begins with inside the folder; such keys are no manifests.
pub const PROBE: &str = "_probe";

/// A batch's id: 128 bits, 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
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
}

/// Why a manifest cannot be used. It is left alone, and its rollup fails.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Written by a newer version of this program.
    #[error("it has version {0}, and this program reads version {VERSION}: use the version that wrote it")]
    Version(u32),
    /// Not a manifest, or cut.
    #[error("it is damaged ({0})")]
    Damaged(#[from] serde_json::Error),
    /// Of another rollup than its key says.
    #[error("it belongs to the rollup {0:?}")]
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
) -> Vec<u8> {
    let document = Document { rollup, base, scope, merged, foreign };
    serde_json::to_vec(&document).expect("strings and numbers only")
}

struct Document<'a> {
    rollup: &'a str,
    base: Option<&'a ETag>,
    scope: Scope<'a>,
    merged: &'a [Arc<[Source]>],
    foreign: &'a [Block],
}

impl Serialize for Document<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(4))?;
        map.serialize_entry("version", &VERSION)?;
        map.serialize_entry("rollup", self.rollup)?;
        map.serialize_entry("base", &self.base.map(ToString::to_string))?;
        map.serialize_entry("merged", &Blocks(self))?;
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
/// For another version, for another rollup's manifest and for anything else that [`encode`] does not write.
pub fn decode(bytes: &[u8], rollup: &str, scope: Scope<'_>) -> Result<Manifest, Unreadable> {
    let ReadVersion { version } = serde_json::from_slice(bytes)?;
    if version != VERSION {
        return Err(Unreadable::Version(version));
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
    Ok(Manifest { base: read.base.as_deref().map(ETag::new), merged: merged.into(), foreign: foreign.into() })
}

#[cfg(test)]
mod tests {
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
        let bytes = encode("r", Some(&base), SCOPE, &merged, &foreign);
        let read = decode(&bytes, "r", SCOPE).expect("it was written just now");
        assert_eq!(read.base, Some(base));
        assert_eq!(*read.merged, [source("web/a\n\"ü"), source("web/b")]);
        let others: Vec<_> = read.foreign.iter().map(|b| (&*b.bucket, b.objects.len())).collect();
        assert_eq!(others, [("logs", 1), ("elsewhere", 1)]);
    }

    #[test]
    fn what_is_not_a_manifest_of_this_rollup_and_version_is_refused() {
        let good = encode("r", None, SCOPE, &[], &[]);
        assert!(matches!(decode(&good, "other", SCOPE), Err(Unreadable::Misplaced(_))));
        assert!(matches!(decode(&good[..good.len() - 1], "r", SCOPE), Err(Unreadable::Damaged(_))));
        assert!(matches!(decode(b"{\"version\":2}", "r", SCOPE), Err(Unreadable::Version(2))));
        assert!(matches!(decode(b"", "r", SCOPE), Err(Unreadable::Damaged(_))));
    }

    #[test]
    fn a_manifest_key_names_its_rollup_and_batch_and_a_probe_is_none() {
        let batch = BatchId::fresh(&mut fastrand::Rng::with_seed(1));
        assert_eq!(parse_key("out/", &key("out/", "web/2019-09", batch)), Some(("web/2019-09", batch)));
        assert_eq!(parse_key("out/", &format!("out/_manifests/_probe-{batch}")), None);
        assert_eq!(parse_key("out/", "out/_manifests/web/2019-09/notes.txt"), None);
        assert_eq!(parse_key("out/", "other/_manifests/web/2019-09/x"), None);
    }
}

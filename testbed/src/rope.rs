//! Object bodies as ropes: a list of shared chunks.
//!
//! A server-side copy and the completion of a multipart upload share chunks instead of copying bytes, and one
//! chunk may stand in a rope many times, so that an object of many GiB costs the memory of one chunk.
//! Each chunk remembers its CRC64NVME, so the checksum of a large rope is a matter of combining.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use crc_fast::CrcAlgorithm::Crc64Nvme;

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    crc: OnceLock<u64>,
}

impl Chunk {
    fn crc(&self) -> u64 {
        *self.crc.get_or_init(|| crc_fast::checksum(Crc64Nvme, &self.bytes))
    }

    /// The checksum of the chunk `times` times over, at least once, by doubling.
    fn repeated_crc(&self, times: usize) -> u64 {
        let (mut power, mut length) = (self.crc(), self.bytes.len() as u64);
        let (mut whole, mut left) = (None, times);
        while left > 0 {
            if left % 2 == 1 {
                whole = Some(whole.map_or(power, |crc| joined(crc, power, length)));
            }
            power = joined(power, power, length);
            length *= 2;
            left /= 2;
        }
        whole.unwrap_or(power)
    }

    fn part(&self, from: u64, to: u64) -> Bytes {
        let offset = |at: u64| usize::try_from(at).expect("an offset within a chunk fits in memory");
        self.bytes.slice(offset(from)..offset(to))
    }
}

/// The bytes of an object or of a part. Cloning shares the bytes.
#[derive(Clone, Debug, Default)]
pub struct Rope {
    chunks: Vec<Arc<Chunk>>,
    len: u64,
    /// The checksum of all chunks, once somebody asked for it.
    crc: OnceLock<u64>,
}

/// The checksum of what `first` and then `second` are the checksums of; `length` is that of the second, in bytes.
fn joined(first: u64, second: u64, length: u64) -> u64 {
    crc_fast::checksum_combine(Crc64Nvme, first, second, length)
}

impl Rope {
    /// A rope of `chunk` again and again: `times` × its length in bytes, in the memory of one chunk.
    #[must_use]
    pub fn repeated(chunk: Bytes, times: usize) -> Self {
        let len = chunk.len() as u64 * times as u64;
        let chunk = Arc::new(Chunk { bytes: chunk, crc: OnceLock::new() });
        Self { chunks: vec![chunk; times], len, crc: OnceLock::new() }
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no byte at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends the bytes of `other`, which stay shared.
    pub fn append(&mut self, other: &Self) {
        let crc = match (self.crc.take(), other.crc.get()) {
            (Some(crc), Some(other_crc)) => Some(joined(crc, *other_crc, other.len)),
            (None, Some(other_crc)) if self.is_empty() => Some(*other_crc),
            _ => None,
        };
        self.crc = crc.map_or_else(OnceLock::new, OnceLock::from);
        self.chunks.extend(other.chunks.iter().cloned());
        self.len += other.len;
    }

    /// The bytes of `range`, cut to the length of the rope. Chunks that lie inside it entirely are shared with
    /// their checksums.
    #[must_use]
    pub fn slice(&self, range: Range<u64>) -> Self {
        if range.start == 0 && range.end >= self.len {
            return self.clone();
        }
        let mut cut = Self::default();
        let mut start = 0;
        for chunk in &self.chunks {
            let end = start + chunk.bytes.len() as u64;
            let (from, to) = (range.start.max(start), range.end.min(end));
            if from == start && to == end {
                cut.chunks.push(Arc::clone(chunk));
                cut.len += end - start;
            } else if from < to {
                cut.append(&chunk.part(from - start, to - start).into());
            }
            start = end;
        }
        cut
    }

    /// All bytes in one piece: no copy where the rope has one chunk, otherwise as much memory as it is long.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        if let [chunk] = self.chunks.as_slice() {
            return chunk.bytes.clone();
        }
        let mut whole = BytesMut::new();
        for piece in self.pieces() {
            whole.extend_from_slice(&piece);
        }
        whole.freeze()
    }

    /// The bytes in order, chunk by chunk, without a copy.
    pub fn pieces(&self) -> impl Iterator<Item = Bytes> + '_ {
        self.chunks.iter().map(|chunk| chunk.bytes.clone())
    }

    /// CRC-64/NVME of all bytes: each distinct chunk is read once in its life, the rest is arithmetic.
    #[must_use]
    pub fn crc64nvme(&self) -> u64 {
        *self.crc.get_or_init(|| {
            let runs = self.chunks.chunk_by(Arc::ptr_eq);
            let sums = runs.map(|run| (run[0].repeated_crc(run.len()), (run[0].bytes.len() * run.len()) as u64));
            let whole = sums.reduce(|(crc, length), (next, more)| (joined(crc, next, more), length + more));
            whole.map_or_else(|| crc_fast::checksum(Crc64Nvme, b""), |(crc, _)| crc)
        })
    }
}

impl From<Bytes> for Rope {
    fn from(bytes: Bytes) -> Self {
        if bytes.is_empty() {
            return Self::default();
        }
        let len = bytes.len() as u64;
        Self { chunks: vec![Arc::new(Chunk { bytes, crc: OnceLock::new() })], len, crc: OnceLock::new() }
    }
}

impl From<VecDeque<Bytes>> for Rope {
    /// Joins the pieces of a received body into one chunk: network frames are small, and a rope of them would
    /// cost more in bookkeeping than one copy.
    fn from(mut pieces: VecDeque<Bytes>) -> Self {
        if pieces.len() <= 1 {
            return pieces.pop_front().unwrap_or_default().into();
        }
        let mut whole = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
        for piece in &pieces {
            whole.extend_from_slice(piece);
        }
        whole.freeze().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_and_a_join_keep_bytes_and_checksum() {
        let mut rope = Rope::repeated(Bytes::from_static(b"one line\n"), 5);
        rope.append(&Bytes::from_static(b"the end").into());
        let whole = rope.bytes();
        assert_eq!(rope.crc64nvme(), crc_fast::checksum(Crc64Nvme, &whole));
        // Sums that are known are combined, those that are not are computed.
        let mut grown = Rope::from(Bytes::from_static(b"head"));
        assert_eq!(grown.crc64nvme(), crc_fast::checksum(Crc64Nvme, b"head"));
        grown.append(&rope);
        assert_eq!(grown.crc64nvme(), crc_fast::checksum(Crc64Nvme, &grown.bytes()));
        for (from, to) in [(0, 52), (0, 9), (3, 30), (9, 18), (44, 60), (7, 7)] {
            let cut = rope.slice(from..to);
            let expected = whole.slice(usize::try_from(from).unwrap()..usize::try_from(to.min(52)).unwrap());
            assert_eq!(cut.bytes(), expected, "{from}..{to}");
            assert_eq!(cut.len(), expected.len() as u64);
            assert_eq!(cut.crc64nvme(), crc_fast::checksum(Crc64Nvme, &expected));
        }
    }
}

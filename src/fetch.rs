//! Reads many small objects at once and joins them in order, inside a budget of bytes.
//!
//! [`gather`] is the protocol's `Gather`: it reads the sources of a batch, ends each with a newline, and either keeps
//! the whole body in memory (below 5 MiB) or sends it on in parts while it is still reading. How the bytes are
//! committed is not its business.
//!
//! A long source may turn out unreadable after its first pieces were joined. Its bytes are taken back where none of them
//! was sent. Where some were, what was sent is given up and the batch is gathered anew without that source, into an
//! upload of its own: holding back the bytes of each source until its last piece has come would not fit into the budget,
//! and parts under used numbers could be overtaken by late attempts at the old ones.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use futures::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use tokio::sync::{Mutex, OwnedSemaphorePermit, watch};
use tokio::time::{Instant, sleep_until};

use crate::parts;
use crate::source::Source;
use crate::store::{Attributes, Failure, Kind, Part, Store};

/// A longer source is read in pieces of this many bytes.
const PIECE: u64 = 1 << 20;
/// A batch that waits this long for an answer lets the next one ask, too.
const STUCK: Duration = Duration::from_secs(1);
/// The smallest budget of [`gather`]: with it there is always room for a part and for one more piece.
pub const SMALLEST_BUDGET: u64 = parts::SMALLEST + PIECE;

/// What to gather.
#[derive(Debug)]
pub struct Job {
    /// Where the sources are.
    pub from: Store,
    /// In the order in which they are joined.
    pub sources: Arc<[Source]>,
    /// Bytes that come before them: the old rollup, where it is smaller than a part.
    pub old: Bytes,
    /// The last line before the new ones lacks its newline.
    pub open_line: bool,
    /// Where the parts go, if it comes to that.
    pub upload: Arc<Upload>,
    /// Bytes in memory at most, at least [`SMALLEST_BUDGET`].
    pub budget: u64,
    /// Given back when every source has been asked for, or when their answers do not come: the next batch may begin.
    pub turn: Turn,
}

/// The right to ask for sources before the batches behind. Side by side all batches would be ready at the same late
/// time, one after the other the first is soon, and its deletes run under the reads of the next.
pub type Turn = RefCell<Option<OwnedSemaphorePermit>>;

/// A multipart upload that is begun when its first part is ready.
#[derive(Debug)]
pub struct Upload {
    /// The destination.
    pub to: Store,
    /// The rollup's key.
    pub key: String,
    /// The batch's id.
    pub batch: String,
    /// What the new rollup keeps of the old.
    pub attributes: Attributes,
    /// S3 is to compare the whole object's CRC64NVME at the end.
    pub checksum: bool,
    /// Parts.
    pub layout: parts::Layout,
    /// Old bytes will be copied: the body never goes in one PUT.
    pub copies: bool,
    /// S3's id, while it is begun and not given up.
    pub id: Mutex<Option<String>>,
}

impl Upload {
    /// S3's id of the upload, begun now if it was not.
    pub async fn begin(&self) -> Result<String, Failure> {
        let mut id = self.id.lock().await;
        if let Some(id) = &*id {
            return Ok(id.clone());
        }
        let named = Some((&self.attributes, self.batch.as_str()));
        let begun = self.to.create_upload(&self.key, named, self.checksum).await?;
        Ok(id.insert(begun).clone())
    }

    /// Gives up what was sent, if it was begun. It can be begun again.
    pub async fn abort(&self) {
        let mut id = self.id.lock().await;
        if let Some(begun) = &*id
            && let Err(failure) = self.to.abort(&self.key, begun).await
        {
            tracing::warn!("an unfinished upload stays behind, a lifecycle rule will remove it: {failure}");
        }
        *id = None;
    }

    /// Sends a part, and gives its bytes back.
    async fn send(&self, number: u16, body: Bytes) -> Result<(Part, Bytes), Failure> {
        let id = self.begin().await?;
        let crc = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &body);
        let part = self.to.upload_part(&self.key, &id, number, &body, Some(crc)).await?;
        Ok((part, body))
    }
}

/// A source that was left out, by its position, and why.
pub type Left = (usize, Failure);

/// What was gathered.
#[derive(Debug)]
pub struct Gathered {
    /// In rising order.
    pub left: Vec<Left>,
    /// Bytes added to the rollup.
    pub added: u64,
    /// CRC64NVME of the added bytes.
    pub crc: u64,
    /// Old bytes and new.
    pub body: Body,
}

/// The body of a commit.
#[derive(Debug)]
pub enum Body {
    /// All of it.
    Whole(Bytes),
    /// It was sent in these parts.
    Sent(Vec<Part>),
}

/// Why nothing was gathered.
#[derive(Debug)]
pub enum Ended {
    /// A request failed in a way that concerns more than one source.
    Failed(Failure),
    /// Nobody wants it any more.
    Cancelled,
}

/// Reads the sources and joins them. Ends early when `cancel` turns true; an upload that was begun then is there to be
/// aborted.
pub async fn gather(job: Job, mut cancel: watch::Receiver<bool>) -> Result<Gathered, Ended> {
    let mut broken = BTreeMap::new();
    loop {
        let mut gathering = Gathering::new(&job, &broken);
        let ended = tokio::select! {
            biased;
            _ = cancel.wait_for(|cancelled| *cancelled) => Err(Stopped::Cancelled),
            done = gathering.run() => done,
        };
        let Err(stopped) = ended else { return Ok(gathering.finish()) };
        // An upload whose id is not yet known could not be aborted.
        while gathering.sending.next().await.is_some() {}
        drop(gathering);
        match stopped {
            Stopped::Failed(failure) => return Err(Ended::Failed(failure)),
            Stopped::Cancelled => return Err(Ended::Cancelled),
            Stopped::Broken(source, failure) => {
                tracing::debug!("begun anew without a source that broke after it was sent in part: {failure}");
                job.upload.abort().await;
                broken.insert(source, failure);
            }
        }
    }
}

/// Why a gathering stopped before its end.
enum Stopped {
    /// A request failed in a way that concerns more than one source.
    Failed(Failure),
    /// This source cannot be read to its end, and some of its bytes were sent.
    Broken(usize, Failure),
    /// Nobody wants it any more.
    Cancelled,
}

/// A piece of a source.
#[derive(Clone, Copy, Debug)]
struct Piece {
    source: usize,
    first: u64,
    length: u64,
    last: bool,
}

/// What was joined before the first byte of a source.
struct Mark {
    joined: usize,
    number: u16,
    added: u64,
    digest: Digest,
}

struct Gathering<'j> {
    job: &'j Job,
    /// Sources that are not asked for, since they broke before.
    broken: &'j BTreeMap<usize, Failure>,
    /// The next piece to ask for.
    next: Option<Piece>,
    reading: FuturesOrdered<futures::future::LocalBoxFuture<'j, (Piece, Result<Bytes, Failure>)>>,
    sending: FuturesUnordered<futures::future::LocalBoxFuture<'j, Result<(Part, Bytes), Failure>>>,
    /// Bytes asked for, joined or being sent.
    held: u64,
    joined: BytesMut,
    /// The memory of a part that was sent, for the next: a new one would have to be faulted in page by page.
    spare: Option<BytesMut>,
    number: u16,
    parts: Vec<Part>,
    left: Vec<Left>,
    added: u64,
    digest: Digest,
    /// Where the source began that is being joined in pieces.
    begun: Option<Mark>,
}

impl<'j> Gathering<'j> {
    fn new(job: &'j Job, broken: &'j BTreeMap<usize, Failure>) -> Self {
        let expected: u64 = job.sources.iter().map(|source| source.size + 1).sum::<u64>() + job.old.len() as u64;
        let room = expected.min(job.upload.layout.part + PIECE);
        let mut joined = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
        joined.extend_from_slice(&job.old);
        let mut gathering = Self {
            job,
            broken,
            next: None,
            reading: FuturesOrdered::new(),
            sending: FuturesUnordered::new(),
            held: job.old.len() as u64,
            joined,
            spare: None,
            number: job.upload.layout.first_sent(),
            parts: Vec::new(),
            left: Vec::new(),
            added: 0,
            digest: Digest::new(CrcAlgorithm::Crc64Nvme),
            begun: None,
        };
        gathering.next = gathering.first_of(0);
        gathering
    }

    /// The first piece of this source, or of the next one that is to be read.
    fn first_of(&self, source: usize) -> Option<Piece> {
        let source = (source..self.job.sources.len()).find(|source| !self.broken.contains_key(source))?;
        self.piece(source, 0)
    }

    fn piece(&self, source: usize, first: u64) -> Option<Piece> {
        let size = self.job.sources.get(source)?.size;
        let length = (size - first).min(PIECE);
        Some(Piece { source, first, length, last: first + length == size })
    }

    fn after(&self, piece: Piece) -> Option<Piece> {
        if piece.last { self.first_of(piece.source + 1) } else { self.piece(piece.source, piece.first + piece.length) }
    }

    async fn run(&mut self) -> Result<(), Stopped> {
        let mut answered = Instant::now();
        let stuck = sleep_until(answered + STUCK);
        tokio::pin!(stuck);
        loop {
            self.ask();
            if self.next.is_none() {
                self.job.turn.take();
            }
            tokio::select! {
                biased;
                Some(sent) = self.sending.next() => {
                    let (part, body) = sent.map_err(Stopped::Failed)?;
                    self.parts.push(part);
                    self.held = self.held.saturating_sub(body.len() as u64);
                    self.spare = body.try_into_mut().ok().or(self.spare.take());
                }
                Some((piece, read)) = self.reading.next() => {
                    answered = Instant::now();
                    self.read(piece, read)?;
                }
                () = &mut stuck, if self.job.turn.borrow().is_some() => {
                    if answered.elapsed() >= STUCK {
                        self.job.turn.take();
                    }
                    stuck.as_mut().reset(answered + STUCK);
                }
                else => break,
            }
            self.send_full_parts();
        }
        if (!self.parts.is_empty() || self.job.upload.copies) && !self.joined.is_empty() {
            let rest = self.joined.split().freeze();
            self.send(rest);
            while let Some(sent) = self.sending.next().await {
                self.parts.push(sent.map_err(Stopped::Failed)?.0);
            }
        }
        Ok(())
    }

    /// Asks for pieces as far as the budget goes, and for one in any case: what is joined then is less than a part.
    fn ask(&mut self) {
        // Twice the limit: answers wait for the ones before them, and requests for leave.
        let in_flight = 2 * self.job.from.traffic().reads.current();
        while let Some(piece) = self.next {
            let busy = !self.reading.is_empty() || !self.sending.is_empty();
            let full = self.reading.len() >= in_flight || self.held + piece.length > self.job.budget;
            if busy && full {
                break;
            }
            self.held += piece.length;
            let job = self.job;
            self.reading.push_back(Box::pin(async move {
                let source = &job.sources[piece.source];
                let whole = piece.first == 0 && piece.last;
                let range = (!whole).then_some((piece.first, piece.length));
                (piece, job.from.get(&source.key, Some(&source.etag), range, source.size).await)
            }));
            self.next = self.after(piece);
        }
    }

    fn read(&mut self, piece: Piece, read: Result<Bytes, Failure>) -> Result<(), Stopped> {
        let out = self.left.last().is_some_and(|(left, _)| *left == piece.source);
        match read {
            Ok(bytes) if !out => self.join(piece, &bytes),
            Ok(_) => self.held -= piece.length,
            Err(_) if out => self.held -= piece.length,
            Err(failure) if concerns_one(&failure) => {
                self.held -= piece.length;
                if piece.first > 0 && !self.take_back(piece.first) {
                    return Err(Stopped::Broken(piece.source, failure));
                }
                self.left.push((piece.source, failure));
            }
            Err(failure) => return Err(Stopped::Failed(failure)),
        }
        Ok(())
    }

    /// Takes out the first `joined` bytes of the source that is being joined, unless some of them were sent.
    fn take_back(&mut self, joined: u64) -> bool {
        let Some(begun) = self.begun.take_if(|begun| begun.number == self.number) else { return false };
        self.joined.truncate(begun.joined);
        self.added = begun.added;
        self.digest = begun.digest;
        self.held = self.held.saturating_sub(joined);
        true
    }

    fn join(&mut self, piece: Piece, bytes: &[u8]) {
        if piece.first == 0 {
            let Self { number, added, digest, .. } = *self;
            self.begun = Some(Mark { joined: self.joined.len(), number, added, digest });
        }
        if self.job.open_line && self.added == 0 {
            self.add(b"\n");
        }
        self.add(bytes);
        if piece.last && bytes.last() != Some(&b'\n') {
            self.add(b"\n");
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        self.joined.extend_from_slice(bytes);
        self.digest.update(bytes);
        self.added += bytes.len() as u64;
    }

    fn send_full_parts(&mut self) {
        let part = usize::try_from(self.job.upload.layout.part).unwrap_or(usize::MAX);
        while self.joined.len() >= part {
            let rest = self.joined.split_off(part);
            let mut next = self.spare.take().unwrap_or_default();
            next.clear();
            // All of the next part and of the piece that fills it: growing by doubling would hold twice as much.
            let room = part + usize::try_from(PIECE).unwrap_or(usize::MAX);
            next.reserve(room.min(rest.len() + self.expected()));
            next.extend_from_slice(&rest);
            let body = std::mem::replace(&mut self.joined, next).freeze();
            self.send(body);
        }
    }

    /// Bytes that are yet to be joined, newlines and pieces aside.
    fn expected(&self) -> usize {
        let to_come = self.next.map_or(&[][..], |piece| &self.job.sources[piece.source..]);
        let bytes: u64 = to_come.iter().map(|source| source.size + 1).sum();
        usize::try_from(bytes + PIECE).unwrap_or(usize::MAX)
    }

    fn send(&mut self, body: Bytes) {
        let upload = Arc::clone(&self.job.upload);
        let number = self.number;
        self.number += 1;
        self.sending.push(Box::pin(async move { upload.send(number, body).await }));
    }

    fn finish(mut self) -> Gathered {
        let body = if self.parts.is_empty() {
            Body::Whole(self.joined.freeze())
        } else {
            self.parts.sort_by_key(|part| part.number);
            Body::Sent(self.parts)
        };
        self.left.extend(self.broken.iter().map(|(source, failure)| (*source, failure.clone())));
        self.left.sort_by_key(|(source, _)| *source);
        Gathered { left: self.left, added: self.added, crc: self.digest.finalize(), body }
    }
}

/// A source that is gone, changed, archived, forbidden or damaged is left out; anything else ends the batch.
fn concerns_one(failure: &Failure) -> bool {
    match failure.kind {
        Kind::Missing
        | Kind::Condition
        | Kind::Denied
        | Kind::Archived
        | Kind::Damaged
        | Kind::Refused
        | Kind::Checksum
        | Kind::Conflict => true,
        Kind::NoSuchBucket
        | Kind::Elsewhere(_)
        | Kind::Credentials
        | Kind::Certificate
        | Kind::Clock
        | Kind::Throttled
        | Kind::Server
        | Kind::NoAnswer => false,
    }
}

#[cfg(test)]
mod tests {
    use crc_fast::{checksum, checksum_combine};
    use proptest::prelude::*;

    use super::*;

    const NVME: CrcAlgorithm = CrcAlgorithm::Crc64Nvme;

    /// CRC64NVME bit by bit, as its specification writes it: reflected, all ones before and after.
    fn bit_by_bit(bytes: &[u8]) -> u64 {
        !bytes.iter().fold(u64::MAX, |crc, byte| {
            (0..8).fold(crc ^ u64::from(*byte), |crc, _| {
                (crc >> 1) ^ if crc & 1 == 1 { 0x9A6C_9329_AC4B_C9B5 } else { 0 }
            })
        })
    }

    fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
        let piece = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            (any::<u8>(), 0_usize..600).prop_map(|(byte, n)| vec![byte; n])
        ];
        prop::collection::vec(piece, 0..6)
    }

    proptest! {
        #[test]
        fn the_crc_of_pieces_combined_or_fed_one_by_one_is_that_of_the_whole(pieces in pieces()) {
            let whole = pieces.concat();
            let mut digest = Digest::new(NVME);
            for piece in &pieces {
                digest.update(piece);
            }
            let combined = pieces.iter().fold(0, |crc, piece| {
                checksum_combine(NVME, crc, checksum(NVME, piece), piece.len() as u64)
            });
            prop_assert_eq!(checksum(NVME, &whole), bit_by_bit(&whole));
            prop_assert_eq!(digest.finalize(), bit_by_bit(&whole));
            prop_assert_eq!(combined, bit_by_bit(&whole));
        }

        /// Nobody computes terabytes whole: there, combining must not depend on what is combined first.
        #[test]
        fn combining_does_not_depend_on_its_order_up_to_the_largest_object(
            [old, first, second] in any::<[u64; 3]>(),
            lengths in (0_u64..27_000_000_000_000, 0_u64..27_000_000_000_000),
        ) {
            let from_the_left = checksum_combine(NVME, checksum_combine(NVME, old, first, lengths.0), second, lengths.1);
            let from_the_right = checksum_combine(NVME, first, second, lengths.1);
            let from_the_right = checksum_combine(NVME, old, from_the_right, lengths.0 + lengths.1);
            prop_assert_eq!(from_the_left, from_the_right);
        }
    }
}

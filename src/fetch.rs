//! Reads many small objects at once and joins them in order, inside a budget of bytes.
//!
//! [`gather`] is the protocol's `Gather`: it reads the sources of a batch, ends each with a newline, and either keeps
//! the whole body in memory (below 5 MiB) or sends it on in parts while it is still reading. How the bytes are
//! committed is not its business.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, Digest};
use futures::stream::{FuturesOrdered, FuturesUnordered, StreamExt};
use tokio::sync::{OnceCell, watch};

use crate::parts;
use crate::source::Source;
use crate::store::{Attributes, Failure, Kind, Part, Store};

/// A longer source is read in pieces of this many bytes.
const PIECE: u64 = 1 << 20;
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
}

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
    /// S3's id, once begun.
    pub id: OnceCell<String>,
}

impl Upload {
    /// S3's id of the upload, begun now if it was not.
    pub async fn begin(&self) -> Result<&str, Failure> {
        let named = Some((&self.attributes, self.batch.as_str()));
        let id = self.id.get_or_try_init(|| self.to.create_upload(&self.key, named, self.checksum)).await?;
        Ok(id)
    }

    async fn send(&self, number: u16, body: Bytes) -> Result<(Part, u64), Failure> {
        let id = self.begin().await?;
        let crc = crc_fast::checksum(CrcAlgorithm::Crc64Nvme, &body);
        let part = self.to.upload_part(&self.key, id, number, &body, Some(crc)).await?;
        Ok((part, body.len() as u64))
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
    let mut gathering = Gathering::new(&job);
    let ended = tokio::select! {
        biased;
        _ = cancel.wait_for(|cancelled| *cancelled) => Err(Ended::Cancelled),
        done = gathering.run() => done.map_err(Ended::Failed),
    };
    match ended {
        Ok(()) => Ok(gathering.finish()),
        Err(ended) => {
            // An upload whose id is not yet known could not be aborted.
            while gathering.sending.next().await.is_some() {}
            Err(ended)
        }
    }
}

/// A piece of a source.
#[derive(Clone, Copy, Debug)]
struct Piece {
    source: usize,
    first: u64,
    length: u64,
    last: bool,
}

struct Gathering<'j> {
    job: &'j Job,
    /// The next piece to ask for.
    next: Option<Piece>,
    reading: FuturesOrdered<futures::future::LocalBoxFuture<'j, (Piece, Result<Bytes, Failure>)>>,
    sending: FuturesUnordered<futures::future::LocalBoxFuture<'j, Result<(Part, u64), Failure>>>,
    /// Bytes asked for, joined or being sent.
    held: u64,
    joined: BytesMut,
    number: u16,
    parts: Vec<Part>,
    left: VecDeque<Left>,
    added: u64,
    digest: Digest,
    ends_line: bool,
}

impl<'j> Gathering<'j> {
    fn new(job: &'j Job) -> Self {
        let expected: u64 = job.sources.iter().map(|source| source.size + 1).sum::<u64>() + job.old.len() as u64;
        let room = expected.min(job.upload.layout.part + PIECE);
        let mut joined = BytesMut::with_capacity(usize::try_from(room).unwrap_or(0));
        joined.extend_from_slice(&job.old);
        let mut gathering = Self {
            job,
            next: None,
            reading: FuturesOrdered::new(),
            sending: FuturesUnordered::new(),
            held: job.old.len() as u64,
            joined,
            number: job.upload.layout.first_sent(),
            parts: Vec::new(),
            left: VecDeque::new(),
            added: 0,
            digest: Digest::new(CrcAlgorithm::Crc64Nvme),
            ends_line: true,
        };
        gathering.next = gathering.piece(0, 0);
        gathering
    }

    fn piece(&self, source: usize, first: u64) -> Option<Piece> {
        let size = self.job.sources.get(source)?.size;
        let length = (size - first).min(PIECE);
        Some(Piece { source, first, length, last: first + length == size })
    }

    fn after(&self, piece: Piece) -> Option<Piece> {
        if piece.last { self.piece(piece.source + 1, 0) } else { self.piece(piece.source, piece.first + piece.length) }
    }

    async fn run(&mut self) -> Result<(), Failure> {
        loop {
            self.ask();
            tokio::select! {
                biased;
                Some(sent) = self.sending.next() => {
                    let (part, length) = sent?;
                    self.parts.push(part);
                    self.held = self.held.saturating_sub(length);
                }
                Some((piece, read)) = self.reading.next() => self.read(piece, read)?,
                else => break,
            }
            self.send_full_parts();
        }
        if (!self.parts.is_empty() || self.job.upload.copies) && !self.joined.is_empty() {
            let rest = self.joined.split().freeze();
            self.send(rest);
            while let Some(sent) = self.sending.next().await {
                self.parts.push(sent?.0);
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

    fn read(&mut self, piece: Piece, read: Result<Bytes, Failure>) -> Result<(), Failure> {
        let out = self.left.back().is_some_and(|(left, _)| *left == piece.source);
        match read {
            Ok(bytes) if !out => self.join(piece, &bytes),
            Ok(_) => self.held -= piece.length,
            Err(_) if out => self.held -= piece.length,
            Err(failure) if concerns_one(&failure) && piece.first == 0 => {
                self.held -= piece.length;
                self.left.push_back((piece.source, failure));
            }
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    fn join(&mut self, piece: Piece, bytes: &[u8]) {
        if self.job.open_line && self.added == 0 {
            self.add(b"\n");
        }
        self.add(bytes);
        self.ends_line = bytes.last() == Some(&b'\n');
        if piece.last && !self.ends_line {
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
            let body = self.joined.split_to(part).freeze();
            self.send(body);
            // All of the next part and of the piece that fills it: growing by doubling would hold twice as much.
            let room = part + usize::try_from(PIECE).unwrap_or(usize::MAX);
            self.joined.reserve(room.min(self.joined.len() + self.expected()));
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
        Gathered { left: self.left.into(), added: self.added, crc: self.digest.finalize(), body }
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
        | Kind::Clock
        | Kind::Throttled
        | Kind::Server
        | Kind::NoAnswer => false,
    }
}

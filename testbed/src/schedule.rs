//! One request after the other, in an order that a test decides.
//!
//! While there is a [`Schedule`], every request waits for a turn twice: before it is applied, and before its answer.
//! On a current-thread runtime with a paused clock the same turns make the same run, request for request.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use crate::fault::Moment;
use crate::front::Front;
use crate::request::Recorded;
use crate::world::lock;

/// What happens to a request that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It is applied, or answered.
    Go,
    /// The connection breaks: it is not applied, or its answer is lost.
    Cut,
    /// The connection breaks, and the request waits on to be applied, whatever its client does meanwhile. Before an
    /// answer it is as [`Cut`](Self::Cut).
    Later,
    /// It is not applied and answered with 503 `SlowDown`. Before an answer it is as [`Cut`](Self::Cut).
    SlowDown,
}

/// A request that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// As it arrived; before its answer, with what came of it.
    pub request: Recorded,
    /// What it waits for.
    pub moment: Moment,
    /// Its client no longer waits for it: [`Turn::Later`].
    pub late: bool,
}

struct Waiter {
    waiting: Waiting,
    turn: oneshot::Sender<Turn>,
}

/// The requests that wait, in the order of their arrival.
#[derive(Default)]
pub(crate) struct Turns {
    scheduled: bool,
    waiters: Vec<Waiter>,
    arrived: Arc<Notify>,
}

impl Turns {
    /// A turn to wait for; none where nothing is scheduled.
    pub(crate) fn take_place(&mut self, request: &Recorded, moment: Moment, late: bool) -> oneshot::Receiver<Turn> {
        let (turn, receiver) = oneshot::channel();
        if self.scheduled {
            self.waiters.push(Waiter { waiting: Waiting { request: request.clone(), moment, late }, turn });
            self.arrived.notify_one();
        }
        receiver
    }

    /// Forgets the requests whose clients are gone.
    fn waiters(&mut self) -> &mut Vec<Waiter> {
        self.waiters.retain(|waiter| !waiter.turn.is_closed());
        &mut self.waiters
    }
}

/// Holds every request until its turn. Dropping it lets all of them go.
#[derive(Debug)]
pub struct Schedule {
    front: Arc<Front>,
}

impl Schedule {
    pub(crate) fn new(front: Arc<Front>) -> Self {
        lock(&front.turns).scheduled = true;
        Self { front }
    }

    /// Waits until a request waits and nothing can go on without a turn. It takes a clock that is paused, and a
    /// millisecond on it.
    pub async fn settled(&self) {
        let arrived = Arc::clone(&lock(&self.front.turns).arrived);
        loop {
            while lock(&self.front.turns).waiters().is_empty() {
                arrived.notified().await;
            }
            // A paused clock moves on only when every task waits.
            tokio::time::sleep(Duration::from_millis(1)).await;
            if !lock(&self.front.turns).waiters().is_empty() {
                return;
            }
        }
    }

    /// The requests that wait, in the order of their arrival.
    #[must_use]
    pub fn waiting(&self) -> Vec<Waiting> {
        lock(&self.front.turns).waiters().iter().map(|waiter| waiter.waiting.clone()).collect()
    }

    /// Gives a turn to one of those [`waiting`](Self::waiting), by its place among them.
    ///
    /// # Panics
    /// When there are not so many.
    pub fn turn(&self, place: usize, turn: Turn) {
        let waiter = lock(&self.front.turns).waiters().remove(place);
        // A client that has just gone away leaves its request as it is.
        let _ = waiter.turn.send(turn);
    }
}

impl Drop for Schedule {
    fn drop(&mut self) {
        let mut turns = lock(&self.front.turns);
        turns.scheduled = false;
        turns.waiters.clear();
    }
}

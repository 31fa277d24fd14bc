//! How many requests may be in flight: a fixed number, or the number that the store itself shows to bear.
//!
//! The automatic limit rises by an eighth a round trip until as many requests are sent as S3 takes, or the store first
//! says `SlowDown`; then it rises by one a round trip and halves at each further `SlowDown`: additive increase,
//! multiplicative decrease, as congestion control does (RFC 5681). It also stops rising where more requests in flight
//! only make each of them slower.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

/// Where `auto` starts.
const START: usize = 32;
/// Answers for each step up at first,
const EAGER: usize = 8;
/// up to so many requests a second: S3's reads of a prefix ("Best practices design patterns: optimizing Amazon S3
/// performance"). Beyond it the limit feels its way, since S3 lets a second's worth through before it refuses, and then
/// refuses all that is in flight at once. Of writes it takes fewer, but a pass has few: the keys that it deletes go at a
/// pace of their own.
const DOCUMENTED: f64 = 5_500.0;
/// So many in flight are few to be refused at once, whatever their rate.
const FEW: usize = 128;
/// The lowest and the highest that `auto` goes. With four at least, several shards in one slow partition had so many reads
/// refused that some outlasted their attempts.
const RANGE: (usize, usize) = (1, 1024);
/// Answers whose mean is looked at together.
const ROUND: usize = 128;
/// Answers may take [`LONGER`] times as long as in the best round, and this much more; beyond that more requests
/// in flight only wait for each other. On loopback, where an answer takes as long as the work for it, this holds the
/// limit near 100 instead of 1024, and a request in flight costs 70 KiB of memory (`cargo bench --bench pass`).
const SLACK: Duration = Duration::from_millis(3);
/// See [`SLACK`]. At S3's limits and 30 ms an answer, 1.25 took 4 MiB more than 1.15 and was no quicker.
const LONGER: f64 = 1.15;

/// A limit on requests in flight.
#[derive(Debug)]
pub struct Limit {
    permits: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    adaptive: bool,
    limit: usize,
    /// Permits that are to vanish when they come back.
    surplus: usize,
    /// How often the limit was halved: answers to requests from before do not halve it again.
    halvings: u64,
    /// Answers since the limit last rose.
    answers: usize,
    /// The mean of the best round, and of the last answers.
    best: Duration,
    mean: Duration,
    /// The round under way: answers and their sum.
    round: (u32, Duration),
}

/// Leave to have one request in flight.
#[derive(Debug)]
pub struct Permit<'l> {
    limit: &'l Limit,
    held: Option<SemaphorePermit<'l>>,
    since: Instant,
    halvings: u64,
}

impl Limit {
    /// Always this many, at least one.
    #[must_use]
    pub fn fixed(limit: usize) -> Self {
        Self::new(limit.max(1), false)
    }

    /// As many as the store bears, up to 1024.
    #[must_use]
    pub fn adaptive() -> Self {
        Self::new(START, true)
    }

    fn new(limit: usize, adaptive: bool) -> Self {
        let state = State {
            adaptive,
            limit,
            surplus: 0,
            halvings: 0,
            answers: 0,
            best: Duration::MAX,
            mean: Duration::ZERO,
            round: (0, Duration::ZERO),
        };
        Self { permits: Semaphore::new(limit), state: Mutex::new(state) }
    }

    /// Waits for leave to send a request.
    ///
    /// # Panics
    /// Never: the semaphore is never closed.
    pub async fn acquire(&self) -> Permit<'_> {
        let permit = self.permits.acquire().await.expect("the semaphore is never closed");
        Permit { limit: self, held: Some(permit), since: Instant::now(), halvings: self.state().halvings }
    }

    /// How many may be in flight now.
    #[must_use]
    pub fn current(&self) -> usize {
        self.state().limit
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl State {
    fn time(&mut self, took: Duration) {
        self.mean = if self.mean.is_zero() { took } else { (self.mean * 63 + took) / 64 };
        let (answers, sum) = (self.round.0 + 1, self.round.1 + took);
        self.round = (answers, sum);
        if answers as usize == ROUND {
            self.best = self.best.min(sum / answers);
            self.round = (0, Duration::ZERO);
        }
    }

    /// It rises fast as long as this holds.
    #[expect(clippy::cast_precision_loss, reason = "1024 at most")]
    fn is_eager(&self) -> bool {
        let rate_is_low = (self.limit as f64) < DOCUMENTED * self.mean.as_secs_f64();
        self.halvings == 0 && (self.limit < FEW || rate_is_low)
    }

    fn is_queueing(&self) -> bool {
        self.best != Duration::MAX && self.mean > self.best.mul_f64(LONGER) + SLACK
    }
}

impl Permit<'_> {
    /// The store answered.
    pub fn answered(self) {
        let mut state = self.limit.state();
        if !state.adaptive {
            return;
        }
        state.time(self.since.elapsed());
        state.answers += 1;
        let wanted = if state.is_eager() { EAGER } else { state.limit };
        if state.is_queueing() {
            // Back down, a little for each round of answers.
            if state.answers >= state.limit && state.limit > START {
                let lower = (state.limit * 7 / 8).max(START);
                state.surplus += state.limit - lower;
                state.limit = lower;
                state.answers = 0;
            }
        } else if state.answers >= wanted && state.limit < RANGE.1 {
            state.answers = 0;
            state.limit += 1;
            if state.surplus > 0 {
                state.surplus -= 1;
            } else {
                self.limit.permits.add_permits(1);
            }
        }
    }

    /// The store said `SlowDown`.
    pub fn throttled(self) {
        let mut state = self.limit.state();
        if !state.adaptive || self.halvings != state.halvings {
            return;
        }
        let halved = (state.limit / 2).max(RANGE.0);
        state.surplus += state.limit - halved;
        state.limit = halved;
        state.halvings += 1;
        state.answers = 0;
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.limit.state();
        if state.surplus > 0
            && let Some(permit) = self.held.take()
        {
            state.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_limit_rises_with_answers_and_halves_once_for_a_burst_of_slow_downs() {
        let limit = Limit::adaptive();
        for _ in 0..EAGER * 32 {
            limit.acquire().await.answered();
        }
        assert_eq!(limit.current(), 64);
        let burst = [limit.acquire().await, limit.acquire().await, limit.acquire().await];
        for permit in burst {
            permit.throttled();
        }
        assert_eq!(limit.current(), 32);
        assert_eq!(limit.permits.available_permits() - limit.state().surplus, 32);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_downs_leave_one_request_in_flight_from_which_the_limit_rises_again() {
        let limit = Limit::adaptive();
        for _ in 0..20 {
            limit.acquire().await.throttled();
        }
        assert_eq!(limit.current(), 1);
        limit.acquire().await.answered();
        assert_eq!(limit.current(), 2);
        let _two = (limit.acquire().await, limit.acquire().await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_does_not_rise_where_requests_only_wait_for_each_other() {
        let limit = Limit::adaptive();
        for _ in 0..2 * ROUND {
            limit.acquire().await.answered();
        }
        let high = limit.current();
        for _ in 0..5 * high {
            let permit = limit.acquire().await;
            tokio::time::advance(Duration::from_millis(20)).await;
            permit.answered();
        }
        assert!(limit.current() < high, "{} instead of {high}", limit.current());
    }

    /// The limit after so many rounds of requests that all are answered after 30 ms.
    async fn after_rounds(rounds: usize) -> usize {
        let limit = Limit::adaptive();
        for _ in 0..rounds {
            let mut round = Vec::new();
            for _ in 0..limit.current() {
                round.push(limit.acquire().await);
            }
            tokio::time::advance(Duration::from_millis(30)).await;
            round.into_iter().for_each(Permit::answered);
        }
        limit.current()
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_rises_fast_to_the_rate_that_s3_takes_and_slowly_from_there() {
        // 5,500 a second, 30 ms each, are 165 in flight.
        assert_eq!(after_rounds(14).await, 165);
        assert_eq!(after_rounds(114).await, 265);
    }

    #[tokio::test(start_paused = true)]
    async fn a_fixed_limit_stays() {
        let limit = Limit::fixed(2);
        limit.acquire().await.throttled();
        limit.acquire().await.answered();
        assert_eq!(limit.current(), 2);
    }
}

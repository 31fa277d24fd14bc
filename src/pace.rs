//! How many keys a second may be deleted.
//!
//! S3 takes a number of writes a second of a prefix (3,500, "Best practices design patterns: optimizing Amazon S3
//! performance"), and each key of a `DeleteObjects` is one. A limit on requests in flight cannot keep to that: even one
//! request of 250 keys after the other, 30 ms each, is twice as many. So deletes have a rate of their own, which is
//! found as a limit in flight is: once the store has said `SlowDown`, it is cut to a little less than what the store
//! took just before, and rises slowly from there.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The time over which is counted what the store takes,
const WINDOW: Duration = Duration::from_secs(1);
/// the requests that are counted at least, since a store may take less than one of them a second,
const REQUESTS: usize = 4;
/// and how old these may be.
const OLDEST: Duration = Duration::from_secs(10);
/// What was taken in less than this is no rate.
const SHORTEST: Duration = Duration::from_millis(100);
/// What is left of the rate at a `SlowDown`.
const CUT: f64 = 0.9;
/// What a second of deleting adds to the rate, for each second since the cut: slowly near what the store takes, soon
/// more where it takes more by now.
const RISE: f64 = 0.01;
/// The seconds that are counted for it at most.
const LONGEST_RISE: f64 = 10.0;
/// What a request adds to the rate at most, or a few slow ones would lead to the next `SlowDown`.
const STEP: f64 = 0.015;
/// The rate after the first `SlowDown` at least, which may come before anything was taken.
const FIRST: f64 = 1_000.0;
/// The lowest rate, in keys a second.
const LEAST: f64 = 100.0;

/// Keys a second, as many as the store bears.
#[derive(Debug)]
pub struct Pace {
    /// Requests go one after the other, so that each goes by the rate of its own time.
    queue: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Keys a second; unlimited until the store first says `SlowDown`.
    rate: Option<f64>,
    /// When the next request may go.
    next: Instant,
    /// What the store took last, and when.
    taken: VecDeque<(Instant, usize)>,
    /// When the rate was last cut: refusals of requests from before say nothing about the new one.
    cut: Instant,
}

impl Default for Pace {
    fn default() -> Self {
        let now = Instant::now();
        let state = State { rate: None, next: now, taken: VecDeque::new(), cut: now };
        Self { queue: tokio::sync::Mutex::default(), state: Mutex::new(state) }
    }
}

impl Pace {
    /// Waits until a request for so many keys may go; returns when that was.
    pub async fn wait(&self, keys: usize) -> Instant {
        let _first = self.queue.lock().await;
        let next = self.state().next;
        sleep_until(next).await;
        let now = Instant::now();
        let mut state = self.state();
        if let Some(rate) = state.rate {
            state.next = now + Duration::from_secs_f64(count(keys) / rate);
        }
        now
    }

    /// The store took a request for so many keys.
    pub fn taken(&self, keys: usize) {
        let mut state = self.state();
        let now = Instant::now();
        state.forget(now);
        state.taken.push_back((now, keys));
        let rise = RISE * now.duration_since(state.cut).as_secs_f64().min(LONGEST_RISE);
        if let Some(rate) = &mut state.rate {
            *rate += (rise * count(keys)).min(STEP * *rate);
        }
    }

    /// The store said `SlowDown` to a request that went then.
    pub fn throttled(&self, since: Instant) {
        let mut state = self.state();
        if since < state.cut {
            return;
        }
        let now = Instant::now();
        state.forget(now);
        let taken = count(state.taken.iter().map(|(_, keys)| keys).sum());
        let first = state.taken.front().map_or(now, |(first, _)| *first);
        let taken = taken / now.duration_since(first).max(SHORTEST).as_secs_f64();
        // It may have taken little since little was asked.
        let found = state.rate.map_or(taken.max(FIRST), |rate| taken.clamp(rate / 2.0, rate));
        let rate = (found * CUT).max(LEAST);
        (state.rate, state.cut) = (Some(rate), now);
        tracing::debug!(rate, "the store said SlowDown: so many keys are deleted a second from now on");
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn forget(&mut self, now: Instant) {
        while let Some((at, _)) = self.taken.front()
            && now.duration_since(*at) > if self.taken.len() > REQUESTS { WINDOW } else { OLDEST }
        {
            self.taken.pop_front();
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "keys of a second, far below 2⁵²")]
fn count(keys: usize) -> f64 {
    keys as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that takes so many keys a second, and a second's worth at once, or one request when it rested as long; how
    /// many requests it took and refused.
    async fn delete(pace: &Pace, rate: f64, seconds: u64) -> (usize, usize) {
        let (begun, mut left, mut counted) = (Instant::now(), rate, Instant::now());
        let (mut taken, mut refused) = (0, 0);
        while begun.elapsed() < Duration::from_secs(seconds) {
            let since = pace.wait(250).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
            left = (left + rate * counted.elapsed().as_secs_f64()).min(rate);
            counted = Instant::now();
            if left < rate.min(250.0) {
                pace.throttled(since);
                refused += 1;
            } else {
                left -= 250.0;
                pace.taken(250);
                taken += 1;
            }
        }
        (taken, refused)
    }

    #[tokio::test(start_paused = true)]
    async fn deletes_find_the_rate_that_the_store_takes_and_are_seldom_refused() {
        let pace = Pace::default();
        delete(&pace, 3_500.0, 10).await;
        let (taken, refused) = delete(&pace, 3_500.0, 100).await;
        assert!(taken * 250 > 95 * 3_500, "{taken} requests in 100 s");
        assert!(refused < 50, "{refused} refusals");
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_of_a_store_that_takes_less_than_a_request_a_second_is_found_as_well() {
        let pace = Pace::default();
        delete(&pace, 175.0, 60).await;
        let (taken, _) = delete(&pace, 175.0, 1_000).await;
        assert!(taken * 250 > 850 * 175, "{taken} requests in 1,000 s");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_never_says_slow_down_is_never_waited_for() {
        let pace = Pace::default();
        let begun = Instant::now();
        for _ in 0..10_000 {
            pace.wait(250).await;
            pace.taken(250);
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn requests_that_were_refused_together_cut_the_rate_once() {
        let pace = Pace::default();
        delete(&pace, 3_500.0, 10).await;
        let before = pace.state().rate.expect("it was refused");
        let mut together = Vec::new();
        for _ in 0..20 {
            together.push(pace.wait(1).await);
        }
        for since in together {
            pace.throttled(since);
        }
        let after = pace.state().rate.expect("it was refused");
        assert!(after > before * 0.44, "{after} after {before}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_before_anything_was_taken_does_not_stop_the_deletes_for_minutes() {
        let pace = Pace::default();
        let since = pace.wait(250).await;
        pace.throttled(since);
        let (taken, _) = delete(&pace, 3_500.0, 30).await;
        assert!(taken * 250 > 15 * 3_500, "{taken} requests in 30 s");
    }

    #[tokio::test(start_paused = true)]
    async fn many_deletes_that_wait_at_once_find_the_rate_as_well() {
        let pace = Pace::default();
        let (begun, left) = (Instant::now(), std::cell::Cell::new((3_500.0, Instant::now())));
        let requests = (0..64).map(async |_| {
            let (mut taken, mut refused) = (0, 0);
            while begun.elapsed() < Duration::from_mins(1) {
                let since = pace.wait(250).await;
                tokio::time::sleep(Duration::from_millis(30)).await;
                let (tokens, counted) = left.get();
                let tokens = f64::min(tokens + 3_500.0 * counted.elapsed().as_secs_f64(), 3_500.0);
                let enough = tokens >= 250.0;
                left.set((if enough { tokens - 250.0 } else { tokens }, Instant::now()));
                if enough {
                    pace.taken(250);
                    taken += 1;
                } else {
                    pace.throttled(since);
                    refused += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
            (taken, refused)
        });
        let all = futures::future::join_all(requests).await;
        let (taken, refused) = all.iter().fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        assert!(taken * 250 > 57 * 3_500, "{taken} requests in 60 s");
        // The first time all of them are.
        assert!(refused < 2 * 64, "{refused} refusals");
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_takes_more_again_is_found_out() {
        let pace = Pace::default();
        delete(&pace, 500.0, 20).await;
        let (taken, _) = delete(&pace, 3_500.0, 300).await;
        assert!(taken * 250 > 200 * 3_500, "{taken} requests in 300 s");
    }
}

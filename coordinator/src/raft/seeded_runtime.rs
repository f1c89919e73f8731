//! The runtime that Raft runs on in a simulation: tokio, with random times that are drawn from a seed.
//!
//! The library's own wrapper keeps its seed with each task and panics in tasks that the gRPC server has made. Here the seed
//! belongs to the thread: a simulation has all of its nodes on one, and runs their tasks in an order that it can repeat.
//! A thread that was given no seed draws from the operating system, as without this.

use std::cell::Cell;
use std::future::Future;
use std::time::Duration;

use futures::FutureExt as _;
use openraft::{AsyncRuntime, OptionalSend};
use openraft_rt::deterministic_rng::DeterministicRng;
use openraft_rt_tokio::TokioRuntime;

type Seeded = DeterministicRng<TokioRuntime>;

thread_local! {
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Draws all random times of the nodes on this thread from this seed, from now on.
pub fn seed_raft(seed: u64) {
    SEED.set(Some(seed));
}

fn next_seed() -> u64 {
    match SEED.get() {
        Some(seed) => {
            SEED.set(Some(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)));
            seed
        }
        None => rand::random(),
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct SeededRuntime(TokioRuntime);

impl AsyncRuntime for SeededRuntime {
    type JoinError = <TokioRuntime as AsyncRuntime>::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::JoinHandle<T>;
    type Sleep = <TokioRuntime as AsyncRuntime>::Sleep;
    type Instant = <TokioRuntime as AsyncRuntime>::Instant;
    type TimeoutError = <TokioRuntime as AsyncRuntime>::TimeoutError;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = <TokioRuntime as AsyncRuntime>::Timeout<R, T>;
    type ThreadLocalRng = <Seeded as AsyncRuntime>::ThreadLocalRng;
    type Mpsc = <TokioRuntime as AsyncRuntime>::Mpsc;
    type Watch = <TokioRuntime as AsyncRuntime>::Watch;
    type Oneshot = <TokioRuntime as AsyncRuntime>::Oneshot;
    type Mutex<T: OptionalSend + 'static> = <TokioRuntime as AsyncRuntime>::Mutex<T>;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        TokioRuntime::sleep_until(deadline)
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        match Seeded::scope(next_seed(), async { Seeded::thread_rng() }).now_or_never() {
            Some(generator) => generator,
            None => unreachable!("there is nothing in it to wait for"),
        }
    }

    fn new(threads: usize) -> Self {
        Self(TokioRuntime::new(threads))
    }

    fn block_on<F, T>(&mut self, future: F) -> T
    where
        F: Future<Output = T>,
    {
        self.0.block_on(future)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_draws_and_no_seed_gives_others() {
        let draw = |seed: Option<u64>| {
            SEED.set(seed);
            format!("{:?}", [SeededRuntime::thread_rng(), SeededRuntime::thread_rng()])
        };
        assert_eq!(draw(Some(1)), draw(Some(1)));
        assert_ne!(draw(Some(1)), draw(Some(2)));
        assert_ne!(draw(None), draw(None));
    }
}

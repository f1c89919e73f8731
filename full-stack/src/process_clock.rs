//! The clocks of this process, which show simulated time while a run goes on.
//!
//! Our code is given its clocks. Libraries below it are not: h2 forgets after a second which streams were reset, and answers
//! what still arrives for them otherwise from then on; hyper writes the time into the `date` of each response. How often that
//! second passes while a run goes on would depend on how busy the machine is. Both ask the C library, through the standard
//! library, so this takes the place of the one function that they ask. Everybody else in the process asks it too, which is
//! right: no part of a run may depend on how fast the machine is.
//!
//! Waits are not touched: the kernel counts them by its own clock.
#![allow(unsafe_code)] // One function of C, which cannot be replaced or called otherwise.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::EPOCH;

/// Nobody simulates: clocks are the machine's.
const REAL: u64 = u64::MAX;

/// Simulated nanoseconds since the run began.
static ELAPSED: AtomicU64 = AtomicU64::new(REAL);
/// What clocks that only go forward showed when it began, so that they never go back.
static BEGAN: AtomicU64 = AtomicU64::new(0);

/// From now on the clocks show the time of a run that begins.
pub(crate) fn simulate() {
    BEGAN.store(nanoseconds(of_the_machine()), Ordering::Relaxed);
    show(Duration::ZERO);
}

/// So much simulated time has passed.
pub(crate) fn show(elapsed: Duration) {
    ELAPSED.store(nanoseconds(elapsed), Ordering::Relaxed);
}

/// What the machine's own clock shows, which only goes forward.
pub(crate) fn of_the_machine() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    ask_the_kernel(libc::CLOCK_MONOTONIC, &raw mut time);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn nanoseconds(time: Duration) -> u64 {
    time.as_nanos() as u64
}

fn ask_the_kernel(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    // SAFETY: the system call writes one `timespec`, and every caller passes on a pointer to one that it owns.
    unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as libc::c_int }
}

/// In the place of the C library's function of this name.
///
/// # Safety
///
/// As there: `time` points to a `timespec` that may be written.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> libc::c_int {
    let elapsed = ELAPSED.load(Ordering::Relaxed);
    let shown = match clock {
        _ if elapsed == REAL => return ask_the_kernel(clock, time),
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => EPOCH + Duration::from_nanos(elapsed),
        libc::CLOCK_MONOTONIC
        | libc::CLOCK_MONOTONIC_COARSE
        | libc::CLOCK_MONOTONIC_RAW
        | libc::CLOCK_BOOTTIME => Duration::from_nanos(BEGAN.load(Ordering::Relaxed) + elapsed),
        // How much of a processor was used.
        _ => return ask_the_kernel(clock, time),
    };
    let shown = libc::timespec {
        tv_sec: shown.as_secs() as libc::time_t,
        tv_nsec: shown.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the caller's promise.
    unsafe { time.write(shown) };
    0
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;

    /// The only test that calls this: the clocks of a process are shared by all of its tests.
    #[test]
    fn whoever_asks_the_standard_library_is_shown_simulated_time() {
        simulate();
        let began = Instant::now();
        assert_eq!(SystemTime::now(), SystemTime::UNIX_EPOCH + EPOCH);
        show(Duration::from_millis(31_500));
        assert_eq!(began.elapsed(), Duration::from_millis(31_500));
        assert_eq!(
            SystemTime::now(),
            SystemTime::UNIX_EPOCH + EPOCH + Duration::from_millis(31_500)
        );
        assert!(of_the_machine() > Duration::ZERO);
        ELAPSED.store(REAL, Ordering::Relaxed);
    }
}

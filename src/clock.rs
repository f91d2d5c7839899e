//! Monotonic time for polls and the watchdog.
//!
//! Polls are stamped with raw ticks: those of the time stamp counter where
//! quanta finds it invariant, else of the monotonic clock. Calibration takes 0.5
//! to 200 ms (quanta 0.13, `Calibration::calibrate`) and so happens in
//! [`calibrate`], which the watchdog's `start` calls, never in a poll.
//!
//! quanta decides and calibrates; a poll reads the counter itself, because
//! quanta's reading is a call that is not inlined: with it a poll took 30
//! instructions more (`cargo bench --bench poll_instructions`).

use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicU64};
use std::time::Duration;

use crate::os;

static CLOCK: OnceLock<Calibrated> = OnceLock::new();

/// What a poll reads: one of the following three.
static SOURCE: AtomicU8 = AtomicU8::new(NOTHING);
/// No watchdog has been started yet.
const NOTHING: u8 = 0;
const COUNTER: u8 = 1;
const QUANTA: u8 = 2;

/// Nanoseconds in 2^32 ticks.
static SCALE: AtomicU64 = AtomicU64::new(0);
const SCALE_BITS: u32 = 32;

#[derive(Debug)]
pub(crate) struct Calibrated {
    clock: quanta::Clock,
    epoch: Ticks,
}

/// A raw reading of the clock; zero is never read and stands for "not known".
pub(crate) type Ticks = u64;

/// Makes the clock ready; later calls cost one load.
pub(crate) fn calibrate() -> &'static Calibrated {
    CLOCK.get_or_init(|| {
        let clock = quanta::Clock::new();
        let epoch = clock.raw();
        SCALE.store(clock.delta_as_nanos(0, 1 << SCALE_BITS), Relaxed);
        let source = if reads_counter(&clock) {
            COUNTER
        } else {
            QUANTA
        };
        // Release: pairs with the acquire in `ticks`.
        SOURCE.store(source, Release);
        Calibrated { clock, epoch }
    })
}

/// Whether quanta's readings are the counter's: each lies between two of ours.
/// A clock in nanoseconds would have to count as the counter does, and from
/// when it does, to look like it.
fn reads_counter(clock: &quanta::Clock) -> bool {
    (0..8).all(|_| {
        let Some(before) = os::counter() else {
            return false;
        };
        let reading = clock.raw();
        before != 0 && before <= reading && os::counter().is_some_and(|after| reading <= after)
    })
}

/// Whether the time stamp counter is the clock.
pub(crate) fn is_counter() -> bool {
    SOURCE.load(Acquire) == COUNTER
}

/// Reads the clock; 0 where no watchdog has been started yet.
pub(crate) fn ticks() -> Ticks {
    match SOURCE.load(Acquire) {
        COUNTER => counter_ticks(),
        NOTHING => 0,
        _ => CLOCK.get().map_or(0, |calibrated| calibrated.clock.raw()),
    }
}

/// Reads the clock, where it is known that it [is the counter](is_counter).
#[inline]
pub(crate) fn counter_ticks() -> Ticks {
    os::counter().unwrap_or(0)
}

/// Nanoseconds from one reading to a later one; `None` where the later is not later.
#[inline]
pub(crate) fn ns_from_to(from: Ticks, to: Ticks) -> Option<u64> {
    let ticks = u128::from(to.checked_sub(from)?);
    // Relaxed: a reading is taken by a thread that has acquired `SOURCE` or, of
    // `counter_ticks`, a key that was made after it; so it has seen this.
    Some(((ticks * u128::from(SCALE.load(Relaxed))) >> SCALE_BITS) as u64)
}

/// A duration as all inner times are kept.
pub(crate) fn ns_of(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Calibrated {
    /// Nanoseconds since the clock was made ready; comparable with [`Calibrated::now_ns`].
    pub(crate) fn ns_of(&self, ticks: Ticks) -> u64 {
        ns_from_to(self.epoch, ticks).unwrap_or(0)
    }

    /// The present, in nanoseconds since the clock was made ready.
    pub(crate) fn now_ns(&self) -> u64 {
        self.ns_of(ticks())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn agrees_with_the_standard_clock() {
        let clock = calibrate();
        let from = clock.now_ns();
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(50));
        let inner = start.elapsed();
        let to = clock.now_ns();
        let outer = start.elapsed();
        let measured = Duration::from_nanos(to - from);
        // `from` and `to` were read just outside and inside of the two elapsed
        // times; a part in a thousand is what a calibration may be off.
        assert!(
            measured + measured / 1_000 >= inner,
            "{measured:?} < {inner:?}"
        );
        assert!(outer + outer / 1_000 + Duration::from_millis(20) >= measured);
    }

    #[test]
    fn time_never_runs_backwards() {
        let clock = calibrate();
        assert_eq!(ns_from_to(100, 100), Some(0));
        assert_eq!(ns_from_to(100, 50), None);
        let mut last = ticks();
        assert!(last != 0);
        for _ in 0..100_000 {
            let next = ticks();
            assert!(next >= last, "{next} < {last}");
            last = next;
        }
        assert!(clock.now_ns() >= clock.ns_of(last));
    }

    #[test]
    fn long_spans_are_as_quanta_has_them() {
        let clock = &calibrate().clock;
        for ticks in [1, 1_000, 1 << 32, 1 << 45, 1 << 60] {
            let expected = clock.delta_as_nanos(0, ticks);
            let off = ns_from_to(0, ticks).unwrap().abs_diff(expected);
            // The scale is rounded to 32 bits.
            assert!(off <= 1 + expected / (1 << 30), "{ticks}: {off} ns off");
        }
    }
}

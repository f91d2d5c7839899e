//! Monotonic time for polls and the watchdog.
//!
//! Polls are stamped with raw ticks (the time stamp counter where quanta finds
//! it invariant, else the monotonic clock), because turning ticks into
//! nanoseconds is left to whoever reads the stamp. Calibration takes 0.5 to
//! 200 ms (quanta 0.13, `Calibration::calibrate`) and so happens in
//! [`calibrate`], which the watchdog's `start` calls, never in a poll.

use std::sync::OnceLock;

static CLOCK: OnceLock<Calibrated> = OnceLock::new();

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
        Calibrated { clock, epoch }
    })
}

/// Reads the clock; 0 where no watchdog has been started yet.
#[inline]
pub(crate) fn ticks() -> Ticks {
    match CLOCK.get() {
        Some(calibrated) => calibrated.clock.raw(),
        None => 0,
    }
}

/// Nanoseconds from one reading to a later one; 0 where the later is not later.
#[inline]
pub(crate) fn ns_between(from: Ticks, to: Ticks) -> u64 {
    CLOCK.get().map_or(0, |clock| clock.ns_between(from, to))
}

impl Calibrated {
    #[inline]
    fn ns_between(&self, from: Ticks, to: Ticks) -> u64 {
        self.clock.delta_as_nanos(from, to)
    }

    /// Nanoseconds since the clock was made ready; comparable with [`Calibrated::now_ns`].
    pub(crate) fn ns_of(&self, ticks: Ticks) -> u64 {
        self.ns_between(self.epoch, ticks)
    }

    /// The present, in nanoseconds since the clock was made ready.
    pub(crate) fn now_ns(&self) -> u64 {
        self.ns_of(self.clock.raw())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

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
        assert_eq!(clock.ns_between(100, 100), 0);
        assert_eq!(clock.ns_between(100, 50), 0);
        assert!(ticks() != 0);
    }
}

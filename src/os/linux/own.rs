//! What the kernel tells a thread of itself.

use std::cell::OnceCell;
use std::fs::File;

use crate::os::Usage;
use crate::os::platform::thread::read_at_start;

thread_local! {
    /// Kept open, per thread; `None` where the system has no such file.
    static SCHEDSTAT: OnceCell<Option<File>> = const { OnceCell::new() };
}

/// What the calling thread has done in all; `None` where that cannot be told.
///
/// `slept` is what the kernel counts as voluntary context switches: the thread
/// gave up its CPU to wait for something (getrusage(2), `ru_nvcsw`; kernel 6.18,
/// `kernel/sched/core.c`, `__schedule`: of a task that was not running any more).
/// `sched_yield` does not count.
pub(crate) fn usage() -> Option<Usage> {
    let mut counts = Usage {
        // The dearest and least exact first: what it costs is not measured.
        wait_ns: wait_ns(),
        ..Usage::default()
    };
    count(&mut counts)?;
    Some(counts)
}

/// As [`usage`], at the end of what is measured: the counters are read first.
pub(crate) fn usage_after() -> Option<Usage> {
    let mut counts = Usage::default();
    count(&mut counts)?;
    counts.wait_ns = wait_ns();
    Some(counts)
}

/// How often the calling thread has slept.
#[cfg(all(feature = "interpose", target_env = "gnu"))]
pub(crate) fn sleeps() -> u64 {
    let mut counts = Usage::default();
    count(&mut counts).map_or(0, |()| counts.sleeps)
}

fn count(into: &mut Usage) -> Option<()> {
    // SAFETY: an all-zero rusage is a valid one; the kernel fills it.
    let mut rusage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `rusage` is valid for writes for the length of the call.
    if unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut rusage) } != 0 {
        return None;
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writes for the length of the call.
    if unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) } != 0 {
        return None;
    }
    let count = |number: libc::c_long| u64::try_from(number).unwrap_or(0);
    into.sleeps = count(rusage.ru_nvcsw);
    into.major_faults = count(rusage.ru_majflt);
    into.minor_faults = count(rusage.ru_minflt);
    into.cpu_ns = count(time.tv_sec) * 1_000_000_000 + count(time.tv_nsec);
    Some(())
}

/// How long the calling thread has waited for a CPU in all; see `ThreadProbe::wait_ns`.
fn wait_ns() -> u64 {
    let read = |file: &File| {
        let mut buffer = [0; 96];
        let text = read_at_start(file, &mut buffer)?;
        let number = text.split(u8::is_ascii_whitespace).nth(1)?;
        std::str::from_utf8(number).ok()?.parse().ok()
    };
    SCHEDSTAT
        .try_with(|file| {
            let file = file.get_or_init(|| File::open("/proc/thread-self/schedstat").ok());
            file.as_ref().and_then(read)
        })
        .ok()
        .flatten()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn sleeping_is_counted_and_computing_is_not() {
        let before = usage().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let slept = usage_after().unwrap();
        assert!(slept.sleeps > before.sleeps);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(5) {}
        std::thread::yield_now();
        let computed = usage_after().unwrap();
        assert_eq!(computed.sleeps, slept.sleeps);
        assert!(computed.cpu_ns > slept.cpu_ns);
    }
}

//! What the kernel tells a thread of itself.

use std::cell::OnceCell;
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use crate::os::Usage;
use crate::os::platform::thread::{self, clock_ns};

thread_local! {
    /// Kept open, per thread; `None` where the system has no such file.
    static SCHEDSTAT: OnceCell<Option<File>> = const { OnceCell::new() };
}

/// CPU time of the thread of this crate that looks at others, as it last said.
///
/// Not read from its clock: what the process's clock has of a thread that runs is
/// some milliseconds old (kernel 6.18, `kernel/sched/cputime.c`,
/// `thread_group_cputime`), and so would differ by as much as it runs at once.
static LEFT_OUT_NS: AtomicU64 = AtomicU64::new(0);

/// What the calling thread has done in all; `None` where that cannot be told.
///
/// `slept` is what the kernel counts as voluntary context switches: the thread
/// gave up its CPU to wait for something (getrusage(2), `ru_nvcsw`; kernel 6.18,
/// `kernel/sched/core.c`, `__schedule`: of a task that was not running any more).
/// `sched_yield` does not count.
///
/// With the moment that it is true of: a thread that waits for a CPU between two
/// readings would have that wait on one side only, so then all are read again.
pub(crate) fn usage() -> (Option<Usage>, Instant) {
    const TRIES: usize = 4;
    let mut counts = Usage::default();
    let mut at = Instant::now();
    for _ in 0..TRIES {
        let wait_ns = wait_ns();
        if count(&mut counts).is_none() {
            return (None, at);
        }
        counts.wait_ns = wait_ns;
        at = Instant::now();
        if self::wait_ns() == wait_ns {
            break;
        }
    }
    (Some(counts), at)
}

/// How often the calling thread has slept.
#[cfg(all(feature = "interpose", target_env = "gnu"))]
pub(crate) fn sleeps() -> u64 {
    let mut counts = Usage::default();
    count(&mut counts).map_or(0, |()| counts.sleeps)
}

/// How many pages the calling thread has had to wait for, or to copy. Costs a system call
/// that cannot wait.
pub(crate) fn page_faults() -> u64 {
    thread_usage().map_or(0, |usage| times(usage.ru_minflt) + times(usage.ru_majflt))
}

/// A count as the kernel gives it.
fn times(number: libc::c_long) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

fn thread_usage() -> Option<libc::rusage> {
    // SAFETY: an all-zero rusage is a valid one; the kernel fills it.
    let mut rusage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: `rusage` is valid for writes for the length of the call.
    let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut rusage) };
    (result == 0).then_some(rusage)
}

fn count(into: &mut Usage) -> Option<()> {
    let rusage = thread_usage()?;
    into.sleeps = times(rusage.ru_nvcsw);
    into.major_faults = times(rusage.ru_majflt);
    into.cpu_ns = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)?;
    let all_ns = clock_ns(libc::CLOCK_PROCESS_CPUTIME_ID)?;
    into.others_ns = all_ns.saturating_sub(into.cpu_ns + LEFT_OUT_NS.load(Relaxed));
    Some(())
}

/// Leaves the CPU time that the calling thread has had so far out of what [`usage`]
/// tells of others. For one thread of the process.
pub(crate) fn leave_out() {
    if let Some(ns) = clock_ns(libc::CLOCK_THREAD_CPUTIME_ID) {
        LEFT_OUT_NS.store(ns, Relaxed);
    }
}

/// Has the calling thread get a CPU soon after it wakes, for a short time, also
/// while others are busy.
///
/// A shorter slice than the default of some 3 ms lets a thread run earlier, not
/// more (kernel 6.12, `kernel/sched/fair.c`: `sched_attr::sched_runtime` of
/// SCHED_OTHER). Older kernels do not look at it. What else the program has been given,
/// as a nice value, stays. Only where the user has asked for it: systemd's
/// `SystemCallFilter=~@resources` kills a process for this call.
pub(crate) fn request_short_slice() {
    const SLICE_NS: u64 = 100_000;
    let mut attributes = Attributes::default();
    let size = size_of::<Attributes>();
    // SAFETY: `attributes` is as long as `size` says and lives through the calls; 0 is
    // the calling thread. Where one fails, the thread stays as it is.
    unsafe {
        let got = libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0);
        let policy = i32::try_from(attributes.policy);
        if got == 0 && matches!(policy, Ok(libc::SCHED_OTHER | libc::SCHED_BATCH)) {
            attributes.runtime = SLICE_NS;
            libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0);
        }
    }
}

/// Clocks of the process, for a thread that looks whether the process stood still.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessClocks {
    /// CPU time of the whole process, as of the scheduler's last ticks.
    pub(crate) cpu_ns: u64,
    /// How far the clock that runs on while the machine is suspended is ahead.
    pub(crate) suspended_ns: u64,
}

impl ProcessClocks {
    /// One system call and two readings of the vDSO, some 1 us, none of which can wait.
    pub(crate) fn now() -> Self {
        let clock = |clock| clock_ns(clock).unwrap_or(0);
        ProcessClocks {
            cpu_ns: clock(libc::CLOCK_PROCESS_CPUTIME_ID),
            suspended_ns: clock(libc::CLOCK_BOOTTIME).saturating_sub(clock(libc::CLOCK_MONOTONIC)),
        }
    }
}

/// The process's id; another in a child that was forked.
pub(crate) fn process_id() -> u32 {
    std::process::id()
}

/// Has the pages of the calling thread's stack that it will need there, so that no
/// later call waits for one.
#[inline(never)]
pub(crate) fn touch_stack() {
    const DEEP: usize = 128 * 1024;
    const PAGE: usize = 4096;
    let mut room = [0_u8; DEEP];
    for at in (0..DEEP).step_by(PAGE) {
        if let Some(byte) = room.get_mut(at) {
            // Not left out by the compiler: that the bytes are used is all it knows.
            *std::hint::black_box(byte) = 1;
        }
    }
    std::hint::black_box(&mut room);
}

/// `sched_attr` as far as the kernel has had it from the start (sched_setattr(2)).
#[repr(C)]
#[derive(Debug, Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// How long the calling thread has waited for a CPU in all; see `thread::wait_ns`.
pub(crate) fn wait_ns() -> u64 {
    SCHEDSTAT
        .try_with(|file| {
            let file = file.get_or_init(|| File::open("/proc/thread-self/schedstat").ok());
            file.as_ref().and_then(thread::wait_ns)
        })
        .ok()
        .flatten()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_thread_with_a_short_slice_is_as_nice_as_before() {
        // SAFETY: neither call has preconditions; 0 is the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        std::thread::spawn(move || {
            // SAFETY: as above.
            unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice() + 7) };
            let before = nice();
            request_short_slice();
            assert_eq!(nice(), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn sleeping_is_counted_and_computing_is_not() {
        let before = usage().0.unwrap();
        std::thread::sleep(Duration::from_millis(2));
        let slept = usage().0.unwrap();
        assert!(slept.sleeps > before.sleeps);
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(5) {}
        std::thread::yield_now();
        let computed = usage().0.unwrap();
        assert_eq!(computed.sleeps, slept.sleeps);
        assert!(computed.cpu_ns > slept.cpu_ns);
    }
}

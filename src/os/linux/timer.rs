//! One-shot timers on the CPU clock of another thread, whose signal never cuts a call short.
//!
//! A signal that is sent to a thread that was just seen running races with its next
//! system call: `nanosleep`, `poll`, `epoll_wait` and reads under a timeout then return
//! EINTR to the user's code, whatever `SA_RESTART` says.
//!
//! The clock of a thread moves only while the thread runs, so a timer on it expires only
//! then, at the scheduler's tick. What happens next depends on the kernel. Without
//! `CONFIG_POSIX_CPU_TIMERS_TASK_WORK` the tick itself makes the signal pending, and the
//! tick may have come in the middle of a system call that is about to sleep. With it the
//! tick only queues the work, which the thread does on its way back to user mode (commit
//! 1fb497dd0030, `kernel/time/posix-cpu-timers.c`; `TWA_RESUME` does not count as a
//! pending signal). A call that was under way has its result by then, and keeps it.
//!
//! Left over: a call that does such work before it sleeps. `io_uring_enter` does (kernel
//! 6.18, `io_uring/io_uring.h`, `io_run_task_work`), and `KVM_RUN`, which returns EINTR
//! for any signal by design.
//!
//! The option cannot be chosen: it is on where the architecture selects it. Those are
//! x86 since 5.9 ("x86: Select POSIX_CPU_TIMERS_TASK_WORK", merged with the tag
//! `timers-core-2020-08-14`) and arm64 since 5.16 (commit a68773bd32d9, merged with
//! "arm64 updates for 5.16"). So the architecture and the release decide. A kernel that
//! only claims to be such a one (gVisor) is found out by [`super::signal`], which tries a
//! timer on a thread of our own.
//!
//! The price is the wait for the tick: at 250 Hz up to 4 ms in which the thread runs.

use std::ffi::{CStr, c_int};

use crate::os::Miss;
use crate::os::platform::thread::clock_ns;

/// The first release that has it.
const SINCE: (u32, u32) = if cfg!(target_arch = "aarch64") {
    (5, 16)
} else {
    (5, 9)
};

/// Whether this kernel raises such a timer's signal on the way back to user mode.
pub(crate) fn are_harmless() -> bool {
    // SAFETY: all-zero is a valid `utsname`, arrays of characters.
    let mut name: libc::utsname = unsafe { std::mem::zeroed() };
    // SAFETY: `name` is a valid place for the kernel to write to.
    if unsafe { libc::uname(&raw mut name) } != 0 {
        return false;
    }
    // SAFETY: the kernel ends the release with a 0 within the array.
    let release = unsafe { CStr::from_ptr(name.release.as_ptr()) };
    release.to_str().is_ok_and(has_task_work)
}

fn has_task_work(release: &str) -> bool {
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .map(str::parse);
    matches!(
        (numbers.next(), numbers.next()),
        (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= SINCE
    )
}

/// How the kernel encodes the CPU clock of another thread of this process (kernel 6.18,
/// `include/linux/posix-timers_types.h`: `CPUCLOCK_PERTHREAD_MASK | CPUCLOCK_SCHED`).
const fn clock_of(tid: i32) -> libc::clockid_t {
    (!tid << 3) | 6
}

/// What the CPU clock of a thread shows; `None` once the thread is gone.
pub(crate) fn cpu_ns(tid: i32) -> Option<u64> {
    clock_ns(clock_of(tid))
}

/// A timer of the kernel's. Dropping it deletes it.
///
/// By the system calls themselves: glibc before 2.34 has their wrappers in a library of
/// their own.
#[derive(Debug)]
pub(crate) struct Timer(c_int);

impl Timer {
    /// Has a signal with this number sent to a thread of this process as soon as it runs,
    /// once. It needs a slot of `RLIMIT_SIGPENDING` until it is dropped.
    pub(crate) fn arm(signal: c_int, tid: i32, number: u64) -> Result<Self, Miss> {
        // SAFETY: all-zero is a valid sigevent.
        let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
        event.sigev_notify = libc::SIGEV_THREAD_ID;
        event.sigev_signo = signal;
        event.sigev_notify_thread_id = tid;
        event.sigev_value.sival_ptr =
            std::ptr::without_provenance_mut(usize::try_from(number).unwrap_or(0));
        let mut id: c_int = 0;
        // SAFETY: the kernel reads the event and writes the id, which live through the call.
        let created = unsafe {
            libc::syscall(
                libc::SYS_timer_create,
                clock_of(tid),
                &raw const event,
                &raw mut id,
            )
        };
        if created != 0 {
            let error = std::io::Error::last_os_error().raw_os_error();
            return Err(match error {
                Some(libc::EAGAIN) => Miss::SignalLimit,
                Some(libc::EINVAL | libc::ESRCH) if cpu_ns(tid).is_none() => Miss::Gone,
                _ => Miss::NotPermitted,
            });
        }
        let timer = Timer(id);
        let zero = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // As soon as it can be, and not again.
        let when = libc::itimerspec {
            it_interval: zero,
            it_value: libc::timespec { tv_nsec: 1, ..zero },
        };
        // SAFETY: the kernel reads the time, which lives through the call, and is asked for
        // no old one.
        let set = unsafe {
            libc::syscall(
                libc::SYS_timer_settime,
                timer.0,
                0,
                &raw const when,
                std::ptr::null_mut::<libc::itimerspec>(),
            )
        };
        match set {
            0 => Ok(timer),
            _ => Err(Miss::Gone),
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        // SAFETY: the timer is this one's, and is deleted once. Fails where it is gone.
        unsafe {
            libc::syscall(libc::SYS_timer_delete, self.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_known_by_their_release() {
        for release in ["6.18.44", "5.16.0-rc1", "5.16", "10.0", "6.1.0-9-amd64"] {
            assert!(has_task_work(release), "{release}");
        }
        for release in [
            "5.8.18",
            "4.19.0-gvisor",
            "4.4.0",
            "3.10.0-1160",
            "",
            "x",
            "6",
        ] {
            assert!(!has_task_work(release), "{release}");
        }
        let x86 = cfg!(target_arch = "x86_64");
        assert_eq!(has_task_work("5.9.0"), x86);
        assert_eq!(has_task_work("5.15.200"), x86);
    }
}

//! Linux: `/proc`, per-thread clocks, stacks.

#![allow(unsafe_code)]

mod calls;
mod capture;
#[cfg(test)]
mod cost;
mod modules;
mod position;
mod signal;
#[cfg(test)]
mod storm;
mod symbolize;
mod syscalls;
mod thread;
mod unwind;

pub(crate) use capture::Capturer;
pub(crate) use symbolize::Symbolizer;
pub(crate) use syscalls::syscall_name;
pub(crate) use thread::{ThreadProbe, thread_id};

/// The signal that running threads are asked with: ignored where nobody handles
/// it, passed on by debuggers, and used by no profiler.
pub(crate) const DEFAULT_SIGNAL: i32 = libc::SIGURG;

/// Whether a program may handle this signal, and it means no fault of its own.
pub(crate) fn is_usable_signal(signal: i32) -> bool {
    let faults = [
        libc::SIGILL,
        libc::SIGTRAP,
        libc::SIGABRT,
        libc::SIGBUS,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGSYS,
    ];
    let unchangeable = [libc::SIGKILL, libc::SIGSTOP];
    // Between the classic ones and these are the C library's own.
    (1..=31).contains(&signal) && !faults.contains(&signal) && !unchangeable.contains(&signal)
        || (libc::SIGRTMIN()..=libc::SIGRTMAX()).contains(&signal)
}

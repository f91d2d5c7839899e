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
mod syscalls;
mod thread;
mod unwind;

pub(crate) use capture::Capturer;
pub(crate) use syscalls::syscall_name;
pub(crate) use thread::{ThreadProbe, thread_id};

/// The signal that running threads are asked with: ignored where nobody handles
/// it, passed on by debuggers, and used by no profiler.
pub(crate) const DEFAULT_SIGNAL: i32 = libc::SIGURG;

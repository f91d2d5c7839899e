//! Linux: `/proc`, per-thread clocks, stacks.

#![allow(unsafe_code)]

use crate::blocking::Detection;

mod apart;
mod caller;
mod calls;
mod capture;
mod code;
mod computing;
mod control_group;
#[cfg(test)]
mod cost;
mod cpu_shortage;
mod debug_file;
mod depth;
mod directed;
mod dwarf;
#[cfg(all(test, target_arch = "x86_64"))]
#[allow(clippy::print_stdout, clippy::unwrap_used)]
mod eintr;
mod elf;
mod ends;
mod entry;
mod event;
#[cfg(all(feature = "interpose", target_env = "gnu"))]
mod file_calls;
mod files;
mod frame;
#[cfg(target_arch = "x86_64")]
mod guards;
mod handler;
mod image;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
mod instruction;
#[cfg(all(feature = "interpose", target_env = "gnu"))]
mod interpose;
mod known;
#[cfg(target_arch = "x86_64")]
mod landing;
mod loaded;
mod lock_wait;
#[cfg(target_arch = "x86_64")]
mod machine;
mod memory;
mod memory_left;
mod modules;
mod outline;
mod own;
mod own_stack;
mod paged;
mod position;
#[cfg(all(test, target_arch = "x86_64"))]
mod proof_tests;
mod ranges;
mod region;
#[cfg(target_arch = "x86_64")]
mod release;
mod request;
mod sections;
mod signal;
mod slice;
mod sources;
mod split;
#[cfg(test)]
mod storm;
mod symbol_table;
mod symbolize;
mod syscalls;
mod terminal;
mod thread;
mod timer;
mod unit;
mod units;
mod unwind;
#[cfg(all(feature = "interpose", target_env = "gnu"))]
mod walk;

pub(crate) use capture::Capturer;
pub(crate) use cpu_shortage::cpu_shortage;
pub(crate) use event::AutoResetEvent;
pub(crate) use modules::module_files;
pub(crate) use own::{
    ProcessClocks, leave_out, page_faults, process_id, request_short_slice, touch_stack, usage,
};
pub(crate) use own_stack::OwnStack;
pub(crate) use symbolize::Symbolizer;
pub(crate) use syscalls::syscall_name;
pub(crate) use terminal::terminal_columns;
pub(crate) use thread::{ThreadProbe, thread_comm, thread_id, thread_ids, thread_name, waits_ns};

/// Whether a system call waits on a futex, as locks do.
pub(crate) const fn is_futex(number: i64) -> bool {
    number == libc::SYS_futex
}

/// By what blocking is known here.
pub(crate) const DETECTION: Detection = if INTERPOSED {
    Detection::Calls
} else {
    Detection::Sleeps
};

/// Whether the C library's blocking calls go through ours.
const INTERPOSED: bool = cfg!(all(feature = "interpose", target_env = "gnu"));

/// Sees to it that [`INTERPOSED`] is true.
pub(crate) fn interpose() {
    #[cfg(all(feature = "interpose", target_env = "gnu"))]
    interpose::keep_linked();
}

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

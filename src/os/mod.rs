//! What only the operating system knows. The one place with `unsafe` code.
//!
//! Each platform has the same functions; where one cannot tell, it says so.

// What only some platforms can tell or fail in.
#![cfg_attr(not(target_os = "linux"), allow(dead_code))]

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Ticks;

#[cfg(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
))]
#[path = "linux/mod.rs"]
mod platform;

#[cfg(not(all(
    target_os = "linux",
    target_pointer_width = "64",
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
#[path = "fallback/mod.rs"]
mod platform;

pub(crate) use platform::{
    AutoResetEvent, Capturer, DEFAULT_SIGNAL, DETECTION, OwnStack, ProcessClocks, Symbolizer,
    ThreadProbe, cpu_shortage, interpose, is_futex, is_usable_signal, leave_out, module_files,
    page_faults, process_id, request_short_slice, syscall_name, terminal_columns, thread_comm,
    thread_id, thread_ids, thread_name, touch_stack, usage, waits_ns,
};

/// The processor's time stamp counter; `None` where there is none that can be
/// read as cheaply as that. Whether it is invariant is not known here.
#[inline]
pub(crate) fn counter() -> Option<u64> {
    #[cfg(target_arch = "x86_64")]
    {
        // SAFETY: every x86-64 processor has `rdtsc`; where the system has
        // forbidden it to programs (`prctl(PR_SET_TSC)`), std's clock, which
        // reads it in the vDSO, has been killing the process already.
        #[allow(unsafe_code)]
        Some(unsafe { std::arch::x86_64::_rdtsc() })
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

/// Whether running threads may be sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalUse {
    Off,
    Signal {
        number: i32,
        /// Whether the user has set it, and so vouches for timers under a filter.
        chosen: bool,
    },
}

/// What a thread is captured for.
#[derive(Clone, Copy)]
pub(crate) struct Subject<'a> {
    /// Tells it from all others of one [`Capturer`]: a late answer for one is never taken
    /// for another's.
    pub(crate) id: u64,
    /// The address that the stack must lead to; else it must lead to the thread's start.
    pub(crate) anchor: Option<u64>,
    /// Whether it goes on.
    pub(crate) still: &'a dyn Fn() -> bool,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject")
            .field("id", &self.id)
            .field("anchor", &self.anchor)
            .finish_non_exhaustive()
    }
}

/// What a stuck thread was doing.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) doing: Doing,
    /// tokio's id of the task that it polled, where it ran.
    pub(crate) task: Option<u64>,
    /// When a thread that ran was there; `None` for now.
    pub(crate) at: Option<Ticks>,
    /// Its stack, the innermost address first; all others are return addresses.
    pub(crate) stack: Result<Vec<u64>, Miss>,
    /// What it may wait for, if it sleeps on a futex.
    pub(crate) waits_for: Option<LockWait>,
    /// The locks, of those that were looked for, that it holds.
    pub(crate) holds: Vec<Held>,
}

/// What a thread that sleeps on a futex may wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LockWait {
    /// The locks that it can be, by where their words are.
    pub(crate) locks: Vec<Wanted>,
    /// The thread that owns the lock, if it is a mutex of pthreads.
    pub(crate) owner: Option<i32>,
}

/// A lock that some thread may wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where its word is.
    pub(crate) address: u64,
    pub(crate) kind: LockKind,
}

/// Whose lock it can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LockKind {
    /// std's `Mutex`, or its `RwLock`, which readers wait for.
    Std,
    /// std's `RwLock`, which writers wait for, elsewhere than at its word.
    StdWriter,
    /// One of `parking_lot`.
    ParkingLot,
}

/// A lock that a thread holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) lock: Wanted,
    /// The function with the guard: its place on the stack.
    pub(crate) frame: usize,
}

/// What a thread is doing at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// It runs, or could.
    Running,
    /// Asleep without having called the kernel: it waits for memory.
    Faulting,
    /// Asleep in the system call of this number.
    Blocked(i64),
}

impl Doing {
    pub(crate) const fn is_asleep(self) -> bool {
        matches!(self, Doing::Blocked(_) | Doing::Faulting)
    }
}

/// Whose files stay open first, where not all may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Importance {
    Worker,
    Other,
    /// It is read once.
    Never,
}

/// A thread's name, in place: it asks for no memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ThreadName {
    bytes: [u8; Self::ROOM],
    length: usize,
}

#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
impl ThreadName {
    /// Linux has names of 15 bytes, and shows them with an end of line.
    pub(crate) const ROOM: usize = 16;

    /// What is not UTF-8 at its end, or follows an end of line, is left out.
    pub(crate) fn new(shown: &[u8]) -> Option<Self> {
        let line = shown.split(|byte| *byte == b'\n').next()?;
        let valid = line.utf8_chunks().next()?.valid();
        let mut bytes = [0; Self::ROOM];
        let length = valid.len();
        bytes.get_mut(..length)?.copy_from_slice(valid.as_bytes());
        (length > 0).then_some(ThreadName { bytes, length })
    }
}

impl fmt::Display for ThreadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.bytes.get(..self.length).unwrap_or_default();
        f.write_str(std::str::from_utf8(name).unwrap_or_default())
    }
}

/// What a thread has done in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Activity {
    pub(crate) sleeps: u64,
    pub(crate) cpu_ns: u64,
}

impl Activity {
    /// Whether the thread has run since, without sleeping: so it is in no call
    /// that has slept. To return from one takes it less than this.
    pub(crate) const fn has_run_since(&self, before: &Activity) -> bool {
        self.sleeps == before.sleeps && self.cpu_ns > before.cpu_ns + SURELY_BACK_NS
    }
}

/// What a thread has done in all, by its own account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub(crate) sleeps: u64,
    /// Pages that had to be read from disk.
    pub(crate) major_faults: u64,
    pub(crate) cpu_ns: u64,
    /// CPU time of the process's other threads.
    pub(crate) others_ns: u64,
    /// Spent waiting for a CPU.
    pub(crate) wait_ns: u64,
}

impl Usage {
    /// What has come on top since an earlier account.
    pub(crate) const fn since(&self, before: &Usage) -> Usage {
        Usage {
            sleeps: self.sleeps.saturating_sub(before.sleeps),
            major_faults: self.major_faults.saturating_sub(before.major_faults),
            others_ns: self.others_ns.saturating_sub(before.others_ns),
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            wait_ns: self.wait_ns.saturating_sub(before.wait_ns),
        }
    }

    pub(crate) const fn plus(&self, more: &Usage) -> Usage {
        Usage {
            sleeps: self.sleeps.saturating_add(more.sleeps),
            major_faults: self.major_faults.saturating_add(more.major_faults),
            others_ns: self.others_ns.saturating_add(more.others_ns),
            cpu_ns: self.cpu_ns.saturating_add(more.cpu_ns),
            wait_ns: self.wait_ns.saturating_add(more.wait_ns),
        }
    }
}

/// How long a thread may need to return from a call that has slept.
pub(crate) const SURELY_BACK_NS: u64 = 50_000;

/// The file of a loaded module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModuleFile {
    pub(crate) path: PathBuf,
    pub(crate) bias: u64,
    pub(crate) range: Range<u64>,
    pub(crate) build_id: Option<Arc<str>>,
}

/// Why there is no stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Miss {
    /// The thread is gone.
    Gone,
    /// What it was captured for was over meanwhile.
    Moved,
    /// It could not be unwound to where it must lead.
    Unproven,
    /// A function on it has no unwind table, and its caller could not be proven.
    NoTables,
    /// The handler has not run yet; it may still.
    Late,
    /// It was not seen computing for so long that it is unlikely to wait next.
    Queued,
    /// As many captures were under way as there can be.
    Busy,
    /// The system hides it.
    NotPermitted,
    /// There is no `/proc`, or the kernel has not what is needed of it.
    NoProc,
    /// No file can be opened any more.
    NoDescriptors,
    /// The program has a handler of its own for our signal.
    HandlerTaken,
    /// The thread blocks our signal.
    SignalBlocked,
    /// As many signals are pending as the limit allows.
    SignalLimit,
    /// A handler would not fit on the thread's stack.
    NoRoom,
    /// The thread runs on a stack that is not its own.
    ForeignStack,
    /// Where the thread's stack lies is not known.
    UnknownStack,
    /// There are more frames than are unwound.
    TooDeep,
    /// There are more bytes than are copied.
    TooLarge,
    /// There is no memory for a copy of the stack.
    NoMemory,
    /// A filter of system calls is in force, which may kill for what a signal needs.
    Filtered,
    /// Signals are switched off, and the thread was running.
    SignalsOff,
    /// Not on this platform.
    #[cfg_attr(target_os = "linux", allow(dead_code))]
    NotSupported,
}

impl Miss {
    /// Why one of a thread's files in `/proc` cannot be opened.
    pub(crate) fn from_open(error: &io::Error) -> Self {
        /// "Too many open files", of the process and of the system (errno(3)).
        const EMFILE: i32 = 24;
        const ENFILE: i32 = 23;
        /// The thread has ended since.
        const ESRCH: i32 = 3;
        match (error.kind(), error.raw_os_error()) {
            // Some kernels have no such file of any thread.
            (io::ErrorKind::NotFound, _) if !Path::new("/proc/self/syscall").exists() => {
                Miss::NoProc
            }
            (io::ErrorKind::NotFound, _) => Miss::Gone,
            (_, Some(EMFILE | ENFILE)) => Miss::NoDescriptors,
            (_, Some(ESRCH)) => Miss::Gone,
            _ => Miss::NotPermitted,
        }
    }

    /// Whether it will not be otherwise the next time, so that it is worth saying.
    pub(crate) const fn is_lasting(self) -> bool {
        match self {
            Miss::Gone
            | Miss::Moved
            | Miss::Unproven
            | Miss::NoTables
            | Miss::Late
            | Miss::Queued
            | Miss::Busy => false,
            Miss::NotPermitted
            | Miss::NoProc
            | Miss::NoDescriptors
            | Miss::HandlerTaken
            | Miss::SignalBlocked
            | Miss::SignalLimit
            | Miss::NoRoom
            | Miss::ForeignStack
            | Miss::UnknownStack
            | Miss::TooDeep
            | Miss::TooLarge
            | Miss::NoMemory
            | Miss::Filtered
            | Miss::SignalsOff
            | Miss::NotSupported => true,
        }
    }
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Miss::Gone => "the thread is gone",
            Miss::Moved => "the thread has moved on",
            Miss::Unproven => {
                "the stack could not be proven: a return address does not follow a call that \
                 can have led there"
            }
            Miss::NoTables => {
                "a function on the stack has neither an unwind table nor a frame pointer that \
                 proves its caller: compile C code with `-fasynchronous-unwind-tables`"
            }
            Miss::Late => "the thread did not answer",
            Miss::Queued => "the thread was not seen to compute for long enough",
            Miss::Busy => "other captures were under way",
            Miss::NotPermitted => "the system does not permit it",
            Miss::NoProc => {
                "/proc/self/task/TID/syscall is not there: mount /proc in this \
                 container, if the kernel has the file"
            }
            Miss::NoDescriptors => {
                "no file could be opened: raise the limit of open files (RLIMIT_NOFILE)"
            }
            Miss::HandlerTaken => {
                "the program handles the signal itself: choose another with `Builder::signal`"
            }
            Miss::SignalBlocked => {
                "the thread blocks the signal: unblock it in the runtime's threads, or choose \
                 another with `Builder::signal`"
            }
            Miss::SignalLimit => {
                "no more signals can be pending: raise the limit (RLIMIT_SIGPENDING)"
            }
            Miss::NoRoom => {
                "a signal handler has no room on the thread: give it a larger stack, or a \
                 larger alternate one"
            }
            Miss::ForeignStack => {
                "the thread runs on a stack that is not its own, as a coroutine does"
            }
            Miss::UnknownStack => "where the thread's stack lies is not known",
            Miss::TooDeep => "the stack has too many frames",
            Miss::TooLarge => "the stack is too large to be copied",
            Miss::NoMemory => "not enough memory is left for a copy of the stack",
            Miss::Filtered => {
                "a filter of system calls is in force, which could kill for a timer, and \
                 the program has no socket that would show that it may send a signal by \
                 one: call `Builder::signal` with a signal if the filter permits `timer_create`"
            }
            Miss::SignalsOff => "the thread was running, and signals are off",
            Miss::NotSupported => "not on this platform",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_threads_name_ends_where_its_line_does() {
        let shown = |shown: &[u8]| ThreadName::new(shown).map(|name| name.to_string());
        assert_eq!(
            shown(b"tokio-rt-worker\n").as_deref(),
            Some("tokio-rt-worker")
        );
        assert_eq!(shown(b"a b").as_deref(), Some("a b"));
        assert_eq!(
            shown("cut \u{e9}".as_bytes().split_last().unwrap().1).as_deref(),
            Some("cut ")
        );
        assert_eq!(shown(b"\n"), None);
        assert_eq!(shown(b"seventeen letters"), None, "no name of Linux's");
    }
}

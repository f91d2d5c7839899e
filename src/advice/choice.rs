//! Which kind of blocking a stack shows: a pure function of cause and frames.

use crate::advice::kinds::{
    COMPUTE, DISK, FAULT, FILE, Kind, LOCK, STARVED, SUSPENDED, UNKNOWN, UNSEEN, UNSEEN_COMPUTE,
    UNSEEN_LOCK, WAIT,
};
use crate::advice::operations::{OPERATIONS, Operation, Reach, SYSCALLS, When};
use crate::advice::path::Paths;
use crate::owner::{self, Ownership};
use crate::stall::{Cause, Frame};

/// A kind, and whose call it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice {
    pub(super) kind: &'static Kind,
    /// The user's code called a library that made the call.
    pub(super) by_library: bool,
}

impl From<&'static Kind> for Choice {
    fn from(kind: &'static Kind) -> Self {
        Choice {
            kind,
            by_library: false,
        }
    }
}

/// The kind of blocking that frames, the innermost first, show together with the cause.
/// `culprit` is the innermost of the user's code.
pub(super) fn choose(cause: &Cause, frames: &[Frame], culprit: Option<usize>) -> Choice {
    let when = match cause {
        Cause::Starved => return STARVED.into(),
        Cause::Suspended => return SUSPENDED.into(),
        Cause::PageFault => return FAULT.into(),
        Cause::OnCpu => Some(When::Computing),
        Cause::Blocked { .. } => Some(When::Blocked),
        Cause::Lock => Some(When::Locked),
        Cause::Unknown => None,
    };
    let place = Place::new(when, frames, culprit);
    if let Some(choice) = place.known() {
        // Without a line of the program's, whose file it is is not known.
        let is_disk = choice.kind.name == FILE.name && !place.is_users();
        return if is_disk { DISK.into() } else { choice };
    }
    let unknown = if place.is_users() { UNKNOWN } else { UNSEEN };
    let kind = match cause {
        Cause::Lock if !place.is_users() => UNSEEN_LOCK,
        Cause::Lock => {
            return Choice {
                kind: LOCK,
                by_library: place.waits_in_library(),
            };
        }
        Cause::OnCpu if place.is_users() => COMPUTE,
        Cause::OnCpu => UNSEEN_COMPUTE,
        Cause::Blocked { syscall } => SYSCALLS
            .iter()
            .find(|(names, _)| names.split_ascii_whitespace().any(|name| name == syscall))
            .map_or(unknown, |(_, kind)| match kind.name {
                // Who waits so may be the runtime.
                name if name == WAIT.name && !place.is_users() => UNSEEN,
                name if name == FILE.name && !place.is_users() => DISK,
                _ => kind,
            }),
        _ => unknown,
    };
    kind.into()
}

/// What of a stack is within one poll.
struct Place<'a> {
    when: Option<When>,
    paths: Vec<Paths<'a>>,
    culprit: Option<usize>,
}

impl<'a> Place<'a> {
    fn new(when: Option<When>, frames: &'a [Frame], culprit: Option<usize>) -> Self {
        let paths: Vec<Paths<'_>> = frames.iter().map(Paths::of).collect();
        let end = end_of_poll(frames, &paths);
        Place {
            when,
            culprit: culprit.filter(|culprit| *culprit < end),
            paths: paths.into_iter().take(end).collect(),
        }
    }

    const fn is_users(&self) -> bool {
        self.culprit.is_some()
    }

    /// Whether the user's code called a library whose own lock is waited for.
    fn waits_in_library(&self) -> bool {
        let mut called = self.paths.iter().take(self.culprit.unwrap_or(0));
        called.any(|paths| paths.is_of_library() && !paths.fit(LOCKS))
    }

    fn known(&self) -> Option<Choice> {
        // What the user's code called; without any of the user's, all that ran.
        let called = self.culprit.unwrap_or(self.paths.len());
        let (inner, outer) = (0..called, called..self.paths.len());
        let plain = |reach| matches!(reach, Reach::Call | Reach::Primitive | Reach::Around);
        let leaf = |at: usize| !self.paths.iter().take(at).any(Paths::is_of_library);
        (0..self.paths.len())
            .find_map(|at| {
                self.operation(at, |reach| match reach {
                    Reach::Anywhere => true,
                    Reach::Leaf => leaf(at) && at < called,
                    _ => false,
                })
            })
            .or_else(|| inner.clone().rev().find_map(|at| self.operation(at, plain)))
            .or_else(|| {
                inner
                    .into_iter()
                    .find_map(|at| self.operation(at, |reach| reach == Reach::Rest))
            })
            .or_else(|| {
                outer
                    .into_iter()
                    .find_map(|at| self.operation(at, |reach| reach == Reach::Around))
            })
    }

    /// The first row that fits this function, of those that reach so far.
    fn operation(&self, at: usize, reaches: impl Fn(Reach) -> bool) -> Option<Choice> {
        let paths = self.paths.get(at)?;
        let further_out = self.paths.get(at + 1..).unwrap_or(&[]);
        let fits = |row: &&Operation| {
            reaches(row.reach)
                && self.when.is_none_or(|when| row.when.contains(&when))
                && paths.fit(row.calls)
                && (row.inside.is_empty() || further_out.iter().any(|out| out.fit(row.inside)))
        };
        let row = OPERATIONS.iter().find(fits)?;
        let called = self.culprit.unwrap_or(self.paths.len());
        let between = self.paths.get(at + 1..called).unwrap_or(&[]);
        Some(Choice {
            kind: row.kind,
            by_library: row.reach == Reach::Primitive && between.iter().any(Paths::is_of_library),
        })
    }
}

fn is_at(frame: &Frame, folder: &str) -> bool {
    frame.file().is_some_and(|file| file.contains(folder))
}

/// Libraries of locks: who holds such a lock is who uses them.
const LOCKS: &str =
    "async_lock dashmap lock_api once_cell parking_lot parking_lot_core scc spin tokio";

/// Functions of tokio that poll a task.
const TASKS: &str = "tokio::runtime::task::core::..::poll* tokio::runtime::task::harness::..::poll* \
    tokio::runtime::task::raw::..::poll*";
/// Functions of tokio that poll the future that a runtime was started for.
const ROOTS: &str = "tokio::runtime::scheduler::..::block_on tokio::runtime::..::CachedParkThread::block_on \
    tokio::runtime::park::block_on";
/// With these a thread begins.
const BEGINNINGS: &str = "extern::main extern::_start extern::__libc_start* extern::start_thread extern::clone* \
    extern::__clone* std::rt std::sys::backtrace::__rust_begin_short_backtrace";

/// The index of the function that polls, which is the end of what the poll does.
///
/// A runtime's own `block_on` polls what it was started for. One within a poll does
/// what that poll does: then another polls further out, or the stack ends there.
fn end_of_poll(frames: &[Frame], paths: &[Paths<'_>]) -> usize {
    let polls = |at: usize| {
        let (Some(frame), Some(paths)) = (frames.get(at), paths.get(at)) else {
            return false;
        };
        // Calls of the C library go through this crate's in tests, by the library's names.
        let is_call = paths.fit("stallscope::os") || is_at(frame, "/src/os/");
        paths.fit(TASKS) || owner::is_own(frame) && !is_call
    };
    let is_root = |at: usize| paths.get(at).is_some_and(|paths| paths.fit(ROOTS));
    let from_beginning = paths.iter().any(|paths| paths.fit(BEGINNINGS));
    let ownership = Ownership::default();
    let is_outermost = |at: usize| {
        let outer = frames.iter().enumerate().skip(at);
        let users = outer.skip_while(|(_, frame)| !ownership.is_users(frame));
        from_beginning && !users.into_iter().any(|(out, _)| polls(out) || is_root(out))
    };
    (1..frames.len())
        .find(|at| polls(*at) || is_root(*at) && is_outermost(*at))
        .unwrap_or(frames.len())
}

//! What a poll's account and what was seen of it speak for: pure functions.

use crate::audit::session::{Call, Noted};
use crate::cause;
use crate::os::Doing;
use crate::owner;
use crate::stall::{Cause, Stack};
use crate::trim;

/// A sighting, explained.
pub(super) struct Seen {
    pub(super) cause: Cause,
    pub(super) stack: Option<Stack>,
    /// How often.
    pub(super) seen: u32,
}

/// Whether a panicking thread was seen at its message.
pub(super) fn at_its_panic(noted: &Noted, seen: &Seen) -> bool {
    let frames = seen.stack.as_ref().map(|stack| &stack.frames[..]);
    noted.panicked && frames.is_none_or(trim::passes_panic)
}

pub(super) fn elsewhere(stack: Option<&Stack>) -> bool {
    stack.is_some_and(|stack| trim::passes_block_in_place(&stack.frames))
}

pub(super) fn cause_of(doing: Option<Doing>) -> Cause {
    // Of one look, which its stack is of; what its poll was spent on is measured.
    if doing == Some(Doing::Running) {
        return Cause::OnCpu;
    }
    let judgement = cause::judge(&cause::Evidence {
        last: doing,
        ..cause::Evidence::default()
    });
    judgement.into()
}

pub(super) fn blocked_in(call: &Call) -> Cause {
    // What pthread's functions wait on.
    let name = match call.name {
        "pthread_mutex_lock" | "pthread_rwlock_rdlock" | "pthread_rwlock_wrlock" => {
            return Cause::Lock;
        }
        name => name,
    };
    Cause::Blocked {
        syscall: name.to_owned(),
    }
}

pub(super) fn refined(cause: Cause, stack: Option<&Stack>) -> Cause {
    match stack {
        Some(stack) => cause::refine(cause, stack),
        None => cause,
    }
}

/// Whether what was seen from outside is one of the calls seen from within.
pub(super) fn is_called(seen: &Seen, calls: &[(Call, Option<Stack>)]) -> bool {
    if calls.is_empty() || seen.cause == Cause::PageFault {
        return false;
    }
    match &seen.stack {
        Some(stack) => stack.frames.iter().any(owner::passes_on_calls),
        None => calls.iter().any(|(call, _)| call.sleeps > 0),
    }
}

/// Why a poll was long, by where most of its time went.
pub(super) fn why(
    noted: &Noted,
    calls: &[(Call, Option<Stack>)],
    seen: &[Seen],
) -> (Cause, Option<Stack>) {
    let usage = noted.spent.usage;
    let off_ns = noted.off_ns();
    let most_seen = |on_cpu: bool| {
        seen.iter()
            .filter(|seen| (seen.cause == Cause::OnCpu) == on_cpu)
            .max_by_key(|seen| seen.seen)
    };
    let computed = usage.sleeps == 0 || usage.cpu_ns >= off_ns;
    if noted.measured && computed && !noted.panicked {
        let stack = most_seen(true).and_then(|seen| seen.stack.clone());
        return (Cause::OnCpu, stack);
    }
    let longest = calls.iter().max_by_key(|(call, _)| call.wall_ns);
    if let Some((call, stack)) = longest
        && call.wall_ns >= off_ns / 2
    {
        return (refined(blocked_in(call), stack.as_ref()), stack.clone());
    }
    match most_seen(false) {
        Some(seen) => (seen.cause.clone(), seen.stack.clone()),
        None if usage.major_faults > 0 && !noted.panicked => (Cause::PageFault, None),
        None => (Cause::Unknown, None),
    }
}

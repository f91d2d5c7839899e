//! Which of the locks that others wait for a captured thread holds, and in which function.

use crate::os::platform::code::Code;
use crate::os::platform::modules::Module;
use crate::os::platform::release::{AtCall, Next, next};
use crate::os::platform::unwind::{Kept, StackCopy, Unwound};
use crate::os::{Held, Wanted};

/// The numbers of [`Kept`] in DWARF (System V ABI, x86-64, figure 3.36).
const IN_DWARF: [u16; 6] = [3, 6, 12, 13, 14, 15];

/// The locks that the thread holds, of a stack that is proven.
///
/// Of what concerns one lock the innermost function decides: one that is about to take the
/// lock again, as after a wait on a condition, does not hold it, whoever called it. Where
/// it is not known what a function does next with the lock, nothing is known of its callers.
pub(crate) fn held(
    modules: &[Module],
    frames: &[Unwound],
    kept: Kept,
    stack: &StackCopy,
    wanted: &[Wanted],
) -> Vec<Held> {
    let mut left: Vec<Wanted> = wanted.to_vec();
    let mut found = Vec::new();
    let mut kept = kept;
    for (at, frame) in frames.iter().enumerate() {
        if left.is_empty() {
            break;
        }
        let end = frames.get(at + 1).map(|outer| outer.sp);
        let call = AtCall {
            pc: frame.pc,
            is_return: frame.is_return,
            sp: frame.sp,
            kept,
            stack,
        };
        left.retain(|lock| {
            if !is_seen(&call, end, *lock) {
                return true;
            }
            let next = next(modules, &call, *lock);
            if next == Next::LetsGo {
                found.push(Held {
                    lock: *lock,
                    frame: at,
                });
            }
            next == Next::Nothing
        });
        match end {
            Some(end) => kept = callers(modules, frame, kept, end, stack),
            None => break,
        }
    }
    found
}

/// Whether the lock's address is anywhere in the frame, without which nothing of it can let
/// the lock go: most frames need not be looked at any closer.
fn is_seen(frame: &AtCall<'_>, end: Option<u64>, lock: Wanted) -> bool {
    /// What is not looked at closer of a huge frame.
    const MOST: u64 = 64 * 1024;
    let end = end.unwrap_or(frame.sp).min(frame.sp.saturating_add(MOST));
    let mut words = (frame.sp..end).step_by(8);
    frame.kept.contains(&Some(lock.address))
        || words.any(|word| frame.stack.read(word) == Ok(lock.address))
}

/// The registers as the caller had them; `end` is where its own part of the stack begins.
fn callers(
    modules: &[Module],
    frame: &Unwound,
    mut kept: Kept,
    end: u64,
    stack: &StackCopy,
) -> Kept {
    let address = frame.pc.saturating_sub(u64::from(frame.is_return));
    let known = modules.saves(address, &mut |register, saved| {
        let place = IN_DWARF.iter().position(|number| *number == register);
        if let Some(kept) = place.and_then(|place| kept.get_mut(place)) {
            *kept = saved.and_then(|offset| stack.read(end.wrapping_add_signed(offset)).ok());
        }
    });
    known.map_or([None; 6], |()| kept)
}

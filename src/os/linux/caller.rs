//! Where the return address of a frame lies whose unwind table does not say, or that has none.
//!
//! Three things can show it, each with a return address that agrees with the frame (see
//! [`calls`]):
//! - the instructions from the function's start on, which say how much it has on the stack
//!   ([`depth`]). The start is that of the table; without one, that of a direct call;
//! - of a function without a table: the frame pointer, if the thread has said what it is and
//!   nothing nearer on the stack agrees as well. Code without frame pointers leaves another
//!   function's in the register, and its own return address is then the nearer one;
//! - what is left over: see `Unwinder::found`.

use crate::os::platform::calls::{self, Agreement};
use crate::os::platform::code::{self, Code};
use crate::os::platform::depth::{Depth, FramePointer, depth};

/// How far up the return address of a function without a table is looked for.
const SEARCH: u64 = 64 * 1024;
/// Functions that are longer are not followed.
const LONGEST: usize = 256 * 1024;

/// A frame to be left.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// A return address, unless it is where the thread itself is.
    pub(crate) pc: u64,
    pub(crate) is_return: bool,
    pub(crate) sp: u64,
    /// `None` where it is not known.
    pub(crate) fp: Option<u64>,
}

/// What its caller goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) back: u64,
    pub(crate) sp: u64,
    pub(crate) fp: Option<u64>,
}

type ReadStack<'a> = &'a dyn Fn(u64) -> Option<u64>;

impl Place {
    /// An address within the function, also where a call is the last thing in it.
    pub(crate) const fn inner(&self) -> u64 {
        self.pc.saturating_sub(self.is_return as u64)
    }
}

/// What the function at `place`, which a table describes, has on the stack.
pub(crate) fn depth_at<C: Code + ?Sized>(code: &C, place: &Place) -> Option<Depth> {
    let function = code.function_at(place.inner())?;
    let bytes = code::bytes(code, &function, LONGEST);
    depth(function.start, &bytes, place.pc, place.is_return)
}

/// The caller of a function that no table describes.
pub(crate) fn without_table<C: Code + ?Sized>(
    code: &C,
    stack: ReadStack<'_>,
    place: &Place,
) -> Option<Caller> {
    let by_frame_pointer = place
        .fp
        .filter(|fp| *fp >= place.sp && fp.is_multiple_of(8));
    let mut rivals = false;
    let up_to = place.sp.saturating_add(SEARCH);
    for slot in (place.sp..up_to).step_by(8) {
        let Some(back) = stack(slot) else { break };
        let below = by_frame_pointer.is_some_and(|fp| slot < fp + 8);
        // Above the frame pointer, only what is surely a call of it counts.
        if !below && !code.is_code(back) {
            continue;
        }
        if let Some(entry) = calls::entry(code, back, place.inner())
            && let Some(caller) = by_entry(code, stack, place, slot, entry)
        {
            return Some(caller);
        }
        rivals |= below && calls::agreement(code, back, place.inner()) > Agreement::None;
    }
    let fp = by_frame_pointer.filter(|_| !rivals)?;
    let back = stack(fp + 8)?;
    let agrees = calls::agreement(code, back, place.inner()) > Agreement::None;
    agrees.then(|| Caller {
        back,
        sp: fp + 16,
        fp: stack(fp),
    })
}

/// The caller by a direct call, if its return address lies where the instructions from
/// there on say.
fn by_entry<C: Code + ?Sized>(
    code: &C,
    stack: ReadStack<'_>,
    place: &Place,
    slot: u64,
    entry: u64,
) -> Option<Caller> {
    /// After where the function is, some jumps lead back.
    const BEYOND: u64 = 256;
    let range = entry..place.pc.checked_add(BEYOND)?;
    let bytes = code::bytes(code, &range, LONGEST);
    let depth = depth(entry, &bytes, place.pc, place.is_return)?;
    let end = place.sp.checked_add(depth.stack)?;
    (end == slot + 8).then_some(())?;
    Some(Caller {
        back: stack(slot)?,
        sp: end,
        fp: match depth.frame_pointer {
            FramePointer::Kept => place.fp,
            FramePointer::Saved(down) => Some(stack(end.checked_sub(down)?)?),
            FramePointer::Lost => None,
        },
    })
}

#[cfg(test)]
#[path = "caller_tests.rs"]
mod tests;

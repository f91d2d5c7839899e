//! How much a function has on the stack where it is, by its instructions.
//!
//! Unwind tables say of most frames where the return address lies, counted from the stack
//! pointer. Of a function with a frame pointer they count from that, and nobody says what
//! the frame pointer of a sleeping thread is. The instructions from the function's start on
//! say how far it has moved the stack pointer since, whichever way it came: a function
//! whose frame is of changing size there has no answer.

use crate::os::platform::instruction::{Does, decode};

/// Larger functions have no answer.
const LONGEST: usize = 256 * 1024;
/// A call has left the return address on the stack, and nothing else.
const AT_ENTRY: i64 = 8;
/// More on the stack than this is a mistake.
const MOST: i64 = 1 << 30;

/// What a frame has on the stack. All are distances down from its end, which is right
/// above the return address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Depth {
    /// Of the stack pointer.
    pub(crate) stack: u64,
    pub(crate) frame_pointer: FramePointer,
}

/// Where the caller's frame pointer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramePointer {
    /// In its register still.
    Kept,
    /// So far down on the stack.
    Saved(u64),
    /// Nobody knows.
    Lost,
}

/// What is known before an instruction. Where two ways meet, what both agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    stack: Option<i64>,
    /// What the frame pointer is, where it is one.
    frame: Option<i64>,
    /// Where the caller's was pushed.
    saved: Option<i64>,
    kept: bool,
}

struct Flow<'a> {
    start: u64,
    code: &'a [u8],
    before: Vec<Option<State>>,
    to_do: Vec<(usize, State)>,
    /// What is known where jumps go by a table.
    tables: Option<State>,
}

/// The depth at `at`, a return address or where the next instruction is, of a function
/// that begins at `start`, where `code` does.
pub(crate) fn depth(start: u64, code: &[u8], at: u64, is_return: bool) -> Option<Depth> {
    if code.len() > LONGEST {
        return None;
    }
    let offset = usize::try_from(at.checked_sub(start)?).ok()?;
    let mut before = Vec::new();
    before.try_reserve_exact(code.len()).ok()?;
    before.resize(code.len(), None);
    let entry = State {
        stack: Some(AT_ENTRY),
        frame: None,
        saved: None,
        kept: true,
    };
    let mut flow = Flow {
        start,
        code,
        before,
        to_do: vec![(0, entry)],
        tables: None,
    };
    flow.run();
    if flow.at(offset, is_return).is_none() {
        flow.run_after_tables();
    }
    flow.at(offset, is_return)?.depth()
}

impl State {
    fn depth(self) -> Option<Depth> {
        let frame_pointer = match (self.kept, self.saved) {
            (true, _) => FramePointer::Kept,
            (false, Some(saved)) => FramePointer::Saved(u64::try_from(saved).ok()?),
            (false, None) => FramePointer::Lost,
        };
        Some(Depth {
            stack: u64::try_from(self.stack?).ok()?,
            frame_pointer,
        })
    }

    fn merged(self, other: State) -> State {
        let kept = self.kept && other.kept;
        State {
            stack: self.stack.filter(|_| self.stack == other.stack),
            frame: self.frame.filter(|_| self.frame == other.frame),
            saved: self.saved.filter(|_| self.saved == other.saved),
            kept,
        }
    }

    fn moved(&mut self, down: i64) {
        let stack = self.stack.map(|stack| stack.saturating_add(down));
        self.stack = stack.filter(|stack| (AT_ENTRY..MOST).contains(stack));
    }

    fn after(mut self, does: Does) -> State {
        match does {
            Does::Push { frame_pointer } => {
                self.moved(8);
                if frame_pointer && self.kept {
                    self.saved = self.stack;
                }
            }
            Does::Pop { frame_pointer } => {
                if frame_pointer {
                    self.pops_frame_pointer();
                }
                self.moved(-8);
            }
            Does::Moves(up) => self.moved(up.saturating_neg()),
            Does::ToFramePointer(up) => {
                self.stack = self.frame;
                self.moved(up.saturating_neg());
            }
            Does::SetsFramePointer(up) => {
                self.frame = self.stack.map(|stack| stack.saturating_sub(up));
                self.kept = false;
            }
            Does::SpoilsFramePointer => {
                self.frame = None;
                self.kept = false;
            }
            Does::SpoilsStackPointer => self.stack = None,
            Does::Leave => {
                self.stack = self.frame;
                self.pops_frame_pointer();
                self.moved(-8);
            }
            _ => {}
        }
        self
    }

    fn pops_frame_pointer(&mut self) {
        self.frame = None;
        self.kept = self.stack.is_some() && self.saved == self.stack;
    }
}

impl Flow<'_> {
    /// Follows all ways through the code, until nothing more becomes known, or unknown.
    fn run(&mut self) {
        while let Some((offset, state)) = self.to_do.pop() {
            self.follow(offset, state);
        }
    }

    fn follow(&mut self, mut offset: usize, mut state: State) {
        while let Some(before) = self.before.get_mut(offset) {
            if let Some(known) = *before {
                state = known.merged(state);
                if state == known {
                    return;
                }
            }
            *before = Some(state);
            let Some((length, does)) = self.decode(offset) else {
                return;
            };
            match does {
                Does::Jump(target) => return self.go_to(target, state),
                Does::Branch(target) => self.go_to(target, state),
                Does::JumpSomewhere | Does::JumpByWord(_) => {
                    let known = self.tables.map_or(state, |known| known.merged(state));
                    self.tables = Some(known);
                    return;
                }
                Does::End => return,
                _ => {}
            }
            state = state.after(does);
            offset += length;
        }
    }

    fn decode(&self, offset: usize) -> Option<(usize, Does)> {
        let address = self.start.wrapping_add(offset as u64);
        decode(address, self.code.get(offset..)?)
    }

    fn go_to(&mut self, target: u64, state: State) {
        let offset = target.wrapping_sub(self.start);
        if let Ok(offset) = usize::try_from(offset)
            && offset < self.code.len()
        {
            self.to_do.push((offset, state));
        }
    }

    /// Goes on with what only a table's jump can lead to: what no way has led to.
    fn run_after_tables(&mut self) {
        let Some(state) = self.tables else {
            return;
        };
        let mut offset = 0;
        while let Some((length, _)) = self.decode(offset) {
            if self.before.get(offset) == Some(&None) {
                self.to_do.push((offset, state));
                self.run();
            }
            offset += length;
        }
    }

    /// The state at an offset; at the call before it, where it is a return address.
    fn at(&self, offset: usize, is_return: bool) -> Option<State> {
        /// The longest call: a prefix, its opcode, two bytes of operands and a number.
        const LONGEST_CALL: usize = 8;
        let seen = |at: usize| self.before.get(at).copied().flatten();
        if !is_return {
            return seen(offset);
        }
        (2..=LONGEST_CALL).find_map(|length| {
            let at = offset.checked_sub(length)?;
            let state = seen(at)?;
            let (found, does) = self.decode(at)?;
            (found == length && matches!(does, Does::Call(_))).then_some(state)
        })
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
#[path = "depth_tests.rs"]
mod tests;

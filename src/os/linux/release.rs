//! Whether a function that goes on from here lets go of a lock: proof that it holds it.
//!
//! A lock of std has no owner. But a function that has a guard has, for each call it makes,
//! code that drops the guard should the call panic. The unwind tables say where that code
//! is ("landing pad"); which guards it drops is exact, for drops in the wrong place would be
//! memory errors. So that code is followed on paper, with the registers and the stack of that
//! frame. Where all ways through it let go of this very lock before anything takes it, the
//! frame holds the lock. A word on the stack alone proves nothing: it can be left over from a
//! guard that is gone, or be a reference.
//!
//! Of a function without such code at this place, since it computes, or calls what cannot
//! panic, or the program aborts on a panic, what follows is followed in the same way.
//!
//! What cannot be followed proves nothing.

use crate::os::platform::code::{self, Code};
use crate::os::platform::instruction::LONGEST;
use crate::os::platform::landing::landing;
use crate::os::platform::machine::{
    Flow, Machine, Operation, R12, R15, RAX, RBP, RBX, RDI, RDX, RSI, Target,
};
use crate::os::platform::unwind::{Kept, StackCopy};
use crate::os::{LockKind, Wanted};

/// How many instructions are followed for one frame: some 100 us.
const MOST_STEPS: usize = 4_000;
/// How many ways wait at once.
const MOST_WAYS: usize = 64;
/// How deep calls are followed.
const MOST_CALLS: usize = 8;
/// How far behind an argument the lock's address is looked for: a guard is three words.
const GUARD: u64 = 3;
/// Over how many references: what locks again at its drop is a closure that refers to a
/// reference to the guard.
const DEPTH: u32 = 4;
/// Stands for the panic, which is in the first register where a landing pad begins: who
/// is called with it goes on with the unwinding, or ends it.
const PANIC: u64 = 0x7370_616e_6963_0001;
/// What std's `RwLock` subtracts when a writer lets go (1.95, `sys/sync/rwlock/futex.rs`:
/// `WRITE_LOCKED`).
const WRITER: u32 = 0x3fff_ffff;

/// What a frame does with a lock next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    LetsGo,
    Takes,
    /// Neither.
    Nothing,
    Unknown,
}

/// The registers of [`Kept`], by their numbers.
const KEPT: [u8; 6] = [RBX, RBP, R12, 13, 14, R15];

/// One function on a stack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AtCall<'a> {
    /// Where it goes on.
    pub(crate) pc: u64,
    /// Whether it goes on there after a call.
    pub(crate) is_return: bool,
    pub(crate) sp: u64,
    pub(crate) kept: Kept,
    pub(crate) stack: &'a StackCopy,
}

/// What a function does with a lock next.
pub(crate) fn next<C: Code + ?Sized>(code: &C, frame: &AtCall<'_>, lock: Wanted) -> Next {
    let constants = |address, size| constant(code, address, size);
    let mut machine = Machine::new(frame.pc, frame.sp, frame.stack, &constants);
    for (register, value) in KEPT.into_iter().zip(frame.kept) {
        machine.set(register, value);
    }
    let mut search = Search {
        code,
        lock,
        steps: MOST_STEPS,
    };
    let pad = landing(code, frame.pc.saturating_sub(1)).filter(|_| frame.is_return);
    let Some(pad) = pad else {
        return search.follow(machine, true).unwrap_or(Next::Unknown);
    };
    let unwound = search.unwinds(machine.clone(), pad);
    // Two calls may have one entry in the table, and the one between them, which cannot
    // panic, falls within: that takes the lock again before it lets go.
    search.steps = MOST_STEPS;
    match (unwound, search.follow(machine, true)) {
        (Some(Next::LetsGo), Some(Next::Takes)) => Next::Unknown,
        (unwound, _) => unwound.unwrap_or(Next::Unknown),
    }
}

/// What lies where nothing can write to, like the table of a `match`.
fn constant<C: Code + ?Sized>(code: &C, address: u64, size: u64) -> Option<u64> {
    if !code.is_constant(address) {
        return None;
    }
    let mut bytes = [0; 8];
    let part = bytes.get_mut(..usize::try_from(size).ok()?)?;
    (code.read(address, part) == part.len()).then(|| u64::from_le_bytes(bytes))
}

/// One way through the code.
#[derive(Clone)]
struct Way<'a> {
    machine: Machine<'a>,
    calls: usize,
    /// Where it went back to.
    back: Vec<u64>,
}

struct Search<'c, C: ?Sized> {
    code: &'c C,
    lock: Wanted,
    steps: usize,
}

impl<C: Code + ?Sized> Search<'_, C> {
    /// What the unwinding of a call does that has been made with this state.
    fn unwinds(&mut self, mut machine: Machine<'_>, pad: u64) -> Option<Next> {
        machine.skip_call();
        machine.set(RAX, Some(PANIC));
        machine.pc = pad;
        self.follow(machine, false)
    }

    /// What all ways from here have in common; `None` where that is not known.
    fn follow(&mut self, machine: Machine<'_>, calls_unwind: bool) -> Option<Next> {
        let mut ways = vec![Way {
            machine,
            calls: 0,
            back: Vec::new(),
        }];
        let mut found = None;
        while let Some(way) = ways.pop() {
            let Some(next) = self.go(way, &mut ways, calls_unwind)? else {
                continue;
            };
            if next == Next::Takes {
                return Some(next);
            }
            if found.replace(next).is_some_and(|other| other != next) {
                return None;
            }
        }
        found
    }

    /// Goes one way up to where something is known; `Some(None)` for one that only leads
    /// back.
    fn go<'a>(
        &mut self,
        mut way: Way<'a>,
        ways: &mut Vec<Way<'a>>,
        calls_unwind: bool,
    ) -> Option<Option<Next>> {
        loop {
            self.steps = self.steps.checked_sub(1)?;
            let at = way.machine.pc;
            let mut bytes = [0; LONGEST];
            let read = self.code.read(at, &mut bytes);
            match way.machine.step(bytes.get(..read)?) {
                Flow::On => {}
                Flow::End => return None,
                Flow::Jump(target) => {
                    if !way.jump(at, target) {
                        return Some(None);
                    }
                }
                Flow::Fork(target) => {
                    let mut other = way.clone();
                    if other.jump(at, target) {
                        if ways.len() == MOST_WAYS {
                            return None;
                        }
                        ways.push(other);
                    }
                }
                Flow::Return if way.calls == 0 => return Some(Some(Next::Nothing)),
                Flow::Return => {
                    way.machine.leave()?;
                    way.calls -= 1;
                }
                Flow::Atomic(address, operation) => {
                    if address == Some(self.lock.address) {
                        return self.lock.kind.tells(operation).map(Some);
                    }
                }
                Flow::Call(target) => {
                    if let Some(next) = self.call(&mut way, target, calls_unwind)? {
                        return Some(Some(next));
                    }
                }
            }
        }
    }

    /// Goes into a call that has to do with the lock, and behind any other.
    fn call(
        &mut self,
        way: &mut Way<'_>,
        target: Target,
        calls_unwind: bool,
    ) -> Option<Option<Next>> {
        let machine = &mut way.machine;
        if machine.register(RDI) == Some(PANIC) {
            return Some(Some(Next::Nothing));
        }
        if self.concerns_lock(machine) && way.calls < MOST_CALLS {
            let target = match target {
                Target::At(target) => Some(target),
                Target::ByWord(word) => code::word(self.code, word),
                Target::Unknown => None,
            };
            if let Some(target) = target.filter(|target| self.code.is_code(*target)) {
                machine.enter(target);
                way.calls += 1;
                return Some(None);
            }
        }
        // Whether the guard is there during a call is known best.
        if calls_unwind
            && way.calls == 0
            && let Some(pad) = landing(self.code, machine.pc.wrapping_sub(1))
        {
            return self.unwinds(machine.clone(), pad).map(Some);
        }
        machine.skip_call();
        Some(None)
    }

    /// Whether what is handed over leads to the lock: guards, references to them, and
    /// closures with those.
    fn concerns_lock(&self, machine: &Machine<'_>) -> bool {
        [RDI, RSI, RDX].into_iter().any(|register| {
            let value = machine.register(register);
            value.is_some_and(|value| self.leads_to_lock(machine, value, DEPTH))
        })
    }

    fn leads_to_lock(&self, machine: &Machine<'_>, value: u64, depth: u32) -> bool {
        value == self.lock.address
            || depth > 0
                && (0..GUARD).any(|word| {
                    let word = machine.word(value.wrapping_add(8 * word));
                    word.is_some_and(|word| self.leads_to_lock(machine, word, depth - 1))
                })
    }
}

impl Way<'_> {
    /// Whether that leads to where it was not yet.
    fn jump(&mut self, from: u64, target: u64) -> bool {
        self.machine.pc = target;
        if target > from {
            return true;
        }
        let was_there = self.back.contains(&target);
        self.back.push(target);
        !was_there
    }
}

impl LockKind {
    /// What an operation on the lock's word is; `None` where it can be anything.
    fn tells(self, operation: Operation) -> Option<Next> {
        let is_writers = |by: u64| by as u32 == WRITER.wrapping_neg();
        match (self, operation) {
            // 1.95, `sys/sync/mutex/futex.rs`: `unlock` and `try_lock`.
            (LockKind::Std, Operation::Swap(Some(0))) => Some(Next::LetsGo),
            (LockKind::Std | LockKind::StdWriter, Operation::Add(Some(by))) if is_writers(by) => {
                Some(Next::LetsGo)
            }
            // parking_lot 0.12, `raw_mutex.rs` and `raw_rwlock.rs`: from locked to free.
            (LockKind::ParkingLot, Operation::CompareExchange(Some(1 | 8), Some(0))) => {
                Some(Next::LetsGo)
            }
            (_, Operation::CompareExchange(_, Some(1..)) | Operation::Swap(Some(1..))) => {
                Some(Next::Takes)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
#[path = "release_tests.rs"]
mod tests;

//! Where a thread of this process is: through `/proc` if it is blocked, by a signal if it runs.
//!
//! A blocked thread is never sent a signal: one would make `nanosleep`, `poll`,
//! `epoll_wait` and reads under a timeout return EINTR to the user's code.

use std::fs::File;

use crate::clock::Ticks;
use crate::os::platform::computing::Computing;
#[cfg(target_arch = "x86_64")]
use crate::os::platform::guards;
use crate::os::platform::memory;
use crate::os::platform::modules::Module;
use crate::os::platform::own_stack::OwnStack;
use crate::os::platform::position::{LOOKS_IN_A_ROW, Position};
use crate::os::platform::request::{Answer, LARGEST, Request, Sample, Want};
use crate::os::platform::signal::{self, Means};
use crate::os::platform::thread::ThreadProbe;
use crate::os::platform::unwind::{Proof, Registers, StackCopy, Unwinder};
use crate::os::{
    Captured, Doing, Held, LockWait, Miss, ModuleFile, SURELY_BACK_NS, SignalUse, Subject, Wanted,
};

/// How often a thread that moves under our eyes is looked at.
const ATTEMPTS: usize = 8;
/// How often a thread that may have slept must be seen running, some 300 us in all, to
/// count as such: one that sleeps shortly and often is better seen asleep.
const RUNNING_LOOKS: usize = 32;
/// How often a thread whose stack has been copied is looked at, until it is
/// asleep again.
const CONFIRMING_LOOKS: usize = 64;
/// What is copied where neither an anchor nor the stack's end bounds it.
const UNBOUNDED_COPY: usize = 256 * 1024;
/// Copied beyond the anchor, so that the frame that holds it can be unwound.
const BEYOND_ANCHOR: u64 = 16 * 1024;
/// Of the copy's memory so much is kept for the next.
const KEPT_COPY: usize = 1024 * 1024;

/// Takes stacks of other threads; keeps the copy's memory and the unwind tables
/// (as large as the `.eh_frame` of all modules), at most 1 MiB besides them.
#[derive(Debug)]
pub(crate) struct Capturer {
    signals: SignalUse,
    unwinder: Unwinder,
    stack: StackCopy,
    computing: Computing,
    /// The locks that others wait for.
    wanted: Vec<Wanted>,
    /// What threads may answer yet.
    late: Vec<Late>,
}

/// A request that has not been answered yet.
#[derive(Debug)]
struct Late {
    tid: i32,
    /// Of the subject that it was made for.
    id: u64,
    /// How many bytes of the stack it has room for.
    room: usize,
    request: Request,
}

/// A thread and what it is captured for.
#[derive(Clone, Copy, Debug)]
struct Target<'a> {
    thread: &'a ThreadProbe,
    stack: &'a OwnStack,
    of: &'a Subject<'a>,
}

impl Capturer {
    pub(crate) fn new(signals: SignalUse) -> Self {
        Capturer {
            signals,
            unwinder: Unwinder::new(),
            stack: StackCopy::default(),
            computing: Computing::default(),
            wanted: Vec::new(),
            late: Vec::new(),
        }
    }

    /// Takes in the unwind tables, so that the first capture need not: milliseconds
    /// for a large program.
    pub(crate) fn prepare(&mut self) {
        self.unwinder.refresh();
    }

    /// What a thread is doing, and its stack.
    ///
    /// The stack must lead to the subject's anchor or to the thread's beginning: no stack
    /// rather than a wrong one. That of a running thread is first [`Miss::Late`]: it is
    /// picked up by a later call for the same subject, once the thread has had a tick.
    ///
    /// Takes 10 to 50 us of a blocked thread and 100 to 400 us of a running one, and a few
    /// milliseconds where libraries have been loaded since the last. May wait: for the lock
    /// of the memory map, the loader's and the allocator's.
    pub(crate) fn capture(
        &mut self,
        thread: &ThreadProbe,
        stack: &OwnStack,
        of: &Subject<'_>,
    ) -> Result<Captured, Miss> {
        memory::look_for_filter();
        // Kept open: opening it takes as long as all the rest, and who is not done soon
        // loses its CPU to a busy worker for 4 ms.
        let file = &*thread.syscall()?;
        let target = Target { thread, stack, of };
        let mut captured = self.attempt(target, file)?;
        // One that blocks shortly and often moves between two looks.
        for _ in 1..ATTEMPTS {
            let moved = captured.stack == Err(Miss::Moved) && (of.still)();
            if !moved {
                break;
            }
            let again = self.attempt(target, file)?;
            let doing = match again.doing {
                Doing::Running => captured.doing,
                asleep => asleep,
            };
            captured = Captured { doing, ..again };
        }
        Ok(captured)
    }

    fn attempt(&mut self, target: Target<'_>, file: &File) -> Result<Captured, Miss> {
        let position = self.look(target, file)?;
        self.unwinder.refresh();
        let Some((pc, sp)) = position.at else {
            let (proven, sample) = self.running(target);
            return Ok(Captured {
                task: sample.and_then(|sample| sample.task),
                at: sample.map(|sample| sample.at),
                ..captured(position.doing, proven)
            });
        };
        let waits_for = position.futex.map(LockWait::on);
        Ok(Captured {
            waits_for,
            ..captured(
                position.doing,
                self.blocked(target, file, position, (pc, sp)),
            )
        })
    }

    /// Where the thread is. One that has run for a while without having been switched out
    /// is not within a call that has slept.
    fn look(&self, Target { thread, of, .. }: Target<'_>, file: &File) -> Result<Position, Miss> {
        let mut position = Position::asleep_within(1, file)?;
        let is_late = self.late.iter().any(|late| late.is(thread.tid(), of.id));
        if position.at.is_some() || is_late {
            return Ok(position);
        }
        let mut before = thread.spent();
        for number in 1..RUNNING_LOOKS {
            position = Position::asleep_within(1, file)?;
            let now = thread.spent();
            let run_ns = before.zip(now).and_then(|(before, now)| {
                let same_run = before.runs == now.runs;
                same_run.then(|| now.cpu_ns.saturating_sub(before.cpu_ns))
            });
            if run_ns.is_none() {
                before = now;
            }
            let ran = run_ns.is_some_and(|run_ns| run_ns > SURELY_BACK_NS);
            if position.at.is_some() || ran {
                return Ok(position);
            }
            // It may wait for the very CPU that we take.
            if number % LOOKS_IN_A_ROW == 0 {
                Position::give_way();
            }
        }
        Ok(position)
    }

    fn blocked(
        &mut self,
        target: Target<'_>,
        file: &File,
        position: Position,
        (pc, sp): (u64, u64),
    ) -> Result<Proven, Miss> {
        let Target { thread, of, .. } = target;
        self.copy_blocked(target, sp)?;
        // One that has moved meanwhile was copied torn. One that runs may still
        // be in the same call, and will be seen asleep in it again.
        if Position::asleep_within(CONFIRMING_LOOKS, file)? != position || !(of.still)() {
            return Err(Miss::Moved);
        }
        let registers = Registers {
            pc,
            sp,
            fp: None,
            lr: 0,
            kept: [None; 6],
        };
        let stack = self.unwind(registers, of.anchor);
        if matches!(stack, Err(Miss::Unproven | Miss::NoTables)) && is_elsewhere(target, sp) {
            return Err(Miss::ForeignStack);
        }
        // Where it was when it was asked, if it has answered since, is older.
        if stack.is_ok() {
            self.take_late(thread.tid());
        }
        stack
    }

    /// The request that a thread may answer yet, whatever it was made for.
    fn take_late(&mut self, tid: i32) -> Option<Late> {
        let at = self.late.iter().position(|late| late.tid == tid)?;
        Some(self.late.remove(at))
    }

    fn unwind(&mut self, from: Registers, anchor: Option<u64>) -> Result<Proven, Miss> {
        let proof = anchor.map_or(Proof::ThreadStart, Proof::Anchor);
        let addresses = self.unwinder.unwind(from, &self.stack, proof);
        let proven = addresses.map(|addresses| Proven {
            addresses,
            holds: self.held(from),
        });
        self.stack.bytes.clear();
        self.stack.bytes.shrink_to(KEPT_COPY);
        proven
    }

    /// Which of the locks that others wait for the stack shows as held.
    #[cfg(target_arch = "x86_64")]
    fn held(&self, from: Registers) -> Vec<Held> {
        let frames = self.unwinder.frames();
        let modules = self.unwinder.modules();
        guards::held(modules, frames, from.kept, &self.stack, &self.wanted)
    }

    #[cfg(not(target_arch = "x86_64"))]
    #[allow(clippy::unused_self)]
    const fn held(&self, _from: Registers) -> Vec<Held> {
        Vec::new()
    }

    /// Has captures from now on say which of these locks the thread holds; each takes some
    /// 100 us of those stacks that have the lock's address.
    pub(crate) fn look_for(&mut self, locks: Vec<Wanted>) {
        self.wanted = locks;
    }

    /// Asks a running thread where it is, for a later capture for the same subject; whether
    /// the thread was asked. Not where that could cut a system call of its short.
    ///
    /// Takes some 50 us, and some 10 us of the thread.
    pub(crate) fn ask_ahead(
        &mut self,
        thread: &ThreadProbe,
        stack: &OwnStack,
        of: &Subject<'_>,
    ) -> bool {
        memory::look_for_filter();
        let means = self.means().ok();
        let Some(means) = means.filter(|means| signal::is_harmless(*means)) else {
            return false;
        };
        if self.late.iter().any(|late| late.tid == thread.tid()) || !(of.still)() {
            return false;
        }
        let target = Target { thread, stack, of };
        // What others may answer yet is of stalls, and stays.
        let asked = self.ask_once(means, target, 0);
        asked.map(|late| self.late.push(late)).is_ok()
    }

    /// Gives up what a thread was asked ahead: nobody needs the answer any more.
    pub(crate) fn withdraw(&mut self, tid: i32, subject: u64) {
        self.late.retain(|late| !late.is(tid, subject));
    }

    /// What a thread has left after [`Miss::Late`]; to be asked for when the subject is
    /// over, because no more is taken for it then. `was_in_it`: whether the subject went
    /// on at that time.
    pub(crate) fn last_words(
        &mut self,
        tid: i32,
        of: &Subject<'_>,
        was_in_it: &dyn Fn(Ticks) -> bool,
    ) -> Option<Captured> {
        let late = self.take_late(tid).filter(|late| late.id == of.id)?;
        memory::look_for_filter();
        self.unwinder.refresh();
        let Answer::Copied(sample) = late.request.answer(&mut self.stack) else {
            return None;
        };
        was_in_it(sample.at).then(|| Captured {
            task: sample.task,
            at: Some(sample.at),
            ..captured(Doing::Running, self.unwind(sample.registers, of.anchor))
        })
    }

    fn copy_blocked(
        &mut self,
        Target { thread, stack, of }: Target<'_>,
        sp: u64,
    ) -> Result<(), Miss> {
        let end = stack.known(thread.tid()).map(|known| known.bounds);
        let end = end.filter(|bounds| bounds.contains(&(sp as usize)));
        let length = match (of.anchor, end) {
            (Some(anchor), _) => {
                let below = anchor.checked_sub(sp).ok_or(Miss::ForeignStack)?;
                usize::try_from(below + BEYOND_ANCHOR).map_err(|_| Miss::TooLarge)?
            }
            (None, Some(bounds)) => bounds.end - sp as usize,
            (None, None) => UNBOUNDED_COPY,
        };
        if length > LARGEST {
            return Err(Miss::TooLarge);
        }
        // Not zeroed, which takes longer than the copy: the thread may move meanwhile.
        self.stack.start = sp;
        self.stack.bytes.clear();
        let reserved = self.stack.bytes.try_reserve_exact(length);
        reserved.map_err(|_| Miss::NoMemory)?;
        match memory::append(sp, length, &mut self.stack.bytes) {
            0 => Err(Miss::NotPermitted),
            _ => Ok(()),
        }
    }

    /// What running threads are asked with.
    ///
    /// Under a filter of this thread's system calls, `timer_create` and
    /// `rt_tgsigqueueinfo` may be what the filter kills for, and a try would kill. Only
    /// the user can know: who has chosen a signal has said that they are permitted.
    fn means(&self) -> Result<Means, Miss> {
        match self.signals {
            SignalUse::Off => Err(Miss::SignalsOff),
            SignalUse::Signal { number, chosen } => Ok(Means {
                signal: number,
                is_filtered: !chosen && memory::is_filtered(),
            }),
        }
    }

    /// The stack of a running thread, and what else it has answered.
    fn running(&mut self, target: Target<'_>) -> (Result<Proven, Miss>, Option<Sample>) {
        let Target { thread, of, .. } = target;
        let means = match self.means() {
            Ok(means) => means,
            Err(miss) => return (Err(miss), None),
        };
        if !(of.still)() {
            // The answer may be of the time before: see `last_words`.
            return (Err(Miss::Moved), None);
        }
        let known = self.take_late(thread.tid());
        let known = known.filter(|late| late.id == of.id && !signal::is_hopeless(&late.request));
        let late = match known {
            Some(late) => Ok(late),
            None => self.ask(means, target, 0),
        };
        match late {
            Ok(late) => self.pick_up(means, target, late),
            Err(miss) => (Err(miss), None),
        }
    }

    fn pick_up(
        &mut self,
        means: Means,
        target: Target<'_>,
        late: Late,
    ) -> (Result<Proven, Miss>, Option<Sample>) {
        let of = target.of;
        let (sample, outcome): (Sample, _) = match late.request.answer(&mut self.stack) {
            Answer::Late => {
                self.late.push(late);
                return (Err(Miss::Late), None);
            }
            Answer::Copied(sample) => (sample, Ok(())),
            Answer::Foreign(sample) => (sample, Err(Miss::ForeignStack)),
            Answer::NoMemory(sample) => (sample, Err(Miss::NoMemory)),
            Answer::Larger(sample, length) if length > LARGEST || late.room >= LARGEST => {
                (sample, Err(Miss::TooLarge))
            }
            Answer::Larger(sample, length) => {
                // It may have grown when it is asked again.
                drop(late);
                let again = self.ask(means, target, length + length / 4);
                let again = again.map(|late| self.late.push(late));
                (sample, Err(again.err().unwrap_or(Miss::Late)))
            }
        };
        // What it was asked for went on when it was asked, and goes on now: so it went on
        // when the copy was made.
        if !(of.still)() {
            return (Err(Miss::Moved), None);
        }
        let stack = outcome.and_then(|()| self.unwind(sample.registers, of.anchor));
        (stack, Some(sample))
    }

    fn ask(&mut self, means: Means, target: Target<'_>, room: usize) -> Result<Late, Miss> {
        match self.ask_once(means, target, room) {
            // The oldest of ours is the likeliest to be wanted no more.
            Err(Miss::Busy) if !self.late.is_empty() => {
                self.late.remove(0);
                self.ask_once(means, target, room)
            }
            other => other,
        }
    }

    fn ask_once(
        &mut self,
        means: Means,
        Target { thread, stack, of }: Target<'_>,
        room: usize,
    ) -> Result<Late, Miss> {
        let tid = thread.tid();
        let known = stack.known(tid).ok_or(Miss::UnknownStack)?;
        known.room()?;
        let up_to = of.anchor.map(|anchor| anchor + BEYOND_ANCHOR);
        let want = Want {
            tid,
            bounds: known.bounds,
            up_to: up_to.map_or(usize::MAX, |up_to| {
                usize::try_from(up_to).unwrap_or(usize::MAX)
            }),
            room,
        };
        let id = of.id;
        let request = signal::ask(means, &want, thread, &mut self.computing);
        request.map(|request| Late {
            tid,
            id,
            room,
            request,
        })
    }

    /// The files that addresses lie in, for symbolizing elsewhere.
    pub(crate) fn modules(&self) -> Vec<ModuleFile> {
        self.unwinder.modules().iter().map(Module::file).collect()
    }
}

/// A stack that is proven, and the locks that it shows as held.
#[derive(Clone, Debug)]
struct Proven {
    addresses: Vec<u64>,
    holds: Vec<Held>,
}

fn captured(doing: Doing, proven: Result<Proven, Miss>) -> Captured {
    let (stack, holds) = match proven {
        Ok(Proven { addresses, holds }) => (Ok(addresses), holds),
        Err(miss) => (Err(miss), Vec::new()),
    };
    Captured {
        doing,
        task: None,
        at: None,
        stack,
        waits_for: None,
        holds,
    }
}

impl Late {
    const fn is(&self, tid: i32, id: u64) -> bool {
        self.tid == tid && self.id == id
    }
}

/// Whether the stack pointer is outside of the thread's stack, as far as that is known.
fn is_elsewhere(Target { thread, stack, .. }: Target<'_>, sp: u64) -> bool {
    let known = stack.known(thread.tid());
    known.is_some_and(|known| !known.bounds.contains(&(sp as usize)))
}

#[cfg(test)]
#[path = "capture_tests.rs"]
pub(super) mod tests;

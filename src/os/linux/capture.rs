//! Where a thread of this process is: through `/proc` if it is blocked, by a signal if it runs.
//!
//! A blocked thread is never sent a signal: one would make `nanosleep`, `poll`,
//! `epoll_wait` and reads under a timeout return EINTR to the user's code.

use std::fs::File;

use crate::os::platform::modules::Module;
use crate::os::platform::position::Position;
use crate::os::platform::signal::{self, Answer, NoCopy, Request, Want};
use crate::os::platform::thread::ThreadProbe;
use crate::os::platform::unwind::{Proof, Registers, StackCopy, Unwinder};
use crate::os::{Captured, Doing, Miss, ModuleFile, SignalUse};

/// The most that is copied of a blocked thread's stack.
const MAX_COPY: usize = 1024 * 1024;
/// How often a thread that moves under our eyes is looked at.
const ATTEMPTS: usize = 8;
/// How often a thread that may have slept must be seen running, some 300 us in all, to
/// count as such: one that sleeps shortly and often is better seen asleep.
const RUNNING_LOOKS: usize = 32;
/// How often a thread whose stack has been copied is looked at, until it is
/// asleep again.
const CONFIRMING_LOOKS: usize = 64;
/// What is copied where no anchor bounds it.
const UNBOUNDED_COPY: usize = 256 * 1024;
/// Copied beyond the anchor, so that the frame that holds it can be unwound.
const BEYOND_ANCHOR: u64 = 16 * 1024;

/// Takes stacks of other threads; keeps the copy's memory and the unwind tables
/// (as large as the `.eh_frame` of all modules), at most 1 MiB besides them.
#[derive(Debug)]
pub(crate) struct Capturer {
    signals: SignalUse,
    unwinder: Unwinder,
    stack: StackCopy,
    /// A request that was not answered in time, and the thread it was made to.
    late: Option<(i32, Request)>,
}

impl Capturer {
    pub(crate) fn new(signals: SignalUse) -> Self {
        Capturer {
            signals,
            unwinder: Unwinder::new(),
            stack: StackCopy::default(),
            late: None,
        }
    }

    /// Takes in the unwind tables, so that the first capture need not: milliseconds
    /// for a large program.
    pub(crate) fn prepare(&mut self) {
        self.unwinder.refresh();
    }

    /// The stack of a thread; `still` tells whether what it is captured for goes on.
    /// Only a thread that is known to be `awake`, to have run without sleeping, is
    /// sent a signal.
    ///
    /// With an anchor it must lead to the frame that holds it, else to the
    /// thread's beginning: no stack rather than a wrong one. Takes 10 to 50 us,
    /// 300 more for a running one that is not known to be awake, and a few
    /// milliseconds where libraries have been loaded since the last.
    pub(crate) fn capture(
        &mut self,
        thread: &ThreadProbe,
        anchor: Option<u64>,
        awake: bool,
        still: &dyn Fn() -> bool,
    ) -> Result<Captured, Miss> {
        // Kept open: opening it takes as long as all the rest, and who is not done soon
        // loses its CPU to a busy worker for 4 ms.
        let file = &*thread.syscall()?;
        let tid = thread.tid();
        let mut captured = self.attempt(tid, file, anchor, awake, still)?;
        // One that blocks shortly and often moves between two looks.
        for _ in 1..ATTEMPTS {
            let moved = captured.stack == Err(Miss::Moved) && still();
            if !moved {
                break;
            }
            let again = self.attempt(tid, file, anchor, awake, still)?;
            let doing = match again.doing {
                Doing::Running => captured.doing,
                asleep => asleep,
            };
            captured = Captured { doing, ..again };
        }
        Ok(captured)
    }

    fn attempt(
        &mut self,
        tid: i32,
        file: &File,
        anchor: Option<u64>,
        awake: bool,
        still: &dyn Fn() -> bool,
    ) -> Result<Captured, Miss> {
        let looks = if awake { 1 } else { RUNNING_LOOKS };
        let position = Position::asleep_within(looks, file)?;
        Ok(Captured {
            doing: position.doing,
            stack: self.stack(tid, file, position, anchor, awake, still),
        })
    }

    fn stack(
        &mut self,
        tid: i32,
        file: &File,
        position: Position,
        anchor: Option<u64>,
        awake: bool,
        still: &dyn Fn() -> bool,
    ) -> Result<Vec<u64>, Miss> {
        self.unwinder.refresh();
        let Some((pc, sp)) = position.at else {
            return self.stack_of_running(tid, anchor, awake, still);
        };
        self.copy_blocked(sp, anchor)?;
        // One that has moved meanwhile was copied torn. One that runs may still
        // be in the same call, and will be seen asleep in it again.
        if Position::asleep_within(CONFIRMING_LOOKS, file)? != position || !still() {
            return Err(Miss::Moved);
        }
        let registers = Registers {
            pc,
            sp,
            fp: None,
            lr: 0,
        };
        let stack = self.unwind(registers, anchor)?;
        // Where it was when it was asked, if it has answered since, is older.
        self.forget_late(tid);
        Ok(stack)
    }

    fn take_late(&mut self, tid: i32) -> Option<Request> {
        let late = self.late.take_if(|(late, _)| *late == tid);
        late.map(|(_, request)| request)
    }

    /// What a thread may answer yet is not wanted any more.
    pub(crate) fn forget_late(&mut self, tid: i32) {
        if let Some(request) = self.take_late(tid) {
            signal::give_up(request);
        }
    }

    fn unwind(&mut self, from: Registers, anchor: Option<u64>) -> Result<Vec<u64>, Miss> {
        let proof = anchor.map_or(Proof::ThreadStart, Proof::Anchor);
        let addresses = self.unwinder.unwind(from, &self.stack, proof);
        self.stack.bytes.clear();
        addresses.ok_or(Miss::Unproven)
    }

    /// The stack that a thread has left after [`Miss::Late`]; to be asked for when
    /// what it was captured for is over, because none comes for it afterwards.
    pub(crate) fn last_words(&mut self, tid: i32, anchor: Option<u64>) -> Option<Vec<u64>> {
        let request = self.take_late(tid)?;
        match signal::pick_up(request, &mut self.stack) {
            Answer::Copied(sample) => self.unwind(sample.registers, anchor).ok(),
            Answer::Late(_) => {
                signal::give_up(request);
                None
            }
            Answer::Lost => None,
        }
    }

    fn copy_blocked(&mut self, sp: u64, anchor: Option<u64>) -> Result<(), Miss> {
        let length = match anchor {
            Some(anchor) => {
                let below = anchor.checked_sub(sp).ok_or(Miss::Unproven)?;
                usize::try_from(below + BEYOND_ANCHOR).map_err(|_| Miss::Unproven)?
            }
            None => UNBOUNDED_COPY,
        };
        let length = length.min(MAX_COPY);
        let from = usize::try_from(sp).map_err(|_| Miss::Unproven)?;
        let StackCopy { start, bytes } = &mut self.stack;
        *start = sp;
        bytes.clear();
        // Not zeroed, which takes longer than the copy: the thread may move meanwhile.
        bytes.reserve(length);
        // SAFETY: the vector has room for this length.
        let copied = unsafe { signal::read_memory(from, bytes.as_mut_ptr(), length) };
        // SAFETY: so much has been written; the kernel never copies more than it is asked.
        unsafe { bytes.set_len(copied.min(length)) };
        if copied == 0 {
            return Err(Miss::NotPermitted);
        }
        Ok(())
    }

    fn stack_of_running(
        &mut self,
        tid: i32,
        anchor: Option<u64>,
        awake: bool,
        still: &dyn Fn() -> bool,
    ) -> Result<Vec<u64>, Miss> {
        let SignalUse::Signal(signal) = self.signals else {
            return Err(Miss::SignalsOff);
        };
        if let Some(request) = self.take_late(tid) {
            match signal::pick_up(request, &mut self.stack) {
                // Right, whatever the thread does by now: see `Answer::Late`.
                Answer::Copied(sample) => return self.unwind(sample.registers, anchor),
                Answer::Late(_) => {
                    self.late = Some((tid, request));
                    return Err(Miss::Late);
                }
                Answer::Lost => {}
            }
        }
        // It may be within a call that has slept and is over, and wait for a CPU
        // to return: a signal would make it return EINTR even now.
        if !awake {
            return Err(Miss::Queued);
        }
        if !still() {
            return Err(Miss::Moved);
        }
        let answer = self.ask(signal, tid, anchor)?;
        match (answer, still()) {
            (Answer::Copied(sample), true) => self.unwind(sample.registers, anchor),
            // By now a thread that runs code of its own would have answered.
            (Answer::Late(request), true) => {
                self.late = Some((tid, request));
                Err(Miss::Late)
            }
            (Answer::Late(request), false) => {
                signal::give_up(request);
                Err(Miss::Moved)
            }
            (Answer::Copied(_) | Answer::Lost, _) => Err(Miss::Moved),
        }
    }

    fn ask(&mut self, signal: i32, tid: i32, anchor: Option<u64>) -> Result<Answer, Miss> {
        let up_to = anchor.map(|anchor| anchor + BEYOND_ANCHOR);
        signal::copy_of(signal, tid, Want::Stack { up_to }, &mut self.stack).map_err(|error| {
            match error {
                NoCopy::Busy => Miss::Busy,
                NoCopy::HandlerTaken => Miss::HandlerTaken,
                NoCopy::NotPermitted => Miss::NotPermitted,
            }
        })
    }

    /// tokio's id of the task that a worker's thread polls, which is known to run and
    /// to have run without sleeping; `None` if it did not say so before it went on.
    pub(crate) fn task_of(&mut self, tid: i32, still: &dyn Fn() -> bool) -> Option<u64> {
        let SignalUse::Signal(signal) = self.signals else {
            return None;
        };
        if self.late.is_some() || !still() {
            return None;
        }
        match signal::copy_of(signal, tid, Want::Task, &mut self.stack).ok()? {
            Answer::Copied(sample) if still() => Some(sample.task).filter(|task| *task != 0),
            Answer::Late(request) => {
                signal::give_up(request);
                None
            }
            Answer::Copied(_) | Answer::Lost => None,
        }
    }

    /// The files that addresses lie in, for symbolizing elsewhere.
    pub(crate) fn modules(&self) -> Vec<ModuleFile> {
        self.unwinder.modules().iter().map(Module::file).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::{DEFAULT_SIGNAL, Importance};
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    /// Keeps this signal from the thread that calls, or lets it through.
    fn mask(how: i32) {
        // SAFETY: all-zero is a valid signal set, which the two calls are given
        // valid pointers to; the third may be null.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, DEFAULT_SIGNAL);
            libc::pthread_sigmask(how, &raw const set, std::ptr::null_mut());
        }
    }

    /// What is left of a request to a thread that computed when it was asked, and
    /// slept afterwards; nothing if another test has made a request meanwhile.
    fn left_by_a_late_one(asked_before: bool, seen_asleep: bool) -> Option<Vec<u64>> {
        let goes_on = Arc::new(AtomicBool::new(false));
        let (send, receive) = mpsc::channel();
        let thread = std::thread::spawn({
            let goes_on = Arc::clone(&goes_on);
            move || {
                mask(libc::SIG_BLOCK);
                send.send(crate::os::thread_id()).unwrap();
                while !goes_on.load(Relaxed) {
                    std::hint::spin_loop();
                }
                mask(libc::SIG_UNBLOCK);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let tid = receive.recv().unwrap();
        let probe = ThreadProbe::open(tid, Importance::Other).unwrap();
        let mut capturer = Capturer::new(SignalUse::Signal(DEFAULT_SIGNAL));
        if asked_before {
            assert_eq!(capturer.task_of(tid, &|| true), None);
        }
        let asked = capturer.capture(&probe, None, true, &|| true).unwrap();
        goes_on.store(true, Relaxed);
        while seen_asleep
            && !thread.is_finished()
            && !capturer
                .capture(&probe, None, false, &|| true)
                .is_ok_and(|captured| captured.stack.is_ok())
        {}
        thread.join().unwrap();
        let left = capturer.last_words(tid, None);
        left.filter(|_| asked.stack == Err(Miss::Late))
    }

    #[test]
    fn a_late_answer_does_not_stand_for_what_came_after_it() {
        // Other tests ask, too: most of a storm of requests takes a few seconds.
        assert!((0..200).any(|_| left_by_a_late_one(false, false).is_some()));
        assert!((0..10).all(|_| left_by_a_late_one(false, true).is_none()));
    }

    #[test]
    fn a_request_after_one_that_was_given_up_is_answered() {
        assert!((0..200).any(|_| left_by_a_late_one(true, false).is_some()));
    }

    #[test]
    fn a_sleeping_threads_stack_leads_to_its_start() {
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            send.send(crate::os::thread_id()).unwrap();
            std::thread::sleep(Duration::from_secs(2));
        });
        let probe = ThreadProbe::open(receive.recv().unwrap(), Importance::Other).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let mut capturer = Capturer::new(SignalUse::Off);
        let captured = capturer.capture(&probe, None, false, &|| true).unwrap();
        let frames = crate::os::Symbolizer::default()
            .symbolize(&captured.stack.unwrap(), capturer.modules());
        assert!(
            frames.iter().any(|frame| frame
                .file()
                .is_some_and(|file| file.ends_with("capture.rs"))),
            "{frames:#?}"
        );
    }
}

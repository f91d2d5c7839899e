//! One outlet: a queue, and the thread that hands what comes through it to a sink.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU8};
use std::sync::{Arc, OnceLock};
use std::thread::ThreadId;
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use crate::clock::{self, Calibrated};
use crate::delivery::event_buffer::EventBuffer;
use crate::delivery::known::{Known, KnownStalls};
use crate::delivery::sinks::Sink;
use crate::delivery::{Message, QUEUE};
use crate::ending::Ending;
use crate::error::Error;
use crate::os::AutoResetEvent;
use crate::room::room_for;
use crate::stall::Phase;
use crate::threads;
use crate::watchdog::transition::{Finding, Transition};

/// How long the event of a stall that is over waits for its stack. That of one in
/// progress waits for a tick, or not at all for the first stack of a program, which
/// takes longer to symbolize and comes with the next event.
const PATIENCE_AT_END: Duration = Duration::from_secs(3);

/// After how many messages is looked for what is due.
const BATCH: usize = 64;

/// What the thread shares with those that send.
#[derive(Debug)]
pub(super) struct Outlet {
    queue: ArrayQueue<Message>,
    /// Set when there is something in the queue, or to stop.
    changed: AutoResetEvent,
    stopping: AtomicBool,
    /// Whether something is being delivered, and whether nothing may be any more.
    gate: Gate,
    ending: Ending,
    thread: OnceLock<ThreadId>,
}

impl Outlet {
    pub(super) fn start(
        clock: &'static Calibrated,
        patience: Duration,
        short_slices: bool,
        sink: Box<dyn Sink>,
    ) -> Result<Arc<Self>, Error> {
        let outlet = Arc::new(Outlet {
            queue: ArrayQueue::new(QUEUE),
            changed: AutoResetEvent::new(),
            stopping: AtomicBool::new(false),
            gate: Gate::default(),
            ending: Ending::new(),
            thread: OnceLock::new(),
        });
        let worker = Worker {
            clock,
            patience_ns: clock::ns_of(patience),
            outlet: Arc::clone(&outlet),
            buffer: EventBuffer::new(),
            known: KnownStalls::new(),
            waiting: VecDeque::from(room_for(QUEUE)),
            sink,
        };
        let name = worker.sink.thread_name();
        let thread = threads::start(name, short_slices, move || worker.run())?;
        let _ = outlet.thread.set(thread.thread().id());
        Ok(outlet)
    }

    /// Whether there was room; never waits.
    pub(super) fn send(&self, message: Message) -> bool {
        let sent = self.queue.push(message).is_ok();
        self.changed.set();
        sent
    }

    pub(super) fn stop(&self) {
        // Release: pairs with the acquire in `Worker::run`, so that all that was sent
        // before is seen.
        self.stopping.store(true, Release);
        self.changed.set();
    }

    /// Waits until all is delivered, but not longer than this.
    pub(super) fn wait_for_end(&self, at_most: Duration) {
        // A callback that drops the watchdog must not wait for itself.
        if self.thread.get() == Some(&std::thread::current().id()) {
            return;
        }
        self.ending.wait(at_most);
    }

    /// Has nothing delivered from now on; a callback that still runs is left behind.
    pub(super) fn close(&self) {
        self.gate.close();
    }
}

/// Lets calls through until it is closed: none begins once [`Gate::close`] has returned.
#[derive(Debug, Default)]
struct Gate(AtomicU8);

impl Gate {
    const CALLING: u8 = 1;
    const CLOSED: u8 = 2;

    /// Calls `f`, unless the gate is closed. Of one thread only.
    fn pass(&self, f: impl FnOnce()) {
        // One step for both: a close is either seen here, or sees the call.
        let begin = self.0.compare_exchange(0, Self::CALLING, AcqRel, Acquire);
        if begin.is_ok() {
            f();
            self.0.fetch_and(!Self::CALLING, Release);
        }
    }

    fn close(&self) {
        self.0.fetch_or(Self::CLOSED, AcqRel);
    }
}

/// An event that waits for what is found out about its stall.
#[derive(Debug)]
struct Waiting {
    until_ns: u64,
    answered: bool,
    transition: Transition,
}

struct Worker {
    clock: &'static Calibrated,
    patience_ns: u64,
    outlet: Arc<Outlet>,
    buffer: EventBuffer,
    known: KnownStalls,
    /// In the order in which they came.
    waiting: VecDeque<Waiting>,
    sink: Box<dyn Sink>,
}

impl Worker {
    fn run(mut self) {
        loop {
            // Before the queue: what was sent before the stop is in it then.
            let stopping = self.outlet.stopping.load(Acquire);
            let mut taken = 0;
            while let Some(message) = self.outlet.queue.pop() {
                self.take(message);
                // Now and then, so that a long queue does not delay what is due; not each
                // time, as that looks at all that waits.
                taken += 1;
                if taken % BATCH == 0 {
                    self.deliver_ready();
                }
            }
            if stopping {
                break;
            }
            self.deliver_ready();
            let until_ns = self.waiting.iter().map(|waiting| waiting.until_ns).min();
            let left = until_ns
                .map(|until_ns| Duration::from_nanos(until_ns.saturating_sub(self.clock.now_ns())));
            if left != Some(Duration::ZERO) {
                self.outlet.changed.wait(left);
            }
        }
        while let Some(waiting) = self.waiting.pop_front() {
            self.deliver(&waiting.transition);
        }
        let sink = &mut self.sink;
        self.outlet.gate.pass(|| sink.finish());
        self.outlet.ending.set();
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Transition(transition) => {
                self.known.note(transition.id(), transition.judgement);
                let patience_ns = match transition.told.phase {
                    Phase::Ended => clock::ns_of(PATIENCE_AT_END),
                    Phase::Started | Phase::Escalated => self.patience_ns,
                };
                // While answers are long in coming, no more than this wait for them.
                if self.waiting.len() >= QUEUE
                    && let Some(oldest) = self.waiting.pop_front()
                {
                    self.deliver(&oldest.transition);
                }
                self.waiting.push_back(Waiting {
                    until_ns: self.clock.now_ns().saturating_add(patience_ns),
                    // The finding may have come first.
                    answered: self
                        .known
                        .get(transition.id())
                        .is_some_and(|known| known.serial >= transition.serial),
                    transition,
                });
            }
            Message::Finding(finding) => self.answer(finding),
            Message::Seen(id, seen) => self.known.see(id, seen),
            note => {
                let sink = &mut self.sink;
                self.outlet.gate.pass(|| sink.note(&note));
            }
        }
    }

    fn answer(&mut self, finding: Finding) {
        let of = |waiting: &&mut Waiting| waiting.transition.serial == finding.serial;
        if let Some(waiting) = self.waiting.iter_mut().find(of) {
            waiting.answered = true;
            let is_over = waiting.transition.told.phase == Phase::Ended;
            if !is_over && !finding.stacks_are_prompt {
                waiting.until_ns = 0;
            }
        }
        self.known.add(finding);
    }

    /// Delivers what need not wait or has waited for long enough. An event of a stall
    /// never overtakes an earlier one of the same.
    fn deliver_ready(&mut self) {
        let now_ns = self.clock.now_ns();
        for _ in 0..self.waiting.len() {
            let Some(waiting) = self.waiting.pop_front() else {
                return;
            };
            let id = waiting.transition.id();
            let is_coming = self.known.get(id).is_some_and(Known::is_waiting);
            if waiting.until_ns <= now_ns || waiting.answered && !is_coming {
                self.deliver(&waiting.transition);
            } else {
                self.waiting.push_back(waiting);
            }
        }
    }

    fn deliver(&mut self, transition: &Transition) {
        let id = transition.id();
        let (sink, buffer) = (&mut self.sink, &mut self.buffer);
        let known = self.known.get(id);
        self.outlet.gate.pass(|| {
            buffer.with(transition, known, |event| {
                sink.event(event, transition.span());
            });
        });
        if transition.told.phase == Phase::Ended {
            self.known.forget(id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_passes_a_gate_that_is_closed() {
        let (gate, mut calls) = (Gate::default(), 0);
        gate.pass(|| calls += 1);
        // Closed while a call is in progress, which goes on.
        gate.pass(|| {
            gate.close();
            calls += 1;
        });
        gate.pass(|| calls += 1);
        assert_eq!(calls, 2);
    }
}

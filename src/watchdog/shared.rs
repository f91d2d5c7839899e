//! What the threads of one watchdog and its owner share.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};

use crossbeam_queue::ArrayQueue;

use crate::delivery::{Delivery, Message};
use crate::detector::WorkerSeen;
use crate::ending::Ending;
use crate::idle;
use crate::ledger::Ledger;
use crate::os::AutoResetEvent;
use crate::registry::lock;
use crate::runtime_name::RuntimeName;
use crate::sampler::Lag;
use crate::stall::Phase;
use crate::watchdog::investigator::Investigator;
use crate::watchdog::stalled_thread::StalledThread;
use crate::watchdog::transition::Transition;

/// How many transitions, and requests, may wait for whoever takes them in.
const QUEUE: usize = 512;

/// What the thread that looks asks of the one that may wait.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "a box would ask for memory")]
pub(crate) enum Request {
    Transition(Transition),
    /// To find out whether somebody drives this turn, of this age, of a current-thread
    /// runtime.
    Driven {
        of: WorkerSeen,
        age_ns: u64,
    },
    /// To ask the thread of what may soon be a stall.
    Ahead(StalledThread),
    ResumeSampling,
    LookForStuck,
    /// To make what polls may need, which runs low.
    Refill,
}

/// What the threads that work for one runtime and the watchdog's owner share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) runtime: RuntimeName,
    pub(crate) stop: AtomicBool,
    /// Something was found out that the thread that looks is to see at once.
    look_now: AtomicBool,
    /// The thread that looks has ended, or looks at this runtime no more.
    pub(crate) ending: Ending,
    /// All workers are parked, and it sleeps until one wakes.
    pub(crate) asleep: AtomicBool,
    pub(crate) ticked_ns: AtomicU64,
    pub(crate) lag: Arc<Lag>,
    investigator: Investigator,
    requests: ArrayQueue<Request>,
    /// Whether a refill has been asked for and not begun yet.
    refilling: AtomicBool,
    /// Of all runtimes of the watchdog.
    pub(crate) common: Arc<Common>,
}

/// What all runtimes of one watchdog have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// Set to stop, or to look now.
    pub(crate) wakes: AutoResetEvent,
    pub(crate) tick_ns: u64,
    /// A watchdog that is later than this may have stood still.
    pub(crate) tolerance_ns: u64,
    pub(crate) gaps: AtomicU64,
    pub(crate) gaps_ns: AtomicU64,
    /// Stalls whose stack could not be taken, and why it never will be.
    pub(crate) stack_misses: AtomicU64,
    pub(crate) no_stacks: Mutex<Option<String>>,
    /// How often code that reads debug info has panicked.
    pub(crate) symbolizer_panics: AtomicU64,
    pub(crate) delivery: Delivery,
    /// What the ledger has not taken in yet.
    inbox: ArrayQueue<Transition>,
    /// Transitions that found the inbox full, in all, and some since it was emptied.
    lost: AtomicU64,
    lost_some: AtomicBool,
    /// Stalls for want of a CPU that only reports have heard of.
    pub(crate) starved_quietly: AtomicU64,
    /// Requests that found the queue full.
    unasked: AtomicU64,
    /// Never locked by the thread that looks.
    ledger: Mutex<Ledger>,
}

/// What a watchdog's threads have in common from the start.
pub(crate) struct Settings {
    pub(crate) tick_ns: u64,
    pub(crate) tolerance_ns: u64,
    pub(crate) delivery: Delivery,
}

impl Common {
    pub(crate) fn new(settings: Settings) -> Self {
        Common {
            wakes: AutoResetEvent::new(),
            tick_ns: settings.tick_ns,
            tolerance_ns: settings.tolerance_ns,
            gaps: AtomicU64::new(0),
            gaps_ns: AtomicU64::new(0),
            stack_misses: AtomicU64::new(0),
            no_stacks: Mutex::new(None),
            symbolizer_panics: AtomicU64::new(0),
            delivery: settings.delivery,
            inbox: ArrayQueue::new(QUEUE),
            lost: AtomicU64::new(0),
            lost_some: AtomicBool::new(false),
            starved_quietly: AtomicU64::new(0),
            unasked: AtomicU64::new(0),
            ledger: Mutex::new(Ledger::default()),
        }
    }
}

impl Shared {
    pub(crate) fn new(
        common: Arc<Common>,
        runtime: RuntimeName,
        investigator: Investigator,
        now_ns: u64,
    ) -> Self {
        Shared {
            runtime,
            stop: AtomicBool::new(false),
            look_now: AtomicBool::new(false),
            ending: Ending::new(),
            asleep: AtomicBool::new(false),
            ticked_ns: AtomicU64::new(now_ns),
            lag: Arc::new(Lag::new(common.tolerance_ns)),
            investigator,
            requests: ArrayQueue::new(QUEUE),
            refilling: AtomicBool::new(false),
            common,
        }
    }

    /// From the thread that looks: neither waits nor allocates.
    pub(crate) fn hand_on(&self, transition: Transition) {
        // The ledger first: who answers a transition finds it there.
        if self.common.inbox.push(transition).is_err() {
            self.common.lost.fetch_add(1, Relaxed);
            // Release: pairs with the acquire in `ledger`.
            self.common.lost_some.store(true, Release);
        }
        if transition.told.quiet {
            if transition.told.phase == Phase::Started {
                self.common.starved_quietly.fetch_add(1, Relaxed);
            }
            return;
        }
        self.common.delivery.send(&Message::Transition(transition));
        self.request(Request::Transition(transition));
    }

    /// From the thread that looks: neither waits nor allocates.
    pub(crate) fn request(&self, request: Request) {
        // A full queue is one of a thread that has been waiting for long: its answers
        // would be late.
        if self.requests.push(request).is_err() {
            self.common.unasked.fetch_add(1, Relaxed);
        }
        self.investigator.wake();
    }

    /// Has what polls may need made, unless that has been asked for already.
    pub(crate) fn request_refill(&self) {
        // Acquire and release: pair with each other from one refill to the next.
        if !self.refilling.swap(true, AcqRel) {
            self.request(Request::Refill);
        }
    }

    /// A refill begins; what runs low from now on is asked for anew.
    pub(crate) fn begin_refill(&self) {
        self.refilling.store(false, Release);
    }

    pub(crate) fn next_request(&self) -> Option<Request> {
        self.requests.pop()
    }

    /// The ledger, with all that has been handed on until now.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        let mut ledger = lock(&self.common.ledger);
        // Acquire: pairs with the release in `hand_on`.
        if self.common.lost_some.swap(false, AcqRel) {
            // Among the lost may be the ends of some: those that go on will be seen again.
            ledger.forget_ongoing();
        }
        while let Some(transition) = self.common.inbox.pop() {
            ledger.enter(&transition.event());
        }
        ledger
    }

    /// Transitions that reports have not heard of.
    pub(crate) fn lost(&self) -> u64 {
        self.common.lost.load(Relaxed)
    }

    /// Stalls that were not looked into because too many waited for that.
    pub(crate) fn unasked(&self) -> u64 {
        self.common.unasked.load(Relaxed)
    }

    /// Has the thread that looks do so at once.
    pub(crate) fn look_now(&self) {
        // Release: pairs with the acquire in `take_look_now`.
        self.look_now.store(true, Release);
        self.common.wakes.set();
    }

    pub(crate) fn take_look_now(&self) -> bool {
        self.look_now.swap(false, AcqRel)
    }

    /// Has all threads of the watchdog end.
    pub(crate) fn stop(&self) {
        // Release: pairs with the acquire in `Patrol::wait_until`.
        self.stop.store(true, Release);
        self.common.wakes.set();
        idle::wake(self.runtime.id);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Acquire)
    }

    /// The thread that investigates has to take note that this watchdog is gone.
    pub(crate) fn wake_investigator(&self) {
        self.investigator.wake();
    }
}

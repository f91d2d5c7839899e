//! The thread that looks: observe, detect, hand on; then wait until the next tick.
//!
//! A stuck thread may hold any lock of the process: the allocator's, the loader's, the
//! kernel's of the memory map. So this thread takes none of those. It allocates nothing,
//! its memory is there before it looks, and what it asks of the kernel does not wait for
//! the memory map. All that may wait is done by others: see
//! [`Investigator`](crate::watchdog::investigator), [`Delivery`](crate::delivery).

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use crate::cause::{self, Evidence};
use crate::clock::Calibrated;
use crate::delivery::Message;
use crate::detector::{Detector, Observation, Told, Unit};
use crate::driven::Driven;
use crate::idle::Sleep;
use crate::os;
use crate::registry::{Place, RuntimeId, registry};
use crate::room::room_for;
use crate::runtime_name::RuntimeName;
use crate::stall::Phase;
use crate::supply;
use crate::watchdog::allowance::Allowance;
use crate::watchdog::lateness::Lateness;
use crate::watchdog::observe::Observer;
use crate::watchdog::shared::{Request, Shared};
use crate::watchdog::stalled_thread::StalledThread;
use crate::watchdog::transition::Transition;

/// How soon the next tick may follow, whatever is due.
const SHORTEST_WAIT_NS: u64 = 20_000;

/// How long the work of one look may take. What is longer has stood still meanwhile.
const WORK_NS: u64 = 20_000_000;

/// At how many looks nothing may have happened before it sleeps without a timer:
/// each time a worker has to wake it, which costs that worker a system call.
const CALM_LOOKS: u32 = 3;

/// For how many ticks it rests at most while workers come and go.
const MOST_TICKS: u64 = 8;

/// How many transitions there is room for at one look.
const MANY_TRANSITIONS: usize = 256;

/// How often threads are asked for what is no stall yet: each takes some 10 us of its
/// thread, and some 50 of the one that asks.
pub(super) const ASKED_AHEAD: Allowance = Allowance::new(8, 100_000_000);

/// For how long nothing has happened.
#[derive(Debug, Default)]
struct Calm {
    parks: u64,
    looks: u32,
}

/// When to look next.
#[derive(Debug)]
enum Rest {
    Until(u64),
    /// The hooks of parking will tell when there is something to see.
    UntilWoken,
}

/// What the thread works with.
#[derive(Debug)]
pub(crate) struct Patrol {
    pub(crate) clock: &'static Calibrated,
    pub(crate) shared: Arc<Shared>,
    pub(crate) observer: Observer,
    pub(crate) detector: Detector,
    pub(crate) driven: Arc<Driven>,
    /// When to have stuck futures looked for, and how often.
    pub(crate) stuck: Option<Stuck>,
    /// How often threads may be asked for what is no stall yet.
    pub(crate) ahead: Allowance,
    /// Of the last transition.
    pub(crate) serial: u64,
}

/// When tracked futures that are stuck are looked for.
#[derive(Debug)]
pub(crate) struct Stuck {
    period_ns: u64,
    next_ns: u64,
}

impl Stuck {
    /// One may be told late by an eighth of the time after which it counts as stuck.
    pub(crate) const fn new(after_ns: u64) -> Self {
        Stuck {
            period_ns: after_ns / 8,
            next_ns: 0,
        }
    }
}

impl Patrol {
    /// Runs until the watchdog is dropped.
    pub(crate) fn run(mut self) {
        os::touch_stack();
        let mut seen = self.observer.room();
        let mut told = room_for(MANY_TRANSITIONS);
        let mut planned_ns = None;
        let mut calm = Calm::default();
        let mut lateness = Lateness::new(self.shared.tolerance_ns);
        loop {
            self.look(planned_ns, &mut lateness, &mut seen, &mut told);
            self.shared.ticked_ns.store(seen.now_ns, Relaxed);
            self.hand_on(&mut told, &seen);
            self.ask_whether_driven(&seen);
            self.ask_ahead(&seen);
            self.have_stuck_looked_for(seen.now_ns);
            if supply::is_low() {
                self.shared.request_refill();
            }

            // What this thread has done since it looked is no standstill.
            let done_ns = self.clock.now_ns().min(seen.now_ns + WORK_NS);
            lateness.may_have_waited(done_ns.saturating_sub(seen.now_ns));
            let stopped = match self.rest(&seen, &mut calm) {
                Rest::Until(next_ns) => {
                    let next_ns = next_ns.max(done_ns);
                    lateness.begin_wait(seen.now_ns, &seen.times);
                    planned_ns = Some(next_ns);
                    self.shared.lag.plan(next_ns);
                    self.wait_until(next_ns)
                }
                Rest::UntilWoken => {
                    planned_ns = None;
                    self.shared.lag.plan(u64::MAX);
                    self.sleep(&seen)
                }
            };
            if stopped {
                break;
            }
        }
        self.look(planned_ns, &mut lateness, &mut seen, &mut told);
        self.detector.stop(seen.now_ns, &mut told);
        self.hand_on(&mut told, &seen);
    }

    /// Observes and detects.
    fn look(
        &mut self,
        planned_ns: Option<u64>,
        lateness: &mut Lateness,
        seen: &mut Observation,
        told: &mut Vec<Told>,
    ) {
        self.observer.observe(&self.detector, planned_ns, seen);
        let late = lateness.look(planned_ns, seen.now_ns, &seen.times);
        seen.standstill_ns = late.standstill_ns;
        seen.watchdog_waited_ns = late.waited_ns;
        self.note_standstill(seen.standstill_ns, seen.now_ns);
        let next_id = &mut || registry().next_stall_id();
        self.detector.observe(seen, next_id, told);
    }

    /// Has the turn of a current-thread runtime that grows old looked into.
    fn ask_whether_driven(&mut self, seen: &Observation) {
        if let [worker] = &seen.workers[..]
            && !self.observer.is_multi_thread()
            && let Some(age_ns) = self.detector.turn_ns(Unit::Worker(0))
            && self
                .driven
                .ask(worker, age_ns, self.detector.monitor_ns(), seen.now_ns)
        {
            let of = *worker;
            self.shared.request(Request::Driven { of, age_ns });
        }
    }

    /// Has the threads of what may soon be stalls asked where they are.
    fn ask_ahead(&mut self, seen: &Observation) {
        while let Some(foreseen) = self.detector.foresee(seen) {
            let turn = match foreseen.unit {
                Unit::Worker(worker) => seen.workers.get(worker).copied(),
                Unit::Thread(_) => None,
            };
            let runtime = &self.observer.runtime;
            let thread = StalledThread::foreseen(&foreseen, turn.unwrap_or_default(), runtime);
            if let Some(thread) = thread.filter(|_| self.ahead.take(seen.now_ns)) {
                self.shared.request(Request::Ahead(thread));
            }
        }
    }

    fn have_stuck_looked_for(&mut self, now_ns: u64) {
        if let Some(stuck) = &mut self.stuck
            && now_ns >= stuck.next_ns
        {
            stuck.next_ns = now_ns.saturating_add(stuck.period_ns);
            self.shared.request(Request::LookForStuck);
        }
    }

    /// How long to rest after this look.
    ///
    /// While workers come and go the next look may wait for what takes longest to
    /// be a stall: one that begins at once, and has its beginning told by the hooks.
    fn rest(&self, seen: &Observation, calm: &mut Calm) -> Rest {
        let moved = std::mem::replace(&mut calm.parks, seen.parks()) != seen.parks();
        if !self.observer.is_idle(seen) || !self.detector.is_idle() {
            calm.looks = 0;
            return Rest::Until(self.next_ns(seen.now_ns));
        }
        self.shared.lag.may_rest();
        calm.looks = if moved { 0 } else { calm.looks + 1 };
        if self.shared.lag.is_to_resume(moved) {
            self.shared.request(Request::ResumeSampling);
        }
        if calm.looks >= CALM_LOOKS {
            return Rest::UntilWoken;
        }
        let dated = seen.accounts.iter().all(Option::is_some);
        if dated {
            let late_ns = self
                .detector
                .monitor_ns()
                .saturating_add(self.shared.tick_ns / 2);
            // Not so long that it seems not to watch any more.
            let late_ns = late_ns.min(self.shared.tick_ns.saturating_mul(MOST_TICKS));
            Rest::Until(seen.now_ns.saturating_add(late_ns))
        } else {
            Rest::Until(self.next_ns(seen.now_ns))
        }
    }

    /// Sleeps until a worker wakes; true if it is time to stop.
    fn sleep(&self, seen: &Observation) -> bool {
        let stopped = || self.shared.stop.load(Acquire);
        let Some(sleep) = Sleep::begin(self.observer.runtime()) else {
            return self.wait_until(self.next_ns(seen.now_ns));
        };
        self.shared.asleep.store(true, Relaxed);
        if self.observer.is_still_idle(seen) {
            while !sleep.is_over() && !stopped() {
                sleep.wait();
            }
        }
        self.shared.asleep.store(false, Relaxed);
        stopped()
    }

    fn next_ns(&self, now_ns: u64) -> u64 {
        // The rest of a tick is for waking up, looking and telling, which are to be
        // within it too.
        let until_ns = self.shared.tick_ns / 8 * 7;
        let regular_ns = now_ns.saturating_add(until_ns);
        self.detector
            .next_ns()
            .map_or(regular_ns, |due_ns| due_ns.min(regular_ns))
            .max(now_ns.saturating_add(SHORTEST_WAIT_NS))
    }

    /// Waits, unless it is to look or to stop before; true if it is time to stop.
    fn wait_until(&self, until_ns: u64) -> bool {
        loop {
            if self.shared.stop.load(Acquire) {
                return true;
            }
            let now_ns = self.clock.now_ns();
            if now_ns >= until_ns || self.shared.take_look_now() {
                return false;
            }
            let left = Duration::from_nanos(until_ns - now_ns);
            self.shared.wakes.wait(Some(left));
        }
    }

    fn note_standstill(&self, standstill_ns: u64, now_ns: u64) {
        if standstill_ns != 0 {
            self.shared.lag.gap(now_ns - standstill_ns, now_ns);
            self.shared.gaps.fetch_add(1, Relaxed);
            self.shared.gaps_ns.fetch_add(standstill_ns, Relaxed);
            let time = Duration::from_nanos(standstill_ns);
            self.shared.delivery.send(&Message::Standstill(time));
        }
    }

    fn hand_on(&mut self, told: &mut Vec<Told>, seen: &Observation) {
        for at in 0..told.len() {
            let one = told[at];
            let mut later = told[at..].iter();
            let is_over = later.any(|later| later.id == one.id && later.phase == Phase::Ended);
            let transition = self.transition(one, is_over, seen);
            self.shared.hand_on(transition);
        }
        told.clear();
    }

    fn transition(&mut self, told: Told, is_over: bool, seen: &Observation) -> Transition {
        let turn = match told.unit {
            Unit::Worker(worker) => seen.workers.get(worker).copied(),
            Unit::Thread(_) => None,
        };
        let turn = turn.unwrap_or_default();
        let thread = StalledThread::of(&told, turn, &self.observer.runtime);
        let doing = if is_over {
            None
        } else {
            thread.and_then(|thread| self.doing(&thread))
        };
        self.serial += 1;
        Transition {
            serial: self.serial,
            told,
            runtime: self.runtime_of(&told),
            thread: thread
                .and_then(|thread| thread.tid())
                .and_then(os::thread_comm),
            turn,
            is_over,
            doing,
            judgement: cause::judge(&Evidence {
                shares: told.shares,
                is_starved: told.is_starved,
                suspended_ns: told.suspended_ns,
                duration_ns: told.duration_ns,
                last: doing,
                asleep: doing,
            }),
        }
    }

    /// The runtime that a stuck thread works for.
    fn runtime_of(&self, told: &Told) -> Option<RuntimeName> {
        let own = self.shared.runtime;
        match (told.unit, told.poll) {
            (Unit::Thread(_), Some(poll)) => {
                let place = Place::unpack(registry().thread(poll.thread)?.place());
                let is_known = ![RuntimeId::default(), RuntimeId::UNKNOWN].contains(&place.runtime);
                match place.runtime {
                    id if id == own.id => Some(own),
                    id => is_known.then_some(RuntimeName { id, given: None }),
                }
            }
            _ => Some(own),
        }
    }

    /// What the stuck thread does at this moment.
    fn doing(&mut self, thread: &StalledThread) -> Option<os::Doing> {
        let doing = self.observer.probes.of(thread.number).ok()?.doing(1);
        // A worker that has gone on since may have parked.
        doing.filter(|_| thread.is_current(&self.observer.runtime))
    }
}

/// Says when the thread has ended, also if it has panicked.
#[derive(Debug)]
pub(crate) struct EndGuard(pub(crate) Arc<Shared>);

impl Drop for EndGuard {
    fn drop(&mut self) {
        self.0.ending.set();
    }
}

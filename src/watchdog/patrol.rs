//! One runtime, for the thread that looks: observe, detect, hand on, and when to look again.
//!
//! A stuck thread may hold any lock of the process: the allocator's, the loader's, the
//! kernel's of the memory map. So the thread that looks takes none of those. It allocates nothing,
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
use crate::os::{self, Importance};
use crate::registry::{Place, RuntimeId, registry};
use crate::room::room_for;
use crate::runtime_name::RuntimeName;
use crate::stall::Phase;
use crate::supply;
use crate::watchdog::allowance::Allowance;
use crate::watchdog::lateness::Lateness;
use crate::watchdog::observe::Observer;
use crate::watchdog::rounds::Exchange;
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
#[derive(Clone, Copy, Debug)]
pub(super) enum Rest {
    Until(u64),
    /// The hooks of parking will tell when there is something to see; where something else
    /// is to be looked at all the same, then.
    UntilWoken {
        or_ns: u64,
    },
}

impl Rest {
    pub(super) const fn until_ns(self) -> u64 {
        match self {
            Rest::Until(ns) | Rest::UntilWoken { or_ns: ns } => ns,
        }
    }
}

/// What is kept from one look to the next.
#[derive(Debug)]
pub(crate) struct Kept {
    seen: Observation,
    told: Vec<Told>,
    planned_ns: Option<u64>,
    calm: Calm,
    lateness: Lateness,
}

impl Kept {
    pub(crate) fn new(observer: &Observer, tolerance_ns: u64) -> Self {
        Kept {
            seen: observer.room(),
            told: room_for(MANY_TRANSITIONS),
            planned_ns: None,
            calm: Calm::default(),
            lateness: Lateness::new(tolerance_ns),
        }
    }
}

/// What looks at one runtime.
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
    /// Whether standstills of the process are this one's to tell of.
    pub(crate) is_own: bool,
    /// Where it goes when it is not needed any more.
    pub(crate) back: Option<Exchange>,
    pub(crate) kept: Kept,
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
    /// To be called by the thread that looks, before it looks for the first time.
    pub(super) fn begin(&mut self) {
        // The files of that thread are kept open once, and again as far as there is room.
        let importance = match self.is_own {
            true => Importance::Worker,
            false => Importance::Other,
        };
        self.kept.lateness.begin(importance);
    }

    /// Looks once, and hands on what there is to tell.
    pub(super) fn visit(&mut self) {
        self.look();
        let now_ns = self.kept.seen.now_ns;
        self.shared.ticked_ns.store(now_ns, Relaxed);
        self.hand_on();
        self.ask_whether_driven();
        self.ask_ahead();
        self.have_stuck_looked_for(now_ns);
        if self.is_own && supply::is_low() {
            self.shared.request_refill();
        }
    }

    /// Looks for the last time.
    pub(super) fn end(&mut self) {
        self.look();
        let Kept { seen, told, .. } = &mut self.kept;
        self.detector.stop(seen.now_ns, told);
        self.hand_on();
    }

    /// Until when the thread has worked since it looked. A process can be stopped in that
    /// time, too: what is longer than the work can take was none.
    pub(super) fn worked_until_ns(&self) -> u64 {
        self.clock.now_ns().min(self.kept.seen.now_ns + WORK_NS)
    }

    /// When to look again. What the thread has done since it looked, until `done_ns`, is
    /// no standstill.
    pub(super) fn rest(&mut self, done_ns: u64) -> Rest {
        let now_ns = self.kept.seen.now_ns;
        let lateness = &mut self.kept.lateness;
        lateness.may_have_waited(done_ns.saturating_sub(now_ns));
        self.next_look()
    }

    /// It is to look again then; `None`: when it is woken.
    pub(super) fn plan(&mut self, next_ns: Option<u64>) {
        let Kept {
            seen,
            lateness,
            planned_ns,
            ..
        } = &mut self.kept;
        if next_ns.is_some() {
            lateness.begin_wait(seen.now_ns, &seen.times);
        }
        *planned_ns = next_ns;
        self.shared.lag.plan(next_ns.unwrap_or(u64::MAX));
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.shared.is_stopped()
    }

    /// Whether it is to look at once.
    pub(super) fn is_asked(&self) -> bool {
        self.shared.take_look_now()
    }

    /// Waits for so long, or until there is something to do.
    pub(super) fn wait(&self, left_ns: u64) {
        let left = Duration::from_nanos(left_ns);
        self.shared.common.wakes.wait(Some(left));
    }

    /// Observes and detects.
    fn look(&mut self) {
        let Kept {
            seen,
            told,
            planned_ns,
            lateness,
            ..
        } = &mut self.kept;
        let planned_ns = *planned_ns;
        self.observer.observe(&self.detector, planned_ns, seen);
        let late = lateness.look(planned_ns, seen.now_ns, &seen.times);
        seen.standstill_ns = late.standstill_ns;
        seen.watchdog_waited_ns = late.waited_ns;
        let next_id = &mut || registry().next_stall_id();
        self.detector.observe(seen, next_id, told);
        let (standstill_ns, now_ns) = (seen.standstill_ns, seen.now_ns);
        self.note_standstill(standstill_ns, now_ns);
    }

    /// Has the turn of a current-thread runtime that grows old looked into.
    fn ask_whether_driven(&mut self) {
        let seen = &self.kept.seen;
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
    fn ask_ahead(&mut self) {
        let seen = &self.kept.seen;
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
    fn next_look(&mut self) -> Rest {
        let Kept { seen, calm, .. } = &mut self.kept;
        let moved = std::mem::replace(&mut calm.parks, seen.parks()) != seen.parks();
        if !self.observer.is_idle(seen) || !self.detector.is_idle() {
            calm.looks = 0;
            let now_ns = seen.now_ns;
            return Rest::Until(self.next_ns(now_ns));
        }
        self.shared.lag.may_rest();
        calm.looks = if moved { 0 } else { calm.looks + 1 };
        if self.shared.lag.is_to_resume(moved) {
            self.shared.request(Request::ResumeSampling);
        }
        let now_ns = seen.now_ns;
        // Not so long that it seems not to watch any more.
        let longest_ns = self.shared.common.tick_ns.saturating_mul(MOST_TICKS);
        if calm.looks >= CALM_LOOKS {
            let or_ns = now_ns.saturating_add(longest_ns);
            return Rest::UntilWoken { or_ns };
        }
        let dated = seen.accounts.iter().all(Option::is_some);
        if dated {
            let late_ns = self
                .detector
                .monitor_ns()
                .saturating_add(self.shared.common.tick_ns / 2);
            Rest::Until(now_ns.saturating_add(late_ns.min(longest_ns)))
        } else {
            Rest::Until(self.next_ns(now_ns))
        }
    }

    /// Sleeps until a worker wakes, unless there is something to do by then; true if it is
    /// time to stop.
    pub(super) fn sleep(&self, is_wanted: impl Fn() -> bool) -> bool {
        let seen = &self.kept.seen;
        let stopped = || self.shared.stop.load(Acquire);
        let Some(sleep) = Sleep::begin(self.observer.runtime()) else {
            let left_ns = self
                .next_ns(seen.now_ns)
                .saturating_sub(self.clock.now_ns());
            self.wait(left_ns);
            return stopped();
        };
        self.shared.asleep.store(true, Relaxed);
        if self.observer.is_still_idle(seen) {
            while !sleep.is_over() && !stopped() && !is_wanted() {
                sleep.wait();
            }
        }
        self.shared.asleep.store(false, Relaxed);
        stopped()
    }

    fn next_ns(&self, now_ns: u64) -> u64 {
        // The rest of a tick is for waking up, looking and telling, which are to be
        // within it too.
        let until_ns = self.shared.common.tick_ns / 8 * 7;
        let regular_ns = now_ns.saturating_add(until_ns);
        self.detector
            .next_ns()
            .map_or(regular_ns, |due_ns| due_ns.min(regular_ns))
            .max(now_ns.saturating_add(SHORTEST_WAIT_NS))
    }

    fn note_standstill(&self, standstill_ns: u64, now_ns: u64) {
        if standstill_ns != 0 {
            self.shared.lag.gap(now_ns - standstill_ns, now_ns);
            if !self.is_own {
                return;
            }
            self.shared.common.gaps.fetch_add(1, Relaxed);
            self.shared.common.gaps_ns.fetch_add(standstill_ns, Relaxed);
            let time = Duration::from_nanos(standstill_ns);
            self.shared.common.delivery.send(&Message::Standstill(time));
        }
    }

    fn hand_on(&mut self) {
        let mut told = std::mem::take(&mut self.kept.told);
        for at in 0..told.len() {
            let one = told[at];
            let mut later = told[at..].iter();
            let is_over = later.any(|later| later.id == one.id && later.phase == Phase::Ended);
            let transition = self.transition(one, is_over);
            self.shared.hand_on(transition);
        }
        told.clear();
        self.kept.told = told;
    }

    fn transition(&mut self, told: Told, is_over: bool) -> Transition {
        let seen = &self.kept.seen;
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

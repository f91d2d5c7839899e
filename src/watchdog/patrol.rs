//! The watchdog's thread: observe, detect, explain, tell; then park until the next tick.

use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::Duration;

use crate::clock::Calibrated;
use crate::detector::{Detector, Observation, Told, Unit};
use crate::driven::Driven;
use crate::idle::Sleep;
use crate::registry::registry;
use crate::report;
use crate::stall::{Phase, Stall, StallEvent, StallId, StallKind, Task};
use crate::supply;
use crate::teller::{Message, Queue, Untold};
use crate::track;
use crate::watchdog::Shared;
use crate::watchdog::inquiry::{Finding, Inquiry};
use crate::watchdog::late::Late;
use crate::watchdog::observe::Observer;

/// How soon the next tick may follow, whatever is due.
const SHORTEST_WAIT_NS: u64 = 20_000;

/// How long the work of one look may take: unwind tables of a large program are
/// taken in before its first stack. What is longer has stood still meanwhile.
const WORK_NS: u64 = 100_000_000;

/// At how many looks nothing may have happened before it sleeps without a timer:
/// each time a worker has to wake it, which costs that worker a system call.
const CALM_LOOKS: u32 = 3;

/// For how many ticks it rests at most while workers come and go.
const MOST_TICKS: u64 = 8;

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
    /// The hooks of parking will tell when there is something to see; or until then.
    UntilWoken {
        or_ns: u64,
    },
}

/// What the thread works with.
#[derive(Debug)]
pub(crate) struct Patrol {
    pub(crate) clock: &'static Calibrated,
    pub(crate) shared: Arc<Shared>,
    pub(crate) observer: Observer,
    pub(crate) detector: Detector,
    pub(crate) queue: Queue,
    pub(crate) inquiry: Inquiry,
    pub(crate) driven: Arc<Driven>,
    pub(crate) stuck: Option<Stuck>,
}

/// Looks for tracked futures that are stuck.
#[derive(Debug)]
pub(crate) struct Stuck {
    after_ns: u64,
    next_ns: u64,
}

impl Stuck {
    pub(crate) const fn new(after_ns: u64) -> Self {
        Stuck {
            after_ns,
            next_ns: 0,
        }
    }

    /// So late one may be told.
    const fn period_ns(&self) -> u64 {
        self.after_ns / 8
    }
}

impl Patrol {
    /// Runs until the watchdog is dropped.
    pub(crate) fn run(mut self) {
        let mut seen = Observation::default();
        let mut told = Vec::new();
        let mut planned_ns = None;
        let mut calm = Calm::default();
        self.inquiry.prepare();
        let mut late = Late::new(self.shared.tolerance_ns);
        loop {
            self.observer.observe(&self.detector, &mut seen);
            seen.gap_ns = late.gap_ns(planned_ns, seen.now_ns);
            self.note_gap(seen.gap_ns, seen.now_ns);
            let next_id = &mut || registry().next_stall_id();
            self.detector.observe(&seen, next_id, &mut told);
            self.shared.ticked_ns.store(seen.now_ns, Relaxed);
            self.tell(&mut told, &seen);
            // After the telling: what is over is not looked at any more.
            self.inquiry.go_on(&mut self.observer, &seen);
            let told_soon = self.ask_whether_driven(&seen);
            self.look_for_stuck(seen.now_ns);
            if supply::is_low() {
                supply::refill();
            }

            // What this thread has done since it looked is no standstill.
            let done_ns = self.clock.now_ns().min(seen.now_ns + WORK_NS);
            late.may_have_waited(done_ns.saturating_sub(seen.now_ns));
            let rest = if told_soon {
                Rest::Until(seen.now_ns)
            } else {
                self.rest(&seen, &mut calm)
            };
            let stopped = match rest {
                Rest::Until(next_ns) => {
                    let next_ns = next_ns.max(done_ns);
                    planned_ns = Some(next_ns);
                    self.shared.lag.plan(next_ns);
                    self.wait_until(next_ns)
                }
                Rest::UntilWoken { or_ns } => {
                    planned_ns = None;
                    self.shared.lag.plan(u64::MAX);
                    self.sleep(&seen, or_ns)
                }
            };
            if stopped {
                break;
            }
        }
        self.detector.stop(self.clock.now_ns(), &mut told);
        self.tell(&mut told, &seen);
        self.queue.send(Message::Stop);
    }

    /// Looks into the turn of a current-thread runtime that grows old; true if it is old
    /// enough to be told, and is known by now to be driven.
    fn ask_whether_driven(&mut self, seen: &Observation) -> bool {
        if let [worker] = &seen.workers[..]
            && !self.observer.is_multi_thread()
            && let Some(age_ns) = self.detector.turn_ns(Unit::Worker(0))
            && self
                .driven
                .ask(worker, age_ns, self.detector.monitor_ns(), seen.now_ns)
        {
            let driven = &self.driven;
            self.inquiry
                .ask_whether_driven(driven, worker, age_ns, &mut self.observer);
            let old = age_ns >= self.detector.monitor_ns();
            return old && !worker.driven && self.driven.holds(worker, self.clock.now_ns());
        }
        false
    }

    fn look_for_stuck(&mut self, now_ns: u64) {
        if let Some(stuck) = &mut self.stuck
            && now_ns >= stuck.next_ns
        {
            stuck.next_ns = now_ns + stuck.period_ns();
            let runtime = self.observer.runtime();
            for task in track::newly_stuck(self.clock, runtime, stuck.after_ns) {
                self.queue.send(Message::Stuck(Box::new(task)));
            }
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
        self.shared.lag.resume_if(moved);
        if calm.looks >= CALM_LOOKS {
            // A task that is forgotten wakes nobody.
            let tracked = |_: &&Stuck| track::any(self.observer.runtime());
            let stuck = self.stuck.as_ref().filter(tracked);
            return Rest::UntilWoken {
                or_ns: stuck.map_or(u64::MAX, |stuck| stuck.next_ns),
            };
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

    /// Sleeps until a worker wakes, or until then; true if it is time to stop.
    fn sleep(&self, seen: &Observation, or_ns: u64) -> bool {
        self.shared.asleep.store(true, Relaxed);
        let sleep = Sleep::begin(self.observer.runtime());
        let stopped = || self.shared.stop.load(Acquire);
        if self.observer.is_still_idle(seen) {
            while !sleep.is_over() && !stopped() {
                let left_ns = or_ns.saturating_sub(self.clock.now_ns());
                match or_ns {
                    u64::MAX => std::thread::park(),
                    _ if left_ns == 0 => break,
                    _ => std::thread::park_timeout(Duration::from_nanos(left_ns)),
                }
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

    /// Parks, rather than sleeps, so that a drop need not wait; true if it is time to stop.
    fn wait_until(&self, until_ns: u64) -> bool {
        loop {
            if self.shared.stop.load(Acquire) {
                return true;
            }
            let now_ns = self.clock.now_ns();
            if now_ns >= until_ns {
                return false;
            }
            std::thread::park_timeout(Duration::from_nanos(until_ns - now_ns));
        }
    }

    fn note_gap(&self, gap_ns: u64, now_ns: u64) {
        if gap_ns != 0 {
            self.shared.lag.gap(now_ns - gap_ns, now_ns);
            self.shared.gaps.fetch_add(1, Relaxed);
            self.shared.gaps_ns.fetch_add(gap_ns, Relaxed);
        }
    }

    fn tell(&mut self, told: &mut Vec<Told>, seen: &Observation) {
        // What is told when it is over already has left its thread to others.
        let over: Vec<u64> = told
            .iter()
            .filter(|told| told.phase == Phase::Ended)
            .map(|told| told.id)
            .collect();
        for told in told.drain(..) {
            let goes_on = !over.contains(&told.id);
            let found = self.inquiry.find(&told, goes_on, &mut self.observer, seen);
            let event = event_of(&told, &found);
            self.shared.ledger().enter(&event);
            self.queue.send(Message::Event(Box::new(Untold {
                event,
                span: told.culprit.map_or(0, |layer| layer.span),
                stack: found.stack,
                stacks_coming: found.stacks_coming,
                stacks_are_prompt: self.inquiry.are_stacks_prompt(),
            })));
        }
    }
}

fn event_of(told: &Told, found: &Finding) -> StallEvent {
    let task = told
        .culprit
        .and_then(|layer| Task::of(layer.label, layer.task));
    StallEvent {
        phase: told.phase,
        stall: Stall {
            id: StallId(told.id),
            severity: told.severity,
            kind: told.kind,
            task,
            worker: match told.unit {
                Unit::Worker(worker) => Some(worker),
                Unit::Thread(_) => None,
            },
            origin: report::origin().id(),
            start_ns: told.start_ns,
            duration_ns: told.duration_ns,
            on_cpu_ns: told.shares.cpu_ns,
            waiting_ns: told.shares.waiting_ns,
            off_cpu_ns: told.shares.blocked_ns,
            known_polls: (told.kind == StallKind::Turn).then_some(found.polls),
            one_poll: found.one_poll,
            cause: found.cause.clone(),
            stack: None,
            ongoing: told.phase != Phase::Ended || told.cut_off,
        },
    }
}

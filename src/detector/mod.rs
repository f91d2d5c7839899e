//! What is stuck, and since when: a pure function of observations.
//!
//! It knows no clock, thread, runtime or log: the watchdog hands it one
//! [`Observation`] a tick and gets events back, so tables can test it.
//!
//! # Words
//! A **unit** is what can be held up: a worker, or a thread that polls a
//! watched future without being one (for instance the root future of a
//! multi-thread runtime). A **hold** is one watched poll, or one turn of a
//! worker's loop, in progress. A hold that lasts becomes an **episode**: one
//! stall, with one id; a unit has one at a time.
//!
//! # Which poll is on a worker
//! A worker's counters move only between polls. So a watched poll whose worker
//! is parked or has moved on has handed it over (`block_in_place`) and holds
//! nothing up; and of two that claim one worker, the later is on it.

mod age;
mod hold;
mod observation;
mod place;
#[cfg(test)]
mod tests;
mod unit;
mod unmeasured;
mod waiting;
mod weight;

pub(crate) use observation::{
    Account, FinishedSeen, Foreseen, Layer, Observation, PollId, PollSeen, Queued, Reading, Unit,
    WorkerSeen,
};
#[cfg_attr(not(target_os = "linux"), allow(unused_imports))]
pub(crate) use waiting::ThreadState;
pub(crate) use waiting::{Shares, Spent, ThreadTimes};

use crate::clock;
use crate::room::room_for;
use crate::severity::{Severity, Thresholds};
use crate::stall::{Phase, StallKind};

use age::Excuse;
use hold::PollHold;
use place::{Detached, Placed};
use unit::{Held, Starving, Teller};

/// What is told of a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) id: u64,
    pub(crate) phase: Phase,
    pub(crate) severity: Severity,
    /// Its own time alone would be no stall: it has waited for a CPU for long.
    pub(crate) is_starved: bool,
    /// Not to be told as an event, as the like has been just before.
    pub(crate) quiet: bool,
    pub(crate) kind: StallKind,
    pub(crate) unit: Unit,
    pub(crate) poll: Option<PollId>,
    pub(crate) culprit: Option<Layer>,
    pub(crate) start_ns: u64,
    pub(crate) duration_ns: u64,
    /// Of that, for how long the whole process stood still; the severity is without.
    pub(crate) suspended_ns: u64,
    /// What the thread is known to have done in it.
    pub(crate) shares: Shares,
    /// The stall goes on, but the watchdog stops.
    pub(crate) cut_off: bool,
}

/// The state machine from observations to events.
#[derive(Debug)]
pub(crate) struct Detector {
    thresholds: Thresholds,
    starving: Starving,
    last_ns: u64,
    units: Vec<Held>,
    /// Polls in progress that hold up no worker any more.
    detached: Detached,
    /// Its memory is used again: an allocation at each look would be a good part of it.
    placed: Placed,
}

/// For how many units there is room from the start; more ask for memory once.
const MANY_UNITS: usize = 64;

/// What a unit holds; new at the end of the list if it held nothing.
fn held_of(units: &mut Vec<Held>, unit: Unit) -> &mut Held {
    let known = units.iter().position(|held| held.unit == unit);
    let at = known.unwrap_or_else(|| {
        units.push(Held::new(unit));
        units.len() - 1
    });
    &mut units[at]
}

impl Detector {
    pub(crate) fn new(thresholds: Thresholds, now_ns: u64) -> Self {
        Detector {
            thresholds,
            starving: Starving::default(),
            last_ns: now_ns,
            units: room_for(MANY_UNITS),
            detached: Detached::default(),
            placed: Placed::default(),
        }
    }

    /// The lowest threshold.
    pub(crate) fn monitor_ns(&self) -> u64 {
        clock::ns_of(self.thresholds.monitor)
    }

    /// Whether something of this age may be told at the next look or the one after, so
    /// that it has to be known how much of that its thread has waited.
    pub(crate) fn is_old(&self, age_ns: u64) -> bool {
        age_ns >= self.monitor_ns() / 4
    }

    /// The units whose poll or turn of the last tick is still the same in what is seen
    /// now, with the number of the thread where a poll tells it, and whether it matters
    /// now what the thread has done: at its first look, and where a severity is due.
    pub(crate) fn still_holds<'a>(
        &'a self,
        seen: &'a Observation,
    ) -> impl Iterator<Item = (Unit, Option<usize>, bool)> + 'a {
        let going_on = self.units.iter().filter(|held| held.goes_on(seen));
        going_on.map(|held| {
            let thread = held.poll.as_ref().map(|poll| poll.seen.id.thread);
            let due_ns = held.due_ns(self.last_ns, &self.thresholds);
            let is_due = due_ns.is_some_and(|due_ns| due_ns <= seen.now_ns);
            (held.unit, thread, is_due || !held.is_measured())
        })
    }

    /// The watched polls that were in progress at the last tick.
    pub(crate) fn polls(&self) -> impl Iterator<Item = PollId> {
        let polls = self.units.iter().filter_map(|held| held.poll.as_ref());
        polls.map(|hold| hold.seen.id)
    }

    /// Whether nothing was in progress at the last tick.
    pub(crate) fn is_idle(&self) -> bool {
        self.units.is_empty()
    }

    /// The age of the turn in progress on a unit.
    pub(crate) fn turn_ns(&self, unit: Unit) -> Option<u64> {
        let held = self.units.iter().find(|held| held.unit == unit)?;
        let turn = held.turn.as_ref()?;
        let age = &turn.age;
        Some(age.own_ns(self.last_ns).max(age.starved_ns(self.last_ns)))
    }

    /// What may be a stall at the next look or the one after: half of the lowest threshold is
    /// over, and its thread computes. Each is named once; `None` if there is no other.
    pub(crate) fn foresee(&mut self, seen: &Observation) -> Option<Foreseen> {
        let from_ns = self.monitor_ns() / 2;
        let mut units = self.units.iter_mut();
        units.find_map(|held| held.foresee(seen, from_ns))
    }

    /// When the next severity is reached if all goes on as it is.
    pub(crate) fn next_ns(&self) -> Option<u64> {
        let due_ns = |held: &Held| held.due_ns(self.last_ns, &self.thresholds);
        self.units.iter().filter_map(due_ns).min()
    }

    /// Takes in what is seen now and appends what is to be told to `events`.
    pub(crate) fn observe(
        &mut self,
        seen: &Observation,
        next_id: &mut dyn FnMut() -> u64,
        events: &mut Vec<Told>,
    ) {
        let mut placed = std::mem::take(&mut self.placed);
        placed.place(seen, &mut self.detached);
        let (thresholds, mut starving) = (self.thresholds, std::mem::take(&mut self.starving));
        let mut teller = Teller {
            thresholds: &thresholds,
            next_id,
            starving: &mut starving,
            events,
        };
        for (index, worker) in seen.workers.iter().enumerate() {
            let poll = placed.on_worker(index, seen);
            self.see(Unit::Worker(index), Some(*worker), poll, seen, &mut teller);
        }
        for poll in placed.on_threads(seen) {
            let unit = Unit::Thread(poll.id.thread);
            self.see(unit, None, Some(poll), seen, &mut teller);
        }
        for at in 0..self.units.len() {
            let unit = self.units[at].unit;
            let is_gone = match unit {
                Unit::Worker(index) => index >= seen.workers.len(),
                Unit::Thread(thread) => {
                    placed.on_threads(seen).all(|poll| poll.id.thread != thread)
                }
            };
            if is_gone {
                self.see(unit, None, None, seen, &mut teller);
            }
        }
        self.units
            .retain(|held| held.poll.is_some() || held.turn.is_some());
        self.placed = placed;
        self.starving = starving;
        self.last_ns = seen.now_ns;
    }

    /// Ends what is open, because the watchdog stops.
    pub(crate) fn stop(&mut self, now_ns: u64, events: &mut Vec<Told>) {
        let mut teller = Teller {
            thresholds: &self.thresholds,
            next_id: &mut || 0,
            starving: &mut self.starving,
            events,
        };
        for held in &mut self.units {
            held.cut_off(now_ns, &mut teller);
        }
        self.units.clear();
    }

    /// What one unit is doing now.
    fn see(
        &mut self,
        unit: Unit,
        worker: Option<WorkerSeen>,
        poll: Option<&PollSeen>,
        seen: &Observation,
        teller: &mut Teller<'_>,
    ) {
        let held = held_of(&mut self.units, unit);
        let (poll_over, turn_over) =
            held.advance(worker, poll, seen, self.last_ns, &mut self.detached);
        let finished = |hold: &PollHold| {
            seen.finished
                .iter()
                .find(|finished| finished.poll == hold.seen.id)
                .map(|finished| finished.end_ns)
        };
        // The part of the standstill before something ended.
        let excuse = |end_ns| Excuse {
            standstill_ns: seen.standstill_ns.saturating_sub(seen.now_ns - end_ns),
            own_work_ns: 0,
            short_of_cpus_ns: seen.watchdog_waited_ns,
        };
        if held.has_episode() {
            if let Some(mut hold) = poll_over.filter(|hold| held.episode_is(Some(hold.seen.id))) {
                // Without a note it ended at some time since the last tick.
                let end_ns = finished(&hold).unwrap_or(seen.now_ns).min(seen.now_ns);
                hold.age.advance(end_ns, excuse(end_ns), None);
                held.end(&hold.age, end_ns, teller);
            } else if let Some(mut hold) = turn_over
                && held.episode_is(None)
            {
                let (start_ns, end_ns) = hold.span_ns(worker, seen.now_ns);
                hold.age.advance(end_ns, excuse(end_ns), None);
                held.end_turn(&hold.age.starting(start_ns), end_ns, teller);
            }
        } else if let Some(mut hold) =
            poll_over.filter(|hold| !self.detached.contains(hold.seen.id))
            && let Some(end_ns) = finished(&hold)
        {
            // It became old enough and ended, all since the last tick.
            let end_ns = end_ns.min(seen.now_ns);
            hold.age.advance(end_ns, excuse(end_ns), None);
            held.in_hindsight(Some(&hold), &hold.age, end_ns, teller);
        } else if let Some(hold) = turn_over.filter(|hold| !hold.worker.driven && !hold.rest)
            && let Some(worker) = worker
            && !hold.age.is_dark()
        {
            let start_ns = hold
                .last_ns()
                .saturating_sub(hold.driven_ns(worker, seen.now_ns))
                .max(hold.after_ns());
            let age = hold.age.starting(start_ns);
            held.in_hindsight(None, &age, hold.last_ns(), teller);
        }
        held.rise(seen.now_ns, teller);
    }
}

//! One worker, or one thread that polls without being one: its holds and its episode.

use crate::clock;
use crate::detector::age::Age;
use crate::detector::hold::{PollHold, TurnHold};
use crate::detector::observation::{
    Account, Layer, Observation, PollId, PollSeen, Unit, WorkerSeen,
};
use crate::detector::place::Detached;
use crate::detector::waiting::ThreadTimes;
use crate::detector::{Told, severity_of};
use crate::severity::{Severity, Thresholds};
use crate::stall::{Phase, StallKind};

/// Where events go and what they need.
pub(crate) struct Teller<'a> {
    pub(crate) thresholds: &'a Thresholds,
    pub(crate) next_id: &'a mut dyn FnMut() -> u64,
    pub(crate) events: &'a mut Vec<Told>,
}

impl std::fmt::Debug for Teller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller").finish_non_exhaustive()
    }
}

/// A stall that has been told of and is not over.
#[derive(Clone, Debug)]
pub(crate) struct Episode {
    id: u64,
    severity: Severity,
    /// The poll that it is; `None` where only the turn is known.
    poll: Option<PollId>,
    culprit: Option<Layer>,
    start_ns: u64,
}

/// What is in progress on one unit.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) unit: Unit,
    pub(crate) poll: Option<PollHold>,
    pub(crate) turn: Option<TurnHold>,
    episode: Option<Episode>,
}

impl Held {
    pub(crate) const fn new(unit: Unit) -> Self {
        Held {
            unit,
            poll: None,
            turn: None,
            episode: None,
        }
    }

    /// The severity that the open episode was last told with.
    pub(crate) fn told_severity(&self) -> Option<Severity> {
        self.episode.as_ref().map(|episode| episode.severity)
    }

    /// Whether the open episode is this poll, or with `None` a turn.
    pub(crate) fn episode_is(&self, poll: Option<PollId>) -> bool {
        self.episode
            .as_ref()
            .is_some_and(|episode| episode.poll == poll)
    }

    /// Whether it is known what its thread had done when this was first looked at.
    pub(crate) fn is_measured(&self) -> bool {
        let poll = self.poll.as_ref().map(|poll| &poll.age);
        let turn = self.turn.as_ref().map(|turn| &turn.age);
        poll.into_iter().chain(turn).all(Age::is_measured)
    }

    /// Whether what was in progress at the last tick still is.
    pub(crate) fn goes_on(&self, seen: &Observation) -> bool {
        let poll = self.poll.as_ref().is_some_and(|poll| {
            let id = poll.seen.id;
            seen.polls.iter().any(|poll| poll.id == id)
        });
        poll || match (self.unit, &self.turn) {
            (Unit::Worker(index), Some(turn)) => seen
                .workers
                .get(index)
                .is_some_and(|worker| turn.worker.same_turn(worker)),
            _ => false,
        }
    }

    /// Brings the holds up to date, from the look at `last_ns`; returns those that are over.
    pub(crate) fn advance(
        &mut self,
        worker: Option<WorkerSeen>,
        poll: Option<&PollSeen>,
        seen: &Observation,
        last_ns: u64,
        detached: &mut Detached,
    ) -> (Option<PollHold>, Option<TurnHold>) {
        let times = seen.times.iter().find(|(unit, _)| *unit == self.unit);
        let times = times.map(|(_, times)| *times);
        (
            self.advance_poll(worker, poll, seen, times, detached),
            self.advance_turn(worker, seen, times, last_ns),
        )
    }

    fn account<'a>(&self, seen: &'a Observation) -> Option<&'a Account> {
        match self.unit {
            Unit::Worker(index) => seen.accounts.get(index)?.as_ref(),
            Unit::Thread(_) => None,
        }
    }

    fn advance_poll(
        &mut self,
        worker: Option<WorkerSeen>,
        poll: Option<&PollSeen>,
        seen: &Observation,
        times: Option<ThreadTimes>,
        detached: &mut Detached,
    ) -> Option<PollHold> {
        let id = poll.map(|poll| poll.id);
        let over = self.poll.take_if(|hold| Some(hold.seen.id) != id);
        let Some(poll) = poll else { return over };
        let parked = worker.is_some_and(|worker| worker.parked);
        let left_behind = |hold: &PollHold| hold.left_behind(worker);
        if parked || self.poll.as_ref().is_some_and(left_behind) {
            detached.insert(poll.id);
            return self.poll.take().or(over);
        }
        let account = self.account(seen);
        match &mut self.poll {
            Some(hold) => hold.advance(poll, seen, times),
            none => *none = Some(PollHold::new(poll, worker, seen, times, account)),
        }
        over
    }

    fn advance_turn(
        &mut self,
        worker: Option<WorkerSeen>,
        seen: &Observation,
        times: Option<ThreadTimes>,
        last_ns: u64,
    ) -> Option<TurnHold> {
        let Some(worker) = worker.filter(|worker| !worker.parked) else {
            return self.turn.take();
        };
        let same = |hold: &TurnHold| hold.worker.same_turn(&worker);
        // Who drove it has gone away in the middle of it.
        let left = |hold: &TurnHold| same(hold) && hold.worker.driven && !worker.driven;
        let over = self.turn.take_if(|hold| !same(hold) || left(hold));
        let account = self.account(seen);
        match &mut self.turn {
            Some(hold) => hold.advance(worker, seen, times),
            none => {
                let rest = over.as_ref().is_some_and(left);
                *none = Some(TurnHold::new(worker, seen, last_ns, rest, times, account));
            }
        }
        over
    }

    pub(crate) const fn has_episode(&self) -> bool {
        self.episode.is_some()
    }

    /// Starts or escalates the episode where its time has come.
    pub(crate) fn rise(&mut self, now_ns: u64, teller: &mut Teller<'_>) {
        if let Some(hold) = &self.poll
            && let Some(severity) = severity_of(teller.thresholds, hold.age.counts_ns(now_ns))
        {
            let hold = hold.clone();
            self.raise(severity, Some(&hold), &hold.age, now_ns, teller);
        } else if let Some(age) = self.turn_to_blame(now_ns, teller.thresholds)
            && let Some(severity) = severity_of(teller.thresholds, age.counts_ns(now_ns))
        {
            self.raise(severity, None, &age, now_ns, teller);
        }
    }

    /// When the next severity is reached if all goes on as it did until then.
    pub(crate) fn due_ns(&self, last_ns: u64, thresholds: &Thresholds) -> Option<u64> {
        let told = self.told_severity();
        let mut severities = Severity::ALL.into_iter();
        let next = severities.find(|severity| Some(*severity) > told)?;
        let bound_ns = clock::ns_of(thresholds.of(next));
        let reached_ns = |age: &Age| {
            let left_ns = bound_ns.saturating_sub(age.counts_ns(last_ns));
            last_ns.saturating_add(left_ns)
        };
        let poll_ns = self.poll.as_ref().map(|poll| reached_ns(&poll.age));
        let turn_ns = self.turn.as_ref().and_then(|turn| {
            let at_ns = reached_ns(&turn.age);
            // That it is driven may be known by then; if not, nobody knows when.
            let in_time = turn.worker.driven || at_ns > last_ns;
            (in_time && !self.poll_lasts(at_ns, thresholds)).then_some(at_ns)
        });
        poll_ns.into_iter().chain(turn_ns).min()
    }

    /// Whether a watched poll has been on the worker for so long that it will be told as
    /// what it is in a moment, or will be over.
    fn poll_lasts(&self, now_ns: u64, thresholds: &Thresholds) -> bool {
        let soon_ns = clock::ns_of(thresholds.monitor) / 2;
        let poll = self.poll.as_ref();
        poll.is_some_and(|poll| poll.age.awake_ns(now_ns) >= soon_ns)
    }

    /// The turn, unless it is not known to be driven or a watched poll is what it is made of.
    fn turn_to_blame(&self, now_ns: u64, thresholds: &Thresholds) -> Option<Age> {
        self.turn
            .as_ref()
            .filter(|turn| turn.worker.driven && !self.poll_lasts(now_ns, thresholds))
            .map(|turn| turn.age.clone())
    }

    fn raise(
        &mut self,
        severity: Severity,
        poll: Option<&PollHold>,
        age: &Age,
        at_ns: u64,
        teller: &mut Teller<'_>,
    ) {
        let culprit = poll.map(|poll| poll.seen.culprit(at_ns));
        let phase = match &mut self.episode {
            None => {
                self.episode = Some(Episode {
                    id: (teller.next_id)(),
                    severity,
                    poll: poll.map(|poll| poll.seen.id),
                    culprit,
                    start_ns: age.since_ns(),
                });
                Phase::Started
            }
            Some(episode) => {
                if let Some(poll) = poll {
                    episode.poll = Some(poll.seen.id);
                    episode.culprit = culprit;
                }
                if severity <= episode.severity {
                    return;
                }
                episode.severity = severity;
                Phase::Escalated
            }
        };
        self.tell(phase, at_ns, age, teller);
    }

    fn tell(&self, phase: Phase, at_ns: u64, age: &Age, teller: &mut Teller<'_>) {
        let Some(episode) = &self.episode else { return };
        // The episode may have begun as a turn, before the poll that it became.
        let lead_ns = age.since_ns().saturating_sub(episode.start_ns);
        teller.events.push(Told {
            id: episode.id,
            phase,
            severity: episode.severity,
            kind: match episode.poll {
                Some(_) => StallKind::Poll,
                None => StallKind::Turn,
            },
            unit: self.unit,
            poll: episode.poll,
            culprit: episode.culprit,
            start_ns: episode.start_ns,
            duration_ns: age.elapsed_ns(at_ns).saturating_add(lead_ns),
            suspended_ns: age.standstill_ns(),
            shares: age.shares(),
            cut_off: false,
        });
    }

    /// Ends the episode of a turn, whose beginning is now known better.
    pub(crate) fn end_turn(&mut self, age: &Age, end_ns: u64, teller: &mut Teller<'_>) {
        if let Some(episode) = &mut self.episode {
            episode.start_ns = age.since_ns();
        }
        self.end(age, end_ns, teller);
    }

    /// Ends the episode.
    pub(crate) fn end(&mut self, age: &Age, end_ns: u64, teller: &mut Teller<'_>) {
        if let Some(episode) = &mut self.episode
            && let Some(severity) = severity_of(teller.thresholds, age.counts_ns(end_ns))
        {
            episode.severity = episode.severity.max(severity);
        }
        self.tell(Phase::Ended, end_ns, age, teller);
        self.episode = None;
        // The turn goes on; what it has been told for is not told again.
        if let Some(turn) = &mut self.turn {
            turn.begin_again(end_ns);
        }
    }

    /// Tells of a stall that was over before its time came to be told of.
    pub(crate) fn in_hindsight(
        &mut self,
        poll: Option<&PollHold>,
        age: &Age,
        end_ns: u64,
        teller: &mut Teller<'_>,
    ) {
        if let Some(severity) = severity_of(teller.thresholds, age.counts_ns(end_ns)) {
            self.raise(severity, poll, age, end_ns, teller);
            self.end(age, end_ns, teller);
        }
    }

    /// Ends the episode because the watchdog stops.
    pub(crate) fn cut_off(&mut self, now_ns: u64, teller: &mut Teller<'_>) {
        let age = match (&self.poll, &self.turn) {
            (Some(poll), _) => poll.age.clone(),
            (None, Some(turn)) => turn.age.clone(),
            (None, None) => return,
        };
        if self.has_episode() {
            self.end(&age, now_ns, teller);
            if let Some(told) = teller.events.last_mut() {
                told.cut_off = true;
            }
        }
    }
}

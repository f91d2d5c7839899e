//! One worker, or one thread that polls without being one: its holds and its episode.

use crate::clock;
use crate::detector::Told;
use crate::detector::age::Age;
use crate::detector::hold::{PollHold, TurnHold};
use crate::detector::observation::{
    Account, Foreseen, Layer, Observation, PollId, PollSeen, Unit, WorkerSeen,
};
use crate::detector::place::Detached;
use crate::detector::waiting::{ThreadState, ThreadTimes};
use crate::detector::weight::{Weight, time_until_above};
use crate::severity::Thresholds;
use crate::stall::{Phase, StallKind};

/// Where events go and what they need.
pub(crate) struct Teller<'a> {
    pub(crate) thresholds: &'a Thresholds,
    pub(crate) next_id: &'a mut dyn FnMut() -> u64,
    pub(crate) starving: &'a mut Starving,
    pub(crate) events: &'a mut Vec<Told>,
}

impl std::fmt::Debug for Teller<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller").finish_non_exhaustive()
    }
}

/// A stall that has been told of and is not over: a turn, or one poll, for its whole life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Episode {
    id: u64,
    /// The highest that it has been told with.
    weight: Weight,
    /// Reports have it, but nobody is told.
    quiet: bool,
    held_by: HeldBy,
    start_ns: u64,
}

/// What an episode is.
#[derive(Clone, Copy, Debug)]
enum HeldBy {
    Poll(PollId, Layer),
    /// With the watched poll in it that has lasted for longest, and for how long.
    Turn(Option<(Layer, u64)>),
}

impl Episode {
    const fn poll(&self) -> Option<PollId> {
        match self.held_by {
            HeldBy::Poll(poll, _) => Some(poll),
            HeldBy::Turn(_) => None,
        }
    }

    /// The watched future that it is about, if it has lasted for so long.
    fn culprit(&self, duration_ns: u64) -> Option<Layer> {
        match self.held_by {
            HeldBy::Poll(_, culprit) => Some(culprit),
            HeldBy::Turn(longest) => {
                let most = |(_, ns): &(Layer, u64)| *ns >= duration_ns / 2;
                longest.filter(most).map(|(culprit, _)| culprit)
            }
        }
    }

    /// Takes note of a watched poll in the turn that it is.
    fn note(&mut self, culprit: Layer, lasted_ns: u64) {
        if let HeldBy::Turn(longest) = &mut self.held_by
            && longest.is_none_or(|(_, ns)| ns <= lasted_ns)
        {
            *longest = Some((culprit, lasted_ns));
        }
    }
}

/// What is in progress on one unit.
#[derive(Clone, Debug)]
pub(crate) struct Held {
    pub(crate) unit: Unit,
    pub(crate) poll: Option<PollHold>,
    pub(crate) turn: Option<TurnHold>,
    episode: Option<Episode>,
    /// The last poll, or turn by its count of parks, that has been foreseen.
    foreseen: Option<(Option<PollId>, u64)>,
}

impl Held {
    pub(crate) const fn new(unit: Unit) -> Self {
        Held {
            unit,
            poll: None,
            turn: None,
            episode: None,
            foreseen: None,
        }
    }

    /// What it holds, if that has computed for so long and is no stall yet; once.
    pub(crate) fn foresee(&mut self, seen: &Observation, from_ns: u64) -> Option<Foreseen> {
        let mut times = seen.times.iter();
        let (_, times) = times.find(|(unit, _)| *unit == self.unit)?;
        if self.has_episode() || times.state == ThreadState::Off {
            return None;
        }
        let is_old = |age: &Age| age.own_ns(seen.now_ns) >= from_ns;
        let poll = self.poll.as_ref().filter(|poll| is_old(&poll.age));
        let turn = self.turn.as_ref();
        if poll.is_none() && !turn.is_some_and(|turn| turn.worker.driven && is_old(&turn.age)) {
            return None;
        }
        let parks = turn.map_or(0, |turn| turn.worker.parks);
        let this = (poll.map(|poll| poll.seen.id), parks);
        let anchor = |poll: &PollHold| poll.seen.culprit(seen.now_ns).anchor;
        let poll = poll.map(|poll| (poll.seen.id, anchor(poll)));
        let is_new = self.foreseen.replace(this) != Some(this);
        is_new.then_some(Foreseen {
            unit: self.unit,
            poll,
        })
    }

    /// Whether the open episode is this poll, or with `None` a turn.
    pub(crate) fn episode_is(&self, poll: Option<PollId>) -> bool {
        self.episode
            .as_ref()
            .is_some_and(|episode| episode.poll() == poll)
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
        let mut over = (
            self.advance_poll(worker, poll, seen, last_ns, times, detached),
            self.advance_turn(worker, seen, times, last_ns),
        );
        let queued = seen.queued.iter().find(|(unit, _)| *unit == self.unit);
        let queued = queued.map(|(_, queued)| *queued);
        for poll in self.poll.iter_mut().chain(&mut over.0) {
            poll.age
                .read(queued.filter(|queued| queued.thread == poll.seen.id.thread));
        }
        for turn in self.turn.iter_mut().chain(&mut over.1) {
            turn.age.read(queued);
        }
        over
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
        last_ns: u64,
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
            none => {
                // The turn's hold is still that of the last look.
                let turn = self.turn.as_ref();
                let hold = PollHold::new(poll, worker, seen, last_ns, turn, times, account);
                *none = Some(hold);
            }
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
        let at_work = |worker: &WorkerSeen| !worker.parked && !seen.is_vacant;
        let Some(worker) = worker.filter(at_work) else {
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
        let weigh = |age: &Age| Weight::of(age, now_ns, teller.thresholds);
        let poll = self.poll.as_ref();
        let poll = poll.and_then(|poll| Some((weigh(&poll.age)?, poll.clone())));
        let Some((weight, poll)) = poll else {
            if let Some(age) = self.turn_to_blame(now_ns, teller.thresholds)
                && let Some(weight) = Weight::of(&age, now_ns, teller.thresholds)
            {
                self.raise(weight, None, &age, now_ns, teller);
            }
            return;
        };
        if self.episode_is(None) {
            if let Some((age, end_ns)) = self.turn_before(&poll, teller.thresholds) {
                let age = age.clone();
                self.end(&age, end_ns, teller);
            } else if let Some(turn) = &self.turn {
                let age = turn.age.clone();
                if let Some(episode) = &mut self.episode {
                    episode.note(poll.seen.culprit(now_ns), poll.age.elapsed_ns(now_ns));
                }
                if let Some(weight) = Weight::of(&age, now_ns, teller.thresholds) {
                    self.raise(weight, None, &age, now_ns, teller);
                }
                return;
            }
        }
        self.raise(weight, Some(&poll), &poll.age, now_ns, teller);
    }

    /// What there was before this poll of the turn that the episode is, and its end.
    ///
    /// `None` where that alone would not be all that has been told of it: of a stall that
    /// was none without its last poll, that poll is a part. Told anew as a poll, it would
    /// be two.
    fn turn_before<'a>(
        &'a self,
        poll: &'a PollHold,
        thresholds: &Thresholds,
    ) -> Option<(&'a Age, u64)> {
        let told = self.episode.filter(|episode| episode.poll().is_none())?;
        let (age, end_ns) = poll.before(self.turn.as_ref()?)?;
        let weight = Weight::of(age, end_ns, thresholds);
        (weight >= Some(told.weight)).then_some((age, end_ns))
    }

    /// When it is of more weight than was told, if all goes on as it did until then.
    pub(crate) fn due_ns(&self, last_ns: u64, thresholds: &Thresholds) -> Option<u64> {
        let told = self.episode.map(|episode| episode.weight);
        let reached_ns = |age: &Age, told: Option<Weight>| {
            let left_ns = time_until_above(told, age, last_ns, thresholds)?;
            Some(last_ns.saturating_add(left_ns))
        };
        let is_turn = self.episode_is(None);
        let poll_ns = self.poll.as_ref().and_then(|poll| {
            if !is_turn {
                reached_ns(&poll.age, told)
            } else {
                // Of its own from the lowest threshold on, or a part of the turn.
                self.turn_before(poll, thresholds)?;
                reached_ns(&poll.age, None)
            }
        });
        let turn_ns = self.turn.as_ref().and_then(|turn| {
            let at_ns = reached_ns(&turn.age, told)?;
            // That it is driven may be known by then; if not, nobody knows when.
            let in_time = turn.worker.driven || at_ns > last_ns;
            let is_whole = is_turn && poll_ns.is_none();
            (in_time && (is_whole || !self.poll_lasts(at_ns, thresholds))).then_some(at_ns)
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
        weight: Weight,
        poll: Option<&PollHold>,
        age: &Age,
        at_ns: u64,
        teller: &mut Teller<'_>,
    ) {
        let phase = match &mut self.episode {
            None => {
                self.episode = Some(Episode {
                    id: (teller.next_id)(),
                    weight,
                    quiet: weight.is_starved() && !teller.starving.may_tell(at_ns),
                    held_by: HeldBy::Turn(None),
                    start_ns: age.since_ns(),
                });
                Some(Phase::Started)
            }
            Some(episode) if weight > episode.weight => {
                let told = std::mem::replace(&mut episode.weight, weight);
                if std::mem::take(&mut episode.quiet) {
                    // Nobody has heard of it yet.
                    Some(Phase::Started)
                } else {
                    (weight.severity() > told.severity()).then_some(Phase::Escalated)
                }
            }
            Some(_) => None,
        };
        if let Some(poll) = poll
            && let Some(episode) = &mut self.episode
        {
            episode.held_by = HeldBy::Poll(poll.seen.id, poll.seen.culprit(at_ns));
        }
        if let Some(phase) = phase {
            self.tell(phase, at_ns, age, teller);
        }
    }

    fn tell(&self, phase: Phase, at_ns: u64, age: &Age, teller: &mut Teller<'_>) {
        let Some(episode) = &self.episode else { return };
        let poll = episode.poll();
        let duration_ns = age.elapsed_ns(at_ns);
        let now = Weight::of(age, at_ns, teller.thresholds);
        teller.events.push(Told {
            id: episode.id,
            phase,
            severity: episode.weight.severity(),
            // What was taken for work can turn out to have been a wait.
            is_starved: now.is_none_or(Weight::is_starved),
            quiet: episode.quiet,
            kind: match poll {
                Some(_) => StallKind::Poll,
                None => StallKind::Turn,
            },
            unit: self.unit,
            poll,
            culprit: episode.culprit(duration_ns),
            start_ns: episode.start_ns,
            duration_ns,
            suspended_ns: age.standstill_ns(),
            shares: age.shares(at_ns).within(duration_ns),
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
        let mut is_told_late = false;
        if let Some(episode) = &mut self.episode
            && let Some(weight) = Weight::of(age, end_ns, teller.thresholds)
        {
            episode.weight = episode.weight.max(weight);
            is_told_late = episode.quiet && !episode.weight.is_starved();
            episode.quiet &= !is_told_late;
        }
        if is_told_late {
            self.tell(Phase::Started, end_ns, age, teller);
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
        if let Some(weight) = Weight::of(age, end_ns, teller.thresholds) {
            self.raise(weight, poll, age, end_ns, teller);
            self.end(age, end_ns, teller);
        }
    }

    /// Ends the episode because the watchdog stops.
    pub(crate) fn cut_off(&mut self, now_ns: u64, teller: &mut Teller<'_>) {
        let age = match (
            self.episode.as_ref().map(Episode::poll),
            &self.poll,
            &self.turn,
        ) {
            (Some(Some(_)), Some(poll), _) => poll.age.clone(),
            (Some(None), _, Some(turn)) => turn.age.clone(),
            _ => return,
        };
        self.end(&age, now_ns, teller);
        if let Some(told) = teller.events.last_mut() {
            told.cut_off = true;
        }
    }
}

/// After which time one more stall for want of a CPU may be told as an event: a machine
/// that is short of CPUs makes hundreds.
const STARVED_EVERY_NS: u64 = 60_000_000_000;

/// When the next stall for want of a CPU may be told.
#[derive(Debug, Default)]
pub(crate) struct Starving {
    next_ns: u64,
}

impl Starving {
    fn may_tell(&mut self, now_ns: u64) -> bool {
        let may = now_ns >= self.next_ns;
        if may {
            self.next_ns = now_ns.saturating_add(STARVED_EVERY_NS);
        }
        may
    }
}

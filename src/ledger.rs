//! What has been told of stalls so far: bounded, and read at any time.

use std::collections::{HashMap, VecDeque};

use crate::lately::Lately;
use crate::report::{self, Adding, Fingerprint, Hotspot, SeverityCounts};
use crate::severity::Severity;
use crate::stall::{Location, Phase, Stack, Stall, StallEvent, StallId, StallKind, Task};
use crate::watchdog::transition::Finding;

/// How many stalls that are over are remembered one by one.
const MAX_STALLS: usize = 1_000;
/// How many stacks are kept that came before what they are of.
const MAX_EARLY: usize = 64;
/// How many culprits are summed up each; more are summed up together.
const MAX_HOTSPOTS: usize = 256;

/// The stalls of one watchdog.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    ongoing: Vec<Stall>,
    over: VecDeque<Stall>,
    /// A stack whose functions are known already is symbolized in microseconds: it
    /// can be here before the event that it was taken for.
    early: VecDeque<(StallId, Stack)>,
    forgotten: u64,
    /// Of stalls that are no longer remembered one by one.
    forgotten_hotspots: HashMap<Fingerprint, Adding>,
    /// By name, then by place; as many as there are labels.
    by_task: HashMap<String, Vec<(Option<Location>, SeverityCounts)>>,
    max_severity: Option<Severity>,
    counts: SeverityCounts,
    lately: Lately,
}

impl Ledger {
    pub(crate) fn enter(&mut self, event: &StallEvent) {
        let stall = &event.stall;
        self.max_severity = self.max_severity.max(Some(stall.severity()));
        let mut stall = stall.clone();
        if let Some(at) = self
            .ongoing
            .iter()
            .position(|other| other.id() == stall.id())
        {
            let before = self.ongoing.swap_remove(at);
            stall.stack = stall.stack.or(before.stack);
        }
        if let Some(at) = self.early.iter().position(|(id, _)| *id == stall.id()) {
            stall.stack = self.early.remove(at).map(|(_, stack)| stack);
        }
        stall.refine_cause();
        if event.phase != Phase::Ended {
            self.ongoing.push(stall);
            return;
        }
        self.counts.count(stall.severity());
        self.count_for_task(&stall);
        self.lately.add(&stall);
        if self.over.len() == MAX_STALLS
            && let Some(oldest) = self.over.pop_front()
        {
            add_up(&mut self.forgotten_hotspots, &oldest);
            self.forgotten += 1;
        }
        self.over.push_back(stall);
    }

    /// A stack of this stall has been symbolized.
    pub(crate) fn attach(&mut self, id: StallId, stack: &Stack) {
        // The latest are at the end.
        let stalls = self.ongoing.iter_mut().chain(self.over.iter_mut().rev());
        if let Some(stall) = stalls.into_iter().find(|stall| stall.id() == id) {
            stall.stack = Some(stack.clone());
            stall.refine_cause();
            return;
        }
        if self.early.len() == MAX_EARLY {
            self.early.pop_front();
        }
        self.early.push_back((id, stack.clone()));
    }

    /// Something has been found out about this stall.
    pub(crate) fn update(&mut self, finding: &Finding) {
        if let Some(stack) = &finding.stack {
            self.attach(finding.id, stack);
        }
        let stalls = self.ongoing.iter_mut().chain(self.over.iter_mut().rev());
        if let Some(stall) = stalls.into_iter().find(|stall| stall.id() == finding.id) {
            stall.cause = finding.judgement.refined(stall.stack.as_ref()).into();
            if stall.kind == StallKind::Turn {
                stall.one_poll = finding.one_poll;
                stall.known_polls = stall.known_polls.max(Some(finding.polls));
            }
        }
    }

    fn count_for_task(&mut self, stall: &Stall) {
        let Some(task) = stall.task() else { return };
        let places = self.by_task.entry(task.name().to_owned()).or_default();
        let location = task.location();
        match places
            .iter_mut()
            .find(|(place, _)| place.as_ref() == location)
        {
            Some((_, counts)) => counts.count(stall.severity()),
            None => {
                let mut counts = SeverityCounts::default();
                counts.count(stall.severity());
                places.push((location.cloned(), counts));
            }
        }
    }

    /// It is not known any more which stalls are in progress.
    pub(crate) fn forget_ongoing(&mut self) {
        self.ongoing.clear();
    }

    /// Those in progress, with their durations until now.
    pub(crate) fn ongoing(&self, now_ns: u64) -> Vec<Stall> {
        let mut ongoing = self.ongoing.clone();
        for stall in &mut ongoing {
            let lasted_ns = now_ns.saturating_sub(stall.start_ns);
            stall.duration_ns = stall.duration_ns.max(lasted_ns);
        }
        ongoing
    }

    pub(crate) const fn forgotten(&self) -> u64 {
        self.forgotten
    }

    pub(crate) const fn max_severity(&self) -> Option<Severity> {
        self.max_severity
    }

    /// All stalls, those in progress with their durations until now.
    pub(crate) fn at(&self, now_ns: u64) -> Stalls<'_> {
        Stalls {
            ledger: self,
            ongoing: self.ongoing(now_ns),
        }
    }

    /// The stalls that the event loop's last minute is judged by.
    pub(crate) const fn lately(&self) -> &Lately {
        &self.lately
    }
}

/// All stalls at one moment: a stall that never ends is one, too.
#[derive(Debug)]
pub(crate) struct Stalls<'a> {
    ledger: &'a Ledger,
    ongoing: Vec<Stall>,
}

impl Stalls<'_> {
    pub(crate) fn counts(&self) -> SeverityCounts {
        let mut counts = self.ledger.counts;
        for stall in &self.ongoing {
            counts.count(stall.severity());
        }
        counts
    }

    /// Of one watched future's name.
    pub(crate) fn counts_of(&self, name: &str, location: Option<&Location>) -> SeverityCounts {
        let by_place = self.ledger.by_task.get(name);
        let mut counts = by_place
            .and_then(|places| places.iter().find(|(place, _)| place.as_ref() == location))
            .map(|(_, counts)| *counts)
            .unwrap_or_default();
        for stall in &self.ongoing {
            if let Some(task) = stall.task()
                && (task.name(), task.location()) == (name, location)
            {
                counts.count(stall.severity());
            }
        }
        counts
    }

    /// The watched futures of those in progress.
    pub(crate) fn tasks_in_progress(&self) -> impl Iterator<Item = &Task> {
        self.ongoing.iter().filter_map(Stall::task)
    }

    /// The worst first.
    pub(crate) fn hotspots(&self) -> Vec<Hotspot> {
        let mut by_fingerprint = self.ledger.forgotten_hotspots.clone();
        for stall in self.ledger.over.iter().chain(&self.ongoing) {
            add_up(&mut by_fingerprint, stall);
        }
        let mut hotspots: Vec<Hotspot> = by_fingerprint.into_values().map(Adding::done).collect();
        report::worst_first(&mut hotspots);
        hotspots
    }

    /// Those over, the oldest first, then those in progress.
    pub(crate) fn into_list(self) -> Vec<Stall> {
        let over = self.ledger.over.iter().cloned();
        over.chain(self.ongoing).collect()
    }
}

fn add_up(hotspots: &mut HashMap<Fingerprint, Adding>, stall: &Stall) {
    let mut fingerprint = Fingerprint::of(stall);
    if !hotspots.contains_key(&fingerprint) && hotspots.len() >= MAX_HOTSPOTS {
        fingerprint = Fingerprint::other();
    }
    hotspots
        .entry(fingerprint.clone())
        .or_insert_with(|| Adding::new(fingerprint, stall))
        .add(stall);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stall::{Cause, Frame};

    fn event(id: u64, phase: Phase) -> StallEvent {
        StallEvent {
            phase,
            stall: Stall {
                id: StallId(id),
                severity: Severity::Monitor,
                kind: StallKind::Poll,
                task: None,
                worker: Some(0),
                origin: 0,
                start_ns: 0,
                duration_ns: 10_000_000,
                suspended_ns: 0,
                on_cpu_ns: 0,
                waiting_ns: 0,
                off_cpu_ns: 0,
                known_polls: None,
                one_poll: None,
                cause: Cause::Unknown,
                stack: None,
                ongoing: phase != Phase::Ended,
            },
        }
    }

    fn stack(line: u32) -> Stack {
        Stack {
            frames: [Frame {
                line: Some(line),
                ..Frame::default()
            }]
            .into(),
            culprit: Some(0),
            leaf: None,
        }
    }

    #[test]
    fn a_stack_may_come_before_its_stall_or_after_it() {
        let mut ledger = Ledger::default();
        ledger.attach(StallId(1), &stack(1));
        ledger.enter(&event(1, Phase::Started));
        ledger.enter(&event(1, Phase::Ended));
        ledger.enter(&event(2, Phase::Started));
        ledger.attach(StallId(2), &stack(2));
        ledger.enter(&event(2, Phase::Ended));
        ledger.enter(&event(3, Phase::Ended));
        ledger.attach(StallId(3), &stack(3));
        let stalls = ledger.at(0).into_list();
        let stacks: Vec<_> = stalls.iter().map(Stall::stack).collect();
        assert_eq!(stacks, [Some(&stack(1)), Some(&stack(2)), Some(&stack(3))]);
    }

    #[test]
    fn a_later_stack_of_a_stall_that_escalates_replaces_the_one_before() {
        let mut ledger = Ledger::default();
        ledger.enter(&event(1, Phase::Started));
        ledger.attach(StallId(1), &stack(1));
        ledger.attach(StallId(1), &stack(2));
        ledger.enter(&event(1, Phase::Escalated));
        ledger.enter(&event(1, Phase::Ended));
        assert_eq!(ledger.at(0).into_list()[0].stack(), Some(&stack(2)));
    }

    #[test]
    fn a_stall_in_progress_counts_with_its_duration_until_now() {
        let mut ledger = Ledger::default();
        ledger.enter(&event(1, Phase::Started));
        ledger.enter(&event(2, Phase::Ended));
        let stalls = ledger.at(70_000_000);
        assert_eq!(stalls.counts().total(), 2);
        let [both] = &stalls.hotspots()[..] else {
            panic!("{stalls:?}")
        };
        assert_eq!(both.total(), Duration::from_millis(80));
        let durations: Vec<_> = stalls.into_list().iter().map(Stall::duration).collect();
        assert_eq!(durations, [10, 70].map(Duration::from_millis));
    }

    #[test]
    fn stacks_whose_stalls_never_come_do_not_pile_up() {
        let mut ledger = Ledger::default();
        for id in 0..10_000 {
            ledger.attach(StallId(id), &stack(1));
        }
        assert_eq!(ledger.early.len(), MAX_EARLY);
    }
}

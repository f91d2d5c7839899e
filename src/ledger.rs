//! What has been told of stalls so far: bounded, and read at any time.

use std::collections::{HashMap, VecDeque};

use crate::cause::Judgement;
use crate::lately::Lately;
use crate::report::{self, Adding, Fingerprint, Hotspot, SeverityCounts};
use crate::severity::Severity;
use crate::stall::{Location, Phase, Stall, StallEvent, StallId, StallKind, Task};
use crate::watchdog::transition::{Finding, Whereabouts};

/// How many stalls that are over are remembered one by one.
const MAX_STALLS: usize = 1_000;
/// How many culprits are summed up each; more are summed up together.
const MAX_HOTSPOTS: usize = 256;

/// The stalls of one watchdog.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    ongoing: Vec<Stall>,
    over: VecDeque<Stall>,
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
            if stall.stack.is_none() && before.stack.is_some() {
                stall.stack = before.stack;
                stall.profile = before.profile;
                stall.cause = before.cause;
            }
        }
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

    /// More is known of where the thread of this stall was.
    pub(crate) fn see(&mut self, id: StallId, by_times: Judgement, seen: &Whereabouts) {
        if let Some(stall) = self.find(id) {
            stall.see(by_times, seen);
        }
    }

    /// Something has been found out about this stall.
    pub(crate) fn update(&mut self, finding: &Finding) {
        if let Some(stall) = self.find(finding.id) {
            stall.see(finding.judgement, &finding.seen);
            if stall.kind == StallKind::Turn {
                stall.one_poll = finding.one_poll;
                stall.known_polls = stall.known_polls.max(Some(finding.polls));
            }
        }
    }

    fn find(&mut self, id: StallId) -> Option<&mut Stall> {
        // The latest are at the end.
        let mut stalls = self.ongoing.iter_mut().chain(self.over.iter_mut().rev());
        stalls.find(|stall| stall.id() == id)
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
    for part in stall.parts() {
        let mut fingerprint = part.finding.clone();
        if !hotspots.contains_key(&fingerprint) && hotspots.len() >= MAX_HOTSPOTS {
            fingerprint = Fingerprint::other();
        }
        hotspots
            .entry(fingerprint.clone())
            .or_insert_with(|| Adding::new(fingerprint, stall, &part))
            .add(stall, &part);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::stall::{Cause, Frame, Stack};

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
                runtime: None,
                thread: None,
                cause: Cause::Unknown,
                stack: None,
                profile: None,
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
            ..Stack::default()
        }
    }

    fn seen(line: u32, judgement: Judgement) -> Whereabouts {
        Whereabouts {
            stack: Some(stack(line)),
            judgement,
            ..Whereabouts::NOTHING
        }
    }

    #[test]
    fn what_is_seen_of_a_stall_is_kept_through_its_events() {
        let mut ledger = Ledger::default();
        let see = |ledger: &mut Ledger, id, line| {
            ledger.see(
                StallId(id),
                Judgement::Unknown,
                &seen(line, Judgement::OnCpu),
            );
        };
        see(&mut ledger, 1, 9);
        ledger.enter(&event(1, Phase::Started));
        see(&mut ledger, 1, 1);
        see(&mut ledger, 1, 2);
        ledger.enter(&event(1, Phase::Escalated));
        ledger.enter(&event(1, Phase::Ended));
        ledger.enter(&event(2, Phase::Ended));
        see(&mut ledger, 2, 3);
        let stalls = ledger.at(0).into_list();
        let stacks: Vec<_> = stalls.iter().map(Stall::stack).collect();
        assert_eq!(stacks, [Some(&stack(2)), Some(&stack(3))]);
        assert!(stalls.iter().all(|stall| stall.cause() == Cause::OnCpu));
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
    fn where_the_code_is_not_to_blame_its_place_does_not_say_why() {
        let mut ledger = Ledger::default();
        for (id, by_times, cause) in [
            (1, Judgement::Starved, Cause::Starved),
            (2, Judgement::Suspended, Cause::Suspended),
            (3, Judgement::OnCpu, Cause::PageFault),
            (4, Judgement::Unknown, Cause::PageFault),
        ] {
            ledger.enter(&event(id, Phase::Ended));
            ledger.see(StallId(id), by_times, &seen(1, Judgement::PageFault));
            assert_eq!(ledger.over.back().unwrap().cause, cause, "{by_times:?}");
        }
    }
}

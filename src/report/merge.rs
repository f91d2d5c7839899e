//! Reports of several processes as one.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;

use crate::health::Health;
use crate::pool::BlockingPool;
use crate::report::{Origin, Report};
use crate::stall::Stall;

/// How many stalls a merged report has: those in progress, then the worst.
const MAX_STALLS: usize = 10_000;
/// How many stalls in progress its health has.
const MAX_ONGOING: usize = 1_000;
/// Of each process there are as many as runtimes; of many processes, these.
const MAX_RUNTIMES: usize = 1_000;

/// What a report has a list of, and of which two reports may have the same.
pub(super) trait Entry: Clone {
    type Key<'a>: Hash + Eq + Ord
    where
        Self: 'a;

    /// How many a merged report has, beside those that stand for the rest.
    const MOST: usize;

    /// By what two are the same.
    fn key(&self) -> Self::Key<'_>;

    /// By what those are chosen that a merged report keeps.
    fn weight(&self) -> u64;

    /// Whether it stands for all that a bound has left out.
    fn is_rest(&self) -> bool;

    /// Several of one key as one. The order in which they come must not matter.
    fn sum(same: &[&Self]) -> Self;

    /// What stands for all of these.
    fn rest(of: &[&Self]) -> Vec<Self>;
}

impl Report {
    /// This report and another as one: of other processes, hosts, or builds.
    ///
    /// Counts and histograms add up, findings of the same
    /// [fingerprint](crate::Fingerprint) become one, each stall keeps its
    /// [origin](crate::Origin). What is counted in both is counted twice: merge reports
    /// that are of different processes, or one per process.
    ///
    /// Either way round the result is the same, and so it is in whichever order several
    /// reports are merged, as long as nothing is beyond these bounds. A merged report
    /// has 10,000 stalls (those in progress, then the worst; [`Report::forgotten`] counts
    /// the others), and of findings, watched futures, blocking and permissions 1,000
    /// each: those that took longest, and one `other` that all others are summed up in,
    /// so that no sum loses anything. It has 1,000 origins, and one that
    /// [stands for the others](crate::Origin::processes).
    ///
    /// Takes time in proportion to the size of both. Sums that would overflow stay at
    /// the highest number.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")] async fn main() {
    /// # let watchdog = stallscope::Watchdog::start().unwrap();
    /// let (a, b) = (watchdog.report(), watchdog.report());
    /// assert_eq!(a.merge(&b), b.merge(&a));
    /// # }
    /// ```
    #[must_use = "merging makes a new report"]
    pub fn merge(&self, other: &Report) -> Report {
        let (stalls, left_out) = in_order(&self.stalls, &other.stalls, MAX_STALLS);
        let seen: HashSet<u64> = stalls.iter().map(|stall| stall.origin).collect();
        let origins = Origin::merged(&self.origins, &other.origins, &seen);
        let (mut hotspots, _) = merged(&self.hotspots, &other.hotspots);
        super::worst_first(&mut hotspots);
        let (mut tasks, folded_names) = merged(&self.tasks, &other.tasks);
        super::busiest_first(&mut tasks);
        let (mut blocking, _) = merged(&self.blocking, &other.blocking);
        super::longest_first(&mut blocking);
        let (mut allowed, _) = merged(&self.allowed, &other.allowed);
        super::by_reason(&mut allowed);
        let (unsure, _) = in_order(&self.unsure, &other.unsure, MAX_STALLS);
        let mut counts = self.counts;
        counts.add(&other.counts);
        let mut health = self.health.merged(&other.health);
        health.folded_names = health.folded_names.saturating_add(folded_names);
        let forgotten = self.forgotten.saturating_add(other.forgotten);
        Report {
            version: self.version.max(other.version),
            origins,
            workers: self.workers.saturating_add(other.workers),
            watched_ns: self.watched_ns.max(other.watched_ns),
            worker_ns: self.worker_ns.saturating_add(other.worker_ns),
            max_severity: self.max_severity.max(other.max_severity),
            counts,
            hotspots,
            tasks,
            polls: self.polls.merged(&other.polls),
            lag: self.lag.merged(&other.lag),
            blocking_waits: self.blocking_waits.merged(&other.blocking_waits),
            stalls,
            forgotten: forgotten.saturating_add(left_out),
            health,
            blocking,
            allowed,
            detection: self.detection.max(other.detection),
            unsure,
            unaudited: self.unaudited.saturating_add(other.unaudited),
        }
    }
}

/// Both lists, at most so many, in an order that does not depend on which is whose;
/// and how many are left out.
fn in_order(ours: &[Stall], theirs: &[Stall], most: usize) -> (Vec<Stall>, u64) {
    let time = |stall: &Stall| (stall.origin, stall.start_ns, stall.id, stall.duration_ns);
    let mut all: Vec<&Stall> = ours.iter().chain(theirs).collect();
    all.sort_by_key(|stall| time(stall));
    // Of one process there are no two of these; of a report that was read there may be.
    for same in all.chunk_by_mut(|a, b| time(a) == time(b)) {
        if same.windows(2).any(|pair| pair.first() != pair.last()) {
            same.sort_by_cached_key(|stall| format!("{stall:?}"));
        }
    }
    let left_out = all.len().saturating_sub(most);
    if left_out > 0 {
        all.sort_by_key(|stall| Reverse((stall.ongoing, stall.severity, stall.duration_ns)));
        all.truncate(most);
        all.sort_by_key(|stall| time(stall));
    }
    (all.into_iter().cloned().collect(), left_out as u64)
}

/// Both lists, with what is the same in both as one, and what is beyond the bound as the
/// rest; and how many that was.
fn merged<T: Entry>(ours: &[T], theirs: &[T]) -> (Vec<T>, u64) {
    let mut places = HashMap::new();
    let mut groups: Vec<Vec<&T>> = Vec::new();
    for one in ours.iter().chain(theirs) {
        let place = *places.entry(one.key()).or_insert(groups.len());
        match groups.get_mut(place) {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let is_rest = |group: &[&T]| group.first().is_some_and(|one| one.is_rest());
    let rests = groups.iter().filter(|group| is_rest(group)).count();
    let most = T::MOST + rests;
    if groups.len() <= most {
        return (groups.iter().map(|group| T::sum(group)).collect(), 0);
    }
    groups.sort_by_cached_key(|group| {
        let weight = |sum: u64, one: &&T| sum.saturating_add(one.weight());
        (
            !is_rest(group),
            Reverse(group.iter().fold(0, weight)),
            group.first().map(|one| one.key()),
        )
    });
    let beyond = groups.split_off(most);
    let left_out = beyond.len() as u64;
    let rest = T::rest(&beyond.concat());
    for one in &rest {
        match groups
            .iter_mut()
            .find(|group| group.first().is_some_and(|known| known.key() == one.key()))
        {
            Some(group) => group.push(one),
            None => groups.push(vec![one]),
        }
    }
    let sums = groups.iter().map(|group| T::sum(group)).collect();
    (sums, left_out)
}

impl Health {
    fn merged(&self, other: &Health) -> Health {
        let (ongoing, _) = in_order(&self.ongoing, &other.ongoing, MAX_ONGOING);
        let (ours, theirs) = (&self.blocking_pool, &other.blocking_pool);
        let blocking_pool = BlockingPool {
            queued: ours.queued.saturating_add(theirs.queued),
            running: ours.running.saturating_add(theirs.running),
            most_running: ours.most_running.max(theirs.most_running),
            longest_wait_ns: ours.longest_wait_ns.max(theirs.longest_wait_ns),
        };
        let sum = |of: fn(&Health) -> u64| of(self).saturating_add(of(other));
        let runtimes = self.runtimes.iter().chain(&other.runtimes);
        let runtimes = runtimes.take(MAX_RUNTIMES).cloned().collect();
        Health {
            runtimes,
            ongoing,
            stalled_permille: self.stalled_permille.max(other.stalled_permille),
            runtime_gone: self.runtime_gone || other.runtime_gone,
            last_tick_ns: self.last_tick_ns.max(other.last_tick_ns),
            asleep: self.asleep && other.asleep,
            tick_ns: self.tick_ns.max(other.tick_ns),
            alive_tasks: self.alive_tasks.saturating_add(other.alive_tasks),
            global_queue_depth: self
                .global_queue_depth
                .saturating_add(other.global_queue_depth),
            blocking_pool,
            gaps: sum(|health| health.gaps),
            gaps_ns: sum(|health| health.gaps_ns),
            callback_panics: sum(|health| health.callback_panics),
            slow_callbacks: sum(|health| health.slow_callbacks),
            dropped_events: sum(|health| health.dropped_events),
            stack_misses: sum(|health| health.stack_misses),
            symbolizer_panics: sum(|health| health.symbolizer_panics),
            no_stacks: self.no_stacks.clone().max(other.no_stacks.clone()),
            suppressed: sum(|health| health.suppressed),
            folded_names: sum(|health| health.folded_names),
            untracked: sum(|health| health.untracked),
            unwatched_threads: sum(|health| health.unwatched_threads),
            uncounted_polls: sum(|health| health.uncounted_polls),
        }
    }
}

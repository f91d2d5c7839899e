//! Reports of several processes as one.

use crate::blocking::{Allowed, Blocking};
use crate::health::Health;
use crate::pool::BlockingPool;
use crate::report::{Hotspot, Report, TaskPolls};
use crate::stall::Stall;

impl Report {
    /// This report and another as one: of other processes, hosts, or builds.
    ///
    /// Counts and histograms add up, findings of the same
    /// [fingerprint](crate::Fingerprint) become one, each stall keeps its
    /// [origin](crate::Origin). In whichever order reports are merged, the result is
    /// the same. What is counted in both is counted twice: merge reports that are
    /// of different processes, or one per process.
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
        let mut origins = [&self.origins[..], &other.origins[..]].concat();
        origins.sort();
        origins.dedup();
        let stalls = in_order(&self.stalls, &other.stalls);
        let mut hotspots = by_key(
            &self.hotspots,
            &other.hotspots,
            |a, b| a.fingerprint == b.fingerprint,
            Hotspot::merged,
        );
        super::worst_first(&mut hotspots);
        let mut tasks = by_key(
            &self.tasks,
            &other.tasks,
            |a, b| (&a.name, &a.location) == (&b.name, &b.location),
            TaskPolls::merged,
        );
        super::busiest_first(&mut tasks);
        let mut blocking = by_key(
            &self.blocking,
            &other.blocking,
            |a, b| a.key() == b.key(),
            Blocking::merged,
        );
        blocking.sort_by(|a, b| (b.total_ns, a.key()).cmp(&(a.total_ns, b.key())));
        let mut allowed = by_key(
            &self.allowed,
            &other.allowed,
            |a, b| (&a.reason, &a.location) == (&b.reason, &b.location),
            Allowed::merged,
        );
        allowed.sort_by(|a, b| {
            let key = |allowed: &Allowed| (allowed.reason.clone(), allowed.location.to_string());
            key(a).cmp(&key(b))
        });
        let mut counts = self.counts;
        counts.add(&other.counts);
        Report {
            version: self.version.max(other.version),
            origins,
            workers: self.workers + other.workers,
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
            forgotten: self.forgotten + other.forgotten,
            health: self.health.merged(&other.health),
            blocking,
            allowed,
            detection: self.detection.max(other.detection),
        }
    }
}

/// Both lists, in an order that does not depend on which is whose.
fn in_order(ours: &[Stall], theirs: &[Stall]) -> Vec<Stall> {
    let mut all = [ours, theirs].concat();
    all.sort_by_key(|stall| (stall.origin, stall.start_ns, stall.id, stall.duration_ns));
    all
}

/// Both lists, with what is the same in both merged.
fn by_key<T: Clone>(
    ours: &[T],
    theirs: &[T],
    same: impl Fn(&T, &T) -> bool,
    merged: impl Fn(&T, &T) -> T,
) -> Vec<T> {
    let mut all = ours.to_vec();
    for one in theirs {
        match all.iter_mut().find(|known| same(known, one)) {
            Some(known) => *known = merged(known, one),
            None => all.push(one.clone()),
        }
    }
    all
}

impl TaskPolls {
    fn merged(&self, other: &TaskPolls) -> TaskPolls {
        let mut all = self.clone();
        all.polls = self.polls.merged(&other.polls);
        all.delays = self.delays.merged(&other.delays);
        all.stalls.add(&other.stalls);
        all
    }
}

impl Blocking {
    /// By what two are the same.
    fn key(&self) -> (&str, String, String) {
        let culprit = self.stack().and_then(|stack| stack.culprit());
        let place = culprit.map_or_else(String::new, |frame| frame.short());
        (self.task.name(), self.cause.to_string(), place)
    }

    fn merged(&self, other: &Blocking) -> Blocking {
        // Whichever describes it, it must not depend on their order.
        let rank = |one: &Blocking| {
            (
                one.stack.is_some(),
                format!("{:?}{:?}", one.task, one.stack),
            )
        };
        let first = if rank(self) >= rank(other) {
            self
        } else {
            other
        };
        Blocking {
            count: self.count + other.count,
            sleeps: self.sleeps + other.sleeps,
            total_ns: self.total_ns.saturating_add(other.total_ns),
            max_ns: self.max_ns.max(other.max_ns),
            ..first.clone()
        }
    }
}

impl Allowed {
    fn merged(&self, other: &Allowed) -> Allowed {
        Allowed {
            count: self.count + other.count,
            sleeps: self.sleeps + other.sleeps,
            total_ns: self.total_ns.saturating_add(other.total_ns),
            ..self.clone()
        }
    }
}

impl Health {
    fn merged(&self, other: &Health) -> Health {
        Health {
            ongoing: in_order(&self.ongoing, &other.ongoing),
            runtime_gone: self.runtime_gone || other.runtime_gone,
            last_tick_ns: self.last_tick_ns.max(other.last_tick_ns),
            asleep: self.asleep && other.asleep,
            tick_ns: self.tick_ns.max(other.tick_ns),
            alive_tasks: self.alive_tasks + other.alive_tasks,
            global_queue_depth: self.global_queue_depth + other.global_queue_depth,
            blocking_pool: BlockingPool {
                queued: self.blocking_pool.queued + other.blocking_pool.queued,
                running: self.blocking_pool.running + other.blocking_pool.running,
                most_running: self
                    .blocking_pool
                    .most_running
                    .max(other.blocking_pool.most_running),
                longest_wait_ns: self
                    .blocking_pool
                    .longest_wait_ns
                    .max(other.blocking_pool.longest_wait_ns),
            },
            gaps: self.gaps + other.gaps,
            gaps_ns: self.gaps_ns.saturating_add(other.gaps_ns),
            callback_panics: self.callback_panics + other.callback_panics,
            slow_callbacks: self.slow_callbacks + other.slow_callbacks,
            dropped_events: self.dropped_events + other.dropped_events,
            stack_misses: self.stack_misses + other.stack_misses,
            symbolizer_panics: self.symbolizer_panics.max(other.symbolizer_panics),
            no_stacks: self.no_stacks.clone().max(other.no_stacks.clone()),
            suppressed: self.suppressed + other.suppressed,
            folded_names: self.folded_names + other.folded_names,
            untracked: self.untracked + other.untracked,
            unwatched_threads: self.unwatched_threads + other.unwatched_threads,
        }
    }
}

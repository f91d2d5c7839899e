//! The watchdog: starts what observes, detects and tells; stops it at drop.

mod account;
mod allowance;
mod builder;
pub(crate) mod investigator;
mod lateness;
mod observe;
mod patrol;
mod rounds;
mod run_queue;
mod setup;
mod shared;
mod stalled_thread;
pub(crate) mod transition;
mod watching;

pub use builder::{Builder, PollTiming};
pub use watching::Watching;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_queue::ArrayQueue;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::clock::{self, Calibrated};
use crate::delivery::Delivery;
use crate::error::Error;
use crate::explain::Explainer;
use crate::health::{Health, RuntimeHealth};
use crate::histogram::{Histogram, Summary};
use crate::ledger::Ledger;
use crate::live::LiveTask;
use crate::local;
use crate::os;
use crate::pool;
use crate::recorder;
use crate::registry::{Demand, DemandGuard, LabelId, lock, registry};
use crate::report::{self, Report, SCHEMA_VERSION, TaskPolls};
use crate::runtime_name::{self, RuntimeName};
use crate::supply::Supplied;
use crate::threads;
use crate::track;
use crate::worker::Asked;

use investigator::{Investigator, InvestigatorUse};
use patrol::EndGuard;
use rounds::{Exchange, MAX_WATCHED, Rounds};
use setup::Setup;
use shared::{Common, Settings, Shared};
use watching::{AllWatched, Watched};

const THREAD_NAME: &str = "stallscope-watch";
/// How long a drop waits for threads to end and for what is still to be delivered.
const LAST_WORDS: Duration = Duration::from_millis(150);

/// Watches one tokio runtime, until it is dropped.
///
/// It is threads of the operating system and one task of the runtime. One thread looks
/// at the runtime's workers and at the watched polls at each tick, one emits tracing
/// events, one calls each callback, and the task measures lag. All watchdogs of the
/// process share two more, of which one takes stacks and one symbolizes them.
///
/// # What it sees
/// - With nothing wrapped: each worker whose event loop has not come round for
///   longer than the threshold, as a [`Turn`](crate::StallKind::Turn). In a
///   current-thread runtime, only a stack that passes tokio's `block_on` tells a
///   stuck one from one that nobody drives: where there are no stacks, or no names
///   for them, such a turn is told when it is over; a watched poll is told at once.
/// - [Watched](crate::WatchExt::watched) futures: each long poll, by name, on
///   whatever thread, as a [`Poll`](crate::StallKind::Poll). Of one on a thread outside of
///   all runtimes, or on a runtime that has no watchdog, the oldest watchdog alive tells,
///   by the name of the thread. On the workers of a multi-thread runtime that has no
///   watchdog nothing is told: whether `block_in_place` holds nobody up can be seen with
///   its [`Handle`] only.
///
/// `block_in_place` and `spawn_blocking` are no stalls.
///
/// # At its edges
/// - Started while something is stuck, it counts from its start.
/// - Dropped while something is stuck, it tells `Ended` with
///   [`is_ongoing`](crate::Stall::is_ongoing). The drop waits for callbacks and
///   subscribers that still run, but no longer than 150 ms in all. One that takes longer
///   is left behind on its thread, and no further one is called.
/// - In a child that was forked there is no watchdog: to drop it there stops nothing and
///   waits for nothing. Nothing else may be called on it there, as a lock that another
///   thread held at the fork stays locked in the child.
/// - A runtime that shuts down first is no stall; the watchdog stays usable for
///   its report.
///
/// # Cost
/// One of its threads wakes up once a tick, for some microseconds; the others
/// when there is a stall. With [`Builder::install`] it looks less often while
/// workers come and go, and while all are parked for a while, neither the thread
/// nor the task wakes at all. Starting calibrates the clock once a process: 1 ms as a rule,
/// 200 ms at worst. Each lock, wait, allocation and system call, with its bound:
/// [`docs::design`](crate::docs::design).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), stallscope::Error> {
/// let watchdog = stallscope::Watchdog::start()?;
/// // ... the service ...
/// println!("{}", watchdog.report());
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "a watchdog stops when it is dropped"]
pub struct Watchdog {
    clock: &'static Calibrated,
    /// For runtimes that it is to watch later.
    settings: Builder,
    own: Arc<Watched>,
    others: AllWatched,
    started_ns: u64,
    /// What was counted before it started.
    polls_before: HashMap<LabelId, Histogram>,
    delays_before: HashMap<LabelId, Histogram>,
    waits_before: Histogram,
    /// The process that it watches: not a child that was forked.
    process: u32,
    /// Taken at drop.
    parts: Option<Parts>,
}

/// What ends with a watchdog.
#[derive(Debug)]
struct Parts {
    /// Withdrawn last, after the thread has stopped.
    _demand: DemandGuard,
    investigator: InvestigatorUse,
    explainer: Arc<Explainer>,
    arrivals: Exchange,
    task: AbortHandle,
    thread: JoinHandle<()>,
}

impl Watchdog {
    /// Starts a watchdog of the runtime that this is called in, with the default settings.
    ///
    /// Waits, for 5 ms at most, until each worker of a multi-thread runtime has said which
    /// thread it is.
    ///
    /// # Errors
    /// If there is no runtime or a thread cannot be started.
    pub fn start() -> Result<Self, Error> {
        Self::builder().start()
    }

    /// Settings other than the default.
    pub fn builder() -> Builder {
        Builder::new()
    }

    fn launch(settings: &Builder, handle: &Handle) -> Result<Self, Error> {
        let clock = clock::calibrate();
        let tick = settings.tick_or_default();
        // Less than a tick late is a busy machine; and a gap as long as half the
        // lowest threshold could make a stall of what is none.
        let tolerance_ns = clock::ns_of(tick.max(settings.thresholds.monitor / 2));
        // Made now: a thread that delivers must not wait for it.
        report::origin();
        let investigator = Investigator::acquire(clock)?;
        let explainer = Arc::new(Explainer::acquire()?);
        let common = Arc::new(Common::new(Settings {
            tick_ns: clock::ns_of(tick),
            tolerance_ns,
            delivery: Delivery::start(clock, tick, &settings.on_stall, settings.short_slices)?,
        }));
        let name = RuntimeName {
            id: local::runtime_id(handle),
            given: settings.name.as_deref().map(runtime_name::keep),
        };
        let now_ns = clock.now_ns();
        let shared = Arc::new(Shared::new(common, name, investigator.handle(), now_ns));
        // Before polls see that there is a watchdog.
        let supplied = Supplied::begin();
        let polls_before = registry().polls_by_label();
        let delays_before = registry().delays_by_label();
        let demand = registry().demand(Demand {
            timing: settings.poll_timing.timing(),
            track: settings.track,
        });
        let setup = Setup::new(clock, settings, handle, Arc::clone(&shared));
        let arrivals: Exchange = Arc::new(ArrayQueue::new(MAX_WATCHED));
        let rounds = Rounds::new(clock, setup.patrol(None), Arc::clone(&arrivals));
        let end = EndGuard(Arc::clone(&shared));
        let thread = threads::start(THREAD_NAME, settings.short_slices, move || {
            let _end = end;
            rounds.run();
        });
        let thread = match thread {
            Ok(thread) => thread,
            Err(error) => {
                shared.common.delivery.stop(Duration::ZERO);
                return Err(error);
            }
        };
        let case = setup.case(Arc::clone(&explainer), supplied);
        investigator.handle().add(case);
        let task = setup.sample();
        let runtime = setup.runtime();
        watching::call_roll(handle, &runtime);
        if Handle::try_current().is_ok_and(|current| current.id() == handle.id()) {
            local::announce(Asked::Anywhere);
        }
        Ok(Watchdog {
            clock,
            settings: settings.without_callbacks(),
            own: Arc::new(Watched { shared, runtime }),
            others: AllWatched::default(),
            started_ns: clock.now_ns(),
            polls_before,
            delays_before,
            waits_before: pool::waits(),
            process: os::process_id(),
            parts: Some(Parts {
                _demand: demand,
                investigator,
                explainer,
                arrivals,
                task,
                thread,
            }),
        })
    }

    /// Watches one more runtime, until what is returned is dropped: as its own, with the
    /// same settings and callbacks, and with no thread more.
    ///
    /// Its stalls are in this watchdog's events and report, with the name in
    /// [`Stall::runtime`](crate::Stall::runtime); [`Health::runtimes`] has its state and its
    /// lag. An empty name counts as none. [`Watchdog::tasks`], [`Report::lag`] and what
    /// else is of one runtime stay those of the runtime that it was started on.
    ///
    /// The runtime may end before. It needs what the watchdog's own needs: with
    /// [`Builder::lag_period`], timers. Waits, for 5 ms at most, as a start does.
    ///
    /// # Cost
    /// One look at its workers and at the watched polls each tick, on the same thread, and
    /// one task for lag. Besides another runtime a watchdog does not sleep, also where all
    /// workers are parked: it looks every 8 ticks then. At most 256 runtimes are watched
    /// besides its own: [`Watching::is_watching`].
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let watchdog = stallscope::Watchdog::builder().name("io").start()?;
    /// let cpu = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    /// let watching = watchdog.watch(cpu.handle(), "cpu");
    /// # drop(watching);
    /// # cpu.shutdown_background();
    /// # Ok(()) }
    /// ```
    pub fn watch(&self, handle: &Handle, name: impl AsRef<str>) -> Watching {
        let name = name.as_ref();
        let Some(parts) = self.parts.as_ref() else {
            return Watching(None);
        };
        let runtime = RuntimeName {
            id: local::runtime_id(handle),
            given: (!name.is_empty()).then(|| runtime_name::keep(name)),
        };
        let own = &self.own.shared;
        let mut others = lock(&self.others);
        if others.len() >= MAX_WATCHED {
            return Watching(None);
        }
        let investigator = parts.investigator.handle();
        let common = Arc::clone(&own.common);
        let now_ns = self.clock.now_ns();
        let shared = Shared::new(common, runtime, investigator.clone(), now_ns);
        let setup = Setup::new(self.clock, &self.settings, handle, Arc::new(shared));
        let back: Exchange = Arc::new(ArrayQueue::new(1));
        let patrol = Box::new(setup.patrol(Some(Arc::clone(&back))));
        if parts.arrivals.push(patrol).is_err() {
            return Watching(None);
        }
        let watched = Arc::new(Watched {
            shared: Arc::clone(&setup.shared),
            runtime: setup.runtime(),
        });
        others.push(Arc::clone(&watched));
        drop(others);
        investigator.add(setup.case(Arc::clone(&parts.explainer), Supplied::begin()));
        watching::announce(own);
        let task = setup.sample();
        watching::call_roll(handle, &watched.runtime);
        Watching(Some(watching::Parts {
            watched,
            all: Arc::clone(&self.others),
            task,
            back,
            process: self.process,
        }))
    }

    fn runtimes(&self) -> Vec<RuntimeHealth> {
        let others = lock(&self.others);
        let all = std::iter::once(&self.own).chain(others.iter());
        all.map(|watched| watched.health()).collect()
    }

    /// What has been seen so far; stops nothing and nobody.
    pub fn report(&self) -> Report {
        let mut polls = Histogram::new();
        let by_label = registry().polls_by_label();
        let mut delays = registry().delays_by_label();
        let now_ns = self.clock.now_ns();
        let ledger = self.own.shared.ledger();
        let stalls = ledger.at(now_ns);
        let mut tasks: Vec<TaskPolls> = by_label
            .into_iter()
            .filter_map(|(id, histogram)| {
                let histogram = since(histogram, self.polls_before.get(&id));
                if histogram.is_empty() {
                    return None;
                }
                polls.merge(&histogram);
                let label = registry().label_of(id)?;
                let location = label.location.map(Into::into);
                let counts = stalls.counts_of(&label.name, location.as_ref());
                Some(TaskPolls {
                    name: label.name.to_string(),
                    location,
                    polls: histogram.summary(),
                    delays: delays.remove(&id).map_or_else(Summary::default, |delays| {
                        since(delays, self.delays_before.get(&id)).summary()
                    }),
                    stalls: counts,
                })
            })
            .collect();
        // The first poll of a task may be the one that never ends.
        for task in stalls.tasks_in_progress() {
            let place = (task.name(), task.location());
            if tasks
                .iter()
                .all(|known| (known.name(), known.location()) != place)
            {
                tasks.push(TaskPolls {
                    name: task.name.clone(),
                    location: task.location.clone(),
                    polls: Summary::default(),
                    delays: Summary::default(),
                    stalls: stalls.counts_of(task.name(), task.location()),
                });
            }
        }
        report::busiest_first(&mut tasks);
        let watched_ns = now_ns.saturating_sub(self.started_ns);
        let report = Report {
            version: SCHEMA_VERSION,
            origins: vec![report::origin().clone()],
            workers: self.own.runtime.workers(),
            watched_ns,
            worker_ns: watched_ns.saturating_mul(self.own.runtime.workers() as u64),
            max_severity: ledger.max_severity(),
            counts: stalls.counts(),
            hotspots: stalls.hotspots(),
            tasks,
            polls: polls.summary(),
            lag: self.own.shared.lag.summary(),
            blocking_waits: since(pool::waits(), Some(&self.waits_before)).summary(),
            forgotten: ledger.forgotten(),
            health: self.health_with(&ledger, now_ns),
            stalls: stalls.into_list(),
            blocking: Vec::new(),
            allowed: Vec::new(),
            detection: None,
            unsure: Vec::new(),
            unaudited: 0,
        };
        drop(ledger);
        report
    }

    /// The [tracked](crate::Watched::tracked) futures of its runtime that are not
    /// over, the longest without a poll first.
    ///
    /// A snapshot: it stops nobody, and each future is seen at a moment of its own.
    pub fn tasks(&self) -> Vec<LiveTask> {
        track::tasks(self.clock, self.own.runtime.id())
    }

    /// How the runtime and the watchdog are at this moment.
    pub fn health(&self) -> Health {
        self.health_with(&self.own.shared.ledger(), self.clock.now_ns())
    }

    fn health_with(&self, ledger: &Ledger, now_ns: u64) -> Health {
        let ticked_ns = self.own.shared.ticked_ns.load(Relaxed);
        let ongoing = ledger.ongoing(now_ns);
        Health {
            stalled_permille: ledger.lately().permille(&ongoing, now_ns, self.started_ns),
            ongoing,
            runtime_gone: self.own.runtime.is_gone(),
            last_tick_ns: now_ns.saturating_sub(ticked_ns),
            runtimes: self.runtimes(),
            asleep: self.own.shared.asleep.load(Relaxed),
            tick_ns: self.own.shared.common.tick_ns,
            alive_tasks: self.own.runtime.alive_tasks(),
            global_queue_depth: self.own.runtime.global_queue_depth(),
            blocking_pool: pool::look(self.clock),
            gaps: self.own.shared.common.gaps.load(Relaxed),
            gaps_ns: self.own.shared.common.gaps_ns.load(Relaxed),
            callback_panics: self.own.shared.common.delivery.stats.panics.load(Relaxed),
            slow_callbacks: self.own.shared.common.delivery.stats.slow.load(Relaxed),
            dropped_events: self.own.shared.common.delivery.stats.dropped.load(Relaxed)
                + self.own.shared.lost(),
            stack_misses: self.own.shared.common.stack_misses.load(Relaxed)
                + self.own.shared.unasked(),
            no_stacks: lock(&self.own.shared.common.no_stacks).clone(),
            symbolizer_panics: self.own.shared.common.symbolizer_panics.load(Relaxed),
            suppressed: self
                .own
                .shared
                .common
                .delivery
                .stats
                .suppressed
                .load(Relaxed)
                + self.own.shared.common.starved_quietly.load(Relaxed),
            folded_names: registry().folded_labels(),
            untracked: registry().untracked(),
            unwatched_threads: registry().refused_threads(),
            uncounted_polls: recorder::uncounted(),
        }
    }
}

fn since(histogram: Histogram, before: Option<&Histogram>) -> Histogram {
    match before {
        Some(before) => histogram.since(before),
        None => histogram,
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        let Some(parts) = self.parts.take() else {
            return;
        };
        if os::process_id() != self.process {
            // In a forked child there are none of its threads, and what they share with it
            // may be in any state.
            std::mem::forget(parts);
            return;
        }
        let start = Instant::now();
        self.own.shared.stop();
        // A thread that does not end in time is left to end by itself, and a panic in it,
        // which would be a bug of ours, must not become the user's: so it is not joined.
        self.own.shared.ending.wait(LAST_WORDS);
        drop(parts.thread);
        parts.task.abort();
        self.own
            .shared
            .common
            .delivery
            .stop(LAST_WORDS.saturating_sub(start.elapsed()));
        for other in lock(&self.others).iter() {
            // Its case is over too.
            other.shared.stop();
        }
        self.own.shared.wake_investigator();
    }
}

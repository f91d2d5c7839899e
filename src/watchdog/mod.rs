//! The watchdog: starts what observes, detects and tells; stops it at drop.

mod account;
mod builder;
mod inquiry;
mod late;
mod observe;
mod one_poll;
mod patrol;
mod target;

pub use builder::{Builder, PollTiming};

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::clock::{self, Calibrated};
use crate::detector::Detector;
use crate::driven::Driven;
use crate::error::Error;
use crate::explain::Explainer;
use crate::health::Health;
use crate::histogram::{Histogram, Summary};
use crate::ledger::Ledger;
use crate::live::LiveTask;
use crate::local;
use crate::os::Capturer;
use crate::pool;
use crate::registry::{LabelId, Wish, Wished, lock, registry};
use crate::report::{self, Report, SCHEMA_VERSION, TaskPolls};
use crate::rollcall;
use crate::runtime::{Gone, Runtime};
use crate::sampler::{self, Lag};
use crate::teller::{self, Ending, Telling};
use crate::threads;
use crate::track;

use inquiry::Inquiry;
use observe::Observer;
use patrol::{Patrol, Stuck};

const THREAD_NAME: &str = "stallscope-watch";
/// How long a drop waits for what is still to be told.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What the watchdog's thread and its owner share.
#[derive(Debug)]
pub(crate) struct Shared {
    stop: AtomicBool,
    /// All workers are parked, and it sleeps until one wakes.
    asleep: AtomicBool,
    tick_ns: u64,
    /// A watchdog that is later than this has stood still.
    tolerance_ns: u64,
    ticked_ns: AtomicU64,
    gaps: AtomicU64,
    gaps_ns: AtomicU64,
    lag: Arc<Lag>,
    /// Stalls whose stack could not be taken, and why it never will be.
    stack_misses: AtomicU64,
    no_stacks: Mutex<Option<String>>,
    ledger: Mutex<Ledger>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

/// Watches one tokio runtime, until it is dropped.
///
/// It is three threads of the operating system and one task of the runtime: one
/// thread looks at the runtime's workers and at the watched polls at each tick,
/// one symbolizes stacks, one tells of stalls, and the task measures lag.
///
/// # What it sees
/// - With nothing wrapped: each worker whose event loop has not come round for
///   longer than the threshold, as a [`Turn`](crate::StallKind::Turn). In a
///   current-thread runtime, only a stack that passes tokio's `block_on` tells a
///   stuck one from one that nobody drives: where there are no stacks, or no names
///   for them, such a turn is told when it is over; a watched poll is told at once.
/// - [Watched](crate::WatchExt::watched) futures: each long poll, by name, on
///   whatever thread, as a [`Poll`](crate::StallKind::Poll).
///
/// `block_in_place` and `spawn_blocking` are no stalls.
///
/// # At its edges
/// - Started while something is stuck, it counts from its start.
/// - Dropped while something is stuck, it tells `Ended` with
///   [`is_ongoing`](crate::Stall::is_ongoing). The drop waits for callbacks
///   that still run, but no longer than 200 ms.
/// - A runtime that shuts down first is no stall; the watchdog stays usable for
///   its report.
///
/// # Cost
/// One of its threads wakes up once a tick, for some microseconds; the others
/// when there is a stall. With [`Builder::install`] it looks less often while
/// workers come and go, and while all are parked for a while, neither the thread
/// nor the task wakes at all. Starting calibrates the clock once a process: 1 ms as a rule, 200 ms at worst.
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
    shared: Arc<Shared>,
    telling: Arc<Telling>,
    runtime: Runtime,
    started_ns: u64,
    /// What was counted before it started.
    polls_before: HashMap<LabelId, Histogram>,
    delays_before: HashMap<LabelId, Histogram>,
    waits_before: Histogram,
    /// Withdrawn last, after the thread has stopped.
    _wish: Wished,
    task: AbortHandle,
    thread: Option<JoinHandle<()>>,
    ending: Ending,
    /// Given back after what is still to be told, which may wait for a stack.
    explainer: Arc<Explainer>,
}

impl Watchdog {
    /// Starts a watchdog of the runtime that this is called in, with the default settings.
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
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            asleep: AtomicBool::new(false),
            tick_ns: clock::ns_of(tick),
            tolerance_ns,
            ticked_ns: AtomicU64::new(clock.now_ns()),
            gaps: AtomicU64::new(0),
            gaps_ns: AtomicU64::new(0),
            lag: Arc::new(Lag::new(tolerance_ns)),
            stack_misses: AtomicU64::new(0),
            no_stacks: Mutex::new(None),
            ledger: Mutex::new(Ledger::default()),
        });
        let telling = Arc::new(Telling::default());
        let (queue, ending) =
            teller::start(clock, tick, settings.on_stall.clone(), Arc::clone(&telling))?;
        let explainer = Arc::new(Explainer::acquire()?);

        let polls_before = registry().polls_by_label();
        let delays_before = registry().delays_by_label();
        let wish = registry().wish(Wish {
            timing: settings.poll_timing.timing(),
            track: settings.track,
        });
        let gone = Gone::default();
        let capturer = settings
            .stacks
            .then(|| Capturer::new(settings.signal_use()));
        let driven = Arc::new(Driven::default());
        let patrol = Patrol {
            clock,
            shared: Arc::clone(&shared),
            observer: Observer::new(
                clock,
                Runtime::new(handle, gone.clone()),
                Arc::clone(&driven),
            ),
            detector: Detector::new(settings.thresholds, clock.now_ns()),
            inquiry: Inquiry::new(
                clock,
                Arc::clone(&shared),
                capturer,
                Arc::clone(&explainer),
                queue.clone(),
            ),
            queue,
            driven,
            stuck: settings
                .stuck_after
                .map(|after| Stuck::new(clock::ns_of(after))),
        };
        let thread = threads::start(THREAD_NAME, move || patrol.run())?;

        let sentinel = gone.sentinel();
        let lag = Arc::clone(&shared.lag);
        let task = match settings.lag_period {
            Some(period) => {
                let metrics = handle.metrics();
                handle.spawn(sampler::sample(lag, clock, period, metrics, sentinel))
            }
            None => handle.spawn(sampler::wait_for_the_end(sentinel)),
        };
        let runtime = Runtime::new(handle, gone);
        if runtime.is_multi_thread() {
            rollcall::call(handle, runtime.workers());
        }
        if Handle::try_current().is_ok_and(|current| current.id() == handle.id()) {
            local::announce();
        }
        Ok(Watchdog {
            clock,
            shared,
            telling,
            runtime,
            started_ns: clock.now_ns(),
            polls_before,
            delays_before,
            waits_before: pool::waits(),
            _wish: wish,
            task: task.abort_handle(),
            thread: Some(thread),
            ending,
            explainer,
        })
    }

    /// What has been seen so far; stops nothing and nobody.
    pub fn report(&self) -> Report {
        let mut polls = Histogram::new();
        let by_label = registry().polls_by_label();
        let mut delays = registry().delays_by_label();
        let ledger = self.shared.ledger();
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
                let stalls = ledger.counts_of(&label.name, location.as_ref());
                Some(TaskPolls {
                    name: label.name.into_string(),
                    location,
                    polls: histogram.summary(),
                    delays: delays.remove(&id).map_or_else(Summary::default, |delays| {
                        since(delays, self.delays_before.get(&id)).summary()
                    }),
                    stalls,
                })
            })
            .collect();
        report::busiest_first(&mut tasks);
        let watched_ns = self.clock.now_ns().saturating_sub(self.started_ns);
        let report = Report {
            version: SCHEMA_VERSION,
            origins: vec![report::origin().clone()],
            workers: self.runtime.workers(),
            watched_ns,
            worker_ns: watched_ns.saturating_mul(self.runtime.workers() as u64),
            max_severity: ledger.max_severity(),
            counts: ledger.counts(),
            hotspots: ledger.hotspots(),
            tasks,
            polls: polls.summary(),
            lag: self.shared.lag.summary(),
            blocking_waits: since(pool::waits(), Some(&self.waits_before)).summary(),
            stalls: ledger.stalls(),
            forgotten: ledger.forgotten(),
            health: self.health_with(&ledger),
            blocking: Vec::new(),
            allowed: Vec::new(),
            detection: None,
        };
        drop(ledger);
        report
    }

    /// The [tracked](crate::Watched::tracked) futures of its runtime that are not
    /// over, the longest without a poll first.
    ///
    /// A snapshot: it stops nobody, and each future is seen at a moment of its own.
    pub fn tasks(&self) -> Vec<LiveTask> {
        track::tasks(self.clock, self.runtime.id())
    }

    /// How the runtime and the watchdog are at this moment.
    pub fn health(&self) -> Health {
        self.health_with(&self.shared.ledger())
    }

    fn health_with(&self, ledger: &Ledger) -> Health {
        let ticked_ns = self.shared.ticked_ns.load(Relaxed);
        Health {
            ongoing: ledger.ongoing().to_vec(),
            runtime_gone: self.runtime.is_gone(),
            last_tick_ns: self.clock.now_ns().saturating_sub(ticked_ns),
            asleep: self.shared.asleep.load(Relaxed),
            tick_ns: self.shared.tick_ns,
            alive_tasks: self.runtime.alive_tasks(),
            global_queue_depth: self.runtime.global_queue_depth(),
            blocking_pool: pool::look(self.clock),
            gaps: self.shared.gaps.load(Relaxed),
            gaps_ns: self.shared.gaps_ns.load(Relaxed),
            callback_panics: self.telling.panics.load(Relaxed),
            slow_callbacks: self.telling.slow.load(Relaxed),
            dropped_events: self.telling.dropped.load(Relaxed),
            stack_misses: self.shared.stack_misses.load(Relaxed),
            no_stacks: lock(&self.shared.no_stacks)
                .clone()
                .or_else(|| self.explainer.lack()),
            suppressed: self.telling.suppressed.load(Relaxed),
            folded_names: registry().folded_labels(),
            untracked: registry().untracked(),
            unwatched_threads: registry().refused_threads(),
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
        // Release: pairs with the acquire in `Patrol::wait_until`.
        self.shared.stop.store(true, Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // Its panic, which would be a bug of ours, must not become the user's.
            let _ = thread.join();
        }
        self.task.abort();
        self.ending.wait(LAST_WORDS);
    }
}

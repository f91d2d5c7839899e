//! What watching costs: bare against watched, in the same run.
//!
//! `cargo bench --bench poll_overhead` prints criterion's figures for a poll by hand
//! and then, end to end, ratios to bare of the process's CPU time. Each measurement
//! stands between two of bare and is compared with their mean, so that a machine that
//! changes its pace changes both.
//!
//! The floors are what nothing that does the like can be below on the machine: a
//! future around a future, one that says when it is polled, the same with a thread
//! beside it that wakes each tick as a watchdog does, and one that reads the clock as
//! each poll begins and ends; with `tokio_unstable`, also from tokio's hooks.

#![allow(missing_docs, clippy::print_stdout)]

use std::cell::Cell;
use std::future::Future;
use std::hint::black_box;
use std::marker::PhantomData;
use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cpu_time::ProcessTime;
use criterion::Criterion;
use pin_project_lite::pin_project;
use stallscope::{PollTiming, Thresholds, WatchExt, Watchdog};
use tokio::runtime::{Builder, Runtime};

const TASKS: usize = 64;
const YIELDS: u32 = 20_000;
const ROUNDS: usize = 11;
const TICK: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Bare,
    Floor(Floor),
    /// A watchdog runs, and nothing is wrapped.
    RuntimeWatch,
    /// The same with the runtime's hooks; with `tokio_unstable` they time each poll.
    Installed,
    /// A floor: hooks that read two clocks.
    #[cfg_attr(not(tokio_unstable), allow(dead_code))]
    Hooks,
    /// Wrapped, but no watchdog runs.
    NoWatchdog,
    Watched(PollTiming),
}

#[derive(Clone, Copy, PartialEq)]
enum Floor {
    Wrapped,
    Published,
    /// And a thread looks at nothing each tick.
    Woken,
    Clocks,
}

/// A floor as a type, so that each is compiled to as little as it can be.
trait AFloor {
    const IS: Floor;
}

macro_rules! floors {
    ($($name:ident),*) => {$(
        enum $name {}
        impl AFloor for $name {
            const IS: Floor = Floor::$name;
        }
    )*};
}

floors!(Wrapped, Published, Clocks);

const ONE_IN_A_HUNDRED: PollTiming = match NonZeroU32::new(100) {
    Some(one_in) => PollTiming::Sampled(one_in),
    None => PollTiming::Exact,
};

const MODES: &[Mode] = &[
    Mode::RuntimeWatch,
    #[cfg(tokio_unstable)]
    Mode::Hooks,
    Mode::Installed,
    Mode::Floor(Floor::Wrapped),
    Mode::Floor(Floor::Published),
    Mode::Floor(Floor::Woken),
    Mode::NoWatchdog,
    Mode::Watched(PollTiming::DetectOnly),
    Mode::Watched(ONE_IN_A_HUNDRED),
    Mode::Floor(Floor::Clocks),
    Mode::Watched(PollTiming::Exact),
];

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Mode::Bare => "bare",
            Mode::Floor(Floor::Wrapped) => "floor: a future around it",
            Mode::Floor(Floor::Published) => "floor: and two words published",
            Mode::Floor(Floor::Woken) => "floor: and a thread that wakes",
            Mode::Floor(Floor::Clocks) => "floor: and two clocks read",
            Mode::Hooks => "floor: hooks that read two clocks",
            Mode::RuntimeWatch => "runtime watch, nothing wrapped",
            Mode::Installed if cfg!(tokio_unstable) => "installed, all tasks timed",
            Mode::Installed => "installed, nothing wrapped",
            Mode::NoWatchdog => "watched, no watchdog",
            Mode::Watched(PollTiming::DetectOnly) => "watched, detect only",
            Mode::Watched(PollTiming::Sampled(_)) => "watched, 1 in 100 timed",
            Mode::Watched(_) => "watched, exact histogram",
        }
    }

    fn watchdog(self) -> Option<stallscope::Builder> {
        let timing = match self {
            Mode::Bare | Mode::Floor(_) | Mode::Hooks | Mode::NoWatchdog => return None,
            Mode::RuntimeWatch => PollTiming::DetectOnly,
            Mode::Installed => PollTiming::Exact,
            Mode::Watched(timing) => timing,
        };
        // The default tick, but no stalls: it is the machine that would cause them.
        let thresholds = Thresholds {
            monitor: Duration::from_secs(60),
            medium: Duration::from_secs(61),
            high: Duration::from_secs(62),
            critical: Duration::from_secs(63),
        };
        let builder = Watchdog::builder()
            .thresholds(thresholds)
            .tick(TICK)
            .poll_timing(timing);
        Some(builder)
    }

    fn start_on(self, runtime: &Runtime) -> Option<Watchdog> {
        self.watchdog()?.start_on(runtime.handle()).ok()
    }
}

thread_local! {
    static WORD: Cell<Option<&'static AtomicU64>> = const { Cell::new(None) };
}

fn published() -> &'static AtomicU64 {
    WORD.get().unwrap_or_else(|| {
        let word = Box::leak(Box::new(AtomicU64::new(0)));
        WORD.set(Some(word));
        word
    })
}

pin_project! {
    /// As large as what `watched` makes, and does as much as a floor does.
    struct AtLeast<F, K> {
        #[pin]
        future: F,
        clock: quanta::Clock,
        rest: [u64; 3],
        kind: PhantomData<K>,
    }
}

impl<F: Future, K: AFloor> Future for AtLeast<F, K> {
    type Output = F::Output;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if K::IS == Floor::Wrapped {
            return this.future.poll(cx);
        }
        let word = published();
        let start = match K::IS {
            Floor::Clocks => this.clock.raw(),
            _ => word.load(Relaxed) + 1,
        };
        word.store(start, Release);
        let polled = this.future.poll(cx);
        let end = match K::IS {
            Floor::Clocks => this.clock.raw() - start,
            _ => start + 1,
        };
        word.store(end, Release);
        polled
    }
}

fn at_least<F, K: AFloor>(future: F) -> AtLeast<F, K> {
    AtLeast {
        future,
        clock: quanta::Clock::new(),
        rest: [0; 3],
        kind: PhantomData,
    }
}

fn poll_by_hand<F: Future>(future: F, polls: u32) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        let _ = black_box(future.as_mut().poll(&mut cx));
    }
}

fn by_hand(mode: Mode, polls: u32) {
    let never = std::future::poll_fn(|_| black_box(Poll::<()>::Pending));
    match mode {
        Mode::Bare | Mode::RuntimeWatch | Mode::Installed | Mode::Hooks => {
            poll_by_hand(never, polls);
        }
        Mode::Floor(Floor::Wrapped) => poll_by_hand(at_least::<_, Wrapped>(never), polls),
        Mode::Floor(Floor::Published | Floor::Woken) => {
            poll_by_hand(at_least::<_, Published>(never), polls);
        }
        Mode::Floor(Floor::Clocks) => poll_by_hand(at_least::<_, Clocks>(never), polls),
        Mode::NoWatchdog | Mode::Watched(_) => poll_by_hand(never.watched("by hand"), polls),
    }
}

async fn near_empty() {
    for _ in 0..YIELDS {
        tokio::task::yield_now().await;
    }
}

fn end_to_end(mode: Mode, runtime: &Runtime) {
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| match mode {
            Mode::Bare | Mode::RuntimeWatch | Mode::Installed | Mode::Hooks => {
                runtime.spawn(near_empty())
            }
            Mode::Floor(Floor::Wrapped) => runtime.spawn(at_least::<_, Wrapped>(near_empty())),
            Mode::Floor(Floor::Published | Floor::Woken) => {
                runtime.spawn(at_least::<_, Published>(near_empty()))
            }
            Mode::Floor(Floor::Clocks) => runtime.spawn(at_least::<_, Clocks>(near_empty())),
            Mode::NoWatchdog | Mode::Watched(_) => {
                runtime.spawn(near_empty().watched("end to end"))
            }
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            let _ = task.await;
        }
    });
}

/// The CPU time of all threads, also those behind the scenes.
fn measure(mode: Mode, runtime: &Runtime) -> f64 {
    let start = ProcessTime::now();
    end_to_end(mode, runtime);
    start.elapsed().as_secs_f64()
}

/// The same once it is warm: the first polls of a name on a thread do more.
fn measure_warm(mode: Mode, runtime: &Runtime) -> f64 {
    measure(mode, runtime);
    measure(mode, runtime)
}

/// A thread that wakes as often as a watchdog, until this is dropped.
struct Waking(Arc<AtomicBool>);

impl Waking {
    fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let waking = Waking(Arc::clone(&over));
        std::thread::spawn(move || {
            while !over.load(Relaxed) {
                std::thread::park_timeout(TICK / 8 * 7);
            }
        });
        waking
    }
}

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// Those of a floor.
#[cfg(tokio_unstable)]
fn set_hooks(builder: &mut Builder) {
    let clock = quanta::Clock::new();
    let before = clock.clone();
    builder.on_before_task_poll(move |_| published().store(before.raw(), Release));
    builder.on_after_task_poll(move |_| {
        let word = published();
        word.store(clock.raw() - word.load(Relaxed), Release);
    });
}

#[cfg(not(tokio_unstable))]
const fn set_hooks(_: &mut Builder) {}

/// A runtime of each kind; the watchdog that is installed in it, if any.
fn runtime(kind: Kind, mode: Mode) -> std::io::Result<(Runtime, Option<Watchdog>)> {
    let mut builder = match kind {
        Kind::MultiThread => Builder::new_multi_thread(),
        Kind::CurrentThread => Builder::new_current_thread(),
    };
    builder.worker_threads(2).enable_all();
    if mode == Mode::Hooks {
        set_hooks(&mut builder);
    }
    let watchdog = match mode.watchdog() {
        Some(watchdog) if mode == Mode::Installed => Some(watchdog.install(&mut builder)),
        _ => None,
    };
    let runtime = builder.build()?;
    // As in any service there is a timer: while there is none at all, tokio spares
    // itself a look at the clock (1.54, `time/mod.rs`, `park_internal`), and the first
    // that sleeps, here the lag sampler, would be charged for it.
    runtime.spawn(async { tokio::time::sleep(Duration::from_secs(3_600)).await });
    let watchdog = watchdog.and_then(|watchdog| watchdog.start_on(runtime.handle()).ok());
    Ok((runtime, watchdog))
}

#[derive(Clone, Copy)]
enum Kind {
    MultiThread,
    CurrentThread,
}

/// The CPU time of a mode, and those of bare before and after it.
#[derive(Clone, Copy)]
struct Times {
    own: f64,
    before: f64,
    after: f64,
}

/// Of each mode, in rounds in which each has its turn.
fn rounds(kind: Kind) -> std::io::Result<Vec<(Mode, Vec<Times>)>> {
    let (plain, _) = runtime(kind, Mode::Bare)?;
    let mut times: Vec<_> = MODES.iter().map(|mode| (*mode, Vec::new())).collect();
    for _ in 0..ROUNDS {
        for (mode, times) in &mut times {
            let before = measure(Mode::Bare, &plain);
            let own = if matches!(mode, Mode::Installed | Mode::Hooks) {
                let (hooked, _watchdog) = runtime(kind, *mode)?;
                measure_warm(*mode, &hooked)
            } else {
                let _watchdog = mode.start_on(&plain);
                let _waking = (*mode == Mode::Floor(Floor::Woken)).then(Waking::start);
                measure_warm(*mode, &plain)
            };
            let after = measure_warm(Mode::Bare, &plain);
            times.push(Times { own, before, after });
        }
    }
    Ok(times)
}

/// Quartiles of the ratios; and of the least time to the least of bare, which is what
/// is left where nothing else disturbs.
fn show(what: &str, times: Vec<(Mode, Vec<Times>)>) {
    println!(
        "\n{what}\n  {:<34} {:>6} {:>8} {:>6} {:>8}",
        "CPU time to bare", "25 %", "median", "75 %", "of least"
    );
    let least = |times: &mut dyn Iterator<Item = f64>| times.fold(f64::INFINITY, f64::min);
    let all = times.iter().flat_map(|(_, times)| times);
    let bare = least(&mut all.flat_map(|times| [times.before, times.after]));
    for (mode, times) in times {
        let own = least(&mut times.iter().map(|times| times.own));
        let ratio = |times: &Times| times.own / f64::midpoint(times.before, times.after);
        let mut ratios: Vec<f64> = times.iter().map(ratio).collect();
        ratios.sort_by(f64::total_cmp);
        let at = |quarters: usize| ratios.get(ratios.len() * quarters / 4).unwrap_or(&0.0);
        println!(
            "  {:<34} {:>6.2} {:>8.2} {:>6.2} {:>8.2}",
            mode.name(),
            at(1),
            at(2),
            at(3),
            own / bare,
        );
    }
}

fn polls_by_hand(criterion: &mut Criterion, runtime: &Runtime) {
    let mut group = criterion.benchmark_group("poll by hand");
    let of_a_poll = |mode: &Mode| {
        !matches!(
            mode,
            Mode::RuntimeWatch | Mode::Installed | Mode::Hooks | Mode::Floor(Floor::Woken)
        )
    };
    let modes = MODES.iter().copied().filter(of_a_poll);
    for mode in [Mode::Bare].into_iter().chain(modes) {
        let watchdog = mode.start_on(runtime);
        group.bench_function(mode.name(), |bencher| {
            bencher.iter_custom(|iterations| {
                let polls = u32::try_from(iterations).unwrap_or(u32::MAX);
                by_hand(mode, 1_000);
                let start = Instant::now();
                by_hand(mode, polls);
                start.elapsed()
            });
        });
        drop(watchdog);
    }
    group.finish();
}

fn main() -> std::io::Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    let (plain, _) = runtime(Kind::MultiThread, Mode::Bare)?;
    polls_by_hand(&mut criterion, &plain);
    criterion.final_summary();
    drop(plain);

    let end_to_end = "end to end, near-empty polls";
    show(
        &format!("{end_to_end}, multi-thread, 2 workers"),
        rounds(Kind::MultiThread)?,
    );
    show(
        &format!("{end_to_end}, current-thread"),
        rounds(Kind::CurrentThread)?,
    );
    Ok(())
}

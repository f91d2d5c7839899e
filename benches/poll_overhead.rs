//! What watching costs: bare against watched, in the same run.
//!
//! `cargo bench --bench poll_overhead` prints criterion's figures and then a
//! table of ratios, each the median of rounds in which bare and watched take
//! turns, so that a machine that changes its pace changes both.

#![allow(missing_docs, clippy::print_stdout)]

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use criterion::Criterion;
use stallscope::{PollTiming, Thresholds, WatchExt, Watchdog};
use tokio::runtime::{Builder, Runtime};

const HAND_POLLS: u32 = 200_000;
const TASKS: usize = 64;
const YIELDS: u32 = 2_000;
const ROUNDS: usize = 15;

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Bare,
    /// A watchdog runs, and nothing is wrapped.
    RuntimeWatch,
    /// Wrapped, but no watchdog runs.
    NoWatchdog,
    DetectOnly,
    Exact,
}

impl Mode {
    const fn name(self) -> &'static str {
        match self {
            Mode::Bare => "bare",
            Mode::RuntimeWatch => "runtime watch, nothing wrapped",
            Mode::NoWatchdog => "watched, no watchdog",
            Mode::DetectOnly => "watched, detect only",
            Mode::Exact => "watched, exact histogram",
        }
    }

    const fn wraps(self) -> bool {
        !matches!(self, Mode::Bare | Mode::RuntimeWatch)
    }

    fn watchdog(self, runtime: &Runtime) -> Option<Watchdog> {
        let timing = match self {
            Mode::Bare | Mode::NoWatchdog => return None,
            Mode::RuntimeWatch | Mode::DetectOnly => PollTiming::DetectOnly,
            Mode::Exact => PollTiming::Exact,
        };
        // The default tick, but no stalls: it is the machine that would cause them.
        let thresholds = Thresholds {
            monitor: Duration::from_secs(60),
            medium: Duration::from_secs(61),
            high: Duration::from_secs(62),
            critical: Duration::from_secs(63),
        };
        Watchdog::builder()
            .thresholds(thresholds)
            .tick(Duration::from_millis(5))
            .poll_timing(timing)
            .start_on(runtime.handle())
            .ok()
    }
}

fn poll_by_hand<F: Future>(future: F, polls: u32) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        let _ = black_box(future.as_mut().poll(&mut cx));
    }
}

fn never() -> impl Future<Output = ()> {
    std::future::poll_fn(|_| black_box(Poll::Pending))
}

fn by_hand(mode: Mode, polls: u32) {
    if mode.wraps() {
        poll_by_hand(never().watched("by hand"), polls);
    } else {
        poll_by_hand(never(), polls);
    }
}

async fn near_empty() {
    for _ in 0..YIELDS {
        tokio::task::yield_now().await;
    }
}

fn end_to_end(mode: Mode, runtime: &Runtime) {
    let tasks: Vec<_> = (0..TASKS)
        .map(|_| {
            if mode.wraps() {
                runtime.spawn(near_empty().watched("near empty"))
            } else {
                runtime.spawn(near_empty())
            }
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            let _ = task.await;
        }
    });
}

const MODES: [Mode; 5] = [
    Mode::Bare,
    Mode::RuntimeWatch,
    Mode::NoWatchdog,
    Mode::DetectOnly,
    Mode::Exact,
];

fn runtimes() -> [(&'static str, Runtime); 2] {
    let multi = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let current = Builder::new_current_thread().enable_all().build();
    match (multi, current) {
        (Ok(multi), Ok(current)) => [
            ("multi-thread, 2 workers", multi),
            ("current-thread", current),
        ],
        _ => std::process::exit(1),
    }
}

/// Median of the ratios of rounds in which each mode has its turn.
fn ratios(what: &str, runtime: &Runtime, mut run: impl FnMut(Mode)) {
    let mut times = vec![Vec::new(); MODES.len()];
    for _ in 0..ROUNDS {
        for (mode, times) in MODES.into_iter().zip(&mut times) {
            let watchdog = mode.watchdog(runtime);
            // Warm: the first polls of a name on a thread do more.
            run(mode);
            let start = Instant::now();
            run(mode);
            times.push(start.elapsed().as_secs_f64());
            drop(watchdog);
        }
    }
    println!(
        "\n{what}\n  {:<34} {:>6} {:>8} {:>6}",
        "ratio to bare", "min", "median", "max"
    );
    let Some(bare) = times.first().cloned() else {
        return;
    };
    for (mode, times) in MODES.into_iter().zip(&times) {
        let mut ratios: Vec<f64> = times.iter().zip(&bare).map(|(t, b)| t / b).collect();
        ratios.sort_by(f64::total_cmp);
        println!(
            "  {:<34} {:>6.2} {:>8.2} {:>6.2}",
            mode.name(),
            ratios.first().unwrap_or(&0.0),
            ratios.get(ratios.len() / 2).unwrap_or(&0.0),
            ratios.last().unwrap_or(&0.0),
        );
    }
}

fn main() {
    let runtimes = runtimes();
    let mut criterion = Criterion::default()
        .sample_size(20)
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .configure_from_args();
    let mut group = criterion.benchmark_group("poll by hand");
    for mode in MODES.into_iter().filter(|mode| *mode != Mode::RuntimeWatch) {
        let [(_, runtime), _] = &runtimes;
        let watchdog = mode.watchdog(runtime);
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
    criterion.final_summary();

    for (name, runtime) in &runtimes {
        if *name == "current-thread" {
            ratios("polled by hand, an empty poll", runtime, |mode| {
                by_hand(mode, HAND_POLLS)
            });
        }
        let what = format!("end to end, near-empty polls, {name}");
        ratios(&what, runtime, |mode| end_to_end(mode, runtime));
    }
}

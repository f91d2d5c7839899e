//! How many instructions watching adds to a poll, counted by valgrind.
//!
//! `cargo bench --bench poll_instructions` runs itself under callgrind. Counts
//! repeat where times do not. Says so and ends where there is no valgrind.

#![allow(missing_docs, clippy::print_stdout)]

use std::future::Future;
use std::hint::black_box;
use std::num::NonZeroU32;
use std::pin::pin;
use std::process::Command;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use stallscope::{PollTiming, Thresholds, WatchExt, Watchdog};

const FEW: u64 = 20_000;
const MANY: u64 = 220_000;

// Only what is within is counted: calibrating the clock takes now more, now fewer
// instructions.
#[inline(never)]
fn counted<F: Future>(future: F, polls: u64) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..polls {
        let _ = black_box(future.as_mut().poll(&mut cx));
    }
}

fn never() -> impl Future<Output = ()> {
    std::future::poll_fn(|_| black_box(Poll::Pending))
}

/// A watchdog that sleeps all the while: what it does itself is not a poll's.
fn watchdog(timing: PollTiming) -> Option<Watchdog> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().ok()?;
    let hour = Duration::from_secs(3_600);
    Watchdog::builder()
        .thresholds(Thresholds {
            monitor: hour,
            medium: hour * 2,
            high: hour * 3,
            critical: hour * 4,
        })
        .tick(hour)
        .lag_period(None)
        .poll_timing(timing)
        .start_on(runtime.handle())
        .ok()
}

fn run(mode: &str, polls: u64) {
    let _watchdog = match mode {
        "detect only" => watchdog(PollTiming::DetectOnly),
        "1 in 100" => NonZeroU32::new(100).and_then(|n| watchdog(PollTiming::Sampled(n))),
        "exact histogram" => watchdog(PollTiming::Exact),
        _ => None,
    };
    if mode == "bare" {
        counted(never(), polls);
    } else {
        counted(never().watched("counted"), polls);
    }
}

fn instructions(mode: &str, polls: u64) -> Option<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg("--toggle-collect=*::counted*")
        .arg(std::env::current_exe().ok()?)
        .args(["--run", mode, &polls.to_string()])
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = text.lines().find(|line| line.contains("Collected :"))?;
    line.rsplit(' ').next()?.parse().ok()
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, run_it, mode, polls] = &arguments[..]
        && run_it == "--run"
    {
        run(mode, polls.parse().unwrap_or(0));
        return;
    }
    println!(
        "  {:<26} {:>12} {:>8}",
        "instructions a poll", "in all", "added"
    );
    let mut bare = 0.0;
    for mode in [
        "bare",
        "no watchdog",
        "detect only",
        "1 in 100",
        "exact histogram",
    ] {
        let (Some(few), Some(many)) = (instructions(mode, FEW), instructions(mode, MANY)) else {
            println!("valgrind is not here, or did not count: nothing is measured");
            return;
        };
        let each = (many as f64 - few as f64) / (MANY - FEW) as f64;
        if mode == "bare" {
            bare = each;
        }
        println!("  {mode:<26} {each:>12.1} {:>8.1}", each - bare);
    }
}

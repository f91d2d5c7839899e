//! Where the time of one stall went, if it went to several places.
//!
//! `STALLSCOPE_RUNS=20 cargo test --release --test profile -- --ignored --nocapture` runs
//! each as often, and shows how far from the truth the shares were.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use common::{Told, alone, hold, leaked, ms, multi_thread};
use stallscope::{Phase, Stall, WatchExt};

#[inline(never)]
fn sleep_one(time: Duration) {
    thread::sleep(time);
}

#[inline(never)]
fn sleep_two(time: Duration) {
    thread::sleep(time);
}

#[inline(never)]
fn spin_one(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

#[inline(never)]
fn spin_two(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::black_box(start);
    }
}

#[inline(never)]
fn lock_one(time: Duration) {
    let mutex: &'static Mutex<()> = leaked(Mutex::new(()));
    hold(time, || mutex.lock().unwrap());
    drop(mutex.lock().unwrap());
}

/// One that is asked where it is only when it is reported, at 20 ms, answers at the tick of
/// the scheduler after, when it is over.
#[test]
fn a_short_stall_that_computes_has_its_place() {
    const STALLS: usize = 40;
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let _watchdog = told.watch(&runtime);
    let mut last = String::new();
    // Where others want the CPUs, few stalls of their own time are that short.
    for _ in 0..5 {
        let before = told.of(Phase::Ended).len();
        for _ in 0..STALLS {
            let stall = async { common::spin(ms(23)) };
            runtime
                .block_on(runtime.spawn(stall.watched("short")))
                .unwrap();
            thread::sleep(ms(20));
        }
        told.wait_for_end();
        thread::sleep(ms(100));
        let ended = told.of(Phase::Ended);
        let of_these = &ended[before..];
        let placed = of_these
            .iter()
            .filter(|event| event.stall.stack().is_some());
        let (placed, all) = (placed.count(), of_these.len());
        last = format!("{placed} of {all}");
        if all >= STALLS / 4 && placed * 3 >= all * 2 {
            return;
        }
    }
    panic!("with a stack: {last}");
}

/// A function and how many milliseconds it is given.
type Step = (&'static str, fn(Duration), u64);

const SLEEP_1: fn(u64) -> Step = |ms| ("sleep_one", sleep_one, ms);
const SLEEP_2: fn(u64) -> Step = |ms| ("sleep_two", sleep_two, ms);
const SPIN_1: fn(u64) -> Step = |ms| ("spin_one", spin_one, ms);
const SPIN_2: fn(u64) -> Step = |ms| ("spin_two", spin_two, ms);
const LOCK: fn(u64) -> Step = |ms| ("lock_one", lock_one, ms);

fn cases() -> Vec<(&'static str, Vec<Step>)> {
    vec![
        ("sleep+sleep 500+500", vec![SLEEP_1(500), SLEEP_2(500)]),
        ("spin+spin 500+500", vec![SPIN_1(500), SPIN_2(500)]),
        ("spin+lock 500+500", vec![SPIN_1(500), LOCK(500)]),
        ("spin+spin 700+300", vec![SPIN_1(700), SPIN_2(300)]),
        ("sleep 950+100", vec![SLEEP_1(950), SLEEP_2(100)]),
        ("spin 950+100", vec![SPIN_1(950), SPIN_2(100)]),
        ("300+300+300", vec![SLEEP_1(300), SPIN_1(300), LOCK(300)]),
        ("spin 100", vec![SPIN_1(100)]),
        ("sleep 50+50", vec![SLEEP_1(50), SLEEP_2(50)]),
        ("spin 50+50", vec![SPIN_1(50), SPIN_2(50)]),
        ("spin+lock 50+50", vec![SPIN_1(50), LOCK(50)]),
        ("lock+sleep 50+50", vec![LOCK(50), SLEEP_1(50)]),
        ("sleep 4900+200", vec![SLEEP_1(4_900), SLEEP_2(200)]),
        ("spin 4900+200", vec![SPIN_1(4_900), SPIN_2(200)]),
    ]
}

/// How much time of a stall is laid to a function of this file.
fn time_at(stall: &Stall, function: &str) -> Duration {
    let there = stall.places().filter(|place| {
        let culprit = place.stack().culprit();
        culprit.is_some_and(|culprit| culprit.short_function().ends_with(function))
    });
    there.map(|place| place.time()).sum()
}

#[test]
fn two_sleeps_of_one_poll_are_two_places() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    for watched in [true, false] {
        told.clear();
        let task = async {
            sleep_one(ms(700));
            sleep_two(ms(500));
        };
        if watched {
            runtime
                .block_on(runtime.spawn(task.watched("two")))
                .unwrap();
        } else {
            runtime.block_on(runtime.spawn(task)).unwrap();
        }
        told.wait_for_end();
        let ended = told.of(Phase::Ended);
        let longest = ended.iter().max_by_key(|event| event.stall.duration());
        let stall = &longest.unwrap().stall;
        // A machine that is busy looks late: by less than it takes for either to be missed.
        assert!(time_at(stall, "sleep_one") >= ms(250), "{stall}");
        assert!(time_at(stall, "sleep_two") >= ms(100), "{stall}");
        assert!(stall.seen() <= stall.duration(), "{stall}");
        let first = stall.places().next().unwrap();
        assert_eq!(Some(first.stack()), stall.stack(), "{stall}");
        assert_eq!(first.cause(), stall.cause(), "{stall}");
        assert!(first.samples() >= 2, "{stall}");
        let text = stall.to_string();
        assert!(
            text.contains("sleep_one") && text.contains("sleep_two"),
            "{text}"
        );
        let report = watchdog.report();
        for name in ["sleep_one", "sleep_two"] {
            let mut hotspots = report.hotspots().iter();
            assert!(
                hotspots.any(|hotspot| hotspot.culprit().contains(name)),
                "{name}"
            );
        }
    }
}

#[test]
#[ignore = "measures, for minutes, on a machine that does nothing else"]
fn how_right_shares_are() {
    let _alone = alone();
    let runs: usize = std::env::var("STALLSCOPE_RUNS").map_or(3, |runs| runs.parse().unwrap());
    let runtime = multi_thread(2);
    let told = Told::default();
    let _watchdog = told.watch(&runtime);
    for watched in [true, false] {
        for (name, steps) in cases() {
            let mut errors: Vec<f64> = Vec::new();
            let mut notes = Vec::new();
            for _ in 0..runs {
                told.clear();
                let of_task = steps.clone();
                let task = async move {
                    for (_, step, ms) in of_task {
                        step(Duration::from_millis(ms));
                    }
                };
                if watched {
                    runtime
                        .block_on(runtime.spawn(task.watched("steps")))
                        .unwrap();
                } else {
                    runtime.block_on(runtime.spawn(task)).unwrap();
                }
                told.wait_for_end();
                thread::sleep(ms(20));
                let ended = told.of(Phase::Ended);
                let event = ended.iter().max_by_key(|event| event.stall.duration());
                let stall = &event.unwrap().stall;
                let all: u64 = steps.iter().map(|(_, _, ms)| ms).sum();
                let error = |(name, _, ms): &Step| {
                    // Of what was seen: the rest is the machine's.
                    let found = time_at(stall, name).as_secs_f64() / stall.seen().as_secs_f64();
                    (found - *ms as f64 / all as f64).abs() * 100.0
                };
                errors.push(steps.iter().map(error).fold(0.0, f64::max));
                notes.push(stall.to_string());
            }
            errors.sort_by(f64::total_cmp);
            let worst = errors.last().unwrap();
            println!(
                "{name:>20} watched {watched:5}: wrong by {:4.1} % p50, {worst:4.1} % at most; {}",
                errors[errors.len() / 2],
                notes.last().unwrap()
            );
        }
    }
}

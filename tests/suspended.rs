//! A process that stands still: what is in progress says so and is not blamed for it.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code
)]
#![cfg(target_os = "linux")]

#[path = "common/child.rs"]
mod child;
mod common;

use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use child::Child;
use common::{Told, alone, ms, multi_thread};
use stallscope::{Cause, Phase, Severity, Stall, StallEvent, Thresholds, WatchExt, Watchdog};
use tracing::Level;
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// The events with `standstill_ms`.
#[derive(Clone, Default)]
struct Standstills(Arc<Mutex<Vec<(Level, f64)>>>);

struct FindMs(Option<f64>);

impl Visit for FindMs {
    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "standstill_ms" {
            self.0 = Some(value);
        }
    }
}

impl<S: tracing::Subscriber> Layer<S> for Standstills {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut found = FindMs(None);
        event.record(&mut found);
        if let Some(time_ms) = found.0 {
            let level = *event.metadata().level();
            self.0.lock().unwrap().push((level, time_ms));
        }
    }
}

fn end_of(all: &[StallEvent], name: &str) -> Option<Stall> {
    let of = |event: &&StallEvent| {
        let task = event.stall.task();
        event.phase == Phase::Ended && task.is_some_and(|task| task.name() == name)
    };
    all.iter().find(of).map(|event| event.stall.clone())
}

/// Computes until so much time is over, in a stop or not.
fn computes_until(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Not a test: what the test below stops and continues, or leaves alone.
#[test]
#[ignore = "runs in a process of its own"]
fn naps_and_computes() {
    let standstills = Standstills::default();
    let subscriber = tracing_subscriber::registry().with(standstills.clone());
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    std::thread::sleep(ms(300));
    let naps = runtime.spawn(async { std::thread::sleep(ms(300)) }.watched("naps"));
    let computes = runtime.spawn(async { computes_until(ms(300)) }.watched("computes"));
    println!("\nready");
    runtime.block_on(async {
        naps.await.unwrap();
        computes.await.unwrap();
    });
    let all = told.wait_for(|all| {
        ["naps", "computes"]
            .iter()
            .all(|n| end_of(all, n).is_some())
    });
    // So that what follows the standstill is told, too, and of both runs the same share
    // of time is stalls.
    std::thread::sleep(ms(1_500));
    for name in ["naps", "computes"] {
        let stall = end_of(&all, name).unwrap();
        let suspended_ms = stall.suspended().as_millis();
        let duration_ms = stall.duration().as_millis();
        let (severity, cause) = (stall.severity(), stall.cause());
        println!("\n{name} {suspended_ms}/{duration_ms}/{severity}/{cause:?}");
    }
    let report = watchdog.report();
    let health = watchdog.health();
    println!("gaps {}", health.gaps());
    println!("gap {}", health.time_in_gaps().as_millis());
    println!("score {}", report.score());
    println!("worst {}", report.max_severity().unwrap());
    drop(watchdog);
    println!("events {:?}", standstills.0.lock().unwrap());
}

/// What the child says of itself.
#[derive(Clone, Debug)]
struct Said {
    /// Suspended, duration, severity, cause.
    naps: (u64, u64, Severity, String),
    computes: (u64, u64, Severity, String),
    gaps: u64,
    gap_ms: u64,
    score: u8,
    worst: Severity,
    events: String,
}

fn run(stop: Option<Duration>) -> Said {
    let mut child = Child::of("naps_and_computes");
    child.line_after("ready");
    if let Some(time) = stop {
        let process = child.id() as libc::pid_t;
        std::thread::sleep(ms(100));
        // SAFETY: kill has no preconditions; the process is a child that is not waited
        // for yet, so the number is still that child's.
        assert_eq!(unsafe { libc::kill(process, libc::SIGSTOP) }, 0);
        std::thread::sleep(time);
        // SAFETY: as above.
        assert_eq!(unsafe { libc::kill(process, libc::SIGCONT) }, 0);
    }
    let stall = |line: String| {
        let parts: Vec<&str> = line.splitn(4, '/').collect();
        let [suspended, duration, severity, cause] = parts[..] else {
            panic!("{line}");
        };
        (
            suspended.parse().unwrap(),
            duration.parse().unwrap(),
            severity.parse().unwrap(),
            cause.to_owned(),
        )
    };
    let said = Said {
        naps: stall(child.line_after("naps ")),
        computes: stall(child.line_after("computes ")),
        gaps: child.line_after("gaps ").parse().unwrap(),
        gap_ms: child.line_after("gap ").parse().unwrap(),
        score: child.line_after("score ").parse().unwrap(),
        worst: child.line_after("worst ").parse().unwrap(),
        events: child.line_after("events "),
    };
    assert!(child.wait().success());
    said
}

#[test]
fn a_stop_is_shown_beside_what_was_in_progress_and_costs_nothing() {
    let _alone = alone();
    let left_alone = run(None);
    assert_eq!(left_alone.gaps, 0, "{left_alone:?}");
    assert_eq!(left_alone.events, "[]");
    // On a busy machine the stop can come after the 300 ms.
    let mut tries = (0..4).map(|_| run(Some(ms(2_000))));
    let said = tries.find(|said| said.naps.1 >= 2_000 && said.computes.1 >= 2_000);
    let said = said.expect("never stopped in time");
    let suspended = format!("{:?}", Cause::Suspended);
    for (suspended_ms, duration_ms, severity, cause) in [&said.naps, &said.computes] {
        assert!((1_800..2_400).contains(suspended_ms), "{said:#?}");
        assert!(
            *duration_ms >= *suspended_ms && *duration_ms >= 2_000,
            "{said:#?}"
        );
        assert!(*severity < Severity::High, "{said:#?}");
        assert_eq!(*cause, suspended, "{said:#?}");
    }
    assert_eq!(said.gaps, 1, "{said:#?}");
    assert!((1_800..2_400).contains(&said.gap_ms), "{said:#?}");
    assert!(said.worst < Severity::High, "{said:#?}");
    assert!(said.score >= left_alone.score, "{left_alone:#?} {said:#?}");
    let event = said.events.strip_prefix("[(Level(Info), ").unwrap();
    let time_ms: f64 = event.strip_suffix(")]").unwrap().parse().unwrap();
    assert!((1_800.0..2_400.0).contains(&time_ms), "{said:#?}");
}

/// Set while a thread is to be held up in the handler of a signal.
static HOLD: AtomicBool = AtomicBool::new(false);
static HELD: AtomicBool = AtomicBool::new(false);

extern "C" fn holds_up(_: libc::c_int) {
    HELD.store(true, Release);
    while HOLD.load(Acquire) {
        // SAFETY: poll of no file sleeps for a millisecond; a handler may call it.
        unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
    }
}

/// The number of the one thread with this name.
fn thread_called(name: &str) -> i32 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let mut found = tasks.filter(|task| {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        // The kernel cuts names at 15 bytes.
        comm.trim() == &name[..name.len().min(15)]
    });
    let id = found.next().unwrap().file_name();
    assert!(found.next().is_none(), "several threads are called {name}");
    id.to_str().unwrap().parse().unwrap()
}

#[test]
fn a_watchdog_that_is_held_up_alone_excuses_nobody() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    std::thread::sleep(ms(300));
    let watcher = thread_called("stallscope-watch");
    // SAFETY: the handler calls only what a handler may call; it is installed before the
    // signal is sent, and stays.
    unsafe {
        let handler = holds_up as extern "C" fn(libc::c_int);
        libc::signal(libc::SIGUSR2, handler as libc::sighandler_t);
    }
    HOLD.store(true, Release);
    let sleeps = runtime.spawn(async { std::thread::sleep(ms(1_500)) }.watched("sleeps"));
    std::thread::sleep(ms(300));
    // SAFETY: tgkill has no memory preconditions; the thread is the watchdog's, which is
    // not dropped yet.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), watcher, libc::SIGUSR2) };
    assert_eq!(sent, 0);
    std::thread::sleep(ms(900));
    assert!(HELD.load(Acquire), "it was not held up");
    HOLD.store(false, Release);
    runtime.block_on(sleeps).unwrap();
    let all = told.wait_for(|all| end_of(all, "sleeps").is_some());
    let stall = end_of(&all, "sleeps").unwrap();
    assert!(stall.duration() >= ms(1_500), "{stall:#?}");
    // Nothing of those 900 ms; its host may pause a virtual machine for some milliseconds.
    assert!(stall.suspended() < ms(300), "{stall:#?}");
    assert_eq!(stall.severity(), Severity::High, "{stall:#?}");
    assert!(matches!(stall.cause(), Cause::Blocked { .. }), "{stall:#?}");
    assert!(watchdog.health().time_in_gaps() < ms(300));
    drop(watchdog);
}

#[test]
fn a_timer_that_fires_late_is_no_standstill() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let builder = Watchdog::builder()
        .thresholds(Thresholds::low_latency())
        .tick(Duration::from_micros(50));
    let watchdog = told.watch_with(builder, &runtime);
    std::thread::sleep(ms(1_000));
    // Of thousands of looks, of which the kernel may have each as late as a tick.
    let gaps = watchdog.health().gaps();
    assert!(gaps < 100, "{gaps}");
    drop(watchdog);
}

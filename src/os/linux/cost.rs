//! What a capture costs, and whom:
//! `cargo test --release --lib what_a_capture_costs -- --ignored --nocapture`

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::os::platform::capture::tests::of_this_thread;
use crate::os::platform::{Capturer, DEFAULT_SIGNAL, OwnStack, ThreadProbe};
use crate::os::{SignalUse, Subject, Symbolizer};

const CAPTURES: usize = 2_000;
const PAUSE: Duration = Duration::from_micros(200);

/// The longest time between two looks at the clock, since it was last asked for.
static LONGEST: Mutex<Duration> = Mutex::new(Duration::ZERO);
static OVER: AtomicBool = AtomicBool::new(false);

fn spin() {
    let mut last = Instant::now();
    while !OVER.load(Relaxed) {
        let now = Instant::now();
        let gap = now - last;
        if gap > Duration::from_micros(1)
            && let Ok(mut longest) = LONGEST.try_lock()
        {
            *longest = gap.max(*longest);
        }
        last = Instant::now();
    }
}

fn percentiles(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!(
        "{name}: p50 {:.1?}, p99 {:.1?}, max {:.1?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.unwrap().parse().unwrap()
}

fn captures(name: &str, (tid, owned): (i32, OwnStack)) -> (Capturer, Vec<u64>) {
    let mut capturer = Capturer::new(SignalUse::Signal {
        number: DEFAULT_SIGNAL,
        chosen: true,
    });
    let probe = ThreadProbe::open(tid, crate::os::Importance::Other).unwrap();
    let mut stack = None;
    let subject = Subject {
        id: 1,
        anchor: None,
        still: &|| true,
    };
    let mut times = Vec::new();
    let mut disturbed = Vec::new();
    for _ in 0..CAPTURES {
        *LONGEST.lock().unwrap() = Duration::ZERO;
        let start = Instant::now();
        let captured = capturer.capture(&probe, &owned, &subject);
        times.push(start.elapsed());
        thread::sleep(PAUSE);
        disturbed.push(*LONGEST.lock().unwrap());
        stack = captured
            .ok()
            .and_then(|captured| captured.stack.ok())
            .or(stack);
    }
    percentiles(&format!("{name}, the watchdog's time a capture"), times);
    if name == "running" {
        percentiles("running, the thread held up a capture", disturbed);
    }
    (capturer, stack.unwrap())
}

#[test]
#[ignore = "a measurement"]
#[allow(clippy::print_stdout)]
fn what_a_capture_costs() {
    let (send, receive) = mpsc::channel();
    let spinner = send.clone();
    thread::spawn(move || {
        spinner.send(of_this_thread()).unwrap();
        spin();
    });
    let running = receive.recv().unwrap();
    thread::spawn(move || {
        send.send(of_this_thread()).unwrap();
        thread::sleep(Duration::from_secs(3_600));
    });
    let blocked = receive.recv().unwrap();
    thread::sleep(Duration::from_millis(50));

    captures("blocked", blocked);
    println!("blocked, the thread held up a capture: not at all, it sleeps on");
    let (capturer, stack) = captures("running", running);
    OVER.store(true, Relaxed);

    let before = resident_kib();
    let mut symbolizer = Symbolizer::default();
    let mut timed = |name: &str| {
        let start = Instant::now();
        let frames = symbolizer.symbolize(&stack, capturer.modules());
        println!(
            "{name}: {:.1?} for {} frames",
            start.elapsed(),
            frames.len()
        );
    };
    timed("first stack symbolized");
    timed("the same again");
    println!(
        "memory of debug info and cache: {} KiB",
        resident_kib().saturating_sub(before)
    );
    symbolizer.release();
    println!(
        "once it is let go: {} KiB",
        resident_kib().saturating_sub(before)
    );
}

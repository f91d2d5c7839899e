//! Callbacks and a subscriber that block or panic harm nobody else.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use common::{Told, alone, ms, multi_thread};
use stallscope::{Cause, Phase, StallEvent, StallId, Thresholds, WatchExt, Watchdog};
use tokio::runtime::Runtime;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

/// What holds up those that come to it, until it is opened.
#[derive(Debug, Default)]
struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    came: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.came.fetch_add(1, Relaxed);
        let open = self.open.lock().unwrap();
        drop(self.opened.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }

    fn came(&self) -> usize {
        self.came.load(Relaxed)
    }
}

/// Does this with each event of the library's.
struct OnEvent<F>(F);

impl<S: tracing::Subscriber, F: Fn() + 'static> Layer<S> for OnEvent<F> {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "stallscope" {
            (self.0)();
        }
    }
}

/// All severities but MONITOR are out of reach.
const FROM_1_MS: Thresholds = Thresholds {
    monitor: ms(1),
    medium: ms(60_000),
    high: ms(70_000),
    critical: ms(80_000),
};

fn nap(runtime: &Runtime, times: usize, each: Duration) {
    let naps = async move {
        for _ in 0..times {
            std::thread::sleep(each);
            tokio::time::sleep(ms(1)).await;
        }
    };
    runtime
        .block_on(runtime.spawn(naps.watched("naps")))
        .unwrap();
}

/// How long this takes.
fn time(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn count(events: &[StallEvent], phase: Phase) -> usize {
    events.iter().filter(|event| event.phase == phase).count()
}

/// Whether there were so many stalls, and none has no end.
fn are_all_over(events: &[StallEvent], at_least: usize) -> bool {
    let started = count(events, Phase::Started);
    started >= at_least && started == count(events, Phase::Ended)
}

/// Events of one stall come in the order of its phases, and stalls in theirs.
fn are_in_order(events: &[StallEvent]) {
    let mut open: HashMap<StallId, Phase> = HashMap::new();
    let mut newest = None;
    for event in events {
        let id = event.stall.id();
        match event.phase {
            Phase::Started => {
                assert!(Some(id) > newest, "{id:?} after {newest:?}");
                newest = Some(id);
                assert_eq!(open.insert(id, Phase::Started), None);
            }
            Phase::Escalated => assert!(open.contains_key(&id), "{id:?} escalates first"),
            Phase::Ended => assert!(open.remove(&id).is_some(), "{id:?} ends first"),
        }
    }
    assert!(open.is_empty(), "no end: {open:?}");
}

#[test]
fn who_blocks_for_ever_holds_up_nobody_else_and_is_not_called_again() {
    let _alone = alone();
    const NAPS: usize = 1_200;
    let callback = Arc::new(Gate::default());
    let subscriber = Arc::new(Gate::default());
    let blocks = Arc::clone(&subscriber);
    let dispatch =
        tracing::Dispatch::new(tracing_subscriber::registry().with(OnEvent(move || blocks.pass())));
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = tracing::dispatcher::with_default(&dispatch, || {
        let blocks = Arc::clone(&callback);
        let builder = Watchdog::builder()
            .thresholds(FROM_1_MS)
            // So that some 2,400 events are soon made.
            .stacks(false)
            .on_stall(move |_| blocks.pass());
        told.watch_with(builder, &runtime)
    });
    let mut longest = Duration::ZERO;
    // A machine may be so busy that many are over before the watchdog has a CPU.
    while count(&told.all(), Phase::Started) < NAPS * 3 / 4 {
        nap(&runtime, NAPS / 12, ms(2));
        longest = longest.max(time(|| drop(watchdog.health())));
        longest = longest.max(time(|| drop(watchdog.report())));
    }
    // Far less than for ever; the machine may be busy.
    assert!(longest < ms(2_000), "{longest:?}");
    // The callback has all that the report has, but for want of a CPU: of that one a minute.
    let starved = |event: &&StallEvent| event.stall.cause() == Cause::Starved;
    let reported = |all: &[StallEvent]| {
        let report = watchdog.report();
        let hotspots = report.hotspots().iter();
        let of_starved = hotspots.filter(|hotspot| hotspot.cause() == Cause::Starved);
        let starving: u64 = of_starved.map(|hotspot| hotspot.counts().total()).sum();
        let told = all.iter().filter(|event| event.phase == Phase::Ended);
        let told = told.filter(starved).count() as u64;
        report.counts().total() - starving + told
    };
    let events = told.wait_for(|all| {
        are_all_over(all, NAPS * 3 / 4) && count(all, Phase::Ended) as u64 == reported(all)
    });
    are_in_order(&events);
    let health = watchdog.health();
    assert!(health.is_watching());
    assert_eq!((callback.came(), subscriber.came()), (1, 1));
    // One event is with each that blocks, and 1,024 at most wait; so many are lost twice.
    let lost = health.dropped_events();
    let expected = 2 * (events.len() - 1_025) as u64;
    assert!(lost >= expected, "{lost}, not {expected}");

    let took = time(|| drop(watchdog));
    assert!(took < ms(2_000), "{took:?}");
    let heard = told.all().len();
    callback.open();
    subscriber.open();
    std::thread::sleep(ms(500));
    assert_eq!((callback.came(), subscriber.came()), (1, 1));
    nap(&runtime, 10, ms(3));
    assert_eq!(told.all().len(), heard);
}

/// A payload that panics when it is dropped, with another that does.
struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 > 0 {
            std::panic::panic_any(Bomb(self.0 - 1));
        }
    }
}

#[test]
fn a_payload_that_panics_when_dropped_kills_nothing() {
    let _alone = alone();
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().is::<Bomb>() {
            return;
        }
        hook(info);
    }));
    let dispatch = tracing::Dispatch::new(
        tracing_subscriber::registry().with(OnEvent(|| std::panic::panic_any(Bomb(2)))),
    );
    let runtime = multi_thread(2);
    let told = Told::default();
    let called = Arc::new(AtomicUsize::new(0));
    let calls = Arc::clone(&called);
    let watchdog = tracing::dispatcher::with_default(&dispatch, || {
        let builder = Watchdog::builder()
            .thresholds(common::from_20_ms())
            .on_stall(move |_| {
                calls.fetch_add(1, Relaxed);
                std::panic::panic_any(Bomb(2));
            });
        told.watch_with(builder, &runtime)
    });
    // A machine may be so busy that some are over before the watchdog has a CPU.
    while count(&told.all(), Phase::Started) < 4 {
        nap(&runtime, 1, ms(40));
    }
    are_in_order(&told.wait_for(|all| are_all_over(all, 4)));
    // Each event came to all, and what blew up was called again for the next.
    let deadline = Instant::now() + Duration::from_secs(20);
    while called.load(Relaxed) < 8 || watchdog.health().callback_panics() < 16 {
        let health = watchdog.health();
        assert!(Instant::now() < deadline, "{called:?} {health:?}");
        std::thread::sleep(ms(5));
    }
    assert!(watchdog.health().is_watching());
    let took = time(|| drop(watchdog));
    assert!(took < ms(2_000), "{took:?}");
}

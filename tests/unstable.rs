//! What tokio's poll hooks add: `RUSTFLAGS="--cfg tokio_unstable" cargo test --test unstable`.

#![cfg(tokio_unstable)]
// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{alone, from_20_ms, ms};
use stallscope::{Phase, PollTiming, StallEvent, StallKind, WatchExt, Watchdog};
use tokio::runtime::{Builder, Runtime};

type Events = Arc<Mutex<Vec<StallEvent>>>;

fn hooked(mut runtime: Builder, timing: PollTiming) -> (Runtime, Watchdog, Events) {
    let events = Events::default();
    let sink = Arc::clone(&events);
    let watchdog = Watchdog::builder()
        .thresholds(from_20_ms())
        .poll_timing(timing)
        .on_stall(move |event| sink.lock().unwrap().push(event.clone()))
        .install(&mut runtime);
    let runtime = runtime.enable_all().build().unwrap();
    let watchdog = watchdog.start_on(runtime.handle()).unwrap();
    (runtime, watchdog, events)
}

fn flavors() -> [Builder; 2] {
    [Builder::new_multi_thread(), Builder::new_current_thread()]
}

#[test]
fn every_task_is_named_by_where_it_is_spawned() {
    let _alone = alone();
    for flavor in flavors() {
        for timing in [PollTiming::Exact, PollTiming::DetectOnly] {
            let (runtime, watchdog, events) = hooked(flavor_of(&flavor), timing);
            let spawned = line!() + 2; // Of the call below.
            let task = async {
                let task = tokio::spawn(blocks());
                task.await.unwrap();
            };
            runtime.block_on(task);
            // The first stack of a process takes a while to get its names.
            let deadline = Instant::now() + Duration::from_secs(20);
            let stall = loop {
                let report = watchdog.report();
                if let [stall] = report.stalls()
                    && (stall.stack().is_some() || Instant::now() > deadline)
                {
                    break stall.clone();
                }
                assert!(Instant::now() < deadline, "{report}");
                thread::sleep(ms(10));
            };
            drop(watchdog); // All has been told.
            let ended = events.lock().unwrap().clone();
            let ended = ended.iter().filter(|event| event.phase == Phase::Ended);
            assert_eq!(ended.count(), 1);
            assert_eq!(stall.kind(), StallKind::Poll);
            let task = stall.task().unwrap();
            let place = task.location().unwrap();
            assert_eq!((place.file(), place.line()), (file!(), spawned), "{task:?}");
            assert!(task.id().is_some());
            let culprit = stall.stack().and_then(|stack| stack.culprit());
            let culprit = culprit.expect("a blocked thread has a stack");
            assert_eq!(culprit.line(), Some(BLOCKS), "{stall}");
        }
    }
}

async fn blocks() {
    thread::sleep(ms(120));
}
/// Its line.
const BLOCKS: u32 = line!() - 3;

/// A builder can be used once, and not cloned.
fn flavor_of(like: &Builder) -> Builder {
    if format!("{like:?}").contains("MultiThread") {
        Builder::new_multi_thread()
    } else {
        Builder::new_current_thread()
    }
}

async fn yields(times: u64) {
    for _ in 1..times {
        tokio::task::yield_now().await;
    }
}

#[test]
fn a_poll_counts_once_watched_or_not() {
    let _alone = alone();
    for flavor in flavors() {
        let (runtime, watchdog, _) = hooked(flavor, PollTiming::Exact);
        runtime.block_on(async {
            let plain = tokio::spawn(yields(300));
            let watched = tokio::spawn(yields(200).watched("watched"));
            // The watched part alone is told of under its name, the rest as the task's.
            let partly = tokio::spawn(async {
                yields(100).await;
                yields(50).watched("part").await;
            });
            plain.await.unwrap();
            watched.await.unwrap();
            partly.await.unwrap();
        });
        // A task's end is known before the hook is called after its last poll.
        drop(runtime);
        let report = watchdog.report();
        let polls = |name: &str| -> u64 {
            let tasks = report.tasks().iter().filter(|task| task.name() == name);
            tasks.map(|task| task.polls().count()).sum()
        };
        assert_eq!(polls("watched"), 200);
        assert_eq!(polls("part"), 50);
        // One poll has the end of the one and the beginning of the other; the
        // watchdog's own tasks are spawned tasks too.
        let own = polls("task");
        assert!((300 + 99..).contains(&own), "{own}");
        let by_test = report.tasks().iter().filter(|task| {
            let place = task.location().map(|place| place.file().to_owned());
            task.name() == "task" && place.as_deref() == Some(file!())
        });
        assert_eq!(
            by_test.map(|task| task.polls().count()).sum::<u64>(),
            300 + 99
        );
    }
}

#[test]
fn a_panic_and_a_nested_runtime_leave_nothing_behind() {
    let _alone = alone();
    let (runtime, watchdog, _) = hooked(Builder::new_multi_thread(), PollTiming::Exact);
    runtime.block_on(async {
        let panics = tokio::spawn(async { std::panic::resume_unwind(Box::new(())) });
        panics.await.unwrap_err();
        tokio::spawn(async {
            tokio::task::block_in_place(|| {
                let (inner, _watchdog, _) =
                    hooked(Builder::new_current_thread(), PollTiming::Exact);
                inner.block_on(async { tokio::spawn(yields(10)).await.unwrap() });
            });
        })
        .await
        .unwrap();
        thread::sleep(ms(50));
    });
    assert_eq!(watchdog.health().ongoing().len(), 0);
    assert_eq!(watchdog.report().stalls().len(), 0, "{}", watchdog.report());
}

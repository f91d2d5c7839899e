//! With `install`, a watchdog looks no more often than it must.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]
#![cfg(target_os = "linux")]

mod common;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use common::{alone, ms};
use stallscope::{Phase, StallEvent, WatchExt, Watchdog};
use tokio::runtime::{Builder, Runtime};

fn hooked(mut runtime: Builder) -> (Runtime, Watchdog, Receiver<(Instant, StallEvent)>) {
    let (send, events) = channel();
    let watchdog = Watchdog::builder()
        .on_stall(move |event| send.send((Instant::now(), event.clone())).unwrap_or(()))
        .install(&mut runtime);
    let runtime = runtime.enable_all().build().unwrap();
    let watchdog = watchdog.start_on(runtime.handle()).unwrap();
    (runtime, watchdog, events)
}

fn workers(workers: usize) -> Builder {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(workers);
    builder
}

/// How often each thread of a runtime or a watchdog has gone to sleep; others wait for this
/// test, and may begin to only now.
fn sleeps() -> HashMap<OsString, u64> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    tasks
        .map(|task| task.unwrap())
        .filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
            ["tokio-", "stallscope-"]
                .iter()
                .any(|ours| name.starts_with(ours))
        })
        .filter_map(|task| Some((task.file_name(), sleeps_of(&task.path())?)))
        .collect()
}

/// `None` if it has ended.
fn sleeps_of(task: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(task.join("status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("voluntary"))?;
    line.rsplit('\t').next()?.parse().ok()
}

fn until_asleep(watchdog: &Watchdog) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !watchdog.health().is_asleep() {
        assert!(Instant::now() < deadline, "{:?}", watchdog.health());
        thread::sleep(ms(5));
    }
}

#[test]
fn nobody_wakes_while_all_workers_are_parked() {
    let _alone = alone();
    for number in [3, 24] {
        let (runtime, watchdog, _events) = hooked(workers(number));
        until_asleep(&watchdog);
        // What the lag sampler still waits for comes, late where others have the CPUs.
        let deadline = Instant::now() + Duration::from_secs(20);
        let before = loop {
            until_asleep(&watchdog);
            let before = sleeps();
            thread::sleep(ms(200));
            if sleeps() == before {
                break before;
            }
            assert!(Instant::now() < deadline, "{before:?}");
        };
        assert!(before.len() > number, "{before:?}");
        thread::sleep(ms(1_000));
        // The workers, the watchdog and its task: none of them.
        let after = sleeps();
        let slept: Vec<_> = before
            .iter()
            .filter(|(task, count)| after.get(*task).is_some_and(|now| now > count))
            .collect();
        assert!(slept.is_empty(), "{slept:?} of {before:?}");
        assert!(watchdog.health().is_asleep() && watchdog.health().is_watching());
        drop(runtime);
    }
}

#[test]
fn a_worker_that_wakes_wakes_it() {
    let _alone = alone();
    let (runtime, watchdog, events) = hooked(workers(2));
    for round in 0..5 {
        until_asleep(&watchdog);
        let stall = runtime.spawn(async {
            let begin = Instant::now();
            thread::sleep(ms(150));
            begin
        });
        let begin = runtime.block_on(stall).unwrap();
        let timeout = Duration::from_secs(20);
        let (told, started) = events.recv_timeout(timeout).unwrap();
        assert_eq!(started.phase, Phase::Started, "round {round}");
        assert!(told - begin < ms(150), "while it lasts: {:?}", told - begin);
        loop {
            let (_, event) = events.recv_timeout(timeout).unwrap();
            if event.phase == Phase::Ended {
                break;
            }
        }
    }
}

#[test]
fn a_watched_future_on_a_thread_that_is_no_worker_wakes_it() {
    let _alone = alone();
    let (runtime, watchdog, events) = hooked(workers(1));
    until_asleep(&watchdog);
    for name in ["first", "second"] {
        // On a thread of its own, which ends: the watchdog can sleep again.
        thread::scope(|scope| {
            scope.spawn(|| {
                runtime.block_on(async { thread::sleep(ms(100)) }.watched(name));
            });
        });
        // The end of the one before may come late.
        let mut heard = String::new();
        while heard != name {
            let (_, event) = events.recv_timeout(Duration::from_secs(20)).unwrap();
            let task = event.stall.task().map(|task| task.name().to_owned());
            heard = task.unwrap_or_default();
        }
        until_asleep(&watchdog);
    }
}

#[test]
fn at_a_hundred_requests_a_second_it_looks_less_often_than_each_tick() {
    let _alone = alone();
    let (runtime, watchdog, _events) = hooked(workers(2));
    until_asleep(&watchdog);
    let before = looks();
    let begin = Instant::now();
    while begin.elapsed() < ms(1_500) {
        runtime.block_on(runtime.spawn(async {})).unwrap();
        thread::sleep(ms(10));
    }
    let looked = looks() - before;
    let ticks = u64::try_from(begin.elapsed().as_millis() / 5).unwrap();
    assert!(looked < ticks * 2 / 3, "{looked} looks in {ticks} ticks");
    println!("{looked} looks in {ticks} ticks");
    drop(watchdog);
}

/// How often the watchdog's own thread has gone to sleep.
fn looks() -> u64 {
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = task.unwrap().path();
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        if name.trim_end() == "stallscope-watc" {
            return sleeps_of(&path).unwrap();
        }
    }
    panic!("there is a watchdog");
}

#[test]
fn a_current_thread_runtime_sleeps_and_wakes_too() {
    let _alone = alone();
    let (runtime, watchdog, events) = hooked(Builder::new_current_thread());
    let (asleep, is_asleep) = tokio::sync::oneshot::channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            until_asleep(&watchdog);
            asleep.send(()).unwrap();
        });
        runtime.block_on(async {
            is_asleep.await.unwrap();
            tokio::time::sleep(ms(100)).await;
            async { thread::sleep(ms(100)) }.watched("root").await;
        });
    });
    let (_, event) = events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(
        event.stall.task().is_some() || event.stall.worker() == Some(0),
        "{event}"
    );
}

#[test]
fn it_does_not_sleep_for_the_hooks_of_the_thread_s_last_runtime() {
    let _alone = alone();
    let (runtime, watchdog, _events) = hooked(Builder::new_current_thread());
    let sleeps = async || tokio::time::sleep(ms(300)).await;
    runtime.block_on(sleeps());
    drop((watchdog, runtime));

    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (send, events) = channel();
    let watchdog = Watchdog::builder()
        .on_stall(move |event| send.send(event.clone()).unwrap_or(()))
        .start_on(runtime.handle())
        .unwrap();
    runtime.block_on(async {
        sleeps().await;
        assert!(!watchdog.health().is_asleep());
        let blocks = async { thread::sleep(ms(100)) };
        tokio::spawn(blocks.watched("blocks")).await.unwrap();
        sleeps().await;
    });
    // What has not been delivered when the watchdog is dropped is lost.
    let event = events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(event.phase, Phase::Started);
    drop(watchdog);
}

#[test]
fn it_sleeps_between_its_looks_for_stuck_tasks_and_is_woken_all_the_same() {
    let _alone = alone();
    let (send, events) = channel();
    let mut runtime = workers(1);
    let watchdog = Watchdog::builder()
        .track(true)
        .stuck_after(Some(Duration::from_secs(3_600)))
        .on_stall(move |event| send.send(event.clone()).unwrap_or(()))
        .install(&mut runtime);
    let runtime = runtime.enable_all().build().unwrap();
    let watchdog = watchdog.start_on(runtime.handle()).unwrap();
    let forgotten = runtime.spawn(std::future::pending::<()>().watched("forgotten"));
    until_asleep(&watchdog);
    assert_eq!(watchdog.tasks().len(), 1);
    runtime
        .block_on(runtime.spawn(async { thread::sleep(ms(100)) }))
        .unwrap();
    let event = events.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(event.phase, Phase::Started);
    forgotten.abort();
}

#[test]
fn a_watchdog_can_be_shared() {
    fn shared<T: Send + Sync>() {}
    shared::<Watchdog>();
}

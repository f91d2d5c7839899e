//! Several runtimes in one process: which one a stall was on, and who tells of it.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_os = "linux")]

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::mpsc::{Sender, channel};
use std::task::{Context, Waker};
use std::thread::{self, sleep};

use common::{Told, alone, current_thread, from_20_ms, ms, multi_thread};
use stallscope::{Phase, StallEvent, StallKind, WatchExt, Watchdog};
use tokio::runtime::Handle;

/// A current-thread runtime on a thread of its own, as each worker of actix has one.
struct Worker {
    handle: Handle,
    _stop: Sender<()>,
}

impl Worker {
    fn start(name: &str) -> Self {
        let (send, handle) = channel();
        let (stop, stopped) = channel::<()>();
        let (stop_async, stopped_async) = tokio::sync::oneshot::channel::<()>();
        thread::spawn(move || {
            let _ = stopped.recv();
            let _ = stop_async.send(());
        });
        thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let runtime = current_thread();
                send.send(runtime.handle().clone()).unwrap();
                let _ = runtime.block_on(stopped_async);
            })
            .unwrap();
        Worker {
            handle: handle.recv().unwrap(),
            _stop: stop,
        }
    }

    fn default_name(&self) -> String {
        format!("runtime {}", self.handle.id())
    }
}

/// Waits until the thread of the only worker is known: one that has never run cannot be told
/// from one that is stuck.
fn let_run(runtime: &tokio::runtime::Runtime) {
    let polled = runtime.spawn(async {}.watched("runs"));
    runtime.block_on(polled).unwrap();
}

fn started(all: &[StallEvent], name: &str) -> Vec<StallEvent> {
    let of_task = |event: &&StallEvent| {
        let task = event.stall.task();
        event.phase == Phase::Started && task.is_some_and(|task| task.name() == name)
    };
    all.iter().filter(of_task).cloned().collect()
}

fn is_over(all: &[StallEvent], name: &str) -> bool {
    all.iter().any(|event| {
        let task = event.stall.task();
        event.phase == Phase::Ended && task.is_some_and(|task| task.name() == name)
    })
}

#[test]
fn a_stall_has_the_names_of_its_runtime_and_its_thread() {
    let _alone = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("for-io")
        .enable_all()
        .build()
        .unwrap();
    let told = Told::default();
    let builder = Watchdog::builder().thresholds(from_20_ms()).name("io");
    let watchdog = told.watch_with(builder, &runtime);
    let_run(&runtime);
    runtime.spawn(async { sleep(ms(100)) });
    let all = told.wait_for_end();
    for event in &all {
        let stall = &event.stall;
        assert_eq!(stall.kind(), StallKind::Turn);
        assert_eq!(stall.runtime(), Some("io"));
        assert_eq!(stall.thread(), Some("for-io"));
        assert!(
            event.to_string().contains(" on worker 0 of `io`"),
            "{event}"
        );
    }
    let report = watchdog.report();
    let stall = &report.stalls()[0];
    assert_eq!(
        (stall.runtime(), stall.thread()),
        (Some("io"), Some("for-io"))
    );
}

#[test]
fn a_runtime_without_a_name_has_tokios_number() {
    let _alone = alone();
    let runtime = multi_thread(1);
    let told = Told::default();
    let _watchdog = told.watch(&runtime);
    let_run(&runtime);
    runtime.spawn(async { sleep(ms(100)) });
    for event in told.wait_for_end() {
        let number = format!("runtime {}", runtime.handle().id());
        assert_eq!(event.stall.runtime(), Some(number.as_str()));
        assert!(!event.to_string().contains(" of `"), "{event}");
    }
}

#[test]
fn an_empty_name_is_refused() {
    let runtime = current_thread();
    let started = Watchdog::builder().name("").start_on(runtime.handle());
    let error = started.unwrap_err().to_string();
    assert!(
        error.contains("name") && error.contains("is empty"),
        "{error}"
    );
}

#[test]
fn watched_futures_of_runtimes_without_a_watchdog_are_told() {
    let _alone = alone();
    let main = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&main);
    let workers: Vec<_> = (0..4)
        .map(|number| Worker::start(&format!("rt-worker-{number}")))
        .collect();
    for (number, worker) in workers.iter().enumerate() {
        let name = format!("request {number}");
        worker.handle.spawn(async { sleep(ms(150)) }.watched(name));
    }
    let all = told.wait_for(|all| (0..4).all(|number| is_over(all, &format!("request {number}"))));
    for (number, worker) in workers.iter().enumerate() {
        let started = started(&all, &format!("request {number}"));
        let [event] = &started[..] else {
            panic!("{started:#?}");
        };
        let stall = &event.stall;
        let thread = format!("rt-worker-{number}");
        assert_eq!(stall.thread(), Some(thread.as_str()));
        assert_eq!(stall.runtime(), Some(worker.default_name().as_str()));
        assert_eq!(stall.worker(), None, "workers are the watched runtime's");
        assert!(
            event
                .to_string()
                .contains(&format!(" on thread `{thread}`"))
        );
    }
    let report = watchdog.report();
    assert!(report.stalls().iter().all(|stall| stall.stack().is_some()));
}

#[test]
fn of_several_watchdogs_the_oldest_alive_tells_of_what_is_elsewhere() {
    let _alone = alone();
    let (first, second) = (multi_thread(1), multi_thread(1));
    let (told_first, told_second) = (Told::default(), Told::default());
    let oldest = told_first.watch(&first);
    let _younger = told_second.watch(&second);
    let worker = Worker::start("elsewhere");
    worker.handle.spawn(async { sleep(ms(100)) }.watched("one"));
    let all = told_first.wait_for(|all| is_over(all, "one"));
    assert_eq!(started(&all, "one").len(), 1);
    assert!(told_second.all().is_empty(), "{:#?}", told_second.all());

    drop(oldest);
    worker.handle.spawn(async { sleep(ms(100)) }.watched("two"));
    let all = told_second.wait_for(|all| is_over(all, "two"));
    assert_eq!(started(&all, "two").len(), 1);
}

#[test]
fn a_runtime_with_a_watchdog_is_told_by_its_own() {
    let _alone = alone();
    let (first, second) = (multi_thread(1), multi_thread(1));
    let (told_first, told_second) = (Told::default(), Told::default());
    let _oldest = told_first.watch(&first);
    let _younger = told_second.watch(&second);
    second.spawn(async { sleep(ms(100)) }.watched("its own"));
    let all = told_second.wait_for(|all| is_over(all, "its own"));
    assert_eq!(started(&all, "its own")[0].stall.worker(), Some(0));
    assert!(told_first.all().is_empty(), "{:#?}", told_first.all());
}

#[test]
fn a_future_outside_of_all_runtimes_is_told_with_its_thread() {
    let _alone = alone();
    let runtime = multi_thread(1);
    let told = Told::default();
    let _watchdog = told.watch(&runtime);
    let other_executor = thread::Builder::new()
        .name("no-tokio".to_owned())
        .spawn(|| {
            let mut future = pin!(async { sleep(ms(100)) }.watched("plain"));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(future.as_mut().poll(&mut cx).is_ready());
        });
    other_executor.unwrap().join().unwrap();
    let all = told.wait_for(|all| is_over(all, "plain"));
    let stall = &started(&all, "plain")[0].stall;
    assert_eq!((stall.runtime(), stall.thread()), (None, Some("no-tokio")));
}

#[test]
fn a_worker_of_another_runtime_that_is_handed_over_holds_nobody_up() {
    let _alone = alone();
    let (watched, other) = (multi_thread(1), multi_thread(2));
    let told = Told::default();
    let _watchdog = told.watch(&watched);
    let handed_over = async { tokio::task::block_in_place(|| sleep(ms(150))) };
    let done = other.spawn(handed_over.watched("handed over"));
    watched.block_on(done).unwrap();
    assert!(told.all().is_empty(), "{:#?}", told.all());
}

#[test]
fn a_watchdog_that_sleeps_sees_what_is_elsewhere() {
    let _alone = alone();
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    let settings = Watchdog::builder().thresholds(from_20_ms());
    let settings = settings.install(&mut builder);
    let runtime = builder.build().unwrap();
    let told = Told::default();
    let watchdog = told.watch_with(settings, &runtime);
    let deadline = std::time::Instant::now() + ms(20_000);
    while !watchdog.health().is_asleep() {
        assert!(std::time::Instant::now() < deadline, "it never sleeps");
        sleep(ms(5));
    }
    let worker = Worker::start("elsewhere");
    worker
        .handle
        .spawn(async { sleep(ms(200)) }.watched("seen"));
    let all = told.wait_for(|all| is_over(all, "seen"));
    assert_eq!(started(&all, "seen").len(), 1);
}

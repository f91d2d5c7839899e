//! Several runtimes in one process: which one a stall was on, and who tells of it.

// Helpers of tests fail as tests do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
#![cfg(target_os = "linux")]

mod common;

use std::future::Future;
use std::pin::{Pin, pin};
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

/// What holds a thread up until it has been told of, however late that is: on a busy machine
/// the watchdog may not run for long.
fn until_told(told: &Told, spawn: impl FnOnce(Pin<Box<dyn Future<Output = ()> + Send>>)) {
    let starts = |all: &[StallEvent]| {
        let starts = all.iter().filter(|event| event.phase == Phase::Started);
        starts.count()
    };
    let before = starts(&told.all());
    let (go, wait) = channel::<()>();
    spawn(Box::pin(async move {
        let _ = wait.recv();
    }));
    told.wait_for(|all| starts(all) > before);
    drop(go);
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
    until_told(&told, |stuck| {
        runtime.spawn(stuck);
    });
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
    until_told(&told, |stuck| {
        runtime.spawn(stuck);
    });
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
        until_told(&told, |stuck| {
            worker.handle.spawn(stuck.watched(name));
        });
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
    until_told(&told_first, |stuck| {
        worker.handle.spawn(stuck.watched("one"));
    });
    let all = told_first.wait_for(|all| is_over(all, "one"));
    assert_eq!(started(&all, "one").len(), 1);
    assert!(told_second.all().is_empty(), "{:#?}", told_second.all());

    drop(oldest);
    until_told(&told_second, |stuck| {
        worker.handle.spawn(stuck.watched("two"));
    });
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
    until_told(&told_second, |stuck| {
        second.spawn(stuck.watched("its own"));
    });
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

/// How many threads of the library this process has.
fn threads_of_ours() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("stallscope")).count()
}

#[test]
fn a_second_runtime_is_watched_in_full_until_the_guard_is_dropped() {
    let _alone = alone();
    let (io, cpu) = (multi_thread(1), multi_thread(1));
    let told = Told::default();
    let builder = Watchdog::builder().thresholds(from_20_ms()).name("io");
    let watchdog = told.watch_with(builder, &io);
    let threads = threads_of_ours();
    let watching = watchdog.watch(cpu.handle(), "cpu");
    assert!(watching.is_watching());
    assert_eq!(threads_of_ours(), threads);
    let_run(&cpu);
    let_run(&io);
    // With nothing wrapped.
    until_told(&told, |stuck| {
        cpu.spawn(stuck);
    });
    for event in told.wait_for_end() {
        let stall = &event.stall;
        assert_eq!(stall.kind(), StallKind::Turn);
        assert_eq!((stall.runtime(), stall.worker()), (Some("cpu"), Some(0)));
        assert!(
            event.to_string().contains(" on worker 0 of `cpu`"),
            "{event}"
        );
    }
    let report = watchdog.report();
    let culprit = report.stalls()[0].stack().unwrap().culprit().unwrap();
    assert!(culprit.file().unwrap().ends_with("tests/runtimes.rs"));
    let health = watchdog.health();
    let [own, other] = health.runtimes() else {
        panic!("{health:#?}");
    };
    assert_eq!((own.name(), other.name()), ("io", "cpu"));
    assert!(other.lag().count() > 0 && !other.is_gone());

    told.clear();
    drop(watching);
    assert_eq!(watchdog.health().runtimes().len(), 1);
    cpu.spawn(async { sleep(ms(150)) });
    sleep(ms(250));
    assert!(told.all().is_empty(), "{:#?}", told.all());
    until_told(&told, |stuck| {
        io.spawn(stuck);
    });
    assert_eq!(told.wait_for_end()[0].stall.runtime(), Some("io"));
}

#[test]
fn one_runtime_for_each_of_64_workers_takes_no_thread_more_than_one() {
    let _alone = alone();
    let main = current_thread();
    let told = Told::default();
    let watchdog = told.watch(&main);
    let threads = threads_of_ours();
    let workers: Vec<_> = (0..64)
        .map(|number| Worker::start(&format!("worker-{number}")))
        .collect();
    let watching: Vec<_> = workers
        .iter()
        .enumerate()
        .map(|(number, worker)| watchdog.watch(&worker.handle, format!("worker {number}")))
        .collect();
    assert_eq!(threads_of_ours(), threads);
    for number in [0, 31, 63] {
        until_told(&told, |stuck| {
            workers[number].handle.spawn(stuck);
        });
        let name = format!("worker {number}");
        let is_over = |event: &StallEvent| {
            event.phase == Phase::Ended && event.stall.runtime() == Some(name.as_str())
        };
        let all = told.wait_for(|all| all.iter().any(is_over));
        let thread = format!("worker-{number}");
        assert_eq!(all[0].stall.thread(), Some(thread.as_str()));
        told.clear();
    }
    drop(watching);
    assert_eq!(watchdog.health().runtimes().len(), 1);
}

#[test]
fn a_stall_of_a_runtime_that_is_let_go_or_ends_is_told_to_its_end() {
    let _alone = alone();
    let main = multi_thread(1);
    let told = Told::default();
    let watchdog = told.watch(&main);
    for _ in 0..3 {
        // Made again under the same name.
        let other = multi_thread(1);
        let watching = watchdog.watch(other.handle(), "again");
        let_run(&other);
        let (go, wait) = channel::<()>();
        other.spawn(async move { wait.recv() });
        told.wait_for(|all| !all.is_empty());
        drop(watching);
        drop(go);
        let all = told.wait_for_end();
        let ended = all.last().unwrap();
        assert!(ended.stall.is_ongoing(), "{all:#?}");
        assert_eq!(ended.stall.runtime(), Some("again"));
        told.clear();
    }
    let ends = multi_thread(1);
    let watching = watchdog.watch(ends.handle(), "ends");
    drop(ends);
    assert!(watchdog.health().runtimes()[1].is_gone());
    sleep(ms(100));
    assert!(told.all().is_empty(), "{:#?}", told.all());
    drop(watchdog);
    drop(watching);
}

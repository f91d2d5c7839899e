//! Tracked futures: what they wait for, and for how long.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::future::{pending, poll_fn};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{alone, current_thread, ms, multi_thread};
use stallscope::{LiveTask, PollTiming, TaskState, WatchExt, Watchdog};

fn task(watchdog: &Watchdog, name: &str) -> LiveTask {
    let tasks = watchdog.tasks();
    let found = tasks.iter().find(|task| task.name() == name);
    found
        .unwrap_or_else(|| panic!("{name} in {tasks:?}"))
        .clone()
}

async fn settled() {
    for _ in 0..3 {
        tokio::task::yield_now().await;
    }
}

/// Waits, and leaves its waker.
fn waits(waker: &Arc<Mutex<Option<Waker>>>) -> impl Future<Output = ()> + Send + use<> {
    let kept = Arc::clone(waker);
    let mut first = true;
    poll_fn(move |cx| {
        if std::mem::take(&mut first) {
            *kept.lock().unwrap() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    })
}

#[test]
fn a_task_is_seen_waiting_woken_forgotten_and_polled() {
    let _alone = alone();
    current_thread().block_on(async {
        let watchdog = Watchdog::builder().track(true).start().unwrap();
        let waker = Arc::default();
        let waiting = tokio::spawn(waits(&waker).watched("waits"));
        let _forgotten = tokio::spawn(pending::<()>().watched("forgotten"));
        settled().await;
        let seen = task(&watchdog, "waits");
        assert_eq!((seen.state(), seen.polls()), (TaskState::Waiting, 1));
        assert_eq!(seen.location().unwrap().file(), file!());
        assert!(seen.id().is_some());
        assert_eq!(task(&watchdog, "forgotten").state(), TaskState::Unwakeable);
        assert!(!seen.is_stuck(Duration::from_secs(600)));
        assert!(task(&watchdog, "forgotten").is_stuck(Duration::ZERO));

        waker.lock().unwrap().take().unwrap().wake();
        assert_eq!(task(&watchdog, "waits").state(), TaskState::Woken);
        waiting.await.unwrap();
        assert!(watchdog.tasks().iter().all(|task| task.name() != "waits"));

        let inner = watchdog.tasks().len();
        async {
            let own = task(&watchdog, "polled");
            assert_eq!((own.state(), own.polls()), (TaskState::Polling, 0));
        }
        .watched("polled")
        .await;
        assert_eq!(watchdog.tasks().len(), inner);
    });
}

#[test]
fn a_waker_that_is_dropped_unused_leaves_an_unwakeable_task() {
    let _alone = alone();
    current_thread().block_on(async {
        let watchdog = Watchdog::builder().track(true).start().unwrap();
        let waker = Arc::default();
        let _task = tokio::spawn(waits(&waker).watched("lost"));
        settled().await;
        assert_eq!(task(&watchdog, "lost").state(), TaskState::Waiting);
        drop(waker.lock().unwrap().take());
        assert_eq!(task(&watchdog, "lost").state(), TaskState::Unwakeable);
    });
}

#[test]
fn how_long_it_waits_to_be_polled_is_measured() {
    let _alone = alone();
    for timing in [PollTiming::Exact, PollTiming::DetectOnly] {
        current_thread().block_on(async {
            let watchdog = Watchdog::builder().poll_timing(timing).start().unwrap();
            let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
            let waiting = tokio::spawn(waits(&waker).watched("delayed").tracked());
            let other = tokio::spawn(settled().watched("not tracked"));
            settled().await;
            waker.lock().unwrap().take().unwrap().wake();
            // It is due, and the thread is taken.
            let begin = Instant::now();
            thread::sleep(ms(60));
            let held = begin.elapsed();
            waiting.await.unwrap();
            other.await.unwrap();
            let report = watchdog.report();
            let tasks = report.tasks();
            let delayed = tasks.iter().find(|task| task.name() == "delayed").unwrap();
            assert_eq!(delayed.delays().count(), 1, "the first poll was not woken");
            assert!(delayed.delays().max() >= held, "{:?}", delayed.delays());
            assert_eq!(delayed.polls().count(), 2, "each is timed");
            let untracked = tasks.iter().filter(|task| task.name() != "delayed");
            assert!(untracked.map(|task| task.delays().count()).sum::<u64>() == 0);
        });
    }
}

#[test]
fn busy_and_idle_add_up() {
    let _alone = alone();
    current_thread().block_on(async {
        let watchdog = Watchdog::builder().track(true).start().unwrap();
        let _task = tokio::spawn(
            async {
                thread::sleep(ms(30));
                tokio::time::sleep(ms(30)).await;
                thread::sleep(ms(30));
                pending::<()>().await;
            }
            .watched("both"),
        );
        let deadline = Instant::now() + Duration::from_secs(20);
        let seen = loop {
            tokio::time::sleep(ms(10)).await;
            let seen = task(&watchdog, "both");
            // The first of its polls, then those after its sleep.
            if seen.polls() >= 2 {
                break seen;
            }
            assert!(Instant::now() < deadline, "{seen:?}");
        };
        assert!(seen.busy() >= ms(60), "{seen:?}");
        assert!(seen.idle() >= ms(30), "{seen:?}");
        assert_eq!(seen.busy() + seen.idle(), seen.age());
    });
}

#[test]
fn wakes_from_everywhere_at_once_lose_nothing() {
    let _alone = alone();
    let runtime = multi_thread(3);
    let watchdog = Watchdog::builder()
        .track(true)
        .start_on(runtime.handle())
        .unwrap();
    let (send, mut receive) = tokio::sync::mpsc::channel::<u64>(4);
    let sum = runtime.spawn(
        async move {
            let mut sum = 0;
            while let Some(n) = receive.recv().await {
                sum += n;
            }
            sum
        }
        .watched("sum"),
    );
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let send = send.clone();
            runtime.spawn(
                async move {
                    for n in 0..2_000 {
                        send.send(n).await.unwrap();
                    }
                }
                .watched("sender"),
            )
        })
        .collect();
    drop(send);
    runtime.block_on(async {
        for sender in senders {
            sender.await.unwrap();
        }
        assert_eq!(sum.await.unwrap(), 4 * 1_999 * 1_000);
    });
    let report = watchdog.report();
    let sum = report
        .tasks()
        .iter()
        .find(|task| task.name() == "sum")
        .unwrap();
    assert!(sum.delays().count() > 0 && sum.delays().count() < sum.polls().count());
    assert!(watchdog.tasks().is_empty(), "{:?}", watchdog.tasks());
}

#[test]
fn what_was_dropped_unfinished_is_forgotten() {
    let _alone = alone();
    let runtime = current_thread();
    let watchdog = Watchdog::builder()
        .track(true)
        .start_on(runtime.handle())
        .unwrap();
    runtime.block_on(async {
        let tasks: Vec<_> = (0..100)
            .map(|_| tokio::spawn(pending::<()>().watched("many")))
            .collect();
        settled().await;
        assert_eq!(watchdog.tasks().len(), 100);
        for task in tasks {
            task.abort();
        }
        settled().await;
        assert_eq!(watchdog.tasks().len(), 0);
    });
}

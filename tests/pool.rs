//! How long work waits for a thread of the blocking pool.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::{alone, ms};
use stallscope::{Watchdog, spawn_blocking};

fn runtime(threads: usize) -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(threads)
        .build()
        .unwrap()
}

#[test]
fn work_that_finds_no_thread_is_seen_waiting_and_its_wait_is_measured() {
    let _alone = alone();
    let runtime = runtime(2);
    runtime.block_on(async {
        let watchdog = Watchdog::start().unwrap();
        let (go, wait) = channel::<()>();
        let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
        let holders: Vec<_> = (0..2)
            .map(|_| {
                let wait = std::sync::Arc::clone(&wait);
                spawn_blocking(move || wait.lock().unwrap().recv().unwrap())
            })
            .collect();
        let deadline = Instant::now() + Duration::from_secs(20);
        while watchdog.health().blocking_pool().running() < 2 {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(ms(1)).await;
        }
        let begin = Instant::now();
        let third = spawn_blocking(Instant::now);
        tokio::time::sleep(ms(50)).await;
        let pool = watchdog.health().blocking_pool();
        assert_eq!((pool.queued(), pool.running()), (1, 2));
        assert!(
            pool.longest_wait() >= ms(45) && pool.is_saturated(ms(45)),
            "{pool:?}"
        );
        assert!(!pool.is_saturated(Duration::from_secs(60)));
        for _ in 0..2 {
            go.send(()).unwrap();
        }
        let waited = third.await.unwrap() - begin;
        for holder in holders {
            holder.await.unwrap();
        }
        let waits = watchdog.report().blocking_waits().clone();
        assert_eq!(waits.count(), 3);
        // By another clock than the test's, and so not to the microsecond.
        let longest = 2 * waited;
        assert!(waits.max() >= ms(45) && waits.max() <= longest, "{waits:?}");
        let pool = watchdog.health().blocking_pool();
        assert_eq!((pool.queued(), pool.most_running()), (0, 2));
        assert_eq!(pool.longest_wait(), Duration::ZERO);
    });
}

#[test]
fn a_panic_and_a_shutdown_leave_nothing_behind() {
    let _alone = alone();
    let first = runtime(1);
    let watchdog = Watchdog::builder().start_on(first.handle()).unwrap();
    let handed = first.block_on(async {
        spawn_blocking(|| std::panic::resume_unwind(Box::new(())))
            .await
            .unwrap_err();
        let (go, wait) = channel::<()>();
        let holds = spawn_blocking(move || wait.recv());
        let never = spawn_blocking(|| ());
        (go, holds, never)
    });
    let (go, ..) = handed;
    // What has not begun is dropped.
    first.shutdown_background();
    drop(go);
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let pool = watchdog.health().blocking_pool();
        if (pool.queued(), pool.running()) == (0, 0) {
            break;
        }
        assert!(Instant::now() < deadline, "{pool:?}");
        std::thread::sleep(ms(1));
    }
}

//! Watchdogs that come and go while polls begin and end: nothing hangs, nothing is left.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]
#![cfg(target_os = "linux")]

mod common;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use common::{alone, ms, multi_thread};
use stallscope::{WatchExt, Watchdog};
use tokio::runtime::{Handle, Runtime};

/// Ends the process if nothing is said for so long: a test that hangs would say nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Of this process, threads of the library.
fn threads_of_ours() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    let ours = names.filter(|name| name.starts_with("stallscope"));
    ours.map(|name| name.trim().to_owned()).collect()
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Memory in use of no file, in KiB.
fn anonymous_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let size = line.unwrap().trim().strip_suffix(" kB").unwrap();
    size.parse().unwrap()
}

/// What goes on beside the watchdogs, until `over`.
fn polls_of_all_kinds(runtime: &Runtime, over: &Arc<AtomicBool>) {
    for _ in 0..4 {
        let until = Arc::clone(over);
        let short = async move {
            while !until.load(Relaxed) {
                common::spin(Duration::from_micros(50));
                tokio::task::yield_now().await;
                tokio::time::sleep(ms(1)).await;
            }
        };
        runtime.spawn(short.watched("short").tracked());
        let until = Arc::clone(over);
        let apart = async move {
            while !until.load(Relaxed) {
                tokio::task::block_in_place(|| thread::sleep(ms(2)));
                tokio::task::yield_now().await;
            }
        };
        runtime.spawn(apart.watched("apart"));
    }
    let until = Arc::clone(over);
    thread::spawn(move || {
        while !until.load(Relaxed) {
            let born = (0..4).map(|_| {
                thread::spawn(|| {
                    let mut once = pin!(async {}.watched("once"));
                    let _ = once.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                })
            });
            for thread in born.collect::<Vec<_>>() {
                thread.join().unwrap();
            }
        }
    });
}

/// Starts and drops so many watchdogs, those of several threads at once.
fn start_and_stop(handle: &Handle, count: usize) {
    const AT_ONCE: usize = 4;
    let done = Arc::new(AtomicUsize::new(0));
    let all = (0..AT_ONCE).map(|_| {
        let (handle, done) = (handle.clone(), Arc::clone(&done));
        thread::spawn(move || {
            let mut before = None;
            while done.fetch_add(1, Relaxed) < count {
                let watchdog = Watchdog::builder()
                    .on_stall(|_| {})
                    .start_on(&handle)
                    .unwrap();
                if done.load(Relaxed) % 64 == 0 {
                    let _ = watchdog.report();
                }
                // Two of one thread overlap as well.
                before = Some(watchdog);
            }
            drop(before);
        })
    });
    let all: Vec<_> = all.collect();
    // The bound is on what no watchdog comes through: the machine may be slow.
    let (mut last, mut since) = (0, Instant::now());
    while !all.iter().all(thread::JoinHandle::is_finished) {
        let now = done.load(Relaxed);
        if now != last {
            (last, since) = (now, Instant::now());
        }
        if since.elapsed() > PATIENCE {
            eprintln!("hangs after {now} watchdogs: {:?}", threads_of_ours());
            std::process::abort();
        }
        thread::sleep(ms(5));
    }
    for thread in all {
        thread.join().unwrap();
    }
}

/// Waits until the library has no thread; what others have open is then constant.
fn wait_for_none() {
    let start = Instant::now();
    while !threads_of_ours().is_empty() {
        assert!(start.elapsed() < PATIENCE, "{:?}", threads_of_ours());
        thread::sleep(ms(5));
    }
}

fn leave_nothing(count: usize) {
    let _alone = alone();
    let over = Arc::new(AtomicBool::new(false));
    let runtime = multi_thread(2);
    polls_of_all_kinds(&runtime, &over);
    let handle = runtime.handle();
    // Whatever a program keeps of its first watchdogs is there then.
    start_and_stop(handle, count / 10);
    wait_for_none();
    let (files, kib) = (open_files(), anonymous_kib());

    start_and_stop(handle, count);
    wait_for_none();
    assert_eq!(open_files(), files);
    let more_kib = anonymous_kib().saturating_sub(kib);
    assert!(more_kib < 32 << 10, "{kib} KiB, and {more_kib} more");

    // And polls go on: the runtime ends, which waits for workers that poll.
    over.store(true, Relaxed);
    runtime.shutdown_timeout(PATIENCE / 2);
}

#[test]
fn watchdogs_that_come_and_go_leave_nothing() {
    leave_nothing(2_000);
}

#[test]
#[ignore = "takes a minute"]
fn ten_thousand_watchdogs_that_come_and_go_leave_nothing() {
    leave_nothing(10_000);
}

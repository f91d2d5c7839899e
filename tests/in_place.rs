//! `block_in_place` with no thread free to take over: it blocks its worker.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic)]

mod common;

use std::sync::mpsc;
use std::thread;

use common::{Told, alone, ms};
use stallscope::{RiskCategory, WatchExt};

#[inline(never)]
fn waits_in_place() {
    tokio::task::block_in_place(|| {
        thread::sleep(ms(200)); // here
    });
}

fn line() -> u32 {
    let lines = include_str!("in_place.rs").lines();
    let mut marked = (1..)
        .zip(lines)
        .filter(|(_, line)| line.ends_with("// here"));
    marked.next().unwrap().0
}

#[test]
fn the_line_that_blocks_its_worker_is_told() {
    let _alone = alone();
    for watched in [true, false] {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let told = Told::default();
        let watchdog = told.watch(&runtime);
        let (send, receive) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let pool = runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            let _ = receive.recv();
        });
        begins.recv().unwrap();
        // A debug build takes longer for the first stack than it lasts, and a busy machine
        // may not let it be seen at all.
        let mut found = None;
        for _ in 0..20 {
            let task = async { waits_in_place() };
            let task = if watched {
                runtime.spawn(task.watched("in place"))
            } else {
                runtime.spawn(task)
            };
            runtime.block_on(task).unwrap();
            let report = watchdog.report();
            let mut stalls = report.stalls().iter();
            // Of which more than half was seen.
            found = stalls
                .find(|stall| stall.stack().is_some() && stall.seen() > ms(120))
                .cloned();
            if found.is_some() {
                break;
            }
        }
        drop(send);
        runtime.block_on(pool).unwrap();
        let stall = found.unwrap();
        let culprit = stall.stack().unwrap().culprit().unwrap();
        assert_eq!(culprit.line(), Some(line()), "{stall}");
        let advice = stall.advice();
        assert!(advice.short.contains("max_blocking_threads"), "{advice:?}");
        assert_eq!(advice.category, RiskCategory::Cpu);
    }
}

#[test]
fn who_has_handed_its_worker_over_is_not_blamed() {
    let _alone = alone();
    let runtime = common::multi_thread(1);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    for _ in 0..4 {
        let task = async {
            // The thread that takes over finds this one, and does not come round.
            let other = tokio::spawn(async { thread::sleep(ms(150)) });
            waits_in_place();
            other.await.unwrap();
        };
        runtime.block_on(runtime.spawn(task)).unwrap();
    }
    let report = watchdog.report();
    for stall in report.stalls() {
        let culprit = stall.stack().and_then(|stack| stack.culprit());
        assert_ne!(
            culprit.and_then(|culprit| culprit.line()),
            Some(line()),
            "{stall}"
        );
    }
    assert!(!report.stalls().is_empty());
}

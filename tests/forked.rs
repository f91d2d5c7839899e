//! A program that forks: the child drops the watchdog, the parent's goes on.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code
)]
#![cfg(target_os = "linux")]

#[path = "common/child.rs"]
mod child;
mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use child::Child;
use common::{Told, ms, multi_thread};
use stallscope::{StallEvent, WatchExt};
use tokio::runtime::Runtime;

/// What a child that panicked exits with. One that hangs is killed by SIGALRM.
const PANICKED: i32 = 3;
/// And one that waited for threads that it does not have.
const WAITED: i32 = 4;

/// Forks, has the child do `work`, and returns how the child ended.
fn forked(work: impl FnOnce()) -> std::process::ExitStatus {
    use std::os::unix::process::ExitStatusExt;
    // SAFETY: what the child does until it exits is what the test is about: code that
    // has to bear that other threads' locks are held for ever. It returns nowhere.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: alarm has no preconditions; its signal ends the process.
            unsafe { libc::alarm(20) };
            let code = match catch_unwind(AssertUnwindSafe(work)) {
                Ok(()) => 0,
                Err(_) => PANICKED,
            };
            // SAFETY: _exit has no preconditions and does not return.
            unsafe { libc::_exit(code) }
        }
        child => {
            assert!(child > 0, "{}", std::io::Error::last_os_error());
            let mut status = 0;
            // SAFETY: the status is written to a variable of this function.
            let waited = unsafe { libc::waitpid(child, &raw mut status, 0) };
            assert_eq!(waited, child);
            std::process::ExitStatus::from_raw(status)
        }
    }
}

fn stall(runtime: &Runtime, name: &'static str) {
    let sleeps = async { std::thread::sleep(ms(60)) };
    runtime
        .block_on(runtime.spawn(sleeps.watched(name)))
        .unwrap();
}

fn named(all: &[StallEvent], name: &str) -> bool {
    all.iter()
        .any(|event| event.stall.task().is_some_and(|task| task.name() == name))
}

/// Not a test: what the test below runs.
#[test]
#[ignore = "runs in a process of its own"]
fn forks_and_drops() {
    let runtime = multi_thread(2);
    let told = Told::default();
    let mut watchdog = Some(told.watch(&runtime));
    stall(&runtime, "before");
    told.wait_for(|all| named(all, "before"));
    // Whatever goes on: stalls that begin and end, and polls.
    let often = async {
        loop {
            std::thread::sleep(Duration::from_millis(25));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let often = runtime.spawn(often.watched("often"));
    let busy = common::keep_busy(&runtime, 1, Duration::from_micros(300));
    let mut waited = 0;
    for number in 0..100 {
        let status = forked(|| {
            let start = Instant::now();
            drop(watchdog.take());
            if start.elapsed() > ms(100) {
                // SAFETY: _exit has no preconditions and does not return.
                unsafe { libc::_exit(WAITED) };
            }
        });
        if status.code() == Some(WAITED) {
            waited += 1;
        } else {
            assert!(status.success(), "fork {number}: {status:?}");
        }
        std::thread::sleep(Duration::from_micros(500 + 137 * number));
    }
    // A busy machine may hold up some.
    assert!(waited < 50, "{waited} drops of 100 waited");
    // Polls go on: of a future that the child watches, and of one of the parent's.
    let mine = std::cell::RefCell::new(Box::pin(async {}.watched("mine")));
    let status = forked(|| {
        let runtime = common::current_thread();
        runtime.block_on(async { 7 }.watched("the child's"));
        runtime.block_on(mine.borrow_mut().as_mut());
        drop(watchdog.take());
    });
    assert!(status.success(), "{status:?}");

    often.abort();
    common::stop(busy);
    stall(&runtime, "after");
    told.wait_for(|all| named(all, "after"));
    let watchdog = watchdog.unwrap();
    assert!(watchdog.health().is_watching());
    assert!(watchdog.report().counts().total() >= 2);
    drop(watchdog);
    println!("\ndone");
}

#[test]
fn a_forked_child_drops_the_watchdog_and_the_parents_goes_on() {
    let mut child = Child::of("forks_and_drops");
    child.line_after("done");
    assert!(child.wait().success());
}

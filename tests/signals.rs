//! Beside other users of signals, and on threads that have no room for one.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code
)]

mod common;

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Told, from_20_ms, ms, spin};
use stallscope::{Health, Phase, Stall, WatchExt, Watchdog};
use tokio::runtime::{Builder, Runtime};

/// Runs a case in a process of its own: signals are the whole process's, and a case that
/// goes wrong kills it.
fn alone(case: &str) {
    let _alone = common::alone();
    let output = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            &format!("cases::{case}"),
            "--ignored",
            "--nocapture",
        ])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{:?} {text}",
        output.status
    );
    print!("{text}");
}

#[test]
fn a_profiler_that_interrupts_everything_is_survived() {
    alone("profiler");
}

#[test]
fn a_thread_with_a_tiny_alternate_stack_is_never_signalled() {
    alone("tiny_alternate_stack");
}

#[test]
fn a_thread_that_blocks_the_signal_is_the_reason_for_no_stack() {
    alone("blocked_signal");
}

#[test]
fn a_deep_recursion_has_a_stack() {
    alone("deep_recursion");
}

fn workers(begin: fn()) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .on_thread_start(begin)
        .enable_all()
        .build()
        .unwrap()
}

/// Stalls a worker until a stall is told that is `enough`, as machines are busy.
fn stall(
    runtime: &Runtime,
    work: fn(),
    enough: impl Fn(&Stall, &Health) -> bool,
) -> (Stall, Health) {
    let told = Told::default();
    let watchdog = told.watch_with(Watchdog::builder().thresholds(from_20_ms()), runtime);
    let mut last = None;
    for _ in 0..30 {
        told.clear();
        let task = async move { work() }.watched("stall");
        runtime.block_on(runtime.spawn(task)).unwrap();
        told.wait_for_end();
        let stall = told.of(Phase::Ended)[0].stall.clone();
        let health = watchdog.health();
        if enough(&stall, &health) {
            return (stall, health);
        }
        last = Some((stall, health));
    }
    panic!("{last:#?}");
}

fn spins() {
    spin(ms(100));
}

#[inline(never)]
fn recurses(times: u64) -> u64 {
    if times == 0 {
        spin(ms(100));
        return 0;
    }
    std::hint::black_box(recurses(times - 1)) + 1
}

fn recurses_deeply() {
    std::hint::black_box(recurses(3_000));
}

static PROFILED: AtomicUsize = AtomicUsize::new(0);

/// As much as a profiler's handler needs on its stack, and has on an alternate one of 8 KiB:
/// twice the array, unoptimized, beside the signal's frame.
extern "C" fn profiles(_: libc::c_int) {
    let room = std::hint::black_box([7_u8; 1_800]);
    PROFILED.fetch_add(usize::from(room[17] == 7), Ordering::Relaxed);
}

/// Not tests: what the tests above run, each in a process of its own.
mod cases {
    use super::*;

    #[test]
    #[ignore = "runs in a process of its own"]
    fn profiler() {
        // SAFETY: the handler counts; the timer's value lives through the call.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = profiles as *const () as usize;
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut());
            let each = libc::timeval {
                tv_sec: 0,
                tv_usec: 1_000,
            };
            let every = libc::itimerval {
                it_interval: each,
                it_value: each,
            };
            // Not in libc's crate for all C libraries.
            libc::syscall(
                libc::SYS_setitimer,
                2, // ITIMER_PROF
                &raw const every,
                std::ptr::null_mut::<libc::itimerval>(),
            );
        }
        let runtime = workers(|| ());
        for _ in 0..20 {
            stall(&runtime, spins, |stall, _| stall.stack().is_some());
        }
        assert!(PROFILED.load(Ordering::Relaxed) > 20);
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn tiny_alternate_stack() {
        let runtime = workers(|| {
            let memory = vec![0_u64; 2048 / 8].leak();
            // SAFETY: the memory is leaked, and nothing else uses it.
            let set = unsafe {
                let mut stack: libc::stack_t = std::mem::zeroed();
                stack.ss_sp = memory.as_mut_ptr().cast();
                stack.ss_size = 2048;
                libc::sigaltstack(&raw const stack, std::ptr::null_mut())
            };
            assert_eq!(set, 0);
        });
        let no_room = |stall: &Stall, health: &Health| {
            assert!(stall.stack().is_none(), "it was signalled");
            health
                .no_stacks()
                .is_some_and(|why| why.contains("no room"))
        };
        stall(&runtime, spins, no_room);
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn blocked_signal() {
        let runtime = workers(|| {
            // SAFETY: the set is filled before it is used; the old one is not asked for.
            unsafe {
                let mut set: libc::sigset_t = std::mem::zeroed();
                libc::sigfillset(&raw mut set);
                libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
            }
        });
        let blocked = |stall: &Stall, health: &Health| {
            assert!(stall.stack().is_none());
            let why = health.no_stacks();
            why.is_some_and(|why| why.contains("blocks the signal"))
        };
        stall(&runtime, spins, blocked);
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn deep_recursion() {
        let runtime = workers(|| ());
        let (stall, _) = stall(&runtime, recurses_deeply, |stall, _| {
            stall.stack().is_some()
        });
        let frames = stall.stack().unwrap().frames();
        let has = |name: &str| {
            frames
                .iter()
                .any(|frame| frame.function().is_some_and(|it| it.contains(name)))
        };
        assert!(has("recurses") && has("recurses_deeply"), "{frames:#?}");
    }
}

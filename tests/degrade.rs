//! Where a program or its surroundings do not let us: it says so, and the rest works.

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

use common::{Told, from_20_ms, ms, multi_thread, spin};
use stallscope::{Cause, Health, Phase, Stall, WatchExt, Watchdog};

/// Runs a case in a process of its own: signals are the whole process's. One after
/// another: a thread that computes is starved where all of them want a CPU.
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
        "{text}"
    );
}

#[test]
fn no_handler_is_installed_before_it_is_needed() {
    alone("handler_only_for_running_threads");
}

#[test]
fn a_handler_of_the_program_is_left_alone() {
    alone("handler_taken");
}

#[test]
fn without_signals_blocked_threads_still_have_stacks() {
    alone("signals_off");
}

#[test]
fn without_stacks_all_else_works() {
    alone("stacks_off");
}

#[test]
fn where_the_system_forbids_it_all_else_works() {
    alone("forbidden");
}

#[test]
fn a_filter_that_kills_is_never_tried() {
    alone("deadly");
}

#[test]
fn under_a_filter_timers_are_not_tried_unless_they_are_chosen() {
    alone("deadly_timers");
}

#[test]
fn under_a_filter_a_program_without_sockets_makes_none() {
    alone("deadly_sockets");
}

/// A stall by sleeping, then one by spinning, at their ends; and the health after.
fn two_stalls(builder: stallscope::Builder) -> (Stall, Stall, Health) {
    two_stalls_on(&multi_thread(2), builder)
}

fn two_stalls_on(
    runtime: &tokio::runtime::Runtime,
    builder: stallscope::Builder,
) -> (Stall, Stall, Health) {
    let told = Told::default();
    let watchdog = told.watch_with(builder.thresholds(from_20_ms()), runtime);
    let stall = |sleeps: bool| {
        told.clear();
        let future = async move {
            if sleeps {
                std::thread::sleep(ms(250));
            } else {
                spin(ms(100));
            }
        };
        runtime
            .block_on(runtime.spawn(future.watched("stall")))
            .unwrap();
        told.wait_for_end();
        told.of(Phase::Ended)[0].stall.clone()
    };
    let blocked = stall(true);
    let running = stall(false);
    assert_ne!(running.cause(), Cause::Starved, "{running}");
    (blocked, running, watchdog.health())
}

fn handler() -> usize {
    // SAFETY: an all-zero sigaction is a valid one; the call only fills it.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        assert_eq!(
            libc::sigaction(libc::SIGURG, std::ptr::null(), &raw mut action),
            0
        );
        action.sa_sigaction
    }
}

fn assert_causes(blocked: &Stall, running: &Stall) {
    assert!(
        matches!(blocked.cause(), Cause::Blocked { .. }),
        "{blocked}"
    );
    assert_eq!(running.cause(), Cause::OnCpu, "{running}");
}

static CALLS: AtomicUsize = AtomicUsize::new(0);

extern "C" fn of_the_program(_: libc::c_int) {
    CALLS.fetch_add(1, Ordering::Relaxed);
}

/// Not tests: what the tests above run, each in a process of its own.
mod cases {
    use super::*;

    #[test]
    #[ignore = "runs in a process of its own"]
    fn handler_only_for_running_threads() {
        let runtime = multi_thread(2);
        let told = Told::default();
        let _watchdog = told.watch(&runtime);
        let sleep = async { std::thread::sleep(ms(250)) };
        runtime.block_on(runtime.spawn(sleep)).unwrap();
        told.wait_for_end();
        assert_eq!(handler(), libc::SIG_DFL);
        told.clear();
        runtime
            .block_on(runtime.spawn(async { spin(ms(200)) }))
            .unwrap();
        told.wait_for_end();
        assert_ne!(handler(), libc::SIG_DFL);
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn handler_taken() {
        let ours = of_the_program as extern "C" fn(libc::c_int) as usize;
        // SAFETY: the handler does nothing but count.
        unsafe {
            libc::signal(libc::SIGURG, ours);
        }
        let (blocked, running, health) = two_stalls(Watchdog::builder());
        assert_causes(&blocked, &running);
        assert!(blocked.stack().is_some() && running.stack().is_none());
        let reason = health.no_stacks().unwrap();
        assert!(reason.contains("handles the signal itself"), "{reason}");
        assert_eq!((handler(), CALLS.load(Ordering::Relaxed)), (ours, 0));
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn signals_off() {
        let (blocked, running, health) = two_stalls(Watchdog::builder().signal(None));
        assert_causes(&blocked, &running);
        assert!(blocked.stack().is_some() && running.stack().is_none());
        assert!(health.no_stacks().unwrap().contains("signals are off"));
        assert_eq!(handler(), libc::SIG_DFL);
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn stacks_off() {
        let (blocked, running, health) = two_stalls(Watchdog::builder().stacks(false));
        assert_causes(&blocked, &running);
        assert!(blocked.stack().is_none() && running.stack().is_none());
        assert_eq!(health.no_stacks(), None);
        assert_eq!(handler(), libc::SIG_DFL);
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn forbidden() {
        forbid(
            &[libc::SYS_timer_create, libc::SYS_rt_tgsigqueueinfo],
            libc::SECCOMP_RET_ERRNO | libc::EPERM.unsigned_abs(),
        );
        let says_so = || {
            let chosen = Watchdog::builder().signal(Some(libc::SIGURG));
            let (blocked, running, health) = two_stalls(chosen);
            assert_causes(&blocked, &running);
            assert!(running.stack().is_none());
            let why = health.no_stacks();
            blocked.stack().is_some() && why.is_some_and(|why| why.contains("does not permit"))
        };
        // A thread that is switched out all the time is sent no signal: machines are busy.
        assert!((0..50).any(|_| says_so()));
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn deadly() {
        forbid(
            &[libc::SYS_process_vm_readv, libc::SYS_rt_tgsigqueueinfo],
            libc::SECCOMP_RET_KILL_PROCESS,
        );
        let chosen = Watchdog::builder().signal(Some(libc::SIGURG));
        let (blocked, running, health) = two_stalls(chosen);
        assert_causes(&blocked, &running);
        assert!(blocked.stack().is_some() && running.stack().is_some());
        assert_eq!(health.no_stacks(), None);
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn deadly_timers() {
        forbid(
            &[
                libc::SYS_process_vm_readv,
                libc::SYS_timer_create,
                libc::SYS_rt_tgsigqueueinfo,
            ],
            libc::SECCOMP_RET_KILL_PROCESS,
        );
        let (blocked, running, health) = two_stalls(Watchdog::builder());
        assert_causes(&blocked, &running);
        assert!(blocked.stack().is_some() && running.stack().is_some());
        assert_eq!(health.no_stacks(), None);
    }

    #[test]
    #[ignore = "runs in a process of its own"]
    fn deadly_sockets() {
        forbid(
            &[
                libc::SYS_process_vm_readv,
                libc::SYS_timer_create,
                libc::SYS_rt_tgsigqueueinfo,
                libc::SYS_socketpair,
                libc::SYS_socket,
            ],
            libc::SECCOMP_RET_KILL_PROCESS,
        );
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap();
        let (blocked, running, health) = two_stalls_on(&runtime, Watchdog::builder());
        assert_causes(&blocked, &running);
        assert!(blocked.stack().is_some() && running.stack().is_none());
        let why = health.no_stacks().unwrap();
        assert!(why.contains("a filter of system calls"), "{why}");
    }

    /// Makes system calls fail or kill, as the seccomp filters of containers and services do.
    fn forbid(calls: &[i64], action: u32) {
        const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
        const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
        const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
        let op = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
        // The number of the call is the first word.
        let mut program = vec![op(LOAD, 0, 0)];
        for (at, call) in calls.iter().enumerate() {
            // To the last line, past the one that allows.
            let jump = u8::try_from(calls.len() - at).unwrap();
            program.push(op(EQUAL, jump, u32::try_from(*call).unwrap()));
        }
        program.push(op(RETURN, 0, libc::SECCOMP_RET_ALLOW));
        program.push(op(RETURN, 0, action));
        let filter = libc::sock_fprog {
            len: u16::try_from(program.len()).unwrap(),
            filter: program.as_mut_ptr(),
        };
        // SAFETY: the filter and its program live through the calls; threads
        // that are started later inherit it.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let mode = libc::SECCOMP_MODE_FILTER;
            assert_eq!(
                libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const filter),
                0
            );
        }
    }
}

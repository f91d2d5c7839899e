//! A poll, once warm, allocates nothing and calls no kernel.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use stallscope::{PollTiming, Thresholds, WatchExt, Watchdog};

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[allow(unsafe_code)]
// SAFETY: each call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps dealloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

const POLLS: u32 = 20_000;

/// Watches nothing that could wake it up while polls are counted.
fn asleep(timing: PollTiming) -> Watchdog {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let hour = Duration::from_secs(3_600);
    Watchdog::builder()
        .thresholds(Thresholds {
            monitor: hour,
            medium: hour * 2,
            high: hour * 3,
            critical: hour * 4,
        })
        .tick(hour)
        .lag_period(None)
        .poll_timing(timing)
        .start_on(runtime.handle())
        .unwrap()
}

/// Polls that take from nothing to 2 us, so that they fall into many buckets.
fn poll_often(mut poll: impl FnMut()) {
    for round in 0..POLLS {
        poll();
        std::hint::black_box(round);
    }
}

#[test]
fn a_warm_poll_allocates_nothing() {
    for timing in [PollTiming::DetectOnly, PollTiming::Exact] {
        let watchdog = asleep(timing);
        let inner = std::future::poll_fn(|_| std::task::Poll::<()>::Pending).watched("inner");
        let mut future = pin!(
            async {
                std::hint::black_box(0);
                inner.await;
            }
            .watched("outer")
        );
        let mut cx = Context::from_waker(Waker::noop());
        poll_often(|| assert!(future.as_mut().poll(&mut cx).is_pending()));
        // A preempted poll may be the first of its length, whose counters are
        // made then: some rounds may allocate, most must not.
        let rounds: Vec<u64> = (0..20)
            .map(|_| {
                let before = ALLOCATIONS.get();
                for _ in 0..1_000 {
                    let _ = future.as_mut().poll(&mut cx);
                }
                ALLOCATIONS.get() - before
            })
            .collect();
        let clean = rounds.iter().filter(|count| **count == 0).count();
        assert!(clean >= 10, "{timing:?}: {rounds:?}");
        drop(watchdog);
    }
}

/// A thread that calls the kernel for more than its own end is killed.
#[cfg(target_os = "linux")]
mod kernel {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// A filter rather than seccomp's strict mode, which forbids reading the
    /// time stamp counter too.
    #[allow(unsafe_code)]
    fn allow_nothing_but_exit() {
        let step = |code: u32, jt, jf, k| libc::sock_filter {
            code: u16::try_from(code).unwrap(),
            jt,
            jf,
            k,
        };
        let exit = u32::try_from(libc::SYS_exit).unwrap();
        let mut steps = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, exit),
            step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
            step(
                libc::BPF_RET | libc::BPF_K,
                0,
                0,
                libc::SECCOMP_RET_KILL_THREAD,
            ),
        ];
        let program = libc::sock_fprog {
            len: u16::try_from(steps.len()).unwrap(),
            filter: steps.as_mut_ptr(),
        };
        // SAFETY: `program` and the steps it points to outlive the calls, which
        // copy them. From the second on this thread may only exit.
        unsafe {
            assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
            let mode = libc::SECCOMP_MODE_FILTER;
            assert_eq!(
                libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program),
                0
            );
        }
    }

    /// Not a test: what the test below runs in a process of its own.
    #[test]
    #[ignore = "is killed at the first system call"]
    #[allow(unsafe_code)]
    fn polls_in_a_cell() {
        let _watchdog = asleep(PollTiming::Exact);
        let through = Arc::new(AtomicBool::new(false));
        let is_through = Arc::clone(&through);
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut future =
                pin!(std::future::poll_fn(|_| std::task::Poll::<()>::Pending).watched("cell"));
            let mut cx = Context::from_waker(Waker::noop());
            poll_often(|| assert!(future.as_mut().poll(&mut cx).is_pending()));
            send.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(50));
            allow_nothing_but_exit();
            for _ in 0..1_000 {
                let _ = future.as_mut().poll(&mut cx);
            }
            if std::env::var_os("CALL_THE_KERNEL").is_some() {
                std::thread::yield_now();
            }
            through.store(true, Ordering::Relaxed);
            // SAFETY: ends this thread only; its stack and locals are leaked.
            unsafe { libc::syscall(libc::SYS_exit, 0) };
        });
        receive.recv().unwrap();
        // Long enough to be killed in: the thread's end cannot be waited for,
        // since it leaves without its last rites.
        std::thread::sleep(Duration::from_millis(500));
        assert!(is_through.load(Ordering::Relaxed), "killed on the way");
    }

    fn survives(call_the_kernel: bool) -> bool {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "kernel::polls_in_a_cell", "--ignored"]);
        if call_the_kernel {
            command.env("CALL_THE_KERNEL", "1");
        }
        command.output().unwrap().status.success()
    }

    #[test]
    fn a_warm_poll_calls_no_kernel() {
        assert!(!survives(true), "the cell holds nobody");
        // A preempted poll may allocate (see above) and so die honestly.
        assert!((0..5).any(|_| survives(false)));
    }
}

//! Watching changes nothing for the watched: no EINTR, nobody blamed for others.

#![cfg(target_os = "linux")]
// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code
)]

mod common;

use std::io::{ErrorKind, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use common::{Told, alone, from_20_ms, keep_busy, ms, multi_thread};
use stallscope::{Cause, Phase, StallEvent, Thresholds, WatchExt, Watchdog};

/// Each stall is captured three times, at as many severities.
fn eager() -> stallscope::Builder {
    let thresholds = Thresholds {
        monitor: ms(2),
        medium: ms(4),
        high: ms(6),
        critical: ms(1_000),
    };
    Watchdog::builder().thresholds(thresholds).tick(ms(1))
}

const STALLS: usize = 200;

/// Threads that spin until this is dropped.
struct Load(Arc<AtomicBool>);

impl Load {
    fn new(threads: usize, begin: fn()) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                begin();
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Load(over)
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Stalls a worker with a call that must return as if nobody looked.
///
/// Beside threads that take the CPUs: then a call that is over may wait for one
/// before it can return, and a signal would interrupt it even now.
fn stall_with(name: &'static str, call: impl Fn() + Send + Sync + Copy + 'static) {
    let _alone = alone();
    let _load = Load::new(2, || ());
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch_with(eager(), &runtime);
    for number in 0..STALLS {
        let task = async move {
            let start = Instant::now();
            call();
            assert!(start.elapsed() >= ms(9), "{name} came back early");
        };
        // With and without an anchor.
        let task = if number % 2 == 0 {
            runtime.spawn(task.watched(name))
        } else {
            runtime.spawn(task)
        };
        runtime.block_on(task).unwrap();
        // Lets the worker park: two in one turn would be one stall.
        std::thread::sleep(ms(2));
    }
    let ended = |told: &[stallscope::StallEvent]| {
        let ended = told.iter().filter(|event| event.phase == Phase::Ended);
        ended.count()
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    // Where the machine itself stands still now and then, stalls as short as
    // these are missed: a gap of the watchdog's is nobody's stall.
    while ended(&told.all()) < STALLS / 2 {
        assert!(
            Instant::now() < deadline,
            "{} stalls told, {:#?}",
            ended(&told.all()),
            watchdog.health()
        );
        std::thread::sleep(ms(5));
    }
    let told = told.all();
    let stacks = told
        .iter()
        .filter(|event| event.phase == Phase::Ended && event.stall.stack().is_some())
        .count();
    println!(
        "{name}: {} stalls told, {stacks} with a stack",
        ended(&told)
    );
    #[cfg(target_arch = "x86_64")]
    assert!(stacks >= STALLS / 4, "too few were captured: {stacks}");
}

#[test]
fn a_read_with_a_timeout_is_not_interrupted() {
    stall_with("read", || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_read_timeout(Some(ms(10))).unwrap();
        let error = stream.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}");
    });
}

#[test]
fn nanosleep_is_not_interrupted() {
    stall_with("nanosleep", || {
        let time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 10_000_000,
        };
        // SAFETY: a valid timespec; the rest need not be told.
        let result = unsafe { libc::nanosleep(&raw const time, std::ptr::null_mut()) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    });
}

#[test]
fn poll_is_not_interrupted() {
    stall_with("poll", || {
        // SAFETY: no descriptors, so nothing to point at.
        let result = unsafe { libc::poll(std::ptr::null_mut(), 0, 10) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    });
}

#[test]
fn epoll_wait_is_not_interrupted() {
    stall_with("epoll_wait", || {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: room for one event; the descriptor is closed once.
        let result = unsafe {
            let epoll = libc::epoll_create1(0);
            let result = libc::epoll_wait(epoll, &raw mut event, 1, 10);
            let error = std::io::Error::last_os_error();
            libc::close(epoll);
            (result, error)
        };
        assert_eq!(result.0, 0, "{}", result.1);
    });
}

fn pin_to_first_cpu() {
    // SAFETY: an all-zero set is a valid, empty one, of the size that is told.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(0, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// What is told of a runtime that has work to do, while eight threads want the CPU of its
/// only worker, and says that this computed or slept.
fn blamed_beside_spinners(
    runtime: &tokio::runtime::Runtime,
    builder: stallscope::Builder,
    work: impl FnOnce(),
) -> Vec<StallEvent> {
    let told = Told::default();
    let watchdog = told.watch_with(builder, runtime);
    runtime
        .block_on(runtime.spawn(async { pin_to_first_cpu() }))
        .unwrap();
    let load = Load::new(8, pin_to_first_cpu);
    work();
    std::thread::sleep(ms(3_000));
    drop(load);
    drop(watchdog);
    let mut told = told.all();
    println!("{} events in all", told.len());
    told.retain(|event| matches!(event.stall.cause(), Cause::OnCpu | Cause::Blocked { .. }));
    told
}

#[test]
fn nobody_is_blamed_for_threads_that_take_the_cpu() {
    let _alone = alone();
    let runtime = multi_thread(1);
    let watchdog = Watchdog::builder().thresholds(from_20_ms());
    let blamed = blamed_beside_spinners(&runtime, watchdog, || {
        keep_busy(&runtime, 4, Duration::from_micros(50));
    });
    assert_eq!(blamed, []);
}

#[test]
fn nor_in_turns_and_polls_that_take_a_while_by_themselves() {
    let _alone = alone();
    for (hooked, watched) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(1).enable_all();
        let watchdog = match hooked {
            true => Watchdog::builder().install(&mut builder),
            false => Watchdog::builder(),
        };
        let runtime = builder.build().unwrap();
        let blamed = blamed_beside_spinners(&runtime, watchdog, || {
            runtime.spawn(async move {
                loop {
                    tokio::time::sleep(ms(7)).await;
                    let work = async { common::spin(ms(4)) };
                    if watched {
                        work.watched("work").await;
                    } else {
                        work.await;
                    }
                }
            });
        });
        assert_eq!(blamed, [], "hooked {hooked}, watched {watched}");
    }
}

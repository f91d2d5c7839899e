//! The first poll of a name, of a thread, of a range of durations, allocates nothing.

// Helpers of tests fail as tests do.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Barrier;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use common::{alone, current_thread, leaked, ms, multi_thread};
use stallscope::{Report, TaskPolls, Thresholds, WatchExt, Watchdog};

struct Counting;

thread_local! {
    /// Of this thread: what it has asked of the allocator, and given back.
    static CALLS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    CALLS.with(|calls| calls.set(calls.get() + 1));
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[allow(unsafe_code)]
// SAFETY: each call is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps alloc's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps alloc_zeroed's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps realloc's contract.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count();
        // SAFETY: the caller keeps dealloc's contract.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What `work` asks of the allocator on this thread.
fn calls_of(work: impl FnOnce()) -> u64 {
    let before = CALLS.get();
    work();
    CALLS.get() - before
}

/// A watchdog that fills its stocks as it starts, and then looks no more.
fn asleep(track: bool) -> (Watchdog, tokio::runtime::Runtime) {
    let runtime = current_thread();
    let hour = Duration::from_secs(3_600);
    let watchdog = Watchdog::builder()
        .thresholds(Thresholds {
            monitor: hour,
            medium: hour * 2,
            high: hour * 3,
            critical: hour * 4,
        })
        .tick(hour)
        .lag_period(None)
        .track(track)
        .start_on(runtime.handle())
        .unwrap();
    (watchdog, runtime)
}

/// Takes so long, without a call.
fn compute(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// A future of which each poll takes as long as it is then told, and which is never done.
fn takes(time: &Cell<Duration>) -> impl Future<Output = ()> {
    poll_fn(|_| {
        compute(time.get());
        Poll::<()>::Pending
    })
}

type Boxed<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

fn poll(future: &mut Boxed<'_>, waker: &Waker) {
    let pending = future.as_mut().poll(&mut Context::from_waker(waker));
    assert!(pending.is_pending());
}

fn of<'a>(report: &'a Report, name: &str) -> &'a TaskPolls {
    let found = report.tasks().iter().find(|task| task.name() == name);
    found.unwrap_or_else(|| panic!("{name} in {:?}", report.tasks()))
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix} {n}")).collect()
}

#[test]
fn first_polls_of_all_durations_allocate_nothing() {
    let _alone = alone();
    let (watchdog, _runtime) = asleep(false);
    let times = [
        Duration::ZERO,
        Duration::from_nanos(300),
        Duration::from_micros(1),
        Duration::from_micros(5),
        Duration::from_micros(40),
        Duration::from_micros(300),
        ms(3),
        ms(20),
    ];
    let names = names("of all durations", 20);
    // On a thread whose first polls these are, too.
    let calls = std::thread::scope(|scope| {
        let polling = scope.spawn(|| {
            let time = Cell::new(Duration::ZERO);
            let mut futures: Vec<Boxed<'_>> = names
                .iter()
                .map(|name| Box::pin(takes(&time).watched(name.clone())) as Boxed<'_>)
                .collect();
            calls_of(|| {
                for (at, future) in futures.iter_mut().enumerate() {
                    for each in times {
                        time.set(each);
                        poll(future, Waker::noop());
                    }
                    if at == 0 {
                        time.set(ms(1_100));
                        poll(future, Waker::noop());
                    }
                }
            })
        });
        polling.join().unwrap()
    });
    assert_eq!(calls, 0, "calls of the allocator within polls");
    let report = watchdog.report();
    for (at, name) in names.iter().enumerate() {
        let polls = of(&report, name).polls();
        let longest = if at == 0 { ms(1_100) } else { ms(20) };
        let count = times.len() as u64 + u64::from(at == 0);
        assert_eq!(polls.count(), count, "{name}");
        assert!(polls.max() >= longest, "{name}: {polls:?}");
    }
}

#[test]
fn what_finds_nothing_in_stock_waits_and_is_counted_all_the_same() {
    let _alone = alone();
    let (first, _runtime) = asleep(false);
    let time = Cell::new(Duration::ZERO);
    // More than there are recorders in stock.
    let names = names("without stock", 100);
    let mut futures: Vec<Boxed<'_>> = names
        .iter()
        .map(|name| Box::pin(takes(&time).watched(name.clone())) as Boxed<'_>)
        .collect();
    let mut poll_all = || {
        calls_of(|| {
            for future in &mut futures {
                poll(future, Waker::noop());
            }
        })
    };
    let all_have = |count: u64| {
        let report = first.report();
        for name in &names {
            assert_eq!(of(&report, name).polls().count(), count, "{name}");
        }
    };
    assert_eq!(poll_all(), 0);
    all_have(1);
    // Fills the stocks again.
    let (second, _runtime) = asleep(false);
    assert_eq!(poll_all(), 0);
    all_have(2);
    drop(second);
    assert_eq!(poll_all(), 0);
    all_have(3);
}

#[test]
fn first_polls_on_busy_workers_allocate_nothing() {
    let _alone = alone();
    const WORKERS: usize = 2;
    let runtime = multi_thread(WORKERS);
    let watchdog = Watchdog::builder().start_on(runtime.handle()).unwrap();
    let times = [0, 1, 3, 10, 40, 160, 1_000, 5_000].map(Duration::from_micros);
    let names = leaked(names("on workers", 20));
    let both = leaked(Barrier::new(WORKERS));
    let tasks: Vec<_> = (0..WORKERS)
        .map(|_| {
            runtime.spawn(async move {
                let time = Cell::new(Duration::ZERO);
                let mut futures: Vec<Boxed<'_>> = names
                    .iter()
                    .map(|name| Box::pin(takes(&time).watched(name.clone())) as Boxed<'_>)
                    .collect();
                // Neither is done before the other begins, so each has a worker.
                both.wait();
                calls_of(|| {
                    for future in &mut futures {
                        for each in times {
                            time.set(each);
                            poll(future, Waker::noop());
                        }
                    }
                })
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(runtime.block_on(task).unwrap(), 0);
    }
    // 320 polls: no more than there are chunks in stock, and entries of those that wait.
    let report = watchdog.report();
    for name in names {
        let count = of(&report, name).polls().count();
        assert_eq!(count, (WORKERS * times.len()) as u64, "{name}");
    }
}

#[test]
fn first_polls_of_tracked_futures_allocate_nothing() {
    let _alone = alone();
    // Made before anybody wants it tracked.
    let early = std::future::pending::<()>().watched("early").tracked();
    let (watchdog, _runtime) = asleep(true);
    let (_again, _runtime) = asleep(true);
    /// What the task itself does to be woken.
    struct Quiet;
    impl Wake for Quiet {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    let waker = Waker::from(std::sync::Arc::new(Quiet));
    let kept: Cell<Option<Waker>> = Cell::new(None);
    let names = names("tracked", 20);
    let waits = || {
        poll_fn(|cx| {
            kept.set(Some(cx.waker().clone()));
            Poll::<()>::Pending
        })
    };
    let mut futures: Vec<Boxed<'_>> = vec![Box::pin(early)];
    for name in &names {
        futures.push(Box::pin(waits().watched(name.clone())));
    }
    let calls = calls_of(|| {
        for future in &mut futures {
            poll(future, &waker);
            if let Some(kept) = kept.take() {
                kept.wake();
            }
            poll(future, &waker);
        }
    });
    assert_eq!(calls, 0);
    let tasks = watchdog.report();
    assert_eq!(of(&tasks, "early").polls().count(), 2);
    for name in &names {
        let task = of(&tasks, name);
        assert_eq!((task.polls().count(), task.delays().count()), (2, 1));
    }
}

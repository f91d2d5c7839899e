//! What a stuck thread holds must not hold up the watchdog: the allocator's lock, the
//! loader's, the kernel's of the memory map.

// Helpers of tests fail as tests do. The allocator is one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    unsafe_code
)]
#![cfg(target_os = "linux")]

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

use common::{alone, ms, multi_thread};
use stallscope::{Cause, Phase, StallEvent, WatchExt, Watchdog};
use tokio::runtime::Runtime;

/// An allocator with one lock for all, which a test can have held.
struct Locking;

#[global_allocator]
static ALLOCATOR: Locking = Locking;
/// The thread that holds the lock; 0 for none.
static HOLDER: AtomicI32 = AtomicI32::new(0);
/// Allocations that had to wait.
static WAITED: AtomicUsize = AtomicUsize::new(0);

impl Locking {
    fn pass() {
        // SAFETY: gettid has no preconditions.
        let me = unsafe { libc::gettid() };
        let holder = || HOLDER.load(Acquire);
        if holder() != 0 && holder() != me {
            WAITED.fetch_add(1, Relaxed);
            while holder() != 0 && holder() != me {
                std::thread::sleep(ms(1));
            }
        }
    }
}

// SAFETY: all is done by the system's allocator.
unsafe impl GlobalAlloc for Locking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::pass();
        // SAFETY: the caller keeps to the same contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        Self::pass();
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

/// What a callback has heard of the task `other`, kept without allocating.
#[derive(Debug)]
struct Heard {
    began: Instant,
    started_us: AtomicU64,
    ended_asleep: AtomicBool,
    ended_us: AtomicU64,
    lasted_us: AtomicU64,
    /// Of any task.
    longest_us: AtomicU64,
}

impl Heard {
    fn new() -> &'static Self {
        common::leaked(Heard {
            began: Instant::now(),
            started_us: AtomicU64::new(0),
            ended_asleep: AtomicBool::new(false),
            ended_us: AtomicU64::new(0),
            lasted_us: AtomicU64::new(0),
            longest_us: AtomicU64::new(0),
        })
    }

    fn now_us(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    fn hear(&self, event: &StallEvent) {
        let stall = &event.stall;
        let lasted_us = stall.duration().as_micros() as u64;
        self.longest_us.fetch_max(lasted_us, Relaxed);
        if stall.task().is_none_or(|task| task.name() != "other") {
            return;
        }
        match event.phase {
            Phase::Started => self.started_us.store(self.now_us(), Release),
            Phase::Escalated => {}
            Phase::Ended => {
                // Copies the cause, and so allocates: only here.
                let asleep = matches!(stall.cause(), Cause::Blocked { .. });
                self.ended_asleep.store(asleep, Relaxed);
                self.lasted_us.store(lasted_us, Relaxed);
                self.ended_us.store(self.now_us(), Release);
            }
        }
    }
}

impl Heard {
    /// Waits for the ends of the other task's stall of a second, and of that of two. Its
    /// beginning was heard while it slept.
    fn is_right_about_another(&self, began_us: u64) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let two_seconds = || self.longest_us.load(Relaxed) >= 1_900_000;
        while self.ended_us.load(Acquire) == 0 || !two_seconds() {
            assert!(Instant::now() < deadline, "its end is never told: {self:?}");
            std::thread::sleep(ms(1));
        }
        let started_us = self.started_us.load(Acquire);
        assert!(started_us >= began_us, "{self:?}");
        assert!(started_us < began_us + 900_000, "{self:?}");
        assert!(self.ended_asleep.load(Relaxed), "{self:?}");
        let lasted_us = self.lasted_us.load(Relaxed);
        assert!((1_000_000..1_900_000).contains(&lasted_us), "{self:?}");
    }
}

/// Two workers, and what is heard of their stalls; not the first of the process.
fn watched() -> (Runtime, &'static Heard, Watchdog) {
    let runtime = multi_thread(2);
    let heard = Heard::new();
    let watchdog = Watchdog::builder()
        .on_stall(move |event| heard.hear(event))
        .start_on(runtime.handle())
        .unwrap();
    warm(&runtime);
    (runtime, heard, watchdog)
}

fn warm(runtime: &Runtime) {
    for _ in 0..3 {
        let stall = async { std::thread::sleep(ms(60)) };
        runtime
            .block_on(runtime.spawn(stall.watched("warm")))
            .unwrap();
    }
    std::thread::sleep(ms(300));
}

/// Has `hold` hold something for two seconds on one worker, while another sleeps for one.
fn another_is_seen_while(hold: fn()) {
    let _alone = alone();
    let (runtime, heard, watchdog) = watched();
    let holder = runtime.spawn(async move { hold() }.watched("holder"));
    std::thread::sleep(ms(200));
    let began_us = heard.now_us();
    let other = runtime.spawn(async { std::thread::sleep(ms(1_000)) }.watched("other"));
    runtime.block_on(async {
        holder.await.unwrap();
        other.await.unwrap();
    });
    heard.is_right_about_another(began_us);

    // And a drop does not wait for it.
    let holder = runtime.spawn(async move { hold() }.watched("holder"));
    std::thread::sleep(ms(200));
    let start = Instant::now();
    drop(watchdog);
    let took = start.elapsed();
    assert!(took < ms(1_200), "the drop took {took:?}");
    runtime.block_on(holder).unwrap();
}

#[test]
fn the_loaders_lock() {
    extern "C" fn visit(
        _: *mut libc::dl_phdr_info,
        _: libc::size_t,
        _: *mut libc::c_void,
    ) -> libc::c_int {
        std::thread::sleep(ms(2_000));
        1
    }
    another_is_seen_while(|| {
        // SAFETY: the callback has the signature that is asked for and does not unwind.
        unsafe { libc::dl_iterate_phdr(Some(visit), std::ptr::null_mut()) };
    });
}

#[test]
fn the_allocators_lock() {
    /// To spawn allocates, so both tasks are there before the lock is held.
    static GO: AtomicBool = AtomicBool::new(false);
    static HELD: AtomicBool = AtomicBool::new(false);
    static IN_TIME: AtomicBool = AtomicBool::new(false);
    let _alone = alone();
    let (runtime, heard, watchdog) = watched();
    // The second task can be queued behind the first, or wait for memory itself.
    for _ in 0..20 {
        GO.store(false, Release);
        HELD.store(false, Release);
        heard.ended_us.store(0, Release);
        let holds = async {
            while !GO.load(Acquire) {
                tokio::task::yield_now().await;
            }
            // SAFETY: gettid has no preconditions.
            HOLDER.store(unsafe { libc::gettid() }, Release);
            HELD.store(true, Release);
            std::thread::sleep(ms(2_000));
            HOLDER.store(0, Release);
        };
        let sleeps = async {
            while !HELD.load(Acquire) {
                tokio::task::yield_now().await;
            }
            IN_TIME.store(HOLDER.load(Acquire) != 0, Release);
            std::thread::sleep(ms(1_000));
        };
        let holder = runtime.spawn(holds.watched("holder"));
        let other = runtime.spawn(sleeps.watched("other"));
        std::thread::sleep(ms(50));
        let began_us = heard.now_us();
        GO.store(true, Release);
        runtime.block_on(async {
            holder.await.unwrap();
            other.await.unwrap();
        });
        if IN_TIME.load(Acquire) {
            heard.is_right_about_another(began_us);
            break;
        }
    }
    assert!(IN_TIME.load(Acquire), "never both at once");
    assert!(WAITED.load(Relaxed) > 0, "nobody wanted the lock");
    // The lock is held for two seconds each time. That a host pauses the machine for less is
    // a standstill, and has happened.
    let gaps = watchdog.health().time_in_gaps();
    assert!(gaps < ms(1_000), "taken for a standstill: {gaps:?}");
}

/// The address of new memory whose pages are all there.
fn populated(size: usize) -> usize {
    // SAFETY: a new mapping of no file, at an address that the kernel chooses.
    let memory = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE,
            -1,
            0,
        )
    };
    assert_ne!(memory, libc::MAP_FAILED);
    memory as usize
}

/// To unmap a gigabyte that is in use takes the lock of the memory map for as long.
#[test]
fn the_memory_maps_lock() {
    const SIZE: usize = 1 << 30;
    let _alone = alone();
    let (runtime, heard, watchdog) = watched();
    let took = std::sync::Arc::new(AtomicU64::new(0));
    let taken = std::sync::Arc::clone(&took);
    let unmaps = async move {
        let memory = populated(SIZE);
        tokio::task::yield_now().await;
        let start = Instant::now();
        // SAFETY: it was mapped just now, by this task alone, and is used no more.
        unsafe { libc::munmap(memory as *mut libc::c_void, SIZE) };
        taken.store(start.elapsed().as_micros() as u64, Relaxed);
    };
    runtime
        .block_on(runtime.spawn(unmaps.watched("other")))
        .unwrap();
    std::thread::sleep(ms(500));
    let took_us = took.load(Relaxed);
    // The last stall of the task is that; a fast machine has none.
    if took_us > 30_000 {
        let lasted_us = heard.lasted_us.load(Relaxed);
        assert!(lasted_us >= took_us, "{took_us} us, but {heard:?}");
    }
    assert_eq!(watchdog.health().gaps(), 0, "taken for a standstill");
}

/// How often a thread of this name had to have a page made or read.
fn faults_of(name: &str) -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let mut faults = 0;
    for task in tasks.flatten() {
        let comm = std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The kernel cuts names at 15 bytes.
        if comm.trim() == &name[..name.len().min(15)] {
            let after = stat.rsplit(')').next().unwrap();
            let fields: Vec<&str> = after.split_whitespace().collect();
            // Fields 10 and 12 of proc_pid_stat(5), counted from the third.
            faults += fields[7].parse::<u64>().unwrap() + fields[9].parse::<u64>().unwrap();
        }
    }
    faults
}

#[test]
fn ten_thousand_looks_need_no_page() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let watchdog = Watchdog::builder()
        .tick(Duration::from_micros(200))
        .start_on(runtime.handle())
        .unwrap();
    let busy = common::keep_busy(&runtime, 4, Duration::from_micros(300));
    std::thread::sleep(ms(500));
    let before = faults_of("stallscope-watch");
    // 10,000 ticks, and more where the machine is busy.
    std::thread::sleep(ms(2_500));
    let faults = faults_of("stallscope-watch") - before;
    common::stop(busy);
    drop(watchdog);
    assert_eq!(faults, 0);
}

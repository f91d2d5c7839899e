//! Who holds the lock that a stall waits for: named where it is proven, and nobody else.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, unsafe_code)]

mod common;

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Condvar, Mutex, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use common::{Told, alone, hold, leaked, ms, multi_thread, spin};
use stallscope::{Cause, Stall, WatchExt, Watchdog};

const HELD: Duration = ms(150);
/// The first stacks of a debug build come too late, and on a busy machine the holder may not
/// be looked at in time. Not to be named is no mistake, however often; to name another is.
const MOST_RUNS: usize = 40;

#[derive(Default)]
struct State {
    mutex: Mutex<Vec<u64>>,
    rwlock: RwLock<Vec<u64>>,
    parked: parking_lot::Mutex<Vec<u64>>,
    other: Mutex<Vec<u64>>,
    condition: Condvar,
    pthread: Pthread,
    /// The holder is at work.
    goes_on: AtomicBool,
}

/// A mutex of the C library.
struct Pthread(std::cell::UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: it is used by way of the C library's functions alone.
unsafe impl Sync for Pthread {}
// SAFETY: as above; it is never moved once it is in use.
unsafe impl Send for Pthread {}

impl Default for Pthread {
    fn default() -> Self {
        Pthread(std::cell::UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER))
    }
}

impl Pthread {
    fn with(&self, f: impl FnOnce()) {
        // SAFETY: initialized, and unlocked by who has locked it.
        assert_eq!(unsafe { libc::pthread_mutex_lock(self.0.get()) }, 0);
        f();
        // SAFETY: as above.
        assert_eq!(unsafe { libc::pthread_mutex_unlock(self.0.get()) }, 0);
    }
}

impl State {
    fn begun(&self) {
        self.goes_on.store(true, SeqCst);
    }
}

type Work = fn(&'static State);

/// One thread holds, or does something else, and another waits.
struct Scenario {
    name: &'static str,
    holds: Work,
    waits: Work,
}

#[inline(never)]
fn purge(state: &'static State) {
    let mut all = state.mutex.lock().unwrap();
    state.begun();
    all.push(1);
    spin(HELD);
    all.push(2);
}

#[inline(never)]
fn purge_asleep(state: &'static State) {
    let mut all = state.mutex.lock().unwrap();
    state.begun();
    thread::sleep(HELD);
    all.push(2);
}

/// The guard is in one function, the work in another.
#[inline(never)]
fn purge_by_parts(state: &'static State) {
    let mut all = state.mutex.lock().unwrap();
    state.begun();
    part(&mut all);
    all.push(2);
}

#[inline(never)]
fn part(all: &mut Vec<u64>) {
    spin(HELD);
    all.push(1);
}

#[inline(never)]
fn rewrite(state: &'static State) {
    let mut all = state.rwlock.write().unwrap();
    state.begun();
    spin(HELD);
    all.push(1);
}

#[inline(never)]
fn parked(state: &'static State) {
    let mut all = state.parked.lock();
    state.begun();
    spin(HELD);
    all.push(1);
}

#[inline(never)]
fn of_c(state: &'static State) {
    state.pthread.with(|| {
        state.begun();
        spin(HELD);
    });
}

fn waits_for_mutex(state: &'static State) {
    state.mutex.lock().unwrap().push(3);
}

fn named() -> Vec<(&'static str, Scenario)> {
    let scenario = |name, holds: Work, waits: Work| Scenario { name, holds, waits };
    vec![
        ("purge", scenario("mutex", purge, waits_for_mutex)),
        (
            "purge_asleep",
            scenario("mutex, asleep", purge_asleep, waits_for_mutex),
        ),
        (
            "purge_by_parts",
            scenario("mutex, by parts", purge_by_parts, waits_for_mutex),
        ),
        (
            "rewrite",
            scenario("reader", rewrite, |state| {
                black_box(state.rwlock.read().unwrap().len());
            }),
        ),
        (
            "rewrite",
            scenario("writer", rewrite, |state| {
                state.rwlock.write().unwrap().push(3);
            }),
        ),
        (
            "parked",
            scenario("parking_lot", parked, |state| state.parked.lock().push(3)),
        ),
        (
            // The mutex says who has it, and not where it was locked.
            "spin",
            scenario("pthread", of_c, |state| {
                state.pthread.with(|| _ = black_box(3));
            }),
        ),
    ]
}

/// The last stall of the future of this name, once it is over. None, if the machine has been
/// so busy that the thread mostly waited for a CPU.
fn end_of(watchdog: &Watchdog, name: &str) -> Option<Stall> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        let report = watchdog.report();
        let of_it = report
            .stalls()
            .iter()
            .filter(|stall| stall.task().is_some_and(|task| task.name() == name));
        let last = of_it.max_by_key(|stall| stall.id());
        if last.is_some_and(|last| !last.is_ongoing()) || Instant::now() > deadline {
            return last.cloned();
        }
        thread::sleep(ms(5));
    }
}

/// One that does this, watched by this name; how long it took.
fn start(
    runtime: &tokio::runtime::Runtime,
    name: &str,
    work: impl FnOnce() + Send + 'static,
) -> tokio::task::JoinHandle<Duration> {
    let timed = async move {
        let start = Instant::now();
        work();
        start.elapsed()
    };
    runtime.spawn(timed.watched(name.to_owned()))
}

/// Has one thread do something with the lock, and then another wait for it. What is told of
/// both, unless the second came too late to wait.
fn run(
    watchdog: &Watchdog,
    runtime: &tokio::runtime::Runtime,
    number: usize,
    first: impl FnOnce(&'static State) + Send + 'static,
    waits: Work,
) -> Option<(Stall, Stall)> {
    let names = ["first", "second"].map(|which| format!("{which} {number}"));
    let state: &'static State = leaked(State::default());
    let first = start(runtime, &names[0], move || first(state));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !state.goes_on.load(SeqCst) {
        assert!(Instant::now() < deadline, "it does not begin");
        thread::sleep(ms(1));
    }
    let second = start(runtime, &names[1], move || waits(state));
    let (_, waited) = runtime.block_on(async { (first.await.unwrap(), second.await.unwrap()) });
    let [first, second] = names.map(|name| end_of(watchdog, &name));
    let (first, second) = (first?, second?);
    (waited > HELD / 2 && second.cause() == Cause::Lock).then_some((first, second))
}

#[test]
fn who_holds_a_lock_is_named() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let runs = std::env::var("STALLSCOPE_RUNS").map_or(2, |runs| runs.parse().unwrap());
    let (mut problems, mut number) = (Vec::new(), 0);
    for (function, scenario) in named() {
        let mut right = 0;
        for _ in 0..MOST_RUNS {
            if right == runs {
                break;
            }
            number += 1;
            let Some((holds, waits)) =
                run(&watchdog, &runtime, number, scenario.holds, scenario.waits)
            else {
                continue;
            };
            let Some(holder) = waits.held_by() else {
                println!("{}: nobody in {waits}", scenario.name);
                continue;
            };
            println!("{}: {waits}", scenario.name);
            let place = holder.place().map_or_else(String::new, |place| {
                format!("{} {}", place.short_function(), place.file().unwrap_or(""))
            });
            // What spins may be seen in the clock that it reads; optimized, both may be part
            // of the function.
            let is_there = [function, "spin", "on_cpu"]
                .iter()
                .any(|name| place.contains(&format!("{name} ")));
            let is_right = is_there
                && place.contains("tests/")
                && holder.worker() == holds.worker()
                && holder.stall() == Some(holds.id())
                && waits.to_string().contains(&format!("held by {holder}"));
            if is_right {
                right += 1;
            } else {
                problems.push(format!("{}: wrong: {holder:?}", scenario.name));
            }
        }
        if right == 0 {
            problems.push(format!("{}: never named", scenario.name));
        }
    }
    let report = watchdog.report();
    for form in [report.to_string(), report.to_markdown(), report.to_html()] {
        assert!(form.contains("held by worker "), "{form}");
    }
    assert!(report.to_json().contains("\"held_by\":"));
    assert!(problems.is_empty(), "{problems:#?}");
}

/// What the second thread does while a third, unknown one holds the lock.
fn bystanders() -> Vec<(&'static str, Work)> {
    vec![
        ("waits, too", |state| {
            held_elsewhere(state);
            waits_for_mutex(state);
        }),
        ("has had a guard", |state| {
            let mut all = state.mutex.lock().unwrap();
            all.push(1);
            drop(all);
            held_elsewhere(state);
            spin(HELD);
        }),
        ("had one by chance", |state| {
            let mut all = state.mutex.lock().unwrap();
            all.push(1);
            if black_box(true) {
                drop(all);
                held_elsewhere(state);
            }
            spin(HELD);
        }),
        ("knows the lock", |state| {
            let known = black_box([&raw const state.mutex; 8]);
            let mut other = state.other.lock().unwrap();
            held_elsewhere(state);
            spin(HELD);
            other.push(known.len() as u64);
        }),
        ("waits for its condition", |state| {
            let all = state.mutex.lock().unwrap();
            let unknown = thread::spawn(|| held_elsewhere(state));
            let (all, _) = state.condition.wait_timeout(all, HELD).unwrap();
            drop(all);
            unknown.join().unwrap();
        }),
    ]
}

/// Another thread, which nobody watches, holds the lock from before the return on.
fn held_elsewhere(state: &'static State) {
    hold(HELD, || state.mutex.lock().unwrap());
    state.begun();
}

#[test]
fn nobody_else_is_named() {
    let _alone = alone();
    let runtime = multi_thread(2);
    let told = Told::default();
    let watchdog = told.watch(&runtime);
    let runs = std::env::var("STALLSCOPE_RUNS").map_or(2, |runs| runs.parse().unwrap());
    for (name, work) in bystanders() {
        let mut waited = 0;
        for run_number in 0..MOST_RUNS {
            if waited == runs {
                break;
            }
            let found = run(&watchdog, &runtime, run_number, work, waits_for_mutex);
            let Some((_, stall)) = found else {
                continue;
            };
            assert_eq!(stall.held_by(), None, "{name}: {stall}");
            waited += 1;
        }
        assert!(waited > 0, "{name}: nobody has waited");
    }
}

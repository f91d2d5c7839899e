//! Threads that hold locks, and threads that do not, captured.

use std::hint::black_box;
use std::sync::{Condvar, Mutex, RwLock};
use std::time::Duration;

use super::*;
use crate::os::platform::capture::tests::Subjected;
use crate::os::{Captured, Doing, LockWait};

const NAP: Duration = Duration::from_millis(1);
type GoesOn<'a> = &'a dyn Fn() -> bool;

#[inline(never)]
fn sleeps(goes_on: GoesOn<'_>) {
    while goes_on() {
        std::thread::sleep(NAP);
    }
}

#[inline(never)]
fn spins(goes_on: GoesOn<'_>) {
    while goes_on() {
        std::hint::spin_loop();
    }
}

#[derive(Default)]
struct State {
    mutex: Mutex<Vec<u64>>,
    rwlock: RwLock<Vec<u64>>,
    other: Mutex<Vec<u64>>,
    parked: parking_lot::Mutex<u64>,
    parked_rwlock: parking_lot::RwLock<u64>,
    condition: Condvar,
}

type Work = fn(&State, GoesOn<'_>);

/// Which locks a thread at this work is found to hold, asleep or computing.
fn found(work: Work, runs: bool) -> Vec<String> {
    let state: &'static State = Box::leak(Box::default());
    let wanted = |address: *const (), kind| Wanted {
        address: address.addr() as u64,
        kind,
    };
    let mutex = (&raw const state.mutex).cast::<()>();
    let rwlock = (&raw const state.rwlock).cast::<()>();
    let parked = (&raw const state.parked).cast::<()>();
    let parked_rwlock = (&raw const state.parked_rwlock).cast::<()>();
    let locks = [
        wanted(mutex, LockKind::Std),
        wanted(rwlock, LockKind::Std),
        wanted(parked, LockKind::ParkingLot),
        wanted(parked_rwlock, LockKind::ParkingLot),
    ];
    let mut thread = Subjected::new(1 << 20, move |goes_on| {
        work(state, goes_on);
        sleeps(goes_on);
    });
    std::thread::sleep(Duration::from_millis(20));
    let is_it = |captured: &Captured| (captured.doing == Doing::Running) == runs;
    let found = thread.holds(&locks, is_it);
    let name = |address: u64| match address {
        _ if address == mutex.addr() as u64 => "mutex",
        _ if address == rwlock.addr() as u64 => "rwlock",
        _ if address == parked.addr() as u64 => "parked",
        _ => "parked rwlock",
    };
    let short = |function: &str| crate::function_name::base(function).to_owned();
    found
        .iter()
        .map(|(held, function)| format!("{} in {}", name(held.lock.address), short(function)))
        .collect()
}

/// Of a thread that sleeps, registers are known as far as functions further in have saved
/// them. Optimized code has guards in registers.
fn assert_held(work: Work, runs: bool, expected: &str) {
    let found = found(work, runs);
    let may_be_unknown = !runs && !cfg!(debug_assertions);
    if !may_be_unknown || !found.is_empty() {
        assert_eq!(found, [expected], "running: {runs}");
    }
}

#[inline(never)]
fn purge(state: &State, work: Work, goes_on: GoesOn<'_>) {
    let mut all = state.mutex.lock().unwrap();
    all.push(1);
    work(state, goes_on);
    all.push(2);
}

#[test]
fn who_has_a_guard_holds_the_lock() {
    for (work, runs) in [(holds_asleep as Work, false), (holds_running, true)] {
        assert_held(work, runs, "mutex in purge");
    }
    fn holds_asleep(state: &State, goes_on: GoesOn<'_>) {
        purge(state, |_, goes_on| sleeps(goes_on), goes_on);
    }
    fn holds_running(state: &State, goes_on: GoesOn<'_>) {
        purge(state, |_, goes_on| spins(goes_on), goes_on);
    }
}

#[test]
fn writers_hold_their_lock() {
    #[inline(never)]
    fn rewrite(state: &State, goes_on: GoesOn<'_>) {
        let mut all = state.rwlock.write().unwrap();
        all.push(1);
        sleeps(goes_on);
        all.push(2);
    }
    assert_held(rewrite, false, "rwlock in rewrite");
}

#[test]
fn locks_of_parking_lot_are_known() {
    #[inline(never)]
    fn count(state: &State, goes_on: GoesOn<'_>) {
        let mut count = state.parked.lock();
        *count += 1;
        sleeps(goes_on);
        *count += 1;
    }
    assert_held(count, false, "parked in count");
    #[inline(never)]
    fn write(state: &State, goes_on: GoesOn<'_>) {
        let mut count = state.parked_rwlock.write();
        *count += 1;
        spins(goes_on);
        *count += 1;
    }
    assert_held(write, true, "parked rwlock in write");
}

#[test]
fn a_guard_that_is_gone_holds_nothing() {
    #[inline(never)]
    fn dropped(state: &State, goes_on: GoesOn<'_>) {
        let mut all = state.mutex.lock().unwrap();
        all.push(1);
        drop(all);
        sleeps(goes_on);
    }
    #[inline(never)]
    fn dropped_by_scope(state: &State, goes_on: GoesOn<'_>) {
        state.mutex.lock().unwrap().push(1);
        spins(goes_on);
        state.mutex.lock().unwrap().push(1);
    }
    #[inline(never)]
    fn dropped_by_chance(state: &State, goes_on: GoesOn<'_>) {
        let mut all = state.mutex.lock().unwrap();
        all.push(1);
        if black_box(true) {
            drop(all);
        }
        sleeps(goes_on);
        black_box(state);
    }
    #[inline(never)]
    fn kept_by_chance(state: &State, goes_on: GoesOn<'_>) {
        let mut all = state.mutex.lock().unwrap();
        all.push(1);
        if black_box(false) {
            drop(all);
        }
        sleeps(goes_on);
        black_box(state);
    }
    assert_eq!(found(dropped, false), [""; 0]);
    assert_eq!(found(dropped_by_scope, true), [""; 0]);
    assert_eq!(found(dropped_by_chance, false), [""; 0]);
    assert_held(kept_by_chance, false, "mutex in kept_by_chance");
}

#[test]
fn who_only_knows_a_lock_does_not_hold_it() {
    #[inline(never)]
    fn refers(state: &State, goes_on: GoesOn<'_>) {
        let known = black_box([&raw const state.mutex; 4]);
        sleeps(goes_on);
        black_box(known);
    }
    #[inline(never)]
    fn has_another(state: &State, goes_on: GoesOn<'_>) {
        let mut all = state.other.lock().unwrap();
        let known = black_box([&raw const state.mutex; 4]);
        sleeps(goes_on);
        all.push(known.len() as u64);
    }
    assert_eq!(found(refers, false), [""; 0]);
    assert_eq!(found(has_another, false), [""; 0]);
}

#[test]
fn who_takes_a_lock_when_dropped_does_not_hold_it() {
    struct Gives<'a>(&'a State);
    impl Drop for Gives<'_> {
        fn drop(&mut self) {
            self.0.mutex.lock().unwrap().push(1);
        }
    }
    #[inline(never)]
    fn borrows(state: &State, goes_on: GoesOn<'_>) {
        let gives = Gives(state);
        sleeps(goes_on);
        black_box(&gives);
    }
    assert_eq!(found(borrows, false), [""; 0]);
}

#[test]
fn a_lock_that_is_let_go_for_a_while_is_not_held() {
    #[inline(never)]
    fn unlocks(state: &State, goes_on: GoesOn<'_>) {
        let mut count = state.parked.lock();
        parking_lot::MutexGuard::unlocked(&mut count, || sleeps(goes_on));
        *count += 1;
    }
    assert_eq!(found(unlocks, false), [""; 0]);
}

#[test]
fn who_waits_for_a_condition_does_not_hold_its_lock() {
    // Its guard is alive: only the names on its stack say that it waits.
    #[inline(never)]
    fn waits(state: &State, goes_on: GoesOn<'_>) {
        let mut all = state.mutex.lock().unwrap();
        while goes_on() {
            all = state.condition.wait_timeout(all, NAP).unwrap().0;
        }
        drop(all);
    }
    let found = found(waits, false);
    assert!(
        found.is_empty() || found == ["mutex in wait_timeout"],
        "{found:?}"
    );
}

#[test]
fn the_words_of_a_wait_are_found() {
    let mutex: &'static parking_lot::Mutex<u64> = Box::leak(Box::default());
    let guard = mutex.lock();
    let mut waits = Subjected::new(1 << 20, |goes_on| {
        *mutex.lock() += 1;
        sleeps(goes_on);
    });
    let captured = waits.until(None, |captured| captured.waits_for.is_some());
    // Before anything can fail: it is waited for.
    drop(guard);
    let LockWait { locks, owner } = captured.waits_for.unwrap();
    let lock = Wanted {
        address: std::ptr::from_ref(mutex).addr() as u64,
        kind: LockKind::ParkingLot,
    };
    assert!(locks.contains(&lock), "{locks:x?} {lock:x?}");
    assert_eq!(owner, None);
}

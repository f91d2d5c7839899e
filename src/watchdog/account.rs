//! What the threads of workers have done since the last tick, and since when they are at it.

use crate::detector::{Account, Detector, Observation, Spent, ThreadState, ThreadTimes, Unit};
use crate::registry::registry;
use crate::watchdog::observe::Observer;

/// Of more workers it would cost too much to ask each thread at each tick.
const MANY_WORKERS: usize = 16;

/// For how long threads of workers without hooks are asked about at each look, once one
/// has been seen waiting for a CPU: what is young now may have to be excused then. At
/// all times it would double what the watchdog costs.
const CONTENDED_NS: u64 = 1_000_000_000;

/// What is known of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The number of its thread's entry.
    thread: usize,
    parks: u64,
    /// Asked of few workers only, and where it matters.
    spent: Option<Spent>,
}

impl Observer {
    /// What the threads of workers have done since the last tick, and where hooks tell it
    /// when their turns in progress began.
    pub(super) fn look_at_workers(
        &mut self,
        detector: &Detector,
        seen: &mut Observation,
        last_ns: u64,
    ) {
        let is_queued = |(_, times): &(Unit, ThreadTimes)| times.state == ThreadState::Queued;
        if seen.times.iter().any(is_queued) {
            self.contended_until_ns = seen.now_ns.saturating_add(CONTENDED_NS);
        }
        seen.accounts.clear();
        self.known.resize(seen.workers.len(), None);
        for index in 0..seen.workers.len() {
            let mut account = self.account(index, seen);
            if let Some(account) = &mut account
                && let Some((began_ns, spent)) = self.began(index, seen, last_ns, account)
            {
                seen.workers[index].began_ns = Some(began_ns);
                account.began = spent;
                if detector.is_old(seen.now_ns.saturating_sub(began_ns)) {
                    self.ask(Unit::Worker(index), Some(account.thread), &mut seen.times);
                }
            }
            seen.accounts.push(account);
        }
    }

    /// What the thread of a worker has done since the last tick.
    fn account(&mut self, index: usize, seen: &Observation) -> Option<Account> {
        let worker = &seen.workers[index];
        let before = self.known.get_mut(index)?.take();
        let place = self.place_of(index).pack();
        let is_there = |thread: usize| {
            let thread = registry().thread(thread);
            thread.is_some_and(|thread| thread.place() == place)
        };
        let before = before.filter(|known| is_there(known.thread));
        let thread = before.map(|known| known.thread);
        let thread = thread.or_else(|| self.thread_of(index))?;
        let matters = is_hooked(thread, place) || seen.now_ns < self.contended_until_ns;
        let now = match before {
            _ if !matters || self.known.len() > MANY_WORKERS => None,
            // It sleeps.
            Some(known) if worker.parked && worker.parks == known.parks => known.spent,
            _ => self.probe(thread)?.spent(),
        };
        self.known[index] = Some(Known {
            thread,
            parks: worker.parks,
            spent: now,
        });
        let last = before?.spent?;
        Some(Account {
            thread,
            last,
            began: last,
            now: now?,
            polls: registry().thread(thread)?.slot.begun(),
        })
    }

    /// When the turn in progress began, at the latest, and what its thread had done then.
    ///
    /// The first turn after a worker woke began when it did. A later one, if it woke since
    /// the last tick, has all of the time in which its thread slept and which is not of
    /// the turns before: between two turns tokio takes in events without waiting for any
    /// (1.54, `multi_thread/worker.rs`, `Context::park_yield`).
    fn began(
        &self,
        index: usize,
        seen: &Observation,
        last_ns: u64,
        account: &Account,
    ) -> Option<(u64, Spent)> {
        let place = self.place_of(index).pack();
        if !is_hooked(account.thread, place) {
            return None;
        }
        let parking = registry().thread(account.thread)?.parking();
        let (woke, worked_ns) = parking.awake_since(seen.workers[index].busy_ns)?;
        let woke_ns = self.clock.ns_of(woke);
        if worked_ns == 0 {
            let lasted_ns = seen.now_ns.saturating_sub(woke_ns);
            return Some((woke_ns, account.before(lasted_ns)));
        }
        let Account { last, now, .. } = account;
        let ran_ns = now.cpu_ns.saturating_sub(last.cpu_ns);
        let waited_ns = now.wait_ns.saturating_sub(last.wait_ns);
        // When it was given a CPU is before that.
        let spent = Spent { runs: 0, ..*now };
        let is_new = woke_ns >= last_ns;
        is_new.then_some((woke_ns + worked_ns + ran_ns + waited_ns, spent))
    }

    /// Whether hooks tell of this worker.
    pub(super) fn is_hooked(&self, worker: usize) -> bool {
        let place = self.place_of(worker).pack();
        let known = self.known.get(worker).copied().flatten();
        known.is_some_and(|known| is_hooked(known.thread, place))
    }
}

/// Whether hooks of this thread tell of the worker of this place.
fn is_hooked(thread: usize, place: u64) -> bool {
    let thread = registry().thread(thread);
    thread.is_some_and(|thread| thread.parking().is_hooked(place))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::clock::calibrate;
    use crate::runtime::{Gone, Runtime};
    use crate::severity::Thresholds;
    use crate::watchdog::Watchdog;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    #[test]
    fn a_sleep_in_a_later_turn_than_the_first_is_dated() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        // Each poll is a turn of its own.
        builder.worker_threads(1).event_interval(1);
        drop(Watchdog::builder().install(&mut builder));
        let runtime = builder.build().unwrap();
        let clock = calibrate();
        let watched = Runtime::new(runtime.handle(), Gone::default());
        let mut observer = Observer::new(clock, watched, Arc::default());
        let detector = Detector::new(Thresholds::default(), clock.now_ns());
        let mut seen = Observation::default();
        let deadline = Instant::now() + Duration::from_secs(10);
        while !observer.is_idle(&seen) || !matches!(seen.accounts[..], [Some(_)]) {
            assert!(Instant::now() < deadline, "{seen:?}");
            sleep(Duration::from_millis(1));
            observer.observe(&detector, &mut seen);
        }

        let spawned_ns = clock.now_ns();
        let (send, receive) = channel();
        runtime.spawn(async move {
            let start = Instant::now();
            while start.elapsed() < Duration::from_micros(200) {}
            tokio::task::yield_now().await;
            send.send(()).unwrap();
            sleep(Duration::from_millis(200));
        });
        receive.recv().unwrap();
        sleep(Duration::from_millis(100));
        observer.observe(&detector, &mut seen);
        let began_ns = seen.workers[0].began_ns.unwrap();
        assert!(began_ns >= spawned_ns + 200_000);
        assert!(seen.now_ns - began_ns >= 50_000_000, "{seen:?}");
    }
}

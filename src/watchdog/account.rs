//! What the threads of workers have done since the last tick, and since when they are at it.

use crate::detector::{Account, Detector, Observation, Spent, Unit, WorkerSeen};
use crate::registry::registry;
use crate::watchdog::observe::Observer;

/// Of more workers it would cost too much to ask each thread at each tick.
const MANY_WORKERS: usize = 16;

/// What is known of a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    /// The number of its thread's entry.
    thread: usize,
    worker: WorkerSeen,
    /// Asked of few workers only, and where it matters.
    spent: Option<Spent>,
    /// Of a thread that no hooks tell of, while it is parked: how long it had been on a CPU.
    cpu_ns: Option<u64>,
    /// For how long it had done this library's work.
    own_work_ns: u64,
}

impl Known {
    /// How long the worker has worked in turns that are over, if it was parked and has
    /// woken once since.
    fn worked_ns(&self, now: &WorkerSeen) -> Option<u64> {
        let woke = self.worker.parked && !now.parked && now.parks == self.worker.parks + 1;
        woke.then(|| now.busy_ns.saturating_sub(self.worker.busy_ns))
    }
}

/// How long a thread may need at most to be back at work once it is woken.
const SURELY_AWAKE_NS: u64 = 50_000;

/// Who has worked for no longer has been at no more than a few dozen short polls.
const NEXT_TO_NOTHING_NS: u64 = 3_000;

/// How long to take in events between those may take.
const EVENTS_NS: u64 = 500_000;

/// How much of the time for which a thread has run since its worker woke may not be of
/// the turn in progress, besides those before, of which it has worked for so long.
///
/// Between two turns tokio takes in events without waiting for any (1.54,
/// `multi_thread/worker.rs`, `Context::park_yield`): for as long as the thread has run,
/// for all that is known. But one wake in 61 begins with that, before any poll
/// (`Context::maintenance`).
fn between_turns_ns(worked_ns: u64, ran_ns: u64) -> u64 {
    match worked_ns {
        0 => 0,
        1..NEXT_TO_NOTHING_NS => ran_ns.min(EVENTS_NS),
        _ => ran_ns,
    }
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
        seen.accounts.clear();
        self.known.resize(seen.workers.len(), None);
        for index in 0..seen.workers.len() {
            let place = self.runtime.place_of(index).pack();
            let before = self.known[index].take();
            let before = before.filter(|known| is_there(known.thread, place));
            let mut account = self.account(index, before, seen);
            seen.workers[index].computed_ns = self.computed_ns(index, before, seen);
            seen.workers[index].own_work_ns = self.own_work_ns(index, before);
            if let Some(account) = &mut account
                && let began @ Some((began_ns, _)) = self.began(index, seen, last_ns, account)
            {
                account.began = began;
                if detector.is_old(seen.now_ns.saturating_sub(began_ns)) {
                    self.ask(Unit::Worker(index), Some(account.thread), &mut seen.times);
                }
            }
            seen.accounts.push(account);
        }
    }

    /// What the thread of a worker has done since the last tick.
    fn account(
        &mut self,
        index: usize,
        before: Option<Known>,
        seen: &Observation,
    ) -> Option<Account> {
        let worker = &seen.workers[index];
        let place = self.runtime.place_of(index).pack();
        let thread = before.map(|known| known.thread);
        let thread = thread.or_else(|| self.runtime.thread_of(index))?;
        let matters = is_hooked(thread, place) || self.run_queues.is_contended();
        let now = match before {
            _ if !matters || self.known.len() > MANY_WORKERS => None,
            // It sleeps.
            Some(Known {
                spent: Some(spent),
                worker: before,
                ..
            }) if worker.parked && worker.parks == before.parks => Some(spent),
            _ => self.probes.of(thread).ok()?.spent(),
        };
        if let Some(now) = now {
            let unit = Unit::Worker(index);
            self.run_queues.read(unit, thread, now.wait_ns);
        }
        self.known[index] = Some(Known {
            thread,
            worker: *worker,
            spent: now,
            cpu_ns: None,
            own_work_ns: registry().thread(thread)?.own_work.spent_ns(),
        });
        let last = before?.spent?;
        Some(Account {
            thread,
            last,
            now: now?,
            began: None,
            polls: registry().thread(thread)?.slot.begun(),
        })
    }

    /// For how long this library's own tasks have been polled on a worker since the last
    /// look.
    fn own_work_ns(&self, index: usize, before: Option<Known>) -> u64 {
        let spent_ns = |known: Known| known.own_work_ns;
        let now_ns = self.known[index].map_or(0, spent_ns);
        now_ns.saturating_sub(before.map_or(0, spent_ns))
    }

    /// For how long at least the thread of a worker that no hooks tell of has computed in
    /// the turn in progress: if it has been seen parked just before, all that is not of
    /// other turns.
    fn computed_ns(&mut self, index: usize, before: Option<Known>, seen: &Observation) -> u64 {
        let worker = &seen.workers[index];
        let Some(now) = self.known[index] else {
            return 0;
        };
        let few = self.known.len() <= MANY_WORKERS;
        // The thread of a current-thread runtime may do other things than to run it.
        if !few || !self.is_multi_thread() || self.is_hooked(index) {
            return 0;
        }
        let slept_on = |before: &Known| before.worker.parks == worker.parks;
        let asked_ns = now.spent.map(|spent| spent.cpu_ns);
        if worker.parked {
            let known_ns = before.filter(slept_on).and_then(|before| before.cpu_ns);
            let known_ns = known_ns.or(asked_ns);
            let cpu_ns = known_ns.or_else(|| self.probes.of(now.thread).ok()?.cpu_ns());
            self.known[index] = Some(Known { cpu_ns, ..now });
            return 0;
        }
        let computed_ns = before.and_then(|before| {
            let worked_ns = before.worked_ns(worker)?;
            let parked_ns = before.cpu_ns?;
            let cpu_ns = asked_ns.or_else(|| self.probes.of(now.thread).ok()?.cpu_ns());
            let ran_ns = cpu_ns?.saturating_sub(parked_ns);
            let other_ns = worked_ns + between_turns_ns(worked_ns, ran_ns);
            Some(ran_ns.saturating_sub(other_ns + SURELY_AWAKE_NS))
        });
        computed_ns.unwrap_or(0)
    }

    /// When the turn in progress began, at the latest, and what its thread had done then.
    ///
    /// The first turn after a worker woke began when it did. A later one, if it woke since
    /// the last tick, has all of the time that is neither of the turns before nor [between
    /// them](between_turns_ns).
    fn began(
        &self,
        index: usize,
        seen: &Observation,
        last_ns: u64,
        account: &Account,
    ) -> Option<(u64, Spent)> {
        let place = self.runtime.place_of(index).pack();
        if !is_hooked(account.thread, place) {
            return None;
        }
        let parking = registry().thread(account.thread)?.parking();
        let (woke, worked_ns) = parking.awake_since(seen.workers[index].busy_ns)?;
        let woke_ns = self.clock.ns_of(woke);
        let Account { last, now, .. } = account;
        let ran_ns = now.cpu_ns.saturating_sub(last.cpu_ns);
        let waited_ns = now.wait_ns.saturating_sub(last.wait_ns);
        let began_ns = woke_ns + worked_ns + between_turns_ns(worked_ns, ran_ns);
        if worked_ns < NEXT_TO_NOTHING_NS {
            let lasted_ns = seen.now_ns.saturating_sub(began_ns);
            return Some((began_ns, account.before(lasted_ns)));
        }
        // When it was given a CPU is before that.
        let spent = Spent { runs: 0, ..*now };
        let is_new = woke_ns >= last_ns;
        is_new.then_some((began_ns + waited_ns, spent))
    }

    /// Whether hooks tell of this worker.
    pub(super) fn is_hooked(&self, worker: usize) -> bool {
        let place = self.runtime.place_of(worker).pack();
        let known = self.known.get(worker).copied().flatten();
        known.is_some_and(|known| is_hooked(known.thread, place))
    }
}

/// Whether this thread still runs the worker of this place.
fn is_there(thread: usize, place: u64) -> bool {
    let thread = registry().thread(thread);
    thread.is_some_and(|thread| thread.place() == place)
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
    use crate::watched::WatchExt;
    use std::sync::Arc;
    use std::sync::mpsc::channel;
    use std::thread::sleep;
    use std::time::{Duration, Instant};
    use tokio::runtime::Builder;

    fn one_worker(each_poll_is_a_turn: bool) -> Builder {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(1);
        if each_poll_is_a_turn {
            builder.event_interval(1);
        }
        builder
    }

    /// Who has seen the only worker of a runtime parked, and what it saw.
    fn seen_parked(runtime: &tokio::runtime::Runtime) -> (Observer, Detector, Observation) {
        let clock = calibrate();
        let watched = Runtime::new(runtime.handle(), Gone::default());
        let mut observer = Observer::new(clock, watched, Arc::default());
        let detector = Detector::new(Thresholds::default(), clock.now_ns());
        let mut seen = Observation::default();
        let deadline = Instant::now() + Duration::from_secs(10);
        let knows = |observer: &Observer| {
            let known = observer.known.first().copied().flatten();
            known.is_some_and(|known| known.spent.is_some() || known.cpu_ns.is_some())
        };
        while !knows(&observer) || !seen.workers[0].parked {
            assert!(Instant::now() < deadline, "{seen:?}");
            sleep(Duration::from_millis(1));
            observer.observe(&detector, None, &mut seen);
        }
        (observer, detector, seen)
    }

    fn compute(duration: Duration) {
        let start = Instant::now();
        while start.elapsed() < duration {}
    }

    #[test]
    fn a_sleep_in_a_later_turn_than_the_first_is_dated() {
        let mut builder = one_worker(true);
        drop(Watchdog::builder().install(&mut builder));
        let runtime = builder.build().unwrap();
        let (mut observer, detector, mut seen) = seen_parked(&runtime);
        let spawned_ns = observer.clock.now_ns();
        let (send, receive) = channel();
        runtime.spawn(async move {
            compute(Duration::from_micros(200));
            tokio::task::yield_now().await;
            send.send(()).unwrap();
            sleep(Duration::from_millis(200));
        });
        receive.recv().unwrap();
        sleep(Duration::from_millis(100));
        observer.observe(&detector, None, &mut seen);
        let (began_ns, _) = seen.accounts[0].unwrap().began.unwrap();
        assert!(began_ns >= spawned_ns + 200_000);
        assert!(seen.now_ns - began_ns >= 50_000_000, "{seen:?}");
    }

    /// Whether what a thread computes is known to have gone on for a while.
    #[allow(clippy::unwrap_used)]
    fn is_computing_dated(hooked: bool, each_poll_is_a_turn: bool) -> bool {
        let mut builder = one_worker(each_poll_is_a_turn);
        if hooked {
            drop(Watchdog::builder().install(&mut builder));
        }
        let runtime = builder.build().unwrap();
        // Makes the thread known.
        let known = runtime.spawn(async {}.watched("known"));
        runtime.block_on(known).unwrap();
        let (mut observer, detector, mut seen) = seen_parked(&runtime);
        let spawned_ns = observer.clock.now_ns();
        runtime.spawn(async { compute(Duration::from_millis(200)) });
        sleep(Duration::from_millis(100));
        observer.observe(&detector, None, &mut seen);
        let worker = seen.workers[0];
        let began = seen.accounts[0].and_then(|account| account.began);
        let since_ns = began.map_or(seen.now_ns - worker.computed_ns, |(began_ns, _)| began_ns);
        assert!(since_ns >= spawned_ns, "{seen:?}");
        began.is_some() == hooked && seen.now_ns - since_ns >= 10_000_000
    }

    #[test]
    fn computing_is_dated_with_hooks_and_without() {
        for (hooked, each_poll_is_a_turn) in [(true, true), (false, false), (false, true)] {
            // Other tests may take its CPU just when it wakes.
            let dated = (0..20).any(|_| is_computing_dated(hooked, each_poll_is_a_turn));
            assert!(dated, "hooked {hooked}, turns {each_poll_is_a_turn}");
        }
    }
}

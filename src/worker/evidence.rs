//! Which worker a thread is, from what workers publish of themselves.
//!
//! A worker's counters are written by its own thread, when it parks, when it wakes and
//! between two polls. So a thread that is in a poll is none of the workers that
//! - are parked: their count of parks and wakes is odd; or
//! - publish anything while that poll lasts.
//!
//! Each thread keeps which workers it cannot be; if one is left, it is that. Nothing is
//! concluded from a worker that publishes nothing: it may be stuck. Two threads that stay
//! alike to the end are left without a number.
//!
//! That a thread is a worker at all is known where it runs a task of this library's, or a
//! hook: `block_on` and `spawn_blocking` have a runtime, too, and tasks.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::runtime::{Handle, RuntimeFlavor, RuntimeMetrics};

use crate::local;
use crate::registry::{Place, RuntimeId, registry};

/// Of more workers none is told from the others: what a thread keeps is bounded.
const MAX_WORKERS: usize = 256;

/// For how long a poll of this library's waits for other workers to publish something.
const WATCH: Duration = Duration::from_micros(10);

/// From where it is asked which worker a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// From anywhere: the thread may be no worker.
    Anywhere,
    /// From a poll of a task of this library's.
    InOwnTask,
    /// From the hook that is called before the worker parks.
    Parking,
    /// From the hook that is called after the worker has woken.
    Waking,
}

thread_local! {
    /// Without a destructor: it is asked for while threads end, too.
    static HERE: Here = const { Here::new() };
}

/// What one thread knows of itself.
struct Here {
    /// Of which runtime it is a worker.
    runtime: Cell<RuntimeId>,
    known: Cell<Option<usize>>,
    /// A bit for each worker that this thread cannot be.
    excluded: [Cell<u64>; MAX_WORKERS / 64],
    /// How often each worker had parked and woken, cut, when this one woke.
    parks: [Cell<u32>; MAX_WORKERS],
    /// Whether the thread has been awake, as the same worker, since those were noted.
    awake: Cell<bool>,
}

/// The worker that the calling thread is, if that can be known.
pub(super) fn index(asked: Asked) -> Option<usize> {
    let handle = Handle::try_current().ok()?;
    HERE.try_with(|here| here.index(&handle, asked)).ok()?
}

/// Whether the thread is taken for the one that drives a runtime until another says that it
/// does: of a current-thread runtime the program's own future is polled before any task.
fn may_drive_first(handle: &Handle, runtime: RuntimeId) -> bool {
    let place = Place {
        runtime,
        worker: Some(0),
    };
    let mut claimed = false;
    registry().for_each_thread(|_, thread| claimed |= thread.place() == place.pack());
    handle.runtime_flavor() == RuntimeFlavor::CurrentThread && !claimed
}

impl Here {
    const fn new() -> Self {
        Here {
            runtime: Cell::new(RuntimeId::NEVER),
            known: Cell::new(None),
            excluded: [const { Cell::new(0) }; MAX_WORKERS / 64],
            parks: [const { Cell::new(0) }; MAX_WORKERS],
            awake: Cell::new(false),
        }
    }

    fn index(&self, handle: &Handle, asked: Asked) -> Option<usize> {
        let runtime = local::runtime_id(handle);
        if self.runtime.get() != runtime {
            if asked == Asked::Anywhere && !may_drive_first(handle, runtime) {
                return None;
            }
            self.runtime.set(runtime);
            self.forget();
        }
        let metrics = handle.metrics();
        let workers = metrics.num_workers();
        if handle.runtime_flavor() == RuntimeFlavor::CurrentThread {
            self.known.set(Some(0));
        } else if workers > MAX_WORKERS {
            return None;
        }
        match self.known.get() {
            Some(worker) if self.may_be(&metrics, worker, asked) => {}
            Some(_) => self.forget(),
            None => {}
        }
        if self.known.get().is_none() {
            self.exclude(&metrics, workers, asked);
            self.known.set(self.only_one_left(workers));
        }
        self.note(&metrics, workers, asked);
        self.known.get()
    }

    fn forget(&self) {
        self.known.set(None);
        self.awake.set(false);
        for bits in &self.excluded {
            bits.set(0);
        }
    }

    /// Whether nothing speaks against this worker. One that has handed its work on
    /// (`block_in_place`) is another thread from then on.
    fn may_be(&self, metrics: &RuntimeMetrics, worker: usize, asked: Asked) -> bool {
        let parks = metrics.worker_park_unpark_count(worker);
        parks.is_multiple_of(2) && !(self.spans(asked) && self.has_parked(worker, parks))
    }

    /// Whether this thread has not parked since [`Here::parks`] were noted.
    fn spans(&self, asked: Asked) -> bool {
        asked == Asked::Parking && self.awake.get()
    }

    fn has_parked(&self, worker: usize, parks: u64) -> bool {
        self.parks
            .get(worker)
            .is_some_and(|noted| noted.get() != parks as u32)
    }

    fn exclude(&self, metrics: &RuntimeMetrics, workers: usize, asked: Asked) {
        for worker in 0..workers {
            if !self.may_be(metrics, worker, asked) {
                self.set_excluded(worker);
            }
        }
        if asked != Asked::InOwnTask || self.only_one_left(workers).is_some() {
            return;
        }
        let busy = |worker| metrics.worker_total_busy_duration(worker);
        let mut before = [Duration::ZERO; MAX_WORKERS];
        for (worker, before) in before.iter_mut().enumerate().take(workers) {
            *before = busy(worker);
        }
        let start = Instant::now();
        loop {
            // Where there are fewer CPUs than workers, the others need this one.
            std::thread::yield_now();
            for (worker, before) in before.iter().enumerate().take(workers) {
                if metrics.worker_park_unpark_count(worker) % 2 == 1 || busy(worker) != *before {
                    self.set_excluded(worker);
                }
            }
            if self.only_one_left(workers).is_some() || start.elapsed() > WATCH {
                break;
            }
        }
    }

    fn set_excluded(&self, worker: usize) {
        if let Some(bits) = self.excluded.get(worker / 64) {
            bits.set(bits.get() | 1 << (worker % 64));
        }
    }

    /// The worker that is left, if it is one. If none is, this thread has changed from
    /// one worker to another, and everything is open again.
    fn only_one_left(&self, workers: usize) -> Option<usize> {
        let mut left = (0..workers).filter(|worker| {
            let bits = self.excluded.get(worker / 64).map_or(0, Cell::get);
            bits >> (worker % 64) & 1 == 0
        });
        let first = left.next();
        let more = left.next().is_some();
        if first.is_none() {
            self.forget();
        }
        first.filter(|_| !more)
    }

    /// Notes what is to be compared with when this thread parks.
    fn note(&self, metrics: &RuntimeMetrics, workers: usize, asked: Asked) {
        let note = |worker: usize| {
            if let Some(parks) = self.parks.get(worker) {
                parks.set(metrics.worker_park_unpark_count(worker) as u32);
            }
        };
        match (asked, self.known.get()) {
            (Asked::Waking, Some(worker)) => note(worker),
            (Asked::Waking, None) => (0..workers).for_each(note),
            _ => {}
        }
        match asked {
            Asked::Waking => self.awake.set(true),
            Asked::Parking => self.awake.set(false),
            Asked::Anywhere | Asked::InOwnTask => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::mpsc::{Sender, channel};
    use std::sync::{Arc, Mutex};

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// Enough for any machine to have gone on.
    const LONG: Duration = Duration::from_secs(20);

    fn multi_thread(workers: usize) -> Builder {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(workers);
        builder
    }

    /// Asks in tasks that come and go until all workers have been known, and says who
    /// was said to be which; with the thread, which tells them apart in any case.
    fn ask_all(runtime: &Runtime, workers: usize) -> HashSet<(usize, std::thread::ThreadId)> {
        let found = Arc::new(Mutex::new(HashSet::new()));
        let known = |found: &Mutex<HashSet<(usize, _)>>| {
            let found = found.lock().unwrap();
            found
                .iter()
                .map(|(worker, _)| *worker)
                .collect::<HashSet<_>>()
        };
        let start = Instant::now();
        while known(&found).len() < workers {
            assert!(start.elapsed() < LONG, "{:?}", found.lock().unwrap());
            let asks = (0..2 * workers).map(|_| {
                let found = Arc::clone(&found);
                runtime.spawn(async move {
                    for _ in 0..50 {
                        if let Some(worker) = index(Asked::InOwnTask) {
                            let thread = std::thread::current().id();
                            found.lock().unwrap().insert((worker, thread));
                        }
                        tokio::task::yield_now().await;
                    }
                })
            });
            for ask in asks.collect::<Vec<_>>() {
                runtime.block_on(ask).unwrap();
            }
        }
        let found = found.lock().unwrap();
        found.clone()
    }

    #[test]
    fn each_worker_is_found_and_is_one_thread() {
        let workers = 4;
        let runtime = multi_thread(workers).build().unwrap();
        let found = ask_all(&runtime, workers);
        assert_eq!(found.len(), workers, "{found:?}");
    }

    #[test]
    fn what_follows_from_evidence_is_what_tokio_says() {
        let workers = 4;
        let agreed = Arc::new(Mutex::new(HashSet::new()));
        let said = Arc::clone(&agreed);
        let disagreed = Arc::new(Mutex::new(Vec::new()));
        let disagree = Arc::clone(&disagreed);
        let ask = move |asked| {
            if let Some(worker) = index(asked) {
                // Where tokio doesn't say it, there is nothing to compare with.
                let told = crate::worker::index(asked);
                if told != Some(worker) {
                    disagree.lock().unwrap().push((worker, told));
                }
                said.lock()
                    .unwrap()
                    .insert((asked == Asked::InOwnTask, worker));
            }
        };
        let (parks, wakes) = (ask.clone(), ask.clone());
        let runtime = multi_thread(workers)
            .on_thread_park(move || parks(Asked::Parking))
            .on_thread_unpark(move || wakes(Asked::Waking))
            .build()
            .unwrap();
        let start = Instant::now();
        while agreed.lock().unwrap().len() < 2 * workers {
            assert!(start.elapsed() < LONG, "{:?}", agreed.lock().unwrap());
            let asks = (0..2 * workers).map(|_| {
                let ask = ask.clone();
                runtime.spawn(async move {
                    for _ in 0..50 {
                        ask(Asked::InOwnTask);
                        tokio::task::yield_now().await;
                    }
                })
            });
            for ask in asks.collect::<Vec<_>>() {
                runtime.block_on(ask).unwrap();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(*disagreed.lock().unwrap(), []);
    }

    #[test]
    fn a_worker_that_is_stuck_is_not_taken_for_another() {
        let runtime = multi_thread(2).build().unwrap();
        let (go, may_go) = channel::<()>();
        let (started, has_started) = channel();
        runtime.spawn(async move {
            started.send(()).unwrap();
            let _ = may_go.recv();
        });
        has_started.recv().unwrap();
        // Both are awake, and neither can be told from the other.
        let alike = runtime.spawn(async { index(Asked::InOwnTask) });
        assert_eq!(runtime.block_on(alike).unwrap(), None);
        drop(go);
        assert_eq!(ask_all(&runtime, 2).len(), 2);
    }

    #[test]
    fn threads_that_only_have_a_runtime_are_no_workers() {
        let runtime = multi_thread(1).build().unwrap();
        let (go, may_go) = channel::<()>();
        // Awake, so that nothing but what the threads are speaks against it.
        runtime.spawn(async move {
            let _ = may_go.recv();
        });
        let metrics = runtime.metrics();
        let start = Instant::now();
        while metrics.worker_park_unpark_count(0) % 2 == 1 || metrics.global_queue_depth() > 0 {
            assert!(start.elapsed() < LONG);
        }
        let (root, blocking) = runtime.block_on(async {
            let blocking = tokio::task::spawn_blocking(|| index(Asked::Anywhere));
            (index(Asked::Anywhere), blocking.await.unwrap())
        });
        drop(go);
        assert_eq!((root, blocking), (None, None));
    }

    #[test]
    fn the_first_future_of_a_current_thread_runtime_is_on_its_worker() {
        let runtime = Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(async { index(Asked::Anywhere) }), Some(0));
    }

    #[test]
    fn a_thread_that_has_handed_its_worker_on_is_not_taken_for_it() {
        let runtime = multi_thread(1).build().unwrap();
        let (asked, answer): (Sender<_>, _) = channel();
        let handed_on = runtime.spawn(async move {
            let before = index(Asked::InOwnTask);
            tokio::task::block_in_place(|| {
                // The thread that has taken over parks as nobody else has work.
                let metrics = Handle::current().metrics();
                let start = Instant::now();
                while metrics.worker_park_unpark_count(0).is_multiple_of(2) {
                    assert!(start.elapsed() < LONG);
                }
                asked.send((before, index(Asked::Anywhere))).unwrap();
            });
        });
        runtime.block_on(handed_on).unwrap();
        assert_eq!(answer.recv().unwrap(), (Some(0), None));
    }
}

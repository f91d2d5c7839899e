//! Learns, as a watchdog starts, which thread runs which worker.
//!
//! On stable tokio only code that runs on a worker can tell (see `worker`).
//! A few tasks that yield over and over make idle workers come and take some of
//! them; they end as soon as each worker has answered once, or after a bounded
//! time: a worker that is stuck cannot answer. Later changes are learned from
//! watched polls and the lag sampler.
//!
//! Whoever starts the watchdog waits for the answers: a worker that took the program's next
//! task before it has answered, and is stuck in that, would never say which thread it is.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::local;
use crate::os::AutoResetEvent;
use crate::own_work::{OwnTasks, as_own_work};
use crate::worker::Asked;

/// How long the tasks go on calling.
const PATIENCE: Duration = Duration::from_millis(20);

/// How long to wait for the answers. Idle workers need some 100 us; and whoever waits may be
/// a worker, which nobody else can use meanwhile.
pub(crate) const START_PATIENCE: Duration = Duration::from_millis(5);

/// The answers of the workers of one runtime.
#[derive(Debug)]
pub(crate) struct Roll {
    /// By worker: has it answered?
    answered: Box<[AtomicUsize]>,
    missing: AtomicUsize,
    complete: AutoResetEvent,
}

impl Roll {
    /// The worker that the caller is, if it is one, says which thread it is.
    fn answer(&self, asked: Asked) {
        let worker = local::announce(asked);
        if let Some(answered) = worker.and_then(|worker| self.answered.get(worker))
            && answered.swap(1, Relaxed) == 0
            && self.missing.fetch_sub(1, Relaxed) == 1
        {
            self.complete.set();
        }
    }

    fn is_complete(&self) -> bool {
        self.missing.load(Relaxed) == 0
    }

    /// Waits until all have answered, for at most so long; whether they have.
    pub(crate) fn wait(&self, at_most: Duration) -> bool {
        let start = Instant::now();
        while !self.is_complete()
            && let Some(left) = at_most.checked_sub(start.elapsed())
        {
            self.complete.wait(Some(left));
        }
        self.is_complete()
    }
}

/// Calls all workers of a multi-thread runtime; returns at once.
pub(crate) fn call(handle: &Handle, workers: usize) -> Arc<Roll> {
    let roll = Arc::new(Roll {
        answered: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        missing: AtomicUsize::new(workers),
        complete: AutoResetEvent::new(),
    });
    // One that waits for the others cannot answer as they do.
    if Handle::try_current().is_ok_and(|current| current.id() == handle.id()) {
        roll.answer(Asked::Anywhere);
    }
    let own = OwnTasks::of(local::runtime_id(handle));
    // Twice as many as workers: an idle worker is woken when another has more
    // than it can run at once.
    for _ in 0..workers.saturating_mul(2) {
        own.spawn(handle, answer(Arc::clone(&roll)));
    }
    roll
}

async fn answer(roll: Arc<Roll>) {
    let start = Instant::now();
    while !roll.is_complete() && start.elapsed() < PATIENCE {
        as_own_work(|| {
            roll.answer(Asked::InOwnTask);
            // Where there are fewer CPUs than workers, the others need this one. That can
            // take as long as all others' shares of it, 61 times a turn: it is no stall.
            std::thread::yield_now();
        });
        tokio::task::yield_now().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Place, registry};

    #[test]
    fn every_idle_worker_answers() {
        let workers = 8;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(workers)
            .build()
            .unwrap();
        let known = || {
            let id = local::runtime_id(runtime.handle());
            let mut known = vec![false; workers];
            registry().for_each_thread(|_, thread| {
                let place = Place::unpack(thread.place());
                if let Some(worker) = place.worker.filter(|_| place.runtime == id) {
                    known[usize::from(worker)] = true;
                }
            });
            known
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        // On a busy machine one call may be too short.
        while !call(runtime.handle(), workers).wait(PATIENCE) {
            assert!(Instant::now() < deadline, "{:?}", known());
        }
        assert!(!known().contains(&false), "{:?}", known());
    }

    #[test]
    fn a_worker_that_waits_for_the_others_has_answered() {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let handle = runtime.handle().clone();
        let waits = runtime.spawn(async move { call(&handle, 1).wait(Duration::from_secs(20)) });
        assert!(runtime.block_on(waits).unwrap());
    }
}

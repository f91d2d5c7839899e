//! Learns, as a watchdog starts, which thread runs which worker.
//!
//! On stable tokio only code that runs on a worker can tell (`worker_index`).
//! A few tasks that yield over and over make idle workers come and take some of
//! them; they end as soon as each worker has answered once, or after a bounded
//! time: a worker that is stuck cannot answer. Later changes are learned from
//! watched polls and the lag sampler.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;

use crate::local;
use crate::own_work::{OwnTasks, as_own_work};

/// How long the tasks go on calling.
const PATIENCE: Duration = Duration::from_millis(20);

#[derive(Debug)]
struct Roll {
    /// By worker: has it answered?
    answered: Box<[AtomicUsize]>,
    missing: AtomicUsize,
}

/// Calls all workers of a multi-thread runtime; returns at once.
pub(crate) fn call(handle: &Handle, workers: usize) {
    let roll = Arc::new(Roll {
        answered: (0..workers).map(|_| AtomicUsize::new(0)).collect(),
        missing: AtomicUsize::new(workers),
    });
    let own = OwnTasks::of(local::runtime_id(handle));
    // Twice as many as workers: an idle worker is woken when another has more
    // than it can run at once.
    for _ in 0..workers.saturating_mul(2) {
        own.spawn(handle, answer(Arc::clone(&roll)));
    }
}

async fn answer(roll: Arc<Roll>) {
    let start = Instant::now();
    while roll.missing.load(Relaxed) > 0 && start.elapsed() < PATIENCE {
        as_own_work(|| {
            local::announce();
            let worker = tokio::runtime::worker_index();
            if let Some(answered) = worker.and_then(|worker| roll.answered.get(worker))
                && answered.swap(1, Relaxed) == 0
            {
                roll.missing.fetch_sub(1, Relaxed);
            }
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
        while known().contains(&false) {
            assert!(Instant::now() < deadline, "{:?}", known());
            call(runtime.handle(), workers);
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

//! What tokio tells of a runtime's workers, on stable and with nothing wrapped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor, RuntimeMetrics};

use crate::clock;
use crate::detector::WorkerSeen;
use crate::local;
use crate::own_work::OwnTasks;
use crate::registry::{Place, RuntimeId, Thread, registry};

/// Whether a runtime has begun to shut down; set by [`Sentinel`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Gone(Arc<AtomicBool>);

impl Gone {
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// To be owned by a task of the runtime.
    pub(crate) fn sentinel(&self) -> Sentinel {
        Sentinel(self.clone())
    }
}

/// Says at its drop that the runtime is gone.
///
/// A runtime that shuts down drops its tasks; nothing else tells of it on
/// stable: the counters of its workers just stop, as those of stuck ones do.
#[derive(Debug)]
pub(crate) struct Sentinel(Gone);

impl Drop for Sentinel {
    fn drop(&mut self) {
        let Gone(flag) = &self.0;
        flag.store(true, Ordering::Relaxed);
    }
}

/// How often a runtime's workers have parked and woken in all.
pub(crate) fn parks(metrics: &RuntimeMetrics) -> u64 {
    (0..metrics.num_workers())
        .map(|worker| metrics.worker_park_unpark_count(worker))
        .sum()
}

/// A runtime being watched.
#[derive(Debug)]
pub(crate) struct Runtime {
    metrics: RuntimeMetrics,
    id: RuntimeId,
    flavor: RuntimeFlavor,
    own_tasks: OwnTasks,
    gone: Gone,
}

impl Runtime {
    pub(crate) fn new(handle: &Handle, gone: Gone) -> Self {
        Runtime {
            metrics: handle.metrics(),
            id: local::runtime_id(handle),
            flavor: handle.runtime_flavor(),
            own_tasks: OwnTasks::of(local::runtime_id(handle)),
            gone,
        }
    }

    pub(crate) const fn id(&self) -> RuntimeId {
        self.id
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.is_set()
    }

    pub(crate) fn is_multi_thread(&self) -> bool {
        self.flavor == RuntimeFlavor::MultiThread
    }

    pub(crate) fn workers(&self) -> usize {
        self.metrics.num_workers()
    }

    pub(crate) fn alive_tasks(&self) -> usize {
        self.metrics.num_alive_tasks()
    }

    /// Whether it has no tasks but this library's own. Of a current-thread runtime the
    /// root future is none of its tasks, so that does not show it.
    pub(crate) fn is_vacant(&self) -> bool {
        // Before those that are alive: else one of ours that begins in between would
        // stand for one of the program's.
        let own = self.own_tasks.count();
        self.is_multi_thread() && self.alive_tasks() <= own
    }

    pub(crate) fn global_queue_depth(&self) -> usize {
        self.metrics.global_queue_depth()
    }

    /// What each worker tells of itself; none once the runtime is gone.
    ///
    /// tokio (1.49 to 1.54) publishes these numbers when a worker parks, when it wakes,
    /// and after every 61 polls in between (`multi_thread/worker.rs`,
    /// `Core::maintenance`; `current_thread/mod.rs`, `park_yield`): that trip is
    /// a turn. The count of parks and wakes is odd while a worker is parked.
    pub(crate) fn look(&self, workers: &mut Vec<WorkerSeen>) {
        workers.clear();
        if self.is_gone() {
            return;
        }
        workers.extend((0..self.workers()).map(|worker| self.look_at(worker)));
    }

    pub(crate) fn place_of(&self, worker: usize) -> Place {
        Place {
            runtime: self.id(),
            worker: u16::try_from(worker).ok(),
        }
    }

    /// The thread that runs a worker, if exactly one says so.
    pub(crate) fn thread_of(&self, worker: usize) -> Option<usize> {
        let place = self.place_of(worker);
        let mut found = None;
        let mut several = false;
        registry().for_each_thread(|number, thread: &'static Thread| {
            if thread.place() == place.pack() {
                several = found.is_some();
                found = Some(number);
            }
        });
        found.filter(|_| !several)
    }

    /// What one worker tells of itself; `worker` must be one of [`Runtime::workers`].
    pub(crate) fn look_at(&self, worker: usize) -> WorkerSeen {
        let parks = self.metrics.worker_park_unpark_count(worker);
        let busy = self.metrics.worker_total_busy_duration(worker);
        WorkerSeen {
            parked: parks % 2 == 1,
            parks,
            busy_ns: clock::ns_of(busy),
            computed_ns: 0,
            driven: self.is_driven(worker, parks, busy),
            own_work_ns: 0,
        }
    }

    /// How often its workers have parked and woken in all.
    pub(crate) fn parks(&self) -> u64 {
        parks(&self.metrics)
    }

    /// Whether a worker that tells nothing new is known to be in its loop.
    ///
    /// A multi-thread runtime's workers are, once they have told anything at
    /// all, be it by a poll of this library's in which they said which thread they are: the
    /// poll after it may be one that never ends. A current-thread runtime is driven only
    /// while somebody is in its `block_on`, and nothing tells of that.
    fn is_driven(&self, worker: usize, parks: u64, busy: Duration) -> bool {
        let has_told = || parks > 0 || !busy.is_zero() || self.thread_of(worker).is_some();
        self.is_multi_thread() && has_told()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[test]
    fn a_worker_that_has_said_which_thread_it_is_is_driven() {
        let (go, may_go) = channel::<()>();
        let may_go = Mutex::new(may_go);
        // Neither parks nor works.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .on_thread_start(move || {
                let _ = may_go.lock().unwrap_or_else(PoisonError::into_inner).recv();
            })
            .build()
            .unwrap();
        // Dropped before the runtime, which waits for its threads, also if this test fails.
        let _go = go;
        let watched = Runtime::new(runtime.handle(), Gone::default());
        assert!(!watched.look_at(0).driven);
        registry().claim(local::this_thread().unwrap(), watched.place_of(0));
        assert!(watched.look_at(0).driven);
    }
}

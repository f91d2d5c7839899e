//! What the library itself does on a watched runtime, so that it is nobody's stall.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, Weak};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::local;
use crate::registry::{RuntimeId, lock};

/// Of each runtime that has some.
static ALL: Mutex<Vec<(RuntimeId, Weak<AtomicUsize>)>> = Mutex::new(Vec::new());

/// How many tasks of the library a runtime has.
#[derive(Clone, Debug)]
pub(crate) struct OwnTasks(Arc<AtomicUsize>);

impl OwnTasks {
    /// Of that runtime, whichever watchdog has made them. Takes a lock.
    pub(crate) fn of(runtime: RuntimeId) -> Self {
        let mut all = lock(&ALL);
        all.retain(|(_, count)| count.strong_count() > 0);
        let mut known = all.iter().filter(|(id, _)| *id == runtime);
        if let Some(count) = known.find_map(|(_, count)| count.upgrade()) {
            return OwnTasks(count);
        }
        let count = Arc::default();
        all.push((runtime, Arc::downgrade(&count)));
        OwnTasks(count)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// Starts a task of the library.
    pub(crate) fn spawn(
        &self,
        handle: &Handle,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> JoinHandle<()> {
        let counted = self.begin();
        handle.spawn(async move {
            let _counted = counted;
            work.await;
        })
    }

    /// One more, until what is returned is dropped.
    fn begin(&self) -> OwnTask {
        self.0.fetch_add(1, Relaxed);
        OwnTask(self.clone())
    }
}

/// That a task is the library's.
#[derive(Debug)]
struct OwnTask(OwnTasks);

impl Drop for OwnTask {
    fn drop(&mut self) {
        let OwnTasks(count) = &self.0;
        count.fetch_sub(1, Relaxed);
    }
}

/// Does something that is the library's work, on a worker.
pub(crate) fn as_own_work<R>(work: impl FnOnce() -> R) -> R {
    let Some(thread) = local::this_thread() else {
        return work();
    };
    thread.own_work.begin();
    let result = work();
    thread.own_work.end();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_are_counted_by_runtime_until_they_are_dropped() {
        let (one, other) = (RuntimeId(u32::MAX - 1), RuntimeId(u32::MAX - 2));
        let tasks = OwnTasks::of(one);
        let (first, second) = (tasks.begin(), OwnTasks::of(one).begin());
        assert_eq!((tasks.count(), OwnTasks::of(other).count()), (2, 0));
        drop(first);
        assert_eq!(tasks.count(), 1);
        drop(second);
        assert_eq!(OwnTasks::of(one).count(), 0);
    }

    #[test]
    fn own_work_is_timed_also_while_it_lasts() {
        crate::clock::calibrate();
        let seen = || local::this_thread().unwrap().own_work.spent_ns();
        let spin = || {
            let start = std::time::Instant::now();
            while start.elapsed() < std::time::Duration::from_millis(3) {}
        };
        let before = seen();
        let within = as_own_work(|| {
            spin();
            seen()
        });
        assert!(within >= before + 2_900_000, "{before} {within}");
        let after = seen();
        assert!(after >= within);
        spin();
        assert_eq!(seen(), after);
    }
}

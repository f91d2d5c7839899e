//! For runtimes whose builder has hooks of its own: what to call from them.
//!
//! tokio keeps one callback of each kind, the last that was set. So
//! [`Builder::install`](crate::Builder::install) replaces those that were set
//! before, and is replaced by those that are set after it. A program that has
//! its own calls these from them instead:
//!
//! ```
//! let mut runtime = tokio::runtime::Builder::new_multi_thread();
//! runtime.on_thread_park(|| {
//!     // ... the program's own ...
//!     stallscope::hooks::on_thread_park();
//! });
//! runtime.on_thread_unpark(|| {
//!     // ... the program's own ...
//!     stallscope::hooks::on_thread_unpark();
//! });
//! # let runtime = runtime.build().unwrap();
//! let watchdog = stallscope::Watchdog::builder().start_on(runtime.handle());
//! ```

use crate::local;

/// To be called from `tokio::runtime::Builder::on_thread_park`.
///
/// Makes known which worker this thread runs, and that it is about to park. Costs
/// some 50 ns, no allocation and no system call; elsewhere it does nothing.
pub fn on_thread_park() {
    local::parks();
}

/// To be called from `tokio::runtime::Builder::on_thread_unpark`.
///
/// As [`on_thread_park`], and makes known when the worker woke. It wakes a watchdog
/// that sleeps because all workers were parked, which is a system call, at most
/// once for each such sleep.
pub fn on_thread_unpark() {
    local::wakes();
}

/// To be called from a runtime's poll hooks; only with `--cfg tokio_unstable`.
///
/// Each poll of each spawned task is then published and timed as if the task was
/// [watched](crate::WatchExt::watched), under the name `task` and the place where
/// it was spawned. A watched future within a task counts the polls that it takes
/// part in under its own name.
///
/// tokio calls these hooks for spawned tasks; neither for the future of `block_on`
/// nor for those of a `LocalSet`.
///
/// ```
/// use std::sync::Arc;
/// use stallscope::hooks::TaskPolls;
///
/// let mut runtime = tokio::runtime::Builder::new_multi_thread();
/// let polls = Arc::new(TaskPolls::new()); // one for each runtime
/// let before = Arc::clone(&polls);
/// runtime.on_before_task_poll(move |task| before.before(task));
/// runtime.on_after_task_poll(move |task| polls.after(task));
/// ```
///
/// # Cost
/// That of a watched future's poll, and some twenty instructions.
#[cfg(tokio_unstable)]
#[derive(Debug)]
pub struct TaskPolls(crate::tasks::Home);

#[cfg(tokio_unstable)]
impl TaskPolls {
    /// For the hooks of one runtime.
    #[allow(clippy::new_without_default)]
    pub const fn new() -> Self {
        TaskPolls(crate::tasks::Home::new())
    }

    /// To be called from `tokio::runtime::Builder::on_before_task_poll`.
    pub fn before(&self, task: &tokio::runtime::TaskMeta<'_>) {
        crate::tasks::begin(task, &self.0);
    }

    /// To be called from `tokio::runtime::Builder::on_after_task_poll`.
    pub fn after(&self, _task: &tokio::runtime::TaskMeta<'_>) {
        crate::tasks::end();
    }
}

#[cfg(test)]
mod tests {
    use crate::Watchdog;
    use crate::local;
    use crate::registry::{Place, registry};
    use std::time::{Duration, Instant};

    #[test]
    fn parked_workers_are_known_without_anything_run_on_them() {
        let workers = 4;
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(workers);
        let watchdog = Watchdog::builder().install(&mut builder);
        let runtime = builder.build().unwrap();
        drop(watchdog);
        let id = local::runtime_id(runtime.handle());
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let mut known = vec![0; workers];
            registry().for_each_thread(|_, thread| {
                let place = Place::unpack(thread.place());
                if let Some(worker) = place.worker.filter(|_| place.runtime == id) {
                    known[usize::from(worker)] += 1;
                }
            });
            if known == vec![1; workers] {
                break;
            }
            assert!(Instant::now() < deadline, "{known:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

//! One more runtime of a watchdog.

use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::health::RuntimeHealth;
use crate::idle;
use crate::os;
use crate::registry::lock;
use crate::runtime::Runtime;
use crate::watchdog::LAST_WORDS;
use crate::watchdog::rounds::Exchange;
use crate::watchdog::shared::Shared;

/// One runtime, as its watchdog's owner sees it.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: Runtime,
}

impl Watched {
    pub(super) fn health(&self) -> RuntimeHealth {
        RuntimeHealth {
            name: self.shared.runtime.to_string(),
            workers: self.runtime.workers(),
            gone: self.runtime.is_gone(),
            alive_tasks: self.runtime.alive_tasks(),
            global_queue_depth: self.runtime.global_queue_depth(),
            lag: self.shared.lag.summary(),
        }
    }
}

/// All those of one watchdog, besides its own.
pub(super) type AllWatched = Arc<Mutex<Vec<Arc<Watched>>>>;

/// That a watchdog looks at one more runtime: see [`Watchdog::watch`](crate::Watchdog::watch).
///
/// It ends when this or the watchdog is dropped. The drop waits until the stalls in
/// progress there are told of as [ongoing](crate::Stall::is_ongoing), 150 ms at most.
#[derive(Debug)]
#[must_use = "the runtime is watched until this is dropped"]
pub struct Watching(pub(super) Option<Parts>);

/// What ends with it.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) watched: Arc<Watched>,
    pub(super) all: AllWatched,
    pub(super) task: AbortHandle,
    /// What looks at it comes back here.
    pub(super) back: Exchange,
    pub(super) process: u32,
}

impl Watching {
    /// Whether it is watched: not where the watchdog had 256 others already.
    pub const fn is_watching(&self) -> bool {
        self.0.is_some()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let Some(parts) = self.0.take() else {
            return;
        };
        if os::process_id() != parts.process {
            // In a forked child nobody looks at it.
            std::mem::forget(parts);
            return;
        }
        let shared = &parts.watched.shared;
        shared.stop();
        shared.ending.wait(LAST_WORDS);
        drop(parts.back.pop());
        parts.task.abort();
        lock(&parts.all).retain(|other| !Arc::ptr_eq(other, &parts.watched));
        shared.wake_investigator();
    }
}

/// Has the thread that looks at `own` take in what has arrived.
pub(super) fn announce(own: &Shared) {
    own.common.wakes.set();
    idle::wake(own.runtime.id);
}

/// Waits, not for long, until each worker has said which thread it is.
pub(super) fn call_roll(handle: &Handle, runtime: &Runtime) {
    if runtime.is_multi_thread() {
        let roll = crate::rollcall::call(handle, runtime.workers());
        roll.wait(crate::rollcall::START_PATIENCE);
    }
}

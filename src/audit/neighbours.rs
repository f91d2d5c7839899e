//! Calls of other tasks of a runtime that is audited as a whole.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;

use crate::audit::session::{Call, Session};
use crate::local;
use crate::registry::{RuntimeId, lock};

/// How many there are: one load tells most calls that they are not meant.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static WHOLE: Mutex<Vec<(RuntimeId, Arc<Session>)>> = Mutex::new(Vec::new());

/// Has the calls of all tasks of the current runtime noted, as long as it lives.
#[derive(Debug)]
pub(crate) struct Neighbours(Arc<Session>);

impl Neighbours {
    /// `None` outside of a runtime.
    pub(crate) fn of_this_runtime(session: &Arc<Session>) -> Option<Self> {
        let runtime = local::runtime_id(&Handle::try_current().ok()?);
        lock(&WHOLE).push((runtime, Arc::clone(session)));
        COUNT.fetch_add(1, Relaxed);
        Some(Neighbours(Arc::clone(session)))
    }
}

impl Drop for Neighbours {
    fn drop(&mut self) {
        COUNT.fetch_sub(1, Relaxed);
        lock(&WHOLE).retain(|(_, session)| !Arc::ptr_eq(session, &self.0));
    }
}

/// Whether the calling thread polls a task of such a runtime.
///
/// `spawn_blocking` has a task too, but no worker.
#[cfg_attr(not(feature = "interpose"), allow(dead_code))]
pub(crate) fn calls_count() -> bool {
    COUNT.load(Relaxed) > 0
        && tokio::runtime::worker_index().is_some()
        && tokio::task::try_id().is_some()
        && of_here().is_some()
}

/// Notes a call that blocks.
#[cfg_attr(not(feature = "interpose"), allow(dead_code))]
pub(crate) fn note_call(call: Call) {
    if let Some(session) = of_here() {
        session.note_neighbours(call);
    }
}

fn of_here() -> Option<Arc<Session>> {
    let runtime = local::runtime_id(&Handle::try_current().ok()?);
    lock(&WHOLE)
        .iter()
        .find(|(whole, _)| *whole == runtime)
        .map(|(_, session)| Arc::clone(session))
}

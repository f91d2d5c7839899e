//! Calls of other tasks of a runtime that is audited as a whole.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;

use crate::audit::measure;
use crate::audit::session::{Call, Session};
use crate::local;
use crate::registry::{RuntimeId, lock};
use crate::worker::{self, Asked};

/// How many there are: one load tells most calls that they are not meant.
static COUNT: AtomicUsize = AtomicUsize::new(0);
static WHOLE: Mutex<Vec<(RuntimeId, Arc<Session>)>> = Mutex::new(Vec::new());

/// Has the calls of all tasks of the current runtime noted, as long as it lives.
#[derive(Debug)]
pub(crate) struct Neighbours(Arc<Session>);

impl Neighbours {
    /// `None` where no runtime is audited as a whole.
    pub(crate) fn of(session: &Arc<Session>) -> Option<Self> {
        let runtime = session.whole.as_ref()?.id();
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

/// Whether any runtime is audited as a whole.
pub(super) fn any() -> bool {
    COUNT.load(Relaxed) > 0
}

/// Whether the calling thread polls a task of such a runtime, and nothing allows what
/// blocks.
///
/// `spawn_blocking` has a task too, but no worker.
#[cfg_attr(not(feature = "interpose"), allow(dead_code))]
pub(crate) fn calls_count() -> bool {
    any()
        && measure::counts_apart()
        && worker::index(Asked::Anywhere).is_some()
        && tokio::task::try_id().is_some()
        && !of_here().is_empty()
}

/// Notes a call that blocks.
#[cfg_attr(not(feature = "interpose"), allow(dead_code))]
pub(crate) fn note_call(call: Call) {
    for session in of_here() {
        session.note_neighbours(call.clone());
    }
}

/// The audits of the runtime that the calling thread is in.
fn of_here() -> Vec<Arc<Session>> {
    let Ok(handle) = Handle::try_current() else {
        return Vec::new();
    };
    let runtime = local::runtime_id(&handle);
    let whole = lock(&WHOLE);
    let here = whole.iter().filter(|(of, _)| *of == runtime);
    here.map(|(_, session)| Arc::clone(session)).collect()
}

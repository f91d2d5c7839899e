//! What a thread knows of itself: its entry in the registry, its runtime, its worker.

use std::cell::Cell;
use std::hash::{Hash, Hasher};

use tokio::runtime::{Handle, RuntimeFlavor};

use crate::clock;
use crate::idle;
use crate::registry::{Place, RuntimeId, Thread, registry};
use crate::worker::{self, Asked};

thread_local! {
    /// This thread's entry. Without a destructor, so that a poll reads it with
    /// one instruction; [`LEAVES`] has that of the thread.
    static ENTRY: Cell<Option<&'static Thread>> = const { Cell::new(None) };
    static LEAVES: Leaves = const { Leaves };
}

/// Gives this thread's entry back when the thread ends.
struct Leaves;

impl Drop for Leaves {
    fn drop(&mut self) {
        if let Some(thread) = ENTRY.take() {
            registry().dismiss(thread);
        }
    }
}

/// This thread's entry; `None` where the bound is reached or the thread is ending.
#[inline]
pub(crate) fn this_thread() -> Option<&'static Thread> {
    match ENTRY.get() {
        None => enrol(),
        entry => entry,
    }
}

#[cold]
fn enrol() -> Option<&'static Thread> {
    // Where the guard is gone already, nobody would give the entry back.
    LEAVES.try_with(|_| ()).ok()?;
    let entry = registry().enrol();
    ENTRY.set(entry);
    entry
}

/// Whether this thread is a worker that can be handed over within a poll.
pub(crate) fn may_hand_over(place: Place) -> bool {
    let is_multi_thread = |handle: Handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread;
    place.worker.is_some() && Handle::try_current().is_ok_and(is_multi_thread)
}

/// Learns from tokio which runtime and worker this thread is working for.
pub(crate) fn place_here() -> Place {
    place_in(Handle::try_current().ok().as_ref(), Asked::Anywhere)
}

/// The same, in the runtime of this handle.
fn place_in(handle: Option<&Handle>, asked: Asked) -> Place {
    Place {
        runtime: handle.map(runtime_id).unwrap_or_default(),
        worker: worker::index(asked).and_then(|worker| u16::try_from(worker).ok()),
    }
}

/// Makes this thread known as the worker that it is at the moment, if it is one. Returns
/// which.
pub(crate) fn announce(asked: Asked) -> Option<usize> {
    let (_, place) = announce_in(Handle::try_current().ok().as_ref(), asked)?;
    place.worker.map(usize::from)
}

fn announce_in(handle: Option<&Handle>, asked: Asked) -> Option<(&'static Thread, Place)> {
    let thread = this_thread()?;
    let place = place_in(handle, asked);
    if place.worker.is_some() {
        registry().claim(thread, place);
        // It may have polled before it was known which worker it is.
        thread.set_polls_apart(false);
    }
    Some((thread, place))
}

/// This thread is about to park its worker.
pub(crate) fn parks() {
    let handle = Handle::try_current().ok();
    if let Some((thread, _)) = announce_in(handle.as_ref(), Asked::Parking) {
        thread.parking().parks(thread.place());
    }
}

/// This thread's worker has woken.
pub(crate) fn wakes() {
    let handle = Handle::try_current().ok();
    let announced = announce_in(handle.as_ref(), Asked::Waking);
    let Some(handle) = handle else { return };
    if let Some((thread, place)) = announced
        && let Some(worker) = place.worker
    {
        let busy = handle.metrics().worker_total_busy_duration(worker.into());
        thread.parking().wakes(clock::ticks(), clock::ns_of(busy));
    }
    idle::wake(runtime_id(&handle));
}

/// The number within tokio's opaque id of a runtime.
pub(crate) fn runtime_id(handle: &Handle) -> RuntimeId {
    RuntimeId(number_in(&handle.id()) as u32)
}

/// tokio's id of the task being polled on this thread; 0 for none.
pub(crate) fn task_id() -> u64 {
    tokio::task::try_id().map_or(0, |id| number_in(&id))
}

/// Takes the number out of an opaque id, which shows it only to a hasher.
pub(crate) fn number_in(id: &impl Hash) -> u64 {
    let mut number = Number(0);
    id.hash(&mut number);
    number.0
}

struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_numbers_that_tokio_prints() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let printed: u32 = runtime.handle().id().to_string().parse().unwrap();
        assert_eq!(runtime_id(runtime.handle()), RuntimeId(printed));
        let (seen, printed) = runtime.block_on(async {
            tokio::spawn(async { (task_id(), tokio::task::id().to_string()) })
                .await
                .unwrap()
        });
        assert_eq!(seen.to_string(), printed);
        assert_eq!(task_id(), 0, "outside of any task");
    }

    #[test]
    fn a_thread_knows_its_place() {
        assert_eq!(place_here(), Place::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let expected = runtime_id(runtime.handle());
        let (root, worker) = runtime.block_on(async {
            let worker = tokio::spawn(async { place_here() }).await.unwrap();
            (place_here(), worker)
        });
        assert_eq!((root.runtime, root.worker), (expected, None));
        assert_eq!((worker.runtime, worker.worker), (expected, Some(0)));
    }

    #[test]
    fn of_two_threads_that_claim_a_worker_the_later_has_it() {
        let place = Place {
            runtime: RuntimeId(u32::MAX),
            worker: Some(7),
        };
        let first = this_thread().unwrap();
        registry().claim(first, place);
        assert_eq!(first.place(), place.pack());
        std::thread::scope(|scope| {
            scope.spawn(|| registry().claim(this_thread().unwrap(), place));
        });
        assert_eq!(first.place(), Place::UNKNOWN.pack());
        registry().claim(first, place);
        assert_eq!(first.place(), place.pack());
    }

    #[test]
    fn an_entry_is_given_back_when_its_thread_ends() {
        let entry = |()| std::ptr::from_ref(this_thread().unwrap()).addr();
        let first = std::thread::spawn(move || entry(())).join().unwrap();
        // Other tests' threads may take it first, but not twenty times.
        let again = (0..20).any(|_| std::thread::spawn(move || entry(())).join().unwrap() == first);
        assert!(again);
    }
}

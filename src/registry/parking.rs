//! What the hooks of parking tell of a worker.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use crate::clock;

/// What a worker's thread tells when it parks and wakes; written by it alone.
#[derive(Debug, Default)]
pub(crate) struct Parking {
    /// The packed place of the worker that was last told of, 0 for none: a thread may
    /// drive a runtime without hooks after one with them.
    hooked: AtomicU64,
    awake_since: AtomicU64,
    busy_ns: AtomicU64,
}

impl Parking {
    /// Owner only: it is about to park the worker of this place.
    pub(crate) fn parks(&self, place: u64) {
        self.hooked.store(place, Relaxed);
        self.awake_since.store(0, Relaxed);
    }

    /// Owner only: it has woken, at this time, and has worked for so long before.
    pub(crate) fn wakes(&self, now: clock::Ticks, busy_ns: u64) {
        // Release: pairs with the acquire in `awake_since`, so that who sees this sees
        // that the wake before is over.
        self.busy_ns.store(busy_ns, Release);
        // Release: pairs with the acquire in `awake_since`.
        self.awake_since.store(now, Release);
    }

    pub(super) fn forget(&self) {
        self.hooked.store(0, Relaxed);
        self.awake_since.store(0, Relaxed);
    }

    /// Whether the hooks are called when this thread parks the worker of this place.
    pub(crate) fn is_hooked(&self, place: u64) -> bool {
        self.hooked.load(Relaxed) == place
    }

    /// When the worker woke that has told by now that it has worked for so long, and how
    /// much of that it has since: in turns that are over. `None` where it is not known.
    pub(crate) fn awake_since(&self, busy_ns: u64) -> Option<(clock::Ticks, u64)> {
        let since = self.awake_since.load(Acquire);
        let worked_ns = busy_ns.checked_sub(self.busy_ns.load(Acquire))?;
        // Else they may be of two wakes.
        let is_one = since != 0 && self.awake_since.load(Relaxed) == since;
        is_one.then_some((since, worked_ns))
    }
}

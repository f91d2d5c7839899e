//! What the running watchdogs ask of polls; the most demanding wins.

use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;

use super::tag::Timing;
use super::{Registry, lock, registry};

/// What one watchdog asks of polls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Demand {
    pub(crate) timing: Timing,
    /// Whether all watched futures are to be tracked that begin from now on.
    pub(crate) track: bool,
}

/// The demands of all watchdogs. The lock is taken as watchdogs start and stop, never
/// by a poll.
#[derive(Debug)]
pub(super) struct Demands {
    list: Mutex<List>,
    pub(super) any: AtomicBool,
    pub(super) track: AtomicBool,
}

#[derive(Debug)]
struct List {
    next: u64,
    demands: Vec<(u64, Demand)>,
}

impl Demands {
    pub(super) const fn new() -> Self {
        Demands {
            list: Mutex::new(List {
                next: 0,
                demands: Vec::new(),
            }),
            any: AtomicBool::new(false),
            track: AtomicBool::new(false),
        }
    }
}

/// A watchdog's demand; withdrawn at drop.
#[derive(Debug)]
pub(crate) struct DemandGuard(u64);

impl Drop for DemandGuard {
    fn drop(&mut self) {
        let demands = registry().demands();
        let mut list = lock(&demands.list);
        list.demands.retain(|(id, _)| *id != self.0);
        registry().apply(&list.demands);
    }
}

impl Registry {
    /// Asks for this for as long as the result lives.
    pub(crate) fn demand(&self, demand: Demand) -> DemandGuard {
        let mut list = lock(&self.demands().list);
        list.next += 1;
        let id = list.next;
        list.demands.push((id, demand));
        self.apply(&list.demands);
        DemandGuard(id)
    }

    fn apply(&self, demands: &[(u64, Demand)]) {
        let timings = demands.iter().map(|(_, demand)| demand.timing);
        let timing = timings.min_by_key(|timing| timing.rank());
        self.demands().any.store(timing.is_some(), Relaxed);
        let track = demands.iter().any(|(_, demand)| demand.track);
        self.demands().track.store(track, Relaxed);
        self.set_timing(timing.unwrap_or(Timing::NONE));
    }
}

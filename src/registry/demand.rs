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

/// How many watchdogs' demands are told apart; of more, each counts as the most demanding.
const MAX_DEMANDS: usize = 256;

/// The demands of all watchdogs.
///
/// The lock is taken as watchdogs start and stop, never by a poll. No memory is asked for
/// under it: a watchdog that stops must not wait for one that starts and is stuck there.
#[derive(Debug)]
pub(super) struct Demands {
    list: Mutex<List>,
    pub(super) any: AtomicBool,
    pub(super) track: AtomicBool,
}

#[derive(Debug)]
struct List {
    demands: [Option<Demand>; MAX_DEMANDS],
    /// Those that found no room.
    more: usize,
}

impl Demands {
    pub(super) const fn new() -> Self {
        Demands {
            list: Mutex::new(List {
                demands: [None; MAX_DEMANDS],
                more: 0,
            }),
            any: AtomicBool::new(false),
            track: AtomicBool::new(false),
        }
    }
}

/// A watchdog's demand; withdrawn at drop.
#[derive(Debug)]
pub(crate) struct DemandGuard(Option<usize>);

impl Drop for DemandGuard {
    fn drop(&mut self) {
        let mut list = lock(&registry().demands().list);
        match self.0.and_then(|at| list.demands.get_mut(at)) {
            Some(place) => *place = None,
            None => list.more = list.more.saturating_sub(1),
        }
        registry().apply(&list);
    }
}

impl Registry {
    /// Asks for this for as long as the result lives.
    pub(crate) fn demand(&self, demand: Demand) -> DemandGuard {
        let mut list = lock(&self.demands().list);
        let free = list.demands.iter().position(Option::is_none);
        match free.and_then(|at| list.demands.get_mut(at)) {
            Some(place) => *place = Some(demand),
            None => list.more += 1,
        }
        self.apply(&list);
        DemandGuard(free)
    }

    fn apply(&self, list: &List) {
        let demands = || list.demands.iter().flatten();
        let more = (list.more > 0).then_some(Timing::EACH);
        let timings = demands().map(|demand| demand.timing).chain(more);
        let timing = timings.min_by_key(|timing| timing.rank());
        self.demands().any.store(timing.is_some(), Relaxed);
        let track = demands().any(|demand| demand.track);
        self.demands().track.store(track, Relaxed);
        self.set_timing(timing.unwrap_or(Timing::NONE));
    }
}

//! The one thread that looks at all runtimes of a watchdog, one after another.

use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::clock::Calibrated;
use crate::os;
use crate::room::room_for;
use crate::watchdog::patrol::{Patrol, Rest};
use crate::watchdog::shared::Shared;

/// How many runtimes one watchdog looks at, besides that on which it was started.
pub(crate) const MAX_WATCHED: usize = 256;

/// Where those go that are to be looked at, and where they come back to: this thread may
/// neither make nor free them, as a stuck thread may hold the allocator's lock.
pub(crate) type Exchange = Arc<ArrayQueue<Box<Patrol>>>;

/// What the thread works with.
#[derive(Debug)]
pub(crate) struct Rounds {
    clock: &'static Calibrated,
    /// Of the runtime that the watchdog was started on.
    own: Patrol,
    #[allow(clippy::vec_box, reason = "out of its box it would be freed here")]
    others: Vec<Box<Patrol>>,
    arrivals: Exchange,
}

impl Rounds {
    pub(crate) fn new(clock: &'static Calibrated, own: Patrol, arrivals: Exchange) -> Self {
        Rounds {
            clock,
            own,
            others: room_for(MAX_WATCHED),
            arrivals,
        }
    }

    /// Runs until the watchdog is dropped.
    pub(crate) fn run(mut self) {
        os::touch_stack();
        self.own.begin();
        loop {
            self.take_in();
            self.let_go();
            self.own.visit();
            for other in &mut self.others {
                other.visit();
            }
            if self.rest() {
                break;
            }
        }
        self.own.end();
        self.take_in();
        for other in &mut self.others {
            other.end();
            other.shared.ending.set();
        }
    }

    /// Takes in the runtimes that are new.
    fn take_in(&mut self) {
        while self.others.len() < self.others.capacity()
            && let Some(mut new) = self.arrivals.pop()
        {
            new.begin();
            self.others.push(new);
        }
    }

    /// Tells for the last time of runtimes that are to be watched no more.
    fn let_go(&mut self) {
        while let Some(at) = self.others.iter().position(|other| other.is_stopped()) {
            let mut other = self.others.swap_remove(at);
            other.end();
            let shared: Arc<Shared> = Arc::clone(&other.shared);
            if let Some(back) = other.back.take() {
                // Has room for one, and this is that one.
                let _ = back.push(other);
            }
            shared.ending.set();
        }
    }

    /// Waits until it is to look again; true if it is time to stop.
    fn rest(&mut self) -> bool {
        let done_ns = self.own.worked_until_ns();
        let own = self.own.rest(done_ns);
        let others = self.others.iter_mut().map(|other| other.rest(done_ns));
        let next_ns = match (own, others.map(Rest::until_ns).min()) {
            // Hooks wake it for its own runtime only.
            (Rest::UntilWoken { .. }, None) => {
                self.own.plan(None);
                let arrivals = &self.arrivals;
                return self.own.sleep(|| !arrivals.is_empty());
            }
            (own, others) => others.map_or(own.until_ns(), |ns| ns.min(own.until_ns())),
        };
        let next_ns = next_ns.max(done_ns);
        self.own.plan(Some(next_ns));
        for other in &mut self.others {
            other.plan(Some(next_ns));
        }
        self.wait_until(next_ns)
    }

    /// Waits, unless it is to look or to stop before; true if it is time to stop.
    fn wait_until(&self, until_ns: u64) -> bool {
        loop {
            if self.own.is_stopped() {
                return true;
            }
            let asked = self.own.is_asked() | self.others.iter().any(|other| other.is_asked());
            let changed = !self.arrivals.is_empty() || self.others.iter().any(|o| o.is_stopped());
            let now_ns = self.clock.now_ns();
            if now_ns >= until_ns || asked || changed {
                return false;
            }
            self.own.wait(until_ns - now_ns);
        }
    }
}

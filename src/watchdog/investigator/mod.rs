//! The thread that finds out what stuck threads do, and where; one for the process.
//!
//! It may wait: to read another thread's stack takes the lock of the memory map, to look
//! which libraries are loaded takes the loader's, and all of it allocates. A stuck thread
//! can hold any of these. Then its answers come late, and events are delivered without
//! them. One for all watchdogs, because unwind tables are large and a request for a
//! running thread's stack is the process's.

mod ahead;
mod case;
mod holding;
mod lacks;
mod lock_waits;
mod moment;
mod one_poll;
mod open;
mod places;
mod profile;
mod sampling;
mod takeover;
mod tally;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossbeam_queue::SegQueue;

use crate::clock::Calibrated;
use crate::error::Error;
use crate::isolate::isolated;
use crate::os::{self, AutoResetEvent, Capturer, SignalUse, Wanted};
use crate::registry::lock;
use crate::stall::StallId;
use crate::threads;
use crate::watchdog::investigator::lock_waits::LockWaits;
use crate::watchdog::investigator::profile::Profile;
use crate::watchdog::shared::Shared;

pub(crate) use case::{Case, CaseSettings};

const THREAD_NAME: &str = "stallscope-look";
/// How many locks are looked for on one stack.
const MOST_LOCKS: usize = 16;

/// The service that the process's watchdogs use now.
static CURRENT: Mutex<Option<Arc<Service>>> = Mutex::new(None);

/// What the thread and the watchdogs share.
#[derive(Debug)]
struct Service {
    process: u32,
    /// Watchdogs that use it; at 0 it ends, and another takes its place.
    users: AtomicUsize,
    /// Set when there is something to do.
    changed: AutoResetEvent,
    arrivals: SegQueue<Box<Case>>,
}

/// A handle on the thread.
#[derive(Clone, Debug)]
pub(crate) struct Investigator(Arc<Service>);

/// Keeps the thread alive.
#[derive(Debug)]
pub(crate) struct InvestigatorUse(Investigator);

impl Drop for InvestigatorUse {
    fn drop(&mut self) {
        // Release: what this watchdog has sent is seen before the thread ends.
        self.0.0.users.fetch_sub(1, AcqRel);
        self.0.wake();
    }
}

impl InvestigatorUse {
    pub(crate) fn handle(&self) -> Investigator {
        self.0.clone()
    }
}

impl Investigator {
    /// Starts the thread with the first watchdog.
    pub(crate) fn acquire(clock: &'static Calibrated) -> Result<InvestigatorUse, Error> {
        let mut current = lock(&CURRENT);
        let one_more = |users| (users > 0).then_some(users + 1);
        if let Some(service) = &*current
            // A forked child has no such thread.
            && service.process == os::process_id()
            && service.users.fetch_update(AcqRel, Acquire, one_more).is_ok()
        {
            return Ok(InvestigatorUse(Investigator(Arc::clone(service))));
        }
        let service = Arc::new(Service {
            process: os::process_id(),
            users: AtomicUsize::new(1),
            changed: AutoResetEvent::new(),
            arrivals: SegQueue::new(),
        });
        let of_thread = Arc::clone(&service);
        threads::start(THREAD_NAME, false, move || of_thread.run(clock))?;
        *current = Some(Arc::clone(&service));
        Ok(InvestigatorUse(Investigator(service)))
    }

    /// Takes care of one more watchdog.
    pub(crate) fn add(&self, case: Case) {
        self.0.arrivals.push(Box::new(case));
        self.wake();
    }

    /// There is something to do; neither waits nor allocates.
    pub(crate) fn wake(&self) {
        self.0.changed.set();
    }
}

/// Has reports know what is known of a stall by now.
fn show(shared: &Shared, id: StallId, profile: &Profile) {
    let seen = profile.whereabouts();
    shared.ledger().see(id, profile.by_times, &seen);
}

/// Takes stacks; one for each signal that watchdogs want running threads asked with.
#[derive(Debug, Default)]
struct Capturers {
    by_signal: Vec<(SignalUse, Capturer)>,
    /// What the threads of all stalls wait for.
    waits: LockWaits,
}

impl Capturers {
    fn of(&mut self, signals: SignalUse) -> &mut Capturer {
        let mut all = self.by_signal.iter();
        let known = all.position(|(known, _)| *known == signals);
        let at = known.unwrap_or_else(|| {
            self.by_signal.push((signals, Capturer::new(signals)));
            self.by_signal.len() - 1
        });
        &mut self.by_signal[at].1
    }

    /// One that looks for the locks that others than this stall wait for.
    fn looking_for_locks(&mut self, signals: SignalUse, stall: u64) -> &mut Capturer {
        let locks: Vec<Wanted> = self.waits.locks_but(stall).take(MOST_LOCKS).collect();
        let capturer = self.of(signals);
        capturer.look_for(locks);
        capturer
    }
}

impl Service {
    fn run(&self, clock: &'static Calibrated) {
        let mut cases: Vec<Box<Case>> = Vec::new();
        let mut capturers = Capturers::default();
        loop {
            // Before the arrivals: who is the last to leave has sent all by then.
            let users = self.users.load(Acquire);
            while let Some(mut case) = self.arrivals.pop() {
                isolated(|| case.prepare(&mut capturers));
                cases.push(case);
            }
            let mut next_ns: Option<u64> = None;
            for case in &mut cases {
                // Unwinding goes by tables of others, which can be broken.
                let due_ns = isolated(|| case.work(&mut capturers)).flatten();
                next_ns = [next_ns, due_ns].into_iter().flatten().min();
            }
            cases.retain(|case| !case.is_closed());
            if users == 0 {
                return;
            }
            let left = next_ns.map(|next_ns| next_ns.saturating_sub(clock.now_ns()));
            self.changed.wait(left.map(Duration::from_nanos));
        }
    }
}

//! Says of a stall that waits for a lock who holds it.

use std::sync::{Arc, Mutex};

use crate::detector::Unit;
use crate::explain::{Job, Sent};
use crate::holder::Holder;
use crate::os::{self, Captured, Miss, ModuleFile};
use crate::owner::Ownership;
use crate::registry::lock;
use crate::stall::{Frame, StallId};
use crate::trim;
use crate::watchdog::investigator::case::Case;
use crate::watchdog::investigator::lock_waits::{Captive, Seen};
use crate::watchdog::investigator::open::Open;
use crate::watchdog::investigator::profile::{AlreadyTold, Profile};
use crate::watchdog::investigator::{Capturers, show};
use crate::watchdog::shared::Shared;
use crate::watchdog::stalled_thread::StalledThread;

impl Case {
    /// Takes note of what a captured thread waits for, and of what it holds.
    pub(super) fn see_holding(
        &self,
        open: &mut Open,
        thread: &StalledThread,
        captured: &Captured,
        at_ns: u64,
        capturers: &mut Capturers,
    ) {
        // Who is late will be asked again.
        if captured.stack.as_ref().err() != Some(&Miss::Late) {
            open.looked_for_locks_ns = at_ns.saturating_add(1);
        }
        let (Ok(addresses), Some(tid)) = (&captured.stack, thread.tid()) else {
            return;
        };
        open.last_held = (addresses.clone(), captured.holds.clone());
        if let Some(on) = &captured.waits_for {
            let now_ns = self.settings.clock.now_ns();
            capturers.waits.begin(open.told.id, tid, on.clone(), now_ns);
        }
        see(open, tid, at_ns, capturers);
    }

    /// The thread is in the same sleep as before: it holds what it held, and if it waits for
    /// a lock, who was seen holding that can be told.
    pub(super) fn look_for_holder(
        &self,
        open: &Open,
        thread: &StalledThread,
        now_ns: u64,
        capturers: &mut Capturers,
    ) {
        let Some(tid) = thread.tid() else { return };
        if !open.last_held.1.is_empty() {
            see(open, tid, now_ns, capturers);
        }
        for seen in capturers.waits.still_waits(open.told.id, now_ns) {
            self.tell_holder(open, seen, capturers);
        }
    }

    fn tell_holder(&self, open: &Open, seen: Seen, capturers: &mut Capturers) {
        let Some(signals) = self.settings.signals else {
            return;
        };
        let AlreadyTold::Of(number) = lock(&open.profile).see_holder(&seen) else {
            return;
        };
        let modules: Arc<[ModuleFile]> = capturers.of(signals).modules().into();
        let answer = Answer {
            id: StallId(open.told.id),
            number,
            name: os::thread_name(seen.tid),
            at: place_of(&seen, &modules),
            ownership: Arc::clone(&self.settings.ownership),
            profile: Arc::clone(&open.profile),
            shared: Arc::clone(&self.settings.shared),
            seen: seen.clone(),
        };
        let later = answer.clone();
        let sent = self.settings.explainer.send(Job {
            addresses: seen.addresses,
            modules,
            reply: Box::new(move |frames| later.give(frames.unwrap_or_default())),
        });
        match sent {
            Sent::AtHand(frames) => answer.give(frames),
            Sent::Queued => {}
            Sent::Rejected => answer.give(Vec::new()),
        }
    }
}

fn see(open: &Open, tid: i32, at_ns: u64, capturers: &mut Capturers) {
    let (addresses, holds) = &open.last_held;
    capturers.waits.see(&Captive {
        at_ns,
        stall: open.told.id,
        tid,
        worker: match open.told.unit {
            Unit::Worker(worker) => Some(worker),
            Unit::Thread(_) => None,
        },
        addresses,
        holds,
    });
}

/// The address of the function with the guard, as frames have it.
fn place_of(seen: &Seen, modules: &[ModuleFile]) -> u64 {
    let address = seen.addresses.get(seen.frame).copied().unwrap_or(0);
    let address = address.saturating_sub(u64::from(seen.frame > 0));
    let module = modules
        .iter()
        .find(|module| module.range.contains(&address));
    module.map_or(address, |module| address.wrapping_sub(module.bias))
}

/// What is done with the holder's stack once it is symbolized.
#[derive(Clone)]
struct Answer {
    id: StallId,
    /// Of the stack where it waits.
    number: u32,
    seen: Seen,
    name: Option<String>,
    at: u64,
    ownership: Arc<Ownership>,
    profile: Arc<Mutex<Profile>>,
    shared: Arc<Shared>,
}

impl Answer {
    fn give(&self, frames: Vec<Frame>) {
        let stack = trim::stack_of(frames, &self.ownership);
        let is_it = |frame: &Frame| frame.address == self.at;
        let guard = stack.frames.iter().position(is_it);
        let inlined = guard.map_or(0, |guard| {
            let further_out = stack.frames.iter().skip(guard);
            guard + further_out.take_while(|frame| is_it(frame)).count()
        });
        let inner = stack.frames.get(..inlined).unwrap_or_default();
        // A wait on a condition lets the lock go, and nothing but its name says so.
        if !stack.has_names() || trim::waits_for_condition(inner) {
            return;
        }
        let users = guard.and_then(|guard| {
            let mut outwards = guard..stack.frames.len();
            outwards.find(|at| stack.is_users(*at))
        });
        let holder = Holder {
            worker: self.seen.worker,
            thread: self.name.clone(),
            stall: Some(StallId(self.seen.stall)),
            place: users.and_then(|at| stack.frames.get(at)).cloned(),
            seen_ns: 0,
        };
        let mut profile = lock(&self.profile);
        profile.hold(self.number, &self.seen, holder);
        show(&self.shared, self.id, &profile);
    }
}

//! Whether another thread runs the worker whose own is in `block_in_place`.
//!
//! That hands the worker over to a thread of the blocking pool. Where none is free, the worker
//! stands still, and the line that called `block_in_place` is to blame. Where another thread
//! runs it, and is stuck in turn, the line is innocent: tokio publishes nothing of who runs a
//! worker until that has parked. So all threads of the same name are looked at. If each sleeps
//! elsewhere than in the loop of a worker, nobody has taken over.

use std::sync::Arc;

use crate::os::{self, Capturer, Doing, Importance, OwnStack, Subject, ThreadProbe};
use crate::registry::{lock, registry};
use crate::stall::{Frame, StallId};
use crate::trim;
use crate::watchdog::investigator::case::Case;
use crate::watchdog::investigator::open::Open;
use crate::watchdog::investigator::{Capturers, show};
use crate::watchdog::stalled_thread::StalledThread;

/// Of more threads it is not known: each takes some 50 us.
const MOST_THREADS: usize = 128;

impl Case {
    /// Finds out whether another thread has taken over; the answer is in the profile, once
    /// it is known.
    pub(super) fn look_for_takeover(
        &self,
        open: &Open,
        thread: &StalledThread,
        capturers: &mut Capturers,
    ) {
        let (Some(signals), Some(tid)) = (self.settings.signals, thread.tid()) else {
            return;
        };
        let runtime = &self.settings.runtime;
        let workers = (0..runtime.workers()).filter_map(|worker| {
            let number = runtime.thread_of(worker)?;
            registry().thread(number)?.tid()
        });
        let known: Vec<i32> = workers.chain([tid]).collect();
        let capturer = capturers.of(signals);
        let Some(addresses) = stacks_of_others(capturer, tid, &known) else {
            return;
        };
        let (profile, shared) = (Arc::clone(&open.profile), Arc::clone(&self.settings.shared));
        let id = StallId(open.told.id);
        let answer = move |frames: &[Frame]| {
            if trim::runs_a_worker(frames) {
                return;
            }
            let mut profile = lock(&profile);
            profile.nobody_took_over();
            show(&shared, id, &profile);
        };
        if addresses.is_empty() {
            return answer(&[]);
        }
        let modules = capturer.modules().into();
        self.settings.explainer.explain(addresses, modules, answer);
    }
}

/// Who runs the worker of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Takeover {
    /// Its own thread, as far as is known.
    #[default]
    Unasked,
    /// Its own thread was seen in `block_in_place`.
    Asked,
    /// It is being found out, or cannot be.
    Unknown,
    /// Nobody has taken over.
    None,
}

/// What threads of the same name have on their stacks, each address once; `None` where one
/// of them runs, or cannot be looked at.
fn stacks_of_others(capturer: &mut Capturer, tid: i32, known: &[i32]) -> Option<Vec<u64>> {
    let name = os::thread_name(tid)?;
    let stack = OwnStack::new();
    let mut all: Vec<u64> = Vec::new();
    let others = os::thread_ids()?;
    let others = others.into_iter().filter(|other| {
        !known.contains(other) && os::thread_name(*other).as_deref() == Some(&name)
    });
    for (number, other) in others.enumerate() {
        if number >= MOST_THREADS {
            return None;
        }
        let probe = ThreadProbe::open(other, Importance::Other).ok()?;
        if probe.doing(1)? == Doing::Running {
            return None;
        }
        let subject = Subject {
            id: 0,
            anchor: None,
            still: &|| true,
        };
        let captured = capturer.capture(&probe, &stack, &subject).ok()?;
        for address in captured.stack.ok()? {
            if !all.contains(&address) {
                all.push(address);
            }
        }
    }
    Some(all)
}

//! Every spawned task's polls, as tokio's poll hooks tell of them.
//!
//! tokio calls the second hook after each poll that it has called the first one
//! before, also one that has panicked (1.54, `multi_thread/worker.rs`,
//! `run_task`: the task's own harness has caught the panic by then).
//!
//! A watched future within the task publishes itself within the task's poll. It
//! counts that poll under its own name, and the task does not count it again.

use std::panic::Location;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use tokio::runtime::TaskMeta;

use crate::clock;
use crate::local;
use crate::registry::{RuntimeId, TIMED, Tag, Thread, Timing, registry, runtime_in};
use crate::slot::{Stamp, Wanted};

/// What tasks are called; they are told apart by where they are spawned.
const NAME: &str = "task";

/// The runtime whose hooks these are; [`RuntimeId::NEVER`] before its first poll.
///
/// tokio does not tell a hook, and to ask costs more than all else here. It is
/// needed because a thread can go from one current-thread runtime to another.
#[derive(Debug)]
pub(crate) struct Home(AtomicU32);

impl Home {
    pub(crate) const fn new() -> Self {
        Home(AtomicU32::new(RuntimeId::NEVER.0))
    }

    fn get(&self) -> RuntimeId {
        RuntimeId(self.0.load(Relaxed))
    }

    /// Learns where this thread is. A builder can build several runtimes with the
    /// same hooks, which then learn it time and again.
    #[cold]
    fn learn(&self, thread: &Thread) {
        let place = local::place_here();
        registry().claim(thread, place);
        thread.set_may_hand_over(local::may_hand_over(place));
        self.0.store(place.runtime.0, Relaxed);
    }
}

/// A task begins to be polled on this thread.
pub(crate) fn begin(meta: &TaskMeta<'_>, home: &Home) {
    let Some(thread) = local::this_thread() else {
        return;
    };
    if runtime_in(thread.place()) != home.get() {
        home.learn(thread);
    }
    let task = local::number_in(&meta.id());
    let location = meta.spawned_at();
    let key = thread.key();
    let begun = key & TIMED != 0
        && thread.label_at(location).is_some_and(|label| {
            let tag = Tag::pack(label.pack(), key);
            let start = clock::counter_ticks();
            thread.slot.begin_paced(start, tag, task, 0)
        });
    if !begun {
        begin_full(thread, location, task);
    }
}

#[inline(never)]
fn begin_full(thread: &'static Thread, location: &'static Location<'static>, task: u64) {
    let label = thread.label_at(location).unwrap_or_else(|| {
        let label = registry().label(NAME, location);
        thread.remember_label(location, label);
        label
    });
    let tag = Tag::pack(label.pack(), thread.place());
    let due = thread.is_due(registry().timing());
    if !due && thread.slot.begin_plain(tag, task, 0) {
        return;
    }
    thread.slot.begin(Stamp {
        start: if due { clock::ticks() } else { 0 },
        tag,
        task,
        span: 0,
        anchor: 0,
    });
}

/// The poll of a task on this thread is over.
pub(crate) fn end() {
    let Some(thread) = local::this_thread() else {
        return;
    };
    // Not where the first hook has not been called for this poll.
    if !thread.slot.is_in_task() {
        return;
    }
    if let Some(wanted) = thread.slot.wanted() {
        close(thread, wanted);
    }
    thread.slot.end();
}

fn close(thread: &'static Thread, wanted: Wanted) {
    let label = || Tag::unpack(thread.slot.tag()).label;
    if thread.record_paced(wanted, label, |ns| thread.record_first(label(), ns)) {
        return;
    }
    let (start, end) = (thread.slot.start(), clock::ticks());
    if start != 0 && thread.slot.is_latest() {
        let Timing(one_in) = registry().timing();
        thread.record(label(), start, end, one_in);
    }
    thread.slot.close(end);
}

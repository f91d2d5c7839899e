//! What a thread does during one audited poll, by its own account.
//!
//! All of it belongs to the thread: within the measured stretch nothing takes a
//! lock that another thread could hold, or the audit would find itself.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use crate::audit::session::{AllowedSection, Call, Noted, Session, Sighting, TaskName};
use crate::clock;
use crate::local;
use crate::os::{self, Usage};
use crate::registry::Thread;
use crate::slot::Seq;
use crate::worker::{self, Asked};

/// Of more calls of one poll the longest are kept.
pub(super) const MAX_CALLS: usize = 256;

thread_local! {
    pub(super) static HERE: Here = const { Here::new() };
}

pub(super) struct Here {
    /// How many audited polls are in progress, one within the other.
    pub(super) depth: Cell<u32>,
    pub(super) session: RefCell<Option<Arc<Session>>>,
    calls: RefCell<Vec<Call>>,
    pub(super) allow: RefCell<Allow>,
    /// How many tasks of this poll are audited.
    spawned: Cell<usize>,
    /// How many sections in which blocking is allowed are open outside of audited polls.
    pub(super) apart: Cell<u32>,
}

/// What a thread says of its audited poll while that may block: nobody looks at it.
pub(super) const ALLOWED: u64 = u64::MAX;

/// Sections in which blocking is allowed.
pub(super) struct Allow {
    open: u32,
    /// Rises when an audited poll ends, which ends all its sections.
    pub(super) epoch: u64,
    since: Usage,
    since_at: Option<Instant>,
    total: Spent,
    pub(super) sections: Vec<AllowedSection>,
}

/// What a stretch of time was spent on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Spent {
    pub(crate) wall_ns: u64,
    pub(crate) usage: Usage,
}

impl Spent {
    const fn since(self, before: Spent) -> Spent {
        Spent {
            wall_ns: self.wall_ns.saturating_sub(before.wall_ns),
            usage: self.usage.since(&before.usage),
        }
    }

    const fn plus(self, more: Spent) -> Spent {
        Spent {
            wall_ns: self.wall_ns.saturating_add(more.wall_ns),
            usage: self.usage.plus(&more.usage),
        }
    }
}

impl Here {
    const fn new() -> Self {
        Here {
            depth: Cell::new(0),
            session: RefCell::new(None),
            calls: RefCell::new(Vec::new()),
            allow: RefCell::new(Allow {
                open: 0,
                epoch: 0,
                since: NO_USAGE,
                since_at: None,
                total: Spent {
                    wall_ns: 0,
                    usage: NO_USAGE,
                },
                sections: Vec::new(),
            }),
            spawned: Cell::new(0),
            apart: Cell::new(0),
        }
    }
}

const NO_USAGE: Usage = Usage {
    sleeps: 0,
    major_faults: 0,
    cpu_ns: 0,
    others_ns: 0,
    wait_ns: 0,
};

impl Allow {
    /// What was allowed so far, as of this moment.
    fn so_far(&self, now: Instant, usage: &Usage) -> Spent {
        match self.since_at {
            Some(since_at) if self.open > 0 => self.total.plus(Spent {
                wall_ns: ns_between(since_at, now),
                usage: usage.since(&self.since),
            }),
            _ => self.total,
        }
    }

    pub(super) fn open(&mut self, now: Instant, usage: &Usage) {
        if self.open == 0 {
            self.since = *usage;
            self.since_at = Some(now);
            // Not to be looked at meanwhile.
            show(ALLOWED);
        }
        self.open += 1;
    }

    /// Whether that was the last that was open.
    pub(super) fn shut(&mut self, now: Instant, usage: &Usage) -> bool {
        let is_last = self.open == 1;
        if is_last {
            self.close(now, usage);
        } else {
            self.open = self.open.saturating_sub(1);
        }
        is_last
    }

    fn close(&mut self, now: Instant, usage: &Usage) {
        self.total = self.so_far(now, usage);
        self.open = 0;
        self.since_at = None;
    }
}

/// Lets the spotter know which audit this thread polls for.
pub(super) fn show(audit: u64) {
    if let Some(thread) = local::this_thread() {
        let (_, seq) = thread.audited();
        thread.set_audited((audit, seq));
    }
}

pub(super) fn ns_between(from: Instant, to: Instant) -> u64 {
    clock::ns_of(to.saturating_duration_since(from))
}

/// The audit that the calling thread is polling for, to be inherited by what is spawned.
pub(crate) fn current() -> Option<Arc<Session>> {
    HERE.try_with(|here| here.session.borrow().clone())
        .ok()
        .flatten()
}

/// Whether a call that the calling thread is about to make would be blocking:
/// it is within an audited poll, and nothing allows it.
#[cfg_attr(not(feature = "interpose"), allow(dead_code))]
pub(crate) fn calls_count() -> bool {
    HERE.try_with(|here| {
        here.depth.get() > 0 && here.allow.try_borrow().is_ok_and(|allow| allow.open == 0)
    })
    .unwrap_or(false)
}

/// Whether a call of a poll that is not audited by itself would be blocking.
#[cfg_attr(not(feature = "interpose"), allow(dead_code))]
pub(super) fn counts_apart() -> bool {
    HERE.try_with(|here| here.depth.get() == 0 && here.apart.get() == 0)
        .unwrap_or(false)
}

/// Notes a call that blocks.
#[cfg_attr(not(feature = "interpose"), allow(dead_code))]
pub(crate) fn note_call(call: Call) {
    let _ = HERE.try_with(|here| {
        let Ok(mut calls) = here.calls.try_borrow_mut() else {
            return;
        };
        if calls.len() < MAX_CALLS {
            calls.push(call);
        } else if let Some(shortest) = calls.iter_mut().min_by_key(|call| call.wall_ns)
            && shortest.wall_ns < call.wall_ns
        {
            // Which are many and short are alike; a long one may be the stall.
            *shortest = call;
        }
    });
}

/// Which turn of which worker the calling thread is in; see `Runtime::look`.
fn turn() -> Option<(usize, u64, u128)> {
    let worker = worker::index(Asked::Anywhere)?;
    let metrics = Handle::try_current().ok()?.metrics();
    (worker < metrics.num_workers()).then(|| {
        (
            worker,
            metrics.worker_park_unpark_count(worker),
            metrics.worker_total_busy_duration(worker).as_nanos(),
        )
    })
}

/// How many tasks there are in the calling thread's runtime.
fn alive_tasks() -> usize {
    Handle::try_current().map_or(0, |handle| handle.metrics().num_alive_tasks())
}

/// Counts a task that is spawned from within an audited poll, and audited.
pub(super) fn spawns_audited() {
    let _ = HERE.try_with(|here| here.spawned.set(here.spawned.get() + 1));
}

/// One poll being measured; its drop ends that, whichever way the poll is left.
pub(crate) struct Measuring<'a> {
    session: &'a Arc<Session>,
    name: &'a Arc<TaskName>,
    thread: &'static Thread,
    seq: Seq,
    outer: (u64, Seq),
    outer_session: Option<Arc<Session>>,
    turn: Option<(usize, u64, u128)>,
    tasks_before: usize,
    spawned_before: usize,
    calls_before: usize,
    allowed_before: Spent,
    before: Option<Usage>,
    start: Instant,
}

impl<'a> Measuring<'a> {
    /// `seq`: of the poll that has just begun in the slot of `thread`, the calling one.
    pub(crate) fn begin(
        session: &'a Arc<Session>,
        name: &'a Arc<TaskName>,
        thread: &'static Thread,
        seq: Seq,
    ) -> Self {
        let turn = turn();
        let outer = thread.audited();
        let tasks_before = alive_tasks();
        let spawned_before = HERE.try_with(|here| here.spawned.replace(0)).unwrap_or(0);
        let entered = HERE.try_with(|here| {
            here.depth.set(here.depth.get() + 1);
            here.session.replace(Some(Arc::clone(session)))
        });
        let calls_before = HERE.try_with(|here| here.calls.borrow().len()).unwrap_or(0);
        thread.set_audited((session.id(), seq));
        let (before, start) = os::usage();
        let mut measuring = Measuring {
            session,
            name,
            thread,
            seq,
            outer,
            outer_session: entered.ok().flatten(),
            turn,
            tasks_before,
            spawned_before,
            calls_before,
            allowed_before: Spent::default(),
            before,
            start,
        };
        measuring.allowed_before = measuring.allowed(start, before);
        measuring
    }

    fn allowed(&self, now: Instant, usage: Option<Usage>) -> Spent {
        let usage = usage.unwrap_or_default();
        HERE.try_with(|here| here.allow.borrow().so_far(now, &usage))
            .unwrap_or_default()
    }
}

impl Drop for Measuring<'_> {
    fn drop(&mut self) {
        let (after, end) = os::usage();
        self.thread.set_audited(self.outer);
        let spent = Spent {
            wall_ns: ns_between(self.start, end),
            usage: after
                .zip(self.before)
                .map_or(NO_USAGE, |(after, before)| after.since(&before)),
        };
        let allowed = self.allowed(end, after).since(self.allowed_before);
        let handed_over = turn() != self.turn;
        let audited = HERE.try_with(|here| {
            let mine = here.spawned.get();
            here.spawned.set(mine + self.spawned_before);
            mine
        });
        let audited = audited.unwrap_or(0);
        let spawned = alive_tasks().saturating_sub(self.tasks_before);
        self.session
            .count_unaudited(spawned.saturating_sub(audited) as u64);
        let outer_session = self.outer_session.take();
        let left = HERE.try_with(|here| {
            let depth = here.depth.get() - 1;
            here.depth.set(depth);
            here.session.replace(outer_session.clone());
            let mut calls = here.calls.borrow_mut();
            let mine = calls.get(self.calls_before..).unwrap_or(&[]).to_vec();
            let mut allow = here.allow.borrow_mut();
            let sections = if depth == 0 {
                calls.clear();
                allow.close(end, &after.unwrap_or_default());
                allow.epoch += 1;
                std::mem::take(&mut allow.sections)
            } else {
                Vec::new()
            };
            (mine, sections)
        });
        let (calls, sections) = left.unwrap_or_default();
        // What was seen of this poll happened in the outer one, too.
        let (outer_id, outer_seq) = self.outer;
        if let Some(outer) = outer_session
            .as_ref()
            .filter(|outer| outer.id() == outer_id)
        {
            let thread = std::ptr::from_ref(self.thread).addr();
            for sighting in self.session.sightings_of(thread, self.seq) {
                outer.see(Sighting {
                    seq: outer_seq,
                    ..sighting
                });
            }
        }
        let noted = Noted {
            thread: std::ptr::from_ref(self.thread).addr(),
            seq: self.seq,
            name: Arc::clone(self.name),
            worker: self.turn.map(|(worker, ..)| worker),
            start_ns: clock::calibrate()
                .now_ns()
                .saturating_sub(ns_between(self.start, Instant::now())),
            spent: spent.since(allowed),
            measured: after.is_some() && self.before.is_some(),
            handed_over,
            panicked: std::thread::panicking(),
            calls,
        };
        self.session.note(noted, sections);
    }
}

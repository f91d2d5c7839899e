//! What a thread does during one audited poll, by its own account.
//!
//! All of it belongs to the thread: within the measured stretch nothing takes a
//! lock that another thread could hold, or the audit would find itself.

use std::cell::{Cell, RefCell};
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::Arc;
use std::time::Instant;

use tokio::runtime::Handle;

use crate::audit::session::{AllowedSection, Call, Noted, Session, TaskName};
use crate::clock;
use crate::local;
use crate::os::{self, Usage};
use crate::registry::Thread;
use crate::slot::Seq;

/// Of more calls of one poll the longest are kept.
const MAX_CALLS: usize = 256;

thread_local! {
    static HERE: Here = const { Here::new() };
}

struct Here {
    /// How many audited polls are in progress, one within the other.
    depth: Cell<u32>,
    session: RefCell<Option<Arc<Session>>>,
    calls: RefCell<Vec<Call>>,
    allow: RefCell<Allow>,
}

/// Sections in which blocking is allowed.
struct Allow {
    open: u32,
    /// Rises when an audited poll ends, which ends all its sections.
    epoch: u64,
    since: Usage,
    since_at: Option<Instant>,
    total: Spent,
    sections: Vec<AllowedSection>,
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

    fn close(&mut self, now: Instant, usage: &Usage) {
        self.total = self.so_far(now, usage);
        self.open = 0;
        self.since_at = None;
    }
}

fn ns_between(from: Instant, to: Instant) -> u64 {
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
    let worker = tokio::runtime::worker_index()?;
    let metrics = Handle::try_current().ok()?.metrics();
    (worker < metrics.num_workers()).then(|| {
        (
            worker,
            metrics.worker_park_unpark_count(worker),
            metrics.worker_total_busy_duration(worker).as_nanos(),
        )
    })
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
        let outer_session = self.outer_session.take();
        let left = HERE.try_with(|here| {
            let depth = here.depth.get() - 1;
            here.depth.set(depth);
            here.session.replace(outer_session);
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

/// Allows what blocks, from [`allow_blocking`] on until it is dropped.
///
/// Not `Send`, and no longer in force once the poll that it was made in is over:
/// what other tasks do meanwhile is not allowed by it.
#[derive(Debug)]
#[must_use = "blocking is allowed until this is dropped"]
pub struct AllowBlocking {
    reason: &'static str,
    location: &'static Location<'static>,
    /// `None` outside of an audited poll.
    open: Option<OpenSection>,
    _not_send: PhantomData<*const ()>,
}

#[derive(Debug)]
struct OpenSection {
    epoch: u64,
    usage: Usage,
    at: Instant,
}

impl AllowBlocking {
    /// Allows what blocks on this thread until the result is dropped.
    ///
    /// For a closure, [`allow_blocking`] is simpler.
    #[track_caller]
    pub fn new(reason: &'static str) -> Self {
        let location = Location::caller();
        let open = HERE.try_with(|here| {
            (here.depth.get() > 0).then(|| {
                let mut allow = here.allow.borrow_mut();
                let (usage, at) = os::usage();
                let usage = usage.unwrap_or_default();
                if allow.open == 0 {
                    allow.since = usage;
                    allow.since_at = Some(at);
                    // Not to be looked at meanwhile.
                    show(0);
                }
                allow.open += 1;
                let epoch = allow.epoch;
                OpenSection { epoch, usage, at }
            })
        });
        AllowBlocking {
            reason,
            location,
            open: open.ok().flatten(),
            _not_send: PhantomData,
        }
    }
}

impl Drop for AllowBlocking {
    fn drop(&mut self) {
        let Some(open) = self.open.take() else { return };
        let _ = HERE.try_with(|here| {
            let mut allow = here.allow.borrow_mut();
            if allow.epoch != open.epoch {
                return;
            }
            let (usage, now) = os::usage();
            let usage = usage.unwrap_or_default();
            allow.open -= 1;
            if allow.open == 0 {
                allow.open = 1;
                allow.close(now, &usage);
                show(
                    here.session
                        .borrow()
                        .as_ref()
                        .map_or(0, |session| session.id()),
                );
            }
            if allow.sections.len() < MAX_CALLS {
                allow.sections.push(AllowedSection {
                    reason: self.reason,
                    location: self.location,
                    wall_ns: ns_between(open.at, now),
                    sleeps: usage.since(&open.usage).sleeps,
                });
            }
        });
    }
}

/// Tells the spotter which audit this thread polls for.
fn show(audit: u64) {
    if let Some(thread) = local::this_thread() {
        let (_, seq) = thread.audited();
        thread.set_audited((audit, seq));
    }
}

/// Calls `f`, in which blocking is allowed for a reason.
///
/// Within an audited future, what `f` does on this thread is neither a stall nor
/// blocking; it is listed in [`Report::allowed`](crate::Report::allowed) with the
/// reason, so that the list can shrink. Elsewhere it only calls `f`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let handler = async {
///     stallscope::allow_blocking("reads a file of 100 bytes at start-up", || {
///         std::thread::sleep(std::time::Duration::from_millis(1));
///     });
/// };
/// stallscope::assert_no_blocking!(handler, unsupported: skip);
/// # }
/// ```
#[track_caller]
pub fn allow_blocking<T>(reason: &'static str, f: impl FnOnce() -> T) -> T {
    let _allowed = AllowBlocking::new(reason);
    f()
}

//! Tracked futures: what each does between its polls, and who could wake it.
//!
//! A tracked future is polled with a waker of ours, which notes when it is used and
//! hands on to the task's own. How many of it are held by others is known from the
//! count of its references: where nobody holds one and none was used, nobody is
//! left who could wake the future by itself.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::clock::{self, Calibrated, Ticks};
use crate::live::{LiveTask, TaskState};
use crate::registry::{LabelId, RuntimeId, Thread, lock, registry};
use crate::stall::Task;

/// How many futures at once can be tracked; those beyond are watched only.
const MAX_TRACKED: usize = 1 << 16;

static TRACKED: Mutex<Tracked> = Mutex::new(Tracked {
    entries: Vec::new(),
    free: Vec::new(),
});

/// All tracked futures, each at a place that its own end finds at once.
#[derive(Debug)]
struct Tracked {
    entries: Vec<Option<Arc<Entry>>>,
    free: Vec<usize>,
}

/// What is known of one tracked future.
#[derive(Debug)]
struct Entry {
    label: LabelId,
    runtime: RuntimeId,
    task: u64,
    created: Ticks,
    polls: AtomicU64,
    busy_ns: AtomicU64,
    /// When the poll in progress began, or the last one ended.
    since: AtomicU64,
    polling: AtomicBool,
    /// When it was woken and has not been polled since; 0 if it was not.
    woken: AtomicU64,
    told: AtomicBool,
    /// That of its task, or of whatever polls it.
    waker: Mutex<Option<Waker>>,
}

/// References to an entry that are nobody's waker: the list's, the future's, and
/// the waker that it is polled with.
const OWN_REFERENCES: usize = 3;

impl Wake for Entry {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.woken.load(Relaxed) == 0 {
            self.woken.store(clock::ticks(), Relaxed);
        }
        // Not under the lock: what the task's waker does is not ours.
        let waker = lock(&self.waker).clone();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// What a tracked future holds; its drop ends the tracking.
#[derive(Debug)]
pub(crate) struct Tracking {
    entry: Arc<Entry>,
    waker: Waker,
    at: usize,
}

impl Tracking {
    /// `None` where too many are tracked already, or the clock is not ready.
    pub(crate) fn begin(label: LabelId, runtime: RuntimeId, task: u64) -> Option<Box<Self>> {
        let created = clock::ticks();
        if created == 0 {
            return None;
        }
        let entry = Arc::new(Entry {
            label,
            runtime,
            task,
            created,
            polls: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            since: AtomicU64::new(created),
            polling: AtomicBool::new(false),
            woken: AtomicU64::new(0),
            told: AtomicBool::new(false),
            waker: Mutex::new(None),
        });
        let mut tracked = lock(&TRACKED);
        let at = match tracked.free.pop() {
            Some(at) => at,
            None if tracked.entries.len() < MAX_TRACKED => {
                tracked.entries.push(None);
                tracked.entries.len() - 1
            }
            None => {
                drop(tracked);
                registry().refuse_tracking();
                return None;
            }
        };
        if let Some(place) = tracked.entries.get_mut(at) {
            *place = Some(Arc::clone(&entry));
        }
        drop(tracked);
        let waker = Waker::from(Arc::clone(&entry));
        Some(Box::new(Tracking { entry, waker, at }))
    }

    /// To poll the future with.
    pub(crate) const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// A poll begins, with this waker of the task.
    pub(crate) fn poll_begins(&self, now: Ticks, task: &Waker, thread: &Thread) {
        let mut waker = lock(&self.entry.waker);
        if !waker.as_ref().is_some_and(|known| known.will_wake(task)) {
            *waker = Some(task.clone());
        }
        drop(waker);
        let woken = self.entry.woken.swap(0, Relaxed);
        if woken != 0
            && let Some(ns) = clock::ns_from_to(woken, now)
        {
            thread.delay_recorder(self.entry.label).record(ns);
        }
        self.entry.told.store(false, Relaxed);
        self.entry.since.store(now, Relaxed);
        self.entry.polling.store(true, Release);
    }

    pub(crate) fn poll_ends(&self, now: Ticks) {
        let entry = &self.entry;
        let ns = clock::ns_from_to(entry.since.load(Relaxed), now).unwrap_or(0);
        // One writer, the poller: nobody polls a future twice at once.
        let add = |count: &AtomicU64, by| count.store(count.load(Relaxed) + by, Relaxed);
        add(&entry.polls, 1);
        add(&entry.busy_ns, ns);
        entry.since.store(now, Relaxed);
        entry.polling.store(false, Release);
    }
}

impl Drop for Tracking {
    fn drop(&mut self) {
        let mut tracked = lock(&TRACKED);
        let entry = tracked.entries.get_mut(self.at).and_then(Option::take);
        tracked.free.push(self.at);
        drop(tracked);
        // After the lock: with it may go the task's waker.
        drop(entry);
    }
}

/// Those of this runtime.
///
/// The lock is one that polls take, so nothing is allocated under it: where there are
/// more entries by then than there is room for, it is taken once more.
fn entries(runtime: RuntimeId) -> Vec<Arc<Entry>> {
    let mut found = Vec::new();
    loop {
        let tracked = lock(&TRACKED);
        let needed = tracked.entries.len();
        if needed <= found.capacity() {
            let entries = tracked.entries.iter().flatten();
            let ours = entries.filter(|entry| entry.runtime == runtime);
            found.extend(ours.map(Arc::clone));
            return found;
        }
        drop(tracked);
        // With some more, as futures may be made meanwhile.
        found.reserve(needed + needed / 4);
    }
}

/// The tracked futures of this runtime, the longest without a poll first.
pub(crate) fn tasks(clock: &Calibrated, runtime: RuntimeId) -> Vec<LiveTask> {
    let now_ns = clock.now_ns();
    let entries = entries(runtime);
    let mut tasks: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.look(clock, now_ns))
        .collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.since_ns));
    tasks
}

/// Those that have become stuck since they were last asked for.
pub(crate) fn newly_stuck(clock: &Calibrated, runtime: RuntimeId, after_ns: u64) -> Vec<LiveTask> {
    let now_ns = clock.now_ns();
    let mut stuck = Vec::new();
    for entry in entries(runtime) {
        if !entry.told.load(Relaxed)
            && let Some(task) = entry.look(clock, now_ns)
            && task.is_stuck_for(after_ns)
        {
            entry.told.store(true, Relaxed);
            stuck.push(task);
        }
    }
    stuck
}

/// Whether there is a tracked future of this runtime.
pub(crate) fn any(runtime: RuntimeId) -> bool {
    let tracked = lock(&TRACKED);
    let mut entries = tracked.entries.iter().flatten();
    entries.any(|entry| entry.runtime == runtime)
}

impl Entry {
    fn look(self: &Arc<Self>, clock: &Calibrated, now_ns: u64) -> Option<LiveTask> {
        // One reference is the caller's.
        let wakers = Arc::strong_count(self).saturating_sub(OWN_REFERENCES + 1);
        let polling = self.polling.load(Acquire);
        let woken = self.woken.load(Relaxed) != 0;
        let since_ns = |ticks| now_ns.saturating_sub(clock.ns_of(ticks));
        let mut busy_ns = self.busy_ns.load(Relaxed);
        let in_state_ns = since_ns(self.since.load(Relaxed));
        if polling {
            busy_ns += in_state_ns;
        }
        Some(LiveTask {
            task: Task::of(self.label, self.task)?,
            state: match (polling, woken, wakers) {
                (true, ..) => TaskState::Polling,
                (false, true, _) => TaskState::Woken,
                (false, false, 0) => TaskState::Unwakeable,
                (false, false, _) => TaskState::Waiting,
            },
            age_ns: since_ns(self.created),
            since_ns: in_state_ns,
            polls: self.polls.load(Relaxed),
            busy_ns,
        })
    }
}

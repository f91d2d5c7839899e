//! Tracked futures: what each does between its polls, and who could wake it.
//!
//! A tracked future is polled with a waker of ours, which notes when it is used and
//! hands on to the task's own. How many of it are held by others is known from the
//! count of its references: where nobody holds one and none was used, nobody is
//! left who could wake the future by itself.

use std::collections::HashSet;
use std::hint::black_box;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};
use std::task::{Wake, Waker};

use crate::clock::{self, Calibrated, Ticks};
use crate::live::{LiveTask, TaskState};
use crate::registry::{LabelId, RuntimeId, Thread, lock, note_tracking, registry, uses_tracking};
use crate::stall::Task;
use crate::stock::{Restock, Stock};

/// How many futures at once can be tracked; those beyond are watched only.
const MAX_TRACKED: usize = 1 << 16;

/// How many are ready for futures that were made when nobody wanted them tracked.
const READY: usize = 64;
static STOCK: Stock<Option<Box<Tracking>>, READY> =
    Stock::new(Tracking::blank, || if uses_tracking() { READY } else { 0 });

/// What the first poll of a tracked future needs.
pub(crate) fn stock() -> &'static dyn Restock {
    &STOCK
}

static TRACKED: Mutex<Tracked> = Mutex::new(Tracked {
    entries: Vec::new(),
    free: Vec::new(),
});

/// All tracked futures, each at a place that its own end finds at once.
///
/// Polls wait for its lock, so no one allocates, or drops an entry, while holding it.
#[derive(Debug)]
struct Tracked {
    entries: Vec<Option<Arc<Entry>>>,
    /// Has room for as many as there are entries.
    free: Vec<usize>,
}

impl Tracked {
    /// A place that is free, but for one that would need more memory.
    fn place(&mut self) -> Option<usize> {
        if let Some(at) = self.free.pop() {
            return Some(at);
        }
        let at = self.entries.len();
        let room = self.entries.capacity().min(self.free.capacity());
        (at < room.min(MAX_TRACKED)).then(|| {
            self.entries.push(None);
            at
        })
    }

    /// A place for a future that is to be tracked; `None` where there are too many.
    fn take_place() -> Option<usize> {
        loop {
            let mut tracked = lock(&TRACKED);
            if let Some(at) = tracked.place() {
                return Some(at);
            }
            let all = tracked.entries.len();
            drop(tracked);
            if all == MAX_TRACKED {
                return None;
            }
            Self::make_room((all * 2).clamp(READY, MAX_TRACKED));
        }
    }

    fn make_room(places: usize) {
        // Written once, so that no page of them is missing under the lock.
        let mut entries: Vec<_> = std::iter::repeat_with(|| black_box(None))
            .take(places)
            .collect();
        let mut free = vec![black_box(1); places];
        entries.clear();
        free.clear();
        let mut tracked = lock(&TRACKED);
        if tracked.entries.capacity() >= places {
            // Another was faster.
            return;
        }
        entries.append(&mut tracked.entries);
        free.append(&mut tracked.free);
        let before = (
            std::mem::replace(&mut tracked.entries, entries),
            std::mem::replace(&mut tracked.free, free),
        );
        drop(tracked);
        drop(before);
    }
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
    /// For a future that is to be tracked from its first poll on, as it is made: its
    /// polls then need no memory. `None` where too many are tracked already.
    pub(crate) fn made() -> Option<Box<Self>> {
        note_tracking();
        let made = Tracking::blank();
        if made.is_none() {
            registry().refuse_tracking();
        }
        made
    }

    fn blank() -> Option<Box<Self>> {
        let at = Tracked::take_place()?;
        Some(Box::new(Tracking {
            entry: Arc::new(Entry::blank()),
            waker: Waker::noop().clone(),
            at,
        }))
    }

    /// For a future that was made before it was to be tracked: from the stock. Allocates
    /// where that has none, as nothing else would be seen of a future that is polled once.
    pub(crate) fn at_first_poll() -> Option<Box<Self>> {
        STOCK.take().flatten().or_else(Tracking::made)
    }

    /// Begins to track a future; `None` where the clock is not ready.
    pub(crate) fn begin(
        mut self: Box<Self>,
        label: LabelId,
        runtime: RuntimeId,
        task: u64,
    ) -> Option<Box<Self>> {
        let created = clock::ticks();
        // Nobody else has it yet.
        let entry = Arc::get_mut(&mut self.entry).filter(|_| created != 0)?;
        entry.label = label;
        entry.runtime = runtime;
        entry.task = task;
        entry.created = created;
        entry.since = AtomicU64::new(created);
        self.waker = Waker::from(Arc::clone(&self.entry));
        let mut tracked = lock(&TRACKED);
        if let Some(place) = tracked.entries.get_mut(self.at) {
            *place = Some(Arc::clone(&self.entry));
        }
        drop(tracked);
        Some(self)
    }

    /// To poll the future with.
    pub(crate) const fn waker(&self) -> &Waker {
        &self.waker
    }

    /// A poll begins, with this waker of the task.
    pub(crate) fn poll_begins(&self, now: Ticks, task: &Waker, thread: &Thread) {
        let mut waker = lock(&self.entry.waker);
        let former = match &*waker {
            Some(known) if known.will_wake(task) => None,
            _ => waker.replace(task.clone()),
        };
        drop(waker);
        // Not under the lock: a waker's drop can run code that wakes this very future.
        drop(former);
        let woken = self.entry.woken.swap(0, Relaxed);
        if woken != 0
            && let Some(ns) = clock::ns_from_to(woken, now)
        {
            thread.record_delay(self.entry.label, ns);
        }
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
        // Here and after the locks: a waker's drop can run any code, and whoever else holds
        // the entry then may hold a lock of ours.
        let waker = lock(&self.entry.waker).take();
        drop(waker);
        drop(entry);
    }
}

/// Held by whoever holds references to entries only to look at them: an entry's references
/// are counted to see whether anything could wake its future.
static LOOKING: Mutex<()> = Mutex::new(());

/// How many are looked at before polls that wait for the lock get it.
const PIECE: usize = 256;

/// Those of a runtime. Each is seen at a moment of its own.
fn entries(runtime: RuntimeId) -> Vec<Arc<Entry>> {
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        // Not under the lock: a thread that is stuck may hold what the allocator needs.
        all.reserve(PIECE);
        let tracked = lock(&TRACKED);
        let Some(rest) = tracked.entries.get(from..).filter(|rest| !rest.is_empty()) else {
            return all;
        };
        let piece = rest.iter().take(PIECE).flatten();
        all.extend(
            piece
                .filter(|entry| entry.runtime == runtime)
                .map(Arc::clone),
        );
        from += PIECE;
    }
}

/// The tracked futures of this runtime, the longest without a poll first.
pub(crate) fn tasks(clock: &Calibrated, runtime: RuntimeId) -> Vec<LiveTask> {
    let _alone = lock(&LOOKING);
    let now_ns = clock.now_ns();
    let entries = entries(runtime);
    let mut tasks: Vec<_> = entries
        .iter()
        .filter_map(|entry| entry.look(clock, now_ns))
        .collect();
    tasks.sort_by_key(|task| std::cmp::Reverse(task.since_ns));
    tasks
}

/// The tracked futures that one watchdog has called stuck.
#[derive(Debug, Default)]
pub(crate) struct KnownStuck(HashSet<Stuck>);

/// By the entry's address, and by when it was last polled: both only as long as the
/// future is stuck.
type Stuck = (usize, Ticks);

impl KnownStuck {
    /// Those that have become stuck since this was last asked.
    pub(crate) fn newly(
        &mut self,
        clock: &Calibrated,
        runtime: RuntimeId,
        after_ns: u64,
    ) -> Vec<LiveTask> {
        let _alone = lock(&LOOKING);
        let now_ns = clock.now_ns();
        let mut stuck = HashSet::new();
        let mut newly = Vec::new();
        for entry in entries(runtime) {
            let id = (Arc::as_ptr(&entry).addr(), entry.since.load(Relaxed));
            if let Some(task) = entry.look(clock, now_ns)
                && task.is_stuck_for(after_ns)
            {
                stuck.insert(id);
                if !self.0.contains(&id) {
                    newly.push(task);
                }
            }
        }
        self.0 = stuck;
        newly
    }
}

/// Whether there is a tracked future of this runtime.
pub(crate) fn any(runtime: RuntimeId) -> bool {
    let tracked = lock(&TRACKED);
    let mut entries = tracked.entries.iter().flatten();
    entries.any(|entry| entry.runtime == runtime)
}

impl Entry {
    /// Of no future yet.
    fn blank() -> Self {
        Entry {
            label: LabelId::default(),
            runtime: RuntimeId::NEVER,
            task: 0,
            created: 0,
            polls: AtomicU64::new(0),
            busy_ns: AtomicU64::new(0),
            since: AtomicU64::new(0),
            polling: AtomicBool::new(false),
            woken: AtomicU64::new(0),
            waker: Mutex::new(None),
        }
    }

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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::runtime::{Builder, Handle};

    use super::*;
    use crate::{WatchExt, Watchdog, local};

    #[test]
    fn each_watchdog_hears_of_a_stuck_future_once_and_again_after_its_next_poll() {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let _watchdog = Watchdog::builder().track(true).start().unwrap();
            let wakes = Arc::new(tokio::sync::Notify::new());
            let woken = Arc::clone(&wakes);
            let _task = tokio::spawn(
                async move {
                    woken.notified().await;
                    pending::<()>().await;
                }
                .watched("stuck"),
            );
            tokio::task::yield_now().await;
            let (clock, here) = (clock::calibrate(), local::runtime_id(&Handle::current()));
            let mut watchdogs = [KnownStuck::default(), KnownStuck::default()];
            let mut newly = || {
                watchdogs
                    .each_mut()
                    .map(|known| known.newly(clock, here, 0).len())
            };
            assert_eq!(newly(), [1, 1]);
            assert_eq!(newly(), [0, 0]);
            wakes.notify_one();
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
            assert_eq!(newly(), [1, 1]);
        });
    }
}

//! What one audit has gathered so far.

use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::audit::allowance::AllowedFunction;
use crate::audit::measure::Spent;
use crate::audit::polls::Polls;
use crate::clock;
use crate::os::Doing;
use crate::registry::lock;
use crate::report::Report;
use crate::runtime::Runtime;
use crate::severity::{Severity, Thresholds};
use crate::slot::Seq;

/// The shortest sleep that is blamed where it was not seen, without the time spent
/// waiting for a CPU. One by a timer takes 50 us (the slack that timers have,
/// prctl(2), PR_SET_TIMERSLACK); waits for the kernel's or an allocator's locks
/// were measured to take 1 to 9.
const UNSEEN_NS: u64 = 35_000;
/// What the other threads are said to have run, if they have, at least: what our
/// own adds now and then is less.
const OTHERS_NS: u64 = 20_000;
/// How long a sleep takes that is seen several times.
const SEVERAL_LOOKS_NS: u64 = 1_000_000;
/// How many sightings.
const MAX_SIGHTINGS: usize = 1_000;

/// A future's name, and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskName {
    pub(crate) name: String,
    pub(crate) location: &'static Location<'static>,
}

/// A call that blocks by what it is, seen as it was made.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) name: &'static str,
    pub(crate) addresses: Vec<u64>,
    pub(crate) wall_ns: u64,
    /// Of that, waiting for a CPU; known of other tasks' calls only, as what an audited poll
    /// waited for is in its account.
    pub(crate) wait_ns: u64,
    pub(crate) sleeps: u64,
}

impl Call {
    /// What counts of the duration of another task's call: all of a sleep but the time
    /// spent waiting for a CPU, and nothing of what did not sleep.
    pub(crate) const fn counts_ns(&self) -> u64 {
        match self.sleeps {
            0 => 0,
            _ => self.wall_ns.saturating_sub(self.wait_ns),
        }
    }
}

/// A section in which blocking was allowed.
#[derive(Clone, Debug)]
pub(crate) struct AllowedSection {
    pub(crate) reason: &'static str,
    pub(crate) location: &'static Location<'static>,
    pub(crate) wall_ns: u64,
    pub(crate) sleeps: u64,
}

/// All sections of one reason and place.
#[derive(Clone, Debug)]
pub(crate) struct AllowedSum {
    pub(crate) section: AllowedSection,
    pub(crate) count: u64,
}

/// A poll that is worth a thought.
#[derive(Clone, Debug)]
pub(crate) struct Noted {
    /// The address of its thread's entry.
    pub(crate) thread: usize,
    pub(crate) seq: Seq,
    pub(crate) name: Arc<TaskName>,
    pub(crate) worker: Option<usize>,
    /// Since the clock was made ready.
    pub(crate) start_ns: u64,
    /// Without what was allowed.
    pub(crate) spent: Spent,
    /// Whether the system tells what threads do.
    pub(crate) measured: bool,
    /// The worker went on with another thread meanwhile: `block_in_place`.
    pub(crate) handed_over: bool,
    /// It ended by a panic, whose message may have taken long to print.
    pub(crate) panicked: bool,
    pub(crate) calls: Vec<Call>,
}

impl Noted {
    /// How long its thread slept.
    pub(crate) const fn off_ns(&self) -> u64 {
        let Spent { wall_ns, usage } = self.spent;
        match usage.sleeps {
            0 => 0,
            _ => wall_ns.saturating_sub(usage.cpu_ns + usage.wait_ns),
        }
    }

    /// What counts of its duration: not the time spent waiting for a CPU.
    pub(crate) const fn counts_ns(&self) -> u64 {
        let Spent { wall_ns, usage } = self.spent;
        if !self.measured {
            wall_ns
        } else if self.panicked {
            self.off_ns()
        } else if usage.sleeps == 0 {
            // Exact, even where the machine itself stood still.
            usage.cpu_ns
        } else {
            wall_ns.saturating_sub(usage.wait_ns)
        }
    }

    /// The shortest sleep that is blamed where it was not seen.
    ///
    /// What is unseen may be a wait for a lock that another thread held, in an
    /// allocator or the kernel: if another thread has run.
    pub(crate) const fn shortest_unseen_ns(&self, floor_ns: u64) -> u64 {
        match self.spent.usage.others_ns {
            0..OTHERS_NS => UNSEEN_NS,
            _ => floor_ns,
        }
    }

    /// Whether this poll can be in a finding though nobody saw it sleep.
    pub(crate) const fn may_have_blocked(&self, floor_ns: u64) -> bool {
        self.spent.usage.major_faults > 0
            || !self.calls.is_empty()
            || self.off_ns() >= self.shortest_unseen_ns(floor_ns)
    }

    /// The same poll without what it slept, or without what it computed.
    pub(crate) fn only(&self, on_cpu: bool) -> Self {
        let mut only = self.clone();
        let Spent { wall_ns, usage } = &mut only.spent;
        if on_cpu {
            *wall_ns = usage.cpu_ns.saturating_add(usage.wait_ns);
            usage.sleeps = 0;
            usage.major_faults = 0;
        } else {
            *wall_ns = wall_ns.saturating_sub(usage.cpu_ns);
            usage.cpu_ns = 0;
        }
        only
    }
}

/// A thread as it was seen from outside during an audited poll.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    pub(crate) thread: usize,
    pub(crate) seq: Seq,
    pub(crate) doing: Doing,
    /// None where it could not be unwound.
    pub(crate) addresses: Vec<u64>,
    /// How often it was seen there.
    pub(crate) seen: u32,
}

impl Sighting {
    fn is_of(&self, noted: &Noted) -> bool {
        (self.thread, self.seq) == (noted.thread, noted.seq)
    }
}

/// A turn of another task of a runtime that is audited as a whole, as it was seen from
/// outside.
#[derive(Clone, Debug)]
pub(crate) struct OthersTurn {
    pub(crate) worker: usize,
    pub(crate) doing: Doing,
    /// How long it was seen to sleep in one sleep; or computed, in how many polls ever.
    pub(crate) ns: u64,
    /// How long another thread waited for a CPU meanwhile.
    pub(crate) contended_ns: u64,
    pub(crate) goes_on: bool,
    pub(crate) addresses: Vec<u64>,
}

pub(crate) type OnLimit = Box<dyn Fn(&Report) + Send + Sync>;

/// What an audit was asked for.
pub(crate) struct Wanted {
    pub(crate) thresholds: Thresholds,
    /// From which duration on a poll is a stall.
    pub(crate) floor: Duration,
    pub(crate) limit: Option<Duration>,
    pub(crate) on_limit: Option<OnLimit>,
    pub(crate) allowed: Vec<AllowedFunction>,
    /// Set when the future has completed in time; its report may take longer.
    pub(crate) completed: Arc<AtomicBool>,
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wanted")
            .field("floor", &self.floor)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// One audit; shared by its future, what that spawns, and the spotter.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    pub(crate) name: Arc<TaskName>,
    pub(crate) wanted: Wanted,
    /// The runtime that is audited as a whole.
    pub(crate) whole: Option<Runtime>,
    pub(crate) started: Instant,
    /// Taken before `sightings` where both are.
    polls: Mutex<Polls>,
    sightings: Mutex<Vec<Sighting>>,
    waker: Mutex<Option<Waker>>,
    expired: AtomicBool,
    closed: AtomicBool,
    /// Tasks that were spawned from within and that nobody audits.
    unaudited: AtomicU64,
}

impl Session {
    pub(crate) fn new(name: Arc<TaskName>, wanted: Wanted, whole: Option<Runtime>) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Session {
            // 0 stands for no audit.
            id: LAST.fetch_add(1, Relaxed) + 1,
            name,
            wanted,
            whole,
            started: Instant::now(),
            polls: Mutex::default(),
            sightings: Mutex::default(),
            waker: Mutex::default(),
            expired: AtomicBool::new(false),
            closed: AtomicBool::new(false),
            unaudited: AtomicU64::new(0),
        }
    }

    pub(crate) const fn id(&self) -> u64 {
        self.id
    }

    /// From which duration on a poll is a stall.
    pub(crate) fn floor_ns(&self) -> u64 {
        clock::ns_of(self.wanted.floor)
    }

    pub(crate) fn severity_of(&self, ns: u64) -> Option<Severity> {
        let duration = Duration::from_nanos(ns);
        (duration >= self.wanted.floor).then(|| {
            self.wanted
                .thresholds
                .severity_of(duration)
                .unwrap_or(Severity::Monitor)
        })
    }

    /// Takes in a poll that is over.
    pub(crate) fn note(&self, noted: Noted, sections: Vec<AllowedSection>) {
        if self.is_closed() {
            return;
        }
        let mut polls = lock(&self.polls);
        polls.count(&noted, sections);
        let worth = noted.spent.usage.sleeps > 0
            || noted.spent.usage.major_faults > 0
            || !noted.calls.is_empty()
            || self.severity_of(noted.counts_ns()).is_some();
        if !worth {
            return;
        }
        let severity_of = |noted: &Noted| self.severity_of(noted.counts_ns());
        let was_seen = |noted: &Noted| {
            let sightings = lock(&self.sightings);
            sightings.iter().any(|sighting| sighting.is_of(noted))
        };
        polls.remember(noted, severity_of, |noted| {
            noted.may_have_blocked(self.floor_ns()) || was_seen(noted)
        });
    }

    /// Takes in a call of another task of the same runtime.
    pub(crate) fn note_neighbours(&self, call: Call) {
        let severity_of = |call: &Call| self.severity_of(call.counts_ns());
        lock(&self.polls).remember_neighbours(call, severity_of);
    }

    /// The shortest sleep of another task that is blamed: one that was seen several times.
    pub(crate) fn shortest_seen_ns(&self) -> u64 {
        self.floor_ns().min(SEVERAL_LOOKS_NS)
    }

    /// Takes in a turn of another task of the same runtime.
    pub(crate) fn note_others(&self, turn: OthersTurn) {
        if !self.is_closed() {
            lock(&self.polls).remember_others(turn);
        }
    }

    /// Takes in what was seen from outside.
    pub(crate) fn see(&self, sighting: Sighting) {
        let polls = lock(&self.polls);
        let mut sightings = lock(&self.sightings);
        if sightings.len() >= MAX_SIGHTINGS {
            // The latest are of polls that may not be over.
            let latest = sightings.split_off(MAX_SIGHTINGS / 2);
            sightings.retain(|of| polls.noted.iter().any(|noted| of.is_of(noted)));
            sightings.extend(latest);
            if sightings.len() >= MAX_SIGHTINGS {
                sightings.remove(0);
            }
        }
        sightings.push(sighting);
    }

    /// The thread is still where it was last seen.
    pub(crate) fn see_again(&self, thread: usize, seq: Seq) {
        let mut sightings = lock(&self.sightings);
        let last = sightings
            .iter_mut()
            .rev()
            .find(|sighting| sighting.thread == thread && sighting.seq == seq);
        if let Some(last) = last {
            last.seen = last.seen.saturating_add(1);
        }
    }

    pub(crate) fn sightings_of(&self, thread: usize, seq: Seq) -> Vec<Sighting> {
        let sightings = lock(&self.sightings);
        let of = sightings
            .iter()
            .filter(|of| (of.thread, of.seq) == (thread, seq));
        of.cloned().collect()
    }

    pub(crate) fn sightings(&self) -> Vec<Sighting> {
        lock(&self.sightings).clone()
    }

    pub(crate) fn with_polls<T>(&self, f: impl FnOnce(&Polls) -> T) -> T {
        f(&lock(&self.polls))
    }

    /// Whom to wake should the limit be reached.
    pub(crate) fn wake_at_limit(&self, waker: &Waker) {
        if self.wanted.limit.is_none() {
            return;
        }
        let mut kept = lock(&self.waker);
        match &mut *kept {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }

    /// Whether the limit has just been reached.
    pub(crate) fn expires(&self) -> bool {
        let over = self
            .wanted
            .limit
            .is_some_and(|limit| self.started.elapsed() >= limit);
        // Which comes first decides, whoever looks.
        let _polls = lock(&self.polls);
        over && !self.is_closed() && !self.has_completed() && !self.expired.swap(true, Relaxed)
    }

    /// The future has completed; whether in time.
    pub(crate) fn completes(&self) -> bool {
        let _polls = lock(&self.polls);
        let in_time = !self.is_expired();
        self.wanted.completed.store(in_time, Relaxed);
        in_time
    }

    fn has_completed(&self) -> bool {
        self.wanted.completed.load(Relaxed)
    }

    pub(crate) fn wake(&self) {
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.expired.load(Relaxed)
    }

    /// Counts tasks that a poll has spawned and that nobody audits.
    pub(crate) fn count_unaudited(&self, tasks: u64) {
        if self.whole.is_none() {
            self.unaudited.fetch_add(tasks, Relaxed);
        }
    }

    pub(crate) fn unaudited(&self) -> u64 {
        self.unaudited.load(Relaxed)
    }

    /// What it spawned may live on; it is no longer of interest.
    pub(crate) fn close(&self) {
        self.closed.store(true, Relaxed);
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Relaxed)
    }
}

//! One thread that symbolizes for the whole process: what it makes of a stack goes to
//! whoever asked.
//!
//! Debug info is large, so it is read once, however many watchdogs there are. The thread
//! starts with the first handle and ends by itself after the last; nobody waits for it.
//! A stack that takes microseconds, as that of a line that stalls again and again does,
//! need not wait until the thread is given a CPU.
//!
//! # After a fork
//! The child has none of the parent's threads. A handle that was made before is of no
//! use there: it rejects all, and its drop does nothing. A new one starts a new thread.

use std::fmt;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use crate::error::Error;
use crate::isolate::isolated;
use crate::os::{AutoResetEvent, ModuleFile, Symbolizer};
use crate::registry::lock;
use crate::stall::Frame;
use crate::threads;

const THREAD_NAME: &str = "stallscope-explain";
/// Stacks that wait, of all watchdogs; more are not symbolized.
const QUEUE: usize = 64;
/// After how long without a stack debug info is let go.
const QUIET: Duration = Duration::from_secs(30);

/// What is called with the functions of a stack, on the symbolizer's thread.
pub(crate) type Reply = Box<dyn FnOnce(Result<Vec<Frame>, NoSymbols>) + Send>;

/// A captured stack, to be symbolized.
pub(crate) struct Job {
    /// The innermost first; all others are return addresses.
    pub(crate) addresses: Vec<u64>,
    pub(crate) modules: Arc<[ModuleFile]>,
    /// Not called where the answer is [at hand](Sent::AtHand), nor where the job is
    /// rejected or whoever sent it is gone.
    pub(crate) reply: Reply,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

/// Why a stack could not be symbolized at all, not even to bare addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoSymbols {
    /// The code that reads debug info panicked where that is not expected.
    Panicked,
}

/// What becomes of a job.
#[derive(Debug)]
#[must_use]
pub(crate) enum Sent {
    /// Done, without the thread.
    AtHand(Vec<Frame>),
    /// The thread will reply.
    Queued,
    /// Not done: too many wait.
    Rejected,
}

/// A handle on the process's symbolizer.
#[derive(Debug)]
pub(crate) struct Explainer {
    live: Option<Arc<Live>>,
    asker: Arc<Asker>,
    pid: u32,
}

/// Whoever has a handle.
#[derive(Debug, Default)]
struct Asker {
    /// Stacks of this asker that wait or are being symbolized.
    pending: AtomicUsize,
    gone: AtomicBool,
}

/// What all handles share; the thread does not, so that the last handle's drop is noticed.
#[derive(Debug)]
struct Live {
    service: Arc<Service>,
}

impl Drop for Live {
    fn drop(&mut self) {
        // Release: pairs with the acquire in `run`.
        self.service.closed.store(true, Release);
        self.service.changed.set();
    }
}

/// What handles and the thread share.
struct Service {
    /// Set when there is something to do.
    changed: AutoResetEvent,
    queue: ArrayQueue<Entry>,
    symbolizer: Mutex<Symbolizer>,
    closed: AtomicBool,
    loaded: AtomicBool,
    /// In look-ups of addresses, and elsewhere.
    panics_in_lookups: AtomicU64,
    other_panics: AtomicU64,
    lack: Mutex<Option<Arc<str>>>,
    quiet: Duration,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Entry {
    Prepare(Arc<[ModuleFile]>),
    Stack(Job, Arc<Asker>),
}

/// The symbolizer of one process, and of the child that it forked.
struct Home {
    pid: u32,
    current: Mutex<Weak<Live>>,
    forked: OnceLock<Box<Home>>,
}

impl Home {
    fn new() -> Self {
        Home {
            pid: std::process::id(),
            current: Mutex::default(),
            forked: OnceLock::new(),
        }
    }

    /// That of this process: the locks of a parent may be held for ever by threads that
    /// the child does not have.
    fn here() -> &'static Home {
        static FIRST: OnceLock<Home> = OnceLock::new();
        let pid = std::process::id();
        let mut home = FIRST.get_or_init(Home::new);
        while home.pid != pid {
            home = home.forked.get_or_init(|| Box::new(Home::new()));
        }
        home
    }
}

impl Explainer {
    /// A handle; the first starts the thread.
    pub(crate) fn acquire() -> Result<Self, Error> {
        Self::of(Home::here(), QUIET)
    }

    fn of(home: &Home, quiet: Duration) -> Result<Self, Error> {
        let mut current = lock(&home.current);
        let live = if let Some(live) = current.upgrade() {
            live
        } else {
            let live = Arc::new(start(quiet)?);
            *current = Arc::downgrade(&live);
            live
        };
        Ok(Explainer {
            live: Some(live),
            asker: Arc::default(),
            pid: home.pid,
        })
    }

    /// `None` in a child of the process that the handle is of.
    fn live(&self) -> Option<&Live> {
        let live = self.live.as_deref()?;
        (self.pid == std::process::id()).then_some(live)
    }

    /// Whether a stack will be here in a moment: its debug info is loaded.
    pub(crate) fn is_prompt(&self) -> bool {
        // Relaxed: a guess at how long to wait, not data.
        self.live
            .as_deref()
            .is_some_and(|live| live.service.loaded.load(Relaxed))
    }

    /// Has the executable's debug info read, on the symbolizer's thread: the first stall's
    /// line would be late for it.
    pub(crate) fn prepare(&self, modules: Arc<[ModuleFile]>) {
        if let Some(live) = self.live()
            && live.service.queue.push(Entry::Prepare(modules)).is_ok()
        {
            live.service.changed.set();
        }
    }

    /// Never waits.
    pub(crate) fn send(&self, job: Job) -> Sent {
        let Some(live) = self.live() else {
            return Sent::Rejected;
        };
        if let Some(frames) = self.at_hand(live, &job) {
            return Sent::AtHand(frames);
        }
        self.asker.pending.fetch_add(1, Relaxed);
        let entry = Entry::Stack(job, Arc::clone(&self.asker));
        if live.service.queue.push(entry).is_ok() {
            live.service.changed.set();
            Sent::Queued
        } else {
            self.asker.pending.fetch_sub(1, Relaxed);
            Sent::Rejected
        }
    }

    /// Has these addresses answered, now or later; not at all where that cannot be. Never
    /// waits.
    pub(crate) fn explain(
        &self,
        addresses: Vec<u64>,
        modules: Arc<[ModuleFile]>,
        answer: impl Fn(&[Frame]) + Clone + Send + 'static,
    ) {
        let later = answer.clone();
        let sent = self.send(Job {
            addresses,
            modules,
            reply: Box::new(move |frames| {
                if let Ok(frames) = frames {
                    later(&frames);
                }
            }),
        });
        if let Sent::AtHand(frames) = sent {
            answer(&frames);
        }
    }

    /// If it takes microseconds, and none of this asker waits: a later stack must not
    /// overtake an earlier one.
    fn at_hand(&self, live: &Live, job: &Job) -> Option<Vec<Frame>> {
        // Acquire: pairs with the release in `Service::serve`, so that what was replied
        // there comes before what is answered here.
        if self.asker.pending.load(Acquire) != 0 {
            return None;
        }
        let mut symbolizer = match live.service.symbolizer.try_lock() {
            Ok(symbolizer) => symbolizer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        let found = isolated(|| symbolizer.at_hand(&job.addresses, &job.modules));
        live.service.count_panics(&symbolizer, found.is_none());
        found.flatten()
    }

    /// How often code that reads debug info, or a reply, has panicked in this process.
    pub(crate) fn panics(&self) -> u64 {
        // Relaxed: counters for people.
        self.live.as_deref().map_or(0, |live| {
            let Service {
                panics_in_lookups,
                other_panics,
                ..
            } = &*live.service;
            panics_in_lookups.load(Relaxed) + other_panics.load(Relaxed)
        })
    }

    /// Why lines or names are missing, for people: there is too little memory at the
    /// moment, or debug info that nobody thought of.
    pub(crate) fn lack(&self) -> Option<String> {
        let lack = lock(&self.live()?.service.lack).clone();
        lack.map(|lack| lack.to_string())
            .or_else(|| match self.panics() {
                0 => None,
                panics => Some(format!(
                    "reading debug info has panicked {panics} times: some functions are addresses only"
                )),
            })
    }
}

impl Drop for Explainer {
    fn drop(&mut self) {
        if self.pid != std::process::id() {
            // What it shares with the parent's threads may be in any state.
            std::mem::forget(self.live.take());
            return;
        }
        // Relaxed: whether an answer is still wanted is a hint that saves work.
        self.asker.gone.store(true, Relaxed);
    }
}

fn start(quiet: Duration) -> Result<Live, Error> {
    let service = Arc::new(Service {
        changed: AutoResetEvent::new(),
        queue: ArrayQueue::new(QUEUE),
        symbolizer: Mutex::default(),
        closed: AtomicBool::new(false),
        loaded: AtomicBool::new(false),
        panics_in_lookups: AtomicU64::new(0),
        other_panics: AtomicU64::new(0),
        lack: Mutex::new(None),
        quiet,
    });
    let of_thread = Arc::clone(&service);
    threads::start(THREAD_NAME, false, move || of_thread.run())?;
    Ok(Live { service })
}

impl Service {
    fn run(&self) {
        loop {
            // Acquire: pairs with the release in `Live::drop`, after which nothing is sent.
            if self.closed.load(Acquire) {
                // Nobody is left who wants a reply.
                while let Some(entry) = self.queue.pop() {
                    isolated(|| drop(entry));
                }
                return;
            }
            if let Some(entry) = self.queue.pop() {
                self.serve(entry);
            } else if self.loaded.load(Relaxed) {
                self.wait_until_quiet();
            } else {
                self.changed.wait(None);
            }
        }
    }

    /// Waits for the next entry, and lets debug info go if none comes for long.
    fn wait_until_quiet(&self) {
        let start = std::time::Instant::now();
        loop {
            let left = self.quiet.saturating_sub(start.elapsed());
            if left.is_zero() {
                break;
            }
            self.changed.wait(Some(left));
            if self.closed.load(Relaxed) || !self.queue.is_empty() {
                return;
            }
        }
        self.symbolizer().release();
        self.loaded.store(false, Relaxed);
    }

    fn symbolizer(&self) -> MutexGuard<'_, Symbolizer> {
        // Panics are caught within, so that it is usable whatever has happened.
        self.symbolizer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, entry: Entry) {
        let (job, asker) = match entry {
            Entry::Prepare(modules) => {
                let mut symbolizer = self.symbolizer();
                let prepared = isolated(|| symbolizer.prepare(&modules));
                self.took_in(&symbolizer, prepared.is_none());
                return;
            }
            Entry::Stack(job, asker) => (job, asker),
        };
        let Job {
            addresses,
            modules,
            reply,
        } = job;
        if asker.gone.load(Relaxed) {
            isolated(|| drop(reply));
        } else {
            let mut symbolizer = self.symbolizer();
            let frames = isolated(|| symbolizer.symbolize(&addresses, modules));
            self.took_in(&symbolizer, frames.is_none());
            drop(symbolizer);
            let replied = isolated(|| reply(frames.ok_or(NoSymbols::Panicked)));
            if replied.is_none() {
                self.other_panics.fetch_add(1, Relaxed);
            }
        }
        // Release: pairs with the acquire in `Explainer::at_hand`.
        asker.pending.fetch_sub(1, Release);
    }

    fn took_in(&self, symbolizer: &Symbolizer, panicked: bool) {
        self.loaded.store(true, Relaxed);
        self.count_panics(symbolizer, panicked);
        let lack = symbolizer.lack();
        let mut known = lock(&self.lack);
        if known.as_deref() != lack.as_deref() {
            *known = lack.map(Into::into);
        }
    }

    fn count_panics(&self, symbolizer: &Symbolizer, elsewhere: bool) {
        self.panics_in_lookups.store(symbolizer.panics(), Relaxed);
        self.other_panics.fetch_add(u64::from(elsewhere), Relaxed);
    }
}

#[cfg(all(test, target_os = "linux"))]
#[path = "explain_tests.rs"]
mod tests;

//! The thread that symbolizes: what it makes of a stack goes to whoever asked.
//!
//! A stack that takes microseconds, as that of a line that stalls again and again does,
//! need not wait until the thread is given a CPU.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::clock::Calibrated;
use crate::detector::WorkerSeen;
use crate::driven::Driven;
use crate::error::Error;
use crate::os::{ModuleFile, Symbolizer};
use crate::registry::lock;
use crate::stall::{Frame, Stack, StallId};
use crate::threads;
use crate::trim;

const THREAD_NAME: &str = "stallscope-explain";
/// Stacks that wait; more are not symbolized.
const QUEUE: usize = 64;
/// After how long without a stack debug info is let go.
const QUIET: Duration = Duration::from_secs(30);

/// A captured stack, to be symbolized.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) purpose: Purpose,
    pub(crate) addresses: Vec<u64>,
    pub(crate) modules: Vec<ModuleFile>,
}

/// What a stack was taken for.
#[derive(Debug)]
pub(crate) enum Purpose {
    Stall {
        id: StallId,
        /// Not proven to be the stack of the worker, only that of its thread.
        of_turn: bool,
    },
    /// To see whether this turn, of this age, is being driven.
    Driven {
        of: WorkerSeen,
        age_ns: u64,
        took_ns: u64,
        driven: Arc<Driven>,
    },
}

/// What becomes of a job.
#[derive(Debug)]
pub(crate) enum Sent {
    /// Done, without the thread. No stack if it turns out to be of something else than
    /// the stall, or was not taken for one.
    AtHand(Option<Stack>),
    /// The thread will do it.
    Coming,
    /// Not done: too many wait.
    TooMany,
}

/// Called by the thread with each stack, or with none where it turns out to be of
/// something else.
pub(crate) type Explained = Box<dyn Fn(StallId, Option<Stack>) + Send + Sync>;

/// The queue to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Explainer {
    sender: SyncSender<Job>,
    desk: Arc<Desk>,
}

/// What both sides of the queue work with.
struct Desk {
    clock: &'static Calibrated,
    symbolizer: Mutex<Symbolizer>,
    loaded: AtomicBool,
    /// Stacks that wait or are being symbolized.
    pending: AtomicUsize,
    explained: Explained,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Explainer {
    /// Whether a stack will be here in a moment: its debug info is loaded.
    pub(crate) fn is_prompt(&self) -> bool {
        // Relaxed: a guess at how long to wait, not data.
        self.desk.loaded.load(Relaxed)
    }

    /// Never waits.
    pub(crate) fn send(&self, job: Job) -> Sent {
        if let Some(frames) = self.desk.at_hand(&job) {
            let stack = self.desk.answer(job.purpose, frames);
            return Sent::AtHand(stack.and_then(|(_, stack)| stack));
        }
        self.desk.pending.fetch_add(1, Relaxed);
        if self.sender.try_send(job).is_ok() {
            Sent::Coming
        } else {
            self.desk.pending.fetch_sub(1, Relaxed);
            Sent::TooMany
        }
    }
}

impl Desk {
    /// If it takes microseconds, and none is waiting: a later stack must not be told
    /// first.
    fn at_hand(&self, job: &Job) -> Option<Vec<Frame>> {
        // Acquire: pairs with the release in `run`, so that what was answered there
        // comes before what is answered here.
        if self.pending.load(Acquire) != 0 {
            return None;
        }
        // Debug info can be broken: a panic over it must not end whoever asks.
        let found = catch_unwind(AssertUnwindSafe(|| {
            let mut symbolizer = self.symbolizer.try_lock().ok()?;
            symbolizer.at_hand(&job.addresses, &job.modules)
        }));
        found.ok().flatten()
    }

    /// The stack that it makes of the frames, and of which stall, if it is of one.
    fn answer(&self, purpose: Purpose, frames: Vec<Frame>) -> Option<(StallId, Option<Stack>)> {
        match purpose {
            Purpose::Stall { id, of_turn } => Some((id, stack_of(frames, of_turn))),
            Purpose::Driven {
                of,
                age_ns,
                took_ns,
                driven,
            } => {
                let passes = trim::passes_block_on(&frames);
                driven.answer(&of, passes, age_ns, took_ns, self.clock.now_ns());
                None
            }
        }
    }
}

/// Starts the thread.
pub(crate) fn start(clock: &'static Calibrated, explained: Explained) -> Result<Explainer, Error> {
    let (sender, receiver) = sync_channel(QUEUE);
    let desk = Arc::new(Desk {
        clock,
        symbolizer: Mutex::default(),
        loaded: AtomicBool::new(false),
        pending: AtomicUsize::new(0),
        explained,
    });
    let of_thread = Arc::clone(&desk);
    threads::start(THREAD_NAME, move || run(&receiver, &of_thread))?;
    Ok(Explainer { sender, desk })
}

fn run(jobs: &Receiver<Job>, desk: &Desk) {
    loop {
        let job = if desk.loaded.load(Relaxed) {
            jobs.recv_timeout(QUIET)
        } else {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match job {
            Ok(job) => {
                let frames = lock(&desk.symbolizer).symbolize(&job.addresses, job.modules);
                desk.loaded.store(true, Relaxed);
                if let Some((id, stack)) = desk.answer(job.purpose, frames) {
                    (desk.explained)(id, stack);
                }
                desk.pending.fetch_sub(1, Release);
            }
            Err(RecvTimeoutError::Timeout) => {
                lock(&desk.symbolizer).release();
                desk.loaded.store(false, Relaxed);
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn stack_of(frames: Vec<Frame>, of_turn: bool) -> Option<Stack> {
    // Its thread may have handed the worker on.
    let elsewhere = of_turn && trim::passes_block_in_place(&frames);
    (!elsewhere).then(|| trim::stack_of(frames))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::clock::calibrate;
    use crate::os::module_files;
    use std::sync::mpsc::channel;
    use std::thread::sleep;
    use std::time::Instant;

    fn job(id: u64, addresses: &[u64]) -> Job {
        Job {
            purpose: Purpose::Stall {
                id: StallId(id),
                of_turn: false,
            },
            addresses: addresses.to_vec(),
            modules: module_files(),
        }
    }

    #[test]
    fn what_takes_microseconds_needs_no_thread_unless_a_stack_is_ahead_of_it() {
        let (answers, answered) = channel();
        let (go, gone) = channel();
        let gone = Mutex::new(gone);
        let explained = move |id: StallId, stack: Option<Stack>| {
            answers.send((id.0, stack)).unwrap();
            lock(&gone).recv().unwrap();
        };
        let explainer = start(calibrate(), Box::new(explained)).unwrap();
        let here = sleep as fn(Duration) as usize as u64;
        let there = Instant::now as fn() -> Instant as usize as u64;
        let jobs = [here, there, here];
        for (id, address) in (0..).zip(jobs) {
            let sent = explainer.send(job(id, &[address]));
            assert!(matches!(sent, Sent::Coming), "{sent:?}");
        }
        for id in 0..3 {
            let (of, stack) = answered.recv().unwrap();
            assert_eq!(of, id);
            assert!(stack.is_some());
            go.send(()).unwrap();
        }
        while explainer.desk.pending.load(Relaxed) != 0 {
            std::thread::yield_now();
        }
        // The same again, and one beside it.
        for (id, address) in [(3, there), (4, there + 1)] {
            let Sent::AtHand(Some(stack)) = explainer.send(job(id, &[address])) else {
                panic!("it waits for the thread");
            };
            let function = stack.frames()[0].function().unwrap().to_owned();
            assert!(function.contains("now"), "{function}");
        }
    }
}

//! The thread that symbolizes: what it makes of a stack goes to whoever asked.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::clock::Calibrated;
use crate::detector::WorkerSeen;
use crate::driven::Driven;
use crate::error::Error;
use crate::os::{ModuleFile, Symbolizer};
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

/// The queue to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Explainer {
    sender: SyncSender<Job>,
    loaded: Arc<AtomicBool>,
}

impl Explainer {
    /// Whether a stack will be here in a moment: its debug info is loaded.
    pub(crate) fn is_prompt(&self) -> bool {
        // Relaxed: a guess at how long to wait, not data.
        self.loaded.load(Relaxed)
    }

    /// Never waits; false for a stack too many, which is not symbolized.
    pub(crate) fn send(&self, job: Job) -> bool {
        self.sender.try_send(job).is_ok()
    }
}

/// Starts the thread; `explained` is called with each stack, or with
/// none where it turns out to be of something else.
pub(crate) fn start(
    clock: &'static Calibrated,
    explained: impl Fn(StallId, Option<Stack>) + Send + 'static,
) -> Result<Explainer, Error> {
    let (sender, receiver) = sync_channel(QUEUE);
    let loaded = Arc::new(AtomicBool::new(false));
    let explainer = Explainer {
        sender,
        loaded: Arc::clone(&loaded),
    };
    threads::start(THREAD_NAME, move || {
        run(&receiver, &loaded, clock, explained);
    })?;
    Ok(explainer)
}

fn run(
    jobs: &Receiver<Job>,
    loaded: &AtomicBool,
    clock: &Calibrated,
    explained: impl Fn(StallId, Option<Stack>),
) {
    let mut symbolizer = Symbolizer::default();
    loop {
        let job = if loaded.load(Relaxed) {
            jobs.recv_timeout(QUIET)
        } else {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match job {
            Ok(job) => {
                let frames = symbolizer.symbolize(&job.addresses, job.modules);
                loaded.store(true, Relaxed);
                match job.purpose {
                    Purpose::Stall { id, of_turn } => explained(id, stack_of(frames, of_turn)),
                    Purpose::Driven {
                        of,
                        age_ns,
                        took_ns,
                        driven,
                    } => {
                        let passes = trim::passes_block_on(&frames);
                        driven.answer(&of, passes, age_ns, took_ns, clock.now_ns());
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                symbolizer.release();
                loaded.store(false, Relaxed);
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

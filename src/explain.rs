//! The thread that symbolizes: what it makes of a stack goes to whoever asked.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use crate::error::Error;
use crate::os::{ModuleFile, Symbolizer};
use crate::stall::{Stack, StallId};
use crate::trim;

const THREAD_NAME: &str = "stallscope-explain";
/// Stacks that wait; more are not symbolized.
const QUEUE: usize = 64;
/// After how long without a stack debug info is let go.
const QUIET: Duration = Duration::from_secs(30);

/// A captured stack, to be symbolized.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: StallId,
    pub(crate) addresses: Vec<u64>,
    pub(crate) modules: Vec<ModuleFile>,
    /// Not proven to be the stack of the worker, only that of its thread.
    pub(crate) of_turn: bool,
}

/// The queue to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Explainer {
    sender: SyncSender<Job>,
}

impl Explainer {
    /// Never waits; false for a stack too many, which is not symbolized.
    pub(crate) fn send(&self, job: Job) -> bool {
        self.sender.try_send(job).is_ok()
    }
}

/// Starts the thread; `explained` is called with each stack, or with
/// none where it turns out to be of something else.
pub(crate) fn start(
    explained: impl Fn(StallId, Option<Stack>) + Send + 'static,
) -> Result<Explainer, Error> {
    let (sender, receiver) = sync_channel(QUEUE);
    std::thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .spawn(move || run(&receiver, explained))
        .map_err(|source| Error::thread(THREAD_NAME, source))?;
    Ok(Explainer { sender })
}

fn run(jobs: &Receiver<Job>, explained: impl Fn(StallId, Option<Stack>)) {
    let mut symbolizer = Symbolizer::default();
    let mut loaded = false;
    loop {
        let job = if loaded {
            jobs.recv_timeout(QUIET)
        } else {
            jobs.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match job {
            Ok(job) => {
                let frames = symbolizer.symbolize(&job.addresses, job.modules);
                loaded = true;
                let trimmed = trim::trim(&frames);
                // Its thread may have handed the worker on.
                let elsewhere = job.of_turn && trim::passes_block_in_place(&frames);
                let stack = (!elsewhere).then_some(Stack {
                    frames,
                    culprit: trimmed.culprit,
                    leaf: trimmed.leaf,
                });
                explained(job.id, stack);
            }
            Err(RecvTimeoutError::Timeout) => {
                symbolizer.release();
                loaded = false;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

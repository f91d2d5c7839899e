//! The thread that symbolizes: whoever needs a stack waits for it, but not for long.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::os::ModuleFile;
use crate::registry::lock;
use crate::stall::{Stack, StallId};
use crate::symbolize::Symbolizer;
use crate::trim;

const THREAD_NAME: &str = "stallscope-explain";
/// Stacks that wait; more are not symbolized.
const QUEUE: usize = 64;
/// After how long without a stack debug info is let go.
const QUIET: Duration = Duration::from_secs(30);
/// How many stalls' stacks are kept for events to come.
const MAX_KEPT: usize = 256;

/// A captured stack, to be symbolized.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) id: StallId,
    pub(crate) addresses: Vec<u64>,
    pub(crate) modules: Vec<ModuleFile>,
}

#[derive(Debug, Default)]
struct Explained {
    /// Jobs of this stall that are not done.
    pending: usize,
    stack: Option<Arc<Stack>>,
}

/// Where stacks are left and looked for.
#[derive(Debug, Default)]
pub(crate) struct Board {
    stalls: Mutex<HashMap<StallId, Explained>>,
    changed: Condvar,
}

impl Board {
    /// The latest stack of a stall; waits for one that is being symbolized.
    pub(crate) fn wait(&self, id: StallId, at_most: Duration) -> Option<Arc<Stack>> {
        let deadline = Instant::now() + at_most;
        let mut stalls = lock(&self.stalls);
        loop {
            let explained = stalls.get(&id)?;
            let left = deadline.saturating_duration_since(Instant::now());
            if explained.pending == 0 || left.is_zero() {
                return explained.stack.clone();
            }
            stalls = self
                .changed
                .wait_timeout(stalls, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The stall is over and told.
    pub(crate) fn forget(&self, id: StallId) {
        lock(&self.stalls).remove(&id);
    }

    fn expect(&self, id: StallId) -> bool {
        let mut stalls = lock(&self.stalls);
        if stalls.len() >= MAX_KEPT && !stalls.contains_key(&id) {
            return false;
        }
        stalls.entry(id).or_default().pending += 1;
        true
    }

    fn leave(&self, id: StallId, stack: Option<Arc<Stack>>) {
        if let Some(explained) = lock(&self.stalls).get_mut(&id) {
            explained.pending = explained.pending.saturating_sub(1);
            explained.stack = stack.or(explained.stack.take());
        }
        self.changed.notify_all();
    }
}

/// The queue to the thread, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Explainer {
    sender: SyncSender<Job>,
    board: Arc<Board>,
}

impl Explainer {
    /// Never waits; a stack too many is not symbolized.
    pub(crate) fn send(&self, job: Job) {
        let id = job.id;
        if self.board.expect(id) && self.sender.try_send(job).is_err() {
            self.board.leave(id, None);
        }
    }
}

/// Starts the thread; `attach` is called with each stack.
pub(crate) fn start(
    board: Arc<Board>,
    attach: impl Fn(StallId, &Stack) + Send + 'static,
) -> Result<Explainer, Error> {
    let (sender, receiver) = sync_channel(QUEUE);
    let explainer = Explainer {
        sender,
        board: Arc::clone(&board),
    };
    std::thread::Builder::new()
        .name(THREAD_NAME.to_owned())
        .spawn(move || run(&receiver, &board, attach))
        .map_err(|source| Error::thread(THREAD_NAME, source))?;
    Ok(explainer)
}

fn run(jobs: &Receiver<Job>, board: &Board, attach: impl Fn(StallId, &Stack)) {
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
                let stack = Arc::new(Stack {
                    frames,
                    culprit: trimmed.culprit,
                    leaf: trimmed.leaf,
                });
                attach(job.id, &stack);
                board.leave(job.id, Some(stack));
            }
            Err(RecvTimeoutError::Timeout) => {
                symbolizer.release();
                loaded = false;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

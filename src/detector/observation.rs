//! What the detector is told at each tick.

use crate::detector::age::Excuse;
use crate::detector::waiting::{Spent, ThreadTimes};
use crate::registry::LabelId;
use crate::slot::MAX_DEPTH;

/// A watched poll: the number of its thread, and its own number on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct PollId {
    pub(crate) thread: usize,
    pub(crate) seq: u64,
}

/// One of the nested watched futures of a poll.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layer {
    pub(crate) label: LabelId,
    /// `None`: it began before any watchdog did.
    pub(crate) start_ns: Option<u64>,
    pub(crate) task: u64,
    pub(crate) span: u64,
    /// `None` for a task's poll that tokio's hooks have told of.
    pub(crate) anchor: Option<u64>,
}

/// The watched futures within another: in place, so that a look asks for no memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Inner {
    layers: [Layer; MAX_DEPTH - 1],
    depth: usize,
}

impl Inner {
    pub(crate) fn as_slice(&self) -> &[Layer] {
        self.layers.get(..self.depth).unwrap_or(&[])
    }
}

impl FromIterator<Layer> for Inner {
    /// Takes as many as a slot publishes.
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        let mut inner = Inner::default();
        for (place, layer) in inner.layers.iter_mut().zip(layers) {
            *place = layer;
            inner.depth += 1;
        }
        inner
    }
}

/// A watched poll.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PollSeen {
    pub(crate) id: PollId,
    /// The worker it claims to be on; `None` on a thread that is none.
    pub(crate) worker: Option<usize>,
    pub(crate) outermost: Layer,
    /// Those within it, from without to within.
    pub(crate) inner: Inner,
}

impl PollSeen {
    /// When the outermost of its watched futures began to be polled.
    pub(crate) const fn start_ns(&self) -> Option<u64> {
        self.outermost.start_ns
    }

    /// The innermost watched future that accounts for half of the time so far.
    pub(crate) fn culprit(&self, now_ns: u64) -> Layer {
        let age = |layer: &Layer| now_ns.saturating_sub(layer.start_ns.unwrap_or(0));
        let long = |layer: &&Layer| age(layer) >= age(&self.outermost) / 2;
        let innermost = self.inner.as_slice().iter().rev().find(long);
        innermost.copied().unwrap_or(self.outermost)
    }
}

/// A watched poll that was in progress at the last tick, and has left its end behind.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FinishedSeen {
    pub(crate) poll: PollId,
    pub(crate) end_ns: u64,
}

/// What tokio tells of one worker.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WorkerSeen {
    pub(crate) parked: bool,
    /// Changes whenever the worker parks or wakes.
    pub(crate) parks: u64,
    /// Grows whenever the worker tells of a turn of its loop.
    pub(crate) busy_ns: u64,
    /// For how long the turn in progress has lasted at least, without what its thread has
    /// waited; where its beginning is not known, see [`Account::began`].
    pub(crate) computed_ns: u64,
    /// Whether somebody is known to be running this worker's loop.
    pub(crate) driven: bool,
    /// For how long this library's own tasks have been polled on it since the last look.
    pub(crate) own_work_ns: u64,
}

impl WorkerSeen {
    /// Whether the worker has told nothing new since.
    pub(crate) const fn same_turn(&self, other: &WorkerSeen) -> bool {
        self.parks == other.parks && self.busy_ns == other.busy_ns
    }
}

/// What the thread of a worker has done since the last tick.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    /// The thread's number in the registry.
    pub(crate) thread: usize,
    /// By the last tick.
    pub(crate) last: Spent,
    pub(crate) now: Spent,
    /// When the turn in progress began, and what was done by then, where that is known.
    pub(crate) began: Option<(u64, Spent)>,
    /// Polls of watched futures that it has begun.
    pub(crate) polls: u64,
}

impl Account {
    /// By the beginning of a poll that has lasted for so long: what was done since the
    /// last tick was done in it, as far as there was time.
    pub(crate) fn before(&self, lasted_ns: u64) -> Spent {
        let Account { last, now, .. } = *self;
        let back = |now: u64, last: u64| now - now.saturating_sub(last).min(lasted_ns);
        Spent {
            cpu_ns: back(now.cpu_ns, last.cpu_ns),
            wait_ns: back(now.wait_ns, last.wait_ns),
            runs: last.runs,
        }
    }
}

/// How long a thread has waited for CPUs in all its life, when that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    /// The thread's number in the registry.
    pub(crate) thread: usize,
    /// At the reading before this look; `None` where there was none lately.
    pub(crate) before: Option<Reading>,
    pub(crate) now: Reading,
}

/// One reading of how long a thread has waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) at_ns: u64,
    pub(crate) wait_ns: u64,
}

/// What can be held up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Unit {
    Worker(usize),
    /// A thread that is no worker, by its number in the registry.
    Thread(usize),
}

/// What may soon be a stall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Foreseen {
    pub(crate) unit: Unit,
    /// The watched poll that it is, and where its stack must lead; `None` for a turn.
    pub(crate) poll: Option<(PollId, Option<u64>)>,
}

/// All that is seen at one tick.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    pub(crate) now_ns: u64,
    /// For how long the whole process has stood still since the last look.
    pub(crate) standstill_ns: u64,
    /// For how long the thread that looks has waited for a CPU since, where that made it
    /// late.
    pub(crate) watchdog_waited_ns: u64,
    /// There are no tasks but this library's own: no worker can hold anybody up.
    pub(crate) is_vacant: bool,
    pub(crate) workers: Vec<WorkerSeen>,
    pub(crate) polls: Vec<PollSeen>,
    pub(crate) finished: Vec<FinishedSeen>,
    /// Of the threads that still hold what was in progress at the last tick, or what
    /// is [old](super::Detector::is_old).
    pub(crate) times: Vec<(Unit, ThreadTimes)>,
    /// By worker, where that is known.
    pub(crate) accounts: Vec<Option<Account>>,
    /// Of the threads that have been read at this look.
    pub(crate) queued: Vec<(Unit, Queued)>,
}

impl Observation {
    /// What is excused since the last look.
    pub(crate) const fn excuse(&self, own_work_ns: u64) -> Excuse {
        Excuse {
            standstill_ns: self.standstill_ns,
            own_work_ns,
            short_of_cpus_ns: self.watchdog_waited_ns,
        }
    }

    /// How often all workers have parked and woken.
    pub(crate) fn parks(&self) -> u64 {
        self.workers.iter().map(|worker| worker.parks).sum()
    }
}

//! Where each item is: what the job itself knows.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::{ITEMS, PERMITS};

/// How long an item takes to generate, somewhere else.
pub(crate) const GENERATION: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    NotBegun,
    /// It can go on from then on.
    Generating {
        until: Instant,
    },
    Uploading {
        since: Instant,
    },
    Done,
    Failed,
}

/// Of all items; the first is number 1.
#[derive(Debug)]
pub(crate) struct Board {
    pub(crate) permits: Semaphore,
    pub(crate) begun: Instant,
    steps: Mutex<Steps>,
}

#[derive(Debug)]
struct Steps {
    steps: [Step; ITEMS],
    peak: usize,
}

impl Board {
    pub(crate) fn new() -> Self {
        Board {
            permits: Semaphore::new(PERMITS),
            begun: Instant::now(),
            steps: Mutex::new(Steps {
                steps: [Step::NotBegun; ITEMS],
                peak: 0,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An item is generated from now on.
    pub(crate) fn generating(&self, item: usize) {
        let until = Instant::now() + GENERATION;
        self.enter(item, Step::Generating { until });
    }

    /// An item is being uploaded from now on.
    pub(crate) fn uploading(&self, item: usize) {
        let since = Instant::now();
        self.enter(item, Step::Uploading { since });
    }

    /// An item is over.
    pub(crate) fn over(&self, item: usize, stored: bool) {
        self.enter(item, if stored { Step::Done } else { Step::Failed });
    }

    fn enter(&self, item: usize, step: Step) {
        let mut steps = self.lock();
        if let Some(place) = steps.steps.get_mut(item - 1) {
            *place = step;
        }
        let busy = |step: &&Step| matches!(step, Step::Generating { .. } | Step::Uploading { .. });
        steps.peak = steps.peak.max(steps.steps.iter().filter(busy).count());
    }

    /// Each item and where it is.
    pub(crate) fn items(&self) -> Vec<(usize, Step)> {
        (1..).zip(self.lock().steps).collect()
    }

    pub(crate) fn done(&self) -> usize {
        let items = self.items();
        items.iter().filter(|(_, step)| *step == Step::Done).count()
    }

    /// How many were in progress at once.
    pub(crate) fn peak(&self) -> usize {
        self.lock().peak
    }
}

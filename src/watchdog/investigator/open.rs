//! What is known of one stall in progress.

use crate::detector::{Told, WorkerSeen};
use crate::os::{Captured, Doing, Miss};
use crate::stall::Stack;
use crate::watchdog::investigator::one_poll::{OneSleep, Tasks};
use crate::watchdog::transition::Transition;

/// See [`Open::looks`].
const MANY_LOOKS: usize = 64;

/// What is known of one stall in progress.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) told: Told,
    pub(super) turn: WorkerSeen,
    pub(super) next_ns: u64,
    /// How often its thread was seen asleep how.
    pub(super) asleep: Vec<(Doing, u32)>,
    pub(super) last: Option<Doing>,
    pub(super) tries_left: u8,
    /// Taken since its last event, at hand.
    pub(super) stack: Option<Stack>,
    /// And those that are being symbolized.
    pub(super) stacks_coming: u32,
    pub(super) sleep: OneSleep,
    pub(super) tasks: Tasks,
}

impl Open {
    pub(super) fn new(transition: &Transition) -> Self {
        Open {
            told: transition.told,
            turn: transition.turn,
            next_ns: 0,
            asleep: Vec::new(),
            last: None,
            tries_left: 0,
            stack: None,
            stacks_coming: 0,
            sleep: OneSleep::default(),
            tasks: Tasks::default(),
        }
    }

    /// Takes note of the task that a turn's thread was polling, unless that may come yet.
    pub(super) fn note_task(&mut self, captured: &Result<Captured, Miss>, now_ns: u64) {
        let task = match captured {
            Ok(captured) if captured.stack == Err(Miss::Late) => return self.tasks.ask(now_ns),
            Ok(captured) => captured.task,
            Err(_) => None,
        };
        let age_ns = now_ns.saturating_sub(self.told.start_ns);
        self.tasks.look(now_ns, age_ns, task);
    }

    /// Takes note of how the thread sleeps, if it does.
    pub(super) fn note(&mut self, doing: Option<Doing>) {
        if let Some(doing) = doing.filter(|doing| doing.is_asleep()) {
            match self.asleep.iter_mut().find(|(how, _)| *how == doing) {
                Some((_, times)) => *times += 1,
                None => self.asleep.push((doing, 1)),
            }
        }
    }

    /// How often to look. A thread that sleeps shortly and often is likely to be
    /// awake at any one look; that it sleeps is known from its times.
    pub(super) fn looks(&self) -> usize {
        let shares = self.told.shares;
        if self.asleep.is_empty() && shares.blocked_ns > shares.cpu_ns / 4 {
            MANY_LOOKS
        } else {
            1
        }
    }

    /// How its thread was asleep most often.
    pub(super) fn most_often_asleep(&self) -> Option<Doing> {
        self.asleep
            .iter()
            .max_by_key(|(_, times)| *times)
            .map(|(how, _)| *how)
    }
}

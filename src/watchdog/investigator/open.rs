//! What is known of one stall in progress.

use std::sync::{Arc, Mutex};

use crate::detector::{Told, WorkerSeen};
use crate::os::{Doing, Held};
use crate::watchdog::investigator::moment::Moment;
use crate::watchdog::investigator::one_poll::{OneSleep, Tasks};
use crate::watchdog::investigator::profile::{Extent, Pace, Profile};
use crate::watchdog::transition::Transition;

/// See [`Open::looks`].
const MANY_LOOKS: usize = 64;
/// How many looks may try to get one stack: a thread that blocks shortly and often moves
/// under our eyes.
const TRIES: u8 = 5;

/// What is known of one stall in progress.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) told: Told,
    pub(super) turn: WorkerSeen,
    pub(super) next_ns: u64,
    /// When reports are to know more.
    pub(super) next_shown_ns: u64,
    /// How often its thread was seen asleep how.
    asleep: Vec<(Doing, u32)>,
    pub(super) last: Option<Doing>,
    /// Shared with what the symbolizer is to reply.
    pub(super) profile: Arc<Mutex<Profile>>,
    /// When the next stack of a thread that runs is due.
    next_stack_ns: u64,
    tries_left: u8,
    /// Since when its thread is asked and has not answered.
    pub(super) asked: Option<Moment>,
    /// It has been counted that there is no stack.
    pub(super) is_missed: bool,
    /// Of the stack that its thread was last captured with: the locks that it holds.
    pub(super) last_held: (Vec<u64>, Vec<Held>),
    /// When it was last looked for locks that others wait for.
    pub(super) looked_for_locks_ns: u64,
    pub(super) sleep: OneSleep,
    pub(super) tasks: Tasks,
}

impl Open {
    pub(super) fn new(transition: &Transition, pace: Pace) -> Self {
        let profile = Profile::new(Extent::of(&transition.told), pace);
        Open {
            told: transition.told,
            turn: transition.turn,
            next_ns: 0,
            next_shown_ns: 0,
            asleep: Vec::new(),
            last: None,
            profile: Arc::new(Mutex::new(profile)),
            next_stack_ns: 0,
            tries_left: TRIES,
            asked: None,
            is_missed: false,
            last_held: (Vec::new(), Vec::new()),
            looked_for_locks_ns: 0,
            sleep: OneSleep::default(),
            tasks: Tasks::default(),
        }
    }

    /// Whether to take a stack now, of a thread that is not in the same sleep as when it was
    /// last seen.
    pub(super) fn wants_stack(
        &self,
        doing: Option<Doing>,
        last: Option<Doing>,
        now_ns: u64,
    ) -> bool {
        let is_asleep = |doing: Option<Doing>| doing.is_some_and(Doing::is_asleep);
        // To read where one sleeps costs it nothing.
        now_ns >= self.next_stack_ns
            || self.asked.is_some()
            || is_asleep(doing)
            || doing.is_some() && is_asleep(last)
    }

    /// It is known where the thread is, or that this cannot be known now.
    pub(super) const fn have_next_stack(&mut self, at_ns: u64) {
        self.tries_left = TRIES;
        self.next_stack_ns = at_ns;
    }

    /// Whether there was no stack for so often that there will be none soon.
    pub(super) const fn gives_up(&mut self) -> bool {
        self.tries_left = self.tries_left.saturating_sub(1);
        self.tries_left == 0
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

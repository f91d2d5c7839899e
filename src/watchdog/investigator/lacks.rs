//! Why stacks are missing or incomplete, for health and for the log.

use crate::delivery::Message;
use crate::os::Miss;
use crate::registry::lock;
use crate::watchdog::shared::Shared;

/// How many reasons are logged by one watchdog.
const MAX_LOGGED: usize = 16;

/// What one watchdog's stacks lack.
#[derive(Debug, Default)]
pub(super) struct Lacks {
    /// Why there are no stacks, and whether that is so for running threads only.
    stacks: Option<(Miss, bool)>,
    /// Why stacks have no lines.
    lines: Option<String>,
    /// Each is logged once: a reason that comes and goes would flood the log.
    logged: Vec<String>,
}

impl Lacks {
    /// A stack could not be taken.
    pub(super) fn note_miss(&mut self, miss: Miss, was_running: bool, shared: &Shared) {
        if self.stacks.is_some_and(|(known, _)| known == miss) {
            return;
        }
        self.stacks = Some((miss, was_running));
        // Unless it is what the user asked for.
        if miss != Miss::SignalsOff {
            self.log(&miss.to_string(), shared);
        }
        self.publish(shared);
    }

    /// A stack was taken, which shows that what kept stacks away does no more.
    pub(super) fn note_stack(&mut self, was_running: bool, shared: &Shared) {
        // That of a sleeping thread shows nothing about running ones.
        if let Some((_, of_running)) = self.stacks
            && (was_running || !of_running)
        {
            self.stacks = None;
            self.publish(shared);
        }
    }

    /// What the symbolizer lacks at the moment.
    pub(super) fn note_symbols(&mut self, lack: Option<String>, shared: &Shared) {
        if lack != self.lines {
            if let Some(reason) = &lack {
                self.log(reason, shared);
            }
            self.lines = lack;
            self.publish(shared);
        }
    }

    fn log(&mut self, reason: &str, shared: &Shared) {
        if self.logged.len() < MAX_LOGGED && self.logged.iter().all(|logged| logged != reason) {
            self.logged.push(reason.to_owned());
            shared
                .common
                .delivery
                .send(&Message::NoStacks(reason.into()));
        }
    }

    fn publish(&self, shared: &Shared) {
        let stacks = self.stacks.map(|(miss, _)| miss.to_string());
        let lack = match (stacks, &self.lines) {
            (Some(stacks), Some(lines)) => Some(format!("{stacks}; {lines}")),
            (stacks, lines) => stacks.or_else(|| lines.clone()),
        };
        *lock(&shared.common.no_stacks) = lack;
    }
}

//! The event that a sink is shown, in memory that was there before the stall.

use std::fmt::{Display, Write};

use crate::cause::Judgement;
use crate::delivery::known::Known;
use crate::os;
use crate::registry::registry;
use crate::stall::{Cause, Location, StallEvent, StallKind, Task};
use crate::watchdog::transition::Transition;

/// Room for a name, a path or the name of a system call; a longer one asks for memory.
const ROOM: usize = 512;

/// Memory for the parts of an event that have no fixed size.
#[derive(Debug)]
pub(super) struct EventBuffer {
    name: String,
    file: String,
    syscall: String,
    runtime: String,
    thread: String,
}

/// A name, in memory that is there.
fn written(room: &mut String, name: Option<impl Display>) -> Option<String> {
    let name = name?;
    let mut text = std::mem::take(room);
    // A string takes all that is written.
    let _ = write!(text, "{name}");
    Some(text)
}

impl EventBuffer {
    pub(super) fn new() -> Self {
        let room = || {
            let mut room = String::from_utf8(vec![b' '; ROOM]).unwrap_or_default();
            // Written once, so that its pages are there.
            room.clear();
            room
        };
        EventBuffer {
            name: room(),
            file: room(),
            syscall: room(),
            runtime: room(),
            thread: room(),
        }
    }

    /// Calls `with` with the event of a transition and of what is known of its stall.
    pub(super) fn with<R>(
        &mut self,
        transition: &Transition,
        known: Option<&Known>,
        with: impl FnOnce(&StallEvent) -> R,
    ) -> R {
        let mut stall = transition.stall();
        let mut judgement = transition.judgement;
        if let Some(known) = known {
            // At the very end of a stall, its thread may be seen no more.
            if known.serial >= transition.serial || judgement == Judgement::Unknown {
                judgement = known.judgement;
            }
            if stall.kind == StallKind::Turn {
                stall.one_poll = known.one_poll;
                stall.known_polls = stall.known_polls.max(Some(known.polls));
            }
            stall.stack.clone_from(&known.seen.stack);
            stall.profile.clone_from(&known.seen.profile);
            judgement = known.seen.cause(judgement);
        }
        stall.cause = self.cause(judgement);
        stall.task = self.task(transition);
        stall.runtime = written(&mut self.runtime, transition.runtime);
        stall.thread = written(&mut self.thread, transition.thread);
        let event = StallEvent {
            phase: transition.told.phase,
            stall,
        };
        let result = with(&event);
        self.take_back(event);
        result
    }

    fn cause(&mut self, judgement: Judgement) -> Cause {
        if let Judgement::Blocked(number) = judgement
            && let Some(name) = os::syscall_name(number)
        {
            let mut syscall = std::mem::take(&mut self.syscall);
            syscall.push_str(name);
            return Cause::Blocked { syscall };
        }
        judgement.into()
    }

    fn task(&mut self, transition: &Transition) -> Option<Task> {
        let layer = transition.told.culprit?;
        let label = registry().label_of(layer.label)?;
        let mut name = std::mem::take(&mut self.name);
        name.push_str(&label.name);
        let location = label.location.map(|location| {
            let mut file = std::mem::take(&mut self.file);
            file.push_str(location.file());
            Location {
                file,
                line: location.line(),
                column: location.column(),
            }
        });
        Some(Task {
            name,
            location,
            id: (layer.task != 0).then_some(layer.task),
        })
    }

    /// Takes the memory out of an event that has been delivered.
    fn take_back(&mut self, event: StallEvent) {
        let keep = |place: &mut String, mut text: String| {
            if place.capacity() == 0 {
                text.clear();
                *place = text;
            }
        };
        if let Cause::Blocked { syscall } = event.stall.cause {
            keep(&mut self.syscall, syscall);
        }
        if let Some(runtime) = event.stall.runtime {
            keep(&mut self.runtime, runtime);
        }
        if let Some(thread) = event.stall.thread {
            keep(&mut self.thread, thread);
        }
        if let Some(task) = event.stall.task {
            keep(&mut self.name, task.name);
            if let Some(location) = task.location {
                keep(&mut self.file, location.file);
            }
        }
    }
}

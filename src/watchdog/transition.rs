//! What the thread that looks hands to those that deliver and investigate: plain data.
//!
//! It is copied, never allocated: a stuck thread may hold the allocator's lock.

use std::sync::Arc;

use crate::cause::Judgement;
use crate::detector::{Told, Unit, WorkerSeen};
use crate::os::{Doing, ThreadName};
use crate::profile::Profile;
use crate::report::{self, Confidence};
use crate::runtime_name::RuntimeName;
use crate::stall::{Phase, Stack, Stall, StallEvent, StallId, StallKind, Task};

/// A stall has started, become more severe, or ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Transition {
    /// Unlike any other of its watchdog.
    pub(crate) serial: u64,
    pub(crate) told: Told,
    /// `None` on a thread outside of any.
    pub(crate) runtime: Option<RuntimeName>,
    pub(crate) thread: Option<ThreadName>,
    /// What tokio had published of its worker, if a worker is held up.
    pub(crate) turn: WorkerSeen,
    /// Whether the stall was over when this was seen.
    pub(crate) is_over: bool,
    /// What the stuck thread did at that moment.
    pub(crate) doing: Option<Doing>,
    /// The cause as far as the thread that looks could see it.
    pub(crate) judgement: Judgement,
}

/// What an investigation has found out for one [`Transition`].
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) serial: u64,
    pub(crate) id: StallId,
    pub(crate) judgement: Judgement,
    /// Of a turn: how sure it is that it is one poll.
    pub(crate) one_poll: Option<Confidence>,
    /// Of a turn: how many polls there were at least.
    pub(crate) polls: u64,
    pub(crate) seen: Whereabouts,
    /// Stacks that are being symbolized come in a moment, unlike the first of a process.
    pub(crate) stacks_are_prompt: bool,
}

/// Where the thread of a stall was, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Whereabouts {
    /// Of the place with most of the time.
    pub(crate) stack: Option<Stack>,
    /// What it did there.
    pub(crate) judgement: Judgement,
    pub(crate) profile: Option<Arc<Profile>>,
    /// Whether no stack is being symbolized.
    pub(crate) is_complete: bool,
    /// How long the stall has lasted by then, at least.
    pub(crate) lasted_ns: u64,
    /// Of that, for how long its thread has waited for a CPU or the process stood still.
    pub(crate) lost_ns: u64,
}

impl Whereabouts {
    pub(crate) const NOTHING: Whereabouts = Whereabouts {
        stack: None,
        judgement: Judgement::Unknown,
        profile: None,
        is_complete: true,
        lasted_ns: 0,
        lost_ns: 0,
    };

    fn has_several_places(&self) -> bool {
        let profile = self.profile.as_deref();
        profile.is_some_and(|profile| profile.places.len() > 1)
    }

    /// Why the thread did not go on, where that is said with the place: `by_times` is what
    /// its times speak for.
    ///
    /// Cause and place are of the same moments, unless the code is not to blame at all.
    pub(crate) fn cause(&self, by_times: Judgement) -> Judgement {
        match (by_times, self.judgement) {
            (Judgement::Starved | Judgement::Suspended, _) => by_times.refined(self.stack.as_ref()),
            (_, Judgement::Unknown) if !self.has_several_places() => {
                by_times.refined(self.stack.as_ref())
            }
            (_, seen) => seen,
        }
    }
}

impl Transition {
    /// The id of tracing's span that the stalled future was first polled in; 0 for none.
    pub(crate) fn span(&self) -> u64 {
        self.told.culprit.map_or(0, |layer| layer.span)
    }

    pub(crate) const fn id(&self) -> StallId {
        StallId(self.told.id)
    }

    pub(crate) fn event(&self) -> StallEvent {
        let task = self.told.culprit;
        let task = task.and_then(|layer| Task::of(layer.label, layer.task));
        StallEvent {
            phase: self.told.phase,
            stall: Stall {
                task,
                runtime: self.runtime.map(|name| name.to_string()),
                thread: self.thread.map(|name| name.to_string()),
                cause: self.judgement.into(),
                ..self.stall()
            },
        }
    }

    /// All of the stall that takes no memory: without task, names, cause and stack.
    pub(crate) fn stall(&self) -> Stall {
        let told = &self.told;
        Stall {
            id: self.id(),
            severity: told.severity,
            kind: told.kind,
            task: None,
            worker: match told.unit {
                Unit::Worker(worker) => Some(worker),
                Unit::Thread(_) => None,
            },
            origin: report::origin().id(),
            start_ns: told.start_ns,
            duration_ns: told.duration_ns,
            suspended_ns: told.suspended_ns,
            on_cpu_ns: told.shares.cpu_ns,
            waiting_ns: told.shares.waiting_ns,
            off_cpu_ns: told.shares.blocked_ns,
            known_polls: (told.kind == StallKind::Turn).then_some(told.shares.polls),
            one_poll: None,
            runtime: None,
            thread: None,
            cause: crate::stall::Cause::Unknown,
            stack: None,
            profile: None,
            ongoing: told.phase != Phase::Ended || told.cut_off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::SeenPlace;

    #[test]
    fn of_several_places_the_times_do_not_speak_for_the_first() {
        let place = || SeenPlace {
            stack: None,
            time_ns: 1,
            samples: 1,
            cause: crate::stall::Cause::Unknown,
            severity: None,
            held_by: None,
        };
        let seen = |places: Vec<SeenPlace>| Whereabouts {
            profile: Some(Arc::new(Profile {
                places,
                ..Profile::default()
            })),
            ..Whereabouts::NOTHING
        };
        let (slept, starved) = (Judgement::Blocked(202), Judgement::Starved);
        assert_eq!(seen(vec![place()]).cause(slept), slept);
        assert_eq!(
            seen(vec![place(), place()]).cause(slept),
            Judgement::Unknown
        );
        assert_eq!(seen(vec![place(), place()]).cause(starved), starved);
    }
}

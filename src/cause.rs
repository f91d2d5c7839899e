//! Why a thread does not go on: a pure judgement of what was observed.

use crate::detector::Shares;
use crate::os::{self, Doing};
use crate::stall::{Cause, Stack};
use crate::trim;

/// What is known of a stuck thread.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Evidence {
    /// What it has done since soon after the stall began.
    pub(crate) shares: Shares,
    /// Its own time alone, without that, would be no stall.
    pub(crate) is_starved: bool,
    /// For how much of the stall the whole process stood still, and how long it is.
    pub(crate) suspended_ns: u64,
    pub(crate) duration_ns: u64,
    /// What it was doing when it was last looked at.
    pub(crate) last: Option<Doing>,
    /// How it was last seen asleep.
    pub(crate) asleep: Option<Doing>,
}

/// A cause in a form that asks for no memory, for threads that must not wait for any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Judgement {
    OnCpu,
    /// In the system call of this number.
    Blocked(i64),
    Lock,
    PageFault,
    Starved,
    Suspended,
    #[default]
    Unknown,
}

impl Judgement {
    /// A wait on a futex is one for a lock if the stack shows a lock.
    pub(crate) fn refined(self, stack: Option<&Stack>) -> Self {
        match (self, stack) {
            (Judgement::Blocked(number), Some(stack))
                if os::is_futex(number) && trim::waits_for_lock(stack) =>
            {
                Judgement::Lock
            }
            (judgement, _) => judgement,
        }
    }
}

impl From<Judgement> for Cause {
    fn from(judgement: Judgement) -> Self {
        match judgement {
            Judgement::OnCpu => Cause::OnCpu,
            Judgement::Blocked(number) => Cause::Blocked {
                syscall: os::syscall_name(number)
                    .map_or_else(|| format!("syscall {number}"), str::to_owned),
            },
            Judgement::Lock => Cause::Lock,
            Judgement::PageFault => Cause::PageFault,
            Judgement::Starved => Cause::Starved,
            Judgement::Suspended => Cause::Suspended,
            Judgement::Unknown => Cause::Unknown,
        }
    }
}

/// The cause that the evidence speaks for.
pub(crate) fn judge(evidence: &Evidence) -> Judgement {
    if evidence.suspended_ns > evidence.duration_ns / 2 {
        return Judgement::Suspended;
    }
    if evidence.is_starved {
        return Judgement::Starved;
    }
    // However long it has waited for a CPU besides: its own time is what made the stall.
    let Shares {
        cpu_ns, blocked_ns, ..
    } = evidence.shares;
    if blocked_ns > cpu_ns {
        asleep(evidence.asleep)
    } else if cpu_ns > 0 {
        Judgement::OnCpu
    } else {
        // That it runs, or could, at one moment is no CPU time.
        asleep(evidence.last)
    }
}

fn asleep(how: Option<Doing>) -> Judgement {
    match how {
        Some(Doing::Blocked(number)) => Judgement::Blocked(number),
        Some(Doing::Faulting) => Judgement::PageFault,
        Some(Doing::Running) | None => Judgement::Unknown,
    }
}

/// As [`Judgement::refined`], of a cause in words.
pub(crate) fn refine(cause: Cause, stack: &Stack) -> Cause {
    match cause {
        Cause::Blocked { syscall } if syscall == "futex" && trim::waits_for_lock(stack) => {
            Cause::Lock
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_share_decides() {
        let blocked = |syscall: &str| Cause::Blocked {
            syscall: syscall.to_owned(),
        };
        let words = |evidence: &Evidence| Cause::from(judge(evidence));
        let evidence = |cpu_ns, waiting_ns, blocked_ns| Evidence {
            shares: Shares {
                cpu_ns,
                waiting_ns,
                blocked_ns,
                ..Shares::default()
            },
            asleep: Some(Doing::Blocked(74)),
            last: Some(Doing::Running),
            ..Evidence::default()
        };
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        assert_eq!(words(&evidence(1, 0, 20)), blocked("fsync"));
        assert_eq!(words(&evidence(20, 5, 3)), Cause::OnCpu);
        // A busy machine is no excuse for what a thread itself does.
        assert_eq!(words(&evidence(5, 20, 3)), Cause::OnCpu);
        let starved = Evidence {
            is_starved: true,
            ..evidence(5, 20, 3)
        };
        assert_eq!(words(&starved), Cause::Starved);
        let now = |last| {
            words(&Evidence {
                last,
                ..Evidence::default()
            })
        };
        assert_eq!(now(Some(Doing::Running)), Cause::Unknown);
        assert_eq!(now(Some(Doing::Faulting)), Cause::PageFault);
        assert_eq!(now(None), Cause::Unknown);
        assert_eq!(now(Some(Doing::Blocked(99_999))), blocked("syscall 99999"));
    }

    #[test]
    fn a_stall_that_is_mostly_standstill_is_suspended() {
        let stall = |suspended_ns| Evidence {
            shares: Shares {
                blocked_ns: 100,
                ..Shares::default()
            },
            suspended_ns,
            duration_ns: 100,
            asleep: Some(Doing::Blocked(74)),
            ..Evidence::default()
        };
        assert_eq!(judge(&stall(51)), Judgement::Suspended);
        assert_eq!(judge(&stall(50)), Judgement::Blocked(74));
    }
}

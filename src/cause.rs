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
    /// What it was doing when it was last looked at.
    pub(crate) last: Option<Doing>,
    /// How it was last seen asleep.
    pub(crate) asleep: Option<Doing>,
}

/// The cause that the evidence speaks for.
pub(crate) fn judge(evidence: &Evidence) -> Cause {
    let Shares {
        cpu_ns,
        waiting_ns,
        blocked_ns,
        ..
    } = evidence.shares;
    let all_ns = cpu_ns + waiting_ns + blocked_ns;
    if all_ns == 0 {
        return match evidence.last {
            Some(Doing::Running) => Cause::OnCpu,
            _ => asleep(evidence.last),
        };
    }
    if waiting_ns > all_ns / 2 {
        Cause::Starved
    } else if blocked_ns > cpu_ns {
        asleep(evidence.asleep)
    } else {
        Cause::OnCpu
    }
}

fn asleep(how: Option<Doing>) -> Cause {
    match how {
        Some(Doing::Blocked(number)) => Cause::Blocked {
            syscall: os::syscall_name(number)
                .map_or_else(|| format!("syscall {number}"), str::to_owned),
        },
        Some(Doing::Faulting) => Cause::PageFault,
        Some(Doing::Running) | None => Cause::Unknown,
    }
}

/// A futex is a lock if the stack says so.
pub(crate) fn refine(cause: Cause, stack: &Stack) -> Cause {
    match cause {
        Cause::Blocked { syscall } if syscall == "futex" && trim::waits_for_lock(&stack.frames) => {
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
        let evidence = |cpu_ns, waiting_ns, blocked_ns| Evidence {
            shares: Shares {
                cpu_ns,
                waiting_ns,
                blocked_ns,
                ..Shares::default()
            },
            asleep: Some(Doing::Blocked(74)),
            last: Some(Doing::Running),
        };
        #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
        assert_eq!(judge(&evidence(1, 0, 20)), blocked("fsync"));
        assert_eq!(judge(&evidence(20, 5, 3)), Cause::OnCpu);
        assert_eq!(judge(&evidence(5, 20, 3)), Cause::Starved);
        let now = |last| {
            judge(&Evidence {
                last,
                ..Evidence::default()
            })
        };
        assert_eq!(now(Some(Doing::Running)), Cause::OnCpu);
        assert_eq!(now(Some(Doing::Faulting)), Cause::PageFault);
        assert_eq!(now(None), Cause::Unknown);
        assert_eq!(now(Some(Doing::Blocked(99_999))), blocked("syscall 99999"));
    }
}

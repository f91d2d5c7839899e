//! What other tasks of a runtime did that is audited as a whole.

use crate::audit::evidence::{blocked_in, cause_of, elsewhere, refined};
use crate::audit::findings::{Findings, MEMORY_CALLS, place, task};
use crate::audit::session::{Call, OthersTurn, TaskName};
use crate::clock;
use crate::registry::registry;
use crate::report;
use crate::stall::{Cause, Phase, Stack, Stall, StallId, StallKind};
use crate::trim;

/// What the other tasks of a runtime that is audited as a whole are called.
const NEIGHBOURS: &str = "a task of the runtime";

/// Whether a worker was seen at work of the program's: without a line of the user's it is
/// tokio at work.
pub(super) fn is_of_a_task(stack: Option<&Stack>) -> bool {
    stack.is_some_and(|stack| stack.culprit.is_some()) && !elsewhere(stack)
}

impl Findings<'_> {
    /// What the other tasks of the runtime are called.
    fn neighbours(&self) -> TaskName {
        TaskName {
            name: NEIGHBOURS.to_owned(),
            location: self.session.name.location,
        }
    }

    /// A call of another task, by that one's own account.
    pub(super) fn judge_neighbours(&mut self, call: &Call, stack: Option<Stack>) {
        let name = self.neighbours();
        self.add_call(&name, call, stack.clone());
        let cause = refined(blocked_in(call), stack.as_ref());
        if let Some(at) = place(stack.as_ref()) {
            self.told.push((at, call.counts_ns()));
        }
        // Whoever holds a lock may have waited for a CPU meanwhile: what was seen from
        // outside knows of that.
        if cause == Cause::Lock || self.allowance.find(stack.as_ref()).is_some() {
            return;
        }
        let counts_ns = call.counts_ns();
        let Some(severity) = self.session.severity_of(counts_ns) else {
            return;
        };
        let stall = Stall {
            id: StallId(registry().next_stall_id()),
            severity,
            kind: StallKind::Poll,
            task: Some(task(&name)),
            worker: None,
            origin: report::origin().id(),
            runtime: None,
            thread: None,
            start_ns: clock::calibrate().now_ns().saturating_sub(call.wall_ns),
            duration_ns: call.wall_ns,
            suspended_ns: 0,
            on_cpu_ns: 0,
            waiting_ns: call.wait_ns,
            off_cpu_ns: counts_ns,
            known_polls: None,
            one_poll: None,
            cause,
            stack,
            profile: None,
            ongoing: false,
        };
        self.enter(stall, Phase::Ended);
    }

    /// Whether what was seen of a sleep is part of a call that has been told.
    fn is_told(&self, turn: &OthersTurn, stack: Option<&Stack>) -> bool {
        let at = place(stack);
        at.is_some()
            && self
                .told
                .iter()
                .any(|(of, ns)| Some(of) == at.as_ref() && *ns >= turn.ns)
    }

    /// A turn of another task, seen from outside.
    pub(super) fn judge_others(&mut self, turn: &OthersTurn) {
        let stack = self.stack(&turn.addresses);
        let frames = stack.as_ref().map_or(&[][..], |stack| &stack.frames);
        let in_the_loop = trim::passes_block_on(frames) || trim::runs_a_worker(frames);
        if !in_the_loop || !is_of_a_task(stack.as_ref()) {
            return;
        }
        let cause = refined(cause_of(Some(turn.doing)), stack.as_ref());
        let computed = cause == Cause::OnCpu;
        // At the end of an audit a call may be over whose sleep nobody has seen end.
        let is_stuck = turn.goes_on && self.session.is_expired();
        let by_call = !computed && !is_stuck && cause != Cause::Lock;
        if by_call && self.is_told(turn, stack.as_ref()) {
            return;
        }
        // Whoever holds a lock, or the memory map, may have waited for a CPU meanwhile.
        let by_others = match &cause {
            Cause::Blocked { syscall } => MEMORY_CALLS.contains(&syscall.as_str()),
            Cause::Lock | Cause::PageFault => true,
            _ => false,
        };
        let counts_ns = match by_others {
            true => turn.ns.saturating_sub(turn.contended_ns),
            false => turn.ns,
        };
        let severity = self.session.severity_of(counts_ns);
        if !computed && (!by_others || severity.is_some()) {
            self.add(&self.neighbours(), cause.clone(), stack.clone(), 1, turn.ns);
        }
        let Some(severity) = severity else { return };
        if let Some(at) = self.allowance.find(stack.as_ref()) {
            if computed {
                self.allowance.make_use(at, 0, turn.ns);
            }
            return;
        }
        let stall = Stall {
            id: StallId(registry().next_stall_id()),
            severity,
            kind: StallKind::Turn,
            task: None,
            worker: Some(turn.worker),
            origin: report::origin().id(),
            start_ns: clock::calibrate().now_ns().saturating_sub(turn.ns),
            duration_ns: turn.ns,
            suspended_ns: 0,
            on_cpu_ns: if computed { turn.ns } else { 0 },
            waiting_ns: 0,
            off_cpu_ns: if computed { 0 } else { turn.ns },
            known_polls: None,
            one_poll: None,
            runtime: None,
            thread: None,
            cause,
            stack,
            profile: None,
            ongoing: turn.goes_on,
        };
        if computed {
            self.unsure.push(stall);
        } else {
            let phase = match turn.goes_on {
                true => Phase::Started,
                false => Phase::Ended,
            };
            self.enter(stall, phase);
        }
    }
}

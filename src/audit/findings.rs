//! From what an audit has gathered to its report.

mod others;

use std::borrow::Cow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::audit::allowance::Allowance;
use crate::audit::evidence::{
    Seen, at_its_panic, blocked_in, cause_of, elsewhere, is_called, refined, why,
};
use crate::audit::findings::others::is_of_a_task;
use crate::audit::polls::Polls;
use crate::audit::session::{Call, Noted, Session, Sighting, TaskName};
use crate::blocking::{Allowed, Blocking, Detection};
use crate::clock;
use crate::health::Health;
use crate::histogram::{Histogram, Summary};
use crate::ledger::Ledger;
use crate::os::{self, Doing, ModuleFile, Symbolizer};
use crate::owner::Ownership;
use crate::registry::{lock, registry};
use crate::report::{self, Report, SCHEMA_VERSION, TaskPolls};
use crate::severity::Severity;
use crate::slot::Seq;
use crate::stall::{Cause, Phase, Stack, Stall, StallEvent, StallId, StallKind, Task};
use crate::trim;

/// An audited poll that is not over.
#[derive(Clone, Debug)]
pub(crate) struct InProgress {
    pub(crate) thread: usize,
    pub(crate) seq: Seq,
    /// Of the audited future itself, or of one that it has spawned; `None` where that
    /// cannot be had.
    pub(crate) name: Option<TaskName>,
    pub(crate) age: Duration,
    pub(crate) doing: Option<Doing>,
}

/// How the kernel's work on a thread's own memory is called: it may have to wait
/// for another thread's, shortly, whatever the program does.
const MEMORY_CALLS: [&str; 6] = ["mmap", "munmap", "mprotect", "madvise", "mremap", "brk"];
/// What is known of an audit at this moment.
pub(crate) fn report(session: &Session, in_progress: &[InProgress]) -> Report {
    let sightings = session.sightings();
    session.with_polls(|polls| {
        let mut findings = Findings::new(session, &sightings);
        for noted in &polls.noted {
            findings.judge(noted);
        }
        for call in &polls.neighbours {
            let stack = findings.stack(&call.addresses);
            if is_of_a_task(stack.as_ref()) {
                findings.judge_neighbours(call, stack);
            }
        }
        for turn in &polls.others {
            findings.judge_others(turn);
        }
        for poll in in_progress {
            findings.judge_in_progress(poll);
        }
        findings.finish(polls)
    })
}

/// Kept from report to report: to load the debug info of a debug build takes half
/// a second.
static SYMBOLIZER: Mutex<Option<Symbolizer>> = Mutex::new(None);

/// Lets go of debug info.
pub(crate) fn release() {
    if let Some(symbolizer) = lock(&SYMBOLIZER).as_mut() {
        symbolizer.release();
    }
}

/// A poll, or what of it is not allowed, that is a stall.
struct LeftOver<'n> {
    noted: Cow<'n, Noted>,
    severity: Severity,
    cause: Cause,
    stack: Option<Stack>,
}

/// The user's line of a stack, with its function.
type Place = (Option<Arc<str>>, Option<Arc<str>>, Option<u32>);

fn place(stack: Option<&Stack>) -> Option<Place> {
    let frame = stack?.culprit()?;
    Some((frame.function.clone(), frame.file.clone(), frame.line))
}

struct Findings<'a> {
    session: &'a Session,
    sightings: &'a [Sighting],
    modules: Option<Vec<ModuleFile>>,
    ledger: Ledger,
    blocking: Vec<Blocking>,
    unsure: Vec<Stall>,
    allowance: Allowance<'a>,
    /// Where other tasks' calls were made, and for how long each slept.
    told: Vec<(Place, u64)>,
}

impl<'a> Findings<'a> {
    fn new(session: &'a Session, sightings: &'a [Sighting]) -> Self {
        Findings {
            session,
            sightings,
            modules: None,
            ledger: Ledger::default(),
            blocking: Vec::new(),
            unsure: Vec::new(),
            allowance: Allowance::new(&session.wanted.allowed),
            told: Vec::new(),
        }
    }

    fn stack(&mut self, addresses: &[u64]) -> Option<Stack> {
        if addresses.is_empty() {
            return None;
        }
        let modules = self.modules.get_or_insert_with(os::module_files).clone();
        let frames = lock(&SYMBOLIZER)
            .get_or_insert_default()
            .symbolize(addresses, modules);
        Some(trim::stack_of(frames, &Ownership::default()))
    }

    fn judge(&mut self, noted: &Noted) {
        let mut seen = self.seen(noted.thread, noted.seq);
        seen.retain(|seen| !at_its_panic(noted, seen));
        let floor_ns = self.session.floor_ns();
        let calls: Vec<(Call, Option<Stack>)> = noted
            .calls
            .iter()
            .map(|call| (call.clone(), self.stack(&call.addresses)))
            .filter(|(_, stack)| !elsewhere(stack.as_ref()))
            .filter(|(call, stack)| {
                let for_lock = refined(blocked_in(call), stack.as_ref()) == Cause::Lock;
                // See below, `excused`.
                !for_lock || call.wall_ns >= floor_ns
            })
            .collect();
        // Its worker went on without this thread: nothing was held up.
        let in_place = noted.handed_over && calls.is_empty()
            || seen.iter().any(|seen| elsewhere(seen.stack.as_ref()));
        if in_place {
            return;
        }
        self.judge_sleeps(noted, &calls, &seen);
        for (call, stack) in &calls {
            self.add_call(&noted.name, call, stack.clone());
        }
        if let Some(left) = self.left_of(noted, &calls, seen) {
            let LeftOver {
                noted,
                severity,
                cause,
                stack,
            } = left;
            let usage = noted.spent.usage;
            let stall = Stall {
                id: StallId(registry().next_stall_id()),
                severity,
                kind: StallKind::Poll,
                task: Some(task(&noted.name)),
                worker: noted.worker,
                origin: report::origin().id(),
                start_ns: noted.start_ns,
                duration_ns: noted.spent.wall_ns,
                suspended_ns: 0,
                on_cpu_ns: usage.cpu_ns,
                waiting_ns: usage.wait_ns,
                off_cpu_ns: noted.off_ns(),
                known_polls: None,
                one_poll: None,
                runtime: None,
                thread: None,
                cause,
                stack,
                profile: None,
                ongoing: false,
            };
            self.enter(stall, Phase::Ended);
        }
    }

    /// What of a poll is a stall: all of it, or the rest where some of it is allowed.
    fn left_of<'n>(
        &mut self,
        noted: &'n Noted,
        calls: &[(Call, Option<Stack>)],
        mut seen: Vec<Seen>,
    ) -> Option<LeftOver<'n>> {
        let severity = self.session.severity_of(noted.counts_ns())?;
        let (cause, stack) = why(noted, calls, &seen);
        if !self.use_allowance(&cause, stack.as_ref(), noted.spent.usage.cpu_ns) {
            return Some(LeftOver {
                noted: Cow::Borrowed(noted),
                severity,
                cause,
                stack,
            });
        }
        let computed = cause == Cause::OnCpu;
        let rest = noted.only(!computed);
        let severity = self.session.severity_of(rest.counts_ns())?;
        seen.retain(|seen| (seen.cause == Cause::OnCpu) != computed);
        let (cause, stack) = why(&rest, if computed { calls } else { &[] }, &seen);
        if self.use_allowance(&cause, stack.as_ref(), rest.spent.usage.cpu_ns) {
            return None;
        }
        Some(LeftOver {
            noted: Cow::Owned(rest),
            severity,
            cause,
            stack,
        })
    }

    /// Whether a stall is allowed. Of one that computed, the use is counted here; what others
    /// slept for is counted as blocking.
    fn use_allowance(&mut self, cause: &Cause, stack: Option<&Stack>, computed_ns: u64) -> bool {
        let allowed = self.allowance.find(stack);
        if let Some(at) = allowed
            && *cause == Cause::OnCpu
        {
            self.allowance.make_use(at, 0, computed_ns);
        }
        allowed.is_some()
    }

    /// The sleeps that no call accounts for.
    fn judge_sleeps(&mut self, noted: &Noted, calls: &[(Call, Option<Stack>)], seen: &[Seen]) {
        let in_calls: u64 = calls.iter().map(|(call, _)| call.sleeps).sum();
        let usage = noted.spent.usage;
        let unexplained = usage.sleeps.saturating_sub(in_calls);
        if unexplained == 0 && usage.major_faults == 0 {
            return;
        }
        let asleep: Vec<&Seen> = seen
            .iter()
            .filter(|seen| seen.cause != Cause::OnCpu && !is_called(seen, calls))
            .collect();
        let excused = |seen: &&Seen| match &seen.cause {
            Cause::Blocked { syscall } => MEMORY_CALLS.contains(&syscall.as_str()),
            Cause::PageFault => usage.major_faults == 0,
            // Whether it has to wait for a lock is an accident of timing, which a
            // verdict must not depend on; unless it waited for long.
            Cause::Lock => noted.off_ns() < self.session.floor_ns(),
            _ => false,
        };
        let blocked: Vec<&&Seen> = asleep.iter().filter(|seen| !excused(seen)).collect();
        for seen in &blocked {
            let sleeps = unexplained / blocked.len() as u64;
            let wall_ns = noted.spent.wall_ns / blocked.len() as u64;
            self.add(
                &noted.name,
                seen.cause.clone(),
                seen.stack.clone(),
                sleeps.max(1),
                wall_ns,
            );
        }
        let slept_in = calls.iter().filter(|(call, _)| call.sleeps > 0);
        let in_calls_ns = slept_in.map(|(call, _)| call.wall_ns).sum();
        let off_ns = noted.off_ns().saturating_sub(in_calls_ns);
        let unseen = blocked.is_empty() && (asleep.len() as u64) < unexplained.max(1);
        if !unseen {
            return;
        }
        let floor_ns = self.session.floor_ns();
        let in_message = noted.panicked && off_ns < floor_ns;
        if in_message {
            // It may have been the panic's message that slept.
        } else if usage.major_faults > 0 && !noted.panicked {
            self.add(&noted.name, Cause::PageFault, None, unexplained, off_ns);
        } else if os::DETECTION == Detection::Calls && off_ns < floor_ns {
            // It was in no call that blocks: the kernel was busy with memory.
        } else if off_ns >= floor_ns
            || off_ns
                >= noted
                    .shortest_unseen_ns(floor_ns)
                    .saturating_mul(unexplained)
        {
            self.add(&noted.name, Cause::Unknown, None, unexplained, off_ns);
        }
    }

    fn judge_in_progress(&mut self, poll: &InProgress) {
        let name = poll.name.as_ref().unwrap_or(&self.session.name);
        let age_ns = clock::ns_of(poll.age);
        let Some(severity) = self.session.severity_of(age_ns) else {
            return;
        };
        let last = self.seen(poll.thread, poll.seq).pop();
        let stack = last.and_then(|seen| seen.stack);
        if elsewhere(stack.as_ref()) {
            return;
        }
        let cause = refined(cause_of(poll.doing), stack.as_ref());
        if !matches!(cause, Cause::OnCpu | Cause::Unknown) {
            self.add(name, cause.clone(), stack.clone(), 1, age_ns);
        }
        if self.use_allowance(&cause, stack.as_ref(), age_ns) {
            return;
        }
        let stall = Stall {
            id: StallId(registry().next_stall_id()),
            severity,
            kind: StallKind::Poll,
            task: Some(task(name)),
            worker: None,
            origin: report::origin().id(),
            start_ns: clock::calibrate().now_ns().saturating_sub(age_ns),
            duration_ns: age_ns,
            suspended_ns: 0,
            on_cpu_ns: 0,
            waiting_ns: 0,
            off_cpu_ns: 0,
            known_polls: None,
            one_poll: None,
            runtime: None,
            thread: None,
            cause,
            stack,
            profile: None,
            ongoing: true,
        };
        self.enter(stall, Phase::Started);
    }

    fn enter(&mut self, stall: Stall, phase: Phase) {
        self.ledger.enter(&StallEvent { phase, stall });
    }

    /// What was seen of one poll, the latest last.
    fn seen(&mut self, thread: usize, seq: Seq) -> Vec<Seen> {
        let sightings = self.sightings;
        sightings
            .iter()
            .filter(|sighting| sighting.thread == thread && sighting.seq == seq)
            .map(|sighting| {
                let stack = self.stack(&sighting.addresses);
                Seen {
                    cause: refined(cause_of(Some(sighting.doing)), stack.as_ref()),
                    stack,
                    seen: sighting.seen,
                }
            })
            .collect()
    }

    fn add_call(&mut self, name: &TaskName, call: &Call, stack: Option<Stack>) {
        let cause = refined(blocked_in(call), stack.as_ref());
        self.add(name, cause, stack, call.sleeps, call.wall_ns);
    }

    fn add(
        &mut self,
        name: &TaskName,
        cause: Cause,
        stack: Option<Stack>,
        sleeps: u64,
        wall_ns: u64,
    ) {
        if let Some(at) = self.allowance.find(stack.as_ref()) {
            self.allowance.make_use(at, sleeps, wall_ns);
            return;
        }
        let at = place(stack.as_ref());
        let same = |known: &&mut Blocking| {
            known.task.name == name.name
                && known.cause == cause
                && place(known.stack.as_ref()) == at
        };
        if let Some(known) = self.blocking.iter_mut().find(same) {
            known.count += 1;
            known.sleeps += sleeps;
            known.total_ns = known.total_ns.saturating_add(wall_ns);
            known.max_ns = known.max_ns.max(wall_ns);
        } else {
            self.blocking.push(Blocking {
                task: task(name),
                cause,
                stack,
                count: 1,
                sleeps,
                total_ns: wall_ns,
                max_ns: wall_ns,
            });
        }
    }

    fn finish(mut self, polls: &Polls) -> Report {
        if self.blocking.is_empty() && polls.omitted_blocking > 0 {
            // Whether one of them blocked is not known any more, and no verdict may be lost.
            self.blocking.push(Blocking {
                task: task(&self.session.name),
                cause: Cause::Unknown,
                stack: None,
                count: polls.omitted_blocking,
                sleeps: polls.omitted_blocking,
                total_ns: 0,
                max_ns: 0,
            });
        }
        self.blocking
            .sort_by_key(|blocking| std::cmp::Reverse(blocking.total_ns));
        // A poll that is stuck at the limit was entered as one that has ended.
        let stalls = self.ledger.at(0);
        let mut counts = stalls.counts();
        counts.add(&polls.omitted_stalls);
        let mut all = Histogram::new();
        let tasks = polls
            .by_name
            .iter()
            .map(|(name, recorder)| {
                let mut histogram = Histogram::new();
                histogram.add_recorder(recorder);
                all.merge(&histogram);
                let task = task(name);
                TaskPolls {
                    stalls: stalls.counts_of(&task.name, task.location.as_ref()),
                    name: task.name,
                    location: task.location,
                    polls: histogram.summary(),
                    delays: Summary::default(),
                }
            })
            .collect();
        let allowed = polls.allowed.iter().map(|sum| Allowed {
            reason: sum.section.reason.to_owned(),
            location: sum.section.location.into(),
            count: sum.count,
            sleeps: sum.section.sleeps,
            total_ns: sum.section.wall_ns,
        });
        let workers = tokio::runtime::Handle::try_current()
            .map_or(0, |handle| handle.metrics().num_workers());
        let watched_ns = clock::ns_of(self.session.started.elapsed());
        Report {
            version: SCHEMA_VERSION,
            origins: vec![report::origin().clone()],
            workers,
            watched_ns,
            worker_ns: watched_ns,
            max_severity: self.ledger.max_severity(),
            counts,
            hotspots: stalls.hotspots(),
            tasks,
            polls: all.summary(),
            lag: Histogram::new().summary(),
            blocking_waits: Summary::default(),
            stalls: stalls.into_list(),
            forgotten: polls.omitted(),
            health: Health::default(),
            blocking: self.blocking,
            unsure: self.unsure,
            unaudited: self.session.unaudited(),
            allowed: allowed.chain(self.allowance.into_used()).collect(),
            detection: Some(if polls.unmeasured {
                Detection::Nothing
            } else {
                os::DETECTION
            }),
        }
    }
}

fn task(name: &TaskName) -> Task {
    Task {
        name: name.name.clone(),
        location: Some(name.location.into()),
        id: None,
    }
}

//! What is found out about stalls in progress: what their threads do, and where.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::cause::{self, Evidence};
use crate::clock::Calibrated;
use crate::detector::{Observation, Shares, Told, WorkerSeen};
use crate::driven::Driven;
use crate::explain::{Explainer, Job, Purpose};
use crate::os::{Activity, Captured, Capturer, Doing, Miss, SURELY_BACK_NS};
use crate::registry::lock;
use crate::report::Confidence;
use crate::stall::{Cause, Phase, StallId, StallKind};
use crate::teller::{Message, Queue};
use crate::watchdog::Shared;
use crate::watchdog::observe::Observer;

/// How many ticks may try to get the stack of one event: a thread that
/// blocks shortly and often moves under our eyes.
const TRIES: u8 = 5;
/// See [`Open::looks`].
const MANY_LOOKS: usize = 64;

/// What is known of one stall in progress.
#[derive(Debug)]
struct Open {
    told: Told,
    /// When it was last told of.
    seen_ns: u64,
    /// How often its thread was seen asleep how.
    asleep: Vec<(Doing, u32)>,
    last: Option<Doing>,
    tries_left: u8,
    /// At the last look that tried for a stack.
    activity: Option<Activity>,
    sleep: OneSleep,
    tasks: Tasks,
}

/// The longest time that the thread of a turn has been seen in one and the same
/// sleep, which is within one poll.
#[derive(Clone, Copy, Debug, Default)]
struct OneSleep {
    /// How it sleeps now, since which look, and how often it had gone to sleep then.
    now: Option<(Doing, u64, u64)>,
    longest_ns: u64,
}

/// The tasks that the thread of a turn was seen polling while it ran.
#[derive(Clone, Copy, Debug, Default)]
struct Tasks {
    /// The one that was seen last, and since which look.
    now: Option<(u64, u64)>,
    /// Polls there were at least: between two tasks is the end of one.
    polls: u64,
    longest_ns: u64,
    next_ns: u64,
}

impl Tasks {
    /// Whether to look now: ever more rarely, some twenty times while an age grows tenfold.
    const fn are_due(&self, now_ns: u64) -> bool {
        now_ns >= self.next_ns
    }

    fn look(&mut self, now_ns: u64, age_ns: u64, task: Option<u64>) {
        let Some(task) = task else {
            self.next_ns = now_ns + age_ns / 32;
            return;
        };
        self.next_ns = now_ns + age_ns / 8;
        match self.now {
            Some((same, since_ns)) if same == task => {
                self.longest_ns = self.longest_ns.max(now_ns.saturating_sub(since_ns));
            }
            _ => {
                self.now = Some((task, now_ns));
                self.polls += 1;
            }
        }
    }

    /// How sure it is that a turn of this length was one poll. Never high: a task
    /// that wakes itself can be polled again in the same turn.
    const fn says(&self, duration_ns: u64) -> Option<Confidence> {
        if self.longest_ns >= duration_ns / 4 * 3 {
            Some(Confidence::Medium)
        } else if self.longest_ns >= duration_ns / 2 {
            Some(Confidence::Low)
        } else {
            None
        }
    }
}

impl OneSleep {
    fn look(&mut self, now_ns: u64, doing: Option<Doing>, activity: Option<Activity>) {
        let asleep = doing.filter(|doing| is_asleep(*doing)).zip(activity);
        let Some((doing, activity)) = asleep else {
            self.now = None;
            return;
        };
        match self.now {
            Some((same, since_ns, sleeps)) if same == doing && sleeps == activity.sleeps => {
                self.longest_ns = self.longest_ns.max(now_ns.saturating_sub(since_ns));
            }
            _ => self.now = Some((doing, now_ns, activity.sleeps)),
        }
    }

    /// How sure it is that a turn of this length was one poll.
    const fn says(&self, duration_ns: u64) -> Option<Confidence> {
        // Between two looks, a tick at each end is not seen.
        if self.longest_ns >= duration_ns / 10 * 9 {
            Some(Confidence::High)
        } else if self.longest_ns >= duration_ns / 2 {
            Some(Confidence::Medium)
        } else {
            None
        }
    }
}

impl Open {
    /// Whether the thread has run lately without sleeping.
    fn is_awake(&self, now: Option<Activity>) -> bool {
        if let Some((before, now)) = self.activity.zip(now) {
            return now.has_run_since(&before);
        }
        let Shares {
            cpu_ns, blocked_ns, ..
        } = self.told.shares;
        cpu_ns > SURELY_BACK_NS && blocked_ns < cpu_ns / 16
    }

    /// How often to look. A thread that sleeps shortly and often is likely to be
    /// awake at any one look; that it sleeps is known from its times.
    fn looks(&self) -> usize {
        let Shares {
            cpu_ns, blocked_ns, ..
        } = self.told.shares;
        if self.asleep.is_empty() && blocked_ns > cpu_ns / 4 {
            MANY_LOOKS
        } else {
            1
        }
    }
}

/// What is known of all stalls in progress.
#[derive(Debug)]
pub(crate) struct Inquiry {
    clock: &'static Calibrated,
    shared: Arc<Shared>,
    /// `None` where stacks are switched off.
    capturer: Option<Capturer>,
    explainer: Explainer,
    queue: Queue,
    open: HashMap<u64, Open>,
    /// Of the thread of a current-thread runtime, when it was last looked at.
    activity: Option<Activity>,
}

/// What an event is told with.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) cause: Cause,
    /// A stack was taken and is being symbolized.
    pub(crate) stack_coming: bool,
    /// Of a turn: how sure it is that it is one poll.
    pub(crate) one_poll: Option<Confidence>,
    /// Of a turn: how many polls there were at least.
    pub(crate) polls: u64,
}

impl Inquiry {
    pub(crate) fn new(
        clock: &'static Calibrated,
        shared: Arc<Shared>,
        capturer: Option<Capturer>,
        explainer: Explainer,
        queue: Queue,
    ) -> Self {
        Inquiry {
            clock,
            shared,
            capturer,
            explainer,
            queue,
            open: HashMap::new(),
            activity: None,
        }
    }

    /// Does what would make the first stall be told late.
    pub(crate) fn prepare(&mut self) {
        if let Some(capturer) = &mut self.capturer {
            capturer.prepare();
        }
    }

    /// Whether a stack is symbolized in a moment, once it is taken.
    pub(crate) fn are_stacks_prompt(&self) -> bool {
        self.explainer.is_prompt()
    }

    /// Looks into what is about to be told; takes a stack if it goes on.
    pub(crate) fn find(
        &mut self,
        told: &Told,
        goes_on: bool,
        observer: &mut Observer,
        seen: &Observation,
    ) -> Finding {
        let mut open = self.open.remove(&told.id).unwrap_or(Open {
            told: *told,
            seen_ns: 0,
            asleep: Vec::new(),
            last: None,
            tries_left: 0,
            activity: None,
            sleep: OneSleep::default(),
            tasks: Tasks::default(),
        });
        open.told = *told;
        open.seen_ns = seen.now_ns;
        let mut stack_coming = false;
        if goes_on {
            open.tries_left = TRIES;
            stack_coming = self.look(&mut open, observer, seen);
        } else if told.phase == Phase::Ended
            && let Some(capturer) = &mut self.capturer
            && let Some(addresses) = observer.last_words(capturer, told)
        {
            stack_coming = self.explain(told, addresses);
        }
        let cause = cause::judge(&Evidence {
            shares: told.shares,
            last: open.last,
            asleep: most_often(&open.asleep),
        });
        let one_poll = match told.kind {
            StallKind::Turn => {
                let by_sleep = open.sleep.says(told.duration_ns);
                by_sleep.max(open.tasks.says(told.duration_ns))
            }
            StallKind::Poll => None,
        };
        let polls = open.tasks.polls.max(told.shares.polls);
        if goes_on {
            self.open.insert(told.id, open);
        }
        Finding {
            cause,
            stack_coming,
            one_poll,
            polls,
        }
    }

    /// Goes on looking at the stalls in progress that are not told of at this tick.
    pub(crate) fn go_on(&mut self, observer: &mut Observer, seen: &Observation) {
        let mut all = std::mem::take(&mut self.open);
        for open in all.values_mut().filter(|open| open.seen_ns < seen.now_ns) {
            self.look(open, observer, seen);
        }
        self.open = all;
    }

    /// Takes the stack of a current-thread runtime's thread, to see whether it
    /// drives it; the answer comes when it is symbolized.
    pub(crate) fn ask_whether_driven(
        &mut self,
        driven: &Arc<Driven>,
        of: &WorkerSeen,
        age_ns: u64,
        observer: &mut Observer,
    ) {
        let Some(capturer) = &mut self.capturer else {
            return;
        };
        let start_ns = self.clock.now_ns();
        let (activity, stack) = observer.capture_worker(capturer, 0, of, self.activity);
        let took_ns = self.clock.now_ns() - start_ns;
        self.activity = activity;
        if let Some(addresses) = stack {
            self.explainer.send(Job {
                purpose: Purpose::Driven {
                    of: *of,
                    age_ns,
                    took_ns,
                    driven: Arc::clone(driven),
                },
                addresses,
                modules: capturer.modules(),
            });
        }
    }

    /// True if a stack was taken.
    fn look(&mut self, open: &mut Open, observer: &mut Observer, seen: &Observation) -> bool {
        let mut stack_coming = false;
        open.last = None;
        if open.tries_left > 0
            && let Some(capturer) = &mut self.capturer
        {
            let now = observer.activity(&open.told, seen);
            let awake = open.is_awake(now);
            open.activity = now;
            let captured = observer.capture(capturer, &open.told, seen, awake);
            stack_coming = captured.is_some_and(|captured| self.take(captured, open));
        }
        if !open.last.is_some_and(is_asleep) {
            let looks = open.looks();
            open.last = observer.doing(&open.told, seen, looks).or(open.last);
        }
        if open.told.kind == StallKind::Turn {
            let activity = observer.activity(&open.told, seen);
            open.sleep.look(seen.now_ns, open.last, activity);
            self.look_at_task(open, activity, observer, seen);
        }
        if let Some(doing) = open.last.filter(|doing| is_asleep(*doing)) {
            match open.asleep.iter_mut().find(|(how, _)| *how == doing) {
                Some((_, times)) => *times += 1,
                None => open.asleep.push((doing, 1)),
            }
        }
        stack_coming
    }

    fn look_at_task(
        &mut self,
        open: &mut Open,
        activity: Option<Activity>,
        observer: &Observer,
        seen: &Observation,
    ) {
        if let Some(capturer) = &mut self.capturer
            && open.tasks.are_due(seen.now_ns)
            && open.is_awake(activity)
        {
            let task = observer.task(capturer, &open.told, seen);
            let age_ns = seen.now_ns.saturating_sub(open.told.start_ns);
            open.tasks.look(seen.now_ns, age_ns, task);
        }
    }

    /// True if there is a stack.
    fn take(&mut self, captured: Result<Captured, Miss>, open: &mut Open) -> bool {
        open.tries_left -= 1;
        let (doing, stack) = match captured {
            Ok(captured) => (Some(captured.doing), captured.stack),
            Err(miss) => (None, Err(miss)),
        };
        open.last = doing;
        let miss = match stack {
            Ok(addresses) => {
                open.tries_left = 0;
                return self.explain(&open.told, addresses);
            }
            Err(miss) => miss,
        };
        if miss.is_lasting() {
            open.tries_left = 0;
            self.note_no_stacks(miss);
        }
        if matches!(miss, Miss::Late | Miss::Queued) {
            // Nothing has been tried yet, or the answer may still come.
            open.tries_left += 1;
        }
        if open.tries_left == 0 {
            self.shared.stack_misses.fetch_add(1, Relaxed);
        }
        false
    }

    /// Says so once, unless it is what the user asked for.
    fn note_no_stacks(&self, miss: Miss) {
        let mut no_stacks = lock(&self.shared.no_stacks);
        if no_stacks.is_none() && miss != Miss::SignalsOff {
            self.queue.send(Message::NoStacks(miss.to_string()));
        }
        *no_stacks = Some(miss.to_string());
    }

    /// Hands a stack on; false if it will not be symbolized.
    fn explain(&self, told: &Told, addresses: Vec<u64>) -> bool {
        self.capturer.as_ref().is_some_and(|capturer| {
            self.explainer.send(Job {
                purpose: Purpose::Stall {
                    id: StallId(told.id),
                    of_turn: told.poll.is_none(),
                },
                addresses,
                modules: capturer.modules(),
            })
        })
    }
}

fn is_asleep(doing: Doing) -> bool {
    matches!(doing, Doing::Blocked(_) | Doing::Faulting)
}

fn most_often(asleep: &[(Doing, u32)]) -> Option<Doing> {
    asleep
        .iter()
        .max_by_key(|(_, times)| *times)
        .map(|(how, _)| *how)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn activity(sleeps: u64) -> Option<Activity> {
        Some(Activity { sleeps, cpu_ns: 0 })
    }

    #[test]
    fn one_sleep_is_one_poll() {
        let mut sleep = OneSleep::default();
        for at_ms in [10, 50, 97] {
            sleep.look(at_ms * MS, Some(Doing::Blocked(35)), activity(7));
        }
        assert_eq!(sleep.longest_ns, 87 * MS);
        assert_eq!(sleep.says(95 * MS), Some(Confidence::High));
        assert_eq!(sleep.says(120 * MS), Some(Confidence::Medium));
        assert_eq!(sleep.says(300 * MS), None);
    }

    #[test]
    fn one_task_at_each_look_is_likely_one_poll_and_two_are_not() {
        let look = |tasks: &[u64]| {
            let mut seen = Tasks::default();
            for (at, task) in (1..).zip(tasks) {
                assert!(seen.are_due(at * 10 * MS));
                seen.look(at * 10 * MS, 0, Some(*task));
            }
            seen
        };
        let one = look(&[5; 10]);
        assert_eq!(one.says(110 * MS), Some(Confidence::Medium));
        assert_eq!(one.says(170 * MS), Some(Confidence::Low));
        assert_eq!(one.says(400 * MS), None);
        assert_eq!(one.polls, 1);
        let many = look(&[5, 6, 5, 5, 7, 7, 8, 5, 9, 9]);
        assert_eq!(many.says(110 * MS), None);
        assert_eq!(many.polls, 7);
    }

    #[test]
    fn looks_at_tasks_grow_rare() {
        let mut tasks = Tasks::default();
        let looks = (10..1_000).filter(|at_ms| {
            let due = tasks.are_due(at_ms * MS);
            if due {
                tasks.look(at_ms * MS, at_ms * MS, Some(1));
            }
            due
        });
        assert_eq!(looks.count(), 37);
    }

    #[test]
    fn many_sleeps_or_none_say_nothing() {
        let mut sleep = OneSleep::default();
        for at in 0..10 {
            sleep.look(at * 10 * MS, Some(Doing::Blocked(35)), activity(at));
        }
        for at in 10..20 {
            let calls = Doing::Blocked(35 + i64::try_from(at).unwrap());
            sleep.look(at * 10 * MS, Some(calls), activity(10));
            sleep.look(at * 10 * MS + MS, Some(Doing::Running), activity(10));
        }
        assert_eq!(sleep.says(200 * MS), None);
    }
}

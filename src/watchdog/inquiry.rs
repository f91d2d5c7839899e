//! What is found out about stalls in progress: what their threads do, and where.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::cause::{self, Evidence};
use crate::clock::Calibrated;
use crate::detector::{Observation, Shares, Told, WorkerSeen};
use crate::driven::Driven;
use crate::explain::{Explainer, Job, Sent};
use crate::os::{Activity, Captured, Capturer, Doing, Miss, SURELY_BACK_NS};
use crate::registry::lock;
use crate::report::Confidence;
use crate::stall::{Cause, Frame, Phase, Stack, StallId, StallKind};
use crate::teller::{Message, Queue};
use crate::trim;
use crate::watchdog::Shared;
use crate::watchdog::observe::Observer;
use crate::watchdog::one_poll::{OneSleep, Tasks};

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
    /// Taken since its last event, at hand.
    stack: Option<Stack>,
    /// And those that are being symbolized.
    stacks_coming: u32,
    /// At the last look that asked for it.
    activity: Option<Activity>,
    sleep: OneSleep,
    tasks: Tasks,
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
    explainer: Arc<Explainer>,
    queue: Queue,
    open: HashMap<u64, Open>,
    /// Of the thread of a current-thread runtime, when it was last looked at.
    activity: Option<Activity>,
}

/// What an event is told with.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) cause: Cause,
    pub(crate) stack: Option<Stack>,
    /// How many more are being symbolized.
    pub(crate) stacks_coming: u32,
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
        explainer: Arc<Explainer>,
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
            self.explainer.prepare(capturer.modules().into());
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
            stack: None,
            stacks_coming: 0,
            activity: None,
            sleep: OneSleep::default(),
            tasks: Tasks::default(),
        });
        open.told = *told;
        open.seen_ns = seen.now_ns;
        if goes_on {
            open.tries_left = TRIES;
            self.look(&mut open, observer, seen);
        } else if told.phase == Phase::Ended
            && let Some(capturer) = &mut self.capturer
            && let Some(addresses) = observer.last_words(capturer, told)
        {
            self.explain(&mut open, addresses);
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
        let stack = open.stack.take();
        let stacks_coming = std::mem::take(&mut open.stacks_coming);
        if goes_on {
            self.open.insert(told.id, open);
        }
        Finding {
            cause,
            stack,
            stacks_coming,
            one_poll,
            polls,
        }
    }

    /// Goes on looking at the stalls in progress; whether a turn is one poll also where
    /// it is told of at this tick, as its event need not wait for that.
    pub(crate) fn go_on(&mut self, observer: &mut Observer, seen: &Observation) {
        let mut all = std::mem::take(&mut self.open);
        for open in all.values_mut() {
            if open.seen_ns < seen.now_ns {
                self.look(open, observer, seen);
            }
            if open.told.kind == StallKind::Turn {
                self.look_for_one_poll(open, observer, seen);
            }
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
            let (of, clock) = (*of, self.clock);
            let answer = {
                let driven = Arc::clone(driven);
                move |frames: &[Frame]| {
                    let passes = trim::passes_block_on(frames);
                    driven.answer(&of, passes, age_ns, took_ns, clock.now_ns());
                }
            };
            let later = answer.clone();
            let sent = self.explainer.send(Job {
                addresses,
                modules: capturer.modules().into(),
                reply: Box::new(move |frames| {
                    if let Ok(frames) = frames {
                        later(&frames);
                    }
                }),
            });
            if let Sent::AtHand(frames) = sent {
                answer(&frames);
            }
        }
    }

    fn look(&mut self, open: &mut Open, observer: &mut Observer, seen: &Observation) {
        open.last = None;
        if open.tries_left > 0
            && let Some(capturer) = &mut self.capturer
        {
            let now = open
                .activity
                .and_then(|_| observer.activity(&open.told, seen));
            let awake = open.is_awake(now);
            let captured = observer.capture(capturer, &open.told, seen, awake);
            if let Some(captured) = captured {
                self.take(captured, open);
            }
            // Asked for only to compare the next try with: it takes longer than a stack.
            if open.tries_left > 0 {
                open.activity = now.or_else(|| observer.activity(&open.told, seen));
            }
        }
        if !open.last.is_some_and(|doing| doing.is_asleep()) {
            let looks = open.looks();
            open.last = observer.doing(&open.told, seen, looks).or(open.last);
        }
        if let Some(doing) = open.last.filter(|doing| doing.is_asleep()) {
            match open.asleep.iter_mut().find(|(how, _)| *how == doing) {
                Some((_, times)) => *times += 1,
                None => open.asleep.push((doing, 1)),
            }
        }
    }

    fn look_for_one_poll(&mut self, open: &mut Open, observer: &mut Observer, seen: &Observation) {
        let activity = observer.activity(&open.told, seen);
        open.sleep.look(seen.now_ns, open.last, activity);
        if let Some(capturer) = &mut self.capturer
            && open.tasks.are_due(seen.now_ns)
            && open.is_awake(activity)
        {
            let task = observer.task(capturer, &open.told, seen);
            let age_ns = seen.now_ns.saturating_sub(open.told.start_ns);
            open.tasks.look(seen.now_ns, age_ns, task);
        }
        open.activity = activity;
    }

    fn take(&mut self, captured: Result<Captured, Miss>, open: &mut Open) {
        open.tries_left -= 1;
        let (doing, stack) = match captured {
            Ok(captured) => (Some(captured.doing), captured.stack),
            Err(miss) => (None, Err(miss)),
        };
        open.last = doing;
        let miss = match stack {
            Ok(addresses) => {
                open.tries_left = 0;
                return self.explain(open, addresses);
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
    }

    /// Says so once, unless it is what the user asked for.
    fn note_no_stacks(&self, miss: Miss) {
        let mut no_stacks = lock(&self.shared.no_stacks);
        if no_stacks.is_none() && miss != Miss::SignalsOff {
            self.queue.send(Message::NoStacks(miss.to_string()));
        }
        *no_stacks = Some(miss.to_string());
    }

    /// Has a stack symbolized, for the next event.
    fn explain(&self, open: &mut Open, addresses: Vec<u64>) {
        let Some(capturer) = &self.capturer else {
            return;
        };
        let id = StallId(open.told.id);
        let of_turn = open.told.poll.is_none();
        let (shared, queue) = (Arc::clone(&self.shared), self.queue.clone());
        let sent = self.explainer.send(Job {
            addresses,
            modules: capturer.modules().into(),
            reply: Box::new(move |frames| {
                let stack = frames.ok().and_then(|frames| stack_of(frames, of_turn));
                if let Some(stack) = &stack {
                    shared.ledger().attach(id, stack);
                }
                queue.send(Message::Stack(id, stack));
            }),
        });
        match sent {
            Sent::AtHand(frames) => {
                if let Some(stack) = stack_of(frames, of_turn) {
                    self.shared.ledger().attach(id, &stack);
                    open.stack = Some(stack);
                }
            }
            Sent::Queued => open.stacks_coming += 1,
            Sent::Rejected => {
                self.shared.stack_misses.fetch_add(1, Relaxed);
            }
        }
    }
}

/// No stack of the stall, if `of_turn` says that the frames are proven to be those of a
/// thread only, and this thread may have handed its worker on.
fn stack_of(frames: Vec<Frame>, of_turn: bool) -> Option<Stack> {
    let elsewhere = of_turn && trim::passes_block_in_place(&frames);
    (!elsewhere).then(|| trim::stack_of(frames))
}

fn most_often(asleep: &[(Doing, u32)]) -> Option<Doing> {
    asleep
        .iter()
        .max_by_key(|(_, times)| *times)
        .map(|(how, _)| *how)
}

//! What is found out about the stalls of one watchdog.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::cause::{self, Evidence};
use crate::clock::Calibrated;
use crate::delivery::Message;
use crate::detector::{Spent, Told, WorkerSeen};
use crate::driven::Driven;
use crate::explain::{Explainer, Job, Sent};
use crate::os::{Captured, Capturer, Doing, Miss, SignalUse, Subject};
use crate::probes::Probes;
use crate::registry::registry;
use crate::runtime::Runtime;
use crate::stall::{Frame, Phase, Stack, StallId, StallKind};
use crate::supply::{self, Supplied};
use crate::track;
use crate::trim;
use crate::watchdog::investigator::Capturers;
use crate::watchdog::investigator::lacks::Lacks;
use crate::watchdog::investigator::open::Open;
use crate::watchdog::shared::{Request, Shared};
use crate::watchdog::stalled_thread::StalledThread;
use crate::watchdog::transition::{Finding, Transition};

/// How many looks may try to get the stack of one event: a thread that
/// blocks shortly and often moves under our eyes.
const TRIES: u8 = 5;
/// How many stalls in progress are looked at; more are those whose end was lost.
const MAX_OPEN: usize = 1024;

/// In a [`Subject`]'s id: a turn, not a stall.
const TURN: u64 = 1 << 63;

/// What a case works with.
#[derive(Debug)]
pub(crate) struct CaseSettings {
    pub(crate) clock: &'static Calibrated,
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: Runtime,
    /// `None` where stacks are switched off.
    pub(crate) signals: Option<SignalUse>,
    pub(crate) explainer: Explainer,
    pub(crate) driven: Arc<Driven>,
    /// From when on a tracked future counts as stuck.
    pub(crate) stuck_after_ns: Option<u64>,
    pub(crate) short_slices: bool,
    /// Here, because its drop may wait.
    pub(crate) _supplied: Supplied,
}

/// The stalls of one watchdog.
#[derive(Debug)]
pub(crate) struct Case {
    settings: CaseSettings,
    probes: Probes,
    open: HashMap<u64, Open>,
    next_stuck_ns: Option<u64>,
    lacks: Lacks,
}

impl Case {
    pub(crate) fn new(settings: CaseSettings) -> Self {
        Case {
            settings,
            probes: Probes::default(),
            open: HashMap::new(),
            next_stuck_ns: None,
            lacks: Lacks::default(),
        }
    }

    /// Whether its watchdog is gone and has nothing more to ask.
    pub(super) fn is_closed(&self) -> bool {
        self.settings.shared.is_stopped()
    }

    /// Does what would make the first stack come late.
    pub(super) fn prepare(&mut self, capturers: &mut Capturers) {
        if self.settings.short_slices {
            crate::os::request_short_slice();
        }
        if let Some(signals) = self.settings.signals {
            let capturer = capturers.of(signals);
            capturer.prepare();
            self.settings.explainer.prepare(capturer.modules().into());
        }
    }

    /// Answers what is asked and looks at what goes on; when to look again.
    pub(super) fn work(&mut self, capturers: &mut Capturers) -> Option<u64> {
        while let Some(request) = self.settings.shared.next_request() {
            match request {
                Request::Transition(transition) => self.find(&transition, capturers),
                Request::Driven { of, age_ns } => {
                    self.find_out_whether_driven(of, age_ns, capturers)
                }
                Request::ResumeSampling => self.settings.shared.lag.resume(),
                Request::Refill => {
                    self.settings.shared.begin_refill();
                    supply::refill();
                }
                Request::LookForStuck => self.next_stuck_ns = Some(0),
            }
        }
        let now_ns = self.settings.clock.now_ns();
        self.look_for_stuck(now_ns);
        let shared = &self.settings.shared;
        let panics = self.settings.explainer.panics();
        shared.symbolizer_panics.store(panics, Relaxed);
        let lack = self.settings.explainer.lack();
        self.lacks.note_symbols(lack, shared);
        self.probes.forget_ended();
        let mut next_ns = self.next_stuck_ns;
        let mut open = std::mem::take(&mut self.open);
        for stall in open.values_mut() {
            if stall.next_ns <= now_ns {
                self.go_on(stall, now_ns, capturers);
            }
            next_ns = Some(next_ns.map_or(stall.next_ns, |next_ns| next_ns.min(stall.next_ns)));
        }
        self.open = open;
        next_ns
    }

    /// Looks into a transition, and answers it. Takes a stack if the stall goes on.
    fn find(&mut self, transition: &Transition, capturers: &mut Capturers) {
        let told = &transition.told;
        let known = self.open.remove(&told.id);
        let mut open = known.unwrap_or_else(|| Open::new(transition));
        open.told = *told;
        open.turn = transition.turn;
        open.note(transition.doing);
        let now_ns = self.settings.clock.now_ns();
        if !transition.is_over {
            open.tries_left = TRIES;
            self.look(&mut open, now_ns, capturers);
        } else if told.phase == Phase::Ended
            && let Some(addresses) = self.last_words(&open, capturers)
        {
            self.explain(&mut open, addresses, capturers);
        }
        let judgement = cause::judge(&Evidence {
            shares: told.shares,
            suspended_ns: told.suspended_ns,
            duration_ns: told.duration_ns,
            last: open.last.or(transition.doing),
            asleep: open.most_often_asleep(),
        });
        let one_poll = match told.kind {
            StallKind::Turn => {
                let by_sleep = open.sleep.says(told.duration_ns);
                by_sleep.max(open.tasks.says(told.duration_ns))
            }
            StallKind::Poll => None,
        };
        let stack = open.stack.take();
        let finding = Finding {
            serial: transition.serial,
            id: transition.id(),
            judgement: judgement.refined(stack.as_ref()),
            one_poll,
            polls: open.tasks.polls.max(told.shares.polls),
            stack,
            stacks_coming: std::mem::take(&mut open.stacks_coming),
            stacks_are_prompt: self.settings.explainer.is_prompt(),
        };
        self.settings.shared.ledger().update(&finding);
        let message = Message::Finding(finding);
        self.settings.shared.delivery.send(&message);
        if !transition.is_over {
            open.next_ns = self.next_look_ns(told, now_ns);
            if self.open.len() >= MAX_OPEN
                && let Some(oldest) = self.open.keys().min().copied()
            {
                self.open.remove(&oldest);
            }
            self.open.insert(told.id, open);
        }
    }

    /// A tick later while a stall is young, ever later as it grows old.
    fn next_look_ns(&self, told: &Told, now_ns: u64) -> u64 {
        let age_ns = now_ns.saturating_sub(told.start_ns);
        now_ns.saturating_add(self.settings.shared.tick_ns.max(age_ns / 64))
    }

    fn go_on(&mut self, open: &mut Open, now_ns: u64, capturers: &mut Capturers) {
        open.next_ns = self.next_look_ns(&open.told, now_ns);
        self.look(open, now_ns, capturers);
    }

    fn thread_of(&self, open: &Open) -> Option<StalledThread> {
        StalledThread::of(&open.told, open.turn, &self.settings.runtime)
    }

    fn look(&mut self, open: &mut Open, now_ns: u64, capturers: &mut Capturers) {
        open.last = None;
        let Some(thread) = self.thread_of(open) else {
            return;
        };
        let runtime = &self.settings.runtime;
        let is_current = || thread.is_current(runtime);
        if !is_current() {
            return;
        }
        let spent = self
            .probes
            .of(thread.number)
            .ok()
            .and_then(crate::os::ThreadProbe::spent);
        if open.tries_left > 0
            && let Some(captured) = self.capture(open, &thread, capturers)
        {
            open.note_task(&captured, now_ns);
            self.take(captured, open, capturers);
        }
        if !open.last.is_some_and(Doing::is_asleep) {
            let looks = open.looks();
            let doing = self
                .probes
                .of(thread.number)
                .ok()
                .and_then(|probe| probe.doing(looks));
            // A worker that has gone on since may have parked.
            let doing = doing.filter(|_| thread.is_current(&self.settings.runtime));
            open.last = doing.or(open.last);
        }
        open.note(open.last);
        if open.told.kind == StallKind::Turn {
            self.look_for_one_poll(open, &thread, spent, now_ns, capturers);
        }
    }

    fn look_for_one_poll(
        &mut self,
        open: &mut Open,
        thread: &StalledThread,
        spent: Option<Spent>,
        now_ns: u64,
        capturers: &mut Capturers,
    ) {
        open.sleep.look(now_ns, open.last, spent);
        if open.tasks.are_due(now_ns)
            && !open.last.is_some_and(Doing::is_asleep)
            && let Some(captured) = self.capture(open, thread, capturers)
        {
            open.note_task(&captured, now_ns);
        }
    }

    /// What the stalled thread does, and its stack; `None` where stacks are switched off.
    fn capture(
        &mut self,
        open: &Open,
        thread: &StalledThread,
        capturers: &mut Capturers,
    ) -> Option<Result<Captured, Miss>> {
        let capturer = capturers.of(self.settings.signals?);
        let stack = &registry().thread(thread.number)?.stack;
        let subject = Subject {
            id: open.told.id,
            anchor: thread.anchor,
            still: &|| thread.is_current(&self.settings.runtime),
        };
        let probe = self.probes.of(thread.number);
        Some(probe.and_then(|probe| capturer.capture(probe, stack, &subject)))
    }

    /// The stack that the thread of a stall that is over has left behind.
    fn last_words(&self, open: &Open, capturers: &mut Capturers) -> Option<Vec<u64>> {
        let capturer = capturers.of(self.settings.signals?);
        let thread = self.thread_of(open)?;
        let subject = Subject {
            id: open.told.id,
            anchor: thread.anchor,
            still: &|| false,
        };
        let start_ns = open.told.start_ns;
        let end_ns = start_ns.saturating_add(open.told.duration_ns);
        let was_in_it = |at| (start_ns..=end_ns).contains(&self.settings.clock.ns_of(at));
        let captured = capturer.last_words(thread.tid()?, &subject, &was_in_it)?;
        captured.stack.ok()
    }

    fn take(
        &mut self,
        captured: Result<Captured, Miss>,
        open: &mut Open,
        capturers: &mut Capturers,
    ) {
        open.tries_left -= 1;
        let (doing, stack) = match captured {
            Ok(captured) => (Some(captured.doing), captured.stack),
            Err(miss) => (None, Err(miss)),
        };
        open.last = doing;
        let was_running = doing == Some(Doing::Running);
        let miss = match stack {
            Ok(addresses) => {
                open.tries_left = 0;
                self.lacks.note_stack(was_running, &self.settings.shared);
                return self.explain(open, addresses, capturers);
            }
            Err(miss) => miss,
        };
        if miss.is_lasting() {
            open.tries_left = 0;
            self.lacks
                .note_miss(miss, was_running, &self.settings.shared);
        }
        if matches!(miss, Miss::Late | Miss::Queued | Miss::Busy) {
            // Nothing has been tried yet, or the answer may still come.
            open.tries_left += 1;
        }
        if open.tries_left == 0 {
            let shared = &self.settings.shared;
            shared.stack_misses.fetch_add(1, Relaxed);
            // Not for ever, but no chance either.
            if matches!(miss, Miss::Unproven | Miss::NoTables) {
                self.lacks.note_miss(miss, was_running, shared);
            }
        }
    }

    /// Has a stack symbolized, for the next event.
    fn explain(&self, open: &mut Open, addresses: Vec<u64>, capturers: &mut Capturers) {
        let Some(signals) = self.settings.signals else {
            return;
        };
        let id = StallId(open.told.id);
        let of_turn = open.told.poll.is_none();
        let shared = Arc::clone(&self.settings.shared);
        let sent = self.settings.explainer.send(Job {
            addresses,
            modules: capturers.of(signals).modules().into(),
            reply: Box::new(move |frames| {
                let stack = frames.ok().and_then(|frames| stack_of(frames, of_turn));
                if let Some(stack) = &stack {
                    shared.ledger().attach(id, stack);
                }
                shared.delivery.send(&Message::Stack(id, stack));
            }),
        });
        match sent {
            Sent::AtHand(frames) => open.stack = stack_of(frames, of_turn).or(open.stack.take()),
            Sent::Queued => open.stacks_coming += 1,
            Sent::Rejected => {
                self.settings.shared.stack_misses.fetch_add(1, Relaxed);
            }
        }
    }

    /// Takes the stack of a current-thread runtime's thread, to see whether it
    /// drives it; the answer comes when it is symbolized.
    fn find_out_whether_driven(&mut self, of: WorkerSeen, age_ns: u64, capturers: &mut Capturers) {
        let runtime = &self.settings.runtime;
        let Some(signals) = self.settings.signals else {
            return;
        };
        let Some(thread) = StalledThread::of_turn(0, of, runtime) else {
            return;
        };
        let Some(entry) = registry().thread(thread.number) else {
            return;
        };
        let start_ns = self.settings.clock.now_ns();
        let capturer: &mut Capturer = capturers.of(signals);
        let Ok(probe) = self.probes.of(thread.number) else {
            return;
        };
        let subject = Subject {
            id: TURN | of.parks,
            anchor: None,
            still: &|| thread.is_current(runtime),
        };
        let captured = capturer.capture(probe, &entry.stack, &subject);
        let took_ns = self.settings.clock.now_ns() - start_ns;
        let Ok(addresses) = captured.and_then(|captured| captured.stack) else {
            return;
        };
        let (clock, driven) = (self.settings.clock, Arc::clone(&self.settings.driven));
        let shared = Arc::clone(&self.settings.shared);
        let answer = move |frames: &[Frame]| {
            let passes = trim::passes_block_on(frames);
            driven.answer(&of, passes, age_ns, took_ns, clock.now_ns());
            if passes {
                shared.look_now();
            }
        };
        let later = answer.clone();
        let sent = self.settings.explainer.send(Job {
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

    fn look_for_stuck(&mut self, now_ns: u64) {
        let Some(after_ns) = self.settings.stuck_after_ns else {
            return;
        };
        if self.next_stuck_ns.is_none_or(|next_ns| next_ns > now_ns) {
            return;
        }
        let runtime = self.settings.runtime.id();
        for task in track::newly_stuck(self.settings.clock, runtime, after_ns) {
            let message = Message::Stuck(Arc::new(task));
            self.settings.shared.delivery.send(&message);
        }
        // A task that is forgotten wakes nobody: as long as there is one, this thread
        // looks by itself.
        let any = track::any(runtime);
        self.next_stuck_ns = any.then(|| now_ns + after_ns / 8);
    }
}

fn stack_of(frames: Vec<Frame>, of_turn: bool) -> Option<Stack> {
    // Its thread may have handed the worker on.
    let elsewhere = of_turn && trim::passes_block_in_place(&frames);
    (!elsewhere).then(|| trim::stack_of(frames))
}

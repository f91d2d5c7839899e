//! What is found out about the stalls of one watchdog.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::cause::{self, Evidence};
use crate::clock::Calibrated;
use crate::delivery::Message;
use crate::detector::{Told, WorkerSeen};
use crate::driven::Driven;
use crate::explain::Explainer;
use crate::os::{Capturer, SignalUse, Subject};
use crate::owner::Ownership;
use crate::probes::Probes;
use crate::registry::{lock, registry};
use crate::runtime::Runtime;
use crate::severity::Thresholds;
use crate::stall::{Frame, Phase, StallId, StallKind};
use crate::supply::{self, Supplied};
use crate::track::{self, KnownStuck};
use crate::trim;
use crate::watchdog::investigator::ahead::AskedAhead;
use crate::watchdog::investigator::lacks::Lacks;
use crate::watchdog::investigator::open::Open;
use crate::watchdog::investigator::profile::{Extent, Pace, room_among};
use crate::watchdog::investigator::{Capturers, show};
use crate::watchdog::shared::{Request, Shared};
use crate::watchdog::stalled_thread::StalledThread;
use crate::watchdog::transition::{Finding, Transition};

/// How many stalls in progress are looked at; more are those whose end was lost.
const MAX_OPEN: usize = 1024;

/// How far reports may be behind with where the time of a stall in progress went; of a
/// young one it is a sixteenth of its age.
const SHOWN_EVERY_NS: u64 = 1_000_000_000;

/// In a [`Subject`]'s id: whether it is driven is asked, not where a stall is.
const WHETHER_DRIVEN: u64 = 1 << 62;

/// What a case works with.
#[derive(Debug)]
pub(crate) struct CaseSettings {
    pub(crate) clock: &'static Calibrated,
    pub(crate) shared: Arc<Shared>,
    pub(crate) runtime: Runtime,
    /// `None` where stacks are switched off.
    pub(crate) signals: Option<SignalUse>,
    pub(crate) explainer: Arc<Explainer>,
    pub(crate) driven: Arc<Driven>,
    pub(crate) thresholds: Thresholds,
    /// From when on a tracked future counts as stuck.
    pub(crate) stuck_after_ns: Option<u64>,
    pub(crate) short_slices: bool,
    pub(crate) ownership: Arc<Ownership>,
    /// Here, because its drop may wait.
    pub(crate) _supplied: Supplied,
}

impl CaseSettings {
    pub(super) fn pace(&self) -> Pace {
        Pace {
            tick_ns: self.shared.common.tick_ns,
            thresholds: self.thresholds,
        }
    }
}

/// The stalls of one watchdog.
#[derive(Debug)]
pub(crate) struct Case {
    pub(super) settings: CaseSettings,
    pub(super) probes: Probes,
    open: HashMap<u64, Open>,
    known_stuck: KnownStuck,
    /// How many stacks each of them may have.
    pub(super) stacks_each: usize,
    next_stuck_ns: Option<u64>,
    pub(super) ahead: AskedAhead,
    pub(super) lacks: Lacks,
}

impl Case {
    pub(crate) fn new(settings: CaseSettings) -> Self {
        Case {
            settings,
            probes: Probes::default(),
            open: HashMap::new(),
            known_stuck: KnownStuck::default(),
            stacks_each: room_among(0),
            next_stuck_ns: None,
            ahead: AskedAhead::default(),
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
                Request::Ahead(thread) => self.ask_ahead(thread, capturers),
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
        shared.common.symbolizer_panics.store(panics, Relaxed);
        let lack = self.settings.explainer.lack();
        self.lacks.note_symbols(lack, shared);
        self.probes.forget_ended();
        let mut next_ns = self.next_stuck_ns;
        let mut open = std::mem::take(&mut self.open);
        self.stacks_each = room_among(open.len());
        for stall in open.values_mut() {
            if stall.next_ns <= now_ns {
                stall.next_ns = self.next_look_ns(&stall.told, now_ns);
                self.look(stall, capturers);
                self.show(stall, now_ns);
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
        let is_new = known.is_none();
        let mut open = known.unwrap_or_else(|| Open::new(transition, self.settings.pace()));
        open.told = *told;
        open.turn = transition.turn;
        if is_new && let Some(thread) = self.thread_of(&open) {
            open.asked = self.ahead.taken_over(&thread);
        }
        open.note(transition.doing);
        let now_ns = self.settings.clock.now_ns();
        if told.is_starved && told.phase == Phase::Started {
            self.say_why_starved(told);
        }
        if !transition.is_over {
            open.have_next_stack(0);
            self.look(&mut open, capturers);
        } else if told.phase == Phase::Ended {
            capturers.waits.end(told.id);
            self.take_last_words(&mut open, capturers);
        }
        let judgement = cause::judge(&Evidence {
            shares: told.shares,
            is_starved: told.is_starved,
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
        // Held until all is sent: what is seen of one stall is sent in its order.
        let mut profile = lock(&open.profile);
        profile.extend(Extent::of(told), judgement);
        let seen = profile.whereabouts();
        profile.is_awaited = !seen.is_complete;
        let finding = Finding {
            serial: transition.serial,
            id: transition.id(),
            judgement,
            one_poll,
            polls: open.tasks.polls.max(told.shares.polls),
            seen,
            stacks_are_prompt: self.settings.explainer.is_prompt(),
        };
        self.settings.shared.ledger().update(&finding);
        let message = Message::Finding(finding);
        self.settings.shared.common.delivery.send(&message);
        drop(profile);
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

    /// Of many stalls for want of a CPU one a minute comes here.
    fn say_why_starved(&self, told: &Told) {
        let shares = told.shares;
        let all_ns = shares.cpu_ns + shares.waiting_ns + shares.blocked_ns;
        if let Some(percent) = (shares.waiting_ns * 100).checked_div(all_ns) {
            let reason = crate::os::cpu_shortage().into();
            let message = Message::Starving { percent, reason };
            self.settings.shared.common.delivery.send(&message);
        }
    }

    /// Has reports know what was seen of a stall since it was last told of: of one that
    /// never ends nothing more is told.
    fn show(&self, open: &mut Open, now_ns: u64) {
        if now_ns < open.next_shown_ns {
            return;
        }
        let age_ns = now_ns.saturating_sub(open.told.start_ns);
        open.next_shown_ns = now_ns.saturating_add((age_ns / 16).min(SHOWN_EVERY_NS));
        let profile = lock(&open.profile);
        let id = StallId(open.told.id);
        show(&self.settings.shared, id, &profile);
    }

    /// A tick later while a stall is young, ever later as it grows old.
    fn next_look_ns(&self, told: &Told, now_ns: u64) -> u64 {
        let age_ns = now_ns.saturating_sub(told.start_ns);
        now_ns.saturating_add(self.settings.shared.common.tick_ns.max(age_ns / 64))
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
            id: WHETHER_DRIVEN | thread.subject(),
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
        let modules = capturer.modules().into();
        self.settings.explainer.explain(addresses, modules, answer);
    }

    fn look_for_stuck(&mut self, now_ns: u64) {
        let Some(after_ns) = self.settings.stuck_after_ns else {
            return;
        };
        if self.next_stuck_ns.is_none_or(|next_ns| next_ns > now_ns) {
            return;
        }
        let runtime = self.settings.runtime.id();
        let clock = self.settings.clock;
        for task in self.known_stuck.newly(clock, runtime, after_ns) {
            let message = Message::Stuck(Arc::new(task));
            self.settings.shared.common.delivery.send(&message);
        }
        // A task that is forgotten wakes nobody: as long as there is one, this thread
        // looks by itself.
        let any = track::any(runtime);
        self.next_stuck_ns = any.then(|| now_ns + after_ns / 8);
    }
}

//! Looks at the thread of a stall for as long as the stall lasts.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use crate::delivery::Message;
use crate::explain::{Job, Sent};
use crate::os::{Captured, Doing, Miss, Subject, ThreadProbe};
use crate::owner::Ownership;
use crate::registry::{lock, registry};
use crate::stall::{Frame, StallId, StallKind};
use crate::trim;
use crate::watchdog::investigator::Capturers;
use crate::watchdog::investigator::case::Case;
use crate::watchdog::investigator::moment::{Moment, Span};
use crate::watchdog::investigator::open::Open;
use crate::watchdog::investigator::profile::{Profile, Taken};
use crate::watchdog::shared::Shared;
use crate::watchdog::stalled_thread::StalledThread;

impl Case {
    pub(super) fn thread_of(&self, open: &Open) -> Option<StalledThread> {
        StalledThread::of(&open.told, open.turn, &self.settings.runtime)
    }

    /// Where the thread is now, and what it does.
    ///
    /// That it is in the same sleep as before is cheap to see, and it is where it was then.
    /// Else where it sleeps is read; where it runs is asked now and then.
    pub(super) fn look(&mut self, open: &mut Open, capturers: &mut Capturers) {
        open.last = None;
        let Some(thread) = self.thread_of(open) else {
            return;
        };
        if !thread.is_current(&self.settings.runtime) {
            capturers.waits.end(open.told.id);
            return;
        }
        let now = self.moment(&thread);
        if lock(&open.profile).ask_for_takeover() {
            self.look_for_takeover(open, &thread, capturers);
        }
        let asked = capturers
            .waits
            .asks_since(open.told.id, open.looked_for_locks_ns);
        let last = lock(&open.profile).last_doing();
        if last.is_some() {
            open.last = self.doing(open, &thread);
        }
        let same = open
            .last
            .is_some_and(|doing| lock(&open.profile).note_same_sleep(doing, now));
        if same {
            self.look_for_holder(open, &thread, now.at_ns, capturers);
        } else {
            capturers.waits.end(open.told.id);
            open.last_held.1.clear();
        }
        if same && asked {
            // Where it was before others waited for what it may hold.
            let captured = self.capture(open, &thread, capturers);
            if let Some(Ok(captured)) = captured {
                self.see_holding(open, &thread, &captured, now.at_ns, capturers);
            }
        } else if !same
            && (asked || open.wants_stack(open.last, last, now.at_ns))
            && let Some(captured) = self.capture(open, &thread, capturers)
        {
            if let Ok(captured) = &captured {
                let at_ns = captured
                    .at
                    .map_or(now.at_ns, |at| self.settings.clock.ns_of(at));
                self.see_holding(open, &thread, captured, at_ns, capturers);
            }
            self.take(captured, now, open, capturers);
        }
        if open.last.is_none() || last.is_none() && !open.last.is_some_and(Doing::is_asleep) {
            open.last = self.doing(open, &thread).or(open.last);
        }
        open.note(open.last);
        if open.told.kind == StallKind::Turn {
            open.sleep.look(now.at_ns, open.last, now.spent);
        }
    }

    pub(super) fn moment(&mut self, thread: &StalledThread) -> Moment {
        let probe = self.probes.of(thread.number).ok();
        let spent = probe.and_then(ThreadProbe::spent);
        Moment {
            at_ns: self.settings.clock.now_ns(),
            spent,
            still_ns: self.settings.shared.common.gaps_ns.load(Relaxed),
        }
    }

    /// What the thread does, unless the stall is over.
    fn doing(&mut self, open: &Open, thread: &StalledThread) -> Option<Doing> {
        let probe = self.probes.of(thread.number).ok()?;
        let doing = probe.doing(open.looks());
        // A worker that has gone on since may have parked.
        doing.filter(|_| thread.is_current(&self.settings.runtime))
    }

    /// What the stalled thread does, and its stack; `None` where stacks are switched off.
    fn capture(
        &mut self,
        open: &Open,
        thread: &StalledThread,
        capturers: &mut Capturers,
    ) -> Option<Result<Captured, Miss>> {
        let id = open.told.id;
        let capturer = capturers.looking_for_locks(self.settings.signals?, id);
        let stack = &registry().thread(thread.number)?.stack;
        let subject = Subject {
            id: thread.subject(),
            anchor: thread.anchor,
            still: &|| thread.is_current(&self.settings.runtime),
        };
        let probe = self.probes.of(thread.number);
        Some(probe.and_then(|probe| capturer.capture(probe, stack, &subject)))
    }

    fn take(
        &mut self,
        captured: Result<Captured, Miss>,
        now: Moment,
        open: &mut Open,
        capturers: &mut Capturers,
    ) {
        let (doing, at, stack) = match captured {
            Ok(captured) => {
                let at_ns = captured.at.map(|at| self.settings.clock.ns_of(at));
                // The thread was asked in an earlier part of the turn, which was another stall.
                if at_ns.is_some_and(|at_ns| at_ns < open.told.start_ns) {
                    open.asked = None;
                    return;
                }
                if let Some(task) = captured.task {
                    open.tasks.look(at_ns.unwrap_or(now.at_ns), task);
                }
                (Some(captured.doing), at_ns, captured.stack)
            }
            Err(miss) => (None, None, Err(miss)),
        };
        // Who was asked and has not answered yet may do so.
        if stack == Err(Miss::Late) {
            open.asked.get_or_insert(now);
            open.last = doing;
            return;
        }
        let asked = open.asked.take().unwrap_or(now);
        let (from, to) = at.map_or((now, now), |at_ns| asked.answered(&now, at_ns));
        let span = |doing| Span { doing, from, to };
        let was_running = doing == Some(Doing::Running);
        open.last = doing;
        let miss = match stack {
            Ok(addresses) => {
                self.put_off(open, now);
                self.lacks.note_stack(was_running, &self.settings.shared);
                let span = span(if at.is_some() {
                    Doing::Running
                } else {
                    doing.unwrap_or(Doing::Running)
                });
                return self.see(open, span, addresses, capturers);
            }
            // Nothing has been tried yet.
            Err(Miss::Queued | Miss::Busy) => return,
            Err(miss) => miss,
        };
        if !miss.is_lasting() && !open.gives_up() {
            return;
        }
        self.put_off(open, now);
        if let Some(doing) = doing {
            lock(&open.profile).see_nothing(span(doing));
        }
        let shared = &self.settings.shared;
        if lock(&open.profile).is_empty() && !std::mem::replace(&mut open.is_missed, true) {
            shared.common.stack_misses.fetch_add(1, Relaxed);
        }
        // The second is not for ever, but no chance either.
        if miss.is_lasting() || matches!(miss, Miss::Unproven | Miss::NoTables) {
            self.lacks.note_miss(miss, was_running, shared);
        }
    }

    fn put_off(&self, open: &mut Open, now: Moment) {
        let age_ns = now.at_ns.saturating_sub(open.told.start_ns);
        let next_ns = now
            .at_ns
            .saturating_add(self.settings.pace().next_stack_ns(age_ns));
        open.have_next_stack(next_ns);
    }

    /// Takes the stack that the thread of a stall that is over has left behind.
    pub(super) fn take_last_words(&mut self, open: &mut Open, capturers: &mut Capturers) {
        let Some((captured, at_ns)) = self.last_words(open, capturers) else {
            return;
        };
        if let Some(task) = captured.task {
            open.tasks.look(at_ns, task);
        }
        let Ok(addresses) = captured.stack else {
            return;
        };
        // How much it had computed by then, nobody knows any more.
        let at = Moment {
            at_ns,
            spent: None,
            still_ns: self.settings.shared.common.gaps_ns.load(Relaxed),
        };
        let span = Span {
            doing: Doing::Running,
            from: at,
            to: at,
        };
        self.see(open, span, addresses, capturers);
    }

    fn last_words(&self, open: &Open, capturers: &mut Capturers) -> Option<(Captured, u64)> {
        let capturer = capturers.of(self.settings.signals?);
        let thread = self.thread_of(open)?;
        let subject = Subject {
            id: thread.subject(),
            anchor: thread.anchor,
            still: &|| false,
        };
        let start_ns = open.told.start_ns;
        let end_ns = start_ns.saturating_add(open.told.duration_ns);
        let clock = self.settings.clock;
        let was_in_it = |at| (start_ns..=end_ns).contains(&clock.ns_of(at));
        let captured = capturer.last_words(thread.tid()?, &subject, &was_in_it)?;
        let at_ns = captured.at.map_or(end_ns, |at| clock.ns_of(at));
        Some((captured, at_ns))
    }

    /// Takes note that the thread was here, and has the stack symbolized if it is new.
    fn see(&self, open: &Open, span: Span, addresses: Vec<u64>, capturers: &mut Capturers) {
        let Some(signals) = self.settings.signals else {
            return;
        };
        let taken = lock(&open.profile).see(span, &addresses, self.stacks_each);
        let Taken::New(number) = taken else {
            return;
        };
        let answer = Answer {
            number,
            id: StallId(open.told.id),
            of_turn: open.told.poll.is_none(),
            ownership: Arc::clone(&self.settings.ownership),
            profile: Arc::clone(&open.profile),
            shared: Arc::clone(&self.settings.shared),
        };
        let later = answer.clone();
        let sent = self.settings.explainer.send(Job {
            addresses,
            modules: capturers.of(signals).modules().into(),
            reply: Box::new(move |frames| later.give(frames.ok())),
        });
        match sent {
            Sent::AtHand(frames) => answer.give(Some(frames)),
            Sent::Queued => {}
            Sent::Rejected => {
                answer.give(None);
                self.settings
                    .shared
                    .common
                    .stack_misses
                    .fetch_add(1, Relaxed);
            }
        }
    }
}

/// What is done with a stack once it is symbolized.
#[derive(Clone)]
struct Answer {
    number: u32,
    id: StallId,
    of_turn: bool,
    ownership: Arc<Ownership>,
    profile: Arc<Mutex<Profile>>,
    shared: Arc<Shared>,
}

impl Answer {
    fn give(&self, frames: Option<Vec<Frame>>) {
        let stack = frames.map(|frames| trim::stack_of(frames, &self.ownership));
        // Held until all is sent: what is seen of one stall is sent in its order.
        let mut profile = lock(&self.profile);
        match stack {
            Some(stack) if self.of_turn && trim::passes_block_in_place(&stack.frames) => {
                profile.resolve_in_place(self.number, stack);
            }
            stack => profile.resolve(self.number, stack),
        }
        let seen = profile.whereabouts();
        let by_times = profile.by_times;
        self.shared.ledger().see(self.id, by_times, &seen);
        if profile.is_awaited {
            profile.is_awaited = !seen.is_complete;
            self.shared
                .common
                .delivery
                .send(&Message::Seen(self.id, seen));
        }
    }
}

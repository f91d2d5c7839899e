//! Where the thread of a stall was, for how long, and what it did there: pure.
//!
//! Each look that finds where the thread is makes a [`Span`]; looks that find it in the
//! same sleep make that longer. What lies between two spans is shared out by
//! [`Span::share_gap`], what came before the first is the first's, what comes after the
//! last is the last's; but a look speaks for no more than a while around it.
//!
//! Stacks are kept once. One that computes is at another instruction each time, so what
//! is kept once is told by what the symbolizer makes of it: until then each is one of its
//! own.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use crate::cause::Judgement;
use crate::detector::Told;
use crate::holder::Holder;
use crate::os::Doing;
use crate::severity::{Severity, Thresholds};
use crate::stall::{Phase, Stack};
use crate::watchdog::investigator::lock_waits::{Proof, Seen};
use crate::watchdog::investigator::moment::{Moment, Own, Span};
use crate::watchdog::investigator::places::{Places, is_same};
use crate::watchdog::investigator::takeover::Takeover;
use crate::watchdog::investigator::tally::Tally;
use crate::watchdog::transition::Whereabouts;

/// How many different stacks of one stall are kept at most, and how many at least,
/// whatever all stalls in progress take together.
const MOST_STACKS: usize = 64;
const FEWEST_STACKS: usize = 4;
/// Of all stalls in progress of one watchdog together, some 5 KiB each.
const ALL_STACKS: usize = 4_096;
/// How many copies of one stack are known again without the symbolizer.
const MOST_COPIES: usize = 32;

/// How many stacks one stall may have while there are so many.
pub(super) fn room_among(stalls: usize) -> usize {
    (ALL_STACKS / stalls.max(1)).clamp(FEWEST_STACKS, MOST_STACKS)
}

/// Where a thread was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// At the stack of this number.
    Stack(u32),
    /// At one of those that there was no room for.
    Other,
    Unknown,
}

/// What becomes of a stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Known,
    /// To be symbolized, and [resolved](Profile::resolve) under this number.
    New(u32),
}

/// A stack, with all that is the same for those who read it.
#[derive(Clone, Debug)]
struct Kept {
    number: u32,
    /// Of the addresses that it was found by.
    hashes: Vec<u64>,
    /// `None` until it is symbolized.
    stack: Option<Stack>,
    tally: Tally,
    /// The stack, while it may be that of a thread that has handed its worker on.
    held_back: Option<Stack>,
    /// Who held the lock that it waited for there.
    holding: Option<Holding>,
}

/// Who was seen holding a lock.
#[derive(Clone, Debug)]
pub(super) struct Holding {
    pub(super) holder: Holder,
    pub(super) proof: Proof,
    stall: u64,
    /// Where the function with the guard goes on.
    pc: Option<u64>,
    first_ns: u64,
}

/// Whether it is told already that a thread holds the lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AlreadyTold {
    Yes,
    /// To be told of the stack of this number.
    Of(u32),
    /// It is not known where the waiting thread is.
    No,
}

/// How often it is looked, and from when on a stall counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) tick_ns: u64,
    pub(super) thresholds: Thresholds,
}

impl Pace {
    fn monitor_ns(&self) -> u64 {
        crate::clock::ns_of(self.thresholds.monitor)
    }

    /// For how long before and after itself a look at that age of a stall speaks.
    fn reach_ns(&self, age_ns: u64) -> u64 {
        self.monitor_ns().max(4 * self.tick_ns).max(age_ns / 4)
    }

    /// How long after a stack at that age the next is taken: 28 while an age grows from
    /// 10 ms to 250 ms, then eight a second, each of which costs a running thread some
    /// microseconds.
    pub(super) fn next_stack_ns(&self, age_ns: u64) -> u64 {
        const MOST_NS: u64 = 125_000_000;
        (age_ns / 8).min(MOST_NS).max(self.tick_ns)
    }
}

/// The stall that a profile is of, as far as it has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    pub(super) start_ns: u64,
    pub(super) duration_ns: u64,
    /// Of that, for how long its thread waited for a CPU or the process stood still.
    pub(super) lost_ns: u64,
    pub(super) severity: Severity,
    pub(super) is_over: bool,
}

impl Extent {
    pub(super) fn of(told: &Told) -> Self {
        Extent {
            is_over: told.phase == Phase::Ended,
            start_ns: told.start_ns,
            duration_ns: told.duration_ns,
            lost_ns: told.shares.waiting_ns.saturating_add(told.suspended_ns),
            severity: told.severity,
        }
    }
}

/// What has been seen of one stall.
#[derive(Debug)]
pub(super) struct Profile {
    pace: Pace,
    /// As it was last told.
    of: Extent,
    /// What its times speak for.
    pub(super) by_times: Judgement,
    kept: Vec<Kept>,
    numbers: u32,
    other: Tally,
    /// Where it was first, and when.
    first: Option<(Where, Span)>,
    last: Option<(Where, Span)>,
    /// How long the thread had waited, or the process stood still, before the first look.
    lost_before_ns: u64,
    /// Whether somebody waits for stacks that are being symbolized.
    pub(super) is_awaited: bool,
    pub(super) takeover: Takeover,
}

impl Profile {
    pub(super) fn new(of: Extent, pace: Pace) -> Self {
        Profile {
            pace,
            of,
            by_times: Judgement::Unknown,
            lost_before_ns: of.lost_ns,
            kept: Vec::new(),
            numbers: 0,
            other: Tally::default(),
            first: None,
            last: None,
            is_awaited: false,
            takeover: Takeover::default(),
        }
    }

    /// More of it has been told.
    pub(super) fn extend(&mut self, of: Extent, by_times: Judgement) {
        self.of = of;
        self.by_times = by_times;
    }

    /// Whether no stack has been seen.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// What the thread did when it was last seen.
    pub(super) fn last_doing(&self) -> Option<Doing> {
        self.last.as_ref().map(|(_, span)| span.doing)
    }

    /// Takes note that the thread is in the same sleep as at the last look, if it is: then
    /// it is where it was.
    pub(super) fn note_same_sleep(&mut self, doing: Doing, now: Moment) -> bool {
        let Some((place, span)) = &mut self.last else {
            return false;
        };
        let same = doing.is_asleep() && span.doing == doing && span.to.same_run(&now);
        if !same {
            return false;
        }
        let before = Span {
            doing,
            from: span.to,
            to: now,
        };
        span.to = now;
        let (place, own) = (*place, before.own());
        self.credit(place, doing, own);
        self.count(place);
        true
    }

    /// The thread was at this stack.
    pub(super) fn see(&mut self, span: Span, addresses: &[u64], room: usize) -> Taken {
        // Not keyed: whoever could choose addresses is within the process.
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(addresses);
        let known = self.kept.iter().find(|kept| kept.hashes.contains(&hash));
        let (place, taken) = match known {
            Some(kept) => (Where::Stack(kept.number), Taken::Known),
            None if self.kept.len() >= room => (Where::Other, Taken::Known),
            None => {
                self.numbers += 1;
                self.kept.push(Kept {
                    number: self.numbers,
                    hashes: vec![hash],
                    stack: None,
                    tally: Tally::default(),
                    held_back: None,
                    holding: None,
                });
                (Where::Stack(self.numbers), Taken::New(self.numbers))
            }
        };
        self.enter(place, span);
        taken
    }

    /// Whether it is to be found out who runs the worker; once.
    pub(super) fn ask_for_takeover(&mut self) -> bool {
        let asks = self.takeover == Takeover::Asked;
        if asks {
            self.takeover = Takeover::Unknown;
        }
        asks
    }

    /// The thread of a turn is in `block_in_place` at this stack: another may run its worker.
    pub(super) fn resolve_in_place(&mut self, number: u32, stack: Stack) {
        if self.takeover == Takeover::None {
            return self.resolve(number, Some(stack));
        }
        if self.takeover == Takeover::Unasked {
            self.takeover = Takeover::Asked;
        }
        if let Some(kept) = self.kept_of(number) {
            kept.held_back = Some(stack);
        }
    }

    /// The worker is still that thread's, so its line is to blame.
    pub(super) fn nobody_took_over(&mut self) {
        self.takeover = Takeover::None;
        let held_back = self.kept.iter_mut().filter_map(|kept| {
            let stack = kept.held_back.take()?;
            Some((kept.number, stack))
        });
        let held_back: Vec<(u32, Stack)> = held_back.collect();
        for (number, stack) in held_back {
            self.resolve(number, Some(stack));
        }
    }

    /// Another thread was seen holding the lock that this one waits for where it is.
    pub(super) fn see_holder(&mut self, seen: &Seen) -> AlreadyTold {
        let Some((Where::Stack(number), _)) = self.last else {
            return AlreadyTold::No;
        };
        let Some(kept) = self.kept_of(number) else {
            return AlreadyTold::No;
        };
        match &mut kept.holding {
            Some(holding) if holding.stall == seen.stall && holding.pc == seen.pc() => {
                holding.see(seen.at_ns);
                AlreadyTold::Yes
            }
            _ => AlreadyTold::Of(number),
        }
    }

    /// It was this one.
    pub(super) fn hold(&mut self, number: u32, seen: &Seen, holder: Holder) {
        let Some(kept) = self.kept_of(number) else {
            return;
        };
        let before = kept.holding.take();
        let same = before.filter(|before| before.stall == seen.stall);
        let mut holding = Holding {
            holder,
            proof: seen.proof,
            stall: seen.stall,
            pc: seen.pc(),
            first_ns: same.map_or(seen.at_ns, |same| same.first_ns),
        };
        holding.see(seen.at_ns);
        kept.holding = Some(holding);
    }

    fn kept_of(&mut self, number: u32) -> Option<&mut Kept> {
        self.kept.iter_mut().find(|kept| kept.number == number)
    }

    /// The thread did this, and where cannot be found out.
    pub(super) fn see_nothing(&mut self, span: Span) {
        self.enter(Where::Unknown, span);
    }

    fn enter(&mut self, place: Where, span: Span) {
        if let Some((before, last)) = self.last {
            // What was seen later may have been taken earlier.
            if span.from.at_ns < last.to.at_ns {
                return;
            }
            let (first, second) = last.share_gap(&span);
            let reach_ns = |at_ns: u64| self.pace.reach_ns(at_ns.saturating_sub(self.of.start_ns));
            let first = first.at_most(reach_ns(last.to.at_ns));
            let second = second.at_most(reach_ns(span.from.at_ns));
            self.credit(before, last.doing, first);
            self.credit(place, span.doing, second);
        } else {
            self.first = Some((place, span));
        }
        self.credit(place, span.doing, span.own());
        self.count(place);
        self.last = Some((place, span));
    }

    fn tally(&mut self, place: Where) -> Option<&mut Tally> {
        match place {
            Where::Unknown => None,
            Where::Other => Some(&mut self.other),
            Where::Stack(number) => {
                let mut kept = self.kept.iter_mut();
                let kept = kept.find(|kept| kept.number == number)?;
                Some(&mut kept.tally)
            }
        }
    }

    fn credit(&mut self, place: Where, doing: Doing, own: Own) {
        if let Some(tally) = self.tally(place) {
            tally.add(doing, own);
        }
    }

    fn count(&mut self, place: Where) {
        if let Some(tally) = self.tally(place) {
            tally.samples += 1;
        }
    }

    /// A stack has been symbolized; `None` where it turned out to be of something else.
    pub(super) fn resolve(&mut self, number: u32, stack: Option<Stack>) {
        let Some(at) = self.kept.iter().position(|kept| kept.number == number) else {
            return;
        };
        let into = match &stack {
            None => Where::Unknown,
            Some(stack) => {
                let same = |kept: &&Kept| {
                    kept.stack
                        .as_ref()
                        .is_some_and(|known| is_same(known, stack))
                };
                match self.kept.iter().find(same) {
                    Some(kept) => Where::Stack(kept.number),
                    None => {
                        if let Some(kept) = self.kept.get_mut(at) {
                            kept.stack = Some(stack.clone());
                        }
                        return;
                    }
                }
            }
        };
        let gone = self.kept.remove(at);
        if let Where::Stack(into) = into
            && let Some(kept) = self.kept_of(into)
        {
            kept.tally.add_all(&gone.tally);
            kept.holding = gone.holding.or(kept.holding.take());
            let room = MOST_COPIES.saturating_sub(kept.hashes.len());
            kept.hashes.extend(gone.hashes.iter().take(room));
        }
        for seen in [&mut self.first, &mut self.last].into_iter().flatten() {
            if seen.0 == Where::Stack(number) {
                seen.0 = into;
            }
        }
    }

    /// Its extent now: where it goes on, it has lasted until the last look at least.
    fn extent(&self) -> Extent {
        let mut of = self.of;
        if let (Some((_, first)), Some((_, last)), false) = (self.first, self.last, of.is_over) {
            let lasted_ns = last.to.at_ns.saturating_sub(of.start_ns);
            of.duration_ns = of.duration_ns.max(lasted_ns);
            let lost_ns = self.lost_before_ns + first.from.lost_ns(&last.to);
            of.lost_ns = of.lost_ns.max(lost_ns).min(of.duration_ns);
        }
        of
    }

    /// Where the thread was, as far as it is known now.
    pub(super) fn whereabouts(&self) -> Whereabouts {
        let of = &self.extent();
        let mut places = Places::default();
        let mut seen_ns = 0;
        let told = self.kept.iter().filter(|kept| kept.held_back.is_none());
        let all = told.map(|kept| {
            let place = Where::Stack(kept.number);
            let stack = kept.stack.as_ref();
            (place, stack, &kept.tally, kept.holding.as_ref())
        });
        for (place, stack, tally, holding) in all.chain([(Where::Other, None, &self.other, None)]) {
            let mut tally = tally.clone();
            for (end, doing, own) in self.ends(of).into_iter().flatten() {
                if end == place {
                    tally.add(doing, own);
                }
            }
            seen_ns += tally.ns();
            if let Some(stack) = stack {
                places.add(stack, &tally, holding);
            }
        }
        if seen_ns >= of.duration_ns.saturating_sub(of.lost_ns) / 2 {
            places.judge_by_times(self.by_times);
        }
        let is_there = |kept: &Kept| kept.stack.is_some() || kept.held_back.is_some();
        let is_complete = self.kept.iter().all(is_there);
        let mut seen = places.told(of, &self.pace.thresholds, seen_ns);
        seen.is_complete = is_complete;
        seen
    }

    /// What was done before the first look and after the last.
    fn ends(&self, of: &Extent) -> [Option<(Where, Doing, Own)>; 2] {
        let (Some((first, begin)), Some((last, end))) = (self.first, self.last) else {
            return [None, None];
        };
        let own = |doing: Doing, ns: u64| match doing {
            Doing::Running => Own {
                cpu_ns: ns,
                off_ns: 0,
            },
            _ => Own {
                cpu_ns: 0,
                off_ns: ns,
            },
        };
        let before_ns = begin.from.at_ns.saturating_sub(of.start_ns);
        let before_ns = before_ns.saturating_sub(self.lost_before_ns);
        let end_ns = of.start_ns.saturating_add(of.duration_ns);
        let after_ns = end_ns.saturating_sub(end.to.at_ns);
        let lost_ns = self.lost_before_ns + begin.from.lost_ns(&end.to);
        let after_ns = after_ns.saturating_sub(of.lost_ns.saturating_sub(lost_ns));
        let age_ns = end.to.at_ns.saturating_sub(of.start_ns);
        let after_ns = after_ns.min(self.pace.reach_ns(age_ns));
        [
            Some((first, begin.doing, own(begin.doing, before_ns))),
            Some((last, end.doing, own(end.doing, after_ns))),
        ]
    }
}

impl Holding {
    fn see(&mut self, at_ns: u64) {
        self.holder.seen_ns = at_ns.saturating_sub(self.first_ns);
    }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;

//! What a thread did between two looks at it: pure.

use crate::detector::Spent;
use crate::os::Doing;

/// What a thread had done by one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) at_ns: u64,
    /// `None` where the system does not say.
    pub(super) spent: Option<Spent>,
    /// For how long the whole process had stood still.
    pub(super) still_ns: u64,
}

/// Time in which a thread did something itself: not that of waiting for a CPU, nor that of
/// a standstill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    pub(super) cpu_ns: u64,
    pub(super) off_ns: u64,
}

impl Own {
    pub(super) const fn ns(self) -> u64 {
        self.cpu_ns + self.off_ns
    }

    const fn half(self) -> Self {
        Own {
            cpu_ns: self.cpu_ns / 2,
            off_ns: self.off_ns / 2,
        }
    }

    const fn cpu(self) -> Self {
        Own { off_ns: 0, ..self }
    }

    const fn off(self) -> Self {
        Own { cpu_ns: 0, ..self }
    }

    /// At most so much of it, in the same proportion.
    pub(super) fn at_most(self, most_ns: u64) -> Self {
        let all_ns = self.ns();
        if all_ns <= most_ns {
            return self;
        }
        let part = |ns: u64| {
            let part = u128::from(ns) * u128::from(most_ns) / u128::from(all_ns);
            u64::try_from(part).unwrap_or(most_ns)
        };
        Own {
            cpu_ns: part(self.cpu_ns),
            off_ns: part(self.off_ns),
        }
    }
}

impl Moment {
    /// Whether the thread was not given a CPU between this moment and a later one.
    pub(super) fn same_run(&self, later: &Moment) -> bool {
        let runs = self.spent.zip(later.spent);
        runs.is_some_and(|(before, after)| before.runs == after.runs && after.runs != 0)
    }

    /// From when to when a thread that was asked now, and answered later with where it was
    /// at one time, was there.
    ///
    /// It answers at the tick after, of 10 ms at most, as it returns to its own code. What
    /// it has computed for longer than that was one call into the kernel from there.
    pub(super) fn answered(&self, seen: &Moment, at_ns: u64) -> (Moment, Moment) {
        const TICK_NS: u64 = 10_000_000;
        let to = self.between(seen, at_ns);
        let (Some(asked), Some(then)) = (self.spent, to.spent) else {
            return (to, to);
        };
        let computed_ns = then.cpu_ns.saturating_sub(asked.cpu_ns);
        if computed_ns <= TICK_NS {
            return (to, to);
        }
        let part = u128::from(to.at_ns - self.at_ns) * u128::from(TICK_NS);
        let tick_ns = u64::try_from(part / u128::from(computed_ns)).unwrap_or(0);
        (self.between(seen, self.at_ns.saturating_add(tick_ns)), to)
    }

    /// For how long it waited for a CPU, or the process stood still, until then.
    pub(super) fn lost_ns(&self, later: &Moment) -> u64 {
        let waits = self.spent.zip(later.spent);
        let waited_ns = waits.map_or(0, |(before, after)| {
            after.wait_ns.saturating_sub(before.wait_ns)
        });
        waited_ns + later.still_ns.saturating_sub(self.still_ns)
    }

    /// What it did from this moment to a later one.
    ///
    /// A wait is credited when it ends: so what is known of CPU time comes first, and one
    /// that has run at both ends without a switch has not slept in between.
    fn until(&self, later: &Moment, ran: bool) -> Own {
        let all_ns = later.at_ns.saturating_sub(self.at_ns);
        let left_ns = all_ns.saturating_sub(later.still_ns.saturating_sub(self.still_ns));
        let Some((before, after)) = self.spent.zip(later.spent) else {
            return if ran {
                Own {
                    cpu_ns: left_ns,
                    off_ns: 0,
                }
            } else {
                Own {
                    cpu_ns: 0,
                    off_ns: left_ns,
                }
            };
        };
        let cpu_ns = after.cpu_ns.saturating_sub(before.cpu_ns).min(left_ns);
        let waited_ns = after.wait_ns.saturating_sub(before.wait_ns);
        let off_ns = (left_ns - cpu_ns).saturating_sub(waited_ns);
        let never_slept = ran && self.same_run(later);
        Own {
            cpu_ns,
            off_ns: if never_slept { 0 } else { off_ns },
        }
    }

    /// What it had done at a time between this moment and a later one, as if it had gone on
    /// evenly.
    pub(super) fn between(&self, later: &Moment, at_ns: u64) -> Moment {
        let all_ns = later.at_ns.saturating_sub(self.at_ns).max(1);
        let at_ns = at_ns.clamp(self.at_ns, later.at_ns.max(self.at_ns));
        let part = |from: u64, to: u64| {
            let part = u128::from(to.saturating_sub(from)) * u128::from(at_ns - self.at_ns);
            from + u64::try_from(part / u128::from(all_ns)).unwrap_or(0)
        };
        let spent = self.spent.zip(later.spent).map(|(from, to)| Spent {
            cpu_ns: part(from.cpu_ns, to.cpu_ns),
            wait_ns: part(from.wait_ns, to.wait_ns),
            runs: from.runs,
        });
        Moment {
            at_ns,
            spent,
            still_ns: part(self.still_ns, later.still_ns),
        }
    }
}

/// For how long a thread was seen to do one thing at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) doing: Doing,
    pub(super) from: Moment,
    pub(super) to: Moment,
}

impl Span {
    /// What was done within it.
    pub(super) fn own(&self) -> Own {
        self.from.until(&self.to, self.doing == Doing::Running)
    }

    /// What was done between this and a later one, of which each gets its part.
    ///
    /// The thread's own clocks say how long it computed and how long it slept. Where one
    /// of the two was seen to compute and the other to sleep, that is exact. Else each gets
    /// half.
    pub(super) fn share_gap(&self, later: &Span) -> (Own, Own) {
        let ran = |span: &Span| span.doing == Doing::Running;
        let own = self.to.until(&later.from, ran(self) && ran(later));
        match (ran(self), ran(later)) {
            _ if self.to.spent.is_none() || later.from.spent.is_none() => (own.half(), own.half()),
            (true, false) => (own.cpu(), own.off()),
            (false, true) => (own.off(), own.cpu()),
            _ => (own.half(), own.half()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn moment(at: u64, cpu: u64, wait: u64, runs: u64) -> Moment {
        Moment {
            at_ns: at * MS,
            spent: Some(Spent {
                cpu_ns: cpu * MS,
                wait_ns: wait * MS,
                runs,
            }),
            still_ns: 0,
        }
    }

    fn span(doing: Doing, at: Moment) -> Span {
        Span {
            doing,
            from: at,
            to: at,
        }
    }

    const fn own(cpu: u64, off: u64) -> Own {
        Own {
            cpu_ns: cpu * MS,
            off_ns: off * MS,
        }
    }

    #[test]
    fn the_threads_clocks_say_when_it_went_from_computing_to_sleeping() {
        let (run, sleep) = (Doing::Running, Doing::Blocked(35));
        let before = moment(100, 90, 0, 7);
        for (from, to, later, parts) in [
            (run, sleep, moment(200, 120, 0, 7), (own(30, 0), own(0, 70))),
            (sleep, run, moment(200, 120, 0, 8), (own(0, 70), own(30, 0))),
            (run, run, moment(200, 190, 0, 7), (own(50, 0), own(50, 0))),
            (
                sleep,
                sleep,
                moment(200, 90, 0, 8),
                (own(0, 50), own(0, 50)),
            ),
            // A wait for a CPU is nobody's, whether it has been credited or not.
            (run, run, moment(200, 150, 40, 9), (own(30, 0), own(30, 0))),
            (run, run, moment(200, 150, 0, 7), (own(30, 0), own(30, 0))),
            (run, run, moment(200, 150, 999, 9), (own(30, 0), own(30, 0))),
            (
                sleep,
                run,
                moment(200, 110, 30, 8),
                (own(0, 50), own(20, 0)),
            ),
        ] {
            let found = span(from, before).share_gap(&span(to, later));
            assert_eq!(found, parts, "{from:?} {to:?} {later:?}");
        }
    }

    #[test]
    fn a_standstill_is_nobodys() {
        let before = moment(100, 0, 0, 7);
        let mut later = moment(200, 0, 0, 8);
        later.still_ns = 60 * MS;
        let sleep = Doing::Blocked(35);
        let (a, b) = span(sleep, before).share_gap(&span(sleep, later));
        assert_eq!((a, b), (own(0, 20), own(0, 20)));
    }

    #[test]
    fn without_the_kernels_account_halves_are_all_there_is() {
        let at = |at_ms| Moment {
            at_ns: at_ms * MS,
            ..Moment::default()
        };
        let (a, b) = span(Doing::Running, at(10)).share_gap(&span(Doing::Blocked(1), at(30)));
        assert_eq!((a.ns(), b.ns()), (10 * MS, 10 * MS));
    }

    #[test]
    fn what_was_done_by_a_moment_in_between_is_in_proportion() {
        let found = moment(100, 10, 0, 7).between(&moment(200, 110, 50, 9), 130 * MS);
        assert_eq!(found, moment(130, 40, 15, 7));
    }

    #[test]
    fn a_late_answer_is_of_the_call_that_kept_it() {
        let asked = moment(100, 50, 0, 7);
        let at_once = asked.answered(&moment(120, 70, 0, 7), 104 * MS);
        assert_eq!(at_once, (moment(104, 54, 0, 7), moment(104, 54, 0, 7)));
        let late = asked.answered(&moment(400, 350, 0, 7), 300 * MS);
        assert_eq!(late, (moment(110, 60, 0, 7), moment(300, 250, 0, 7)));
        // It waited for a CPU: where it was meanwhile is known, but was there for no time.
        let queued = asked.answered(&moment(400, 51, 299, 8), 399 * MS);
        assert_eq!(queued.0, queued.1);
    }

    #[test]
    fn a_part_is_in_proportion() {
        assert_eq!(own(30, 10).at_most(20 * MS), own(15, 5));
        assert_eq!(own(30, 10).at_most(50 * MS), own(30, 10));
    }
}

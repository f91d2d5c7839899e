//! Which stalls are worth a line in the log: a pure rate limit per culprit.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use crate::severity::Severity;
use crate::stall::{Phase, StallId};

/// How many stalls of one culprit are told at once.
const BURST: u64 = 5;
/// After how long one more may be told.
const REFILL_NS: u64 = 1_000_000_000;
/// How many culprits are remembered.
const MAX_CULPRITS: usize = 256;
/// How many stalls in progress are remembered.
const MAX_TOLD: usize = 1024;

/// What to do with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Tell it, and that so many stalls of its culprit were kept back before.
    Tell { suppressed: u64 },
    /// Keep it back; it has been counted.
    Suppress,
}

#[derive(Debug)]
struct Culprit {
    tokens: u64,
    refilled_ns: u64,
    suppressed: u64,
}

/// At most a few stalls of each culprit; HIGH and CRITICAL ones always.
///
/// All events of a stall are told or none, but that one which becomes HIGH is
/// told from then on.
#[derive(Debug)]
pub(crate) struct RateLimit<K> {
    culprits: HashMap<K, Culprit>,
    /// Stalls in progress that are being told, and the culprit that each counts
    /// for: a better name may be found while it lasts.
    told: BTreeMap<StallId, K>,
    suppressed: u64,
}

impl<K: Hash + Eq + Clone> RateLimit<K> {
    pub(crate) fn new() -> Self {
        RateLimit {
            culprits: HashMap::new(),
            told: BTreeMap::new(),
            suppressed: 0,
        }
    }

    /// Decides on one event.
    pub(crate) fn check(
        &mut self,
        culprit: &K,
        stall: StallId,
        phase: Phase,
        severity: Severity,
        now_ns: u64,
    ) -> Verdict {
        let known = match phase {
            Phase::Ended => self.told.remove(&stall),
            Phase::Started | Phase::Escalated => self.told.get(&stall).cloned(),
        };
        let culprit = known.as_ref().unwrap_or(culprit);
        if !self.culprits.contains_key(culprit) {
            self.make_room();
        }
        let entry = self.culprits.entry(culprit.clone()).or_insert(Culprit {
            tokens: BURST,
            refilled_ns: now_ns,
            suppressed: 0,
        });
        let refill = now_ns.saturating_sub(entry.refilled_ns) / REFILL_NS;
        entry.tokens = entry.tokens.saturating_add(refill).min(BURST);
        entry.refilled_ns += refill * REFILL_NS;

        let tell = if known.is_some() || severity >= Severity::High {
            true
        } else if phase == Phase::Started && entry.tokens > 0 {
            entry.tokens -= 1;
            true
        } else {
            false
        };
        if !tell {
            if phase == Phase::Started {
                entry.suppressed += 1;
                self.suppressed += 1;
            }
            return Verdict::Suppress;
        }
        let suppressed = std::mem::take(&mut entry.suppressed);
        if known.is_none() && phase != Phase::Ended {
            // Ends may be lost: the oldest is the likeliest to be over.
            if self.told.len() >= MAX_TOLD {
                self.told.pop_first();
            }
            self.told.insert(stall, culprit.clone());
        }
        Verdict::Tell { suppressed }
    }

    /// How many stalls have been kept back in all.
    pub(crate) const fn suppressed(&self) -> u64 {
        self.suppressed
    }

    /// How many were kept back and not yet told of, by culprit.
    pub(crate) fn untold(&self) -> impl Iterator<Item = (&K, u64)> {
        self.culprits
            .iter()
            .filter(|(_, culprit)| culprit.suppressed > 0)
            .map(|(key, culprit)| (key, culprit.suppressed))
    }

    /// Forgets the culprit that has been quiet for longest; its count stays in the sum.
    fn make_room(&mut self) {
        if self.culprits.len() < MAX_CULPRITS {
            return;
        }
        let quietest = self
            .culprits
            .iter()
            .min_by_key(|(_, culprit)| culprit.refilled_ns)
            .map(|(key, _)| key.clone());
        if let Some(key) = quietest {
            self.culprits.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn stall(
        limit: &mut RateLimit<&'static str>,
        culprit: &'static str,
        id: u64,
        now_ns: u64,
    ) -> [Verdict; 2] {
        [Phase::Started, Phase::Ended]
            .map(|phase| limit.check(&culprit, StallId(id), phase, Severity::Medium, now_ns))
    }

    const TOLD: [Verdict; 2] = [Verdict::Tell { suppressed: 0 }; 2];
    const KEPT: [Verdict; 2] = [Verdict::Suppress; 2];

    #[test]
    fn a_burst_is_told_the_rest_counted_and_told_later() {
        let mut limit = RateLimit::new();
        for id in 0..BURST {
            assert_eq!(stall(&mut limit, "a", id, 0), TOLD);
        }
        for id in 10..17 {
            assert_eq!(stall(&mut limit, "a", id, 0), KEPT);
        }
        assert_eq!(stall(&mut limit, "b", 20, 0), TOLD, "another culprit");
        assert_eq!(limit.suppressed(), 7);
        assert_eq!(limit.untold().collect::<Vec<_>>(), [(&"a", 7)]);
        assert_eq!(
            stall(&mut limit, "a", 30, SECOND),
            [
                Verdict::Tell { suppressed: 7 },
                Verdict::Tell { suppressed: 0 }
            ]
        );
        assert_eq!(stall(&mut limit, "a", 31, SECOND), KEPT);
    }

    #[test]
    fn high_ones_are_always_told_from_then_on() {
        let mut limit = RateLimit::new();
        for id in 0..BURST {
            stall(&mut limit, "a", id, 0);
        }
        let mut check = |phase, severity| limit.check(&"a", StallId(9), phase, severity, 0);
        assert_eq!(check(Phase::Started, Severity::Monitor), Verdict::Suppress);
        assert_eq!(check(Phase::Escalated, Severity::Medium), Verdict::Suppress);
        // Itself among the suppressed: it is told now, as one of them.
        assert_eq!(
            check(Phase::Escalated, Severity::High),
            Verdict::Tell { suppressed: 1 }
        );
        assert_eq!(
            check(Phase::Ended, Severity::High),
            Verdict::Tell { suppressed: 0 }
        );
    }

    #[test]
    fn a_better_name_changes_nothing_for_a_stall_in_progress() {
        let mut limit = RateLimit::new();
        let mut check =
            |culprit, id, phase| limit.check(&culprit, StallId(id), phase, Severity::Medium, 0);
        for id in 0..=BURST {
            let told = check("worker 1", id, Phase::Started) == TOLD[0];
            assert_eq!(told, id < BURST, "{id}");
            let told = check("main.rs:7", id, Phase::Ended) == TOLD[0];
            assert_eq!(told, id < BURST, "{id}");
        }
        assert_eq!(limit.told.len(), 0);
    }

    #[test]
    fn the_number_of_culprits_is_bounded() {
        let mut limit = RateLimit::new();
        for culprit in 0..10_000_u64 {
            limit.check(
                &culprit,
                StallId(culprit),
                Phase::Started,
                Severity::Monitor,
                culprit,
            );
        }
        assert!(limit.culprits.len() <= MAX_CULPRITS && limit.told.len() <= MAX_TOLD);
    }
}

//! Who waits for which lock, and who was seen holding it: pure.
//!
//! A thread that is asleep waits for its lock from when that was read until it is found in the
//! same sleep for the last time. What is seen of another thread in between is of a lock that
//! is waited for; what is seen before or after is not.

use crate::os::{Held, LockKind, LockWait, Wanted};

/// How many waits are kept; of more, those are lost that were looked at longest ago.
const MOST: usize = 64;
/// How many threads are remembered as holding one lock, until the waiting one is looked at.
const MOST_SEEN: usize = 8;

/// How it is known that a thread holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// One of its functions drops the guard.
    Guard(LockKind),
    /// The lock names its owner.
    Owner,
}

/// A thread that was seen holding a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) at_ns: u64,
    pub(super) proof: Proof,
    pub(super) stall: u64,
    pub(super) tid: i32,
    pub(super) worker: Option<usize>,
    /// Its stack, and the function of it that has the guard.
    pub(super) addresses: Vec<u64>,
    pub(super) frame: usize,
}

impl Seen {
    /// Where the function with the guard goes on.
    pub(super) fn pc(&self) -> Option<u64> {
        self.addresses.get(self.frame).copied()
    }
}

/// A stalled thread, as it was just captured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Captive<'a> {
    pub(super) at_ns: u64,
    pub(super) stall: u64,
    pub(super) tid: i32,
    pub(super) worker: Option<usize>,
    pub(super) addresses: &'a [u64],
    pub(super) holds: &'a [Held],
}

#[derive(Debug)]
struct Waiting {
    stall: u64,
    tid: i32,
    on: LockWait,
    since_ns: u64,
    looked_ns: u64,
    seen: Vec<Seen>,
}

/// All that wait, of all watchdogs.
#[derive(Debug, Default)]
pub(super) struct LockWaits {
    waiting: Vec<Waiting>,
}

impl LockWaits {
    /// The thread of this stall waits.
    pub(super) fn begin(&mut self, stall: u64, tid: i32, on: LockWait, now_ns: u64) {
        self.end(stall);
        if self.waiting.len() >= MOST
            && let Some(oldest) = (0..MOST).min_by_key(|at| self.waiting[*at].looked_ns)
        {
            self.waiting.swap_remove(oldest);
        }
        self.waiting.push(Waiting {
            stall,
            tid,
            on,
            since_ns: now_ns,
            looked_ns: now_ns,
            seen: Vec::new(),
        });
    }

    /// It does no more, or it is not known.
    pub(super) fn end(&mut self, stall: u64) {
        self.waiting.retain(|waiting| waiting.stall != stall);
    }

    /// The locks that others than this stall's thread wait for.
    pub(super) fn locks_but(&self, stall: u64) -> impl Iterator<Item = Wanted> {
        let others = self.waiting.iter().rev();
        let others = others.filter(move |waiting| waiting.stall != stall);
        others.flat_map(|waiting| waiting.on.locks.iter().copied())
    }

    /// Whether another thread waits, and has begun to since then.
    pub(super) fn asks_since(&self, stall: u64, looked_ns: u64) -> bool {
        self.waiting
            .iter()
            .any(|waiting| waiting.stall != stall && waiting.since_ns >= looked_ns)
    }

    /// A thread was captured.
    pub(super) fn see(&mut self, captive: &Captive<'_>) {
        for waiting in &mut self.waiting {
            let is_other = waiting.stall != captive.stall && waiting.tid != captive.tid;
            if !is_other || captive.at_ns < waiting.since_ns || waiting.seen.len() >= MOST_SEEN {
                continue;
            }
            let held = captive
                .holds
                .iter()
                .find(|held| waiting.on.locks.contains(&held.lock));
            let (proof, frame) = match held {
                Some(held) => (Proof::Guard(held.lock.kind), held.frame),
                None if waiting.on.owner == Some(captive.tid) => (Proof::Owner, 0),
                None => continue,
            };
            waiting.seen.push(Seen {
                at_ns: captive.at_ns,
                proof,
                stall: captive.stall,
                tid: captive.tid,
                worker: captive.worker,
                addresses: captive.addresses.to_vec(),
                frame,
            });
        }
    }

    /// The thread of this stall is in the same sleep as when it began to wait: who was seen
    /// holding the lock since it was last looked at.
    pub(super) fn still_waits(&mut self, stall: u64, now_ns: u64) -> Vec<Seen> {
        let Some(waiting) = self
            .waiting
            .iter_mut()
            .find(|waiting| waiting.stall == stall)
        else {
            return Vec::new();
        };
        waiting.looked_ns = now_ns;
        let mut seen = std::mem::take(&mut waiting.seen);
        seen.retain(|seen| seen.at_ns <= now_ns);
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCK: Wanted = Wanted {
        address: 0x7f08,
        kind: LockKind::Std,
    };
    const HOLDS: &[Held] = &[Held {
        lock: LOCK,
        frame: 3,
    }];

    fn on(owner: Option<i32>) -> LockWait {
        LockWait {
            locks: vec![LOCK],
            owner,
        }
    }

    fn captive(at_ns: u64, stall: u64, holds: &[Held]) -> Captive<'_> {
        Captive {
            at_ns,
            stall,
            tid: i32::try_from(stall).unwrap(),
            worker: Some(2),
            addresses: &[1, 2, 3, 4],
            holds,
        }
    }

    #[test]
    fn who_holds_is_known_if_it_was_seen_while_the_other_waited() {
        let mut waits = LockWaits::default();
        waits.begin(7, 7, on(None), 100);
        assert!(waits.locks_but(8).eq([LOCK]));
        assert_eq!(waits.locks_but(7).count(), 0, "its own");
        waits.see(&captive(99, 8, HOLDS));
        waits.see(&captive(150, 8, &[]));
        waits.see(&captive(160, 7, HOLDS));
        assert_eq!(waits.still_waits(7, 200), [], "before, without, itself");
        waits.see(&captive(250, 8, HOLDS));
        let seen = waits.still_waits(7, 300);
        assert_eq!((seen.len(), seen[0].stall, seen[0].frame), (1, 8, 3));
        assert_eq!(waits.still_waits(7, 300), [], "once");
        waits.see(&captive(310, 8, HOLDS));
        waits.begin(7, 7, on(None), 320);
        assert_eq!(waits.still_waits(7, 330), [], "of another wait");
        waits.end(7);
        assert_eq!(waits.locks_but(8).count(), 0);
    }

    #[test]
    fn an_owner_is_taken_at_the_locks_word() {
        let mut waits = LockWaits::default();
        waits.begin(7, 7, on(Some(9)), 100);
        waits.see(&captive(150, 8, &[]));
        waits.see(&captive(160, 9, &[]));
        let seen = waits.still_waits(7, 200);
        assert_eq!(
            (seen.len(), seen[0].tid, seen[0].proof),
            (1, 9, Proof::Owner)
        );
    }

    #[test]
    fn others_are_asked_once_for_each_wait() {
        let mut waits = LockWaits::default();
        assert!(!waits.asks_since(8, 0));
        waits.begin(7, 7, on(None), 100);
        assert!(waits.asks_since(8, 100) && !waits.asks_since(8, 101));
        assert!(!waits.asks_since(7, 100), "its own");
    }

    #[test]
    fn waits_are_bounded() {
        let mut waits = LockWaits::default();
        for stall in 0..1_000 {
            waits.begin(stall, 1, on(None), stall);
        }
        assert_eq!(waits.waiting.len(), MOST);
        assert!(waits.waiting.iter().any(|waiting| waiting.stall == 999));
        for at_ns in 1_000..2_000 {
            waits.see(&captive(at_ns, 5_000, HOLDS));
        }
        assert!(
            waits
                .waiting
                .iter()
                .all(|waiting| waiting.seen.len() <= MOST_SEEN)
        );
    }
}

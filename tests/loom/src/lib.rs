//! All interleavings of one owner and one observer, of a slot and of what waits to be
//! counted; and of those that make a thread's key.
//!
//! `src/slot.rs`, `src/pending.rs` and `src/registry/timed_place.rs` are compiled once more,
//! here, with loom's atomics in place of the standard ones. Run it optimized:
//! `cargo test --release -p stallscope-loom`.

#![cfg(test)]

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, fence};
    pub(crate) use loom::thread::yield_now;
}

#[path = "../../../src/registry/timed_place.rs"]
mod timed_place;

#[allow(dead_code)]
#[path = "../../../src/pending.rs"]
mod pending;

#[allow(dead_code)]
#[path = "../../../src/slot.rs"]
mod slot;

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::sync::atomic::Ordering::Relaxed;
use pending::Pending;
use slot::{Poll, Slot, Stamp};
use sync::AtomicU32;
use timed_place::TimedPlace;

/// Interleavings with at most four preemptions: one more takes a minute, all of them hours,
/// for the owner's 24 steps against the observer's 16.
fn model_bounded(f: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(f);
}

/// A stamp whose fields all follow from one number, so that a torn one shows.
fn stamp(n: u64) -> Stamp {
    Stamp {
        start: n,
        tag: n,
        task: n,
        span: n,
        anchor: n,
    }
}

fn assert_whole(poll: &Poll) {
    assert_eq!(poll.stamp, stamp(poll.stamp.start), "torn: {poll:?}");
}

/// Runs `owner` and `observer` on the same slot, as two threads.
fn both(owner: fn(&Slot), observer: fn(&Slot)) -> Arc<Slot> {
    let slot = Arc::new(Slot::new());
    let threads = [owner, observer].map(|role| {
        let slot = Arc::clone(&slot);
        loom::thread::spawn(move || role(&slot))
    });
    for thread in threads {
        thread.join().unwrap();
    }
    slot
}

/// Runs the observer as a thread of its own, too, and waits for it.
// Not on the main thread: loom then explores hardly anything.
fn beside<T: 'static>(slot: &Arc<Slot>, observer: impl FnOnce(&Slot) -> T + 'static) -> T {
    let slot = Arc::clone(slot);
    loom::thread::spawn(move || observer(&slot)).join().unwrap()
}

#[test]
fn a_poll_is_never_read_torn() {
    model_bounded(|| {
        let slot = both(
            |slot| {
                for n in [10, 20] {
                    slot.begin(stamp(n));
                    slot.end();
                }
            },
            |slot| {
                for poll in slot.polls().as_slice() {
                    assert_whole(poll);
                }
            },
        );
        assert!(slot.polls().as_slice().is_empty());
    });
}

#[test]
fn nested_polls_are_read_whole_and_in_order() {
    model_bounded(|| {
        both(
            |slot| {
                slot.begin(stamp(10));
                slot.begin(stamp(20));
                slot.end();
                slot.end();
            },
            |slot| {
                let polls = slot.polls();
                for (poll, expected) in polls.as_slice().iter().zip([10, 20]) {
                    assert_eq!(poll.stamp, stamp(expected));
                }
            },
        );
    });
}

#[test]
fn plain_and_full_polls_are_told_apart() {
    model_bounded(|| {
        both(
            |slot| {
                slot.begin(stamp(10));
                slot.end();
                slot.begin_plain(20, 20, 20);
                slot.end();
            },
            |slot| {
                for poll in slot.polls().as_slice() {
                    let plain = Stamp {
                        start: 0,
                        span: 0,
                        ..stamp(20)
                    };
                    let expected = if poll.stamp.tag == 10 {
                        stamp(10)
                    } else {
                        plain
                    };
                    assert_eq!(poll.stamp, expected);
                }
            },
        );
    });
}

#[test]
fn a_poll_seen_gone_has_left_its_end_or_missed_the_wish() {
    model_bounded(|| {
        let slot = Arc::new(Slot::new());
        let owner = {
            let slot = Arc::clone(&slot);
            loom::thread::spawn(move || {
                slot.begin_plain(10, 10, 10);
                let wanted = slot.wanted().is_some();
                if wanted {
                    slot.close(99);
                }
                slot.end();
                wanted
            })
        };
        // The number of a slot's first poll.
        let first = {
            let other = Slot::new();
            other.begin_plain(10, 10, 10);
            other.innermost()
        };
        beside(&slot, move |slot| {
            slot.want_end();
            assert!(matches!(slot.end_of(first), None | Some(99)));
        });
        let wanted = owner.join().unwrap();
        assert_eq!(slot.end_of(first), wanted.then_some(99));
    });
}

#[test]
fn an_end_is_never_read_torn() {
    model_bounded(|| {
        let slot = Arc::new(Slot::new());
        let poll = |slot: &Slot, n| {
            slot.begin(stamp(n));
            let seq = slot.innermost();
            slot.want_end();
            slot.close(n + 1);
            slot.end();
            seq
        };
        let first = poll(&slot, 10);
        let owner = {
            let slot = Arc::clone(&slot);
            loom::thread::spawn(move || poll(&slot, 20))
        };
        beside(&slot, move |slot| {
            assert!(matches!(slot.end_of(first), None | Some(11)));
        });
        let second = owner.join().unwrap();
        assert_eq!((slot.end_of(first), slot.end_of(second)), (None, Some(21)));
    });
}

#[test]
fn a_wish_for_a_poll_is_not_taken_back_by_the_one_before() {
    model_bounded(|| {
        let slot = Arc::new(Slot::new());
        slot.begin_plain(10, 10, 10);
        slot.want_end();
        let owner = {
            let slot = Arc::clone(&slot);
            loom::thread::spawn(move || {
                slot.close(11);
                slot.end();
                slot.begin_plain(20, 20, 20);
            })
        };
        let wished = beside(&slot, |slot| {
            let polls = slot.polls();
            let second = polls.as_slice().iter().any(|poll| poll.stamp.tag == 20);
            if second {
                slot.want_end();
            }
            second
        });
        owner.join().unwrap();
        assert_eq!(slot.wanted().is_some(), wished);
    });
}

/// A key that both inputs show in.
fn key_of(place: u64, timing: u32) -> u64 {
    place << 32 | u64::from(timing)
}

/// Lets all of these change an input, as threads of their own; then the key is that of
/// the inputs as they are.
fn keys_follow(changes: &[fn(&TimedPlace, &AtomicU32)]) {
    let changes = changes.to_vec();
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let both = Arc::new((TimedPlace::new(1), AtomicU32::new(1)));
        both.0.refresh(&both.1, key_of);
        let threads: Vec<_> = changes
            .iter()
            .map(|change| {
                let (both, change) = (Arc::clone(&both), *change);
                loom::thread::spawn(move || change(&both.0, &both.1))
            })
            .collect();
        for thread in threads {
            thread.join().unwrap();
        }
        let (place, timing) = &*both;
        assert_eq!(place.key(), key_of(place.place(), timing.load(Relaxed)));
    });
}

#[test]
fn a_key_is_that_of_the_place_and_the_timing_that_stay() {
    keys_follow(&[
        |place, timing| place.set(2, timing, key_of),
        |place, timing| {
            timing.store(2, Relaxed);
            place.refresh(timing, key_of);
        },
    ]);
}

#[test]
fn a_key_follows_the_one_that_takes_a_worker_over() {
    keys_follow(&[
        |place, timing| place.set(2, timing, key_of),
        |place, timing| place.replace(1, 3, timing, key_of),
    ]);
}

/// A thread's counters, and what waits for them.
struct Counts {
    pending: Pending<1>,
    times: AtomicU64,
    sum_ns: AtomicU64,
}

impl Counts {
    /// With this duration waiting.
    fn waiting(ns: u64) -> Arc<Self> {
        let counts = Counts {
            pending: Pending::new(),
            times: AtomicU64::new(0),
            sum_ns: AtomicU64::new(0),
        };
        assert!(counts.pending.add(1, ns, 1));
        Arc::new(counts)
    }

    fn settle(&self) {
        let bump = |count: &AtomicU64, by| count.store(count.load(Relaxed) + by, Relaxed);
        self.pending.settle(|_, ns, times| {
            bump(&self.times, times);
            bump(&self.sum_ns, ns * times);
            true
        });
    }

    /// How many durations there are, and their sum, unless the owner is moving some.
    fn read(&self) -> Option<(u64, u64)> {
        let mut counted = || (self.times.load(Relaxed), self.sum_ns.load(Relaxed));
        let mut add = |all: &mut (u64, u64), _, ns, times| {
            all.0 += times;
            all.1 += ns * times;
        };
        let (all, is_whole) = self.pending.try_read(&mut counted, &mut add);
        is_whole.then_some(all)
    }
}

/// Runs `owner` beside a reader, as two threads; what the reader has found.
// Not one of them on the main thread: loom then explores hardly anything.
fn read_beside(counts: &Arc<Counts>, owner: fn(&Counts)) -> Option<(u64, u64)> {
    let owner = {
        let counts = Arc::clone(counts);
        loom::thread::spawn(move || owner(&counts))
    };
    let reader = {
        let counts = Arc::clone(counts);
        loom::thread::spawn(move || counts.read())
    };
    owner.join().unwrap();
    reader.join().unwrap()
}

#[test]
fn what_waits_is_found_once_while_it_is_counted() {
    model_bounded(|| {
        let counts = Counts::waiting(5);
        let read = read_beside(&counts, Counts::settle);
        assert!(matches!(read, None | Some((1, 5))), "{read:?}");
        assert_eq!(counts.read(), Some((1, 5)));
    });
}

#[test]
fn what_waits_is_never_taken_for_what_waited_before_it() {
    model_bounded(|| {
        let counts = Counts::waiting(5);
        let read = read_beside(&counts, |counts| {
            counts.settle();
            assert!(counts.pending.add(2, 70, 1));
        });
        assert!(matches!(read, None | Some((1, 5) | (2, 75))), "{read:?}");
        assert_eq!(counts.read(), Some((2, 75)));
    });
}

#[test]
fn a_poll_that_is_timed_as_each_is_read_whole() {
    model_bounded(|| {
        let slot = both(
            |slot| {
                for n in [10, 20] {
                    // The highest bit says that the start is of this poll.
                    assert!(slot.begin_paced(n, n | 1 << 63, n, n));
                    if let Some(wanted) = slot.wanted()
                        && slot.paced(wanted).is_none()
                    {
                        slot.close(n + 1);
                    }
                    slot.end();
                }
            },
            |slot| {
                for poll in slot.polls().as_slice() {
                    let stamp = poll.stamp;
                    let n = stamp.tag;
                    assert_eq!((stamp.start, stamp.task, stamp.anchor), (n, n, n));
                    slot.want_end();
                }
            },
        );
        assert!(slot.polls().as_slice().is_empty());
    });
}

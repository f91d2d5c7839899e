//! All interleavings of one owner and one observer of a slot.
//!
//! `src/slot.rs` is compiled once more, here, with loom's atomics in place of
//! the standard ones. Run it optimized: `cargo test --release -p stallscope-loom`.

#![cfg(test)]

mod sync {
    pub(crate) use loom::sync::atomic::AtomicU64;
}

#[allow(dead_code)]
#[path = "../../../src/slot.rs"]
mod slot;

use loom::sync::Arc;
use slot::{Poll, Slot, Stamp};

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
                    // The number and the content belong together.
                    assert_eq!(poll.stamp.start, poll.seq * 10);
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
fn a_flagged_poll_seen_gone_has_left_its_end_or_missed_the_flag() {
    model_bounded(|| {
        let slot = Arc::new(Slot::new());
        let owner = {
            let slot = Arc::clone(&slot);
            loom::thread::spawn(move || {
                let begun = slot.begin(stamp(10));
                let flagged = slot.is_flagged(begun);
                if flagged {
                    slot.finish(begun, 99);
                }
                slot.end();
                flagged
            })
        };
        slot.flag(1);
        let mut seen_end = None;
        if slot.polls().as_slice().is_empty() {
            seen_end = slot.finished();
        }
        if let Some(finished) = seen_end {
            assert_whole(&finished.poll);
            assert_eq!((finished.poll.seq, finished.end), (1, 99));
        }
        if owner.join().unwrap() {
            assert_eq!(slot.finished().map(|f| f.end), Some(99));
        }
    });
}

#[test]
fn an_end_is_never_read_torn() {
    model_bounded(|| {
        let slot = Arc::new(Slot::new());
        let poll = |slot: &Slot, n| {
            let begun = slot.begin(stamp(n));
            slot.finish(begun, n + 1);
            slot.end();
        };
        poll(&slot, 10);
        let owner = {
            let slot = Arc::clone(&slot);
            loom::thread::spawn(move || poll(&slot, 20))
        };
        if let Some(finished) = slot.finished() {
            assert_whole(&finished.poll);
            assert_eq!(finished.end, finished.poll.stamp.start + 1);
            assert_eq!(finished.poll.stamp.start, finished.poll.seq * 10);
        }
        owner.join().unwrap();
    });
}

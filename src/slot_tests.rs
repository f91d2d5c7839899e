//! The slot as its owner alone sees it; `tests/loom` has the interleavings.
//!
//! Not within `slot.rs`, which loom compiles too, and whose atomics work in its models only.

use crate::slot::{MAX_DEPTH, Slot, Stamp};

fn stamp(n: u64) -> Stamp {
    Stamp {
        start: n,
        tag: n + 1,
        task: n + 2,
        span: n + 3,
        anchor: n + 4,
    }
}

fn starts(slot: &Slot) -> Vec<u64> {
    slot.polls()
        .as_slice()
        .iter()
        .map(|poll| poll.stamp.start)
        .collect()
}

#[test]
fn nested_polls_are_read_outermost_first() {
    let slot = Slot::new();
    assert!(starts(&slot).is_empty());
    slot.begin(stamp(10));
    slot.begin(stamp(20));
    assert_eq!(starts(&slot), [10, 20]);
    slot.end();
    assert_eq!(starts(&slot), [10]);
    slot.begin(stamp(30));
    assert_eq!(starts(&slot), [10, 30]);
    slot.end();
    slot.end();
    assert!(starts(&slot).is_empty());
}

#[test]
fn numbers_are_never_used_twice() {
    let slot = Slot::new();
    let outer = slot.begin(stamp(1));
    let first = slot.begin(stamp(2));
    slot.end();
    let second = slot.begin(stamp(2));
    let seqs: Vec<_> = slot.polls().as_slice().iter().map(|p| p.seq).collect();
    assert_eq!(seqs, [outer.seq(), second.seq()]);
    assert_ne!(first.seq(), second.seq());
    slot.end();
    slot.end();
    let next = slot.begin(stamp(3));
    assert_eq!(next.seq(), 4);
}

#[test]
fn deeper_than_the_bound_is_harmless() {
    let slot = Slot::new();
    let begun: Vec<_> = (0..MAX_DEPTH as u64 + 3)
        .map(|n| slot.begin(stamp(n * 10)))
        .collect();
    assert_eq!(starts(&slot), [0, 10, 20, 30]);
    for begun in begun.into_iter().rev() {
        slot.finish(begun, 1);
        slot.end();
    }
    assert!(starts(&slot).is_empty());
}

#[test]
fn the_end_is_left_for_a_flagged_poll_only() {
    let slot = Slot::new();
    let first = slot.begin(stamp(10));
    assert!(!slot.is_flagged(first));
    slot.flag(first.seq());
    assert!(slot.is_flagged(first));
    slot.finish(first, 99);
    slot.end();
    let finished = slot.finished().unwrap();
    assert_eq!(finished.end, 99);
    assert_eq!(finished.poll.stamp, stamp(10));
    let second = slot.begin(stamp(20));
    assert!(!slot.is_flagged(second));
}

//! The slot as its owner alone sees it; `tests/loom` has the interleavings.
//!
//! Not within `slot.rs`, which loom compiles too, and whose atomics work in its models only.

use crate::registry::TIMED;
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

fn paced(slot: &Slot) -> Option<u64> {
    slot.paced(slot.wanted()?)
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
    let begin = |n| {
        slot.begin(stamp(n));
        slot.innermost()
    };
    let outer = begin(1);
    let first = begin(2);
    slot.end();
    let second = begin(2);
    let seqs: Vec<_> = slot.polls().as_slice().iter().map(|p| p.seq).collect();
    assert_eq!(seqs, [outer, second]);
    slot.end();
    slot.end();
    assert_eq!(slot.innermost(), 0);
    let mut all = vec![0, outer, first, second, begin(3)];
    slot.end();
    assert!(slot.begin_plain(0, 0, 0));
    all.push(slot.innermost());
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "{all:?}");
}

#[test]
fn a_plain_poll_has_no_start_of_another() {
    let slot = Slot::new();
    slot.begin(stamp(10));
    assert!(!slot.begin_plain(1, 2, 3), "within another");
    slot.end();
    assert!(slot.begin_plain(1, 2, 3));
    let polls = slot.polls();
    let plain = Stamp {
        start: 0,
        tag: 1,
        task: 2,
        span: 0,
        anchor: 3,
    };
    assert_eq!(polls.as_slice().first().map(|poll| poll.stamp), Some(plain));
}

#[test]
fn deeper_than_the_bound_is_harmless() {
    let slot = Slot::new();
    let depth = MAX_DEPTH as u64 + 3;
    for n in 0..depth {
        slot.begin(stamp(n * 10));
    }
    let published: Vec<u64> = (0..MAX_DEPTH as u64).map(|n| n * 10).collect();
    assert_eq!(starts(&slot), published);
    let outermost = slot.polls().as_slice()[0].seq;
    slot.want_end();
    for n in (0..depth).rev() {
        slot.close(n);
        slot.end();
    }
    assert!(starts(&slot).is_empty());
    assert_eq!(slot.end_of(outermost), Some(0));
}

#[test]
fn the_end_is_left_where_it_is_wanted_only() {
    let slot = Slot::new();
    slot.begin(stamp(10));
    let first = slot.innermost();
    assert!(slot.wanted().is_some(), "by itself, as it is timed");
    slot.close(11);
    slot.end();
    assert_eq!(slot.end_of(first), None);

    slot.begin(stamp(20));
    let second = slot.innermost();
    slot.want_end();
    slot.begin(stamp(30));
    slot.close(31);
    slot.end();
    slot.close(99);
    slot.end();
    assert_eq!(slot.end_of(second), Some(99));
    assert_eq!(slot.end_of(first), None);

    assert!(slot.begin_plain(0, 0, 0));
    assert!(slot.wanted().is_none(), "a wish is for one poll");
}

#[test]
fn an_untimed_poll_takes_the_note_of_a_paced_one_back() {
    let slot = Slot::new();
    assert!(slot.begin_paced(10, TIMED, 0, 0));
    assert_eq!(paced(&slot), Some(10));
    let paced = slot.innermost();
    slot.end();
    assert!(slot.begin_plain(0, 0, 0));
    assert!(slot.wanted().is_some());
    slot.close(12);
    slot.end();
    assert!(slot.begin_plain(0, 0, 0));
    assert!(slot.wanted().is_none());
    assert_eq!(slot.end_of(paced), None);
}

#[test]
fn a_poll_with_one_within_is_not_paced_any_more() {
    let slot = Slot::new();
    assert!(slot.begin_paced(10, TIMED, 0, 0));
    for timed in [0, 20] {
        slot.begin(stamp(timed));
        assert_eq!((paced(&slot), slot.start()), (None, timed));
        slot.close(30);
        slot.end();
    }
    assert_eq!((paced(&slot), slot.start()), (None, 10));
    assert!(slot.wanted().is_some());
}

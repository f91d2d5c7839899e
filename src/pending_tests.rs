//! Tests of [`crate::pending`], apart from it because the loom check compiles that file too.

use crate::pending::Pending;

/// What waits: of what, how long, how often.
fn waiting<const N: usize>(pending: &Pending<N>) -> Vec<(u16, u64, u64)> {
    pending.read(Vec::new, |all, what, ns, times| all.push((what, ns, times)))
}

#[test]
fn what_waits_is_kept_until_it_is_counted() {
    let pending = Pending::<2>::new();
    assert!(pending.add(0, 0, 1));
    assert!(pending.add(u16::MAX, u64::MAX, 3));
    assert!(pending.add(0, 0, 4));
    assert!(!pending.add(1, 0, 1), "no room for a third");
    let longest = (1 << 48) - 1;
    let long = (u16::MAX, longest, 3);
    assert_eq!(waiting(&pending), [(0, 0, 5), long]);
    pending.settle(|what, _, _| what == 0);
    assert_eq!(waiting(&pending), [long]);
    assert!(pending.add(1, 7, 1));
    pending.settle(|_, _, _| true);
    assert_eq!(waiting(&pending), []);
}

#[test]
fn a_reader_does_not_wait_for_ever_for_an_owner_that_is_in_a_move() {
    let pending = Pending::<1>::new();
    assert!(pending.add(1, 7, 1));
    let mut seen = Vec::new();
    pending.settle(|_, _, _| {
        seen = waiting(&pending);
        true
    });
    assert_eq!(seen, [(1, 7, 1)]);
}

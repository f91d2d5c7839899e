//! Both ends of a long stack: where the thread is, and where it came from.

use std::collections::VecDeque;

/// How many frames of each end are kept.
const KEPT: usize = 256;

/// Addresses of a stack, of which the middle is left out if there are many.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    /// The innermost ones, the innermost first.
    inner: Vec<u64>,
    outer: VecDeque<u64>,
    count: usize,
}

impl Ends {
    pub(crate) fn push(&mut self, address: u64) {
        self.count += 1;
        if self.inner.len() < KEPT {
            return self.inner.push(address);
        }
        if self.outer.len() == KEPT {
            self.outer.pop_front();
        }
        self.outer.push_back(address);
    }

    /// How many there were, with those that are left out.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Those that are kept, the outermost first.
    pub(crate) fn outermost_first(&self) -> impl Iterator<Item = u64> {
        let outer = self.outer.iter().rev();
        outer.chain(self.inner.iter().rev()).copied()
    }

    pub(crate) fn into_addresses(self) -> Vec<u64> {
        let mut all = self.inner;
        all.extend(self.outer);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(count: u64) -> Ends {
        let mut ends = Ends::default();
        (0..count).for_each(|address| ends.push(address));
        ends
    }

    #[test]
    fn short_stacks_are_whole() {
        for count in [0, 1, 255, 256, 257, 512] {
            assert_eq!(of(count).into_addresses(), Vec::from_iter(0..count));
        }
    }

    #[test]
    fn of_long_stacks_the_middle_is_left_out() {
        let ends = of(10_000);
        assert_eq!(ends.count(), 10_000);
        let outermost: Vec<u64> = ends.outermost_first().take(2).collect();
        assert_eq!(outermost, [9_999, 9_998]);
        let kept = ends.into_addresses();
        assert_eq!(kept, Vec::from_iter((0..256).chain(9_744..10_000)));
    }
}

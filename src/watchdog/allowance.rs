//! How often something may be done: pure.

/// So many at once, and one more each time that so much time has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    each_ns: u64,
    most: u64,
    /// From when on all may be done at once.
    full_ns: u64,
}

impl Allowance {
    pub(crate) const fn new(most: u64, each_ns: u64) -> Self {
        Allowance {
            each_ns,
            most,
            full_ns: 0,
        }
    }

    /// Whether it may be done now, which then counts as done.
    pub(crate) fn take(&mut self, now_ns: u64) -> bool {
        let full_ns = self.full_ns.max(now_ns).saturating_add(self.each_ns);
        let may = full_ns <= now_ns.saturating_add(self.each_ns.saturating_mul(self.most));
        if may {
            self.full_ns = full_ns;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_one_each_time() {
        let mut allowance = Allowance::new(3, 100);
        let mut taken = |now_ns| (0..5).filter(|_| allowance.take(now_ns)).count();
        assert_eq!(taken(1_000), 3);
        assert_eq!(taken(1_099), 0);
        assert_eq!(taken(1_100), 1);
        assert_eq!(taken(1_350), 2);
        assert_eq!(taken(9_000), 3);
    }
}

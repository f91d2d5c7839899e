//! Ranges of addresses that may overlap.

#[derive(Clone, Copy, Debug)]
struct One<T> {
    begin: u64,
    end: u64,
    /// The highest end of this and all before.
    reach: u64,
    of: T,
}

/// Ranges, each of something; sorted before they are asked.
#[derive(Debug)]
pub(super) struct Ranges<T>(Vec<One<T>>);

impl<T> Default for Ranges<T> {
    fn default() -> Self {
        Ranges(Vec::new())
    }
}

impl<T: Copy + Ord> Ranges<T> {
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn push(&mut self, range: gimli::Range, of: T) {
        let gimli::Range { begin, end } = range;
        // A function that the linker has left out is at 0, or at an end of the
        // address space.
        if begin == 0 || begin >= end {
            return;
        }
        match self.0.last_mut() {
            Some(last) if last.of == of && last.end == begin => last.end = end,
            _ => self.0.push(One {
                begin,
                end,
                reach: 0,
                of,
            }),
        }
    }

    pub(super) fn sort(&mut self) {
        self.0.sort_unstable_by_key(|one| (one.begin, one.of));
        self.0.shrink_to_fit();
        let mut reach = 0;
        for one in &mut self.0 {
            reach = one.end.max(reach);
            one.reach = reach;
        }
    }

    /// What has this address, that which begins last before the others.
    pub(super) fn at(&self, address: u64) -> impl Iterator<Item = T> + '_ {
        let after = self.0.partition_point(|one| one.begin <= address);
        let before = self.0.get(..after).unwrap_or_default().iter().rev();
        before
            .take_while(move |one| address < one.reach)
            .filter(move |one| address < one.end)
            .map(|one| one.of)
    }

    pub(super) const fn bytes(&self) -> usize {
        self.0.capacity() * size_of::<One<T>>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_ranges_that_hold_an_address_are_found() {
        let mut ranges = Ranges::default();
        let all = [(10, 20), (12, 14), (14, 15), (30, 31), (20, 25), (25, 26)];
        for (of, (begin, end)) in all.into_iter().enumerate() {
            ranges.push(gimli::Range { begin, end }, of);
        }
        ranges.push(gimli::Range { begin: 0, end: 99 }, 9);
        ranges.push(gimli::Range { begin: 9, end: 9 }, 9);
        ranges.sort();
        for address in 0..40 {
            let mut found: Vec<usize> = ranges.at(address).collect();
            found.sort_unstable();
            let expected = all
                .iter()
                .enumerate()
                .filter(|(_, (begin, end))| (*begin..*end).contains(&address))
                .map(|(of, _)| of);
            assert_eq!(found, expected.collect::<Vec<_>>(), "{address}");
        }
    }

    #[test]
    fn neighbours_of_one_are_one_range() {
        let mut ranges = Ranges::default();
        for begin in 1..100 {
            ranges.push(
                gimli::Range {
                    begin,
                    end: begin + 1,
                },
                7,
            );
        }
        assert_eq!(ranges.len(), 1);
    }
}

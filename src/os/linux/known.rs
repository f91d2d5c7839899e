//! Answers that are the same each time, by address: as many as there is room for.

/// Each has one place, where the last one stays.
#[derive(Debug)]
pub(crate) struct Known<K, V> {
    /// Empty where there is no memory for it.
    places: Vec<Option<(K, V)>>,
}

impl<K: Copy + PartialEq, V: Copy> Known<K, V> {
    pub(crate) fn new(places: usize) -> Self {
        let mut all = Vec::new();
        if all.try_reserve_exact(places).is_ok() {
            all.resize(places, None);
        }
        Known { places: all }
    }

    pub(crate) fn forget(&mut self) {
        self.places.fill(None);
    }

    pub(crate) fn get_or(&mut self, key: K, hash: u64, answer: impl FnOnce() -> V) -> V {
        let length = self.places.len().max(1) as u64;
        // Fibonacci hashing: neighbours do not share a place.
        let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let place = self.places.get_mut((mixed % length) as usize);
        match place {
            Some(Some((known, value))) if *known == key => *value,
            place => {
                let value = answer();
                if let Some(place) = place {
                    *place = Some((key, value));
                }
                value
            }
        }
    }
}

//! What is kept open of threads, by the number of their entry.

use std::collections::HashMap;

use crate::os::{Miss, ThreadProbe};
use crate::registry::registry;

/// The probes of threads that have been asked about.
#[derive(Debug, Default)]
pub(crate) struct Probes(HashMap<usize, ThreadProbe>);

impl Probes {
    /// That of the thread that owns an entry now.
    pub(crate) fn of(&mut self, number: usize) -> Result<&ThreadProbe, Miss> {
        let thread = registry().thread(number).ok_or(Miss::Gone)?;
        // 0, which is nobody's, also where threads have none: why nothing is known of
        // them is told there.
        let tid = thread.tid().unwrap_or(0);
        let fits = |probe: &ThreadProbe| probe.tid() == tid;
        if !self.0.get(&number).is_some_and(fits) {
            self.0.insert(number, ThreadProbe::open(tid)?);
        }
        self.0.get(&number).ok_or(Miss::Gone)
    }

    /// The thread does not answer any more.
    pub(crate) fn forget(&mut self, number: usize) {
        self.0.remove(&number);
    }
}

//! Asks the threads of what may soon be stalls where they are.
//!
//! A running thread answers at the scheduler's next tick, 4 ms later as a rule. Asked only
//! when the stall is reported, it answers when many a short stall is over, which then has no
//! place.

use std::collections::VecDeque;

use crate::os::Subject;
use crate::registry::registry;
use crate::watchdog::investigator::Capturers;
use crate::watchdog::investigator::case::Case;
use crate::watchdog::investigator::moment::Moment;
use crate::watchdog::stalled_thread::StalledThread;

/// Of how many it is known at once; they are over soon, or stalls.
const MOST: usize = 4;

/// The threads that have been asked for what is no stall yet, and what each had done then.
#[derive(Debug, Default)]
pub(super) struct AskedAhead(VecDeque<(StalledThread, Moment)>);

impl AskedAhead {
    /// It is a stall now; what its thread had done when it was asked, if it was.
    pub(super) fn taken_over(&mut self, stalled: &StalledThread) -> Option<Moment> {
        let AskedAhead(asked) = self;
        let is_same =
            |of: &StalledThread| (of.number, of.subject()) == (stalled.number, stalled.subject());
        let at = asked.iter().position(|(of, _)| is_same(of))?;
        asked.remove(at).map(|(_, moment)| moment)
    }
}

impl Case {
    pub(super) fn ask_ahead(&mut self, thread: StalledThread, capturers: &mut Capturers) {
        let Some(signals) = self.settings.signals else {
            return;
        };
        let now = self.moment(&thread);
        let runtime = &self.settings.runtime;
        let capturer = capturers.of(signals);
        // What is over may have been a stall, which is reported at the next look.
        let reported_ns = now
            .at_ns
            .saturating_sub(2 * self.settings.shared.common.tick_ns);
        let AskedAhead(asked) = &mut self.ahead;
        while let Some((of, then)) = asked.front()
            && (asked.len() >= MOST || then.at_ns < reported_ns && !of.is_current(runtime))
        {
            if let Some(tid) = of.tid() {
                capturer.withdraw(tid, of.subject());
            }
            asked.pop_front();
        }
        let subject = Subject {
            id: thread.subject(),
            anchor: thread.anchor,
            still: &|| thread.is_current(runtime),
        };
        if let Some(entry) = registry().thread(thread.number)
            && let Ok(probe) = self.probes.of(thread.number)
            && capturer.ask_ahead(probe, &entry.stack, &subject)
        {
            asked.push_back((thread, now));
        }
    }
}

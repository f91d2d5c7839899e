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
        let runtime = &self.settings.runtime;
        let capturer = capturers.of(signals);
        let AskedAhead(asked) = &mut self.ahead;
        let full = asked.len() >= MOST;
        let mut at = 0;
        asked.retain(|(of, _)| {
            at += 1;
            let stays = of.is_current(runtime) && !(full && at == 1);
            if !stays && let Some(tid) = of.tid() {
                capturer.withdraw(tid, of.subject());
            }
            stays
        });
        let now = self.moment(&thread);
        let runtime = &self.settings.runtime;
        let subject = Subject {
            id: thread.subject(),
            anchor: thread.anchor,
            still: &|| thread.is_current(runtime),
        };
        if let Some(entry) = registry().thread(thread.number)
            && let Ok(probe) = self.probes.of(thread.number)
            && capturers
                .of(signals)
                .ask_ahead(probe, &entry.stack, &subject)
        {
            let AskedAhead(asked) = &mut self.ahead;
            asked.push_back((thread, now));
        }
    }
}

//! What is known of threads, by the number of their entry.

use crate::os::{Importance, Miss, ThreadProbe};
use crate::registry::{Place, Thread, registry};
use crate::room::room_for;

/// How many threads are remembered; of more, the one that was asked about least lately
/// makes room.
const MAX_PROBES: usize = 128;

/// The probes of threads that have been asked about. Allocates only when it is made.
#[derive(Debug)]
pub(crate) struct Probes {
    list: Vec<Known>,
    asked: u64,
}

#[derive(Debug)]
struct Known {
    number: usize,
    probe: ThreadProbe,
    /// When it was last asked for, as a count.
    asked: u64,
}

impl Default for Probes {
    fn default() -> Self {
        Probes {
            list: room_for(MAX_PROBES),
            asked: 0,
        }
    }
}

/// The id of the thread that owns an entry now; 0, which is nobody's, also where threads
/// have none: why nothing is known of them is known there.
fn tid_of(thread: &Thread) -> i32 {
    thread.tid().unwrap_or(0)
}

impl Probes {
    /// That of the thread that owns an entry now.
    pub(crate) fn of(&mut self, number: usize) -> Result<&ThreadProbe, Miss> {
        let thread = registry().thread(number).ok_or(Miss::Gone)?;
        let tid = tid_of(thread);
        self.asked += 1;
        let asked = self.asked;
        let known = self.list.iter().position(|known| known.number == number);
        let at = match known {
            Some(at)
                if self
                    .list
                    .get(at)
                    .is_some_and(|known| known.probe.tid() == tid) =>
            {
                at
            }
            _ => {
                let importance = match Place::unpack(thread.place()).worker {
                    Some(_) => Importance::Worker,
                    None => Importance::Other,
                };
                let known = Known {
                    number,
                    probe: ThreadProbe::open(tid, importance)?,
                    asked,
                };
                self.forget(number);
                self.make_room();
                self.list.push(known);
                self.list.len() - 1
            }
        };
        let known = self.list.get_mut(at).ok_or(Miss::Gone)?;
        known.asked = asked;
        Ok(&known.probe)
    }

    /// Whether to ask about this thread is cheap.
    pub(crate) fn is_kept(&self, number: usize) -> bool {
        let known = self.list.iter().find(|known| known.number == number);
        known.is_some_and(|known| known.probe.is_kept())
    }

    /// The thread does not answer any more.
    pub(crate) fn forget(&mut self, number: usize) {
        self.list.retain(|known| known.number != number);
    }

    /// Forgets the threads that have ended, whose files would stay open.
    pub(crate) fn forget_ended(&mut self) {
        self.list.retain(|known| {
            let thread = registry().thread(known.number);
            thread.is_some_and(|thread| tid_of(thread) == known.probe.tid())
        });
    }

    fn make_room(&mut self) {
        if self.list.len() < MAX_PROBES {
            return;
        }
        let ages = self.list.iter().map(|known| known.asked).enumerate();
        if let Some((at, _)) = ages.min_by_key(|(_, asked)| *asked) {
            self.list.swap_remove(at);
        }
    }
}

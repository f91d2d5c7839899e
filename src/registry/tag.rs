//! Who a poll is, packed into one word: its label, and the runtime and worker of its thread.

use crate::clock;

/// Which polls are timed: none (0), each (1), or one in so many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timing(pub(crate) u32);

impl Timing {
    pub(crate) const NONE: Timing = Timing(0);
    pub(crate) const EACH: Timing = Timing(1);

    /// The more demanding of two comes first.
    pub(super) const fn rank(self) -> u32 {
        // None, which is 0, becomes the last.
        self.0.wrapping_sub(1)
    }
}

/// What a poll compares with what its future remembers, and what it then is: a
/// thread's packed place, in one word with what is to be done for [`Timing`].
///
/// Equal in its lower half, the runtime: this poll is like the last one, and it
/// is timed if the sign is set, for which processors have a branch of its own.
/// Where it depends on more, no future's runtime is equal.
pub(super) mod key {
    use super::{Place, RuntimeId, Timing, clock};

    /// Each poll is timed, by the time stamp counter. It is also what a slot has in
    /// the tag of a poll with a start.
    pub(crate) const TIMED: u64 = 1 << 63;
    /// Not a runtime's, and not [`RuntimeId::NEVER`].
    const ASK: RuntimeId = RuntimeId(u32::MAX - 1);

    pub(in crate::registry) fn of(place: Place, timing: Timing) -> u64 {
        match timing {
            Timing::NONE => place.pack(),
            Timing::EACH if clock::is_counter() => place.pack() | TIMED,
            _ => u64::from(ASK.0),
        }
    }
}
pub(crate) use key::TIMED;

/// Which label; an index that stays valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct LabelId(pub(super) u16);

impl LabelId {
    pub(crate) const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which runtime: tokio's id; 0 for a thread outside any.
///
/// tokio counts runtimes up from 1 (tokio 1.54, `runtime/task/list.rs`), so the
/// lower 32 bits tell them apart until one process has made four billion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct RuntimeId(pub(crate) u32);

impl RuntimeId {
    /// No runtime's.
    pub(crate) const NEVER: RuntimeId = RuntimeId(u32::MAX);
    /// That of a thread which has not been asked yet, and so no future's.
    pub(crate) const UNKNOWN: RuntimeId = RuntimeId(u32::MAX - 2);
}

/// Label, worker and runtime of a poll in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) label: LabelId,
    pub(crate) place: Place,
}

/// Which runtime a thread works for at the moment, and as which of its workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) runtime: RuntimeId,
    pub(crate) worker: Option<u16>,
}

impl Place {
    pub(crate) const UNKNOWN: Place = Place {
        runtime: RuntimeId::UNKNOWN,
        worker: None,
    };

    pub(crate) const fn pack(self) -> u64 {
        let worker = match self.worker {
            // Saturating: the last number stands for no worker that exists.
            Some(worker) => worker.saturating_add(1) as u64,
            None => 0,
        };
        self.runtime.0 as u64 | worker << 32
    }

    pub(crate) const fn unpack(word: u64) -> Self {
        Place {
            runtime: runtime_in(word),
            worker: ((word >> 32) as u16).checked_sub(1),
        }
    }
}

/// The runtime of a packed place or tag: its lower half, which a poll compares at once.
#[inline]
pub(crate) const fn runtime_in(word: u64) -> RuntimeId {
    RuntimeId(word as u32)
}

impl Tag {
    pub(crate) const fn unpack(word: u64) -> Self {
        Tag {
            label: LabelId(((word & !TIMED) >> 48) as u16),
            place: Place::unpack(word),
        }
    }

    /// Both are packed already: a poll has them at hand that way. They may each
    /// name the runtime, if it is the same.
    #[inline]
    pub(crate) const fn pack(label: u64, place: u64) -> u64 {
        label | place
    }
}

impl LabelId {
    /// As it stands in a packed tag.
    pub(crate) const fn pack(self) -> u64 {
        (self.0 as u64) << 48
    }
}

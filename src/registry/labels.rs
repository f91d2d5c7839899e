//! The names of watched futures, each with the place where it was given.
//!
//! A name is read without a lock, because the thread that delivers an event must not
//! wait for a thread that is stuck while it registers one.

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{OnceLock, PoisonError, RwLock};

use super::tag::LabelId;

/// How many different names (with location) are told apart.
pub(crate) const MAX_LABELS: usize = 256;
/// The label of everything beyond [`MAX_LABELS`].
pub(super) const OTHER: LabelId = LabelId(0);

/// Where a watched future was made, and what it was called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Label {
    pub(crate) name: Box<str>,
    /// `None` for the label that stands for all beyond the bound.
    pub(crate) location: Option<&'static Location<'static>>,
}

/// All names of the process.
#[derive(Debug)]
pub(super) struct Labels {
    /// By id; the first is [`OTHER`], which is made when it is first asked for.
    list: [OnceLock<Label>; MAX_LABELS],
    /// Locked by the threads that make watched futures, and by no watchdog.
    ids: RwLock<Option<HashMap<Label, LabelId>>>,
    overflows: AtomicU64,
}

impl Labels {
    pub(super) const fn new() -> Self {
        Labels {
            list: [const { OnceLock::new() }; MAX_LABELS],
            ids: RwLock::new(None),
            overflows: AtomicU64::new(0),
        }
    }

    /// The id of a name at a location; [`OTHER`] where there are too many.
    pub(super) fn id(&self, label: Label) -> LabelId {
        let ids = self.ids.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = ids.as_ref().and_then(|ids| ids.get(&label)) {
            return *id;
        }
        drop(ids);
        let key = label.clone();
        let mut ids = self.ids.write().unwrap_or_else(PoisonError::into_inner);
        // All the room at once: a later insertion under the lock asks for no memory.
        let ids = ids.get_or_insert_with(|| HashMap::with_capacity(MAX_LABELS));
        if let Some(id) = ids.get(&key) {
            return *id;
        }
        // The first number stands for all others.
        let next = ids.len() + 1;
        match (u16::try_from(next), self.list.get(next)) {
            (Ok(id), Some(place)) => {
                let id = LabelId(id);
                // Empty until now: the write lock is held, and no number is used twice.
                let _ = place.set(label);
                ids.insert(key, id);
                id
            }
            _ => {
                self.overflows.fetch_add(1, Relaxed);
                OTHER
            }
        }
    }

    /// What a label stands for.
    pub(super) fn get(&self, id: LabelId) -> Option<&Label> {
        let label = self.list.get(id.index())?;
        if id == OTHER {
            return Some(label.get_or_init(|| Label {
                name: "other".into(),
                location: None,
            }));
        }
        label.get()
    }

    /// How many futures were labelled [`OTHER`] because there were too many names.
    pub(super) fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }
}

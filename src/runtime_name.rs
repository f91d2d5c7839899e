//! What a runtime is called where a stall is told.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Mutex;

use crate::escape::cut_name;
use crate::registry::{RuntimeId, lock};

/// How many different names one process may give; one beyond is called `other`.
const MAX_NAMES: usize = 1024;

/// A runtime, and its name if it was given one. It is copied, never allocated: a stuck
/// thread may hold the allocator's lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeName {
    pub(crate) id: RuntimeId,
    pub(crate) given: Option<&'static str>,
}

impl fmt::Display for RuntimeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.given {
            Some(name) => f.write_str(name),
            None => write!(f, "runtime {}", self.id.0),
        }
    }
}

/// Whether a name is the one of a runtime that was given none.
pub(crate) fn is_default(name: &str) -> bool {
    let number = name.strip_prefix("runtime ");
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

/// A name that stays for as long as the process does. The same name is kept once, so that
/// runtimes which are made again under it take no more memory.
pub(crate) fn keep(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let name = cut_name(name);
    let mut names = lock(&NAMES);
    if let Some(known) = names.get(&*name) {
        return known;
    }
    if names.len() >= MAX_NAMES {
        return "other";
    }
    let kept: &'static str = String::from(name).leak();
    names.insert(kept);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_kept_once() {
        assert!(std::ptr::eq(keep("database"), keep("database")));
        assert_ne!(keep("database"), keep("i/o"));
    }

    #[test]
    fn a_runtime_without_a_name_has_its_number() {
        let mut runtime = RuntimeName {
            id: RuntimeId(7),
            given: None,
        };
        assert_eq!(runtime.to_string(), "runtime 7");
        assert!(is_default(&runtime.to_string()));
        runtime.given = Some("io");
        assert_eq!(runtime.to_string(), "io");
        assert!(!is_default("io") && !is_default("runtime of mine"));
    }
}

//! The code of this process, as far as proofs need it.

use std::ops::Range;

use crate::os::platform::memory;
use crate::os::platform::modules::Module;

/// Code to be read; made up in tests.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
pub(crate) trait Code {
    /// Fills `into` with what lies at an address, up to where nothing is mapped; how much
    /// it was.
    fn read(&self, from: u64, into: &mut [u8]) -> usize;

    /// The function that holds this address, by the unwind tables.
    fn function_at(&self, address: u64) -> Option<Range<u64>>;

    /// Whether a module has code there.
    fn is_code(&self, address: u64) -> bool;

    /// Whether a module has there what nothing can write to.
    fn is_constant(&self, _address: u64) -> bool {
        false
    }

    /// The beginning of the function that holds this address, and its table of call sites.
    fn call_sites(&self, _address: u64) -> Option<(u64, u64)> {
        None
    }

    /// See [`Tables::saves`](super::modules::Tables::saves).
    fn saves(&self, _address: u64, _save: &mut dyn FnMut(u16, Option<i64>)) -> Option<()> {
        None
    }
}

impl Code for [Module] {
    fn read(&self, from: u64, into: &mut [u8]) -> usize {
        memory::fill(from, into)
    }

    fn function_at(&self, address: u64) -> Option<Range<u64>> {
        let module = self.iter().find(|module| module.range.contains(&address))?;
        module.tables.as_ref()?.function_at(address)
    }

    fn is_code(&self, address: u64) -> bool {
        // Asked for each word of a stack: most are in no module.
        let module = self.iter().find(|module| module.range.contains(&address));
        module.is_some_and(|module| module.code.iter().any(|code| code.contains(&address)))
    }

    fn is_constant(&self, address: u64) -> bool {
        let module = self.iter().find(|module| module.range.contains(&address));
        module.is_some_and(|module| module.fixed.iter().any(|fixed| fixed.contains(&address)))
    }

    fn call_sites(&self, address: u64) -> Option<(u64, u64)> {
        let module = self.iter().find(|module| module.range.contains(&address))?;
        module.tables.as_ref()?.call_sites(address)
    }

    fn saves(&self, address: u64, save: &mut dyn FnMut(u16, Option<i64>)) -> Option<()> {
        let module = self.iter().find(|module| module.range.contains(&address))?;
        module.tables.as_ref()?.saves(address, save)
    }
}

/// The word at an address.
pub(crate) fn word<C: Code + ?Sized>(code: &C, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (code.read(address, &mut bytes) == bytes.len()).then(|| u64::from_ne_bytes(bytes))
}

/// So much of a range as is mapped; nothing if it is longer than `most`, or there is no
/// memory for it.
pub(crate) fn bytes<C: Code + ?Sized>(code: &C, range: &Range<u64>, most: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = range.end.saturating_sub(range.start);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length <= most && bytes.try_reserve_exact(length).is_ok() {
        bytes.resize(length, 0);
        let read = code.read(range.start, &mut bytes);
        bytes.truncate(read);
    }
    bytes
}

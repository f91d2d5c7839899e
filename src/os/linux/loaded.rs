//! What the loader has loaded, copied while the loader's lock is held.
//!
//! `dl_iterate_phdr` calls back under the loader's lock (glibc 2.36, `elf/dl-iteratephdr.c`:
//! `dl_load_write_lock`). Each `dlopen` and each panic's unwinding waits for that lock. So
//! the callback waits for nothing: it copies into memory that was there before. An
//! allocation could wait for a thread that is stuck within the allocator, and a read of
//! memory for the lock of the memory map. All else is done once the lock is free.

use std::ffi::{CStr, c_int, c_void};
use std::ops::Range;

/// Room for so much at first: more than most programs need.
const MODULES: usize = 64;
const HEADERS: usize = 16 * MODULES;
const NAMES: usize = 64 * MODULES;
/// How often more room is made: libraries may be loaded between two tries.
const TRIES: usize = 4;

/// Changes when a library is loaded or unloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    adds: u64,
    subs: u64,
}

impl Generation {
    const fn of(info: &libc::dl_phdr_info) -> Self {
        Generation {
            adds: info.dlpi_adds,
            subs: info.dlpi_subs,
        }
    }
}

/// Which libraries are loaded, without looking at them. Allocates nothing.
pub(crate) fn generation() -> Generation {
    let mut generation = Generation::default();
    iterate(&mut |info| {
        generation = Generation::of(info);
        false
    });
    generation
}

/// A copy of the loader's list.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) generation: Generation,
    modules: Vec<Entry>,
    headers: Vec<libc::Elf64_Phdr>,
    names: Vec<u8>,
    need: Need,
}

/// One module, by its places in the lists of all.
#[derive(Debug)]
struct Entry {
    bias: u64,
    headers: Range<usize>,
    name: Range<usize>,
}

/// How much room the whole list takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Need {
    modules: usize,
    headers: usize,
    names: usize,
}

/// One module as the loader knows it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LoadedModule<'a> {
    pub(crate) bias: u64,
    pub(crate) headers: &'a [libc::Elf64_Phdr],
    /// Empty for the executable.
    pub(crate) name: &'a [u8],
}

impl Loaded {
    /// The list as of now; `None` where there is no memory for it, or where libraries are
    /// loaded faster than room is made.
    pub(crate) fn now() -> Option<Self> {
        let mut loaded = Loaded {
            need: Need {
                modules: MODULES,
                headers: HEADERS,
                names: NAMES,
            },
            ..Loaded::default()
        };
        for _ in 0..TRIES {
            loaded.make_room()?;
            loaded.need = Need::default();
            iterate(&mut |info| {
                loaded.take(info);
                true
            });
            if loaded.need.modules == loaded.modules.len() {
                return Some(loaded);
            }
        }
        None
    }

    /// Empties the lists, and has room for what is needed; called without the lock.
    fn make_room(&mut self) -> Option<()> {
        self.modules.clear();
        self.headers.clear();
        self.names.clear();
        self.modules.try_reserve_exact(self.need.modules).ok()?;
        self.headers.try_reserve_exact(self.need.headers).ok()?;
        self.names.try_reserve_exact(self.need.names).ok()
    }

    /// Called with the lock: copies where there is room, else only counts.
    fn take(&mut self, info: &libc::dl_phdr_info) {
        self.generation = Generation::of(info);
        if info.dlpi_phdr.is_null() {
            return;
        }
        // SAFETY: the loader keeps this array for as long as the module is loaded, which
        // it is during the callback.
        let headers =
            unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let name = if info.dlpi_name.is_null() {
            &[]
        } else {
            // SAFETY: the loader's name of the module, a C string that lives as long as
            // the module, which it does during the callback.
            unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes()
        };
        self.need.modules += 1;
        self.need.headers += headers.len();
        self.need.names += name.len();
        let has_room = self.need.modules <= self.modules.capacity()
            && self.need.headers <= self.headers.capacity()
            && self.need.names <= self.names.capacity();
        if !has_room {
            return;
        }
        let (first, start) = (self.headers.len(), self.names.len());
        self.headers.extend_from_slice(headers);
        self.names.extend_from_slice(name);
        self.modules.push(Entry {
            bias: info.dlpi_addr,
            headers: first..self.headers.len(),
            name: start..self.names.len(),
        });
    }

    pub(crate) fn modules(&self) -> impl Iterator<Item = LoadedModule<'_>> {
        self.modules.iter().map(|entry| LoadedModule {
            bias: entry.bias,
            headers: self.headers.get(entry.headers.clone()).unwrap_or(&[]),
            name: self.names.get(entry.name.clone()).unwrap_or(&[]),
        })
    }
}

type Visit<'a> = &'a mut dyn FnMut(&libc::dl_phdr_info) -> bool;

/// Calls `visit` with each module, under the loader's lock, until it returns false.
fn iterate(mut visit: Visit<'_>) {
    unsafe extern "C" fn each(
        info: *mut libc::dl_phdr_info,
        _size: usize,
        visit: *mut c_void,
    ) -> c_int {
        // SAFETY: `visit` is the pointer handed to `dl_iterate_phdr` below, to a
        // `Visit` that nobody else uses meanwhile; `info` is valid for this call.
        let (visit, info) = unsafe { (&mut *visit.cast::<Visit<'_>>(), &*info) };
        c_int::from(!visit(info))
    }
    // SAFETY: `each` does not unwind (nothing in the closures of this file
    // panics), and `visit` outlives the call.
    unsafe {
        libc::dl_iterate_phdr(Some(each), (&raw mut visit).cast());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacities(loaded: &Loaded) -> [usize; 3] {
        [
            loaded.modules.capacity(),
            loaded.headers.capacity(),
            loaded.names.capacity(),
        ]
    }

    fn take_all(loaded: &mut Loaded) {
        loaded.need = Need::default();
        iterate(&mut |info| {
            loaded.take(info);
            true
        });
    }

    #[test]
    fn without_room_modules_are_counted_and_nothing_is_allocated() {
        let mut none = Loaded::default();
        take_all(&mut none);
        assert_eq!(capacities(&none), [0; 3]);
        assert!(none.modules.is_empty() && none.need.modules > 1);
        let need = none.need;
        // Too little of one kind is enough for that.
        for less in 0..3 {
            let mut loaded = Loaded::default();
            let room = |at: usize, full: usize| full - usize::from(at == less);
            loaded.modules.reserve_exact(room(0, need.modules));
            loaded.headers.reserve_exact(room(1, need.headers));
            loaded.names.reserve_exact(room(2, need.names));
            let before = capacities(&loaded);
            take_all(&mut loaded);
            assert_eq!(capacities(&loaded), before);
            assert!(loaded.modules.len() < need.modules);
        }
        none.make_room().unwrap();
        let before = capacities(&none);
        take_all(&mut none);
        assert_eq!(capacities(&none), before);
        assert_eq!(none.modules.len(), need.modules);
    }

    #[test]
    fn the_list_is_whole() {
        let loaded = Loaded::now().unwrap();
        let here = without_room_modules_are_counted_and_nothing_is_allocated as fn() as usize;
        let ours = loaded.modules().next().unwrap();
        assert_eq!(ours.name, b"", "the executable comes first");
        let holds = |header: &libc::Elf64_Phdr| {
            let start = ours.bias + header.p_vaddr;
            (start..start + header.p_memsz).contains(&(here as u64))
        };
        assert!(ours.headers.iter().any(holds));
        let names: Vec<_> = loaded
            .modules()
            .map(|module| module.name.to_vec())
            .collect();
        assert!(names.iter().any(|name| name.starts_with(b"/")), "{names:?}");
        assert_eq!(loaded.generation, generation());
    }
}

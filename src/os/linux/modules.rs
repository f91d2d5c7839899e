//! The executable and libraries of this process, with copies of their unwind tables.

use std::ffi::OsStr;
use std::ops::{Deref, Range};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use gimli::{
    BaseAddresses, EhFrame, EndianSlice, FrameDescriptionEntry, NativeEndian, Pointer,
    RegisterRule, UnwindContext, UnwindSection,
};

use crate::os::ModuleFile;
use crate::os::platform::loaded::{Generation, Loaded, LoadedModule, generation};
use crate::os::platform::{memory, sections};

/// One executable or library in memory.
#[derive(Clone, Debug)]
pub(crate) struct Module {
    /// Where its file can be read: `/proc/self/exe` for the executable, which
    /// may have been replaced on disk since.
    pub(crate) path: PathBuf,
    /// What is added to an address in the file to get one in memory.
    pub(crate) bias: u64,
    pub(crate) range: Range<u64>,
    pub(crate) build_id: Option<Arc<str>>,
    /// Address ranges of code.
    pub(crate) code: Vec<Range<u64>>,
    /// Of what nothing can write to.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    pub(crate) fixed: Vec<Range<u64>>,
    pub(crate) tables: Option<Tables>,
}

impl Module {
    pub(crate) fn file(&self) -> ModuleFile {
        ModuleFile {
            path: self.path.clone(),
            bias: self.bias,
            range: self.range.clone(),
            build_id: self.build_id.clone(),
        }
    }
}

/// The files of the modules that are loaded now.
pub(crate) fn module_files() -> Vec<ModuleFile> {
    let (_, modules) = load();
    modules.iter().map(Module::file).collect()
}

/// A module's unwind tables. Copied, because a library can be unloaded meanwhile.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    pub(crate) index: Index,
    pub(crate) frames_address: u64,
    pub(crate) frames: Bytes,
}

/// Bytes that are shared and not copied: megabytes, and an allocation that fails ends the
/// program (`Arc<[u8]>` from a vector is one).
#[derive(Clone, Debug, Default)]
pub(crate) struct Bytes(Arc<Vec<u8>>);

impl Bytes {
    fn new(bytes: Vec<u8>) -> Self {
        Bytes(Arc::new(bytes))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

/// What finds a function in the tables.
#[derive(Clone, Debug)]
pub(crate) enum Index {
    /// `.eh_frame_hdr`, with its address.
    Header(u64, Bytes),
    /// Where there is none: the functions in order, by the tables themselves.
    Functions(Arc<Vec<Range<u64>>>),
}

#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
impl Tables {
    /// The function that holds this address. Between functions, and in those that no
    /// table describes, there is none.
    pub(crate) fn function_at(&self, address: u64) -> Option<Range<u64>> {
        match &self.index {
            Index::Header(at, header) => {
                let entry = entry_by_header(*at, header, address)?;
                let function = self.function_of(entry)?;
                function.contains(&address).then_some(function)
            }
            Index::Functions(functions) => {
                let after = functions.partition_point(|function| function.start <= address);
                let found = functions.get(after.checked_sub(1)?)?;
                found.contains(&address).then(|| found.clone())
            }
        }
    }

    fn function_of(&self, entry: u64) -> Option<Range<u64>> {
        let entry = self.entry_at(entry)?;
        let start = entry.initial_address();
        Some(start..start.saturating_add(entry.len()))
    }

    fn entry_at(&self, entry: u64) -> Option<Entry<'_>> {
        let offset = usize::try_from(entry.checked_sub(self.frames_address)?).ok()?;
        let (frames, bases) = (self.frames(), self.bases());
        let entry = frames.fde_from_offset(&bases, offset.into(), EhFrame::cie_from_offset);
        entry.ok()
    }

    fn frames(&self) -> EhFrame<EndianSlice<'_, NativeEndian>> {
        EhFrame::new(&self.frames, NativeEndian)
    }

    fn bases(&self) -> BaseAddresses {
        BaseAddresses::default().set_eh_frame(self.frames_address)
    }

    /// What describes the function that holds this address; only where there is a header.
    fn entry_of(&self, address: u64) -> Option<Entry<'_>> {
        let Index::Header(at, header) = &self.index else {
            return None;
        };
        let entry = self.entry_at(entry_by_header(*at, header, address)?)?;
        entry.contains(address).then_some(entry)
    }

    /// The beginning of the function that holds this address, and its table of call sites.
    pub(crate) fn call_sites(&self, address: u64) -> Option<(u64, u64)> {
        let entry = self.entry_of(address)?;
        match entry.lsda()? {
            Pointer::Direct(table) => Some((entry.initial_address(), table)),
            Pointer::Indirect(_) => None,
        }
    }

    /// Where a function has saved registers of its caller, as distances from the end of its
    /// frame: `save` is called with the register's number in DWARF, and `None` for one that
    /// is lost. `None` where nothing is known.
    pub(crate) fn saves(&self, address: u64, save: &mut dyn FnMut(u16, Option<i64>)) -> Option<()> {
        let entry = self.entry_of(address)?;
        let (frames, bases) = (self.frames(), self.bases());
        let mut context = UnwindContext::new();
        let row = entry.unwind_info_for_address(&frames, &bases, &mut context, address);
        for (register, rule) in row.ok()?.registers() {
            match rule {
                RegisterRule::Undefined | RegisterRule::SameValue => {}
                RegisterRule::Offset(offset) => save(register.0, Some(*offset)),
                _ => save(register.0, None),
            }
        }
        Some(())
    }
}

type Entry<'a> = FrameDescriptionEntry<EndianSlice<'a, NativeEndian>>;

/// How the header's table is to be written (Linux Standard Base 5, "Exception Frames"):
/// a count of four bytes, and pairs of addresses relative to the header in four bytes each.
const COUNT_4: u8 = 0x03;
const PAIRS_RELATIVE_TO_HEADER: u8 = 0x3b;

/// The address of the entry whose function begins last before this address.
fn entry_by_header(header_address: u64, header: &[u8], address: u64) -> Option<u64> {
    let (_, rest) = header.split_first_chunk::<8>()?;
    let (count, table) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_ne_bytes(*count)).ok()?;
    let (pairs, _) = table.as_chunks::<8>();
    let pairs = pairs.get(..count)?;
    let absolute =
        |offset: [u8; 4]| header_address.wrapping_add_signed(i64::from(i32::from_ne_bytes(offset)));
    let after = pairs.partition_point(|&[a, b, c, d, ..]| absolute([a, b, c, d]) <= address);
    let &[.., a, b, c, d] = pairs.get(after.checked_sub(1)?)?;
    Some(absolute([a, b, c, d]))
}

/// How often the loader's list is taken anew where libraries come and go meanwhile.
const TRIES: usize = 3;

/// All modules, and the generation they belong to.
///
/// Reads memory and files without the loader's lock: a library can be unloaded meanwhile,
/// and another can lie in its place. So a module counts only if the loader lists it after
/// it was read as well. A module that was unloaded and loaded again in between, at the
/// same address, is of the same file. Where libraries come and go all the time, some are
/// left out, and the generation is an old one, so that the next refresh reads again.
pub(crate) fn load() -> (Generation, Vec<Module>) {
    memory::look_for_filter();
    load_while(&generation)
}

fn load_while(generation: &dyn Fn() -> Generation) -> (Generation, Vec<Module>) {
    let mut modules: Vec<Module> = Vec::new();
    let mut of = Generation::default();
    for _ in 0..TRIES {
        let Some(loaded) = Loaded::now() else {
            return (of, Vec::new());
        };
        of = loaded.generation;
        keep_listed(&mut modules, &loaded);
        let known = |listed: &LoadedModule<'_>| modules.iter().any(|module| is(module, listed));
        let new: Vec<_> = loaded
            .modules()
            .filter(|listed| !known(listed))
            .filter_map(module_of)
            .collect();
        modules.extend(new);
        if generation() == of {
            return (of, modules);
        }
    }
    keep_listed(&mut modules, &Loaded::now().unwrap_or_default());
    (of, modules)
}

/// Leaves out what the loader no longer lists.
fn keep_listed(modules: &mut Vec<Module>, loaded: &Loaded) {
    modules.retain(|module| loaded.modules().any(|listed| is(module, &listed)));
}

fn is(module: &Module, listed: &LoadedModule<'_>) -> bool {
    module.bias == listed.bias
        && module.path.as_os_str() == file_name(listed.name)
        && Some(&module.range) == range_of_all(listed).as_ref()
}

/// Where a header's segment lies in memory.
const fn range_of(bias: u64, header: &libc::Elf64_Phdr) -> Range<u64> {
    let start = bias.wrapping_add(header.p_vaddr);
    start..start.saturating_add(header.p_memsz)
}

fn range_of_all(listed: &LoadedModule<'_>) -> Option<Range<u64>> {
    let loads = || {
        let all = listed.headers.iter();
        all.filter(|header| header.p_type == libc::PT_LOAD)
            .map(|header| range_of(listed.bias, header))
    };
    let start = loads().map(|range| range.start).min()?;
    Some(start..loads().map(|range| range.end).max()?)
}

fn module_of(listed: LoadedModule<'_>) -> Option<Module> {
    let LoadedModule {
        bias,
        headers,
        name,
    } = listed;
    let loads: Vec<_> = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD)
        .collect();
    let of_flag = |flag: u32, is_set: bool| -> Vec<Range<u64>> {
        let chosen = loads
            .iter()
            .filter(|header| (header.p_flags & flag != 0) == is_set);
        chosen.map(|header| range_of(bias, header)).collect()
    };
    let (code, mut fixed) = (of_flag(libc::PF_X, true), of_flag(libc::PF_W, false));
    // What the loader has filled in, and made so.
    let relocated = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_GNU_RELRO);
    fixed.extend(relocated.map(|header| range_of(bias, header)));
    let note = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
        .find_map(|header| build_id_in(&memory::copy(range_of(bias, header))?));
    let loads: Vec<_> = loads.iter().map(|load| range_of(bias, load)).collect();
    let tables = headers
        .iter()
        .find(|header| header.p_type == libc::PT_GNU_EH_FRAME)
        .and_then(|header| tables_at(range_of(bias, header), &loads));
    let mut module = Module {
        path: PathBuf::from(file_name(name)),
        bias,
        range: range_of_all(&listed)?,
        build_id: note,
        code,
        fixed,
        tables,
    };
    if module.tables.is_none() {
        module.tables = tables_by_file(&module);
    }
    Some(module)
}

/// Where a module's file can be read.
fn file_name(name: &[u8]) -> &OsStr {
    if name.is_empty() {
        return OsStr::new("/proc/self/exe");
    }
    OsStr::from_bytes(name)
}

/// The tables by the pointer in `.eh_frame_hdr` (Linux Standard Base 5,
/// "Exception Frames"): version 1, and a pointer relative to itself in four bytes.
fn tables_at(header: Range<u64>, loads: &[Range<u64>]) -> Option<Tables> {
    const RELATIVE_SIGNED_4: u8 = 0x1b;
    let bytes = memory::copy(header.clone())?;
    let (&[version, encoding, count, pairs], rest) = bytes.split_first_chunk::<4>()?;
    let (offset, _) = rest.split_first_chunk::<4>()?;
    if version != 1 || encoding != RELATIVE_SIGNED_4 {
        return None;
    }
    let offset = i64::from(i32::from_ne_bytes(*offset));
    let frames_address = header.start.checked_add(4)?.checked_add_signed(offset)?;
    // Its length is written nowhere; it ends with a zero length, at the latest
    // where its segment does.
    let segment = loads.iter().find(|range| range.contains(&frames_address))?;
    let mut frames = Vec::new();
    let length = usize::try_from(segment.end - frames_address).ok()?;
    memory::append(frames_address, length, &mut frames);
    let index = if (count, pairs) == (COUNT_4, PAIRS_RELATIVE_TO_HEADER) {
        Index::Header(header.start, Bytes::new(bytes))
    } else {
        Index::Functions(Arc::new(sections::functions(&frames, frames_address)?))
    };
    Some(Tables {
        index,
        frames_address,
        frames: Bytes::new(frames),
    })
}

/// The tables of a module without `.eh_frame_hdr`.
fn tables_by_file(module: &Module) -> Option<Tables> {
    let in_file = sections::eh_frame(&module.path, module.range.start)?;
    let range = in_file.start.checked_add(module.bias)?..in_file.end.checked_add(module.bias)?;
    let frames = memory::copy(range.clone())?;
    let functions = sections::functions(&frames, range.start)?;
    Some(Tables {
        index: Index::Functions(Arc::new(functions)),
        frames_address: range.start,
        frames: Bytes::new(frames),
    })
}

/// The GNU build id among ELF notes: name size, content size, type, name, content.
fn build_id_in(mut notes: &[u8]) -> Option<Arc<str>> {
    const BUILD_ID: u32 = 3;
    loop {
        let (head, rest) = notes.split_first_chunk::<12>()?;
        let word = |at: usize| {
            let bytes = head.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_ne_bytes(bytes))
        };
        let padded = |size: u32| usize::try_from(size).ok()?.checked_next_multiple_of(4);
        let (name_size, size, kind) = (word(0)?, word(4)?, word(8)?);
        let name = rest.get(..usize::try_from(name_size).ok()?)?;
        let rest = rest.get(padded(name_size)?..)?;
        let content = rest.get(..usize::try_from(size).ok()?)?;
        if kind == BUILD_ID && name == b"GNU\0" {
            let digits: String = content.iter().map(|byte| format!("{byte:02x}")).collect();
            return Some(digits.into());
        }
        notes = rest.get(padded(size)?..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn where_libraries_come_and_go_those_that_stay_are_taken() {
        let asked = Cell::new(0);
        let (_, modules) = load_while(&|| {
            asked.set(asked.get() + 1);
            Generation::default()
        });
        assert_eq!(asked.get(), TRIES);
        let here = where_libraries_come_and_go_those_that_stay_are_taken as fn() as usize as u64;
        let mut ours = modules
            .iter()
            .filter(|module| module.range.contains(&here) && module.tables.is_some());
        assert!(ours.next().is_some() && ours.next().is_none(), "once");
    }

    #[test]
    fn what_is_not_listed_after_it_was_read_is_left_out() {
        let (_, modules) = load();
        let loaded = Loaded::now().unwrap();
        let mut kept = modules.clone();
        keep_listed(&mut kept, &loaded);
        assert!(kept.iter().any(|module| module.tables.is_some()));
        for other in [
            |module: &mut Module| module.bias += 4096,
            |module: &mut Module| module.path.push("other"),
            |module: &mut Module| module.range.end += 4096,
        ] {
            let mut changed = kept.clone();
            changed.iter_mut().for_each(other);
            keep_listed(&mut changed, &loaded);
            assert!(changed.is_empty());
        }
    }
}

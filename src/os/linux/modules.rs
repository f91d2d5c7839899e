//! The executable and libraries of this process, with copies of their unwind tables.

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::os::ModuleFile;
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
    pub(crate) frames: Arc<[u8]>,
}

/// What finds a function in the tables.
#[derive(Clone, Debug)]
pub(crate) enum Index {
    /// `.eh_frame_hdr`, with its address.
    Header(u64, Arc<[u8]>),
    /// Where there is none: the functions in order, by the tables themselves.
    Functions(Arc<[Range<u64>]>),
}

impl Tables {
    /// From where the function that holds this address begins to where the next does.
    pub(crate) fn function_at(&self, address: u64) -> Option<Range<u64>> {
        match &self.index {
            Index::Header(at, header) => function_by_header(*at, header, address),
            Index::Functions(functions) => {
                let after = functions.partition_point(|function| function.start <= address);
                let found = functions.get(after.checked_sub(1)?)?;
                found.contains(&address).then(|| found.clone())
            }
        }
    }
}

/// From the header's sorted table, of pairs of addresses relative to it in four bytes
/// each (Linux Standard Base 5, "Exception Frames").
fn function_by_header(header_address: u64, header: &[u8], address: u64) -> Option<Range<u64>> {
    const PAIRS_RELATIVE_TO_HEADER: u8 = 0x3b;
    const COUNT_4: u8 = 0x03;
    let (&[_, _, count, pairs], rest) = header.split_first_chunk::<4>()?;
    if (count, pairs) != (COUNT_4, PAIRS_RELATIVE_TO_HEADER) {
        return None;
    }
    let (_, rest) = rest.split_first_chunk::<4>()?;
    let (count, table) = rest.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_ne_bytes(*count)).ok()?;
    let (pairs, _) = table.as_chunks::<8>();
    let pairs = pairs.get(..count)?;
    let start_of = |pair: &[u8; 8]| {
        let &[a, b, c, d, ..] = pair;
        let offset = i64::from(i32::from_ne_bytes([a, b, c, d]));
        header_address.wrapping_add_signed(offset)
    };
    let after = pairs.partition_point(|pair| start_of(pair) <= address);
    let start = start_of(pairs.get(after.checked_sub(1)?)?);
    Some(start..pairs.get(after).map_or(start, start_of))
}

/// Changes when a library is loaded or unloaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Generation {
    adds: u64,
    subs: u64,
}

/// Which libraries are loaded, without looking at them.
pub(crate) fn generation() -> Generation {
    let mut generation = Generation::default();
    iterate(&mut |info| {
        generation = Generation {
            adds: info.dlpi_adds,
            subs: info.dlpi_subs,
        };
        false
    });
    generation
}

/// All modules, and the generation they belong to.
pub(crate) fn load() -> (Generation, Vec<Module>) {
    let mut modules = Vec::new();
    let mut generation = Generation::default();
    iterate(&mut |info| {
        generation = Generation {
            adds: info.dlpi_adds,
            subs: info.dlpi_subs,
        };
        modules.extend(module_of(info));
        true
    });
    // Without the loader's lock, which file access would hold up.
    for module in &mut modules {
        if module.tables.is_none() {
            module.tables = tables_by_file(module);
        }
    }
    (generation, modules)
}

type Visit<'a> = &'a mut dyn FnMut(&libc::dl_phdr_info) -> bool;

/// Calls `visit` with each module, while none can be unloaded, until it returns false.
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

fn module_of(info: &libc::dl_phdr_info) -> Option<Module> {
    if info.dlpi_phdr.is_null() {
        return None;
    }
    // SAFETY: the loader keeps this array for as long as the module is loaded,
    // which it is during the callback.
    let headers =
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
    let bias = info.dlpi_addr;
    let range_of = |header: &libc::Elf64_Phdr| {
        let start = bias.wrapping_add(header.p_vaddr);
        start..start.saturating_add(header.p_memsz)
    };
    let loads: Vec<_> = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD)
        .collect();
    let start = loads.iter().map(|header| range_of(header).start).min()?;
    let end = loads.iter().map(|header| range_of(header).end).max()?;
    let code = loads
        .iter()
        .filter(|header| header.p_flags & libc::PF_X != 0)
        .map(|header| range_of(header))
        .collect();
    let note = headers
        .iter()
        .filter(|header| header.p_type == libc::PT_NOTE)
        .find_map(|header| build_id_in(&memory::copy(range_of(header))?));
    let tables = headers
        .iter()
        .find(|header| header.p_type == libc::PT_GNU_EH_FRAME)
        .and_then(|header| tables_at(range_of(header), &loads, &range_of));
    Some(Module {
        path: path_of(info),
        bias,
        range: start..end,
        build_id: note,
        code,
        tables,
    })
}

fn path_of(info: &libc::dl_phdr_info) -> PathBuf {
    if info.dlpi_name.is_null() {
        return PathBuf::from("/proc/self/exe");
    }
    // SAFETY: the loader's name of the module, a C string that lives as long as
    // the module, which it does during the callback.
    let name = unsafe { CStr::from_ptr(info.dlpi_name) };
    if name.is_empty() {
        return PathBuf::from("/proc/self/exe");
    }
    PathBuf::from(OsStr::from_bytes(name.to_bytes()))
}

/// The tables by the pointer in `.eh_frame_hdr` (Linux Standard Base 5,
/// "Exception Frames"): version 1, and a pointer relative to itself in four bytes.
fn tables_at(
    header: Range<u64>,
    loads: &[&libc::Elf64_Phdr],
    range_of: &dyn Fn(&libc::Elf64_Phdr) -> Range<u64>,
) -> Option<Tables> {
    const RELATIVE_SIGNED_4: u8 = 0x1b;
    let bytes = memory::copy(header.clone())?;
    let (&[version, encoding, _, _], rest) = bytes.split_first_chunk::<4>()?;
    let (offset, _) = rest.split_first_chunk::<4>()?;
    if version != 1 || encoding != RELATIVE_SIGNED_4 {
        return None;
    }
    let offset = i64::from(i32::from_ne_bytes(*offset));
    let frames_address = header.start.checked_add(4)?.checked_add_signed(offset)?;
    // Its length is written nowhere; it ends with a zero length, at the latest
    // where its segment does.
    let segment = loads
        .iter()
        .map(|load| range_of(load))
        .find(|range| range.contains(&frames_address))?;
    let mut frames = Vec::new();
    let length = usize::try_from(segment.end - frames_address).ok()?;
    memory::append(frames_address, length, &mut frames);
    Some(Tables {
        index: Index::Header(header.start, bytes.into()),
        frames_address,
        frames: frames.into(),
    })
}

/// The tables of a module without `.eh_frame_hdr`.
fn tables_by_file(module: &Module) -> Option<Tables> {
    let in_file = sections::eh_frame(&module.path, module.range.start)?;
    let range = in_file.start.checked_add(module.bias)?..in_file.end.checked_add(module.bias)?;
    let frames = memory::copy(range.clone())?;
    let functions = sections::functions(&frames, range.start);
    Some(Tables {
        index: Index::Functions(functions.into()),
        frames_address: range.start,
        frames: frames.into(),
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

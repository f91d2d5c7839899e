//! One file of code: as much of its debug info as there is memory for.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::apart::{self, Apart};
use super::dwarf::{DebugInfo, Found, MAX_UNIT_BYTES, NEEDED};
use super::elf::Elf;
use super::image::{self, Image, NoImage};
use super::memory_left::{MemoryLeft, Need};
use super::paged::PagedFile;
use super::split::SplitFiles;
use super::symbol_table::{self, SymbolTable};
use crate::function_name::{Body, base, body};
use crate::os::ModuleFile;

/// What is read of a file.
#[derive(Debug, Default)]
pub(super) struct DebugFile {
    lines: Option<DebugInfo>,
    names: Option<SymbolTable>,
    /// The file that debug info is in, where that is not the file of code.
    apart: Option<(Arc<PagedFile>, String)>,
    /// Why there is less than the file has.
    lack: Option<Lack>,
}

/// Why something is missing, for people.
#[derive(Clone, Debug)]
pub(super) struct Lack {
    pub(super) reason: String,
    /// Whether it may be otherwise later.
    pub(super) is_of_memory: bool,
}

impl Lack {
    fn new(what: &str, why: impl std::fmt::Display, is_of_memory: bool) -> Self {
        Lack {
            reason: format!("{what} are missing: {why}"),
            is_of_memory,
        }
    }
}

const LINES: &str = "lines";
const ALL: &str = "names and lines";
/// For one unit while it is being read, tables that grow, and what the allocator wastes.
const WORKING_MEMORY: u64 = 6 << 20;

impl DebugFile {
    /// Opens what there is of a module; what cannot be read counts as not there, and so
    /// does a file that has taken the place of the one that was loaded: its lines would
    /// be wrong.
    pub(super) fn open(module: &ModuleFile, left: fn() -> MemoryLeft) -> Self {
        match image::open(module) {
            Ok(image) => Self::of_image(&image, left),
            Err(NoImage::NoFile) => DebugFile::default(),
            Err(NoImage::Replaced) => {
                let name = module.path.file_name().unwrap_or_default();
                let why = format!(
                    "{} was replaced on disk since it was loaded",
                    name.to_string_lossy()
                );
                DebugFile {
                    lack: Some(Lack::new(ALL, why, false)),
                    ..DebugFile::default()
                }
            }
        }
    }

    fn of_image(image: &Image, left: fn() -> MemoryLeft) -> Self {
        let mut file = DebugFile::default();
        let has_lines = has_lines(&image.elf);
        let has_names = symbol_table::is_of_linker(&image.elf);
        let mut found = None;
        if !has_lines || !has_names {
            match apart::find(image) {
                Ok(apart) => found = apart,
                Err(why) => file.lack = Some(Lack::new(ALL, why, false)),
            }
        }
        let of_apart = |has: bool, is_there: fn(&Elf) -> bool| {
            let apart = found.as_ref().map(|apart| &apart.elf);
            apart.filter(|elf| !has && is_there(elf))
        };
        let lines = of_apart(has_lines, self::has_lines).unwrap_or(&image.elf);
        let names = of_apart(has_names, symbol_table::is_of_linker).unwrap_or(&image.elf);
        let split = SplitFiles::new(paths_of(image, found.as_ref()), left);
        file.read(lines, names, split, left());
        file.apart = found.map(|apart| {
            (
                Arc::clone(apart.elf.file()),
                apart.path.display().to_string(),
            )
        });
        file
    }

    fn read(&mut self, lines: &Elf, names: &Elf, split: SplitFiles, left: MemoryLeft) {
        let (names_mapped, sorted) = symbol_table::need_of(names);
        let names_only = Need {
            mapped: names_mapped,
            own: 64 << 10,
        };
        let all_names = Need {
            own: names_only.own + sorted,
            ..names_only
        };
        let mut known = Need::default();
        if sorted > 0 {
            if let Err(lack) = left.allows(names_only) {
                self.lack = Some(Lack::new(ALL, lack, true));
                return;
            }
            let sort = left.allows(all_names).is_ok();
            self.names = SymbolTable::open(names, sort).ok();
            known = if sort { all_names } else { names_only };
        }
        if let Ok(Some(need)) = need_of_lines(lines) {
            let need = Need {
                mapped: need.mapped.saturating_add(known.mapped),
                own: need.own.saturating_add(known.own),
            };
            match left.allows(need) {
                Ok(()) => self.lines = DebugInfo::open(lines, split).ok(),
                Err(lack) => self.lack = Some(Lack::new(LINES, lack, true)),
            }
        }
    }

    /// Whether there are lines or names at all.
    pub(super) const fn is_usable(&self) -> bool {
        self.lines.is_some() || self.names.is_some()
    }

    /// The functions at an address of the file, the innermost first.
    ///
    /// Debug info that cannot be read counts as not there.
    pub(super) fn find(&mut self, address: u64) -> Vec<Found> {
        self.drop_if_changed();
        let name = |names: &Option<SymbolTable>| names.as_ref()?.name_at(address);
        let mut found = match &mut self.lines {
            Some(lines) => lines.find(address).unwrap_or_default(),
            None => Vec::new(),
        };
        // The outermost is the function that the symbol table knows; where debug
        // info names none, or is missing, the table does. And where its name is bare, as
        // with line tables, the table has the path.
        match found.last_mut() {
            Some(outermost) if !has_path(outermost.function.as_deref()) => {
                let bare = outermost.function.take();
                let symbol = name(&self.names);
                let is_it = |symbol: &str| bare.as_deref().is_none_or(|bare| names(symbol, bare));
                outermost.function = symbol.filter(|symbol| is_it(symbol)).or(bare);
            }
            Some(_) => {}
            None => found.extend(name(&self.names).map(|function| Found {
                function: Some(function),
                ..Found::default()
            })),
        }
        found
    }

    /// Debug info that is written over while it is read is that of another build.
    fn drop_if_changed(&mut self) {
        if let Some((file, name)) = self.apart.take_if(|(file, _)| !file.is_unchanged()) {
            drop(file);
            let why = format!("{name} was replaced since it was read");
            *self = DebugFile {
                lack: Some(Lack::new(ALL, why, false)),
                ..DebugFile::default()
            };
        }
    }

    /// Why something is missing.
    pub(super) fn lack(&self) -> Option<Lack> {
        let of_split = || {
            let why = self.lines.as_ref()?.lack()?;
            Some(Lack::new("names of inlined functions", why, false))
        };
        self.lack.clone().or_else(of_split)
    }

    /// Whether there may be memory later for what there was none for.
    pub(super) fn lacks_memory(&self) -> bool {
        self.lack.as_ref().is_some_and(|lack| lack.is_of_memory)
    }

    /// Lets go of all that is read again fast; false if what is left is still large.
    pub(super) fn shrink(&mut self) -> bool {
        /// Of one file.
        const LARGE: usize = 3 << 20;
        if let Some(lines) = &mut self.lines {
            lines.forget_units();
        }
        if let Some((file, _)) = &self.apart {
            file.forget();
        }
        !self.lacks_memory() && self.own_bytes() <= LARGE
    }

    /// How much memory is kept that is not in pages of the file, without units.
    pub(super) fn own_bytes(&self) -> usize {
        let names = self.names.as_ref().map_or(0, SymbolTable::bytes);
        let lines = self
            .lines
            .as_ref()
            .map_or(0, |lines| lines.index_bytes() + lines.section_bytes());
        names + lines
    }
}

/// Whether a function's name says where it is; a mangled one does.
fn has_path(function: Option<&str>) -> bool {
    function.is_some_and(|name| {
        let end = name.find('<').unwrap_or(name.len());
        name.starts_with("_R") || name.starts_with("_ZN") || name[..end].contains("::")
    })
}

/// Whether a symbol is of the function that debug info gives this bare name: equal code of
/// two functions is there once, with one debug info and the symbols of both.
fn names(symbol: &str, bare: &str) -> bool {
    let symbol = format!("{:#}", rustc_demangle::demangle(symbol));
    match (body(bare), body(&symbol)) {
        (Body::Named, Body::Named) => base(&symbol) == base(bare),
        // In symbols all of them are closures.
        (of_debug_info, of_symbol) => of_debug_info != Body::Named && of_symbol != Body::Named,
    }
}

fn has_lines(elf: &Elf) -> bool {
    elf.named(".debug_info")
        .is_some_and(|section| section.size > 0)
}

/// What split debug info may lie beside; `None` where that is of another build.
fn paths_of(image: &Image, apart: Option<&Apart>) -> Option<Vec<PathBuf>> {
    if image.is_replaced {
        return None;
    }
    let apart = apart.map(|apart| apart.path.clone());
    Some(std::iter::once(image.path.clone()).chain(apart).collect())
}

/// What lines of this file take; `None` if there are none.
fn need_of_lines(elf: &Elf) -> io::Result<Option<Need>> {
    let mut need = Need::default();
    for name in NEEDED {
        let Some(section) = elf.named(name) else {
            continue;
        };
        let (size, is_compressed) = elf.plain_size(section)?;
        if is_compressed {
            need.own = need.own.saturating_add(size);
        } else if elf.is_mapped() {
            need.mapped = need.mapped.saturating_add(size);
        }
        // The index has 32 bytes for 16 of `.debug_aranges`, and of the lists of ranges
        // only those of units. Twice that, as lists double when they grow.
        need.own = need.own.saturating_add(match name {
            ".debug_aranges" => size.saturating_mul(4),
            ".debug_ranges" | ".debug_rnglists" => size,
            _ => 0,
        });
    }
    if !has_lines(elf) {
        return Ok(None);
    }
    need.own = need
        .own
        .saturating_add(MAX_UNIT_BYTES as u64)
        .saturating_add(WORKING_MEMORY);
    Ok(Some(need))
}

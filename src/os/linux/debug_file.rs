//! One file of code: as much of its debug info as there is memory for.

use std::io;
use std::path::Path;

use super::dwarf::{DebugInfo, Found, MAX_UNIT_BYTES, NEEDED};
use super::elf::Elf;
use super::memory_left::{MemoryLeft, Need, TooLittle};
use super::symbol_table::{self, SymbolTable};
use crate::function_name::{Body, base, body};

/// What is read of a file.
#[derive(Debug, Default)]
pub(super) struct DebugFile {
    lines: Option<DebugInfo>,
    names: Option<SymbolTable>,
    /// Why there is less than the file has.
    lack: Option<TooLittle>,
    /// Whether names are missing as well.
    lacks_names: bool,
}

/// For one unit while it is being read, tables that grow, and what the allocator wastes.
const WORKING_MEMORY: u64 = 6 << 20;

impl DebugFile {
    /// Opens a file; what cannot be read counts as not there, and so does a file that has
    /// taken the place of the one that was loaded: its lines would be wrong.
    pub(super) fn open(
        path: &Path,
        build_id: Option<&str>,
        left: impl FnOnce() -> MemoryLeft,
    ) -> Self {
        let Ok(elf) = Elf::open(path) else {
            return DebugFile::default();
        };
        let on_disk = elf.build_id();
        if build_id.is_some_and(|loaded| on_disk.is_some_and(|on_disk| on_disk != loaded)) {
            return DebugFile::default();
        }
        let left = left();
        let (names_mapped, sorted) = symbol_table::need_of(&elf);
        let names_only = Need {
            mapped: names_mapped,
            own: 64 << 10,
        };
        let names = Need {
            own: names_only.own + sorted,
            ..names_only
        };
        let mut file = DebugFile::default();
        let mut known = Need::default();
        if names_mapped > 0 {
            if let Err(lack) = left.allows(names_only) {
                file.lack = Some(lack);
                file.lacks_names = true;
                return file;
            }
            let sort = left.allows(names).is_ok();
            file.names = SymbolTable::open(&elf, sort).ok();
            known = if sort { names } else { names_only };
        }
        match need_of_lines(&elf) {
            Ok(None) | Err(_) => {}
            Ok(Some(lines)) => {
                let need = Need {
                    mapped: lines.mapped.saturating_add(known.mapped),
                    own: lines.own.saturating_add(known.own),
                };
                match left.allows(need) {
                    Ok(()) => file.lines = DebugInfo::open(&elf).ok(),
                    Err(lack) => file.lack = Some(lack),
                }
            }
        }
        file
    }

    /// Whether there are lines or names at all.
    pub(super) const fn is_usable(&self) -> bool {
        self.lines.is_some() || self.names.is_some()
    }

    /// The functions at an address of the file, the innermost first.
    ///
    /// Debug info that cannot be read counts as not there.
    pub(super) fn find(&mut self, address: u64) -> Vec<Found<'_>> {
        let name = |names: &Option<SymbolTable>| -> Option<_> {
            let name = names.as_ref()?.name_at(address)?;
            Some(std::borrow::Cow::Owned(name.to_owned()))
        };
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

    /// Why lines are missing, for people.
    pub(super) fn lack(&self) -> Option<String> {
        let lack = self.lack?;
        let what = if self.lacks_names {
            "names and lines"
        } else {
            "lines"
        };
        Some(format!("{what} are missing: {lack}"))
    }

    /// Lets go of all that is read again fast; false if what is left is still large.
    pub(super) fn shrink(&mut self) -> bool {
        /// Of one file.
        const LARGE: usize = 3 << 20;
        if let Some(lines) = &mut self.lines {
            lines.forget_units();
        }
        self.lack.is_none() && self.own_bytes() <= LARGE
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
        } else {
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
    if need == Need::default() {
        return Ok(None);
    }
    need.own = need
        .own
        .saturating_add(MAX_UNIT_BYTES as u64)
        .saturating_add(WORKING_MEMORY);
    Ok(Some(need))
}

//! The names of functions by an ELF file's table of symbols.

use std::io;

use gimli::Reader;

use super::elf::{Elf, Section};
use super::region::Region;
use super::slice::Slice;

const SYMBOL: usize = size_of::<libc::Elf64_Sym>();
const SHT_SYMTAB: u32 = 2;
const SHT_DYNSYM: u32 = 11;

/// A table of symbols with their names, in the file's own pages.
#[derive(Debug)]
pub(super) struct SymbolTable {
    // Fields are dropped in this order: what borrows from the regions comes first.
    symbols: Slice,
    names: Slice,
    _regions: Vec<Region>,
    /// Where functions begin, with the number of the symbol; empty where there is no
    /// memory for it: each look-up then reads the whole table.
    sorted: Vec<(u64, u32)>,
}

/// The table of the linker, or at least that of the loader.
fn table_of(elf: &Elf) -> Option<(&Section, &Section)> {
    let is_there = |section: &&Section| section.size >= SYMBOL as u64;
    let symbols = elf
        .of_kind(SHT_SYMTAB)
        .filter(is_there)
        .or_else(|| elf.of_kind(SHT_DYNSYM))?;
    Some((symbols, elf.linked(symbols)?))
}

/// Whether there is the linker's, which has all functions.
pub(super) fn is_of_linker(elf: &Elf) -> bool {
    elf.of_kind(SHT_SYMTAB)
        .is_some_and(|section| section.size >= SYMBOL as u64)
}

/// How much of the file is mapped for it, and how long the sorted list will be.
pub(super) fn need_of(elf: &Elf) -> (u64, u64) {
    let Some((symbols, names)) = table_of(elf) else {
        return (0, 0);
    };
    let mapped = if elf.is_mapped() {
        symbols.size.saturating_add(names.size)
    } else {
        0
    };
    let sorted = symbols.size / SYMBOL as u64 * size_of::<(u64, u32)>() as u64;
    (mapped, sorted)
}

impl SymbolTable {
    /// Sorts the functions if there is memory for that.
    pub(super) fn open(elf: &Elf, sort: bool) -> io::Result<Self> {
        let (symbols, names) = table_of(elf).ok_or(io::ErrorKind::NotFound)?;
        let mut regions = Vec::new();
        // SAFETY: the table keeps the regions, and nothing that borrows from them leaves
        // this file.
        let (symbols, names) = unsafe {
            (
                elf.slice(Some(symbols), &mut regions)?,
                elf.slice(Some(names), &mut regions)?,
            )
        };
        let mut table = SymbolTable {
            symbols,
            names,
            _regions: regions,
            sorted: Vec::new(),
        };
        if sort {
            table.sort();
        }
        Ok(table)
    }

    fn sort(&mut self) {
        let count = self.functions().count();
        let mut sorted = Vec::new();
        if sorted.try_reserve_exact(count).is_err() {
            return;
        }
        sorted.extend(self.functions().map(|(number, start, _)| (start, number)));
        sorted.sort_unstable();
        self.sorted = sorted;
    }

    /// How much memory is kept that is not the file's.
    pub(super) fn bytes(&self) -> usize {
        self.sorted.capacity() * size_of::<(u64, u32)>()
    }

    /// The name of the function that this address is in.
    pub(super) fn name_at(&self, address: u64) -> Option<String> {
        let number = if self.sorted.is_empty() {
            self.functions()
                .filter(|(_, start, size)| holds(*start, *size, address))
                .max_by_key(|(_, start, _)| *start)
                .map(|(number, ..)| number)?
        } else {
            let after = self.sorted.partition_point(|(start, _)| *start <= address);
            let before = self.sorted.get(..after)?.iter().rev();
            // Some begin at the same address: that of the most names is last.
            let found = before.take(8).find(|(start, number)| {
                let size = self.function(*number).map_or(0, |(_, size)| size);
                holds(*start, size, address)
            })?;
            found.1
        };
        self.name_of(number)
    }

    /// The numbers of all functions, with their starts and sizes.
    pub(super) fn functions(&self) -> impl Iterator<Item = (u32, u64, u64)> + '_ {
        (0..self.symbols.len() / SYMBOL).filter_map(|number| {
            let number = u32::try_from(number).ok()?;
            let (start, size) = self.function(number)?;
            Some((number, start, size))
        })
    }

    /// Start and size of a symbol that is a function of this file.
    fn function(&self, number: u32) -> Option<(u64, u64)> {
        const FUNCTION: u8 = 2;
        const UNDEFINED: u8 = 0;
        let at = usize::try_from(number).ok()?.checked_mul(SYMBOL)?;
        let [_, _, _, _, kind, _, section @ ..] = self.symbols.array::<8>(at)?;
        if kind & 0xf != FUNCTION || section == [UNDEFINED; 2] {
            return None;
        }
        let word = |at| self.symbols.array(at).map(u64::from_ne_bytes);
        Some((word(at + 8)?, word(at + 16)?))
    }

    fn name_of(&self, number: u32) -> Option<String> {
        let at = usize::try_from(number).ok()?.checked_mul(SYMBOL)?;
        let name = u32::from_ne_bytes(self.symbols.array(at)?);
        let mut name_and_rest = self.names.clone();
        name_and_rest.skip(usize::try_from(name).ok()?).ok()?;
        name_and_rest.read_null_terminated_slice().ok()?.text()
    }
}

/// Assembly may have functions without a size: these end where the next begins.
const fn holds(start: u64, size: u64, address: u64) -> bool {
    start <= address && (size == 0 || address - start < size)
}

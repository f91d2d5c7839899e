//! Functions and lines of addresses, from debug info that stays in the file's pages.
//!
//! Only an index of units is kept for the whole file. A unit is read when an address in it
//! is looked up, and forgotten when others need the room. So memory is bounded whatever
//! the size of the file.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use gimli::{AttributeValue, Dwarf, UnitOffset};

use super::elf::Elf;
use super::entry::Entry;
use super::region::Region;
use super::slice::Slice;
use super::split::SplitFiles;
use super::unit::{OneUnit, Place};
use super::units::UnitIndex;

/// How much memory the units that are kept may take, by estimate.
pub(super) const MAX_UNIT_BYTES: usize = 4 << 20;
/// How many references a function's name may be away.
const MAX_REFERENCES: u32 = 16;
/// How deep functions may be inlined.
const MAX_DEPTH: usize = 256;

/// A function that is in progress at an address, and where in it.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) function: Option<String>,
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

/// The debug info of one file.
#[derive(Debug)]
pub(super) struct DebugInfo {
    // Fields are dropped in this order: what borrows from the sections comes first.
    units: HashMap<usize, Kept>,
    index: UnitIndex,
    dwarf: Dwarf<Slice>,
    /// `dwarf` and `units` borrow from them.
    sections: Vec<Region>,
    split: SplitFiles,
    unit_bytes: usize,
    looked_up: u64,
}

#[derive(Debug)]
struct Kept {
    unit: Arc<OneUnit>,
    bytes: usize,
    used: u64,
}

impl DebugInfo {
    /// Maps the sections and reads the index.
    pub(super) fn open(elf: &Elf, split: SplitFiles) -> io::Result<Self> {
        let mut sections = Vec::new();
        let mut load = |id: gimli::SectionId| -> io::Result<Slice> {
            let is_needed = NEEDED.contains(&id.name());
            let section = elf.named(id.name()).filter(|_| is_needed);
            // SAFETY: `DebugInfo::sections` keeps the regions. All that borrows from them
            // is in fields of `DebugInfo` that are dropped before, and does not leave
            // this file but to `OneUnit`, which is in such a field: names and paths are
            // copied.
            unsafe { elf.slice(section, &mut sections) }
        };
        let dwarf = Dwarf::load(&mut load)?;
        let index = UnitIndex::build(&dwarf).map_err(io::Error::other)?;
        Ok(DebugInfo {
            units: HashMap::new(),
            index,
            dwarf,
            sections,
            split,
            unit_bytes: 0,
            looked_up: 0,
        })
    }

    /// The functions at an address of the file, the innermost first; none where debug
    /// info has nothing on it.
    pub(super) fn find(&mut self, address: u64) -> gimli::Result<Vec<Found>> {
        self.looked_up += 1;
        if !self.split.is_unchanged() {
            self.forget_units();
        }
        let candidates: Vec<usize> = self.index.at(address).take(8).collect();
        for offset in candidates {
            let unit = self.unit(offset)?;
            let found = self.find_in(&unit, address)?;
            self.account(offset);
            if !found.is_empty() {
                return Ok(found);
            }
        }
        Ok(Vec::new())
    }

    /// Forgets all but the index.
    pub(super) fn forget_units(&mut self) {
        self.units = HashMap::new();
        self.unit_bytes = 0;
        self.split.forget();
    }

    /// Why names of inlined functions are missing, for people.
    pub(super) fn lack(&self) -> Option<&str> {
        self.split.lack()
    }

    /// How much memory is kept that is not the file's, without that of units.
    pub(super) fn index_bytes(&self) -> usize {
        self.index.bytes() + self.split.bytes()
    }

    /// How much of the sections is not the file's own pages.
    pub(super) fn section_bytes(&self) -> usize {
        let own = self.sections.iter().filter(|region| region.is_anonymous());
        own.map(|region| region.len()).sum()
    }

    fn unit(&mut self, offset: usize) -> gimli::Result<Arc<OneUnit>> {
        if let Some(kept) = self.units.get_mut(&offset) {
            kept.used = self.looked_up;
            return Ok(Arc::clone(&kept.unit));
        }
        let header = self
            .dwarf
            .debug_info
            .header_from_offset(gimli::DebugInfoOffset(offset))?;
        let unit = self.dwarf.unit(header)?;
        let split = self.split.part_of(&self.dwarf, &unit);
        let unit = Arc::new(OneUnit::new(unit, split));
        let kept = Kept {
            unit: Arc::clone(&unit),
            bytes: 0,
            used: self.looked_up,
        };
        self.units.insert(offset, kept);
        self.account(offset);
        Ok(unit)
    }

    /// Takes in how large a unit has become, and forgets those that were used least lately.
    fn account(&mut self, offset: usize) {
        if let Some(kept) = self.units.get_mut(&offset) {
            let bytes = kept.unit.bytes();
            self.unit_bytes = (self.unit_bytes + bytes).saturating_sub(kept.bytes);
            kept.bytes = bytes;
        }
        while self.unit_bytes > MAX_UNIT_BYTES {
            let others = self.units.iter().filter(|(at, _)| **at != offset);
            let Some(oldest) = others.min_by_key(|(_, kept)| kept.used).map(|(at, _)| *at) else {
                return;
            };
            if let Some(kept) = self.units.remove(&oldest) {
                self.unit_bytes = self.unit_bytes.saturating_sub(kept.bytes);
            }
        }
    }

    fn find_in(&mut self, one: &OneUnit, address: u64) -> gimli::Result<Vec<Found>> {
        let mut place = one.place_of(&self.dwarf, address)?;
        let function = one.functions(&self.dwarf)?.at(address).next();
        let Some(function) = function else {
            return Ok(place
                .take()
                .map(|place| place.of(None))
                .into_iter()
                .collect());
        };
        let calls = self.calls_at(one, function, address)?;
        let mut found = Vec::with_capacity(calls.len());
        for call in calls.into_iter().rev() {
            found.push(place.take().unwrap_or_default().of(call.name));
            place = Some(Place {
                file: call.file.and_then(|file| one.file(&self.dwarf, file)),
                line: call.line,
                column: call.column,
            });
        }
        Ok(found)
    }

    /// The function and what is inlined in it at this address, the outermost first.
    fn calls_at(
        &mut self,
        one: &OneUnit,
        function: UnitOffset,
        address: u64,
    ) -> gimli::Result<Vec<Call>> {
        let mut entries = one.described_by().entries_raw(Some(function))?;
        let top = entries.next_depth();
        // The entries of functions that do not have the address are passed over.
        let mut pass_below = None;
        let mut calls: Vec<Call> = Vec::new();
        while !entries.is_empty() {
            let depth = entries.next_depth();
            if depth <= top && !calls.is_empty() {
                break;
            }
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            if pass_below.is_some_and(|passed| depth > passed) {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            pass_below = None;
            let is_first = calls.is_empty();
            match abbreviation.tag() {
                gimli::DW_TAG_subprogram if !is_first => {
                    entries.skip_attributes(abbreviation.attributes())?;
                    pass_below = Some(depth);
                    continue;
                }
                gimli::DW_TAG_subprogram | gimli::DW_TAG_inlined_subroutine => {}
                _ => {
                    entries.skip_attributes(abbreviation.attributes())?;
                    continue;
                }
            }
            let mut read = Entry::default();
            for spec in abbreviation.attributes() {
                read.take(&entries.read_attribute(*spec)?);
            }
            let has_address = is_first || read.has(one.described(&self.dwarf), address)?;
            if has_address && calls.len() < MAX_DEPTH {
                calls.push(Call {
                    name: self.name_of(one, &read, MAX_REFERENCES)?,
                    file: read.call_file(one.unit.header.version()),
                    line: read.call_line,
                    column: read.call_column,
                });
            } else {
                pass_below = Some(depth);
            }
        }
        Ok(calls)
    }

    /// The name in an entry, or in the one that it is an instance of.
    fn name_of(
        &mut self,
        one: &OneUnit,
        entry: &Entry,
        references_left: u32,
    ) -> gimli::Result<Option<String>> {
        let described = one.described(&self.dwarf);
        let string = |value| described.attr_string(value).ok()?.text();
        let linkage = entry.linkage_name.clone().and_then(string);
        if let Some(name) = linkage.or_else(|| entry.name.clone().and_then(string)) {
            return Ok(Some(name));
        }
        let Some(left) = references_left.checked_sub(1) else {
            return Ok(None);
        };
        match entry.origin {
            Some(AttributeValue::UnitRef(offset)) => {
                let origin = Entry::at(described.unit, offset)?;
                self.name_of(one, &origin, left)
            }
            // No part that was split off refers to another.
            Some(AttributeValue::DebugInfoRef(offset)) if !one.is_split() => {
                let Some(holder) = self.index.holding(offset.0) else {
                    return Ok(None);
                };
                let other = self.unit(holder)?;
                let Some(offset) = offset.to_unit_offset(&other.unit.header) else {
                    return Ok(None);
                };
                let origin = Entry::at(&other.unit, offset)?;
                self.name_of(&other, &origin, left)
            }
            _ => Ok(None),
        }
    }
}

/// The sections that are mapped; `.debug_loc` and others are large and say nothing here.
pub(super) const NEEDED: [&str; 10] = [
    ".debug_abbrev",
    ".debug_addr",
    ".debug_aranges",
    ".debug_info",
    ".debug_line",
    ".debug_line_str",
    ".debug_ranges",
    ".debug_rnglists",
    ".debug_str",
    ".debug_str_offsets",
];

impl Place {
    fn of(self, function: Option<String>) -> Found {
        let Place { file, line, column } = self;
        Found {
            function,
            file,
            line,
            column,
        }
    }
}

/// A function in progress, and where it was called from if it is inlined.
#[derive(Debug)]
struct Call {
    name: Option<String>,
    file: Option<u64>,
    line: Option<u32>,
    column: Option<u32>,
}

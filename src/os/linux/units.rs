//! Which unit of debug info an address belongs to.

use gimli::{Dwarf, Unit, UnitHeader, UnitType};

use super::ranges::Ranges;
use super::slice::Slice;

/// All units of a file, by offset and by address.
#[derive(Debug, Default)]
pub(super) struct UnitIndex {
    /// Offsets in `.debug_info`, ascending.
    offsets: Vec<usize>,
    ranges: Ranges<usize>,
}

impl UnitIndex {
    /// Reads the first entry of each unit, unless `.debug_aranges` has its addresses.
    pub(super) fn build(dwarf: &Dwarf<Slice>) -> gimli::Result<Self> {
        let mut index = UnitIndex::default();
        let mut listed = Vec::new();
        let mut headers = dwarf.debug_aranges.headers();
        while let Ok(Some(header)) = headers.next() {
            let unit = header.debug_info_offset().0;
            let mut entries = header.entries();
            let before = index.ranges.len();
            // Entries that cannot be read are left out: rustc 1.89 wrote some that overflow.
            while let Some(entry) = entries.next().transpose() {
                if let Ok(entry) = entry {
                    index.ranges.push(entry.range(), unit);
                }
            }
            if index.ranges.len() > before {
                listed.push(unit);
            }
        }
        listed.sort_unstable();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            let Some(offset) = header.debug_info_offset() else {
                continue;
            };
            index.offsets.push(offset.0);
            let is_listed = listed.binary_search(&offset.0).is_ok();
            let has_code = matches!(
                header.type_(),
                UnitType::Compilation | UnitType::Skeleton(_)
            );
            if has_code && !is_listed {
                // One broken unit does not take the others with it.
                let _ = index.add_ranges_of(dwarf, header, offset.0);
            }
        }
        index.ranges.sort();
        Ok(index)
    }

    fn add_ranges_of(
        &mut self,
        dwarf: &Dwarf<Slice>,
        header: UnitHeader<Slice>,
        offset: usize,
    ) -> gimli::Result<()> {
        let before = self.ranges.len();
        let unit = without_lines(dwarf, header.clone())?;
        let mut ranges = dwarf.unit_ranges(&unit)?;
        while let Some(range) = ranges.next()? {
            self.ranges.push(range, offset);
        }
        if self.ranges.len() == before {
            // The unit names no addresses; its lines may.
            let unit = dwarf.unit(header)?;
            if let Some(program) = unit.line_program {
                for sequence in program.sequences()?.1 {
                    let range = gimli::Range {
                        begin: sequence.start,
                        end: sequence.end,
                    };
                    self.ranges.push(range, offset);
                }
            }
        }
        Ok(())
    }

    /// The units that may have this address, by offset.
    pub(super) fn at(&self, address: u64) -> impl Iterator<Item = usize> + '_ {
        self.ranges.at(address)
    }

    /// The unit that the entry at this offset belongs to.
    pub(super) fn holding(&self, entry: usize) -> Option<usize> {
        let after = self.offsets.partition_point(|offset| *offset <= entry);
        self.offsets.get(after.checked_sub(1)?).copied()
    }

    pub(super) fn bytes(&self) -> usize {
        self.offsets.capacity() * size_of::<usize>() + self.ranges.bytes()
    }
}

/// A unit without the table of its files, which is most of what reading a unit costs.
fn without_lines(dwarf: &Dwarf<Slice>, header: UnitHeader<Slice>) -> gimli::Result<Unit<Slice>> {
    let abbreviations = dwarf.abbreviations(&header)?;
    let mut unit = Unit {
        abbreviations,
        name: None,
        comp_dir: None,
        low_pc: 0,
        str_offsets_base: gimli::DebugStrOffsetsBase(0),
        addr_base: gimli::DebugAddrBase(0),
        loclists_base: gimli::DebugLocListsBase(0),
        rnglists_base: gimli::DebugRngListsBase::default_for_encoding_and_file(
            header.encoding(),
            dwarf.file_type,
        ),
        line_program: None,
        dwo_id: None,
        header,
    };
    let (addr_base, rnglists_base, low_pc) = {
        let mut cursor = unit.entries();
        cursor.next_dfs()?;
        let root = cursor.current().ok_or(gimli::Error::MissingUnitDie)?;
        let base = |name| root.attr_value(name);
        (
            base(gimli::DW_AT_addr_base).or_else(|| base(gimli::DW_AT_GNU_addr_base)),
            base(gimli::DW_AT_rnglists_base).or_else(|| base(gimli::DW_AT_GNU_ranges_base)),
            base(gimli::DW_AT_low_pc),
        )
    };
    if let Some(gimli::AttributeValue::DebugAddrBase(base)) = addr_base {
        unit.addr_base = base;
    }
    if let Some(gimli::AttributeValue::DebugRngListsBase(base)) = rnglists_base {
        unit.rnglists_base = base;
    }
    if let Some(low_pc) = low_pc {
        unit.low_pc = dwarf.attr_address(&unit, low_pc)?.unwrap_or(0);
    }
    Ok(unit)
}

//! The entries of debug info that stand for functions.

use gimli::{AttributeValue, Unit, UnitOffset, UnitRef};

use super::slice::Slice;

/// What is read of a function's entry.
#[derive(Debug, Default)]
pub(super) struct Entry {
    pub(super) linkage_name: Option<AttributeValue<Slice>>,
    pub(super) name: Option<AttributeValue<Slice>>,
    pub(super) origin: Option<AttributeValue<Slice>>,
    low: Option<AttributeValue<Slice>>,
    high: Option<AttributeValue<Slice>>,
    ranges: Option<AttributeValue<Slice>>,
    call_file: Option<u64>,
    pub(super) call_line: Option<u32>,
    pub(super) call_column: Option<u32>,
}

impl Entry {
    pub(super) fn at(unit: &Unit<Slice>, offset: UnitOffset) -> gimli::Result<Self> {
        let mut entries = unit.entries_raw(Some(offset))?;
        let mut read = Entry::default();
        if let Some(abbreviation) = entries.read_abbreviation()? {
            for spec in abbreviation.attributes() {
                read.take(&entries.read_attribute(*spec)?);
            }
        }
        Ok(read)
    }

    pub(super) fn take(&mut self, attribute: &gimli::Attribute<Slice>) {
        let value = attribute.value();
        let number = || attribute.udata_value();
        let small = || number().and_then(|number| u32::try_from(number).ok());
        match attribute.name() {
            gimli::DW_AT_linkage_name | gimli::DW_AT_MIPS_linkage_name => {
                self.linkage_name = Some(value);
            }
            gimli::DW_AT_name => self.name = Some(value),
            gimli::DW_AT_abstract_origin | gimli::DW_AT_specification => self.origin = Some(value),
            gimli::DW_AT_low_pc => self.low = Some(value),
            gimli::DW_AT_high_pc => self.high = Some(value),
            gimli::DW_AT_ranges => self.ranges = Some(value),
            gimli::DW_AT_call_file => {
                self.call_file = match value {
                    AttributeValue::FileIndex(file) => Some(file),
                    _ => number(),
                };
            }
            // Line and column 0 mean: not known.
            gimli::DW_AT_call_line => self.call_line = small().filter(|line| *line != 0),
            gimli::DW_AT_call_column => self.call_column = small().filter(|column| *column != 0),
            _ => {}
        }
    }

    /// Before version 5 of DWARF, file 0 means: not known.
    pub(super) fn call_file(&self, version: u16) -> Option<u64> {
        self.call_file.filter(|file| *file > 0 || version >= 5)
    }

    pub(super) fn has(&self, unit: UnitRef<'_, Slice>, address: u64) -> gimli::Result<bool> {
        let mut has = false;
        self.each_range(unit, |range| {
            has |= (range.begin..range.end).contains(&address);
        })?;
        Ok(has)
    }

    pub(super) fn each_range(
        &self,
        unit: UnitRef<'_, Slice>,
        mut each: impl FnMut(gimli::Range),
    ) -> gimli::Result<()> {
        if let Some(ranges) = self.ranges.clone()
            && let Some(mut ranges) = unit.attr_ranges(ranges)?
        {
            while let Some(range) = ranges.next()? {
                each(range);
            }
            return Ok(());
        }
        let Some(begin) = self.low.clone() else {
            return Ok(());
        };
        let (Some(begin), Some(high)) = (unit.attr_address(begin)?, &self.high) else {
            return Ok(());
        };
        let end = match (unit.attr_address(high.clone())?, high.udata_value()) {
            (Some(end), _) => end,
            (None, Some(size)) => begin.wrapping_add(size),
            (None, None) => return Ok(()),
        };
        each(gimli::Range { begin, end });
        Ok(())
    }
}

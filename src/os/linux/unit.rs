//! One unit of debug info: where its functions are, and its lines.

use std::sync::OnceLock;

use gimli::{CompleteLineProgram, Dwarf, LineSequence, Unit, UnitOffset, UnitRef};

use super::entry::Entry;
use super::ranges::Ranges;
use super::slice::Slice;
use super::split::SplitUnit;

/// A unit, with what has been read of it.
#[derive(Debug)]
pub(super) struct OneUnit {
    pub(super) unit: Unit<Slice>,
    /// What was split off, of a skeleton.
    split: Option<SplitUnit>,
    functions: OnceLock<Ranges<UnitOffset>>,
    lines: OnceLock<Option<Lines>>,
}

#[derive(Debug)]
struct Lines {
    program: CompleteLineProgram<Slice>,
    sequences: Vec<LineSequence<Slice>>,
}

#[derive(Debug, Default)]
pub(super) struct Place {
    pub(super) file: Option<String>,
    pub(super) line: Option<u32>,
    pub(super) column: Option<u32>,
}

impl OneUnit {
    pub(super) const fn new(unit: Unit<Slice>, split: Option<SplitUnit>) -> Self {
        OneUnit {
            unit,
            split,
            functions: OnceLock::new(),
            lines: OnceLock::new(),
        }
    }

    /// About what a unit takes: the sizes are those of gimli 0.34's types.
    pub(super) fn bytes(&self) -> usize {
        const ABBREVIATIONS: usize = 24 << 10;
        const FILE: usize = 96;
        const SEQUENCE: usize = size_of::<LineSequence<Slice>>();
        let files = self
            .unit
            .line_program
            .as_ref()
            .map_or(0, |program| program.header().file_names().len());
        let functions = self.functions.get().map_or(0, Ranges::bytes);
        let sequences = match self.lines.get() {
            // With a copy of the table of files.
            Some(Some(lines)) => lines.sequences.capacity() * SEQUENCE + files * FILE,
            _ => 0,
        };
        let split = self.split.as_ref().map_or(0, SplitUnit::bytes);
        ABBREVIATIONS + files * FILE + functions + sequences + split
    }

    /// The unit that has the entries of its functions.
    pub(super) fn described_by(&self) -> &Unit<Slice> {
        self.split.as_ref().map_or(&self.unit, |split| &split.unit)
    }

    /// The same, with its sections.
    pub(super) fn described<'a>(&'a self, dwarf: &'a Dwarf<Slice>) -> UnitRef<'a, Slice> {
        match &self.split {
            Some(split) => UnitRef::new(&split.dwarf, &split.unit),
            None => UnitRef::new(dwarf, &self.unit),
        }
    }

    /// Whether its functions are in another file.
    pub(super) const fn is_split(&self) -> bool {
        self.split.is_some()
    }

    pub(super) fn functions(&self, dwarf: &Dwarf<Slice>) -> gimli::Result<&Ranges<UnitOffset>> {
        if let Some(functions) = self.functions.get() {
            return Ok(functions);
        }
        let unit = self.described(dwarf);
        let mut functions = Ranges::default();
        let mut entries = unit.unit.entries_raw(None)?;
        while !entries.is_empty() {
            let offset = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            if abbreviation.tag() != gimli::DW_TAG_subprogram {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let mut read = Entry::default();
            for spec in abbreviation.attributes() {
                read.take(&entries.read_attribute(*spec)?);
            }
            read.each_range(unit, |range| functions.push(range, offset))?;
        }
        functions.sort();
        Ok(self.functions.get_or_init(|| functions))
    }

    fn lines(&self) -> Option<&Lines> {
        let lines = self.lines.get_or_init(|| {
            let program = self.unit.line_program.clone()?;
            let (program, mut sequences) = program.sequences().ok()?;
            sequences.retain(|sequence| sequence.start != 0 && sequence.start < sequence.end);
            sequences.shrink_to_fit();
            sequences.sort_unstable_by_key(|sequence| sequence.start);
            Some(Lines { program, sequences })
        });
        lines.as_ref()
    }

    /// Where the instruction at this address comes from.
    pub(super) fn place_of(
        &self,
        dwarf: &Dwarf<Slice>,
        address: u64,
    ) -> gimli::Result<Option<Place>> {
        let Some(Lines { program, sequences }) = self.lines() else {
            return Ok(None);
        };
        let after = sequences.partition_point(|sequence| sequence.start <= address);
        let sequence = after.checked_sub(1).and_then(|at| sequences.get(at));
        let Some(sequence) = sequence.filter(|sequence| address < sequence.end) else {
            return Ok(None);
        };
        let mut rows = program.resume_from(sequence);
        let mut last = None;
        while let Some((_, row)) = rows.next_row()? {
            if row.address() > address || row.end_sequence() {
                break;
            }
            last = Some((row.file_index(), row.line(), row.column()));
        }
        Ok(last.map(|(file, line, column)| {
            let line = line.and_then(|line| u32::try_from(line.get()).ok());
            let column = match column {
                gimli::ColumnType::LeftEdge => 0,
                gimli::ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or(0),
            };
            Place {
                file: file_of(UnitRef::new(dwarf, &self.unit), file),
                line,
                column: line.map(|_| column),
            }
        }))
    }

    /// The path of a file by the number that an entry has.
    pub(super) fn file(&self, dwarf: &Dwarf<Slice>, index: u64) -> Option<String> {
        let described = self.described(dwarf);
        // A part has a table of its own, or shares that of its skeleton.
        if described.line_program.is_some() {
            return file_of(described, index);
        }
        file_of(UnitRef::new(dwarf, &self.unit), index)
    }
}

/// The path of a file of the unit's table, as the compiler knew it.
fn file_of(unit: UnitRef<'_, Slice>, index: u64) -> Option<String> {
    let header = unit.line_program.as_ref()?.header();
    let file = header.file(index)?;
    let text = |value| unit.attr_string(value).ok()?.text();
    let mut path = std::path::PathBuf::new();
    if let Some(directory) = unit.comp_dir.as_ref().and_then(Slice::text) {
        path.push(directory);
    }
    // Directory 0 is that of the unit.
    if file.directory_index() != 0
        && let Some(directory) = file.directory(header).and_then(text)
    {
        path.push(directory);
    }
    path.push(text(file.path_name())?);
    Some(path.to_string_lossy().into_owned())
}

//! Unwind tables of modules without an index: found by the section headers of the file.
//!
//! A linker can leave `.eh_frame_hdr` out (`--no-eh-frame-hdr`). No program header then
//! names `.eh_frame`, though it is loaded. Its section header, in the file, does.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use gimli::{BaseAddresses, CieOrFde, EhFrame, LittleEndian, UnwindSection};

use crate::os::platform::memory;

/// Sizes of the file's header and of a section's (elf(5), 64 bits).
const HEADER: usize = 64;
const SECTION: usize = 64;
/// More sections, or a longer table of names, are a mistake.
const MOST_SECTIONS: usize = 65_536;
const MOST_NAMES: usize = 16 * 1024 * 1024;
/// In a section's flags: it is loaded.
const ALLOCATED: u64 = 2;

/// Where `.eh_frame` lies in the file's addresses, if it is loaded, and the file is that
/// of the module which begins at `start` in memory.
pub(crate) fn eh_frame(path: &Path, start: u64) -> Option<Range<u64>> {
    let file = File::open(path).ok()?;
    let header = read(&file, 0, HEADER)?;
    // It may have been replaced since: then its sections lie elsewhere, and so does what
    // the header says of them.
    if memory::array::<HEADER>(start)?.as_slice() != header {
        return None;
    }
    find(&header, &|offset, length| read(&file, offset, length))
}

fn read(file: &File, offset: u64, length: usize) -> Option<Vec<u8>> {
    // An allocation that fails ends the program, and names may take megabytes.
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).ok()?;
    bytes.resize(length, 0);
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}

type Read<'a> = &'a dyn Fn(u64, usize) -> Option<Vec<u8>>;

fn find(header: &[u8], read: Read<'_>) -> Option<Range<u64>> {
    let count = usize::from(u16::from_le_bytes(field(header, 60)?));
    let size = usize::from(u16::from_le_bytes(field(header, 58)?));
    let names = usize::from(u16::from_le_bytes(field(header, 62)?));
    if size != SECTION || count > MOST_SECTIONS {
        return None;
    }
    let sections = read(u64::from_le_bytes(field(header, 40)?), count * SECTION)?;
    let (sections, _) = sections.as_chunks::<SECTION>();
    let word = |section: &[u8; SECTION], at| Some(u64::from_le_bytes(field(section, at)?));
    let table = sections.get(names)?;
    let length = usize::try_from(word(table, 32)?).ok()?;
    let names = read(
        word(table, 24)?,
        Some(length).filter(|it| *it <= MOST_NAMES)?,
    )?;
    sections.iter().find_map(|section| {
        let name = usize::try_from(u32::from_le_bytes(field(section, 0)?)).ok()?;
        let is_it = names.get(name..)?.starts_with(b".eh_frame\0");
        let (start, length) = (word(section, 16)?, word(section, 32)?);
        let is_loaded = word(section, 8)? & ALLOCATED != 0;
        (is_it && is_loaded).then_some(start..start.checked_add(length)?)
    })
}

fn field<const LENGTH: usize>(bytes: &[u8], at: usize) -> Option<[u8; LENGTH]> {
    bytes.get(at..at.checked_add(LENGTH)?)?.try_into().ok()
}

/// The functions that a table describes, in order; what the index would say. `None` where
/// there is no memory for them.
pub(crate) fn functions(frames: &[u8], address: u64) -> Option<Vec<Range<u64>>> {
    let table = EhFrame::new(frames, LittleEndian);
    let bases = BaseAddresses::default().set_eh_frame(address);
    let mut functions = Vec::new();
    let mut entries = table.entries(&bases);
    // What cannot be read ends the list.
    while let Ok(Some(entry)) = entries.next() {
        if let CieOrFde::Fde(partial) = entry
            && let Ok(whole) = partial.parse(EhFrame::cie_from_offset)
        {
            let start = whole.initial_address();
            functions.try_reserve(1).ok()?;
            functions.push(start..start.saturating_add(whole.len()));
        }
    }
    functions.sort_unstable_by_key(|function| function.start);
    Some(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_this_program_is_found_in_its_file() {
        let file = File::open("/proc/self/exe").unwrap();
        let header = read(&file, 0, HEADER).unwrap();
        let found = find(&header, &|offset, length| read(&file, offset, length)).unwrap();
        assert!(found.end - found.start > 1_000, "{found:?}");
    }

    #[test]
    fn broken_headers_are_refused() {
        let file = File::open("/proc/self/exe").unwrap();
        let good = read(&file, 0, HEADER).unwrap();
        for at in 40..HEADER {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                // Whatever it says, it comes back.
                let _ = find(&bad, &|offset, length| read(&file, offset, length));
            }
        }
        for length in 0..HEADER {
            assert_eq!(find(&good[..length], &|_, _| None), None);
        }
    }
}

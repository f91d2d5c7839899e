//! The file that a module was loaded from, which may not be the one of its name any more.
//!
//! An update replaces programs and libraries while they run. Names by the new file would
//! be wrong, so the ids that linkers give to builds are compared, and where there are
//! none, what the kernel says of the mapping.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::elf::{Elf, Kind};
use crate::os::ModuleFile;

/// The link to the executable's file, which leads there whatever has become of its name.
pub(super) const EXECUTABLE: &str = "/proc/self/exe";
/// What the kernel appends to the name of a file that has none any more.
const DELETED: &str = " (deleted)";

/// A module's file.
#[derive(Debug)]
pub(super) struct Image {
    pub(super) elf: Elf,
    /// Its name on disk.
    pub(super) path: PathBuf,
    /// Whether another file has the name now, or none.
    pub(super) is_replaced: bool,
}

/// Why there is no file to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoImage {
    /// What the kernel provides is in no file.
    NoFile,
    /// The file that is there is another one, or there is none any more.
    Replaced,
}

/// Opens the file that is in memory.
pub(super) fn open(module: &ModuleFile) -> Result<Image, NoImage> {
    if module.path == Path::new(EXECUTABLE) {
        let image = Elf::open(&module.path, Kind::Image).ok();
        let image = image.filter(|elf| is_of(elf, module) != Some(false));
        if let (Some(elf), Ok(name)) = (image, fs::read_link(EXECUTABLE)) {
            let path = without_mark(&name);
            let is_same = fs::metadata(&path).is_ok_and(|there| {
                let here = elf.file().file().metadata();
                here.is_ok_and(|here| (here.dev(), here.ino()) == (there.dev(), there.ino()))
            });
            return Ok(Image {
                elf,
                path,
                is_replaced: !is_same,
            });
        }
    } else if !module.path.as_os_str().as_bytes().contains(&b'/') {
        return Err(NoImage::NoFile);
    }
    let by_name = Elf::open(&module.path, Kind::Image).ok();
    if let Some(elf) = by_name
        && is_of(&elf, module) == Some(true)
    {
        return Ok(Image {
            elf,
            path: module.path.clone(),
            is_replaced: false,
        });
    }
    by_mapping(module)
}

/// Whether a file is the one in memory; `None` where that was given no id.
fn is_of(elf: &Elf, module: &ModuleFile) -> Option<bool> {
    let loaded = module.build_id.as_deref()?;
    Some(elf.build_id().as_deref() == Some(loaded))
}

/// By the name that the kernel has for the mapping, which follows links and moves.
fn by_mapping(module: &ModuleFile) -> Result<Image, NoImage> {
    let Some(mapping) = mapping_at(module.range.start) else {
        // The kernel shows no mappings, or a test has made the module up.
        let elf = Elf::open(&module.path, Kind::Image).map_err(|_| NoImage::Replaced)?;
        return match is_of(&elf, module) {
            Some(false) => Err(NoImage::Replaced),
            _ => Ok(Image {
                elf,
                path: module.path.clone(),
                is_replaced: false,
            }),
        };
    };
    let is_deleted = mapping
        .name
        .as_os_str()
        .as_bytes()
        .ends_with(DELETED.as_bytes());
    // The link to what is mapped, which only a privileged process may follow.
    let link = Path::new("/proc/self/map_files").join(mapping.range);
    let places = [(!is_deleted).then_some(mapping.name.clone()), Some(link)];
    for place in places.into_iter().flatten() {
        if let Ok(elf) = Elf::open(&place, Kind::Image)
            && is_of(&elf, module) != Some(false)
        {
            return Ok(Image {
                elf,
                path: without_mark(&mapping.name),
                is_replaced: is_deleted,
            });
        }
    }
    Err(NoImage::Replaced)
}

fn without_mark(name: &Path) -> PathBuf {
    let name = name.as_os_str().as_bytes();
    let name = name.strip_suffix(DELETED.as_bytes()).unwrap_or(name);
    PathBuf::from(std::ffi::OsStr::from_bytes(name))
}

/// One line of `/proc/self/maps`.
#[derive(Debug, PartialEq, Eq)]
struct Mapping {
    /// As the file below `/proc/self/map_files` is called.
    range: String,
    name: PathBuf,
}

fn mapping_at(address: u64) -> Option<Mapping> {
    let mut lines = BufReader::new(fs::File::open("/proc/self/maps").ok()?);
    let mut line = Vec::new();
    loop {
        line.clear();
        if lines.read_until(b'\n', &mut line).ok()? == 0 {
            return None;
        }
        if let Some(found) = mapping_with(&line, address) {
            return Some(found);
        }
    }
}

/// The line's mapping if it has the address and is one of a file.
fn mapping_with(line: &[u8], address: u64) -> Option<Mapping> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let range = std::str::from_utf8(fields.next()?).ok()?;
    let (start, end) = range.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    if !(number(start)?..number(end)?).contains(&address) {
        return None;
    }
    let name = fields.nth(4)?.trim_ascii_start();
    name.starts_with(b"/").then(|| Mapping {
        range: range.to_owned(),
        name: PathBuf::from(std::ffi::OsStr::from_bytes(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mapping_that_holds_an_address_is_found_by_its_line() {
        let line = b"7f00-8f00 r-xp 00001000 fe:01 1234     /a b/lib c.so (deleted)\n";
        let mapping = Mapping {
            range: "7f00-8f00".into(),
            name: "/a b/lib c.so (deleted)".into(),
        };
        assert_eq!(mapping_with(line, 0x7f00), Some(mapping));
        assert_eq!(mapping_with(line, 0x8f00), None);
        let anonymous = b"7f00-8f00 rw-p 00000000 00:00 0 \n";
        assert_eq!(mapping_with(anonymous, 0x7f00), None);
        let stack = b"7f00-8f00 rw-p 00000000 00:00 0          [stack]\n";
        assert_eq!(mapping_with(stack, 0x7f00), None);
        let here = mapping_at(mapping_at as fn(u64) -> Option<Mapping> as usize as u64);
        assert_eq!(here.unwrap().name, std::env::current_exe().unwrap());
    }
}

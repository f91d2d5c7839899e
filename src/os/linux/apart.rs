//! Debug info in a file of its own: which files are looked at, and which is believed.
//!
//! As gdb and elfutils look: by the build id, then by the name in `.gnu_debuglink`, then
//! in what `debuginfod` has downloaded. [`docs::stacks`](crate::docs::stacks) has the
//! order. Nothing is downloaded.

use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::elf::{Elf, Kind, u32_at};
use super::image::Image;
use super::paged::PagedFile;

const SYSTEM: &str = "/usr/lib/debug";
/// More is no name of a file.
const MAX_LINK: u64 = 8192;

/// The debug file of an image.
#[derive(Debug)]
pub(super) struct Apart {
    pub(super) elf: Elf,
    pub(super) path: PathBuf,
}

/// What `.gnu_debuglink` has: a name, and the checksum of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Link {
    name: PathBuf,
    checksum: u32,
}

/// The first debug file that is the image's; else why one that is there is not.
pub(super) fn find(image: &Image) -> Result<Option<Apart>, String> {
    let id = image.elf.build_id();
    let link = link_of(&image.elf);
    let mut refused = None;
    for path in places(&image.path, id.as_deref(), link.as_ref(), &Caches::here()) {
        let Ok(elf) = Elf::open(&path, Kind::Apart) else {
            continue;
        };
        if belongs(&elf, id.as_deref(), link.as_ref()) {
            return Ok(Some(Apart { elf, path }));
        }
        // The program itself has the name where the link was not renamed.
        if path != image.path {
            refused.get_or_insert(path);
        }
    }
    match refused {
        Some(path) => Err(format!("{} is of another build", path.display())),
        None => Ok(None),
    }
}

/// By the id where both have one, else by the checksum of all bytes.
fn belongs(elf: &Elf, id: Option<&str>, link: Option<&Link>) -> bool {
    match (id, elf.build_id()) {
        (Some(id), Some(of_file)) => id == of_file,
        _ => link.is_some_and(|link| checksum(elf.file()) == Some(link.checksum)),
    }
}

fn link_of(elf: &Elf) -> Option<Link> {
    let bytes = elf.bytes(elf.named(".gnu_debuglink")?, MAX_LINK).ok()?;
    let length = bytes.iter().position(|byte| *byte == 0)?;
    let name = Path::new(std::ffi::OsStr::from_bytes(bytes.get(..length)?));
    // A name, and no way to elsewhere.
    let mut parts = name.components();
    let is_name = matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
    let checksum = u32_at(&bytes, (length + 1).next_multiple_of(4)).ok()?;
    is_name.then(|| Link {
        name: name.to_owned(),
        checksum,
    })
}

fn checksum(file: &PagedFile) -> Option<u32> {
    let mut bytes = [0; 16 << 10];
    let mut sum = flate2::Crc::new();
    let mut file = file.file().try_clone().ok()?;
    std::io::Seek::rewind(&mut file).ok()?;
    loop {
        match file.read(&mut bytes).ok()? {
            0 => return Some(sum.sum()),
            count => sum.update(bytes.get(..count)?),
        }
    }
}

/// Where `debuginfod`'s clients keep what they have downloaded.
#[derive(Debug, Default)]
struct Caches(Option<PathBuf>);

impl Caches {
    /// By the environment as the process was started with it: to read the present one
    /// is fatal while C code changes it.
    fn here() -> Self {
        /// More is not searched.
        const MOST: u64 = 1 << 20;
        let mut environment = Vec::new();
        if let Ok(file) = fs::File::open("/proc/self/environ") {
            let _ = file.take(MOST).read_to_end(&mut environment);
        }
        Self::by(&environment)
    }

    fn by(environment: &[u8]) -> Self {
        let value = |name: &str| {
            let mut all = environment.split(|byte| *byte == 0);
            let found = all.find_map(|one| one.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            let found = found.filter(|found| !found.is_empty())?;
            Some(PathBuf::from(std::ffi::OsStr::from_bytes(found)))
        };
        const CLIENT: &str = "debuginfod_client";
        Caches(
            value("DEBUGINFOD_CACHE_PATH")
                .or_else(|| Some(value("XDG_CACHE_HOME")?.join(CLIENT)))
                .or_else(|| Some(value("HOME")?.join(".cache").join(CLIENT))),
        )
    }
}

fn places(path: &Path, id: Option<&str>, link: Option<&Link>, caches: &Caches) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = path.parent().map(Into::into).into_iter().collect();
    // A library's name is often a link to elsewhere.
    if let Ok(real) = fs::canonicalize(path)
        && let Some(real) = real.parent()
        && !folders.iter().any(|folder| folder == real)
    {
        folders.push(real.to_owned());
    }
    let mut places = Vec::new();
    let by_id = id.and_then(|id| {
        let (first, rest) = id.split_at_checked(2)?;
        Some(
            Path::new(".build-id")
                .join(first)
                .join(format!("{rest}.debug")),
        )
    });
    if let Some(by_id) = by_id {
        places.push(Path::new(SYSTEM).join(&by_id));
        for folder in &folders {
            places.push(folder.join(&by_id));
            places.push(folder.join(".debug").join(&by_id));
        }
    }
    if let Some(Link { name, .. }) = link {
        for folder in &folders {
            places.push(folder.join(name));
            places.push(folder.join(".debug").join(name));
            let below = folder.strip_prefix("/").unwrap_or(folder);
            places.push(Path::new(SYSTEM).join(below).join(name));
        }
    }
    if let (Some(id), Caches(Some(cache))) = (id, caches) {
        places.push(cache.join(id).join("debuginfo"));
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_sought_by_id_then_by_name_then_in_the_cache() {
        let link = Link {
            name: "app.debug".into(),
            checksum: 7,
        };
        let caches = Caches::by(b"A=1\0HOME=/home/x\0XDG_CACHE_HOME=\0");
        let found = places(
            Path::new("/opt/none/app"),
            Some("abcdef"),
            Some(&link),
            &caches,
        );
        let expected = [
            "/usr/lib/debug/.build-id/ab/cdef.debug",
            "/opt/none/.build-id/ab/cdef.debug",
            "/opt/none/.debug/.build-id/ab/cdef.debug",
            "/opt/none/app.debug",
            "/opt/none/.debug/app.debug",
            "/usr/lib/debug/opt/none/app.debug",
            "/home/x/.cache/debuginfod_client/abcdef/debuginfo",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
        let caches = |environment: &[u8]| Caches::by(environment).0.unwrap();
        let home = b"HOME=/h\0XDG_CACHE_HOME=/x\0";
        assert_eq!(caches(home), Path::new("/x/debuginfod_client"));
        let set = b"XDG_CACHE_HOME=/x\0DEBUGINFOD_CACHE_PATH=/d\0";
        assert_eq!(caches(set), Path::new("/d"));
        let none = places(Path::new("/opt/none/app"), None, None, &Caches::by(b""));
        assert!(none.is_empty(), "{none:?}");
    }
}

//! Debug info that was split off: `.dwp` packages and `.dwo` files.
//!
//! Lines stay in the program's file; functions, and so the names of inlined ones, are in
//! the part that was split off (DWARF 5, section 7.3, and GNU's form of it for DWARF 4).
//! A part has the id that its skeleton in the program's file names, so none is taken for
//! another's.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gimli::{AttributeValue, Dwarf, DwarfPackage, DwoId, SectionId, Unit};

use super::elf::{Elf, Kind};
use super::memory_left::{MemoryLeft, Need};
use super::paged::PagedFile;
use super::region::Region;
use super::slice::Slice;

/// The sections that are read; those of variables' places and of types say nothing here.
const NEEDED: [&str; 7] = [
    ".debug_abbrev.dwo",
    ".debug_cu_index",
    ".debug_info.dwo",
    ".debug_line.dwo",
    ".debug_rnglists.dwo",
    ".debug_str.dwo",
    ".debug_str_offsets.dwo",
];

/// Where the parts of one file are.
#[derive(Debug)]
pub(super) struct SplitFiles {
    /// The program or library, and its debug file; `None` where what lies beside is not
    /// theirs.
    of: Option<Vec<PathBuf>>,
    package: Option<Package>,
    is_package_sought: bool,
    left: fn() -> MemoryLeft,
    lack: Option<String>,
}

/// The part of one unit.
#[derive(Debug)]
pub(super) struct SplitUnit {
    // Fields are dropped in this order: what borrows from the regions comes first.
    pub(super) unit: Unit<Slice>,
    pub(super) dwarf: Dwarf<Slice>,
    /// Of a `.dwo` file; those of a package are kept with it.
    regions: Vec<Region>,
    /// What the regions of the package are kept by, for as long as this part lives.
    _package: Option<Arc<Vec<Region>>>,
}

#[derive(Debug)]
struct Package {
    // Fields are dropped in this order: what borrows from the regions comes first.
    units: DwarfPackage<Slice>,
    regions: Arc<Vec<Region>>,
    file: Arc<PagedFile>,
    name: String,
}

impl SplitFiles {
    /// Of a file at these paths; looks for nothing yet.
    pub(super) const fn new(of: Option<Vec<PathBuf>>, left: fn() -> MemoryLeft) -> Self {
        SplitFiles {
            of,
            package: None,
            is_package_sought: false,
            left,
            lack: None,
        }
    }

    /// Why parts are missing, for people.
    pub(super) fn lack(&self) -> Option<&str> {
        self.lack.as_deref()
    }

    /// Whether what was read is still there; else all of it must be forgotten.
    pub(super) fn is_unchanged(&mut self) -> bool {
        let Some(package) = &self.package else {
            return true;
        };
        if package.file.is_unchanged() {
            return true;
        }
        self.lack = Some(format!("{} was replaced since it was read", package.name));
        self.package = None;
        false
    }

    /// How much memory is taken by the package.
    pub(super) fn bytes(&self) -> usize {
        let of = |package: &Package| {
            let regions = package.regions.iter().map(|region| region.len());
            regions.sum::<usize>() + PagedFile::MAX_BYTES
        };
        self.package.as_ref().map_or(0, of)
    }

    /// Forgets what is read again fast.
    pub(super) fn forget(&self) {
        if let Some(package) = &self.package {
            package.file.forget();
        }
    }

    /// The part of this skeleton; `None` where there is none, which is a lack then.
    pub(super) fn part_of(
        &mut self,
        dwarf: &Dwarf<Slice>,
        skeleton: &Unit<Slice>,
    ) -> Option<SplitUnit> {
        let id = skeleton.dwo_id?;
        match self.find(dwarf, skeleton, id) {
            Ok(part) => Some(part),
            Err(lack) => {
                self.lack.get_or_insert(lack);
                None
            }
        }
    }

    fn find(
        &mut self,
        dwarf: &Dwarf<Slice>,
        skeleton: &Unit<Slice>,
        id: DwoId,
    ) -> Result<SplitUnit, String> {
        let Some(of) = self.of.clone() else {
            return Err("the program was replaced on disk since it was loaded".into());
        };
        if !self.is_package_sought {
            self.is_package_sought = true;
            self.package = self.open_package(&of)?;
        }
        if let Some(package) = &self.package
            && let Ok(Some(part)) = package.units.find_cu(id, dwarf)
            && let Ok(part) = SplitUnit::new(part, skeleton, Vec::new())
        {
            let regions = Arc::clone(&package.regions);
            return Ok(SplitUnit {
                _package: Some(regions),
                ..part
            });
        }
        let name = name_of(dwarf, skeleton).ok_or("a .dwo file has no name")?;
        let beside = of.iter().filter_map(|path| path.parent());
        let places = std::iter::once(name.clone())
            .chain(beside.filter_map(|folder| Some(folder.join(name.file_name()?))));
        for place in places {
            if let Ok(elf) = Elf::open(&place, Kind::Apart) {
                let part = self.open_part(&elf, dwarf, skeleton, id);
                return part.map_err(|error| match error {
                    PartError::TooLittle(lack) => lack,
                    PartError::Other => format!("{} is of another build", place.display()),
                });
            }
        }
        Err(match (&self.package, of.first()) {
            (Some(package), _) => format!("{} is of another build", package.name),
            (None, Some(path)) => format!(
                "neither {}.dwp nor {} can be read",
                path.display(),
                name.display()
            ),
            (None, None) => format!("{} cannot be read", name.display()),
        })
    }

    fn open_package(&self, of: &[PathBuf]) -> Result<Option<Package>, String> {
        for path in of.iter().flat_map(|path| packages_of(path)) {
            let Ok(elf) = Elf::open(&path, Kind::Apart) else {
                continue;
            };
            let need = need_of(&elf, |_, is_compressed| is_compressed);
            let allowed = (self.left)().allows(need);
            allowed.map_err(|lack| lack.to_string())?;
            let name = path.display().to_string();
            let package = Package::open(&elf, name);
            return package
                .map(Some)
                .map_err(|_| format!("{} cannot be read", path.display()));
        }
        Ok(None)
    }

    fn open_part(
        &self,
        elf: &Elf,
        dwarf: &Dwarf<Slice>,
        skeleton: &Unit<Slice>,
        id: DwoId,
    ) -> Result<SplitUnit, PartError> {
        // There may be thousands of these files: what is read of one is copied, as open
        // files are few.
        let allowed = (self.left)().allows(need_of(elf, |_, _| true));
        allowed.map_err(|lack| PartError::TooLittle(lack.to_string()))?;
        let mut regions = Vec::new();
        let load = |id: SectionId| {
            // SAFETY: `SplitUnit` keeps the regions, and nothing that borrows from its
            // other fields outlives it: names and paths are copied.
            unsafe { elf.copy(section(elf, id), &mut regions) }
        };
        let mut part = Dwarf::load(load).map_err(|_| PartError::Other)?;
        part.make_dwo(dwarf);
        let part = SplitUnit::new(part, skeleton, regions).map_err(|_| PartError::Other)?;
        if part.unit.dwo_id != Some(id) {
            return Err(PartError::Other);
        }
        Ok(part)
    }
}

enum PartError {
    TooLittle(String),
    Other,
}

impl SplitUnit {
    fn new(
        dwarf: Dwarf<Slice>,
        skeleton: &Unit<Slice>,
        regions: Vec<Region>,
    ) -> gimli::Result<Self> {
        let header = dwarf.units().next()?.ok_or(gimli::Error::MissingUnitDie)?;
        let mut unit = dwarf.unit(header)?;
        unit.copy_relocated_attributes(skeleton);
        Ok(SplitUnit {
            unit,
            dwarf,
            regions,
            _package: None,
        })
    }

    /// How much memory is kept for it beside that of a unit.
    pub(super) fn bytes(&self) -> usize {
        /// Of abbreviations, and of a mapping.
        const PART: usize = 24 << 10;
        let regions = self.regions.iter().map(|region| region.len());
        PART + regions.sum::<usize>()
    }
}

impl Package {
    fn open(elf: &Elf, name: String) -> io::Result<Self> {
        let mut regions = Vec::new();
        let load = |id: SectionId| -> gimli::Result<Slice> {
            // SAFETY: the package keeps the regions, and each part of it does so, too;
            // nothing that borrows from them outlives both: names and paths are copied.
            let slice = unsafe { elf.slice(section(elf, id), &mut regions) };
            slice.map_err(|_| gimli::Error::Io)
        };
        let units = DwarfPackage::load(load, Slice::empty()).map_err(io::Error::other)?;
        elf.file().forget();
        Ok(Package {
            units,
            regions: Arc::new(regions),
            file: Arc::clone(elf.file()),
            name,
        })
    }
}

fn section(elf: &Elf, id: SectionId) -> Option<&super::elf::Section> {
    let is_needed = |name: &&str| NEEDED.contains(name);
    elf.named(id.dwo_name().filter(is_needed)?)
}

/// What is in memory of the sections that are copied or unpacked.
fn need_of(elf: &Elf, is_in_memory: impl Fn(&str, bool) -> bool) -> Need {
    let mut own = PagedFile::MAX_BYTES as u64;
    for name in NEEDED {
        if let Some(section) = elf.named(name)
            && let Ok((size, is_compressed)) = elf.plain_size(section)
            && is_in_memory(name, is_compressed)
        {
            own = own.saturating_add(size);
        }
    }
    Need { mapped: 0, own }
}

/// What the package of a file may be called; cargo and rustc differ on hyphens.
fn packages_of(path: &Path) -> Vec<PathBuf> {
    let mut names = Vec::new();
    if let Some(name) = path.file_name() {
        let name = format!("{}.dwp", name.to_string_lossy());
        names.push(path.with_file_name(&name));
        if name.contains('-') {
            names.push(path.with_file_name(name.replace('-', "_")));
        }
    }
    names
}

/// Where the compiler has written the part.
fn name_of(dwarf: &Dwarf<Slice>, skeleton: &Unit<Slice>) -> Option<PathBuf> {
    let text = |value: AttributeValue<Slice>| dwarf.attr_string(skeleton, value).ok()?.text();
    let name = text(skeleton.dwo_name().ok()??)?;
    let folder = skeleton.comp_dir.as_ref().and_then(Slice::text);
    Some(Path::new(&folder.unwrap_or_default()).join(name))
}

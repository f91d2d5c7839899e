//! The sections of an ELF file, mapped one by one.
//!
//! The format: System V ABI, "Object Files", as `elf.h` has it; only files of 64 bits in
//! this machine's byte order, as are all that the process can load.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::paged::PagedFile;
use super::region::Region;
use super::slice::Slice;

/// A header of one section, and what is needed to find it by name.
#[derive(Clone, Copy, Debug)]
pub(super) struct Section {
    name: u32,
    pub(super) kind: u32,
    flags: u64,
    offset: u64,
    pub(super) size: u64,
    pub(super) link: u32,
}

/// What is to be expected of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The loader has mapped it: one more mapping is no more danger.
    Image,
    /// Only debug info is read from it: it may be written over at any time.
    Apart,
}

/// A file with its table of sections.
#[derive(Debug)]
pub(super) struct Elf {
    file: Arc<PagedFile>,
    kind: Kind,
    sections: Vec<Section>,
    names: Vec<u8>,
}

/// Of `elf.h`: takes no place in the file.
const SHT_NOBITS: u32 = 8;
/// More sections than this have only object files with a section for each function.
const MAX_SECTIONS: usize = 4096;
/// More than this is no table of section names.
const MAX_NAMES: u64 = 1 << 20;
const SECTION_HEADER: usize = size_of::<libc::Elf64_Shdr>();

impl Elf {
    /// Reads the headers: some kilobytes.
    pub(super) fn open(path: &Path, kind: Kind) -> io::Result<Self> {
        let file = PagedFile::open(path)?;
        let mut header = [0; size_of::<libc::Elf64_Ehdr>()];
        file.read(0, &mut header)?;
        let is_native = header.starts_with(b"\x7fELF")
            && header.get(4) == Some(&libc::ELFCLASS64)
            && header.get(5) == Some(&NATIVE);
        if !is_native {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let table = u64_at(&header, 0x28)?;
        let entry = usize::from(u16_at(&header, 0x3a)?);
        let count = usize::from(u16_at(&header, 0x3c)?);
        let names = usize::from(u16_at(&header, 0x3e)?);
        if entry != SECTION_HEADER || count > MAX_SECTIONS {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; count * entry];
        file.read(table, &mut bytes)?;
        let sections: io::Result<Vec<Section>> = bytes.chunks_exact(entry).map(section).collect();
        let sections = sections?;
        let names = match sections.get(names) {
            Some(section) if section.size <= MAX_NAMES => {
                let mut names = vec![0; usize::try_from(section.size).unwrap_or(0)];
                file.read(section.offset, &mut names)?;
                names
            }
            _ => Vec::new(),
        };
        file.forget();
        Ok(Elf {
            file: Arc::new(file),
            kind,
            sections,
            names,
        })
    }

    pub(super) const fn file(&self) -> &Arc<PagedFile> {
        &self.file
    }

    /// Whether its sections are mapped, so that they take address space.
    pub(super) fn is_mapped(&self) -> bool {
        self.kind == Kind::Image
    }

    pub(super) fn named(&self, name: &str) -> Option<&Section> {
        self.sections.iter().find(|section| {
            let start = usize::try_from(section.name).unwrap_or(usize::MAX);
            let rest = self.names.get(start..).unwrap_or_default();
            rest.strip_prefix(name.as_bytes())
                .is_some_and(|rest| rest.first() == Some(&0))
        })
    }

    /// The GNU build id, in hexadecimal.
    pub(super) fn build_id(&self) -> Option<String> {
        // Sizes of name and content, type and name come before.
        const HEAD: usize = 16;
        /// Of a hash, and of what comes before it.
        const MOST: u64 = 256;
        let section = self.named(".note.gnu.build-id")?;
        let note = self.bytes(section, MOST).ok()?;
        let size = usize::try_from(u32_at(&note, 4).ok()?).ok()?;
        let content = note.get(HEAD..HEAD.checked_add(size)?)?;
        Some(content.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    pub(super) fn of_kind(&self, kind: u32) -> Option<&Section> {
        self.sections.iter().find(|section| section.kind == kind)
    }

    /// The section that another one is linked to, like the names of symbols.
    pub(super) fn linked(&self, section: &Section) -> Option<&Section> {
        self.sections.get(usize::try_from(section.link).ok()?)
    }

    /// The bytes as they are in the file, if they are few.
    pub(super) fn bytes(&self, section: &Section, most: u64) -> io::Result<Vec<u8>> {
        if section.kind == SHT_NOBITS || section.size > most {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let size = usize::try_from(section.size).map_err(io::Error::other)?;
        let mut bytes = vec![0; size];
        self.file.read(section.offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The bytes as they are in the file, in memory.
    fn raw(&self, section: &Section) -> io::Result<Region> {
        if section.kind == SHT_NOBITS {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::try_from(section.size).map_err(io::Error::other)?;
        match self.kind {
            Kind::Image => Region::of_file(self.file.file(), section.offset, size),
            Kind::Apart => Region::filled(size, |bytes| {
                self.file.file().read_exact_at(bytes, section.offset)
            }),
        }
    }

    /// A section's content, decompressed if need be; nothing where there is none.
    ///
    /// # Safety
    /// What is added to `regions` must live longer than the slice and its copies.
    pub(super) unsafe fn slice(
        &self,
        section: Option<&Section>,
        regions: &mut Vec<Region>,
    ) -> io::Result<Slice> {
        let has_bytes = |section: &&Section| section.size > 0 && section.kind != SHT_NOBITS;
        let Some(section) = section.filter(has_bytes) else {
            return Ok(Slice::empty());
        };
        if self.kind == Kind::Apart && !section.is_compressed() {
            let size = usize::try_from(section.size).map_err(io::Error::other)?;
            if section.offset.saturating_add(section.size) > self.file.size() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(Slice::of_file(Arc::clone(&self.file), section.offset, size));
        }
        Ok(
            // SAFETY: the caller promises what this asks for.
            unsafe { Slice::of_region(self.plain(section)?, regions) },
        )
    }

    /// The same, in memory in any case.
    ///
    /// # Safety
    /// As with [`Self::slice`].
    pub(super) unsafe fn copy(
        &self,
        section: Option<&Section>,
        regions: &mut Vec<Region>,
    ) -> io::Result<Slice> {
        match section.filter(|section| section.size > 0) {
            None => Ok(Slice::empty()),
            Some(section) => Ok(
                // SAFETY: the caller promises what this asks for.
                unsafe { Slice::of_region(self.plain(section)?, regions) },
            ),
        }
    }

    /// How long the section is once it is decompressed, and whether it needs to be.
    pub(super) fn plain_size(&self, section: &Section) -> io::Result<(u64, bool)> {
        if !section.is_compressed() {
            return Ok((section.size, false));
        }
        let mut header = [0; COMPRESSION_HEADER];
        self.file.read(section.offset, &mut header)?;
        Ok((u64_at(&header, 8)?, true))
    }

    /// The bytes, decompressed if need be.
    fn plain(&self, section: &Section) -> io::Result<Region> {
        const ZLIB: u32 = 1;
        const ZSTD: u32 = 2;
        let raw = self.raw(section)?;
        if !section.is_compressed() {
            return Ok(raw);
        }
        let method = u32_at(&raw, 0)?;
        let size = usize::try_from(u64_at(&raw, 8)?).map_err(io::Error::other)?;
        let packed = raw.get(COMPRESSION_HEADER..).unwrap_or_default();
        Region::filled(size, |bytes| {
            let written = match method {
                ZLIB => {
                    let mut unpack = flate2::Decompress::new(true);
                    unpack.decompress(packed, bytes, flate2::FlushDecompress::Finish)?;
                    usize::try_from(unpack.total_out()).map_err(io::Error::other)?
                }
                ZSTD => ruzstd::decoding::FrameDecoder::new()
                    .decode_all(packed, bytes)
                    .map_err(|_| io::ErrorKind::InvalidData)?,
                _ => 0,
            };
            if written == size {
                Ok(())
            } else {
                Err(io::ErrorKind::InvalidData.into())
            }
        })
    }
}

/// Of `Elf64_Chdr`.
const COMPRESSION_HEADER: usize = 24;
const NATIVE: u8 = if cfg!(target_endian = "little") {
    libc::ELFDATA2LSB
} else {
    libc::ELFDATA2MSB
};

impl Section {
    const fn is_compressed(&self) -> bool {
        // `SHF_COMPRESSED` of `elf.h`.
        self.flags & 0x800 != 0
    }
}

fn section(bytes: &[u8]) -> io::Result<Section> {
    Ok(Section {
        name: u32_at(bytes, 0)?,
        kind: u32_at(bytes, 4)?,
        flags: u64_at(bytes, 8)?,
        offset: u64_at(bytes, 0x18)?,
        size: u64_at(bytes, 0x20)?,
        link: u32_at(bytes, 0x28)?,
    })
}

fn part<const N: usize>(bytes: &[u8], at: usize) -> io::Result<[u8; N]> {
    let part = at.checked_add(N).and_then(|end| bytes.get(at..end));
    part.and_then(|part| part.try_into().ok())
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

pub(super) fn u16_at(bytes: &[u8], at: usize) -> io::Result<u16> {
    part(bytes, at).map(u16::from_ne_bytes)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> io::Result<u32> {
    part(bytes, at).map(u32::from_ne_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> io::Result<u64> {
    part(bytes, at).map(u64::from_ne_bytes)
}

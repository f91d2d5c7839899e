//! The sections of an ELF file, mapped one by one.
//!
//! The format: System V ABI, "Object Files", as `elf.h` has it; only files of 64 bits in
//! this machine's byte order, as are all that the process can load.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::region::Region;

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

/// A file with its table of sections.
#[derive(Debug)]
pub(super) struct Elf {
    file: File,
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
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut header = [0; size_of::<libc::Elf64_Ehdr>()];
        file.read_exact_at(&mut header, 0)?;
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
        file.read_exact_at(&mut bytes, table)?;
        let sections: io::Result<Vec<Section>> = bytes.chunks_exact(entry).map(section).collect();
        let sections = sections?;
        let names = match sections.get(names) {
            Some(section) if section.size <= MAX_NAMES => {
                let mut names = vec![0; usize::try_from(section.size).unwrap_or(0)];
                file.read_exact_at(&mut names, section.offset)?;
                names
            }
            _ => Vec::new(),
        };
        Ok(Elf {
            file,
            sections,
            names,
        })
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
        let note = self.raw(self.named(".note.gnu.build-id")?).ok()?;
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

    /// The bytes as they are in the file.
    pub(super) fn raw(&self, section: &Section) -> io::Result<Region> {
        if section.kind == SHT_NOBITS {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::try_from(section.size).map_err(io::Error::other)?;
        Region::of_file(&self.file, section.offset, size)
    }

    /// How long the section is once it is decompressed, and whether it needs to be.
    pub(super) fn plain_size(&self, section: &Section) -> io::Result<(u64, bool)> {
        if !section.is_compressed() {
            return Ok((section.size, false));
        }
        let mut header = [0; COMPRESSION_HEADER];
        self.file.read_exact_at(&mut header, section.offset)?;
        Ok((u64_at(&header, 8)?, true))
    }

    /// The bytes, decompressed if need be.
    pub(super) fn plain(&self, section: &Section) -> io::Result<Region> {
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

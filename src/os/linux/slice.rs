//! Bytes of debug info, wherever they are.

use std::borrow::Cow;
use std::sync::Arc;

use gimli::{EndianSlice, Error, NativeEndian, Reader, ReaderOffsetId, Result, leb128};

use super::paged::PagedFile;
use super::region::Region;

/// The longest name or path that is read: a table of strings may lack its end.
const MAX_TEXT: usize = 64 << 10;

/// A part of a section.
#[derive(Clone, Debug)]
pub(super) enum Slice {
    Memory(EndianSlice<'static, NativeEndian>),
    File(Part),
}

/// A part of a file that is not in memory.
#[derive(Clone, Debug)]
pub(super) struct Part {
    file: Arc<PagedFile>,
    at: u64,
    length: usize,
}

impl Slice {
    pub(super) fn empty() -> Self {
        Slice::Memory(EndianSlice::new(&[], NativeEndian))
    }

    /// # Safety
    /// What is added to `regions` must live longer than the slice and its copies.
    pub(super) unsafe fn of_region(region: Region, regions: &mut Vec<Region>) -> Self {
        // SAFETY: the bytes are those of a mapping, which does not move when the region
        // does. That the mapping outlives them is the caller's promise.
        let bytes: &'static [u8] =
            unsafe { std::slice::from_raw_parts(region.as_ptr(), region.len()) };
        regions.push(region);
        Slice::Memory(EndianSlice::new(bytes, NativeEndian))
    }

    pub(super) const fn of_file(file: Arc<PagedFile>, at: u64, length: usize) -> Self {
        Slice::File(Part { file, at, length })
    }

    /// The bytes as text, if it is not too long for a name or a path.
    pub(super) fn text(&self) -> Option<String> {
        if self.len() > MAX_TEXT {
            return None;
        }
        Some(self.to_string_lossy().ok()?.into_owned())
    }

    /// So many bytes from here on, if there are as many.
    pub(super) fn array<const N: usize>(&self, at: usize) -> Option<[u8; N]> {
        let mut rest = self.clone();
        let mut bytes = [0; N];
        rest.skip(at).ok()?;
        Reader::read_slice(&mut rest, &mut bytes).ok()?;
        Some(bytes)
    }
}

impl Part {
    const fn end(&self) -> Error {
        Error::UnexpectedEof(ReaderOffsetId(self.at))
    }

    const fn check(&self, length: usize) -> Result<()> {
        if length > self.length {
            return Err(self.end());
        }
        Ok(())
    }

    const fn advance(&mut self, length: usize) {
        self.at += length as u64;
        self.length -= length;
    }

    fn read(&self, at: usize, into: &mut [u8]) -> Result<()> {
        let read = self.file.read(self.at + at as u64, into);
        read.map_err(|_| self.end())
    }

    fn find(&self, byte: u8) -> Result<usize> {
        let mut from = 0;
        let mut bytes = [0; 128];
        while from < self.length {
            let length = bytes.len().min(self.length - from);
            let bytes = bytes.get_mut(..length).unwrap_or_default();
            self.read(from, bytes)?;
            if let Some(found) = bytes.iter().position(|one| *one == byte) {
                return Ok(from + found);
            }
            from += length;
        }
        Err(self.end())
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        // An allocation that fails ends the program.
        let room = bytes.try_reserve_exact(self.length);
        room.map_err(|_| self.end())?;
        bytes.resize(self.length, 0);
        self.read(0, &mut bytes)?;
        Ok(bytes)
    }
}

impl Reader for Slice {
    type Endian = NativeEndian;
    type Offset = usize;

    fn endian(&self) -> NativeEndian {
        NativeEndian
    }

    #[inline]
    fn len(&self) -> usize {
        match self {
            Slice::Memory(slice) => slice.len(),
            Slice::File(part) => part.length,
        }
    }

    #[inline]
    fn read_u8(&mut self) -> Result<u8> {
        match self {
            Slice::Memory(slice) => slice.read_u8(),
            Slice::File(_) => {
                let mut byte = [0];
                Reader::read_slice(self, &mut byte)?;
                Ok(byte[0])
            }
        }
    }

    // These are most of what is read: once by kind, and not once for each byte.
    #[inline]
    fn read_uleb128(&mut self) -> Result<u64> {
        match self {
            Slice::Memory(slice) => slice.read_uleb128(),
            Slice::File(_) => leb128::read::unsigned(self),
        }
    }

    #[inline]
    fn read_uleb128_u16(&mut self) -> Result<u16> {
        match self {
            Slice::Memory(slice) => slice.read_uleb128_u16(),
            Slice::File(_) => leb128::read::u16(self),
        }
    }

    #[inline]
    fn skip_leb128(&mut self) -> Result<()> {
        match self {
            Slice::Memory(slice) => slice.skip_leb128(),
            Slice::File(_) => leb128::read::skip(self),
        }
    }

    fn empty(&mut self) {
        match self {
            Slice::Memory(slice) => slice.empty(),
            Slice::File(part) => part.length = 0,
        }
    }

    #[inline]
    fn truncate(&mut self, length: usize) -> Result<()> {
        match self {
            Slice::Memory(slice) => slice.truncate(length),
            Slice::File(part) => {
                part.check(length)?;
                part.length = length;
                Ok(())
            }
        }
    }

    fn offset_from(&self, base: &Self) -> usize {
        match (self, base) {
            (Slice::Memory(slice), Slice::Memory(base)) => slice.offset_from(*base),
            (Slice::File(part), Slice::File(base)) => {
                usize::try_from(part.at.saturating_sub(base.at)).unwrap_or(usize::MAX)
            }
            // Offsets are only taken within one section.
            _ => 0,
        }
    }

    fn offset_id(&self) -> ReaderOffsetId {
        match self {
            Slice::Memory(slice) => slice.offset_id(),
            Slice::File(part) => ReaderOffsetId(part.at),
        }
    }

    fn lookup_offset_id(&self, id: ReaderOffsetId) -> Option<usize> {
        match self {
            Slice::Memory(slice) => slice.lookup_offset_id(id),
            Slice::File(part) => {
                let offset = usize::try_from(id.0.checked_sub(part.at)?).ok()?;
                (offset <= part.length).then_some(offset)
            }
        }
    }

    fn find(&self, byte: u8) -> Result<usize> {
        match self {
            Slice::Memory(slice) => Reader::find(slice, byte),
            Slice::File(part) => part.find(byte),
        }
    }

    #[inline]
    fn skip(&mut self, length: usize) -> Result<()> {
        match self {
            Slice::Memory(slice) => slice.skip(length),
            Slice::File(part) => {
                part.check(length)?;
                part.advance(length);
                Ok(())
            }
        }
    }

    #[inline]
    fn split(&mut self, length: usize) -> Result<Self> {
        match self {
            Slice::Memory(slice) => slice.split(length).map(Slice::Memory),
            Slice::File(part) => {
                part.check(length)?;
                let mut first = part.clone();
                first.length = length;
                part.advance(length);
                Ok(Slice::File(first))
            }
        }
    }

    fn to_slice(&self) -> Result<Cow<'_, [u8]>> {
        match self {
            Slice::Memory(slice) => slice.to_slice(),
            Slice::File(part) => part.bytes().map(Cow::Owned),
        }
    }

    fn to_string(&self) -> Result<Cow<'_, str>> {
        match self {
            Slice::Memory(slice) => Reader::to_string(slice),
            Slice::File(part) => {
                let text = String::from_utf8(part.bytes()?);
                text.map(Cow::Owned).map_err(|_| Error::BadUtf8)
            }
        }
    }

    fn to_string_lossy(&self) -> Result<Cow<'_, str>> {
        match self {
            Slice::Memory(slice) => Reader::to_string_lossy(slice),
            Slice::File(part) => {
                let bytes = part.bytes()?;
                Ok(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()))
            }
        }
    }

    #[inline]
    fn read_slice(&mut self, into: &mut [u8]) -> Result<()> {
        match self {
            Slice::Memory(slice) => Reader::read_slice(slice, into),
            Slice::File(part) => {
                part.check(into.len())?;
                part.read(0, into)?;
                part.advance(into.len());
                Ok(())
            }
        }
    }
}

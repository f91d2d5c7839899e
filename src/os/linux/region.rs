//! Memory of its own for debug info: parts of files, and buffers that go back to the system.
//!
//! An allocator may keep what is freed: glibc 2.36 kept 38 of 39 MB that `addr2line` had
//! used on a thread of its own. A mapping is gone when it is unmapped. And pages of a
//! file are not the process's own memory: the system takes them back when it needs them.

use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

/// Bytes that are mapped for as long as this lives.
#[derive(Debug)]
pub(super) struct Region {
    /// Where the mapping begins, which is at a page.
    base: NonNull<u8>,
    /// Length of the mapping.
    mapped: usize,
    /// Which part of the mapping has been asked for.
    part: Range<usize>,
    is_anonymous: bool,
}

// SAFETY: a region is the only owner of its mapping, and the mapping belongs to no
// thread.
unsafe impl Send for Region {}
// SAFETY: through a shared region the bytes can only be read.
unsafe impl Sync for Region {}

impl Region {
    /// Maps this part of a file, which must lie within the file.
    ///
    /// Whoever truncates the file afterwards makes a read of the bytes fatal. The kernel
    /// forbids that for an executable that runs (`ETXTBSY`); a library's code is mapped
    /// in the same way, and would be lost with it.
    pub(super) fn of_file(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        const PAGE: u64 = 4096;
        // Pages are of 4 KiB, 16 KiB or 64 KiB: all accept a multiple of the largest.
        const ALIGNMENT: u64 = 16 * PAGE;
        let start = offset / ALIGNMENT * ALIGNMENT;
        let before = usize::try_from(offset - start).map_err(io::Error::other)?;
        let mapped = length
            .checked_add(before)
            .ok_or(io::ErrorKind::OutOfMemory)?;
        let end = offset.saturating_add(length as u64);
        if end > file.metadata()?.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let start = libc::off_t::try_from(start).map_err(io::Error::other)?;
        let (access, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        let base = map(mapped, access, flags, file.as_raw_fd(), start)?;
        Ok(Region {
            base,
            mapped,
            part: before..mapped,
            is_anonymous: false,
        })
    }

    /// Zeros in memory of this process, filled by `fill`.
    pub(super) fn filled(
        length: usize,
        fill: impl FnOnce(&mut [u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let base = map(length, access, flags, -1, 0)?;
        let region = Region {
            base,
            mapped: length,
            part: 0..length,
            is_anonymous: true,
        };
        // SAFETY: the mapping is `length` bytes long, readable, writable and zeroed by
        // the kernel; nobody else knows of it before this function returns.
        fill(unsafe { std::slice::from_raw_parts_mut(base.as_ptr(), length) })?;
        Ok(region)
    }

    /// Whether the bytes are in memory of this process, and not in pages of a file.
    pub(super) const fn is_anonymous(&self) -> bool {
        self.is_anonymous
    }
}

fn map(
    length: usize,
    access: libc::c_int,
    flags: libc::c_int,
    file: libc::c_int,
    offset: libc::off_t,
) -> io::Result<NonNull<u8>> {
    // SAFETY: the kernel chooses the place, so no mapping of others is replaced; it
    // checks the other arguments.
    let base = unsafe { libc::mmap(std::ptr::null_mut(), length, access, flags, file, offset) };
    if base == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| io::ErrorKind::OutOfMemory.into())
}

impl Deref for Region {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `mapped` bytes long, and stays until `drop`;
        // `part` lies within it by construction.
        let all = unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.mapped) };
        all.get(self.part.clone()).unwrap_or_default()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: `map` returned this mapping with this length, and nothing borrows from
        // the region any more.
        unsafe {
            libc::munmap(self.base.as_ptr().cast(), self.mapped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_file_are_read_at_any_offset_but_not_beyond_its_end() {
        let path = "/proc/self/exe";
        let file = File::open(path).unwrap();
        let all = std::fs::read(path).unwrap();
        for (offset, length) in [(0, 64), (1, 70_000), (65_537, 3), (4096, 4096)] {
            let region = Region::of_file(&file, offset as u64, length).unwrap();
            assert_eq!(&region[..], &all[offset..offset + length]);
        }
        let size = all.len() as u64;
        assert!(Region::of_file(&file, size - 8, 9).is_err());
        assert!(Region::of_file(&file, u64::MAX, 9).is_err());
        assert!(Region::of_file(&file, 0, usize::MAX).is_err());
    }

    #[test]
    fn a_buffer_is_filled_once() {
        let region = Region::filled(10_000, |bytes| {
            assert!(bytes.iter().all(|byte| *byte == 0));
            bytes.fill(7);
            Ok(())
        });
        assert!(region.unwrap().iter().all(|byte| *byte == 7));
        assert!(Region::filled(8, |_| Err(io::ErrorKind::Other.into())).is_err());
    }
}

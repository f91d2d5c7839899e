//! Files that may be changed while they are read: read in pieces, never mapped.
//!
//! `rustc` writes `.dwp` and `.dwo` over those of the build before, in place, and so does
//! `cp` with any debug file. A mapping of a file that is cut short is fatal (`SIGBUS`).
//! The file of a loaded image is mapped by the loader as it is; a file that only debug
//! info is read from must not become one more such danger.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

const BLOCK: usize = 16 << 10;
/// How many blocks of one file are kept.
const BLOCKS: usize = 32;

/// An open file, with the blocks of it that were read last.
#[derive(Debug)]
pub(super) struct PagedFile {
    file: File,
    opened: Version,
    blocks: Mutex<Vec<Block>>,
}

/// What changes with the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    size: u64,
    modified: (i64, i64),
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Version {
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

#[derive(Debug, Default)]
struct Block {
    number: Option<u64>,
    bytes: Vec<u8>,
}

impl PagedFile {
    /// Opens a file; one that is no regular file, and so could make the reader wait, is
    /// refused.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        // A named pipe is opened without waiting for its other end.
        options.read(true).custom_flags(libc::O_NONBLOCK);
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(PagedFile {
            file,
            opened: Version::of(&metadata),
            blocks: Mutex::default(),
        })
    }

    pub(super) const fn file(&self) -> &File {
        &self.file
    }

    pub(super) const fn size(&self) -> u64 {
        self.opened.size
    }

    /// Whether nobody has written to the file since it was opened.
    pub(super) fn is_unchanged(&self) -> bool {
        let metadata = self.file.metadata();
        metadata.is_ok_and(|metadata| Version::of(&metadata) == self.opened)
    }

    /// Reads from the blocks that are kept, and those from the file that are not.
    pub(super) fn read(&self, mut at: u64, mut into: &mut [u8]) -> io::Result<()> {
        let mut blocks = self.blocks.lock().unwrap_or_else(PoisonError::into_inner);
        if blocks.is_empty() {
            blocks.resize_with(BLOCKS, Block::default);
        }
        while !into.is_empty() {
            let number = at / BLOCK as u64;
            let within = (at % BLOCK as u64) as usize;
            let place = (number % BLOCKS as u64) as usize;
            let block = blocks.get_mut(place).ok_or(io::ErrorKind::Other)?;
            if block.number != Some(number) {
                block.fill(&self.file, number)?;
            }
            let rest = block.bytes.get(within..).unwrap_or_default();
            let count = rest.len().min(into.len());
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (now, later) = into.split_at_mut(count);
            now.copy_from_slice(rest.get(..count).unwrap_or_default());
            into = later;
            at += count as u64;
        }
        Ok(())
    }

    /// Forgets what has been read.
    pub(super) fn forget(&self) {
        *self.blocks.lock().unwrap_or_else(PoisonError::into_inner) = Vec::new();
    }

    /// How much memory the blocks of a file take at most.
    pub(super) const MAX_BYTES: usize = BLOCK * BLOCKS;
}

impl Block {
    fn fill(&mut self, file: &File, number: u64) -> io::Result<()> {
        self.number = None;
        self.bytes.resize(BLOCK, 0);
        let mut filled = 0;
        while let Some(rest) = self.bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, number * BLOCK as u64 + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.bytes.truncate(filled);
        self.number = Some(number);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str, bytes: &[u8]) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("stallscope-{name}-{}", std::process::id()));
        std::fs::write(&path, bytes).unwrap();
        path
    }

    #[test]
    fn any_part_is_read_across_blocks_and_not_beyond_the_end() {
        let all: Vec<u8> = (0..BLOCK * (BLOCKS + 3) + 7)
            .map(|at| (at / 5 % 251) as u8)
            .collect();
        let path = scratch("paged", &all);
        let file = PagedFile::open(&path).unwrap();
        let parts = [
            (0, 1),
            (BLOCK - 1, 2),
            (3, BLOCK * 3),
            (BLOCK * BLOCKS, BLOCK),
            (0, 9),
            (all.len() - 7, 7),
        ];
        for (start, length) in parts {
            let mut read = vec![0; length];
            file.read(start as u64, &mut read).unwrap();
            assert!(
                read == all[start..start + length],
                "{length} bytes at {start}"
            );
        }
        assert!(file.read(all.len() as u64 - 7, &mut [0; 8]).is_err());
        assert!(file.read(u64::MAX / 2, &mut [0; 8]).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error_and_no_signal() {
        let path = scratch("cut", &[7; 3 * BLOCK]);
        let file = PagedFile::open(&path).unwrap();
        assert!(file.is_unchanged());
        std::fs::write(&path, b"other").unwrap();
        assert!(!file.is_unchanged());
        assert!(file.read(2 * BLOCK as u64, &mut [0; 8]).is_err());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_pipe_is_refused_and_not_waited_for() {
        let path = std::env::temp_dir().join(format!("stallscope-pipe-{}", std::process::id()));
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: a path that ends with a zero.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        assert!(PagedFile::open(&path).is_err());
        std::fs::remove_file(path).unwrap();
    }
}

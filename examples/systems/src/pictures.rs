//! Pictures with enough detail that decoding them is work.

use std::fs::File;
use std::path::{Path, PathBuf};

use image::RgbImage;

use crate::Failure;

/// Rows of noise that are made; a picture repeats them, each time further to the right.
const ROWS: usize = 64;

/// A picture of this size that hardly compresses; another for another `seed`.
pub fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut noise = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 27) as u8
    };
    let mut picture = RgbImage::new(width, height);
    let row = 3 * width as usize;
    // Fine noise on coarse stripes.
    let made: Vec<u8> = (0..ROWS * row)
        .map(|at| (at / 48) as u8 & 0xe0 | noise())
        .collect();
    for (block, rows) in picture.chunks_mut(made.len()).enumerate() {
        let shift = (block * 3) % made.len();
        let (left, right) = made.split_at(shift);
        for (to, from) in rows
            .chunks_mut(row)
            .zip(right.chunks(row).chain(left.chunks(row)))
        {
            let length = to.len().min(from.len());
            to[..length].copy_from_slice(&from[..length]);
        }
    }
    picture
}

/// Writes a file to disk and drops it from the page cache, so that reading it
/// is reading a disk, where there is one.
///
/// # Errors
/// If it cannot be written.
pub fn forget(path: &Path) -> Result<(), Failure> {
    let file = File::open(path)?;
    file.sync_all()?;
    #[cfg(target_os = "linux")]
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}

/// A folder of one's own that goes when it is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// In the system's folder for such.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new(name: &str) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("stallscope-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Folder(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

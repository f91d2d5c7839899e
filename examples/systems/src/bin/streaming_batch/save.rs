//! Keeps a picture, smaller than it came.

use std::path::{Path, PathBuf};

use stallscope_systems::Failure;

/// Saves a picture as JPEG. Blocks: it decodes, encodes and writes.
pub(crate) fn save(picture: &[u8], folder: &Path, prompt: &str) -> Result<PathBuf, Failure> {
    let path = folder.join(format!("{prompt}.jpg"));
    // fault: saving
    image::load_from_memory(picture)?.save(&path)?;
    Ok(path)
}

//! What a picture costs to assess.

use image::load_from_memory;
use stallscope_systems::Failure;

/// Counts tokens by the size of the picture. Blocks: it decodes all of it.
pub(crate) fn count(picture: &[u8]) -> Result<u32, Failure> {
    // fault: decoding
    let picture = load_from_memory(picture)?;
    let (width, height) = (picture.width(), picture.height());
    Ok(85 + 170 * width.div_ceil(512) * height.div_ceil(512))
}

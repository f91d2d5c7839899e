//! Documents: scanned pages, and what is found on them.

use std::io::Cursor;

use axum::body::Bytes;
use image::imageops::FilterType;
use image::{DynamicImage, ImageFormat};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stallscope_systems::{Failure, pictures};

/// How often a document is looked at, each time with what was found before.
pub(crate) const STAGES: u32 = 15;
/// Regions on a page of which a checkpoint is made; their JSON takes 10 MB.
const REGIONS: u32 = 170_000;

pub(crate) const SCHEMA: &str = "
    CREATE TABLE documents (id INTEGER PRIMARY KEY, width INTEGER, height INTEGER, done INTEGER);
    CREATE TABLE words (word TEXT, document INTEGER);";
pub(crate) const INSERT: &str =
    "INSERT INTO documents (id, width, height, done) VALUES (?1, ?2, ?3, 0)";
pub(crate) const FINISH: &str = "UPDATE documents SET done = 1 WHERE id = ?1";
pub(crate) const FIND: &str = "SELECT width, height, done FROM documents WHERE id = ?1";

/// What a client is answered when it has uploaded one, or asks for one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(crate) id: i64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Whether all of its stages are over.
    pub(crate) done: bool,
    /// Of the model that looks at it.
    pub(crate) weights: usize,
}

impl Document {
    pub(crate) fn from_row(
        id: i64,
        weights: usize,
        row: &rusqlite::Row<'_>,
    ) -> rusqlite::Result<Self> {
        Ok(Document {
            id,
            width: row.get(0)?,
            height: row.get(1)?,
            done: row.get(2)?,
            weights,
        })
    }
}

/// A scan, as a client has it.
pub(crate) fn scan(number: usize) -> Result<Bytes, Failure> {
    let mut file = Cursor::new(Vec::new());
    let page = DynamicImage::from(pictures::picture(1_000, 750, u32::try_from(number)?));
    page.write_to(&mut file, ImageFormat::Jpeg)?;
    Ok(file.into_inner().into())
}

/// How large a page is drawn in a stage.
pub(crate) const fn size(stage: u32) -> (u32, u32) {
    (240 + 8 * stage, 180 + 6 * stage)
}

/// How it is drawn.
pub(crate) const FILTER: FilterType = FilterType::Lanczos3;

/// What is known of a document that nobody has looked at: text and place of each region.
pub(crate) fn template() -> String {
    let regions = (0..REGIONS).map(|number| {
        let (x, y) = (f64::from(number % 300) * 4.1, f64::from(number / 300) * 2.3);
        serde_json::json!([format!("region {number} of the page"), x, y, 40.5, 12.25])
    });
    serde_json::json!({ "notes": [], "regions": regions.collect::<Value>() }).to_string()
}

/// The file of a document's latest checkpoint.
pub(crate) fn checkpoint_name(id: i64) -> String {
    format!("checkpoint-{id}.json")
}

/// Adds what the annotator said in a stage.
pub(crate) fn note(checkpoint: &mut Value, note: String) {
    if let Some(Value::Array(notes)) = checkpoint.get_mut("notes") {
        notes.push(note.into());
    }
}

//! As people write it: everything in the future.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use stallscope_systems::Failure;

use crate::assessor::Assessor;
use crate::tokens;

pub(crate) async fn assess(assessor: Assessor, path: PathBuf) -> Result<String, Failure> {
    let name = path.display().to_string();
    let picture = load(&path)?;
    if assessor.knows(&name).await? {
        return Ok(format!("{name}: known"));
    }
    let tokens = tokens::count(&picture)?;
    assessor.reserve(tokens).await?;
    let body = encode(&picture);
    let verdict = assessor.assess(body).await?;
    Ok(format!("{name}, {tokens} tokens: {verdict}"))
}

fn load(path: &Path) -> std::io::Result<Vec<u8>> {
    // fault: reading
    std::fs::read(path)
}

fn encode(picture: &[u8]) -> String {
    // fault: encoding
    STANDARD.encode(picture)
}

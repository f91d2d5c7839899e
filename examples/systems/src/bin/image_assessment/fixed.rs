//! As it should be: what blocks is on threads that are there for it.

use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use stallscope_systems::Failure;
use tokio::task::spawn_blocking;

use crate::assessor::Assessor;
use crate::tokens;

pub(crate) async fn assess(assessor: Assessor, path: PathBuf) -> Result<String, Failure> {
    let name = path.display().to_string();
    let picture = spawn_blocking(move || std::fs::read(path)).await??;
    if assessor.knows(&name).await? {
        return Ok(format!("{name}: known"));
    }
    let picture = Arc::new(picture);
    let counted = Arc::clone(&picture);
    let tokens = spawn_blocking(move || tokens::count(&counted)).await??;
    assessor.reserve(tokens).await?;
    let body = spawn_blocking(move || STANDARD.encode(&*picture)).await?;
    let verdict = assessor.assess(body).await?;
    Ok(format!("{name}, {tokens} tokens: {verdict}"))
}

//! What is done in the background: each part where it belongs.

use std::sync::Arc;

use image::DynamicImage;
use serde_json::Value;
use stallscope_systems::Failure;

use super::Service;
use crate::documents::{FILTER, FINISH, STAGES, checkpoint_name, note, size};

/// Looks at a document once and again.
pub(super) async fn process(service: &Service, id: i64, page: DynamicImage) -> Result<(), Failure> {
    let template = Arc::clone(&service.template);
    let parse = move || template.parse::<Value>();
    let mut checkpoint = service.computing.run(parse).await??;
    let mut page = page;
    for stage in 0..STAGES {
        let (width, height) = size(stage);
        let draw = move || (page.resize_exact(width, height, FILTER).into_bytes(), page);
        let drawn;
        (drawn, page) = service.computing.run(draw).await?;
        service.progress.tell(id, "drawn").await;
        let request = service.client.post(&service.annotator).body(drawn);
        let annotated = request.send().await?.error_for_status()?.text().await?;
        service.progress.tell(id, "annotated").await;
        let encode = move || {
            note(&mut checkpoint, annotated);
            (serde_json::to_vec(&checkpoint), checkpoint)
        };
        let json;
        (json, checkpoint) = service.computing.run(encode).await?;
        let json = json?;
        let path = service.checkpoints.join(checkpoint_name(id));
        let write = move || {
            std::fs::write(&path, json).and_then(|()| std::fs::File::open(&path)?.sync_all())
        };
        service.writing.run(write).await??;
        service.progress.tell(id, "saved").await;
    }
    // Freeing so many parts takes a while, too.
    service.computing.run(move || drop(checkpoint)).await?;
    let done = move |connection: &rusqlite::Connection| connection.execute(FINISH, [id]);
    service.database.write(done).await?;
    service.progress.tell(id, "done").await;
    Ok(())
}

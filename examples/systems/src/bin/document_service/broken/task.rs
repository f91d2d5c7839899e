//! What is done in the background: in a task, which is not the same as elsewhere.

use image::DynamicImage;
use serde_json::Value;
use stallscope_systems::Failure;

use super::Service;
use super::handlers::commit;
use crate::documents::{FILTER, FINISH, STAGES, checkpoint_name, note, size};

/// Looks at a document once and again.
pub(super) async fn process(service: &Service, id: i64, page: DynamicImage) -> Result<(), Failure> {
    // fault: checkpoint parsed and freed in the task
    let mut checkpoint: Value = service.template.parse()?;
    let path = service.checkpoints.join(checkpoint_name(id));
    for stage in 0..STAGES {
        service.progress.tell(id, "drawn").await;
        let (width, height) = size(stage);
        // fault: CPU work in the task
        let drawn = page.resize_exact(width, height, FILTER);
        service.progress.tell(id, "annotated").await;
        let request = service.agent.post(&service.annotator);
        // fault: synchronous API client
        let annotated = request
            .send(drawn.as_bytes())?
            .body_mut()
            .read_to_string()?;
        note(&mut checkpoint, annotated);
        service.progress.tell(id, "encoded").await;
        // fault: checkpoint encoded in the task
        let json = serde_json::to_vec(&checkpoint)?;
        service.progress.tell(id, "saved").await;
        // fault: checkpoint written in the task
        std::fs::write(&path, json).and_then(|()| std::fs::File::open(&path)?.sync_all())?;
    }
    // So many parts take a while to be freed: in a poll of its own, that has its line.
    service.progress.tell(id, "over").await;
    // fault: checkpoint parsed and freed in the task
    drop(checkpoint);
    service.progress.tell(id, "done").await;
    commit(service, FINISH, [id]).await
}

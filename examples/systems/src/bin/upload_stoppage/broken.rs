//! As people write it: the upload is one line at the end.

use std::sync::Arc;

use stallscope::spawn_named;
use stallscope_systems::{Failure, say};

use crate::board::{Board, GENERATION};
use crate::{BATCH, ITEMS};

pub(crate) async fn job(store: String, board: Arc<Board>) {
    let items: Vec<usize> = (1..=ITEMS).collect();
    for batch in items.chunks(BATCH) {
        let tasks: Vec<_> = batch
            .iter()
            .map(|item| {
                let made = generate(store.clone(), Arc::clone(&board), *item);
                spawn_named(format!("item {item}"), made)
            })
            .collect();
        for (task, item) in tasks.into_iter().zip(batch) {
            if let Ok(Err(error)) = task.await {
                say!("  item {item}: {error}");
            }
        }
    }
}

async fn generate(store: String, board: Arc<Board>, item: usize) -> Result<(), Failure> {
    let _permit = board.permits.acquire().await?;
    board.generating(item);
    tokio::time::sleep(GENERATION).await;
    board.uploading(item);
    let stored = upload(&format!("{store}/{item}"), &vec![7; 64 << 10]);
    board.over(item, stored.is_ok());
    stored
}

fn upload(url: &str, picture: &[u8]) -> Result<(), Failure> {
    // fault: uploading
    ureq::post(url).send(picture)?;
    Ok(())
}

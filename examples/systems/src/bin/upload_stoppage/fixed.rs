//! As it should be: uploads are on threads that are there for it, and end.

use std::sync::Arc;
use std::time::Duration;

use stallscope::spawn_named;
use stallscope_systems::{Failure, say};
use tokio::task::spawn_blocking;
use ureq::Agent;

use crate::board::{Board, GENERATION};
use crate::{BATCH, ITEMS};

/// What one attempt may take.
const TIMEOUT: Duration = Duration::from_secs(1);
/// How often it is tried again.
const RETRIES: u32 = 3;
/// How long before it is tried again; twice as long each time.
const BACKOFF: Duration = Duration::from_millis(100);

pub(crate) async fn job(store: String, board: Arc<Board>) {
    let agent: Agent = Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .build()
        .into();
    let items: Vec<usize> = (1..=ITEMS).collect();
    for batch in items.chunks(BATCH) {
        let tasks: Vec<_> = batch
            .iter()
            .map(|item| {
                let url = format!("{store}/{item}");
                let made = generate(agent.clone(), url, Arc::clone(&board), *item);
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

async fn generate(
    agent: Agent,
    url: String,
    board: Arc<Board>,
    item: usize,
) -> Result<(), Failure> {
    let _permit = board.permits.acquire().await?;
    board.generating(item);
    tokio::time::sleep(GENERATION).await;
    board.uploading(item);
    let stored = upload(agent, url, vec![7; 64 << 10]).await;
    board.over(item, stored.is_ok());
    stored
}

async fn upload(agent: Agent, url: String, picture: Vec<u8>) -> Result<(), Failure> {
    let picture: Arc<[u8]> = picture.into();
    let mut wait = BACKOFF;
    for _ in 0..RETRIES {
        if attempt(&agent, &url, &picture).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(wait).await;
        wait *= 2;
    }
    attempt(&agent, &url, &picture).await
}

async fn attempt(agent: &Agent, url: &str, picture: &Arc<[u8]>) -> Result<(), Failure> {
    let request = agent.post(url);
    let picture = Arc::clone(picture);
    spawn_blocking(move || request.send(&*picture)).await??;
    Ok(())
}

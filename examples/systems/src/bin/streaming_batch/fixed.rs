//! As it should be: a picture is saved on a thread that is there for it, and comes
//! out of the stream when it is.

use std::path::{Path, PathBuf};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::task::spawn_blocking;

use crate::client::Client;
use crate::save::save;
use crate::{Batch, Saved, prompts};

pub(crate) async fn batch(client: Client, folder: PathBuf) -> Batch {
    let (client, folder) = (&client, &folder);
    let mut batch = Batch::new();
    let mut results: FuturesUnordered<_> = prompts()
        .into_iter()
        .map(|prompt| async move { generate_and_save(client, &prompt, folder).await })
        .collect();
    while let Some(saved) = results.next().await {
        batch.add(&saved);
    }
    batch
}

pub(crate) async fn generate_and_save(client: &Client, prompt: &str, folder: &Path) -> Saved {
    let picture = client.generate(prompt).await?;
    let (folder, prompt) = (folder.to_owned(), prompt.to_owned());
    spawn_blocking(move || save(&picture, &folder, &prompt)).await?
}

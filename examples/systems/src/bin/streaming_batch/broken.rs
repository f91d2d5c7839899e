//! As people write it: each picture is saved where it comes out of the stream.

use std::path::PathBuf;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;

use crate::client::Client;
use crate::save::save;
use crate::{Batch, prompts};

pub(crate) async fn batch(client: Client, folder: PathBuf) -> Batch {
    let client = &client;
    let mut batch = Batch::new();
    let mut pictures: FuturesUnordered<_> = prompts()
        .into_iter()
        .map(|prompt| async move {
            let picture = client.generate(&prompt).await;
            (prompt, picture)
        })
        .collect();
    while let Some((prompt, picture)) = pictures.next().await {
        let saved = picture.and_then(|picture| save(&picture, &folder, &prompt));
        batch.add(&saved);
    }
    batch
}

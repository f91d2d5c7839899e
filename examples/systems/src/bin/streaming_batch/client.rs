//! The generator's client: it keeps to the limit, and tries again by itself.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use stallscope_systems::Failure;
use tokio::sync::Semaphore;

/// How often a prompt is tried again.
const RETRIES: u32 = 2;
/// How long before it is tried again; twice as long each time.
const BACKOFF: Duration = Duration::from_millis(50);

#[derive(Clone, Debug)]
pub(crate) struct Client {
    client: reqwest::Client,
    url: String,
    permits: Arc<Semaphore>,
}

impl Client {
    pub(crate) fn new(url: &str, at_once: usize) -> Self {
        Client {
            client: reqwest::Client::new(),
            url: url.to_owned(),
            permits: Arc::new(Semaphore::new(at_once)),
        }
    }

    /// A picture, as a file of PNG.
    pub(crate) async fn generate(&self, prompt: &str) -> Result<Bytes, Failure> {
        let _permit = self.permits.acquire().await?;
        let mut wait = BACKOFF;
        for _ in 0..RETRIES {
            if let Ok(picture) = self.attempt(prompt).await {
                return Ok(picture);
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        self.attempt(prompt).await
    }

    async fn attempt(&self, prompt: &str) -> Result<Bytes, Failure> {
        let request = self.client.post(&self.url).body(prompt.to_owned());
        let answer = request.send().await?.error_for_status()?;
        Ok(answer.bytes().await?)
    }
}

//! Who assesses pictures: an HTTP service that takes its time, and its client.

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use reqwest::Client;
use stallscope_systems::Failure;

/// How long an assessment takes.
pub(crate) const TAKES: Duration = Duration::from_secs(1);

/// More than a picture in base64 has.
const MOST: usize = 256 << 20;

/// The service.
pub(crate) fn router() -> Router {
    Router::new()
        .route("/known", get(async || "no"))
        .route("/reserve", post(async || "granted"))
        .route(
            "/assess",
            post(async |picture: Bytes| {
                tokio::time::sleep(TAKES).await;
                format!("fine picture, {} MB of base64", picture.len() / 1_000_000)
            }),
        )
        .layer(DefaultBodyLimit::max(MOST))
}

/// Its client, which does not block.
#[derive(Clone, Debug)]
pub(crate) struct Assessor {
    client: Client,
    url: String,
}

impl Assessor {
    pub(crate) fn new(url: String) -> Self {
        Assessor {
            client: Client::new(),
            url,
        }
    }

    /// Whether it has been assessed before.
    pub(crate) async fn knows(&self, name: &str) -> Result<bool, Failure> {
        let request = self.client.get(format!("{}/known", self.url));
        let answer = request.query(&[("name", name)]).send().await?;
        Ok(answer.error_for_status()?.text().await? == "yes")
    }

    /// Reserves what an assessment costs.
    pub(crate) async fn reserve(&self, tokens: u32) -> Result<(), Failure> {
        let request = self.client.post(format!("{}/reserve", self.url));
        let answer = request.body(tokens.to_string()).send().await?;
        answer.error_for_status()?;
        Ok(())
    }

    /// Has a picture assessed.
    pub(crate) async fn assess(&self, base64: String) -> Result<String, Failure> {
        let request = self.client.post(format!("{}/assess", self.url));
        let answer = request.body(base64).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

//! Who generates pictures: slow, not always well, and not for more than five at once.

use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use image::ImageFormat;
use stallscope_systems::Failure;
use stallscope_systems::pictures::picture;

use crate::AT_ONCE;

/// It never succeeds for this one.
const IMPOSSIBLE: &str = "prompt-7";
/// It is down when this is first asked for.
const UNLUCKY: &str = "prompt-4";

/// What it has seen.
#[derive(Debug)]
pub(crate) struct Generator {
    picture: Bytes,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
    refused: AtomicUsize,
    requests: AtomicUsize,
    unlucky: AtomicUsize,
}

/// A request in progress; one that its client gives up goes, too.
struct Request<'a>(&'a Generator);

impl Drop for Request<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Generator {
    pub(crate) fn new() -> Result<Self, Failure> {
        let mut png = Cursor::new(Vec::new());
        picture(2_000, 1_500, 1).write_to(&mut png, ImageFormat::Png)?;
        Ok(Generator {
            picture: png.into_inner().into(),
            in_flight: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            unlucky: AtomicUsize::new(0),
        })
    }

    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/generate", post(generate))
            .with_state(self)
    }

    /// Counts from the beginning.
    pub(crate) fn restart(&self) {
        for count in [&self.peak, &self.refused, &self.requests, &self.unlucky] {
            count.store(0, Ordering::Relaxed);
        }
    }

    /// How many requests there were at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// How many were too many.
    pub(crate) fn refused(&self) -> usize {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

async fn generate(
    State(generator): State<Arc<Generator>>,
    prompt: String,
) -> Result<Bytes, StatusCode> {
    generator.requests.fetch_add(1, Ordering::Relaxed);
    let in_flight = generator.in_flight.fetch_add(1, Ordering::Relaxed) + 1;
    let _request = Request(&generator);
    generator.peak.fetch_max(in_flight, Ordering::Relaxed);
    if in_flight > AT_ONCE {
        generator.refused.fetch_add(1, Ordering::Relaxed);
        return Err(StatusCode::TOO_MANY_REQUESTS);
    }
    // Not all pictures take the same.
    let effort = prompt.bytes().last().map_or(0, |byte| u64::from(byte % 5));
    tokio::time::sleep(Duration::from_millis(200 + 40 * effort)).await;
    match prompt.as_str() {
        IMPOSSIBLE => Err(StatusCode::INTERNAL_SERVER_ERROR),
        UNLUCKY if generator.unlucky.fetch_add(1, Ordering::Relaxed) == 0 => {
            Err(StatusCode::SERVICE_UNAVAILABLE)
        }
        _ => Ok(generator.picture.clone()),
    }
}

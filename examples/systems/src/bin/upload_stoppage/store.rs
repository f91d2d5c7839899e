//! Where generated items are uploaded to: it sometimes hangs, and sometimes never answers.

use std::future::pending;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::post;

use crate::ITEMS;

/// What an upload takes when all is well.
const TAKES: Duration = Duration::from_millis(20);
const HANGS: Duration = Duration::from_secs(10);

/// What the store does to an item's first uploads.
const fn mood(item: usize, attempt: usize) -> Mood {
    match (item, attempt) {
        (3 | 13, 1) => Mood::Hangs,
        (8, 1 | 2) | (17, 1) => Mood::NeverAnswers,
        _ => Mood::Well,
    }
}

enum Mood {
    Well,
    Hangs,
    NeverAnswers,
}

/// The store, and what it has seen.
#[derive(Debug, Default)]
pub(crate) struct Store {
    attempts: Mutex<[usize; ITEMS + 1]>,
    uploads: AtomicUsize,
    peak: AtomicUsize,
}

/// An upload in progress; one that its client gives up goes, too.
struct Upload<'a>(&'a Store);

impl<'a> Upload<'a> {
    fn begin(store: &'a Store) -> Self {
        let uploads = store.uploads.fetch_add(1, Ordering::Relaxed) + 1;
        store.peak.fetch_max(uploads, Ordering::Relaxed);
        Upload(store)
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.0.uploads.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Store {
    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/upload/{item}", post(upload))
            .with_state(self)
    }

    /// How many uploads there were at once.
    pub(crate) fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    /// How many uploads were tried.
    pub(crate) fn attempts(&self) -> usize {
        let attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.iter().sum()
    }

    /// Counted from 1.
    fn attempt(&self, item: usize) -> usize {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        attempts.get_mut(item).map_or(0, |attempts| {
            *attempts += 1;
            *attempts
        })
    }
}

async fn upload(
    State(store): State<Arc<Store>>,
    Path(item): Path<usize>,
    body: Bytes,
) -> &'static str {
    let attempt = store.attempt(item);
    let _upload = Upload::begin(&store);
    match mood(item, attempt) {
        Mood::Well => tokio::time::sleep(TAKES).await,
        Mood::Hangs => tokio::time::sleep(HANGS).await,
        Mood::NeverAnswers => pending().await,
    }
    drop(body);
    "stored"
}

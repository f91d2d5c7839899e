//! What the clients do: upload, listen, ask.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use stallscope_systems::Failure;
use stallscope_systems::figures::percentile;
use tokio::time::{sleep, timeout};

use crate::documents::Document;
use crate::key::{HEADER, KEY};
use crate::load::{Felt, IN_BACKGROUND, LIMIT, WEBSOCKETS};
use crate::progress::{BEAT, HEARTBEAT};

/// How often somebody asks for a document.
const ASKS: Duration = Duration::from_millis(200);
/// After how long a silence a WebSocket is given up, and made anew.
const SILENCE: Duration = Duration::from_secs(2);

/// All of them.
#[derive(Clone)]
struct Clients {
    service: SocketAddr,
    http: reqwest::Client,
    seen: Arc<Mutex<Seen>>,
}

/// What they have seen so far.
#[derive(Debug, Default)]
struct Seen {
    asked: Vec<Duration>,
    done: [bool; IN_BACKGROUND],
    late: Vec<Duration>,
    drops: usize,
}

/// Uploads the scans, the first ones for the background, and goes on asking and
/// listening until those have been processed.
pub(crate) async fn load(service: SocketAddr, scans: Vec<Bytes>) -> Result<Felt, Failure> {
    let clients = Clients {
        service,
        http: reqwest::Client::builder().timeout(LIMIT).build()?,
        seen: Arc::default(),
    };
    for _ in 0..WEBSOCKETS {
        tokio::spawn(clients.clone().listen());
    }
    tokio::spawn(clients.clone().keep_asking());
    let (uploaded, _) = tokio::join!(
        async { timeout(LIMIT, clients.upload(scans)).await },
        timeout(LIMIT, clients.all_are_done()),
    );
    let uploaded = uploaded.unwrap_or_default();
    let seen = clients.seen();
    Ok(Felt {
        uploaded: uploaded.len(),
        processed: seen.done.iter().filter(|done| **done).count(),
        heartbeats: seen.late.len(),
        late_p99: percentile(&seen.late, 0.99),
        late_max: percentile(&seen.late, 1.0),
        drops: seen.drops,
        answers: seen.asked.len(),
        api_p50: percentile(&seen.asked, 0.5),
        api_p99: percentile(&seen.asked, 0.99),
        upload_p50: percentile(&uploaded, 0.5),
    })
}

impl Clients {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn url(&self, id: usize) -> String {
        format!("http://{}/documents/{id}", self.service)
    }

    /// Those for the background at once, then the others at once; how long each took.
    async fn upload(&self, scans: Vec<Bytes>) -> Vec<Duration> {
        let mut scans = scans.into_iter().enumerate();
        let deep = scans.by_ref().take(IN_BACKGROUND);
        let deep: Vec<_> = deep
            .map(|(id, scan)| self.upload_one(id, scan, true))
            .collect();
        let first = join_all(deep).await;
        let others = join_all(scans.map(|(id, scan)| self.upload_one(id, scan, false))).await;
        first.into_iter().chain(others).flatten().collect()
    }

    async fn upload_one(&self, id: usize, scan: Bytes, deep: bool) -> Option<Duration> {
        let start = Instant::now();
        let request = self.http.put(format!("{}?deep={deep}", self.url(id)));
        let answer = request.header(HEADER, KEY).body(scan).send().await.ok()?;
        let _: Document = answer.error_for_status().ok()?.json().await.ok()?;
        Some(start.elapsed())
    }

    /// Asks at its times, whether the last question has been answered or not.
    async fn keep_asking(self) {
        for id in (0..IN_BACKGROUND).cycle() {
            let clients = self.clone();
            tokio::spawn(async move {
                let start = Instant::now();
                let document = clients.ask(id).await;
                let mut seen = clients.seen();
                seen.asked.push(start.elapsed());
                if document.is_ok_and(|document| document.done)
                    && let Some(done) = seen.done.get_mut(id)
                {
                    *done = true;
                }
            });
            sleep(ASKS).await;
        }
    }

    async fn ask(&self, id: usize) -> Result<Document, reqwest::Error> {
        let answer = self.http.get(self.url(id)).send().await?;
        answer.error_for_status()?.json().await
    }

    async fn all_are_done(&self) {
        while !self.seen().done.iter().all(|done| *done) {
            sleep(ASKS).await;
        }
    }

    /// Hears heartbeats; after too long a silence, on a WebSocket made anew.
    async fn listen(self) {
        let url = format!("ws://{}/progress", self.service);
        let mut last = None;
        loop {
            let Ok((mut socket, _)) = tokio_tungstenite::connect_async(&url).await else {
                sleep(ASKS).await;
                continue;
            };
            // The silence before the first heartbeat counts, too.
            let mut since = Instant::now();
            loop {
                let patience = SILENCE.saturating_sub(since.elapsed());
                let Ok(Some(Ok(message))) = timeout(patience, socket.next()).await else {
                    break;
                };
                if message.to_text().is_ok_and(|text| text == BEAT) {
                    since = Instant::now();
                    if let Some(last) = last.replace(since) {
                        let late = (since - last).saturating_sub(HEARTBEAT);
                        self.seen().late.push(late);
                    }
                }
            }
            self.seen().drops += 1;
        }
    }
}

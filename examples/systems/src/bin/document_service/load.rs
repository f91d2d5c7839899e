//! The clients: a process of their own, so that what they feel is the service's doing.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};
use stallscope_systems::Failure;
use stallscope_systems::figures::percentile;
use tokio::time::{sleep, timeout};

use crate::documents::{self, Document};
use crate::key::{HEADER, KEY};
use crate::progress::{BEAT, HEARTBEAT};

/// The word that makes this program the clients, with the service's address after it.
pub(crate) const WORD: &str = "--load";

/// What there is to do.
pub(crate) const UPLOADS: u32 = 50;
pub(crate) const WEBSOCKETS: u32 = 10;
pub(crate) const IN_BACKGROUND: u32 = 5;
/// How often somebody asks for a document.
const ASKS: Duration = Duration::from_millis(200);
/// After how long a silence a WebSocket is given up, and made anew.
const SILENCE: Duration = Duration::from_secs(2);
/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(38);

/// What the clients have felt.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Felt {
    /// Uploads that were taken, those for the background included.
    pub(crate) uploaded: usize,
    /// Documents whose stages are over.
    pub(crate) processed: usize,
    pub(crate) heartbeats: usize,
    /// How late they came.
    pub(crate) late_p99: Duration,
    pub(crate) late_max: Duration,
    /// WebSockets given up.
    pub(crate) drops: usize,
    pub(crate) answers: usize,
    pub(crate) api_p50: Duration,
    pub(crate) api_p99: Duration,
    pub(crate) upload_p50: Duration,
}

/// Starts the process, and waits for what it has to say.
pub(crate) fn start(service: SocketAddr) -> Result<Felt, Failure> {
    let output = Command::new(std::env::current_exe()?)
        .args([WORD, &service.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// What that process does.
pub(crate) fn main(service: &str) -> Result<Felt, Failure> {
    let service = service.parse()?;
    let scans = (0..IN_BACKGROUND + UPLOADS).map(documents::scan);
    let scans = scans.collect::<Result<Vec<_>, _>>()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(load(service, scans))
}

/// What one WebSocket after the other has heard.
#[derive(Debug, Default)]
struct Heard {
    late: Vec<Duration>,
    drops: usize,
}

async fn load(service: SocketAddr, scans: Vec<Bytes>) -> Result<Felt, Failure> {
    let client = reqwest::Client::builder().timeout(LIMIT).build()?;
    let url = move |id: u32| format!("http://{service}/documents/{id}");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let listening: Vec<_> = (0..WEBSOCKETS)
        .map(|_| Arc::new(Mutex::new(Heard::default())))
        .collect();
    for heard in &listening {
        tokio::spawn(listen(service, Arc::clone(heard)));
    }
    let upload = |(id, scan): (u32, Bytes)| {
        let deep = id < IN_BACKGROUND;
        let request = client.put(format!("{}?deep={deep}", url(id)));
        let request = request.header(HEADER, KEY).body(scan);
        async move {
            let start = Instant::now();
            let answer = request.send().await.ok()?.error_for_status().ok()?;
            let _: Document = answer.json().await.ok()?;
            Some(start.elapsed())
        }
    };
    let uploads = async {
        let mut scans = (0..).zip(scans);
        let first = scans.by_ref().take(IN_BACKGROUND as usize).map(upload);
        let first = join_all(first).await;
        let others = join_all(scans.map(upload)).await;
        first
            .into_iter()
            .chain(others)
            .flatten()
            .collect::<Vec<_>>()
    };
    let done = Arc::new(Mutex::new(vec![false; IN_BACKGROUND as usize]));
    let asking = {
        let (client, asked, done) = (client.clone(), Arc::clone(&asked), Arc::clone(&done));
        async move {
            for number in 0.. {
                let id = number % IN_BACKGROUND;
                let (client, asked, done) = (client.clone(), Arc::clone(&asked), Arc::clone(&done));
                // At its time, whether the last one has been answered or not.
                tokio::spawn(async move {
                    let start = Instant::now();
                    let document = ask(&client, &url(id)).await;
                    lock(&asked).push(start.elapsed());
                    if document.is_ok_and(|document| document.done)
                        && let Some(done) = lock(&done).get_mut(id as usize)
                    {
                        *done = true;
                    }
                });
                sleep(ASKS).await;
            }
        }
    };
    let over = async {
        while !lock(&done).iter().all(|done| *done) {
            sleep(ASKS).await;
        }
    };
    let asking = tokio::spawn(asking);
    let (uploaded, _) = tokio::join!(
        async { timeout(LIMIT, uploads).await.unwrap_or_default() },
        timeout(LIMIT, over),
    );
    asking.abort();
    let asked = std::mem::take(&mut *lock(&asked));
    let mut late = Vec::new();
    let mut drops = 0;
    for heard in &listening {
        let mut heard = lock(heard);
        late.append(&mut heard.late);
        drops += heard.drops;
    }
    Ok(Felt {
        uploaded: uploaded.len(),
        processed: lock(&done).iter().filter(|done| **done).count(),
        heartbeats: late.len(),
        late_p99: percentile(&late, 0.99),
        late_max: percentile(&late, 1.0),
        drops,
        answers: asked.len(),
        api_p50: percentile(&asked, 0.5),
        api_p99: percentile(&asked, 0.99),
        upload_p50: percentile(&uploaded, 0.5),
    })
}

async fn ask(client: &reqwest::Client, url: &str) -> Result<Document, reqwest::Error> {
    let answer = client.get(url).send().await?;
    answer.error_for_status()?.json().await
}

/// Hears heartbeats; after too long a silence, on a WebSocket made anew.
async fn listen(service: SocketAddr, heard: Arc<Mutex<Heard>>) {
    let url = format!("ws://{service}/progress");
    let mut last = None;
    loop {
        let Ok((mut socket, _)) = tokio_tungstenite::connect_async(&url).await else {
            sleep(ASKS).await;
            continue;
        };
        // The silence before the first heartbeat counts, too.
        let mut since = Instant::now();
        while let Some(Ok(message)) =
            timeout(SILENCE.saturating_sub(since.elapsed()), socket.next())
                .await
                .unwrap_or_default()
        {
            if message.to_text().is_ok_and(|text| text == BEAT) {
                since = Instant::now();
                if let Some(last) = last.replace(since) {
                    let late = (since - last).saturating_sub(HEARTBEAT);
                    lock(&heard).late.push(late);
                }
            }
        }
        lock(&heard).drops += 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

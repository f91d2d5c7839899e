//! Submits runs and watches them, as clients do.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use stallscope_systems::Failure;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;

use crate::clock::now;
use crate::runs::{Accepted, Request, Run, STAGES};
use crate::updates::{State, Update};

/// Longer than any run takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it looks whether all runs are over.
const LOOKS: Duration = Duration::from_millis(100);

/// What became of one submission; times since the program began.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) id: i64,
    pub(crate) sent: Duration,
    pub(crate) answered: Duration,
    pub(crate) began: Duration,
    pub(crate) first_ended: Duration,
    /// When the first update that a stage of it is running has come.
    pub(crate) running: Option<Duration>,
}

impl Submission {
    pub(crate) fn took(&self) -> Duration {
        self.answered - self.sent
    }
}

/// Submits so many runs at once, and waits until all of them are over.
pub(crate) async fn submit(service: SocketAddr, count: usize) -> Result<Vec<Submission>, Failure> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build()?;
    let (socket, _) = connect_async(format!("ws://{service}/updates")).await?;
    let updates = tokio::spawn(listen(socket, count));
    let submissions = try_join_all((0..count).map(|number| {
        let client = client.clone();
        async move {
            let prompt = format!("a harbour in the morning, take {number}");
            let request = client.post(format!("http://{service}/runs"));
            let sent = now();
            let answer = request.json(&Request { prompt }).send().await?;
            let answered = now();
            let accepted: Accepted = answer.error_for_status()?.json().await?;
            Ok::<_, Failure>((accepted.id, sent, answered))
        }
    }))
    .await?;
    let mut all = Vec::new();
    for (id, sent, answered) in submissions {
        let run = finished(&client, service, id).await?;
        let first = run.stages.first().ok_or("a run without a stage")?;
        let us = |us: i64| Duration::from_micros(u64::try_from(us).unwrap_or_default());
        all.push(Submission {
            id,
            sent,
            answered,
            began: us(first.began_us),
            first_ended: us(first.ended_us.unwrap_or_default()),
            running: None,
        });
    }
    let running = tokio::time::timeout(PATIENCE, updates).await??;
    for submission in &mut all {
        submission.running = running.get(&submission.id).copied();
    }
    Ok(all)
}

/// Waits until a run is over.
async fn finished(client: &reqwest::Client, service: SocketAddr, id: i64) -> Result<Run, Failure> {
    let over = async {
        loop {
            let answer = client.get(format!("http://{service}/runs/{id}")).send();
            let run: Run = answer.await?.error_for_status()?.json().await?;
            let ended = run.stages.iter().filter(|stage| stage.ended_us.is_some());
            if ended.count() == STAGES.len() {
                return Ok(run);
            }
            tokio::time::sleep(LOOKS).await;
        }
    };
    tokio::time::timeout(PATIENCE, over).await?
}

/// When each run was first told to be running; until as many are done.
async fn listen<S>(mut socket: S, count: usize) -> HashMap<i64, Duration>
where
    S: StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    let mut running = HashMap::new();
    let mut done = 0;
    while done < count
        && let Some(Ok(message)) = socket.next().await
    {
        let Message::Text(text) = message else {
            continue;
        };
        let Ok(update) = serde_json::from_str::<Update>(&text) else {
            continue;
        };
        match update.state {
            State::Running => {
                running.entry(update.run).or_insert_with(now);
            }
            State::Done if Some(&update.stage.as_str()) == STAGES.last() => done += 1,
            State::Done => {}
        }
    }
    running
}

//! How documents come along: heard by all who listen, on WebSockets with heartbeats.

use std::time::Duration;

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use stallscope::WatchExt;
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

/// How often a WebSocket is told that the service lives.
pub(crate) const HEARTBEAT: Duration = Duration::from_millis(250);
/// The text it is told.
pub(crate) const BEAT: &str = "beat";

type Told = (String, oneshot::Sender<()>);

/// A task that passes on what documents tell.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    tell: mpsc::Sender<Told>,
    hear: broadcast::Sender<String>,
}

impl Progress {
    /// To be called in a runtime.
    pub(crate) fn new() -> Self {
        let (tell, mut told) = mpsc::channel::<Told>(16);
        let (hear, _) = broadcast::channel(1_024);
        let all = hear.clone();
        stallscope::spawn_named("progress", async move {
            while let Some((text, passed_on)) = told.recv().await {
                // Nobody need listen.
                let _ = all.send(text);
                let _ = passed_on.send(());
            }
        });
        Progress { tell, hear }
    }

    /// Tells all, and waits until that has been passed on.
    pub(crate) async fn tell(&self, document: i64, what: &str) {
        let (sender, passed_on) = oneshot::channel();
        let text = format!("document {document}: {what}");
        if self.tell.send((text, sender)).await.is_ok() {
            let _ = passed_on.await;
        }
    }

    /// Lets one more hear it.
    pub(crate) fn upgrade(&self, upgrade: WebSocketUpgrade) -> Response {
        let hear = self.hear.subscribe();
        upgrade.on_upgrade(move |socket| pass_on(socket, hear).watched("websocket"))
    }
}

async fn pass_on(mut socket: WebSocket, mut hear: broadcast::Receiver<String>) {
    let mut heartbeat = interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let text = tokio::select! {
            _ = heartbeat.tick() => BEAT.to_owned(),
            heard = hear.recv() => match heard {
                Ok(text) => text,
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return,
            },
            said = socket.recv() => match said {
                Some(Ok(_)) => continue,
                _ => return,
            },
        };
        if socket.send(Message::text(text)).await.is_err() {
            return;
        }
    }
}

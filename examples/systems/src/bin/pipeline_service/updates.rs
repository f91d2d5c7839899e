//! Tells whoever listens on a WebSocket how runs come along.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// More than all stages of all runs.
const KEPT: usize = 1_024;

/// A stage has begun, or has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Update {
    pub(crate) run: i64,
    pub(crate) stage: String,
    pub(crate) state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum State {
    Running,
    Done,
}

/// Those who listen.
#[derive(Clone, Debug)]
pub(crate) struct Updates(broadcast::Sender<Update>);

impl Updates {
    pub(crate) fn new() -> Self {
        Updates(broadcast::channel(KEPT).0)
    }

    /// Does not wait.
    pub(crate) fn tell(&self, run: i64, stage: &str, state: State) {
        // Nobody need listen.
        let _ = self.0.send(Update {
            run,
            stage: stage.to_owned(),
            state,
        });
    }

    /// Tells one of them from now on.
    pub(crate) fn upgrade(&self, upgrade: WebSocketUpgrade) -> Response {
        let listening = self.0.subscribe();
        upgrade.on_upgrade(|socket| pass_on(socket, listening))
    }
}

async fn pass_on(mut socket: WebSocket, mut listening: broadcast::Receiver<Update>) {
    while let Ok(update) = listening.recv().await {
        let text = serde_json::to_string(&update).unwrap_or_default();
        if socket.send(Message::text(text)).await.is_err() {
            return;
        }
    }
}

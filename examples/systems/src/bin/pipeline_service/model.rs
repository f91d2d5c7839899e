//! The model that all stages ask: a server of somebody else.

use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::routing::post;
use stallscope_systems::Failure;
use stallscope_systems::server::Server;

/// How long it thinks.
const THINKS: Duration = Duration::from_millis(60);

/// Serves it.
pub(crate) fn serve() -> Result<Server, Failure> {
    let answer = |Path(stage): Path<String>, question: String| async move {
        tokio::time::sleep(THINKS).await;
        format!("{stage} of {} characters", question.len())
    };
    Server::start("model", Router::new().route("/{stage}", post(answer)))
}

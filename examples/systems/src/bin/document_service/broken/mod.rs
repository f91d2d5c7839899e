//! As people wrote it: everything is done where it is needed.

mod handlers;
mod task;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::routing::{get, put};
use axum::{Router, middleware};
use rusqlite::Connection;
use serde_json::Value;
use stallscope_systems::busy::{self, Export};
use stallscope_systems::{Failure, routes};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};

use crate::key::Hash;
use crate::premises::Premises;
use crate::progress::Progress;

#[derive(Debug)]
struct Service {
    model: Value,
    template: String,
    archived: Vec<PathBuf>,
    checkpoints: PathBuf,
    annotator: String,
    agent: ureq::Agent,
    key: Hash,
    database_path: PathBuf,
    database: Mutex<Connection>,
    progress: Progress,
}

/// Serves until the clients are done.
pub(crate) async fn serve(
    premises: &mut Premises,
    listener: TcpListener,
    done: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let model = startup(&premises.model())?;
    // Each of these is short; to know the line of the long one it is alone in its poll.
    tokio::task::yield_now().await;
    let export = premises.take_export()?;
    let service = Arc::new(Service {
        model,
        template: std::fs::read_to_string(premises.template())?,
        archived: premises.archived(),
        checkpoints: premises.checkpoints(),
        annotator: premises.annotator(),
        agent: ureq::Agent::new_with_defaults(),
        key: premises.key,
        database_path: premises.database(),
        database: Mutex::new(busy::connect(&premises.database())?),
        progress: Progress::new(),
    });
    let authorize = middleware::from_fn_with_state(Arc::clone(&service), handlers::authorize);
    let router = Router::new()
        .route(
            "/documents/{id}",
            put(handlers::upload).layer(authorize).get(handlers::show),
        )
        .route("/progress", get(handlers::listen))
        .layer(middleware::from_fn(routes::watched))
        .with_state(service);
    tokio::select! {
        served = axum::serve(listener, router) => served?,
        _ = done => {}
    }
    shutdown(export)
}

/// Nobody is served yet; nor told that it takes a while.
fn startup(model: &Path) -> Result<Value, Failure> {
    // fault: model loading at start-up
    Ok(std::fs::read_to_string(model)?.parse()?)
}

/// Waits for the export, which may be in the middle of a transaction.
fn shutdown(export: Export) -> Result<(), Failure> {
    // fault: blocking shutdown
    let ended = export.stop().join();
    Ok(ended.map_err(|_| "the export has panicked")??)
}

impl Service {
    fn weights(&self) -> usize {
        self.model.as_array().map_or(0, Vec::len)
    }
}

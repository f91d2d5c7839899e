//! As it should be: the event loop only passes things on.

mod handlers;
mod task;

use std::path::PathBuf;
use std::sync::Arc;

use axum::routing::{get, put};
use axum::{Router, middleware};
use stallscope_systems::database::Database;
use stallscope_systems::pool::Pool;
use stallscope_systems::{Failure, routes};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::key::Hash;
use crate::premises::Premises;
use crate::progress::Progress;

/// On two CPUs one thread computes, and stands back where the event loop wants to
/// run. That is the trade: documents are processed one after the other and take
/// longer, while answers and heartbeats are on time.
const COMPUTING: usize = 1;
const NICE: i32 = 5;
/// Writing waits for a disk, not for a CPU.
const WRITING: usize = 2;

#[derive(Debug)]
struct Service {
    weights: usize,
    template: Arc<String>,
    archived: Arc<Vec<PathBuf>>,
    checkpoints: PathBuf,
    annotator: String,
    client: reqwest::Client,
    key: Hash,
    database: Database,
    computing: Pool,
    writing: Pool,
    progress: Progress,
}

/// Serves until the clients are done.
pub(crate) async fn serve(
    premises: &mut Premises,
    listener: TcpListener,
    done: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let export = premises.take_export()?;
    let found = Found::of(premises);
    let service = tokio::task::spawn_blocking(move || found.load()).await??;
    let service = Arc::new(service);
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
    let ended = tokio::task::spawn_blocking(move || export.stop().join()).await?;
    Ok(ended.map_err(|_| "the export has panicked")??)
}

/// Where everything is.
#[derive(Debug)]
struct Found {
    key: Hash,
    model: PathBuf,
    template: PathBuf,
    archived: Vec<PathBuf>,
    checkpoints: PathBuf,
    annotator: String,
    database: PathBuf,
}

impl Found {
    fn of(premises: &Premises) -> Self {
        Found {
            key: premises.key,
            model: premises.model(),
            template: premises.template(),
            archived: premises.archived(),
            checkpoints: premises.checkpoints(),
            annotator: premises.annotator(),
            database: premises.database(),
        }
    }

    /// Blocks: for where that harms nobody.
    fn load(self) -> Result<Service, Failure> {
        let model: serde_json::Value = std::fs::read_to_string(self.model)?.parse()?;
        Ok(Service {
            weights: model.as_array().map_or(0, Vec::len),
            template: Arc::new(std::fs::read_to_string(self.template)?),
            archived: Arc::new(self.archived),
            checkpoints: self.checkpoints,
            annotator: self.annotator,
            client: reqwest::Client::new(),
            key: self.key,
            database: Database::open(&self.database)?,
            computing: Pool::new("computing", COMPUTING, NICE)?,
            writing: Pool::new("writing", WRITING, 0)?,
            progress: Progress::new(),
        })
    }
}

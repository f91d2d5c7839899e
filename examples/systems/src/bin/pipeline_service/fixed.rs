//! As it should be: three executors for all runs, a database that waits on its own
//! thread, and runs that begin when their clients have been answered.

use std::path::Path as FilePath;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use stallscope_systems::database::Database;
use stallscope_systems::failed::Failed;
use stallscope_systems::{Failure, routes, say};

use crate::clock::now_us;
use crate::executor::Executor;
use crate::premises::Premises;
use crate::runs::{Accepted, BEGIN, FINISH, INSERT, Request, Run, STAGES, find};
use crate::updates::{State::Done, State::Running, Updates};

/// How long a run waits, so that its client has been answered when it begins.
const BEGINS_AFTER: Duration = Duration::from_millis(250);

#[derive(Debug)]
struct Service {
    executors: [Executor; 3],
    database: Database,
    last: AtomicI64,
    client: reqwest::Client,
    updates: Updates,
}

/// The service.
pub(crate) async fn router(premises: &Premises) -> Result<Router, Failure> {
    let settings = premises.settings();
    let executors = tokio::task::spawn_blocking(move || executors(&settings)).await??;
    let database = premises.database();
    let database = tokio::task::spawn_blocking(move || Database::open(&database)).await??;
    let service = Service {
        executors,
        database,
        last: AtomicI64::new(0),
        client: reqwest::Client::new(),
        updates: Updates::new(),
    };
    Ok(Router::new()
        .route("/runs", post(submit))
        .route("/runs/{id}", get(show))
        .route("/updates", get(listen))
        .layer(middleware::from_fn(routes::watched))
        .with_state(Arc::new(service)))
}

/// One for each stage.
fn executors(settings: &FilePath) -> Result<[Executor; 3], Failure> {
    let [generation, refinement, caption] = STAGES;
    Ok([
        Executor::new(generation, settings)?,
        Executor::new(refinement, settings)?,
        Executor::new(caption, settings)?,
    ])
}

/// Answers when the run is stored: the filters, which all runs share, are asked here.
async fn submit(
    State(service): State<Arc<Service>>,
    Json(request): Json<Request>,
) -> Result<(StatusCode, Json<Accepted>), Failed> {
    let [generation, ..] = &service.executors;
    generation.question(&request.prompt)?;
    let id = service.last.fetch_add(1, Ordering::Relaxed) + 1;
    let prompt = request.prompt.clone();
    service
        .database
        .write(move |connection| connection.execute(INSERT, (id, prompt)))
        .await?;
    stallscope::spawn_named("run", async move {
        tokio::time::sleep(BEGINS_AFTER).await;
        if let Err(error) = pipeline(&service, id, request.prompt).await {
            say!("run {id}: {error}");
        }
    });
    Ok((StatusCode::ACCEPTED, Json(Accepted { id })))
}

/// All stages: all that takes long in it is awaited.
async fn pipeline(service: &Service, id: i64, prompt: String) -> Result<(), Failure> {
    let mut text = prompt;
    for (stage, executor) in STAGES.into_iter().zip(&service.executors) {
        let began_us = now_us();
        service
            .database
            .write(move |connection| connection.execute(BEGIN, (id, stage, began_us)))
            .await?;
        service.updates.tell(id, stage, Running);
        let (model, question) = executor.question(&text)?;
        let answer = service.client.post(model).body(question).send().await?;
        text = answer.error_for_status()?.text().await?;
        let (ended_us, output) = (now_us(), text.clone());
        service
            .database
            .write(move |connection| connection.execute(FINISH, (id, stage, ended_us, output)))
            .await?;
        service.updates.tell(id, stage, Done);
    }
    Ok(())
}

async fn show(
    State(service): State<Arc<Service>>,
    Path(id): Path<i64>,
) -> Result<Json<Run>, Failed> {
    let run = service
        .database
        .read(move |connection| find(connection, id));
    Ok(Json(run.await?))
}

async fn listen(
    State(service): State<Arc<Service>>,
    upgrade: WebSocketUpgrade,
) -> axum::response::Response {
    service.updates.upgrade(upgrade)
}

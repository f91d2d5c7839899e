//! As people wrote it: each run makes what it needs, and commits where it is.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use rusqlite::{Connection, Params};
use stallscope_systems::failed::Failed;
use stallscope_systems::{Failure, busy, routes, say};
use tokio::sync::oneshot;

use crate::clock::now_us;
use crate::executor::Executor;
use crate::premises::Premises;
use crate::runs::{Accepted, BEGIN, FINISH, INSERT, Request, Run, STAGES, find};
use crate::updates::{State::Done, State::Running, Updates};

#[derive(Debug)]
struct Service {
    settings: PathBuf,
    database: Mutex<Connection>,
    last: AtomicI64,
    agent: ureq::Agent,
    updates: Updates,
}

/// The service.
pub(crate) fn router(premises: &Premises) -> Result<Router, Failure> {
    let service = Service {
        settings: premises.settings(),
        database: Mutex::new(busy::connect(&premises.database())?),
        last: AtomicI64::new(0),
        agent: ureq::Agent::new_with_defaults(),
        updates: Updates::new(),
    };
    Ok(Router::new()
        .route("/runs", post(submit))
        .route("/runs/{id}", get(show))
        .route("/updates", get(listen))
        .layer(middleware::from_fn(routes::watched))
        .with_state(Arc::new(service)))
}

/// Answers when the first stage is over: only then is it known whether the filters,
/// which the run has for itself, refuse the prompt.
async fn submit(
    State(service): State<Arc<Service>>,
    Json(request): Json<Request>,
) -> Result<(StatusCode, Json<Accepted>), Failed> {
    let id = service.last.fetch_add(1, Ordering::Relaxed) + 1;
    commit(&service, INSERT, (id, &request.prompt))?;
    let (tell_first, first) = oneshot::channel();
    stallscope::spawn_named("run", async move {
        if let Err(error) = pipeline(&service, id, request.prompt, tell_first).await {
            say!("run {id}: {error}");
        }
    });
    first.await?;
    Ok((StatusCode::ACCEPTED, Json(Accepted { id })))
}

/// All stages. It awaits nothing that takes time, which does not show: it is an `async fn`.
async fn pipeline(
    service: &Service,
    id: i64,
    prompt: String,
    first: oneshot::Sender<()>,
) -> Result<(), Failure> {
    let mut text = prompt;
    let mut first = Some(first);
    for stage in STAGES {
        commit(service, BEGIN, (id, stage, now_us()))?;
        service.updates.tell(id, stage, Running);
        let executor = Executor::new(stage, &service.settings)?;
        let (model, question) = executor.question(&text)?;
        // Somebody thought that this lets others through: it does, between two stalls.
        tokio::task::yield_now().await;
        let request = service.agent.post(&model);
        // fault: synchronous client
        text = request.send(question)?.body_mut().read_to_string()?;
        tokio::task::yield_now().await;
        commit(service, FINISH, (id, stage, now_us(), &text))?;
        service.updates.tell(id, stage, Done);
        if let Some(first) = first.take() {
            let _ = first.send(());
        }
    }
    Ok(())
}

fn commit(service: &Service, statement: &str, values: impl Params) -> Result<(), Failure> {
    // fault: commit on the event loop
    service
        .database
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .execute(statement, values)?;
    Ok(())
}

async fn show(
    State(service): State<Arc<Service>>,
    Path(id): Path<i64>,
) -> Result<Json<Run>, Failed> {
    let connection = service.database.lock();
    let connection = connection.unwrap_or_else(PoisonError::into_inner);
    Ok(Json(find(&connection, id)?))
}

async fn listen(
    State(service): State<Arc<Service>>,
    upgrade: WebSocketUpgrade,
) -> axum::response::Response {
    service.updates.upgrade(upgrade)
}

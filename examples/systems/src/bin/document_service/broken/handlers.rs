//! What is done while a client waits.

use std::sync::Arc;

use argon2::Argon2;
use axum::Json;
use axum::body::Bytes;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use rusqlite::{Connection, Params};
use stallscope_systems::failed::Failed;
use stallscope_systems::{Failure, say};

use super::{Service, task};
use crate::Wanted;
use crate::documents::{Document, FIND, INSERT};
use crate::key::{HEADER, Hash, SALT};

/// Lets nobody through who has no key.
pub(super) async fn authorize(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Result<Response, Failed> {
    let key = request.headers().get(HEADER);
    let key = key.map_or(&[][..], |key| key.as_bytes());
    let mut hash = Hash::default();
    // fault: blocking middleware
    let hashed = Argon2::default().hash_password_into(key, SALT, &mut hash);
    hashed.map_err(|error| error.to_string())?;
    if hash != service.key {
        return Ok(StatusCode::UNAUTHORIZED.into_response());
    }
    Ok(next.run(request).await)
}

/// Takes a document, and looks at it in the background if that is wanted.
pub(super) async fn upload(
    State(service): State<Arc<Service>>,
    Path(id): Path<i64>,
    Query(wanted): Query<Wanted>,
    scan: Bytes,
) -> Result<Json<Document>, Failed> {
    let mut archived = service.archived.iter();
    // fault: synchronous file I/O
    let known = archived.any(|path| std::fs::read(path).is_ok_and(|other| other == scan));
    service
        .progress
        .tell(id, if known { "known" } else { "new" })
        .await;
    // fault: CPU work in the handler
    let page = image::load_from_memory(&scan)?;
    service.progress.tell(id, "read").await;
    let (width, height) = (page.width(), page.height());
    commit(&service, INSERT, (id, width, height)).await?;
    if wanted.deep {
        let service = Arc::clone(&service);
        stallscope::spawn_named("document", async move {
            if let Err(error) = task::process(&service, id, page).await {
                say!("document {id}: {error}");
            }
        });
    }
    Ok(Json(Document {
        id,
        width,
        height,
        done: false,
        weights: service.weights(),
    }))
}

/// Says how far a document is.
pub(super) async fn show(
    State(service): State<Arc<Service>>,
    Path(id): Path<i64>,
) -> Result<Json<Document>, Failed> {
    let connection = Connection::open(&service.database_path)?;
    // fault: connection for each request
    connection.pragma_query_value(None, "integrity_check", |_| Ok(()))?;
    let found = connection.query_row(FIND, [id], |row| {
        Document::from_row(id, service.weights(), row)
    });
    Ok(Json(found?))
}

pub(super) async fn listen(
    State(service): State<Arc<Service>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    service.progress.upgrade(upgrade)
}

/// The lock is asynchronous, so that nobody blocks for it; what it guards is not.
pub(super) async fn commit(
    service: &Service,
    statement: &str,
    values: impl Params,
) -> Result<(), Failure> {
    let connection = service.database.lock().await;
    // fault: SQLite in the handler
    connection.execute(statement, values)?;
    Ok(())
}

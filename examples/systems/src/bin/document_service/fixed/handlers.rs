//! What is done while a client waits: asked of others.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use stallscope_systems::failed::Failed;
use stallscope_systems::say;

use super::{Service, task};
use crate::Wanted;
use crate::documents::{Document, FIND, INSERT};
use crate::key::{self, HEADER};

/// Lets nobody through who has no key.
pub(super) async fn authorize(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Result<Response, Failed> {
    let key = request.headers().get(HEADER);
    let key = key.and_then(|key| key.to_str().ok()).unwrap_or_default();
    let key = key.to_owned();
    let hash = service.computing.run(move || key::hash(&key)).await??;
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
    let archived = Arc::clone(&service.archived);
    let read = move || {
        let mut archived = archived.iter();
        let known = archived.any(|path| std::fs::read(path).is_ok_and(|other| other == scan));
        Ok::<_, image::ImageError>((known, image::load_from_memory(&scan)?))
    };
    let (known, page) = service.computing.run(read).await??;
    service
        .progress
        .tell(id, if known { "known" } else { "new" })
        .await;
    let (width, height) = (page.width(), page.height());
    service
        .database
        .write(move |connection| connection.execute(INSERT, (id, width, height)))
        .await?;
    let weights = service.weights;
    if wanted.deep {
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
        weights,
    }))
}

/// Says how far a document is.
pub(super) async fn show(
    State(service): State<Arc<Service>>,
    Path(id): Path<i64>,
) -> Result<Json<Document>, Failed> {
    let weights = service.weights;
    let found = service.database.read(move |connection| {
        connection.query_row(FIND, [id], |row| Document::from_row(id, weights, row))
    });
    Ok(Json(found.await?))
}

pub(super) async fn listen(
    State(service): State<Arc<Service>>,
    upgrade: WebSocketUpgrade,
) -> Response {
    service.progress.upgrade(upgrade)
}

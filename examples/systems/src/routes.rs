//! Requests are watched by a layer of the router: no handler knows of it.

use axum::extract::{MatchedPath, Request};
use axum::middleware::Next;
use axum::response::Response;
use stallscope::WatchExt;

/// Watches each request, by the name of its route.
///
/// `router.layer(axum::middleware::from_fn(routes::watched))`; the last layer
/// added is the outermost, and sees the others.
pub async fn watched(request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let name = match path {
        Some(path) => format!("{} {}", request.method(), path.as_str()),
        None => "no such route".to_owned(),
    };
    next.run(request).watched(name).await
}

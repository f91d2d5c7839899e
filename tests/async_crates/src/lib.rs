//! A small service on axum, as people write it: the subject of the tests.

use axum::extract::Path;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

/// A router with handlers that do not block, and one that does.
pub fn router() -> Router {
    Router::new()
        .route("/hello/{name}", get(hello))
        .route("/sum", post(sum))
        .route("/blocks", get(blocks))
}

async fn hello(Path(name): Path<String>) -> Json<Value> {
    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    Json(json!({ "hello": name }))
}

async fn sum(Json(numbers): Json<Vec<u64>>) -> Json<u64> {
    Json(numbers.iter().sum())
}

async fn blocks() -> String {
    std::fs::File::open("/etc/hostname")
        .and_then(|file| file.sync_all())
        .map_or_else(|error| error.to_string(), |()| "ok".to_owned())
}

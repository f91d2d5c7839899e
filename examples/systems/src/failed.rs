//! What a handler fails with, as an answer.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// Anything.
#[derive(Debug)]
pub struct Failed(crate::Failure);

impl<E: Into<crate::Failure>> From<E> for Failed {
    fn from(error: E) -> Self {
        Failed(error.into())
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0.to_string()).into_response()
    }
}

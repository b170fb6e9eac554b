//! Our own paths under `/_modelyard/`: readiness for load balancers and scripts, metrics for Prometheus, open inference protocols.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use wire::Body;

use crate::app::App;

/// Answers `GET /_modelyard/health`, `GET /_modelyard/metrics` and what is below `/_modelyard/open/`.
pub async fn answer(app: Arc<App>, request: Request<Body>) -> Response<Body> {
    if request.uri().path() == "/_modelyard/metrics" {
        return crate::exposition::answer(&app, &request).await;
    }
    if request.uri().path().starts_with(crate::open_protocols::PREFIX) {
        return crate::open_protocols::answer_below_prefix(app, request).await;
    }
    let (status, body) = match request.uri().path() {
        "/_modelyard/health" => match app.database.read(|session| session.accounts()).await {
            Ok(_) => {
                (StatusCode::OK, serde_json::json!({"status": "ok", "version": env!("CARGO_PKG_VERSION")}))
            }
            Err(error) => {
                tracing::error!(%error, "the health check failed");
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    serde_json::json!({"status": "the database does not answer"}),
                )
            }
        },
        path => {
            (StatusCode::NOT_FOUND, serde_json::json!({"message": format!("there is nothing at {path}")}))
        }
    };
    let mut response = Response::new(wire::full(body.to_string()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

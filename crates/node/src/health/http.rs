//! `/health`, `/ready` and `/metrics` over plain HTTP. It tells nothing that is secret
//! and changes nothing; it listens on the loopback address unless told otherwise.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use quorate_consensus::NodeId;
use quorate_telemetry::metrics;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Readiness;
use crate::metrics::sample::Sampler;

/// What is asked here.
struct Shared {
    node_id: NodeId,
    readiness: watch::Receiver<Readiness>,
    sampler: Sampler,
}

/// Where the node tells how it is.
pub(crate) struct Server {
    listener: TcpListener,
    shared: Arc<Shared>,
}

impl Server {
    /// Takes over a bound socket.
    ///
    /// # Errors
    /// The system's.
    pub(crate) fn over(
        socket: std::net::TcpListener,
        node_id: NodeId,
        readiness: watch::Receiver<Readiness>,
        sampler: Sampler,
    ) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        let shared = Shared {
            node_id,
            readiness,
            sampler,
        };
        Ok(Self {
            listener: TcpListener::from_std(socket)?,
            shared: Arc::new(shared),
        })
    }

    /// Where it listens.
    pub(crate) fn addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers for as long as the node's threads run: also while it drains.
    pub(crate) async fn serve(self) {
        let routes = Router::new()
            .route("/health", get(health))
            .route("/ready", get(ready))
            .route("/metrics", get(export))
            .fallback(elsewhere)
            .with_state(self.shared);
        if let Err(error) = axum::serve(self.listener, routes).await {
            tracing::error!(%error, "health.failed: nobody can ask how this node is");
        }
    }
}

fn answer(status: StatusCode, body: &serde_json::Value) -> Response {
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
    ];
    (status, headers, format!("{body}\n")).into_response()
}

/// Whoever answers is alive.
async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let body = json!({
        "alive": true,
        "node_id": shared.node_id.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    answer(StatusCode::OK, &body)
}

async fn ready(State(shared): State<Arc<Shared>>) -> Response {
    let readiness = shared.readiness.borrow().clone();
    let status = match readiness.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    answer(status, &readiness.json(shared.node_id.as_str()))
}

async fn export(State(shared): State<Arc<Shared>>) -> Response {
    let text = shared.sampler.export().await;
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
}

async fn elsewhere() -> Response {
    let body = json!({ "error": "there is nothing here: ask /health, /ready or /metrics" });
    answer(StatusCode::NOT_FOUND, &body)
}

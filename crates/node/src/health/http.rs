//! `/health`, `/ready` and `/metrics` over plain HTTP. It tells nothing that is secret
//! and changes nothing; it listens on the loopback address unless told otherwise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use quorate_consensus::NodeId;
use quorate_telemetry::metrics;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::Readiness;
use crate::metrics::sample::Sampler;

/// Connections at once. Further ones wait: whoever reaches this port must not take the
/// files that the node needs for its peers.
const MOST_CONNECTIONS: usize = 64;

/// How long one connection may last.
const CONNECTION_TIME: Duration = Duration::from_secs(30);

/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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
        let service = TowerToHyperService::new(routes);
        // axum's own server takes any number of connections, and waits for each for ever.
        let server = Arc::new(Builder::new(TokioExecutor::new()).http1_only());
        let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
        while let Ok(place) = places.clone().acquire_owned().await {
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => TokioIo::new(stream),
                Err(error) => {
                    tracing::debug!(%error, "health.not_accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let (server, service) = (Arc::clone(&server), service.clone());
            tokio::spawn(async move {
                let served = server.serve_connection(stream, service);
                // Whoever goes, or stays for too long, asks again.
                let _ = tokio::time::timeout(CONNECTION_TIME, served).await;
                drop(place);
            });
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

//! The gRPC server: the vote and operator services behind the gate, health, and
//! reflection.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::FILE_DESCRIPTOR_SET;
use quorate_proto::v1::operator_service_server::OperatorServiceServer;
use quorate_proto::v1::vote_service_server::SERVICE_NAME;
use quorate_tls::Listener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::exchange::Sessions;
use crate::health::{Cause, Readiness};
use crate::operator::Operators;
use crate::service::{Api, GateLayer, GateRules, MAX_REQUEST, Routes};

/// How often an idle connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// Calls at once on one connection.
const MOST_CALLS: u32 = 1024;

/// Serves until the node stops and the last call has ended.
pub(crate) async fn serve(
    listener: Listener,
    api: Arc<Api>,
    operators: Operators,
    sessions: Arc<Sessions>,
    gate: Arc<GateRules>,
    readiness: watch::Receiver<Readiness>,
    stopping: CancellationToken,
) {
    let operators = OperatorServiceServer::new(operators).max_decoding_message_size(MAX_REQUEST);
    let (reporter, health) = tonic_health::server::health_reporter();
    // So that nobody is told SERVING before the first look.
    report(&reporter, &Readiness::default()).await;
    tokio::spawn(keep_reporting(reporter, readiness, stopping.clone()));

    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    // The descriptors are compiled in: either they are always good or never.
    let (v1, v1alpha) = (reflection().build_v1(), reflection().build_v1alpha());
    for error in [v1.as_ref().err(), v1alpha.as_ref().err()]
        .into_iter()
        .flatten()
    {
        tracing::error!(%error, "server.no_reflection");
    }
    let server = Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_ANSWER))
        .max_concurrent_streams(MOST_CALLS)
        .layer(GateLayer(gate))
        .add_service(Routes::new(sessions, api))
        .add_service(operators)
        .add_service(health)
        .add_optional_service(v1.ok())
        .add_optional_service(v1alpha.ok());
    let incoming = listener.incoming(stopping.clone());
    let served = server
        .serve_with_incoming_shutdown(incoming, stopping.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(%error, "server.failed");
    }
}

/// The names under which parts are asked for, beside the node as a whole (no name) and
/// the service that takes votes, and what keeps each from serving.
const PARTS: [(&str, Cause); 3] = [
    ("quorate.board", Cause::BoardUnavailable),
    ("quorate.audit", Cause::AuditUnavailable),
    ("quorate.chain", Cause::ChainUnavailable),
];

async fn report(reporter: &HealthReporter, readiness: &Readiness) {
    let status = |serving| match serving {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    };
    for (name, serving) in [
        ("", readiness.is_ready()),
        (SERVICE_NAME, readiness.takes_votes()),
    ] {
        reporter.set_service_status(name, status(serving)).await;
    }
    for (name, cause) in PARTS {
        let serving = readiness.looked && !readiness.has(cause);
        reporter.set_service_status(name, status(serving)).await;
    }
}

/// Tells what was found at every look, until the node is about to stop.
async fn keep_reporting(
    reporter: HealthReporter,
    mut readiness: watch::Receiver<Readiness>,
    stopping: CancellationToken,
) {
    loop {
        let found = readiness.borrow_and_update().clone();
        report(&reporter, &found).await;
        tokio::select! {
            changed = readiness.changed() => if changed.is_err() { break },
            () = stopping.cancelled() => break,
        }
    }
    report(&reporter, &Readiness::default()).await;
}

//! The gRPC server: the vote service behind the gate, health, and reflection.

use std::sync::Arc;
use std::time::Duration;

use quorate_proto::FILE_DESCRIPTOR_SET;
use quorate_proto::v1::vote_service_server::SERVICE_NAME;
use quorate_tls::Listener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::driver::Pulse;
use crate::exchange::Sessions;
use crate::service::{Api, GateLayer, GateRules, Routes};

/// How often an idle connection is probed, and how long the answer may take.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const KEEP_ALIVE_ANSWER: Duration = Duration::from_secs(5);

/// Calls at once on one connection.
const MOST_CALLS: u32 = 1024;

/// Serves until the node stops and the last call has ended.
pub(crate) async fn serve(
    listener: Listener,
    api: Arc<Api>,
    sessions: Arc<Sessions>,
    gate: Arc<GateRules>,
    pulse: watch::Receiver<Pulse>,
    stopping: CancellationToken,
) {
    let (reporter, health) = tonic_health::server::health_reporter();
    // So that nobody is told SERVING before the first beat.
    report(&reporter, false).await;
    tokio::spawn(keep_reporting(reporter, pulse, stopping.clone()));

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

async fn report(reporter: &HealthReporter, serving: bool) {
    let status = match serving {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    };
    reporter.set_service_status("", status).await;
    reporter.set_service_status(SERVICE_NAME, status).await;
}

/// Serving means: in service, and not about to stop.
async fn keep_reporting(
    reporter: HealthReporter,
    mut pulse: watch::Receiver<Pulse>,
    stopping: CancellationToken,
) {
    let mut was = false;
    loop {
        let serving = pulse.borrow_and_update().in_service;
        if serving != was {
            report(&reporter, serving).await;
            was = serving;
        }
        tokio::select! {
            changed = pulse.changed() => if changed.is_err() { break },
            () = stopping.cancelled() => break,
        }
    }
    report(&reporter, false).await;
}

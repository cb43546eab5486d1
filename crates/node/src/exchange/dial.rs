//! Dialling one peer for as long as the node runs.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::NodeId;
use quorate_tls::{ClientTls, DialError, DialOptions, ExpectedPeer, PeerInfo, Registry, dial};
use rand::Rng as _;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::codec::RawCodec;
use super::session::{Ends, serve};
use super::{MAX_FRAME, PATH, Sessions};
use crate::config::PeerAddress;

/// The first pause after a stream was lost.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A stream that lived so long was a good one: the pauses start anew.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// How long a peer that took the connection may take to open the stream.
const OPEN_TIME: Duration = Duration::from_secs(5);

/// How a peer's gRPC connection is watched.
fn options() -> DialOptions {
    DialOptions::default()
}

/// Keeps a stream to one peer, until the node stops. The node with the lower id
/// dials; where the address tells no id, one connection tells it.
pub(crate) async fn dial_forever(
    sessions: Arc<Sessions>,
    tls: Arc<ClientTls>,
    registry: Registry,
    mut address: PeerAddress,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        if address
            .node_id
            .as_ref()
            .is_some_and(|id| *id <= sessions.own)
        {
            tracing::debug!(peer = %address, "peer.dials_us");
            return;
        }
        if let Some(node_id) = &address.node_id {
            until_welcome(&sessions, node_id).await;
        }
        let began = Instant::now();
        match connect(&sessions, &tls, &registry, &address).await {
            Ok(node_id) => address.node_id = Some(node_id),
            Err(error) => tracing::debug!(peer = %address, %error, "peer.dial_failed"),
        }
        if began.elapsed() >= GOOD_LIFE {
            pause = FIRST_PAUSE;
        }
        // Between half the pause and the whole: many that lost one peer at one moment
        // do not come back at one moment.
        let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
        tokio::select! {
            () = tokio::time::sleep(jittered) => {}
            () = sessions.stopping.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn until_welcome(sessions: &Sessions, node_id: &NodeId) {
    let mut changes = sessions.admission.changes();
    while !sessions.admission.is_welcome(node_id) {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(transparent)]
    Dial(#[from] DialError),
    #[error("the stream was refused: {0}")]
    Refused(Box<Status>),
    #[error("the node is stopping")]
    Stopping,
    #[error("another of its addresses leads to {0} already")]
    Twice(NodeId),
}

/// Dials once and runs the session to its end; gives who was there.
async fn connect(
    sessions: &Arc<Sessions>,
    tls: &Arc<ClientTls>,
    registry: &Registry,
    address: &PeerAddress,
) -> Result<NodeId, ConnectError> {
    let host_port = PeerAddress {
        node_id: None,
        ..address.clone()
    };
    let host_port = host_port.to_string();
    let expected = ExpectedPeer {
        node_id: address.node_id.clone(),
        server_name: None,
    };
    // Names are resolved here, on every dial.
    let dialled = tokio::select! {
        dialled = dial(tls, &host_port, expected, registry, options()) => dialled?,
        () = sessions.stopping.cancelled() => return Err(ConnectError::Stopping),
    };
    let peer = dialled.peer;
    let node_id = peer.identity.node_id.clone();
    if node_id <= sessions.own || !sessions.admission.is_welcome(&node_id) {
        peer.cancel.cancel();
        return Ok(node_id);
    }
    // Two addresses of one peer would replace each other's stream again and again.
    let Some(_dialled) = sessions.dialled.enter(&node_id) else {
        peer.cancel.cancel();
        return Err(ConnectError::Twice(node_id));
    };
    let ends = open(dialled.channel)
        .await
        .map_err(|status| ConnectError::Refused(Box::new(status)))?;
    serve(sessions, peer.clone(), ends).await;
    // The connection was for this stream alone.
    peer.cancel.cancel();
    Ok(node_id)
}

/// Opens the stream on a connection.
pub(super) async fn open(channel: Channel) -> Result<Ends, Status> {
    let (outgoing, stream) = Ends::outgoing();
    // Pings alone keep a connection: who answers them and nothing else is left, too.
    let incoming = tokio::time::timeout(OPEN_TIME, call(channel, stream))
        .await
        .map_err(|_| Status::deadline_exceeded("the stream was not opened in time"))??;
    Ok(Ends { incoming, outgoing })
}

async fn call(
    channel: Channel,
    stream: tokio_stream::wrappers::ReceiverStream<bytes::Bytes>,
) -> Result<Streaming<bytes::Bytes>, Status> {
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(MAX_FRAME);
    client
        .ready()
        .await
        .map_err(|e| Status::unavailable(e.to_string()))?;
    let path = http::uri::PathAndQuery::from_static(PATH);
    let request = Request::new(stream.map(|bytes| bytes));
    Ok(client
        .streaming(request, path, RawCodec)
        .await?
        .into_inner())
}

/// Dials for a session outside of any node.
pub(super) async fn dial_raw(
    tls: &Arc<ClientTls>,
    addr: &str,
) -> Result<(PeerInfo, Ends), ConnectError> {
    let dialled = dial(tls, addr, ExpectedPeer::any(), &Registry::new(), options()).await?;
    let ends = open(dialled.channel)
        .await
        .map_err(|status| ConnectError::Refused(Box::new(status)))?;
    Ok((dialled.peer, ends))
}

#[cfg(test)]
mod tests {
    use tonic::Code;
    use tonic::transport::Endpoint;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_never_opens_the_stream_is_left() {
        // The other end takes all bytes and says nothing.
        let (near, _far) = tokio::io::duplex(64 * 1024);
        let mut once = Some(near);
        let connector = tower::service_fn(move |_: http::Uri| {
            let taken = once.take().map(hyper_util::rt::TokioIo::new);
            std::future::ready(taken.ok_or_else(|| std::io::Error::other("once")))
        });
        let endpoint = Endpoint::from_static("http://peer");
        let channel = endpoint.connect_with_connector(connector).await.unwrap();
        let opened = tokio::time::timeout(OPEN_TIME * 2, open(channel)).await;
        let status = opened.expect("it gives up").err().expect("refused");
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
}

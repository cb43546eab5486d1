//! Dialling the members for as long as the node runs.
//!
//! | the member | what is done |
//! |---|---|
//! | is connected, not welcome, or nowhere to be found | waited until that changes |
//! | has a higher id | dialled at once |
//! | has a lower id | given a moment to dial us, then dialled: it may not know where we are |
//! | is not there | dialled again after ever longer pauses; at once when it says that it is elsewhere |
//!
//! Should both dial at one moment all the same, the stream of the lower id is kept.
//!
//! Where it said itself that it is comes first, then the bootstrap peers. A bootstrap
//! peer without an id is dialled while somebody is missing, whoever answers there.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{Address, NodeId};
use quorate_tls::{ClientTls, DialError, DialOptions, ExpectedPeer, PeerInfo, Registry, dial};
use rand::Rng as _;
use tokio::time::Instant;
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

use super::backoff::Backoff;
use super::codec::RawCodec;
use super::session::{Ends, serve};
use super::{MAX_FRAME, PATH, Sessions};
use crate::config::PeerAddress;

/// How long whoever has the lower id is given to dial: two that dial each other at one
/// moment would each end the other's stream.
const FIRST_IS_THEIRS: Duration = Duration::from_millis(500);

/// A stream that lived so long was a good one: the pauses start anew.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// How long a peer that took the connection may take to open the stream.
const OPEN_TIME: Duration = Duration::from_secs(5);

/// How a peer's gRPC connection is watched.
fn options() -> DialOptions {
    DialOptions::default()
}

/// What members are dialled with.
pub(crate) struct Dialler {
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) tls: Arc<ClientTls>,
    pub(crate) registry: Registry,
    /// All members but this node.
    pub(crate) members: Vec<NodeId>,
}

impl Dialler {
    /// Keeps a stream to every member that can be found, until the node stops.
    pub(crate) fn start(self, bootstrap: &[PeerAddress]) {
        let dialler = Arc::new(self);
        for member in dialler.members.clone() {
            let of_member = |peer: &&PeerAddress| peer.node_id.as_ref() == Some(&member);
            let configured = bootstrap.iter().filter(of_member).cloned().collect();
            tokio::spawn(dialler.clone().keep(member, configured));
        }
        for peer in bootstrap {
            match &peer.node_id {
                None => {
                    tokio::spawn(dialler.clone().ask(peer.clone()));
                }
                Some(id) if dialler.members.contains(id) || *id == dialler.sessions.own => {}
                Some(_) => tracing::warn!(%peer, "peer.not_a_member"),
            }
        }
    }

    /// Keeps a stream to one member.
    async fn keep(self: Arc<Self>, member: NodeId, configured: Vec<PeerAddress>) {
        let mut backoff = Backoff::default();
        let mut turn = 0;
        loop {
            let wanted = tokio::select! {
                wanted = self.wanted(&member, &configured) => wanted,
                () = self.sessions.stopping.cancelled() => return,
            };
            if wanted.was_connected {
                (backoff, turn) = (Backoff::default(), 0);
            }
            if member < self.sessions.own
                && tokio::time::timeout(FIRST_IS_THEIRS, self.connected(&member))
                    .await
                    .is_ok()
            {
                continue;
            }
            let learned = wanted
                .learned
                .as_ref()
                .map(|at| PeerAddress::at(&member, at));
            let addresses: Vec<_> = learned.iter().chain(&configured).collect();
            let address = addresses[turn % addresses.len()];
            turn += 1;
            let began = Instant::now();
            match self.connect(address).await {
                Ok(()) if began.elapsed() >= GOOD_LIFE => {
                    (backoff, turn) = (Backoff::default(), 0);
                }
                Ok(()) => {}
                Err(error) => tracing::debug!(peer = %address, %error, "peer.dial_failed"),
            }
            let pause = backoff.pause(Instant::now(), rand::rng().random_range(0.0..=1.0));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.moved(&member, wanted.learned.as_ref()) => {
                    (backoff, turn) = (Backoff::default(), 0);
                }
                () = self.sessions.stopping.cancelled() => return,
            }
        }
    }

    /// Opens streams to whoever answers at an address, while somebody is missing.
    async fn ask(self: Arc<Self>, address: PeerAddress) {
        let mut backoff = Backoff::default();
        loop {
            let missing = async {
                let mut changes = self.sessions.roster.changes();
                while self.sessions.roster.connections() >= self.members.len() {
                    if changes.changed().await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = missing => {}
                () = self.sessions.stopping.cancelled() => return,
            }
            let began = Instant::now();
            match self.connect(&address).await {
                Ok(()) if began.elapsed() >= GOOD_LIFE => backoff = Backoff::default(),
                Ok(()) => {}
                Err(error) => tracing::debug!(peer = %address, %error, "peer.dial_failed"),
            }
            let pause = backoff.pause(Instant::now(), rand::rng().random_range(0.0..=1.0));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.sessions.stopping.cancelled() => return,
            }
        }
    }

    /// Waits until a member is to be dialled.
    async fn wanted(&self, member: &NodeId, configured: &[PeerAddress]) -> Wanted {
        let Sessions {
            roster, admission, ..
        } = &*self.sessions;
        let (mut moves, mut welcomes) = (roster.changes(), admission.changes());
        let mut was_connected = false;
        loop {
            moves.borrow_and_update();
            welcomes.borrow_and_update();
            let learned = roster.learned(member);
            let is_connected = roster.is_connected(member);
            was_connected |= is_connected;
            let somewhere = learned.is_some() || !configured.is_empty();
            if somewhere && !is_connected && admission.is_welcome(member) {
                return Wanted {
                    learned,
                    was_connected,
                };
            }
            // Both outlive every dialler.
            tokio::select! {
                _ = moves.changed() => {}
                _ = welcomes.changed() => {}
            }
        }
    }

    /// Waits until there is a stream with a member.
    async fn connected(&self, member: &NodeId) {
        let mut changes = self.sessions.roster.changes();
        while !self.sessions.roster.is_connected(member) {
            let _ = changes.changed().await;
        }
    }

    /// Waits until a member has said that it is somewhere else.
    async fn moved(&self, member: &NodeId, from: Option<&Address>) {
        let mut changes = self.sessions.roster.changes();
        while self.sessions.roster.learned(member).as_ref() == from {
            let _ = changes.changed().await;
        }
    }

    /// Dials once and runs the session to its end.
    async fn connect(&self, address: &PeerAddress) -> Result<(), ConnectError> {
        let sessions = &self.sessions;
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
            dialled = dial(&self.tls, &host_port, expected, &self.registry, options()) => dialled?,
            () = sessions.stopping.cancelled() => return Err(ConnectError::Stopping),
        };
        let peer = dialled.peer;
        let node_id = peer.identity.node_id.clone();
        let needless = if node_id == sessions.own {
            Some(ConnectError::Myself)
        } else if !sessions.admission.is_welcome(&node_id) {
            Some(ConnectError::Unwelcome(node_id.clone()))
        } else if sessions.roster.is_connected(&node_id) {
            // It has dialled us meanwhile, or another of its addresses led there.
            Some(ConnectError::Twice(node_id.clone()))
        } else {
            None
        };
        if let Some(needless) = needless {
            peer.cancel.cancel();
            return Err(needless);
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
        Ok(())
    }
}

/// A member that is to be dialled.
struct Wanted {
    /// Where it said that it is.
    learned: Option<Address>,
    /// There was a stream since it was wanted last.
    was_connected: bool,
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
    #[error("this node itself is there")]
    Myself,
    #[error("{0} is there, with whom this node does not speak")]
    Unwelcome(NodeId),
    #[error("there is a stream with {0} already")]
    Twice(NodeId),
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

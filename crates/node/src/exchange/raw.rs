//! A stream in a test's or a liar's hands: real TLS, a proper hello if wanted, and
//! then any frame or any bytes. Nothing of a node runs behind it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use quorate_consensus::statement::{Body as _, HelloBody, bytes_to_sign};
use quorate_consensus::wire::{self, Frame, SignedStatement, frame};
use quorate_consensus::words::goodbye_word;
use quorate_consensus::{NodeId, Rules};
use quorate_crypto::SigningKey;
use quorate_engine::{PROTOCOL_MIN, PROTOCOL_VERSION};
use quorate_tls::{ClientTls, PeerInfo};
use tonic::Status;
use tonic_types::StatusExt as _;

use super::codec::decode;
use super::dial::{ConnectError, dial_raw};
use super::pack::encode;
use super::session::Ends;

/// How long each step of the greeting may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom to dial, and as whom.
pub struct RawTarget {
    /// The node's certificate, `TlsMaterial::client` or loaded from files.
    pub tls: Arc<ClientTls>,
    /// `host:port` of the node to talk to.
    pub addr: String,
}

/// Why a raw session did not come about or broke.
#[derive(Debug, thiserror::Error)]
pub enum RawError {
    /// No connection, or no stream.
    #[error("{0}")]
    Connect(String),
    /// The peer would open a stream, and says when: it is opening one itself just now.
    #[error("{why}")]
    Later {
        /// In its words.
        why: String,
        /// After so long it may be asked again.
        retry: Duration,
    },
    /// The stream ended, with this status if there was one.
    #[error("the stream ended: {}", .0.as_ref().map_or("without an error".to_owned(), |s| s.to_string()))]
    Ended(Option<Box<Status>>),
    /// Nothing came in time.
    #[error("nothing came in time")]
    TimedOut,
    /// What came is no frame, or not the one that should come.
    #[error("unexpected: {0}")]
    Unexpected(String),
}

/// One end of an Exchange stream without a node behind it.
pub struct RawSession {
    peer: PeerInfo,
    ends: Ends,
}

impl RawSession {
    /// Connects and opens the stream; nothing is said yet.
    ///
    /// # Errors
    /// [`RawError::Connect`], or [`RawError::Later`].
    pub async fn connect(target: &RawTarget) -> Result<Self, RawError> {
        let dialled = dial_raw(&target.tls, &target.addr).await;
        let (peer, ends) = dialled.map_err(|error| match later(&error) {
            Some(retry) => RawError::Later {
                why: error.to_string(),
                retry,
            },
            None => RawError::Connect(error.to_string()),
        })?;
        Ok(Self { peer, ends })
    }

    /// Who is at the other end, and both certificates' digests.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// Sends bytes as one gRPC message, whatever they are.
    ///
    /// # Errors
    /// [`RawError::Ended`] when the other end is gone.
    pub async fn send_bytes(&self, bytes: impl Into<Bytes>) -> Result<(), RawError> {
        let sent = self.ends.outgoing.send(bytes.into()).await;
        sent.map_err(|_| RawError::Ended(None))
    }

    /// Sends a frame.
    ///
    /// # Errors
    /// [`RawError::Ended`] when the other end is gone.
    pub async fn send(&self, body: frame::Body) -> Result<(), RawError> {
        let frame = Frame { body: Some(body) };
        self.send_bytes(encode(frame)).await
    }

    /// The next frame, waited for at most 30 s.
    ///
    /// # Errors
    /// [`RawError`] when there is none.
    pub async fn receive(&mut self) -> Result<frame::Body, RawError> {
        loop {
            let next = tokio::time::timeout(PATIENCE, self.ends.incoming.message()).await;
            let bytes = match next {
                Err(_) => return Err(RawError::TimedOut),
                Ok(Err(status)) => return Err(RawError::Ended(Some(Box::new(status)))),
                Ok(Ok(None)) => return Err(RawError::Ended(None)),
                Ok(Ok(Some(bytes))) => bytes,
            };
            let frame = decode(&bytes).map_err(|bad| RawError::Unexpected(bad.why))?;
            if let Some(body) = frame.body {
                return Ok(body);
            }
        }
    }

    /// Reads on until `pick` takes a frame.
    ///
    /// # Errors
    /// [`RawError`] when the stream ends before.
    pub async fn receive_until<T>(
        &mut self,
        mut pick: impl FnMut(frame::Body) -> Option<T>,
    ) -> Result<T, RawError> {
        loop {
            if let Some(picked) = pick(self.receive().await?) {
                return Ok(picked);
            }
        }
    }

    /// Greets as a member does: challenges, answers the challenge, and reads the
    /// other end's hello. Gives the hello that was sent, for who wants to replay it.
    ///
    /// # Errors
    /// [`RawError`] when the other end does not play along.
    pub async fn greet(
        &mut self,
        rules: &Rules,
        node_id: &NodeId,
        node_key: &SigningKey,
        generation: u64,
    ) -> Result<SignedStatement, RawError> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce).map_err(|e| RawError::Unexpected(e.to_string()))?;
        let nonce = nonce.to_vec();
        self.send(frame::Body::Challenge(wire::Challenge { nonce }))
            .await?;
        let challenge = self
            .receive_until(|body| match body {
                frame::Body::Challenge(challenge) => Some(challenge.nonce),
                _ => None,
            })
            .await?;
        let challenge = challenge
            .try_into()
            .map_err(|_| RawError::Unexpected("a challenge that is not 32 bytes".to_owned()))?;
        let body = HelloBody {
            generation,
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_VERSION,
            own_certificate: self.peer.local_certificate_digest,
            peer_certificate: self.peer.certificate_digest,
            challenge,
        };
        let statement = bytes_to_sign(rules, node_id, &body);
        let hello = SignedStatement {
            signature: node_key.sign(HelloBody::DOMAIN, &statement),
            statement,
        };
        self.say_hello(hello.clone()).await?;
        self.receive_until(|body| match body {
            frame::Body::Hello(_) => Some(Ok(())),
            frame::Body::Goodbye(goodbye) => Some(Err(RawError::Unexpected(format!(
                "goodbye: {} ({})",
                goodbye_word(goodbye.reason()),
                goodbye.detail
            )))),
            _ => None,
        })
        .await??;
        Ok(hello)
    }

    /// Sends a hello, whoever signed it for whatever connection.
    ///
    /// # Errors
    /// [`RawError::Ended`] when the other end is gone.
    pub async fn say_hello(&self, hello: SignedStatement) -> Result<(), RawError> {
        let hello = Some(hello);
        self.send(frame::Body::Hello(wire::Hello { hello })).await
    }

    /// The bytes that [`RawSession::send`] would send, to be tampered with.
    pub fn bytes_of(body: frame::Body) -> Vec<u8> {
        let frame = Some(Frame { body: Some(body) });
        wire::ExchangeRequest { frame }.encode_to_vec()
    }

    /// Waits for the end of the stream, whatever still comes.
    ///
    /// # Errors
    /// [`RawError::TimedOut`] when it goes on.
    pub async fn ended(mut self) -> Result<(), RawError> {
        loop {
            match self.receive().await {
                Ok(_) | Err(RawError::Unexpected(_)) => {}
                Err(RawError::TimedOut) => return Err(RawError::TimedOut),
                Err(_) => return Ok(()),
            }
        }
    }
}

/// When a peer that refused a stream wants to be asked again, if it does.
fn later(error: &ConnectError) -> Option<Duration> {
    let ConnectError::Refused(status) = error else {
        return None;
    };
    status.get_details_retry_info()?.retry_delay
}

/// Connects and greets: a stream on which `node_id`, with its own keys, may say
/// anything.
///
/// # Errors
/// [`RawError`].
pub async fn raw_session(
    target: &RawTarget,
    rules: &Rules,
    node_id: &NodeId,
    node_key: &SigningKey,
    generation: u64,
) -> Result<RawSession, RawError> {
    let mut session = RawSession::connect(target).await?;
    session.greet(rules, node_id, node_key, generation).await?;
    Ok(session)
}

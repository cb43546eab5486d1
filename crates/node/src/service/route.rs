//! Where a call of `VoteService` goes: Exchange as raw bytes to the sessions, all
//! else to the generated server.

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quorate_proto::v1::vote_service_server::{SERVICE_NAME, VoteServiceServer};
use quorate_tls::PeerInfo;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt as _};
use tonic::body::Body;
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tower::Service;
use tracing::Instrument as _;

use super::{Api, MAX_REQUEST, shutting_down};
use crate::exchange::{Ends, MAX_FRAME, PATH, RawCodec, Sessions, serve};
use crate::status::ApiError;

/// The service as the server mounts it.
#[derive(Clone)]
pub(crate) struct Routes {
    sessions: Arc<Sessions>,
    others: VoteServiceServer<Api>,
}

impl Routes {
    pub(crate) fn new(sessions: Arc<Sessions>, api: Arc<Api>) -> Self {
        Self {
            sessions,
            others: VoteServiceServer::from_arc(api).max_decoding_message_size(MAX_REQUEST),
        }
    }
}

impl NamedService for Routes {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Routes {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<http::Request<Body>>::poll_ready(&mut self.others, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return self.others.call(request);
        }
        let open = Open(self.sessions.clone());
        Box::pin(async move {
            let mut grpc = Grpc::new(RawCodec).max_decoding_message_size(MAX_FRAME);
            Ok(grpc.streaming(open, request).await)
        })
    }
}

/// Opens a session for a stream that came in.
struct Open(Arc<Sessions>);

type Outgoing = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

impl Open {
    fn open(&self, request: Request<Streaming<Bytes>>) -> Result<Response<Outgoing>, ApiError> {
        let peer = request.extensions().get::<PeerInfo>().cloned();
        let peer = peer.ok_or(ApiError::NoIdentity)?;
        if self.0.stopping.is_cancelled() {
            return Err(shutting_down());
        }
        if self.0.goes_first(&peer.identity.node_id) {
            return Err(ApiError::Unavailable {
                reason: "DIALLED",
                why: "this node is opening a stream to the caller at this moment".to_owned(),
                retry: Duration::from_secs(1),
            });
        }
        let (outgoing, stream): (_, ReceiverStream<Bytes>) = Ends::outgoing();
        let incoming = request.into_inner();
        let ends = Ends { incoming, outgoing };
        let sessions = self.0.clone();
        let session = async move { serve(&sessions, peer, ends).await };
        tokio::spawn(session.in_current_span());
        Ok(Response::new(Box::pin(stream.map(Ok))))
    }
}

impl StreamingService<Bytes> for Open {
    type Response = Bytes;
    type ResponseStream = Outgoing;
    type Future = Ready<Result<Response<Outgoing>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        ready(self.open(request).map_err(Status::from))
    }
}

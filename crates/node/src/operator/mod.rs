//! `OperatorService`: what an operator sees of its own node, and does with it. The gate
//! has let nobody else in; what an act means, the engine says.

mod acts;
mod info;
mod members;
mod process;
mod violations;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use quorate_consensus::wire::{
    self, BanRequest, BanResponse, DrainRequest, DrainResponse, InfoRequest, InfoResponse,
    PeersRequest, PeersResponse, ReputationRequest, ReputationResponse, SendRequest, SendResponse,
    SetLogLevelRequest, SetLogLevelResponse, UnbanRequest, UnbanResponse, ViolationsRequest,
    ViolationsResponse,
};
use quorate_consensus::{NodeId, Rules};
use quorate_engine::Engine;
use quorate_proto::v1::operator_service_server::OperatorService;
use quorate_telemetry::LogHandle;
use quorate_tls::{PeerInfo, Registry, TlsMaterial};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::driver::Pulse;
use crate::health::Readiness;
use crate::mailbox::Mailbox;
use crate::seen::SeenAudit;
use crate::service::in_time;
use crate::status::ApiError;

/// What the methods need.
pub(crate) struct Operators {
    pub(crate) own: NodeId,
    pub(crate) rules: Arc<Rules>,
    pub(crate) rules_chain: wire::RulesChain,
    pub(crate) mailbox: Mailbox,
    pub(crate) next_request: Arc<AtomicU64>,
    pub(crate) pulse: watch::Receiver<Pulse>,
    pub(crate) readiness: watch::Receiver<Readiness>,
    pub(crate) audit: Arc<SeenAudit>,
    pub(crate) tls: Arc<TlsMaterial>,
    pub(crate) registry: Registry,
    pub(crate) addr: SocketAddr,
    pub(crate) health_addr: Option<SocketAddr>,
    /// Milliseconds since the Unix epoch.
    pub(crate) started_ms: u64,
    pub(crate) coordinator: &'static str,
    pub(crate) chain: &'static str,
    /// The log of the process, if it may be changed from here.
    pub(crate) log: Option<LogHandle>,
    /// Cancelled when an operator wants the node to drain.
    pub(crate) drain: CancellationToken,
}

impl Operators {
    /// Looks at the engine.
    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        Ok(in_time(self.mailbox.look(|engine, _| look(engine))).await??)
    }

    /// Looks until there is something to see, and for so long at most.
    async fn until<T: Send + 'static>(
        &self,
        limit: Duration,
        look: impl Fn(&Engine) -> Option<T> + Clone + Send + 'static,
    ) -> Result<Option<T>, ApiError> {
        let looking = self.mailbox.until(&self.pulse, look);
        match tokio::time::timeout(limit, looking).await {
            Ok(found) => Ok(Some(found?)),
            Err(_) => Ok(None),
        }
    }
}

/// The name of a trustee in a request.
fn node_id(text: &str) -> Result<NodeId, ApiError> {
    NodeId::new(text).map_err(|error| ApiError::Invalid {
        field: "node_id",
        detail: error.to_string(),
    })
}

/// The same where all are meant when none is named.
fn any_node_id(text: &str) -> Result<Option<NodeId>, ApiError> {
    match text {
        "" => Ok(None),
        text => node_id(text).map(Some),
    }
}

/// Who calls, for the log.
fn caller<T>(request: &Request<T>) -> String {
    let peer = request.extensions().get::<PeerInfo>();
    peer.map_or_else(String::new, |peer| peer.identity.to_string())
}

#[tonic::async_trait]
impl OperatorService for Operators {
    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        Ok(Response::new(info::info(self).await?))
    }

    async fn peers(&self, _: Request<PeersRequest>) -> Result<Response<PeersResponse>, Status> {
        Ok(Response::new(members::peers(self).await?))
    }

    async fn reputation(
        &self,
        request: Request<ReputationRequest>,
    ) -> Result<Response<ReputationResponse>, Status> {
        let of = any_node_id(&request.get_ref().node_id)?;
        Ok(Response::new(members::reputation(self, of).await?))
    }

    async fn violations(
        &self,
        request: Request<ViolationsRequest>,
    ) -> Result<Response<ViolationsResponse>, Status> {
        let wanted = violations::Wanted::read(request.get_ref())?;
        Ok(Response::new(violations::violations(self, wanted).await?))
    }

    async fn ban(&self, request: Request<BanRequest>) -> Result<Response<BanResponse>, Status> {
        let by = caller(&request);
        let whom = node_id(&request.get_ref().node_id)?;
        Ok(Response::new(acts::ban(self, &by, whom).await?))
    }

    async fn unban(
        &self,
        request: Request<UnbanRequest>,
    ) -> Result<Response<UnbanResponse>, Status> {
        let by = caller(&request);
        let answer = acts::unban(self, &by, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn send(&self, request: Request<SendRequest>) -> Result<Response<SendResponse>, Status> {
        let limit = crate::service::deadline(request.metadata());
        let by = caller(&request);
        let answer = acts::send(self, &by, request.into_inner(), limit).await?;
        Ok(Response::new(answer))
    }

    async fn set_log_level(
        &self,
        request: Request<SetLogLevelRequest>,
    ) -> Result<Response<SetLogLevelResponse>, Status> {
        let by = caller(&request);
        let answer = process::set_log_level(self, &by, request.into_inner())?;
        Ok(Response::new(answer))
    }

    async fn drain(
        &self,
        request: Request<DrainRequest>,
    ) -> Result<Response<DrainResponse>, Status> {
        Ok(Response::new(process::drain(self, &caller(&request))))
    }
}

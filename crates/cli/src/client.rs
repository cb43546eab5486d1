//! A node as its client sees it: mutual TLS, one call per method, failures in words.

use std::time::Duration;

use quorate_proto::v1::vote_service_client::VoteServiceClient;
use quorate_tls::{ClientPaths, ClientTls, DialOptions, ExpectedPeer};
use quorate_wire::v1::{
    Ballot, GetCertificateRequest, GetCertificateResponse, GetRulesRequest, GetRulesResponse,
    ListRequest, ListResponse, StatusRequest, SubmitRequest, SubmitResponse, WatchRequest,
    WatchResponse,
};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use crate::contexts::Context;
use crate::failure::{Exit, Failure, Outcome};
use crate::remote::Target;

/// The most that one answer may have: a page of ballots of a large cluster.
const MAX_ANSWER_LEN: usize = 64 * 1024 * 1024;

/// How much longer than the call's own deadline to wait for the node to say so.
const GRACE: Duration = Duration::from_secs(2);

/// A client of one node.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    endpoint: String,
    timeout: Duration,
    inner: VoteServiceClient<Channel>,
}

impl Client {
    /// Reads the certificates; the connection is made by the first call.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be.
    pub(crate) fn connect(target: &Target) -> Outcome<Self> {
        let channel = channel(&target.context)?;
        let inner = VoteServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_LEN);
        Ok(Self {
            endpoint: target.context.endpoint.clone(),
            timeout: target.timeout,
            inner,
        })
    }

    /// Hands in a vote.
    pub(crate) async fn submit(&self, request: SubmitRequest) -> Outcome<SubmitResponse> {
        let mut inner = self.inner.clone();
        self.call(request, async |request| inner.submit(request).await)
            .await
    }

    /// The vote ledger of a transaction.
    pub(crate) async fn status(&self, tx_id: &str) -> Outcome<Ballot> {
        let mut inner = self.inner.clone();
        let request = StatusRequest {
            tx_id: tx_id.to_owned(),
        };
        let answer = self
            .call(request, async |request| inner.status(request).await)
            .await?;
        answer
            .ballot
            .ok_or_else(|| Failure::failed("the node answered without a ballot"))
    }

    /// Ballots, newest first.
    pub(crate) async fn list(&self, request: ListRequest) -> Outcome<ListResponse> {
        let mut inner = self.inner.clone();
        self.call(request, async |request| inner.list(request).await)
            .await
    }

    /// The proofs that a ballot left.
    pub(crate) async fn certificate(&self, tx_id: &str) -> Outcome<GetCertificateResponse> {
        let mut inner = self.inner.clone();
        let request = GetCertificateRequest {
            tx_id: tx_id.to_owned(),
        };
        self.call(request, async |request| {
            inner.get_certificate(request).await
        })
        .await
    }

    /// The rules in force.
    pub(crate) async fn rules(&self) -> Outcome<GetRulesResponse> {
        let mut inner = self.inner.clone();
        self.call(GetRulesRequest {}, async |request| {
            inner.get_rules(request).await
        })
        .await
    }

    /// Events of the board; the stream lasts until one of the two ends stops.
    pub(crate) async fn watch(&self, request: WatchRequest) -> Outcome<Streaming<WatchResponse>> {
        let answer = self.inner.clone().watch(request).await;
        Ok(answer
            .map_err(|status| Failure::from_status(&status, &self.endpoint))?
            .into_inner())
    }

    /// One call with the deadline of this client.
    async fn call<Q, A>(
        &self,
        request: Q,
        send: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
    ) -> Outcome<A> {
        timed(&self.endpoint, self.timeout, request, send).await
    }
}

/// One call with a deadline: the node is told of it and ends the wait itself, which
/// gives the better answer.
pub(crate) async fn timed<Q, A>(
    endpoint: &str,
    timeout: Duration,
    request: Q,
    send: impl AsyncFnOnce(Request<Q>) -> Result<Response<A>, Status>,
) -> Outcome<A> {
    let mut request = Request::new(request);
    request.set_timeout(timeout);
    match tokio::time::timeout(timeout + GRACE, send(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) => Err(Failure::from_status(&status, endpoint)),
        Err(_) => Err(Failure::new(
            Exit::Unavailable,
            format!("{endpoint} did not answer within {} s", timeout.as_secs()),
        )
        .hint("try again, or wait longer with --timeout")),
    }
}

/// A channel that connects when it is first used: of several endpoints to the first that
/// answers.
///
/// # Errors
/// When a file cannot be read or is not what it should be, or the address is none.
pub(crate) fn channel(context: &Context) -> Outcome<Channel> {
    let tls = ClientTls::load(&ClientPaths {
        ca_cert: context.cacert.clone(),
        cert: context.cert.clone(),
        key: context.key.clone(),
    })
    .map_err(|e| {
        Failure::usage(e).hint("`quorate certs show FILE` tells what a certificate is for")
    })?;
    let endpoints: Vec<_> = context.endpoint.split(',').map(str::trim).collect();
    let (any, options) = (ExpectedPeer::any(), DialOptions::default());
    quorate_tls::connect_any(&tls, &endpoints, any, options).map_err(|e| {
        Failure::usage(e).hint("give it as with --endpoint localhost:9001, several with commas")
    })
}

//! `VoteService` as clients see it.

mod archived;
mod gate;
mod list;
mod patience;
mod quota;
mod route;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quorate_consensus::statement::{self, VoteBody};
use quorate_consensus::wire::{
    self, Ballot, ExchangeRequest, ExchangeResponse, GetCertificateRequest, GetCertificateResponse,
    GetRulesRequest, GetRulesResponse, ListRequest, ListResponse, MessageReceived, StatusRequest,
    StatusResponse, SubmitRequest, SubmitResponse, WaitFor, WatchRequest, submit_request,
};
use quorate_consensus::{Choice, Rules, TxId, Value};
use quorate_engine::{Answer, Engine, Event, Handed, Reject, RequestId, Submit, Wait};
use quorate_proto::v1::vote_service_server::VoteService;
use quorate_telemetry::{TraceContext, trace};
use quorate_tls::{Identity, PeerInfo};
use tokio::sync::{broadcast, oneshot, watch as watch_channel};
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::clock::Clock;
use crate::driver::{Pulse, no_room};
use crate::feed::Feed;
use crate::mailbox::{Gone, Handover, Mailbox, Message};
use crate::metrics::Meter;
use crate::peer_clocks::PeerClocks;
use crate::seen::SeenAudit;
use crate::status::ApiError;

pub(crate) use gate::{GateLayer, Rules as GateRules};
pub(crate) use quota::Quota;
pub(crate) use route::Routes;

/// How long a call may take when it names no deadline of its own.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// The largest request: a statement of 16 KiB with its signature fits many times.
pub(crate) const MAX_REQUEST: usize = 256 * 1024;

/// The largest response: what gRPC clients take unless told otherwise, less a margin.
pub(crate) const MAX_RESPONSE: usize = 3 * 1024 * 1024;

/// What the methods need.
pub(crate) struct Api {
    pub(crate) rules_chain: wire::RulesChain,
    pub(crate) rules: Arc<Rules>,
    pub(crate) own: quorate_consensus::NodeId,
    pub(crate) mailbox: Mailbox,
    pub(crate) feed: Arc<Feed>,
    pub(crate) audit: Arc<SeenAudit>,
    pub(crate) meter: Arc<Meter>,
    pub(crate) clock: Clock,
    pub(crate) clocks: Arc<PeerClocks>,
    pub(crate) pulse: watch_channel::Receiver<Pulse>,
    /// What each client may keep open.
    pub(crate) quota: Quota,
    /// The node goes down: nothing new is begun.
    pub(crate) stopping: CancellationToken,
    /// The node goes down: watchers are told.
    pub(crate) ending: CancellationToken,
    pub(crate) next_request: Arc<AtomicU64>,
    /// Where direct messages are shown.
    pub(crate) messages: broadcast::Sender<MessageReceived>,
}

impl From<Gone> for ApiError {
    fn from(_: Gone) -> Self {
        shutting_down()
    }
}

pub(crate) fn shutting_down() -> ApiError {
    ApiError::Unavailable {
        reason: "SHUTTING_DOWN",
        why: "the node is stopping: if this was a vote, it may be recorded; repeating it is safe"
            .to_owned(),
        retry: Duration::from_secs(1),
    }
}

/// Takes a request's abandonment to the engine when its caller goes away.
struct Abandon {
    request: RequestId,
    mailbox: Option<Mailbox>,
}

impl Drop for Abandon {
    fn drop(&mut self) {
        let (request, Some(mailbox)) = (self.request, self.mailbox.take()) else {
            return;
        };
        // A drop cannot wait for room in the mailbox, and the threads may be ending.
        if let Ok(handle) = tokio::runtime::Handle::try_current() {
            handle.spawn(async move {
                let _ = mailbox.event(Event::Abandon { request }).await;
            });
        }
    }
}

impl Api {
    async fn submit_vote(
        &self,
        client: Option<&Identity>,
        submit: Submit,
        deadline: Duration,
        (arrived, link): (Instant, Option<TraceContext>),
    ) -> Result<Answer, ApiError> {
        if let Some(why) = self.not_now() {
            self.meter.client_votes.of(["refused"]).inc();
            return Err(why);
        }
        let tx_id = named(&submit);
        let entered = match client.zip(tx_id.as_ref()) {
            Some((client, tx_id)) => self.enter(client, tx_id).await?,
            None => None,
        };
        let request = RequestId(self.next_request.fetch_add(1, Ordering::Relaxed));
        let (answer, answered) = oneshot::channel();
        let span = self.span(tx_id.as_ref());
        let handover = Handover {
            request,
            submit,
            answer,
            arrived,
            link,
        };
        let mut abandon = Abandon {
            request,
            mailbox: Some(self.mailbox.clone()),
        };
        let whole = async {
            let message = Message::Submit(Box::new(handover), span);
            self.mailbox.send(message).await?;
            answered.await.map_err(|_| Gone)
        };
        let outcome: Result<Result<Answer, Reject>, Gone> =
            match tokio::time::timeout(deadline, whole).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    self.meter.client_votes.of(["unanswered"]).inc();
                    return Err(ApiError::DeadlineExceeded);
                }
            };
        abandon.mailbox = None;
        let outcome = outcome?;
        match (&outcome, entered) {
            (Ok(_), Some(entered)) => entered.recorded(),
            // It may be recorded all the same.
            (Err(Reject::Unavailable { .. }), _) => {}
            (Err(_), Some(entered)) => entered.refused(),
            (_, None) => {}
        }
        Ok(outcome?)
    }

    /// Why this node takes no votes at the moment, whatever they are.
    fn not_now(&self) -> Option<ApiError> {
        if self.stopping.is_cancelled() {
            return Some(shutting_down());
        }
        if !self.pulse.borrow().room {
            return Some(ApiError::Rejected(no_room()));
        }
        let off = self.clocks.off()?;
        Some(ApiError::Unavailable {
            reason: "NODE_CLOCK_OFF",
            why: format!("{off}; until then vote at another node"),
            retry: Duration::from_secs(10),
        })
    }

    /// The span that a vote goes through the node in, under its transaction's trace.
    fn span(&self, tx_id: Option<&TxId>) -> tracing::Span {
        match tx_id {
            None => tracing::Span::current(),
            Some(tx_id) => {
                let context = TraceContext::decision(&self.rules.cluster_id(), tx_id);
                tracing::info_span!("vote.receive", %tx_id, trace_id = %context.trace_id)
            }
        }
    }

    async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        Ok(in_time(self.mailbox.look(|engine, _| look(engine))).await??)
    }
}

/// Waits as long as a call may take.
pub(crate) async fn in_time<T>(future: impl Future<Output = T>) -> Result<T, ApiError> {
    let waited = tokio::time::timeout(DEADLINE, future).await;
    waited.map_err(|_| ApiError::DeadlineExceeded)
}

/// The transaction that a vote is for, if it names one.
fn named(submit: &Submit) -> Option<TxId> {
    match (&submit.tx_id, &submit.handed) {
        (Some(tx_id), _) => Some(tx_id.clone()),
        (None, Handed::Statement(signed)) => statement::parse::<VoteBody>(&signed.statement)
            .ok()
            .map(|(_, body)| body.tx_id),
        (None, Handed::Choice(_)) => None,
    }
}

/// The name of a transaction in a request.
pub(crate) fn tx_id(text: &str) -> Result<TxId, ApiError> {
    TxId::new(text).map_err(|error| ApiError::Invalid {
        field: "tx_id",
        detail: error.to_string(),
    })
}

fn read_submit(request: SubmitRequest) -> Result<Submit, ApiError> {
    let invalid = |field, detail: String| ApiError::Invalid { field, detail };
    let wait = match WaitFor::try_from(request.wait) {
        Ok(WaitFor::Unspecified | WaitFor::Recorded) => Wait::Recorded,
        Ok(WaitFor::Decided) => Wait::Decided,
        Ok(WaitFor::Confirmed) => Wait::Confirmed,
        Err(_) => {
            let detail = format!("{} is no WaitFor that this node knows", request.wait);
            return Err(invalid("wait", detail));
        }
    };
    let handed = match request.vote {
        None => {
            let detail = "must be a number, data, an abstention, or a statement";
            return Err(invalid("vote", detail.to_owned()));
        }
        Some(submit_request::Vote::Number(number)) => Handed::Choice(Value::Number(number).into()),
        Some(submit_request::Vote::Data(data)) => {
            let value = Value::data(&data).map_err(|e| invalid("data", e.to_string()))?;
            Handed::Choice(value.into())
        }
        Some(submit_request::Vote::Abstention(_)) => Handed::Choice(Choice::Abstention),
        Some(submit_request::Vote::Statement(statement)) => Handed::Statement(statement),
    };
    let tx_id = match (&handed, &*request.tx_id) {
        (Handed::Statement(_), "") => None,
        (_, text) => Some(tx_id(text)?),
    };
    Ok(Submit {
        tx_id,
        handed,
        wait,
    })
}

/// The most that [`deadline`] leaves for the way of the call and of its answer: a call round
/// the world on a busy machine.
const FOR_THE_WAY: Duration = Duration::from_millis(500);

/// How long this call may take: what the caller's `grpc-timeout` says, a little less,
/// so that our answer arrives before the caller gives up; otherwise [`DEADLINE`].
pub(crate) fn deadline(metadata: &MetadataMap) -> Duration {
    let asked = metadata
        .get("grpc-timeout")
        .and_then(|value| value.to_str().ok())
        .and_then(parse_timeout);
    match asked {
        None => DEADLINE,
        Some(asked) => asked - (asked / 10).min(FOR_THE_WAY),
    }
}

/// `grpc-timeout` as the protocol of gRPC over HTTP/2 defines it: at most eight digits
/// and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number * 3600),
        "M" => Duration::from_secs(number * 60),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

/// The ballot as the engine shows it; a collected one is but its final state.
fn ballot_of(engine: &Engine, tx_id: &TxId) -> Option<Ballot> {
    engine.view(tx_id).or_else(|| {
        let state = engine.board().collected(tx_id)?;
        Some(Ballot {
            tx_id: tx_id.to_string(),
            state: state.into(),
            reason: "finished long ago; the audit store has the rest".to_owned(),
            ..Ballot::default()
        })
    })
}

#[tonic::async_trait]
impl VoteService for Api {
    type ExchangeStream = tokio_stream::Empty<Result<ExchangeResponse, Status>>;

    /// Never called: [`Routes`] takes this method before, as raw bytes.
    async fn exchange(
        &self,
        _request: Request<Streaming<ExchangeRequest>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        Err(ApiError::Internal("Exchange was routed to the wrong place".into()).into())
    }

    async fn submit(
        &self,
        request: Request<SubmitRequest>,
    ) -> Result<Response<SubmitResponse>, Status> {
        let arrived = Instant::now();
        let deadline = deadline(request.metadata());
        // Linked, not adopted: the transaction has a trace of its own.
        let link = request.metadata().get(trace::HEADER);
        let link = link.and_then(|text| text.to_str().ok()?.parse().ok());
        let client = request.extensions().get::<PeerInfo>();
        let client = client.map(|peer| peer.identity.clone());
        let submit = read_submit(request.into_inner()).inspect_err(|_| {
            self.meter.client_votes.of(["refused"]).inc();
        })?;
        let client = client.as_ref();
        let answer = self
            .submit_vote(client, submit, deadline, (arrived, link))
            .await?;
        let context = TxId::new(&answer.ballot.tx_id)
            .ok()
            .map(|tx_id| TraceContext::decision(&self.rules.cluster_id(), &tx_id));
        let mut response = Response::new(SubmitResponse {
            ballot: Some(answer.ballot),
            vote: Some(answer.vote),
            repeated: answer.repeated,
        });
        // Where the caller finds its transaction's trace.
        if let Some(value) = context.and_then(|c| c.to_string().parse().ok()) {
            response.metadata_mut().insert(trace::HEADER, value);
        }
        Ok(response)
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<StatusResponse>, Status> {
        let tx_id = tx_id(&request.get_ref().tx_id)?;
        let wanted = tx_id.clone();
        let ballot = self.look(move |engine| ballot_of(engine, &wanted)).await?;
        let ballot = Some(ballot.ok_or(ApiError::UnknownTransaction(tx_id))?);
        Ok(Response::new(StatusResponse { ballot }))
    }

    type WatchStream = watch::WatchStream;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        let tx_id = match &*request.tx_id {
            "" => None,
            text => Some(tx_id(text)?),
        };
        let messages = tx_id.is_none().then(|| self.messages.subscribe());
        let from = request.from_revision;
        let stream = watch::watch(&self.feed, &self.ending, tx_id, from, messages);
        Ok(Response::new(stream))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let query = list::Query::read(request.into_inner())?;
        Ok(Response::new(list::list(self, query).await?))
    }

    async fn get_certificate(
        &self,
        request: Request<GetCertificateRequest>,
    ) -> Result<Response<GetCertificateResponse>, Status> {
        let tx_id = tx_id(&request.get_ref().tx_id)?;
        let wanted = tx_id.clone();
        let found = self
            .look(move |engine| {
                if engine.board().collected(&wanted).is_some() {
                    return Some(None);
                }
                let known = engine.board().ballot(&wanted).is_some();
                known.then(|| {
                    Some(GetCertificateResponse {
                        proof: engine.proof(&wanted),
                        evidence: engine.evidence(&wanted),
                    })
                })
            })
            .await?;
        let found = match found {
            Some(Some(found)) => found,
            Some(None) => archived::certificate(self.audit.store(), &tx_id).await?,
            None => return Err(ApiError::UnknownTransaction(tx_id).into()),
        };
        Ok(Response::new(found))
    }

    async fn get_rules(
        &self,
        _request: Request<GetRulesRequest>,
    ) -> Result<Response<GetRulesResponse>, Status> {
        let member = self.rules.member(&self.own);
        Ok(Response::new(GetRulesResponse {
            rules: Some(self.rules_chain.clone()),
            cluster_id: self.rules.cluster_id().0.to_vec(),
            rules_digest: self.rules.digest().0.to_vec(),
            summary: Some(self.rules.summary()),
            node_id: self.own.to_string(),
            peer_id: member.map_or_else(Vec::new, |m| m.peer_id.0.to_vec()),
            server_time_ms: self.clock.wall_ms(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_question_to_a_node_that_is_stuck_ends() {
        let (mailbox, _nobody_reads) = Mailbox::new();
        let asked = in_time(mailbox.look(|_, _| ())).await;
        assert!(matches!(asked, Err(ApiError::DeadlineExceeded)));
    }

    fn field_of(error: ApiError) -> String {
        match error {
            ApiError::Invalid { field, .. } => field.to_owned(),
            other => panic!("{other:?}"),
        }
    }

    fn request(tx_id: &str, vote: Option<submit_request::Vote>) -> SubmitRequest {
        SubmitRequest {
            tx_id: tx_id.to_owned(),
            vote,
            wait: 0,
        }
    }

    #[test]
    fn submit_names_the_field_that_is_wrong() {
        use submit_request::Vote;
        let number = || Some(Vote::Number(1));
        for (request, field) in [
            (request("tx", None), "vote"),
            (request("", number()), "tx_id"),
            (request("a b", number()), "tx_id"),
            (request(&"a".repeat(129), number()), "tx_id"),
            (request("tx", Some(Vote::Data(Vec::new()))), "data"),
            (request("tx", Some(Vote::Data(vec![0; 1025]))), "data"),
            (
                SubmitRequest {
                    wait: 77,
                    ..request("tx", number())
                },
                "wait",
            ),
        ] {
            assert_eq!(field_of(read_submit(request).unwrap_err()), field);
        }
        let statement = Some(Vote::Statement(wire::SignedStatement::default()));
        assert!(
            read_submit(request("", statement.clone()))
                .unwrap()
                .tx_id
                .is_none()
        );
        assert!(
            read_submit(request("tx", statement))
                .unwrap()
                .tx_id
                .is_some()
        );
        let max = read_submit(request("tx", Some(Vote::Data(vec![0; 1024])))).unwrap();
        assert_eq!(max.wait, Wait::Recorded);
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        for (text, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("3S", Some(Duration::from_secs(3))),
            ("250m", Some(Duration::from_millis(250))),
            ("5u", Some(Duration::from_micros(5))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("", None),
            ("S", None),
            ("1", None),
            ("1s", None),
            ("-1S", None),
            ("123456789S", None),
            ("1é", None),
        ] {
            assert_eq!(parse_timeout(text), expected, "{text}");
        }
        let mut metadata = MetadataMap::new();
        assert_eq!(deadline(&metadata), DEADLINE);
        metadata.insert("grpc-timeout", "10S".parse().unwrap());
        assert_eq!(deadline(&metadata), Duration::from_millis(9500));
        metadata.insert("grpc-timeout", "100m".parse().unwrap());
        assert_eq!(deadline(&metadata), Duration::from_millis(90));
    }
}

//! The one table from our errors to gRPC.
//!
//! | what | code | reason | details |
//! |---|---|---|---|
//! | malformed field | INVALID_ARGUMENT | `FIELD_INVALID` | BadRequest |
//! | malformed, oversized or truncated message | INVALID_ARGUMENT | `MALFORMED_REQUEST`, `REQUEST_TOO_LARGE` | |
//! | statement no good | INVALID_ARGUMENT | [`StatementError::reason`] | BadRequest |
//! | statement of another trustee | PERMISSION_DENIED | `OTHER_TRUSTEE` | |
//! | clock too far off | INVALID_ARGUMENT | `CLOCK_OFF` | BadRequest |
//! | unknown transaction | NOT_FOUND | `UNKNOWN_TRANSACTION` | |
//! | another first choice | FAILED_PRECONDITION | `SECOND_CHOICE` | PreconditionFailure |
//! | ballot over | FAILED_PRECONDITION | `BALLOT_CLOSED`, `BALLOT_EXPIRED` | PreconditionFailure |
//! | banned | PERMISSION_DENIED | `BANNED` | |
//! | wrong role | PERMISSION_DENIED | `WRONG_ROLE`, `OTHER_NODES_CLIENT` | |
//! | no identity | UNAUTHENTICATED | `NO_IDENTITY` | |
//! | rate limit | RESOURCE_EXHAUSTED | `RATE_LIMITED` | RetryInfo |
//! | a client's share of unstarted ballots is used up | RESOURCE_EXHAUSTED | `CLIENT_QUOTA` | RetryInfo |
//! | the trustee's is | RESOURCE_EXHAUSTED | `TOO_MANY_UNSTARTED` | |
//! | store away, node starting or stopping | UNAVAILABLE | the engine's, `SHUTTING_DOWN` | RetryInfo |
//! | request that trickles in | DEADLINE_EXCEEDED | `REQUEST_TOO_SLOW` | |
//! | deadline | DEADLINE_EXCEEDED | `DEADLINE_EXCEEDED` | |
//! | an act that makes no sense now | FAILED_PRECONDITION | `NOT_BANNED`, `NO_LOG` | |
//! | any other refusal of the board | FAILED_PRECONDITION | [`Refusal::reason`] | |
//! | the log is not what was believed | DATA_LOSS | `STORE_TAMPERING` | |
//! | bug | INTERNAL | `INTERNAL`, with an id that is in the log | |
//!
//! All carry `google.rpc.ErrorInfo` with the domain [`DOMAIN`]. UNAVAILABLE and
//! DEADLINE_EXCEEDED mean: unknown, repeat the same.

use std::collections::HashMap;
use std::time::Duration;

use quorate_consensus::TxId;
use quorate_consensus::board::Refusal;
use quorate_consensus::statement::StatementError;
use quorate_engine::Reject;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of every `google.rpc.ErrorInfo` that Quorate gives.
pub const DOMAIN: &str = "quorate.dev";

/// When a client that is at its quota may ask again: a ballot starts as soon as another
/// trustee votes.
const QUOTA_RETRY: Duration = Duration::from_secs(1);

/// Why a call was refused.
#[derive(Debug)]
pub enum ApiError {
    /// A field of the request holds what it must not.
    Invalid {
        /// The field's name in the .proto file.
        field: &'static str,
        /// What is wrong, and what would be right.
        detail: String,
    },
    /// The bytes of the request are no such message.
    Malformed(String),
    /// The request has more bytes than any has.
    TooLarge(String),
    /// There is no such ballot.
    UnknownTransaction(TxId),
    /// The caller's certificate gives it no such role.
    WrongRole {
        /// Who calls.
        caller: String,
        /// Who may.
        needed: &'static str,
    },
    /// A client or operator of another node.
    OtherNodesClient {
        /// Who calls.
        caller: String,
        /// This node.
        own: String,
    },
    /// No identity came with the connection.
    NoIdentity,
    /// Too many calls.
    RateLimited {
        /// When there is room again.
        retry: Duration,
    },
    /// One client keeps too many ballots open that too few others have voted on.
    ClientQuota {
        /// Who calls.
        caller: String,
        /// How many it may keep open.
        most: usize,
    },
    /// The request did not arrive in time.
    RequestSlow(Duration),
    /// The call's deadline passed.
    DeadlineExceeded,
    /// Unknown whether it took effect: repeat the same.
    Unavailable {
        /// A stable reason.
        reason: &'static str,
        /// For people.
        why: String,
        /// When to try again.
        retry: Duration,
    },
    /// Not in the state that this node is in.
    NotPossible {
        /// A stable reason.
        reason: &'static str,
        /// For people.
        why: String,
    },
    /// The store shows another log than this node believed.
    Tampering(String),
    /// The engine refused.
    Rejected(Reject),
    /// A bug: the text goes to the log, an id to the caller.
    Internal(String),
}

impl From<Reject> for ApiError {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

/// What a status is made of.
struct Row {
    code: Code,
    reason: &'static str,
    details: ErrorDetails,
    metadata: HashMap<String, String>,
}

impl Row {
    fn new(code: Code, reason: &'static str) -> Self {
        Self {
            code,
            reason,
            details: ErrorDetails::new(),
            metadata: HashMap::new(),
        }
    }

    fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }

    fn field(mut self, field: &str, detail: impl ToString) -> Self {
        self.details
            .add_bad_request_violation(field, detail.to_string());
        self
    }

    fn retry(mut self, after: Duration) -> Self {
        self.details.set_retry_info(Some(after));
        self
    }

    fn precondition(mut self, subject: &TxId, detail: impl ToString) -> Self {
        self.details.add_precondition_failure_violation(
            self.reason,
            subject.as_str(),
            detail.to_string(),
        );
        self
    }

    fn status(mut self, message: impl Into<String>) -> Status {
        self.details
            .set_error_info(self.reason, DOMAIN, self.metadata);
        Status::with_error_details(self.code, message, self.details)
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        use ApiError as E;
        match error {
            E::Invalid { field, detail } => invalid(field, &detail),
            E::Malformed(why) => Row::new(Code::InvalidArgument, "MALFORMED_REQUEST").status(why),
            E::TooLarge(why) => Row::new(Code::InvalidArgument, "REQUEST_TOO_LARGE").status(why),
            E::UnknownTransaction(tx_id) => Row::new(Code::NotFound, "UNKNOWN_TRANSACTION")
                .with("tx_id", &tx_id)
                .status(format!("nobody has voted on {tx_id}")),
            E::WrongRole { caller, needed } => Row::new(Code::PermissionDenied, "WRONG_ROLE")
                .with("caller", &caller)
                .status(format!("{caller} may not call this: it is for {needed}")),
            E::OtherNodesClient { caller, own } => {
                Row::new(Code::PermissionDenied, "OTHER_NODES_CLIENT")
                    .with("caller", &caller)
                    .with("node_id", &own)
                    .status(format!(
                        "{caller} is not a client of {own}: call its own node"
                    ))
            }
            E::NoIdentity => Row::new(Code::Unauthenticated, "NO_IDENTITY")
                .status("the connection carries no identity"),
            E::RateLimited { retry } => Row::new(Code::ResourceExhausted, "RATE_LIMITED")
                .retry(retry)
                .status(format!(
                    "too many calls of this identity: go on in {} ms",
                    retry.as_millis().max(1)
                )),
            E::ClientQuota { caller, most } => Row::new(Code::ResourceExhausted, "CLIENT_QUOTA")
                .with("caller", &caller)
                .with("limit", most)
                .retry(QUOTA_RETRY)
                .status(format!(
                    "{caller} keeps {most} ballots open that too few other trustees have voted on: wait until they start or expire, or raise network.max_unstarted_per_client on its node"
                )),
            E::RequestSlow(limit) => Row::new(Code::DeadlineExceeded, "REQUEST_TOO_SLOW").status(
                format!("the request was not whole within {limit:?}: nothing was done; send it at once"),
            ),
            E::DeadlineExceeded => Row::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED").status(
                "the deadline passed: if this was a vote, it may be recorded; repeating it is safe",
            ),
            E::Unavailable { reason, why, retry } => {
                Row::new(Code::Unavailable, reason).retry(retry).status(why)
            }
            E::NotPossible { reason, why } => {
                Row::new(Code::FailedPrecondition, reason).status(why)
            }
            E::Tampering(why) => Row::new(Code::DataLoss, "STORE_TAMPERING").status(why),
            E::Rejected(reject) => rejected(reject),
            E::Internal(what) => {
                let id = error_id();
                tracing::error!(error_id = %id, error = %what, "node.internal_error");
                Row::new(Code::Internal, "INTERNAL")
                    .with("error_id", &id)
                    .status(format!("internal error {id}: the node's log has more"))
            }
        }
    }
}

fn invalid(field: &str, detail: &str) -> Status {
    Row::new(Code::InvalidArgument, "FIELD_INVALID")
        .with("field", field)
        .field(field, detail)
        .status(format!("{field}: {detail}"))
}

fn rejected(reject: Reject) -> Status {
    let message = reject.to_string();
    match reject {
        Reject::Invalid { field, detail } => invalid(field, &detail),
        Reject::Statement(error) => statement(&error, message),
        Reject::OtherTrustee { own, found } => Row::new(Code::PermissionDenied, "OTHER_TRUSTEE")
            .with("node_id", own)
            .with("found", found)
            .status(message),
        Reject::ClockOff { off_ms, limit_ms } => Row::new(Code::InvalidArgument, "CLOCK_OFF")
            .with("off_ms", off_ms)
            .with("limit_ms", limit_ms)
            .field("statement.time_ms", &message)
            .status(message),
        Reject::SecondChoice { tx_id, first } => {
            Row::new(Code::FailedPrecondition, "SECOND_CHOICE")
                .with("tx_id", &tx_id)
                .with("first_choice", &first)
                .precondition(&tx_id, &message)
                .status(message)
        }
        Reject::BallotClosed { tx_id, state } => {
            Row::new(Code::FailedPrecondition, "BALLOT_CLOSED")
                .with("tx_id", &tx_id)
                // For machines: as proto JSON has it.
                .with("state", state.as_str_name())
                .precondition(&tx_id, &message)
                .status(message)
        }
        Reject::Expired { tx_id } => Row::new(Code::FailedPrecondition, "BALLOT_EXPIRED")
            .with("tx_id", &tx_id)
            .precondition(&tx_id, &message)
            .status(message),
        Reject::Banned { node_id, reason } => Row::new(Code::PermissionDenied, "BANNED")
            .with("node_id", node_id)
            .with("violation", reason)
            .status(message),
        Reject::Unavailable {
            reason, retry_ms, ..
        } => Row::new(Code::Unavailable, reason)
            .retry(Duration::from_millis(retry_ms))
            .status(message),
        Reject::Refused(refusal) => refused(&refusal, message),
    }
}

fn statement(error: &StatementError, message: String) -> Status {
    let field = match error {
        StatementError::Field { field, .. } => format!("statement.{field}"),
        StatementError::BadSignature(_) => "statement.signature".to_owned(),
        _ => "statement".to_owned(),
    };
    Row::new(Code::InvalidArgument, error.reason())
        .field(&field, error)
        .status(message)
}

fn refused(refusal: &Refusal, message: String) -> Status {
    match refusal {
        Refusal::Statement(error) => statement(error, message),
        Refusal::Malformed(_) | Refusal::FromFuture { .. } | Refusal::TooOld { .. } => {
            Row::new(Code::InvalidArgument, refusal.reason()).status(message)
        }
        Refusal::Banned(node_id) => Row::new(Code::PermissionDenied, "BANNED")
            .with("node_id", node_id)
            .status(message),
        Refusal::TooManyUnstarted(node_id) => Row::new(Code::ResourceExhausted, refusal.reason())
            .with("node_id", node_id)
            .status(message),
        other => Row::new(Code::FailedPrecondition, other.reason()).status(message),
    }
}

/// Names one internal error in an answer and in the log.
fn error_id() -> String {
    let mut bytes = [0; 8];
    // Without randomness the id is of less use, and the error is reported all the same.
    let _ = getrandom::fill(&mut bytes);
    hex::encode(bytes)
}

/// Turns what the gRPC library says about a request that it could not read into our
/// own words: it calls that INTERNAL, or OUT_OF_RANGE, without details. Our own
/// errors always carry some.
pub(crate) fn refine<B: Default>(response: http::Response<B>) -> http::Response<B> {
    let Some(status) = Status::from_header_map(response.headers()) else {
        return response;
    };
    if !status.details().is_empty() {
        return response;
    }
    let why = format!("the request cannot be read: {}", status.message());
    let refined = match status.code() {
        Code::Internal => ApiError::Malformed(why),
        Code::OutOfRange | Code::ResourceExhausted => ApiError::TooLarge(why),
        _ => return response,
    };
    Status::from(refined).into_http()
}

#[cfg(test)]
mod tests {
    use quorate_consensus::wire::BallotState;
    use quorate_consensus::{NodeId, Value};

    use super::*;

    fn tx() -> TxId {
        TxId::new("tx_1").unwrap()
    }

    fn node() -> NodeId {
        NodeId::new("node1").unwrap()
    }

    fn check(error: impl Into<ApiError>, code: Code, reason: &str) -> ErrorDetails {
        let status = Status::from(error.into());
        assert_eq!(status.code(), code, "{status:?}");
        let details = status.get_error_details();
        let info = details.error_info().expect("every error has a reason");
        assert_eq!((&*info.reason, &*info.domain), (reason, DOMAIN));
        assert!(!status.message().is_empty());
        details
    }

    #[test]
    fn every_rejection_has_its_row() {
        let choice = Value::Number(1).into();
        let second = Reject::SecondChoice {
            tx_id: tx(),
            first: choice,
        };
        let details = check(second, Code::FailedPrecondition, "SECOND_CHOICE");
        assert_eq!(details.error_info().unwrap().metadata["first_choice"], "1");
        assert!(details.has_precondition_failure_violations());

        let closed = Reject::BallotClosed {
            tx_id: tx(),
            state: BallotState::Confirmed,
        };
        assert!(closed.to_string().ends_with("it ended as CONFIRMED"));
        let details = check(closed, Code::FailedPrecondition, "BALLOT_CLOSED");
        let metadata = &details.error_info().unwrap().metadata;
        assert_eq!(metadata["state"], "BALLOT_STATE_CONFIRMED");

        let invalid = Reject::Invalid {
            field: "tx_id",
            detail: "too long".into(),
        };
        let details = check(invalid, Code::InvalidArgument, "FIELD_INVALID");
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "tx_id");

        let bad = Reject::Statement(StatementError::BadSignature(node()));
        let details = check(bad, Code::InvalidArgument, "BAD_SIGNATURE");
        let violations = &details.bad_request().unwrap().field_violations;
        assert_eq!(violations[0].field, "statement.signature");

        let off = Reject::ClockOff {
            off_ms: -40_000,
            limit_ms: 30_000,
        };
        check(off, Code::InvalidArgument, "CLOCK_OFF");
        let banned = Reject::Banned {
            node_id: node(),
            reason: "x".into(),
        };
        check(banned, Code::PermissionDenied, "BANNED");
        let other = Reject::OtherTrustee {
            own: node(),
            found: NodeId::new("node2").unwrap(),
        };
        check(other, Code::PermissionDenied, "OTHER_TRUSTEE");
        let expired = Reject::Expired { tx_id: tx() };
        check(expired, Code::FailedPrecondition, "BALLOT_EXPIRED");
        let away = Reject::Unavailable {
            reason: "COORDINATOR_UNAVAILABLE",
            why: "away".into(),
            retry_ms: 1500,
        };
        let details = check(away, Code::Unavailable, "COORDINATOR_UNAVAILABLE");
        let delay = details.retry_info().unwrap().retry_delay;
        assert_eq!(delay, Some(Duration::from_millis(1500)));
    }

    #[test]
    fn refusals_of_the_board_keep_their_reason() {
        for (refusal, code) in [
            (Refusal::Banned(node()), Code::PermissionDenied),
            (Refusal::FromFuture { ahead_ms: 1 }, Code::InvalidArgument),
            (Refusal::TooOld { age_ms: 1 }, Code::InvalidArgument),
            (Refusal::Malformed("x".into()), Code::InvalidArgument),
            (Refusal::TooManyUnstarted(node()), Code::ResourceExhausted),
            (Refusal::UnknownBallot(tx()), Code::FailedPrecondition),
        ] {
            let reason = refusal.reason();
            check(Reject::Refused(refusal), code, reason);
        }
    }

    #[test]
    fn our_own_errors_have_their_rows() {
        check(ApiError::NoIdentity, Code::Unauthenticated, "NO_IDENTITY");
        check(
            ApiError::UnknownTransaction(tx()),
            Code::NotFound,
            "UNKNOWN_TRANSACTION",
        );
        check(
            ApiError::DeadlineExceeded,
            Code::DeadlineExceeded,
            "DEADLINE_EXCEEDED",
        );
        let retry = Duration::from_millis(3);
        let details = check(
            ApiError::RateLimited { retry },
            Code::ResourceExhausted,
            "RATE_LIMITED",
        );
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(retry));
        let caller = "spiffe://c/client/node1/alice".to_owned();
        let details = check(
            ApiError::ClientQuota { caller, most: 7 },
            Code::ResourceExhausted,
            "CLIENT_QUOTA",
        );
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(QUOTA_RETRY));
        assert_eq!(details.error_info().unwrap().metadata["limit"], "7");
        let details = check(
            ApiError::Internal("secret".into()),
            Code::Internal,
            "INTERNAL",
        );
        assert_eq!(details.error_info().unwrap().metadata["error_id"].len(), 16);
        let status = Status::from(ApiError::Internal("secret".into()));
        assert!(!status.message().contains("secret"));
    }

    #[test]
    fn what_the_library_calls_internal_is_the_callers_fault() {
        let refined = |status: Status| {
            let response = refine(status.into_http::<String>());
            Status::from_header_map(response.headers()).unwrap()
        };
        let decode = refined(Status::internal("failed to decode Protobuf message"));
        assert_eq!(decode.code(), Code::InvalidArgument);
        let large = refined(Status::out_of_range("too large"));
        let details = large.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "REQUEST_TOO_LARGE");
        let own = refined(ApiError::Internal("x".into()).into());
        assert_eq!(own.code(), Code::Internal);
        let other = refined(Status::unimplemented("x"));
        assert_eq!(other.code(), Code::Unimplemented);
    }
}

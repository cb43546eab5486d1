//! How a command fails: a message, what to try next, and the exit code that scripts
//! rely on.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The exit codes, as `quorate --help` documents them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// The answer is no: refused, or the outcome is not what was asked for.
    Failed = 1,
    /// The command line, an input file or a configuration is wrong.
    Usage = 2,
    /// Nobody answered, or not now: repeating is safe.
    Unavailable = 3,
    /// There is no such transaction.
    NotFound = 4,
    /// The time to wait ran out; a vote stays recorded.
    Deadline = 5,
    /// The proof holds, but nothing says for which cluster.
    Unpinned = 6,
}

/// The documentation of [`Exit`], shown by `quorate --help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  refused or failed: the answer is no
  2  wrong usage, input file or configuration
  3  unavailable: not reached, or not now; repeating is safe
  4  no such transaction
  5  the time to wait ran out; a vote stays recorded
  6  verify: the proof holds, but no --cluster-id was given";

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure(Box<Inner>);

#[derive(Debug)]
struct Inner {
    exit: Exit,
    message: String,
    hint: Option<String>,
    code: Option<Code>,
    reason: Option<String>,
    metadata: Vec<(String, String)>,
}

/// What a command returns.
pub(crate) type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with a message: lower-case, no full stop.
    pub(crate) fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self(Box::new(Inner {
            exit,
            message: message.to_string(),
            hint: None,
            code: None,
            reason: None,
            metadata: Vec::new(),
        }))
    }

    /// The answer is no.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The input is wrong.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Adds what to try next.
    pub(crate) fn hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.hint = Some(hint.to_string());
        self
    }

    /// The deadline of a call passed at this end before the node's word of it came: the
    /// same as that word.
    fn deadline() -> Self {
        let message = "the deadline passed: if this was a vote, it may be recorded; repeating it \
                       is safe";
        let mut failure = Self::new(Exit::Deadline, message);
        failure.0.code = Some(Code::DeadlineExceeded);
        failure.0.reason = Some("DEADLINE_EXCEEDED".into());
        failure.0.hint = hint_of(Code::DeadlineExceeded, failure.reason());
        failure
    }

    /// A node's refusal, in the words of its error details.
    pub(crate) fn from_status(status: &Status, endpoint: &str) -> Self {
        if has_timed_out_here(status) {
            return Self::deadline();
        }
        let details = status.get_error_details();
        let info = details.error_info();
        let exit = exit_of(status.code());
        let mut failure = Self::new(exit, status.message());
        if status.message().is_empty() {
            failure.0.message = format!("{endpoint} answered {:?}", status.code());
        }
        failure.0.code = Some(status.code());
        failure.0.reason = info.map(|info| info.reason.clone());
        failure.0.metadata = info
            .map(|info| info.metadata.clone().into_iter().collect())
            .unwrap_or_default();
        failure.0.metadata.sort();
        if info.is_none() && is_connection_trouble(status.code()) {
            let cause = root_cause(status);
            failure.0.exit = Exit::Unavailable;
            failure.0.message = format!("cannot talk to {endpoint}: {cause}");
            failure.0.hint = Some(connection_hint(&cause, endpoint));
            return failure;
        }
        let retry = details
            .retry_info()
            .and_then(|retry| retry.retry_delay)
            .map(|delay| format!("repeat the same command in {} ms", delay.as_millis()));
        failure.0.hint = retry.or_else(|| hint_of(status.code(), failure.reason()));
        failure
    }

    /// The stable reason that the node gave.
    pub(crate) fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// The node's gRPC code, if a node answered.
    pub(crate) fn code(&self) -> Option<Code> {
        self.0.code
    }

    /// What went wrong.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// What to try next.
    pub(crate) fn advice(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// The exit code.
    pub(crate) fn exit(&self) -> Exit {
        self.0.exit
    }

    /// The failure for machines.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        let inner = &self.0;
        let metadata: serde_json::Map<_, _> = inner
            .metadata
            .iter()
            .map(|(key, value)| (key.clone(), value.clone().into()))
            .collect();
        serde_json::json!({
            "exit_code": inner.exit as u8,
            "code": inner.code.map(code_name),
            "reason": inner.reason,
            "message": inner.message,
            "hint": inner.hint,
            "metadata": metadata,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        match &self.0.reason {
            Some(reason) => write!(f, " ({reason})"),
            None => Ok(()),
        }
    }
}

impl Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::failed(format!("{error:#}"))
    }
}

/// A gRPC code as the specification spells it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

fn exit_of(code: Code) -> Exit {
    match code {
        Code::InvalidArgument | Code::OutOfRange => Exit::Usage,
        Code::Unavailable | Code::ResourceExhausted => Exit::Unavailable,
        Code::NotFound => Exit::NotFound,
        Code::DeadlineExceeded => Exit::Deadline,
        _ => Exit::Failed,
    }
}

/// Whether it was this end that gave up, when the deadline that it told the node passed.
/// The transport says that it cancelled.
fn has_timed_out_here(status: &Status) -> bool {
    causes(status).any(|cause| cause.is::<tonic::TimeoutExpired>())
}

/// What led to it, the nearest first.
fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |&cause| cause.source())
}

/// In TLS 1.3 a refused client learns of it at its first call, under any of these.
fn is_connection_trouble(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown | Code::Unavailable | Code::Cancelled | Code::Internal
    )
}

fn root_cause(status: &Status) -> String {
    let root = causes(status).last();
    root.map_or_else(|| status.message().to_owned(), ToString::to_string)
}

fn connection_hint(cause: &str, endpoint: &str) -> String {
    let cause = cause.to_lowercase();
    if cause.contains("refused") && cause.contains("os error") {
        return format!(
            "is a node running at {endpoint}? `quorate dev` starts a local cluster, \
             `quorate config get-contexts` shows where this command looks"
        );
    }
    if cause.contains("expired") {
        return "a certificate has expired: look at it with `quorate certs show FILE`".into();
    }
    if ["certificate", "certified", "alert", "unknownissuer"]
        .iter()
        .any(|word| cause.contains(word))
    {
        return "check --cacert, --cert and --key: the client certificate must be issued by the \
                CA of this node's own trustee, and --cacert is the cluster CA \
                (`quorate certs show FILE`)"
            .into();
    }
    format!("check that a node of the cluster listens at {endpoint} and try again")
}

fn hint_of(code: Code, reason: Option<&str>) -> Option<String> {
    let hint = match (code, reason) {
        (Code::FailedPrecondition, Some("SECOND_CHOICE")) => {
            "look at it with `quorate status`; `quorate test-byzantine` shows what happens to a \
             trustee that does sign two"
        }
        (Code::FailedPrecondition, Some("BALLOT_CLOSED")) => {
            "look at it with `quorate status`; vote again under a new tx_id"
        }
        (Code::NotFound, _) => "list what there is with `quorate list`",
        (_, Some("BANNED")) => {
            "`quorate violations` shows why; t trustees lift a ban with `quorate unban NODE_ID`"
        }
        (_, Some("WRONG_ROLE")) => {
            "use a certificate of the role that the message names; an operator's is made with \
             `quorate certs issue --role operator` and named with `quorate config set-context \
             NAME --operator-cert FILE --operator-key FILE`"
        }
        (Code::PermissionDenied | Code::Unauthenticated, _) => {
            "use a client certificate of this node's own trustee: `quorate certs show FILE` names \
             its role, `quorate config get-contexts` the ones known here"
        }
        (Code::DeadlineExceeded, _) => {
            "follow the ballot with `quorate watch`, or repeat the same command with a longer \
             --timeout"
        }
        (Code::Unavailable | Code::ResourceExhausted, _) => {
            "repeat the same command: that is always safe"
        }
        (Code::Internal, _) => "the node's log has the details under the id in the message",
        _ => return None,
    };
    Some(hint.into())
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn a_refusal_keeps_reason_and_code() {
        let mut details = ErrorDetails::new();
        details.set_error_info(
            "SECOND_CHOICE",
            "quorate.dev",
            [("first".into(), "1".into())],
        );
        let status = Status::with_error_details(Code::FailedPrecondition, "chose 1", details);
        let failure = Failure::from_status(&status, "node:1");
        assert_eq!(failure.exit(), Exit::Failed);
        assert_eq!(failure.reason(), Some("SECOND_CHOICE"));
        assert!(failure.advice().unwrap().contains("test-byzantine"));
        let json = failure.to_json();
        assert_eq!(json["code"], "FAILED_PRECONDITION");
        assert_eq!(json["metadata"]["first"], "1");
    }

    #[test]
    fn codes_become_exit_codes() {
        for (code, exit) in [
            (Code::InvalidArgument, Exit::Usage),
            (Code::NotFound, Exit::NotFound),
            (Code::DeadlineExceeded, Exit::Deadline),
            (Code::ResourceExhausted, Exit::Unavailable),
            (Code::Unavailable, Exit::Unavailable),
            (Code::PermissionDenied, Exit::Failed),
        ] {
            let failure = Failure::from_status(&Status::new(code, "x"), "node:1");
            assert_eq!(failure.exit(), exit, "{code:?}");
        }
    }

    #[test]
    fn a_deadline_is_the_same_whoever_sees_it_pass_first() {
        let here = Status::from_error(Box::new(tonic::TimeoutExpired(())));
        let failure = Failure::from_status(&here, "node:1");
        assert_eq!(failure.exit(), Exit::Deadline, "{failure}");
        assert_eq!(failure.code(), Some(Code::DeadlineExceeded));
        assert_eq!(failure.reason(), Some("DEADLINE_EXCEEDED"));
        assert!(failure.advice().unwrap().contains("--timeout"));
    }

    #[test]
    fn a_wrong_ca_is_not_a_wrong_address() {
        let cause = "node:1 is not who it must be: it is certified by a CA that is not the one";
        assert!(connection_hint(cause, "node:1").contains("--cacert"));
    }

    #[test]
    fn every_exit_code_is_documented() {
        for exit in [
            Exit::Failed,
            Exit::Usage,
            Exit::Unavailable,
            Exit::NotFound,
            Exit::Deadline,
            Exit::Unpinned,
        ] {
            assert!(EXIT_CODES.contains(&format!("\n  {}  ", exit as u8)));
        }
    }
}

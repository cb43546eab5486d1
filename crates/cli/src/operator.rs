//! A node as its operator sees it: which nodes a command means, and one call per
//! method.

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use quorate_proto::v1::operator_service_client::OperatorServiceClient;
use quorate_wire::v1::{
    BanRequest, BanResponse, DrainRequest, DrainResponse, InfoRequest, InfoResponse, PeersRequest,
    PeersResponse, ReputationRequest, ReputationResponse, SendRequest, SendResponse,
    SetLogLevelRequest, SetLogLevelResponse, UnbanRequest, UnbanResponse, ViolationsRequest,
    ViolationsResponse,
};
use tonic::transport::Channel;

use crate::client::{channel, timed};
use crate::contexts::{Context, Contexts};
use crate::failure::{Failure, Outcome};
use crate::remote::{RemoteArgs, Target};

/// The most that one answer may have.
const MAX_ANSWER_LEN: usize = 64 * 1024 * 1024;

/// The nodes that an operator's command means.
#[derive(Clone, Debug, Args)]
pub(crate) struct OperatorArgs {
    /// Every node of the cluster whose operator certificate the contexts hold
    #[arg(long, conflicts_with = "nodes")]
    pub(crate) all: bool,

    #[command(flatten)]
    pub(crate) remote: RemoteArgs,
}

impl OperatorArgs {
    /// The nodes, each with its operator's certificate.
    ///
    /// # Errors
    /// When there is none, or one has no operator's certificate.
    pub(crate) fn targets(&self) -> Outcome<Vec<Target>> {
        if !self.all {
            return self
                .remote
                .targets()?
                .into_iter()
                .map(as_operator)
                .collect();
        }
        let contexts = Contexts::load(&Contexts::path()?)?;
        let timeout = Duration::from_secs(self.remote.timeout);
        every_operator(&contexts, timeout)
    }
}

/// All contexts with an operator's certificate, of the current context's cluster.
fn every_operator(contexts: &Contexts, timeout: Duration) -> Outcome<Vec<Target>> {
    let held = |context: &&Context| context.operator_cert.is_some();
    let current = contexts.current.as_ref();
    let current = current.and_then(|name| contexts.contexts.get(name));
    let clusters: BTreeSet<_> = contexts
        .contexts
        .values()
        .filter(held)
        .map(|context| &context.cluster_id)
        .collect();
    let cluster = match (current, clusters.len()) {
        (Some(current), _) => &current.cluster_id,
        (None, 0 | 1) => clusters.first().copied().unwrap_or(&None),
        (None, _) => {
            return Err(Failure::usage(
                "the contexts are of several clusters, and none is current",
            )
            .hint("choose one with `quorate config use-context NAME`"));
        }
    };
    let mut endpoints = BTreeSet::new();
    let targets = contexts.contexts.iter().filter(|(_, context)| {
        // Two names of one node would act twice.
        context.operator_cert.is_some()
            && context.cluster_id == *cluster
            && endpoints.insert(&context.endpoint)
    });
    let targets: Vec<_> = targets
        .map(|(name, context)| Target {
            name: name.clone(),
            context: context.clone(),
            timeout,
        })
        .collect();
    if targets.is_empty() {
        return Err(no_certificate("no context of this cluster"));
    }
    targets.into_iter().map(as_operator).collect()
}

fn no_certificate(who: &str) -> Failure {
    Failure::usage(format!("{who} has an operator's certificate")).hint(
        "make one where the trustee's own CA is, with `quorate certs issue --role operator`, and \
         name it with `quorate config set-context NAME --operator-cert FILE --operator-key FILE` \
         (`quorate dev` does both), or give --endpoint, --cacert, --cert and --key",
    )
}

/// The same node, called with its operator's certificate.
///
/// # Errors
/// When there is none.
pub(crate) fn as_operator(target: Target) -> Outcome<Target> {
    let Target {
        name,
        mut context,
        timeout,
    } = target;
    match (&context.operator_cert, &context.operator_key) {
        (Some(cert), Some(key)) => (context.cert, context.key) = (cert.clone(), key.clone()),
        _ => {
            return Err(no_certificate(&format!(
                "the context {name} is not one that"
            )));
        }
    }
    Ok(Target {
        name,
        context,
        timeout,
    })
}

/// An operator of one node.
#[derive(Clone, Debug)]
pub(crate) struct Operator {
    endpoint: String,
    timeout: Duration,
    inner: OperatorServiceClient<Channel>,
}

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident: $request:ident -> $answer:ident;)*) => {
        impl Operator {
            $(
                $(#[$doc])*
                pub(crate) async fn $name(&self, request: $request) -> Outcome<$answer> {
                    let mut inner = self.inner.clone();
                    let send = async |request| inner.$name(request).await;
                    timed(&self.endpoint, self.timeout, request, send).await
                }
            )*
        }
    };
}

methods! {
    /// What the node is, how it is, and what waits in it.
    info: InfoRequest -> InfoResponse;
    /// The other trustees' nodes.
    peers: PeersRequest -> PeersResponse;
    /// What the board says of trustees.
    reputation: ReputationRequest -> ReputationResponse;
    /// Violations, accusations and bans.
    violations: ViolationsRequest -> ViolationsResponse;
    /// Refuses and accuses a trustee.
    ban: BanRequest -> BanResponse;
    /// This node's part of lifting a ban.
    unban: UnbanRequest -> UnbanResponse;
    /// Hands a message to another node.
    send: SendRequest -> SendResponse;
    /// Changes what the process logs.
    set_log_level: SetLogLevelRequest -> SetLogLevelResponse;
    /// Has the node drained.
    drain: DrainRequest -> DrainResponse;
}

impl Operator {
    /// Reads the certificates; the connection is made by the first call.
    ///
    /// # Errors
    /// When a file cannot be read or is not what it should be.
    pub(crate) fn connect(target: &Target) -> Outcome<Self> {
        let channel = channel(&target.context)?;
        Ok(Self {
            endpoint: target.context.endpoint.clone(),
            timeout: target.timeout,
            inner: OperatorServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_LEN),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(endpoint: &str, cluster: &str, operator: bool) -> Context {
        let file = |name: &str| operator.then(|| name.into());
        Context {
            endpoint: endpoint.into(),
            cacert: "ca.crt".into(),
            cert: "client.crt".into(),
            key: "client.key".into(),
            operator_cert: file("operator.crt"),
            operator_key: file("operator.key"),
            cluster_id: Some(cluster.into()),
        }
    }

    fn contexts(current: Option<&str>) -> Contexts {
        let all = [
            ("a1", context("h:1", "a", true)),
            ("a1-again", context("h:1", "a", true)),
            ("a2", context("h:2", "a", false)),
            ("a3", context("h:3", "a", true)),
            ("b1", context("h:4", "b", true)),
        ];
        Contexts {
            current: current.map(str::to_owned),
            contexts: all.map(|(name, c)| (name.to_owned(), c)).into(),
        }
    }

    #[test]
    fn all_are_those_of_one_cluster_each_once() {
        let targets = every_operator(&contexts(Some("a2")), Duration::ZERO).unwrap();
        let names: Vec<_> = targets.iter().map(|t| &*t.name).collect();
        assert_eq!(names, ["a1", "a3"]);
        assert_eq!(
            targets[0].context.cert,
            std::path::Path::new("operator.crt")
        );
        let failure = every_operator(&contexts(None), Duration::ZERO).unwrap_err();
        assert!(failure.message().contains("several clusters"), "{failure}");
        let mut none = contexts(Some("a2"));
        none.contexts.retain(|name, _| name == "a2");
        let failure = every_operator(&none, Duration::ZERO).unwrap_err();
        assert!(failure.advice().unwrap().contains("certs issue"));
    }
}

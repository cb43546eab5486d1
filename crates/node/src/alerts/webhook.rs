//! Sends alerts to Alertmanager's API, version 2. A delivery that fails is tried again
//! with growing pauses, and given up when it is old; meanwhile others wait in the queue,
//! and what finds no room there is dropped.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Method, Request, Uri};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rand::Rng as _;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc;

use super::Raised;
use crate::metrics::Meter;

/// The path of the API.
const PATH: &str = "/api/v2/alerts";

/// Where each alert is explained.
const RUNBOOK: &str = "docs/alerts.md";

/// The most alerts in one delivery.
const TOGETHER: usize = 64;

/// How long one delivery may take.
const ANSWER: Duration = Duration::from_secs(5);

/// The first pause after a failure, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// An alert that could not be delivered for so long is dropped.
const TOO_OLD: Duration = Duration::from_secs(15 * 60);

/// Where alerts go: an Alertmanager.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook(Uri);

/// Why an address is no webhook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadWebhook {
    /// It is no address at all, or one without a host.
    #[error("must be the address of an Alertmanager, such as http://localhost:9093")]
    NoAddress,
    /// TLS is asked for.
    #[error(
        "must begin with http://: this version sends without TLS, so name an Alertmanager (or a proxy with TLS) on this machine"
    )]
    Scheme,
}

impl FromStr for Webhook {
    type Err = BadWebhook;

    /// An address, with or without the path `/api/v2/alerts`.
    fn from_str(text: &str) -> Result<Self, BadWebhook> {
        let uri: Uri = text.parse().map_err(|_| BadWebhook::NoAddress)?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(BadWebhook::Scheme),
            _ => return Err(BadWebhook::NoAddress),
        }
        let authority = uri.authority().ok_or(BadWebhook::NoAddress)?;
        let base = uri.path().trim_end_matches('/');
        let base = base.strip_suffix(PATH).unwrap_or(base);
        let whole = format!("http://{authority}{base}{PATH}");
        whole.parse().map(Self).map_err(|_| BadWebhook::NoAddress)
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Who raises the alerts.
pub(super) struct Identity {
    pub(super) cluster: String,
    pub(super) node_id: String,
}

/// Sends what comes, until the node is gone.
pub(super) async fn send(
    webhook: Webhook,
    identity: Identity,
    mut waiting: mpsc::Receiver<Raised>,
    meter: Arc<Meter>,
) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(ANSWER));
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    let mut together = Vec::with_capacity(TOGETHER);
    loop {
        together.clear();
        if waiting.recv_many(&mut together, TOGETHER).await == 0 {
            return;
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match deliver(&client, &webhook, &identity, &together).await {
                Ok(()) => {
                    for alert in &together {
                        meter.alerts_delivered.inc();
                        meter.alert_delivery_duration.took(alert.detected.elapsed());
                    }
                    break;
                }
                Err(why) => {
                    meter.alert_failures.inc();
                    if pause == FIRST_PAUSE {
                        tracing::warn!(%webhook, %why, "alerts.not_delivered: tried again");
                    }
                }
            }
            let young = |alert: &Raised| alert.detected.elapsed() < TOO_OLD;
            let before = together.len();
            together.retain(young);
            meter
                .alerts_dropped
                .inc_by((before - together.len()) as u64);
            if together.is_empty() {
                break;
            }
            let jittered = pause.mul_f64(rand::rng().random_range(0.5..=1.0));
            tokio::time::sleep(jittered).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

async fn deliver(
    client: &Client<HttpConnector, Full<Bytes>>,
    webhook: &Webhook,
    identity: &Identity,
    alerts: &[Raised],
) -> Result<(), String> {
    let body: Value = alerts.iter().map(|alert| body(identity, alert)).collect();
    let request = Request::builder()
        .method(Method::POST)
        .uri(webhook.0.clone())
        .header(CONTENT_TYPE, "application/json")
        .body(Full::from(body.to_string()))
        .map_err(|error| error.to_string())?;
    match tokio::time::timeout(ANSWER, client.request(request)).await {
        Ok(Ok(response)) if response.status().is_success() => Ok(()),
        Ok(Ok(response)) => Err(format!("it answered {}", response.status())),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {ANSWER:?}")),
    }
}

/// One alert as Alertmanager takes it.
fn body(identity: &Identity, alert: &Raised) -> Value {
    let mut labels = Map::new();
    let mut label = |name: &str, value: &str| labels.insert(name.to_owned(), value.into());
    label("alertname", alert.name.alertname());
    label("severity", alert.name.severity().as_str());
    label("cluster", &identity.cluster);
    for (name, value) in &alert.about {
        label(name, value);
    }
    let starts = OffsetDateTime::from(alert.at).format(&Rfc3339);
    let anchor = alert.name.alertname().to_ascii_lowercase();
    json!({
        "labels": labels,
        "annotations": {
            "summary": alert.detail,
            "raised_by": identity.node_id,
            "runbook": format!("{RUNBOOK}#{anchor}"),
        },
        // A time after 1970 can be written.
        "startsAt": starts.unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::super::Name;
    use super::*;

    #[test]
    fn addresses_are_taken_with_and_without_path() {
        for (text, expected) in [
            (
                "http://localhost:9093",
                "http://localhost:9093/api/v2/alerts",
            ),
            ("http://a:1/", "http://a:1/api/v2/alerts"),
            ("http://a:1/am/", "http://a:1/am/api/v2/alerts"),
            ("http://a/api/v2/alerts", "http://a/api/v2/alerts"),
        ] {
            let webhook: Webhook = text.parse().unwrap();
            assert_eq!(webhook.to_string(), expected);
        }
        for bad in ["", "localhost:9093", "ftp://a", "/api", "http://"] {
            let refused = bad.parse::<Webhook>().unwrap_err();
            assert_eq!(refused, BadWebhook::NoAddress, "{bad}");
        }
        let refused = "https://a:1".parse::<Webhook>().unwrap_err();
        assert!(refused.to_string().contains("without TLS"));
    }

    #[test]
    fn an_alert_says_what_whom_and_where_to_read_on() {
        let identity = Identity {
            cluster: "c".into(),
            node_id: "node1".into(),
        };
        let alert = Raised {
            name: Name::TransactionAborted,
            about: vec![("tx_id", "tx_1".into())],
            detail: "somebody lied".into(),
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
            detected: Instant::now(),
        };
        let body = body(&identity, &alert);
        assert_eq!(
            body["labels"],
            json!({
                "alertname": "QuorateTransactionAborted", "severity": "critical",
                "cluster": "c", "tx_id": "tx_1",
            })
        );
        assert_eq!(body["startsAt"], "1970-01-01T00:00:01.5Z");
        let runbook = "docs/alerts.md#quoratetransactionaborted";
        assert_eq!(body["annotations"]["runbook"], runbook);
    }
}

//! Running nodes, each asked by its operator: how it is, and whether all of them agree
//! on version, rules and time.

use std::time::Instant;

use quorate_wire::v1::{InfoRequest, InfoResponse, PeerNode, PeersRequest};

use super::{Findings, Level, expiry};
use crate::failure::{Failure, Outcome};
use crate::operator::Operator;
use crate::output::{clock_ms, short_hex};
use crate::remote::Target;

/// Clocks that are further apart than this are worth a look, in milliseconds.
const CLOCKS_WARN_MS: i64 = 1_000;

/// And so far that votes are refused soon: half the skew that rules allow unless told
/// otherwise, in milliseconds.
const CLOCKS_BAD_MS: i64 = 15_000;

/// Entries that the record may lack.
const AUDIT_LAG: u64 = 1_000;

/// One node's answers.
pub(crate) struct Seen {
    name: String,
    pinned: Option<String>,
    info: InfoResponse,
    peers: Vec<PeerNode>,
    /// Its clock less this machine's, in milliseconds.
    off_ms: i64,
}

/// Asks each node and looks at the answers.
pub(crate) async fn examine(targets: Vec<Target>, findings: &mut Findings) {
    for target in &targets {
        super::machine::secret(&target.context.key, findings);
    }
    let asked = targets.iter().map(ask);
    let answers = futures_util::future::join_all(asked).await;
    let mut seen = Vec::new();
    for (target, answer) in targets.iter().zip(answers) {
        match answer {
            Ok(answer) => seen.push(answer),
            Err(failure) => unreachable_node(&target.name, &failure, findings),
        }
    }
    for node in &seen {
        one(node, findings);
    }
    together(&seen, findings);
}

fn unreachable_node(name: &str, failure: &Failure, findings: &mut Findings) {
    let advice = failure.advice().unwrap_or("look at its log");
    findings.bad("node", (name, failure), advice);
}

async fn ask(target: &Target) -> Outcome<Seen> {
    let node = Operator::connect(target)?;
    // The first call connects; the second tells the time.
    let peers = node.peers(PeersRequest {}).await?.peers;
    let (began, wall_ms) = (Instant::now(), clock_ms());
    let info = node.info(InfoRequest {}).await?;
    let half_ms = u64::try_from(began.elapsed().as_millis() / 2).unwrap_or(0);
    let here = wall_ms + half_ms;
    let off = i128::from(info.server_time_ms) - i128::from(here);
    Ok(Seen {
        name: target.name.clone(),
        pinned: target.context.cluster_id.clone(),
        info,
        peers,
        off_ms: i64::try_from(off).unwrap_or(i64::MAX),
    })
}

fn one(node: &Seen, findings: &mut Findings) {
    let (name, info) = (&node.name, &node.info);
    if !info.signing_stopped.is_empty() {
        let advice = "a quarantine ends by itself; for everything else see docs/operations.md";
        findings.bad("signing", (name, &info.signing_stopped), advice);
    }
    for cause in &info.causes {
        let found = format!("{}: {}", cause.cause, cause.detail);
        let level = match cause.cause.as_str() {
            "board_quota" | "certificate_expiring" | "crl_expiring" => Level::Warn,
            _ => Level::Bad,
        };
        findings.add(level, "ready", (name, found), &cause.advice);
    }
    match (info.in_service, info.ready) {
        (true, true) => findings.good("ready", name, "in service and ready"),
        (false, _) if info.causes.is_empty() => {
            let advice = "it reads the board or waits for it: wait, and look at its log";
            findings.bad("ready", (name, "not in service"), advice);
        }
        _ => {}
    }
    expiry(findings, name, info.certificate_not_after_ms, clock_ms());
    let cluster_id = hex::encode(&info.cluster_id);
    if let Some(pinned) = node.pinned.as_ref().filter(|pinned| **pinned != cluster_id) {
        let found = format!("is of cluster {cluster_id}, and the context says {pinned}");
        let advice = "this is another cluster of the same name, or the context is old: compare \
                      the ids with the other trustees";
        findings.bad("cluster", (name, found), advice);
    }
    for peer in &node.peers {
        let (word, _) = crate::commands::peers::stream_word(peer);
        let advice = match (peer.banned, peer.refused, peer.connected) {
            (_, false, true) => continue,
            (true, ..) => {
                "nothing, if the ban is right: `quorate violations` shows why; it ends when t \
                 trustees say `quorate unban`"
            }
            (_, true, _) => {
                "settle it with the other operators: `quorate violations` shows this node's \
                 accusation, and it ends only with a ban by t that t lift"
            }
            _ => {
                "see that it runs, that the two reach each other, and what `quorate doctor \
                  --config FILE` says on its machine"
            }
        };
        let found = format!("its stream to {} is: {word}", peer.node_id);
        findings.warn("streams", (name, found), advice);
    }
    let lag = info.queues.map_or(0, |queues| queues.audit_lag);
    if lag > AUDIT_LAG {
        let found = format!("the audit record lacks {lag} revisions of the board");
        let advice = "look at the audit store: submissions wait for it";
        findings.warn("audit", (name, found), advice);
    }
}

/// Holds the nodes against each other.
fn together(seen: &[Seen], findings: &mut Findings) {
    clocks(seen, findings);
    let of = |say: fn(&InfoResponse) -> String| -> Vec<(String, String)> {
        let said = seen.iter().map(|node| (node.name.clone(), say(&node.info)));
        said.collect()
    };
    alike(
        &of(|info| short_hex(&info.cluster_id)),
        ("cluster", Level::Bad),
        "nodes of two clusters never accept each other's votes: compare the ids",
        findings,
    );
    let digest = |info: &InfoResponse| {
        let rules = info.rules.clone().unwrap_or_default();
        format!("epoch {}, {}", rules.epoch, short_hex(&rules.digest))
    };
    alike(
        &of(digest),
        ("rules", Level::Bad),
        "votes count under one rules document only: give all nodes the same one",
        findings,
    );
    alike(
        &of(|info| info.version.clone()),
        ("version", Level::Warn),
        "two versions run together, one step apart: finish the upgrade",
        findings,
    );
}

fn clocks(seen: &[Seen], findings: &mut Findings) {
    let mut offs: Vec<_> = seen.iter().map(|node| node.off_ms).collect();
    offs.sort_unstable();
    // The middle one: a single wrong clock, this machine's too, accuses nobody else.
    let Some(middle) = offs.get(offs.len() / 2).copied() else {
        return;
    };
    for node in seen {
        let off = node.off_ms - middle;
        let found = format!("{off} ms off the middle of the nodes' clocks");
        let level = match off.abs() {
            CLOCKS_BAD_MS.. => Level::Bad,
            CLOCKS_WARN_MS.. => Level::Warn,
            _ => Level::Good,
        };
        let advice = match level {
            Level::Good => "",
            _ => {
                "let it set its clock by NTP: a vote that is off by more than the rules' skew is refused"
            }
        };
        findings.add(level, "clock", (&node.name, found), advice);
    }
    if middle.abs() >= CLOCKS_WARN_MS {
        let found = format!("{} ms off the nodes' clocks", -middle);
        let advice = "set it by NTP, above all if votes are signed here";
        findings.warn("clock", ("this machine", found), advice);
    }
}

/// All say the same, or those who differ from most are named.
fn alike(
    said: &[(String, String)],
    (check, level): (&'static str, Level),
    advice: &str,
    findings: &mut Findings,
) {
    let count = |text: &String| said.iter().filter(|(_, other)| other == text).count();
    let Some((_, most)) = said.iter().max_by_key(|(_, text)| count(text)) else {
        return;
    };
    let mut others = said.iter().filter(|(_, text)| text != most).peekable();
    if others.peek().is_none() {
        findings.good(check, format!("{} nodes", said.len()), most);
    }
    for (name, text) in others {
        let found = format!("{text}, where most have {most}");
        findings.add(level, check, (name, found), advice);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(name: &str, off_ms: i64) -> Seen {
        Seen {
            name: name.into(),
            pinned: None,
            info: InfoResponse::default(),
            peers: Vec::new(),
            off_ms,
        }
    }

    fn levels(findings: &Findings, check: &str) -> Vec<(String, Level)> {
        let of_check = findings.0.iter().filter(|f| f.check == check);
        of_check.map(|f| (f.subject.clone(), f.level)).collect()
    }

    #[test]
    fn a_clock_is_held_against_the_middle_one() {
        let nodes = [
            seen("a", 2),
            seen("b", -3),
            seen("c", 2_000),
            seen("d", 40_000),
            seen("e", 1),
        ];
        let mut findings = Findings::default();
        clocks(&nodes, &mut findings);
        let expected = [
            ("a", Level::Good),
            ("b", Level::Good),
            ("c", Level::Warn),
            ("d", Level::Bad),
            ("e", Level::Good),
        ];
        assert_eq!(
            levels(&findings, "clock"),
            expected.map(|(name, level)| (name.to_owned(), level))
        );
        // This machine's own clock, and nobody else's.
        let mut findings = Findings::default();
        clocks(&[seen("a", -5_000), seen("b", -5_010)], &mut findings);
        let found = levels(&findings, "clock");
        assert_eq!(
            found.last(),
            Some(&("this machine".to_owned(), Level::Warn))
        );
        assert_eq!(findings.count(Level::Warn), 1);
    }

    #[test]
    fn who_differs_from_most_is_named() {
        let said = |versions: &[&str]| -> Vec<_> {
            let named = versions.iter().enumerate();
            named
                .map(|(i, v)| (format!("node{i}"), (*v).to_owned()))
                .collect()
        };
        let mut findings = Findings::default();
        alike(
            &said(&["1", "1", "2"]),
            ("version", Level::Warn),
            "x",
            &mut findings,
        );
        assert_eq!(
            levels(&findings, "version"),
            [("node2".to_owned(), Level::Warn)]
        );
        let mut findings = Findings::default();
        alike(
            &said(&["1", "1"]),
            ("version", Level::Warn),
            "x",
            &mut findings,
        );
        assert_eq!(
            levels(&findings, "version"),
            [("2 nodes".to_owned(), Level::Good)]
        );
    }

    #[test]
    fn what_a_node_says_of_itself_becomes_a_finding() {
        let mut node = seen("a", 0);
        node.pinned = Some("00".repeat(32));
        node.info.signing_stopped = "STORE_ROLLBACK: it ends at 3".into();
        node.info.queues = Some(quorate_wire::v1::Queues {
            audit_lag: AUDIT_LAG + 1,
            ..Default::default()
        });
        node.peers = vec![PeerNode {
            node_id: "b".into(),
            ..PeerNode::default()
        }];
        let mut findings = Findings::default();
        one(&node, &mut findings);
        for (check, level) in [
            ("signing", Level::Bad),
            ("cluster", Level::Bad),
            ("streams", Level::Warn),
            ("audit", Level::Warn),
        ] {
            assert_eq!(
                levels(&findings, check),
                [("a".to_owned(), level)],
                "{check}"
            );
        }
        let silent = findings
            .0
            .iter()
            .find(|f| f.level != Level::Good && f.advice.is_empty());
        assert_eq!(silent, None);
    }
}

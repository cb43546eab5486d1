//! A cluster of five processes, driven from outside: by the command line and by a
//! plain gRPC client with the certificates that `quorate dev` made. One node is killed
//! in the middle of a ballot.

mod common;

use std::time::Duration;

use quorate_proto::v1::vote_service_client::VoteServiceClient;
use quorate_tls::{ClientPaths, ClientTls, DialOptions, ExpectedPeer};
use quorate_wire::v1::{
    Ballot, BallotState, GetRulesRequest, ListRequest, Standing, StatusRequest, SubmitRequest,
    SubmitResponse, WaitFor, submit_request::Vote,
};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Status};

use common::{Dev, Home, PATIENCE, is_alive, signal, until, until_gone, until_status};

const NODES: [&str; 5] = ["node1", "node2", "node3", "node4", "node5"];

/// A client in another program: it knows the ready file only.
fn client(node: &Value) -> VoteServiceClient<Channel> {
    let path = |name: &str| node[name].as_str().expect("a path").into();
    let tls = ClientTls::load(&ClientPaths {
        ca_cert: path("cacert"),
        cert: path("cert"),
        key: path("key"),
    })
    .expect("certificates");
    let endpoint = node["endpoint"].as_str().expect("an endpoint");
    let channel = quorate_tls::connect(&tls, endpoint, ExpectedPeer::any(), DialOptions::default());
    VoteServiceClient::new(channel.expect("an address"))
}

async fn submit(
    dev: &Dev,
    number: usize,
    tx_id: &str,
    value: u64,
    wait: WaitFor,
) -> Result<SubmitResponse, Status> {
    let request = SubmitRequest {
        tx_id: tx_id.into(),
        vote: Some(Vote::Number(value)),
        wait: wait.into(),
    };
    let mut request = tonic::Request::new(request);
    request.set_timeout(PATIENCE);
    let answer = client(&dev.node(number)).submit(request).await;
    answer.map(tonic::Response::into_inner)
}

async fn status(dev: &Dev, number: usize, tx_id: &str) -> Result<Ballot, Status> {
    let request = StatusRequest {
        tx_id: tx_id.into(),
    };
    let answer = client(&dev.node(number)).status(request).await?;
    Ok(answer.into_inner().ballot.expect("a ballot"))
}

/// Looks at a ballot through a node, which may be away, until it is as wanted.
async fn until_ballot(
    dev: &Dev,
    number: usize,
    tx_id: &str,
    is_so: impl Fn(&Ballot) -> bool,
) -> Ballot {
    let mut seen = String::new();
    let looked = tokio::time::timeout(PATIENCE, async {
        loop {
            match status(dev, number, tx_id).await {
                Ok(ballot) if is_so(&ballot) => return ballot,
                other => seen = format!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    match looked.await {
        Ok(ballot) => ballot,
        Err(_) => panic!("node{number} never saw {tx_id} as it should be: {seen}"),
    }
}

/// Waits until all nodes tell the same of a confirmed ballot, and gives that: what comes
/// onto the board after its end, as the return of a lease, reaches each in its own time.
async fn agreed(dev: &Dev, tx_id: &str) -> Ballot {
    let mut told = Vec::new();
    let all_alike = tokio::time::timeout(PATIENCE, async {
        loop {
            told.clear();
            for number in 1..=5 {
                let confirmed = |ballot: &Ballot| ballot.state() == BallotState::Confirmed;
                let mut ballot = until_ballot(dev, number, tx_id, confirmed).await;
                // How often it sent the transaction is each node's own knowledge.
                let submission = ballot.submission.as_mut().expect("a submission");
                submission.attempts = 0;
                told.push(ballot);
            }
            if told.iter().all(|ballot| *ballot == told[0]) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let in_time = all_alike.await;
    assert!(in_time.is_ok(), "the nodes do not agree: {told:#?}");
    told.swap_remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_killed_in_the_middle_of_a_ballot_comes_back_and_agrees() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--processes"]);
    let cluster_id = dev.ready()["cluster_id"]
        .as_str()
        .expect("an id")
        .to_owned();

    // The command line finds the cluster without flags, and each node by its name.
    let voted = home
        .run(&["vote", "--tx-id", "tx_001", "--value", "42", "--json"])
        .expect(0)
        .json();
    assert_eq!(voted["votes"][0]["node"], "node1");
    assert_eq!(voted["votes"][0]["repeated"], false);
    home.run(&["vote", "tx_001", "--value", "42", "--node", "node2"])
        .expect(0);
    for node in NODES {
        let seen = until_status(&home, node, "tx_001", |ballot| {
            ballot["tally"][0]["count"] == 2
        });
        assert_eq!(seen["state"], "COLLECTING");
        assert_eq!(seen["votes_missing"], 2);
    }

    // Waiting alone is in vain, and says so.
    let waiting = [
        "vote",
        "tx_001",
        "--value",
        "42",
        "--wait",
        "decided",
        "--timeout",
        "5",
    ];
    home.run(&waiting).expect(5);

    // Killed in the middle, with its vote on the board.
    let killed = dev.pid(2);
    signal(killed, "KILL");
    until_gone(killed);

    // The others go on meanwhile, by another client.
    let third = submit(&dev, 3, "tx_001", 42, WaitFor::Recorded)
        .await
        .expect("recorded");
    assert!(!third.repeated);
    let fourth = submit(&dev, 4, "tx_001", 42, WaitFor::Confirmed)
        .await
        .expect("confirmed");
    let decided = fourth.ballot.expect("a ballot");
    assert_eq!(decided.state(), BallotState::Confirmed);

    // It comes back as another process, and agrees with all others.
    until("another process", || (dev.pid(2) != killed).then_some(()));
    let reference = agreed(&dev, "tx_001").await;
    for (trustee, node) in reference.trustees.iter().zip(NODES) {
        let expected = match node {
            "node5" => Standing::Missing,
            _ => Standing::Agreed,
        };
        assert_eq!((&*trustee.node_id, trustee.standing()), (node, expected));
    }

    // It votes again: the first value has no effect, another is refused, for its sign
    // guard has outlived it. (It tells of ballots before it takes votes.)
    until("node2 to be in service", || {
        let info = home.run(&["info", "--node", "node2", "--json"]);
        let info = (info.code == 0).then(|| info.json())?;
        (info["nodes"][0]["answer"]["in_service"] == true).then_some(())
    });
    let again = submit(&dev, 2, "tx_001", 42, WaitFor::Recorded).await;
    assert!(again.is_ok_and(|answer| answer.repeated));
    let other = submit(&dev, 2, "tx_001", 43, WaitFor::Recorded).await;
    assert_eq!(
        other.map_err(|status| status.code()).err(),
        Some(Code::FailedPrecondition)
    );

    // And it takes part in the next ballot.
    for number in [5, 2, 3] {
        let vote = submit(&dev, number, "tx_002", 7, WaitFor::Recorded).await;
        vote.expect("recorded");
    }
    let last = submit(&dev, 1, "tx_002", 7, WaitFor::Confirmed).await;
    let ballot = last.expect("confirmed").ballot.expect("a ballot");
    assert_eq!(ballot.state(), BallotState::Confirmed);
    let submission = ballot.submission.expect("a submission");
    assert_eq!(submission.reservation.expect("a reservation").nonce, 1);

    // Nobody starts it a second time, nor changes its files meanwhile.
    let config = dev.node(1)["config"].as_str().expect("a path").to_owned();
    let before = std::fs::read(&config).expect("a file");
    let second = ["dev", "--data-dir", "cluster", "--base-port", "0"];
    let refused = home.run(&second).expect(1);
    assert!(
        refused.stderr.contains("running already"),
        "{}",
        refused.stderr
    );
    assert_eq!(std::fs::read(&config).expect("a file"), before);

    prove(&home, &cluster_id);
    ask_by_grpc(&dev, &cluster_id).await;

    // Drained on SIGTERM, with nothing left running.
    let pids: Vec<_> = (1..=5).map(|number| dev.pid(number)).collect();
    assert_eq!(dev.terminate(), 0);
    assert!(pids.iter().all(|pid| !is_alive(*pid)), "a node still runs");

    // Rules do not change by a flag.
    let other = [
        "dev",
        "--data-dir",
        "cluster",
        "--base-port",
        "0",
        "--threshold",
        "3",
    ];
    let refused = home.run(&other).expect(2);
    assert!(
        refused.stderr.contains("--threshold 4"),
        "{}",
        refused.stderr
    );

    // The same data: the same cluster, and everything in it.
    let dev = Dev::start(&home, &[]);
    assert_eq!(dev.ready()["cluster_id"], cluster_id);
    let ballot = until_ballot(&dev, 5, "tx_001", |ballot| {
        ballot.state() == BallotState::Confirmed
    })
    .await;
    assert_eq!(ballot.trustees, reference.trustees);
    assert_eq!(dev.terminate(), 0);
}

/// Certificate, verification offline, watch and list by the command line.
fn prove(home: &Home, cluster_id: &str) {
    until("the certificate", || {
        let run = home.run(&[
            "certificate",
            "tx_001",
            "-o",
            "tx_001.proof",
            "--node",
            "node3",
        ]);
        (run.code == 0).then_some(())
    });
    let proof = ["verify", "tx_001.proof", "--json", "--cluster-id"];
    let verified = home
        .run(&[&proof[..], &[cluster_id]].concat())
        .expect(0)
        .json();
    assert_eq!(verified["kind"], "certificate");
    assert_eq!(verified["fact"]["value"]["number"], 42);
    assert_eq!(verified["fact"]["voters"].as_array().map(Vec::len), Some(4));
    // Of another cluster, of none in particular, and one bit later.
    home.run(&[&proof[..], &["00".repeat(32).as_str()]].concat())
        .expect(1);
    let unpinned = home.run(&["verify", "tx_001.proof"]).expect(6);
    assert!(unpinned.stderr.contains("NO CLUSTER ID WAS GIVEN"));
    let path = home.path().join("tx_001.proof");
    let mut bytes = std::fs::read(&path).expect("a proof");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("a file");
    home.run(&[&proof[..], &[cluster_id]].concat()).expect(1);

    let watched = home
        .run(&[
            "watch",
            "tx_001",
            "--until-final",
            "--json",
            "--node",
            "node2",
        ])
        .expect(0);
    let states: Vec<Value> = watched
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an event a line"))
        .filter_map(|event| Some(event.get("state_changed")?["to"].clone()))
        .collect();
    let path = ["COLLECTING", "THRESHOLD_REACHED", "SUBMITTED", "CONFIRMED"];
    assert_eq!(states, path);

    let listed = home
        .run(&["list", "--state", "confirmed", "--limit", "1", "--json"])
        .expect(0)
        .json();
    assert_eq!(listed["ballots"][0]["tx_id"], "tx_002");
    let token = listed["next_page_token"].as_str().expect("a token");
    let next = home
        .run(&["list", "--limit", "1", "--page-token", token, "--json"])
        .expect(0)
        .json();
    assert_eq!(next["ballots"][0]["tx_id"], "tx_001");
}

/// The rest of the service, on every node.
async fn ask_by_grpc(dev: &Dev, cluster_id: &str) {
    for (number, node) in (1..).zip(NODES) {
        let mut client = client(&dev.node(number));
        let rules = client.get_rules(GetRulesRequest {}).await;
        let rules = rules.expect("rules").into_inner();
        assert_eq!(rules.node_id, node);
        assert_eq!(
            rules.summary.map(|s| (s.threshold, s.total_nodes)),
            Some((4, 5))
        );
        let hex: String = rules
            .cluster_id
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, cluster_id);
        // The last answer came from another node.
        until_ballot(dev, number, "tx_002", |_| true).await;
        let list = client.list(ListRequest::default()).await;
        let ids: Vec<_> = list
            .expect("a list")
            .into_inner()
            .ballots
            .into_iter()
            .map(|ballot| ballot.tx_id)
            .collect();
        assert_eq!(ids, ["tx_002", "tx_001"], "{node}");
    }
}

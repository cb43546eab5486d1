//! Who is refused by a node, each with its reason, and beside them who is accepted.

mod common;

use std::sync::Arc;

use common::blunt::Blunt;
use common::*;
use quorate_tls::identity::PersonRole;
use quorate_tls::pki::PersonFiles;
use quorate_tls::{ClientTls, DialOptions, ExpectedPeer, ListenerOptions, Role, connect};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Knocks with this certificate; gives the node's reason.
async fn refusal(world: &World, node: &mut Node, shows: &PersonFiles) -> (&'static str, String) {
    Blunt::new(world, Some(shows)).knock(node).await;
    let refusal = node.refusal().await;
    assert!(node.registry.is_empty(), "nobody is in");
    refusal
}

#[tokio::test]
async fn nodes_clients_and_operators_with_the_right_issuer_are_accepted() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let alice = world.issue("node1", PersonRole::Client, "alice");
    let olga = world.issue("node1", PersonRole::Operator, "olga");
    let cases = [
        (world.material("node2").client(), Role::Node),
        (world.person(&alice), Role::Client),
        (world.person(&olga), Role::Operator),
    ];
    for (tls, role) in cases {
        let addr = node1.dial_addr();
        let channel = connect(&tls, &addr, ExpectedPeer::any(), DialOptions::default()).unwrap();
        check(&channel).await.unwrap();
        let caller = node1.caller().await;
        assert_eq!(caller.identity, tls.own().identity);
        assert_eq!(caller.identity.role, role);
        assert_eq!(caller.certificate_digest, tls.own().digest);
        assert_eq!(caller.serial, tls.own().serial);
        assert_eq!(caller.local_certificate_digest, node1.material.own().digest);
    }
    assert_eq!(node1.counters.accepted(), 3);
    assert!(node1.counters.refused().is_empty());
}

#[tokio::test]
async fn no_certificate() {
    let world = World::new(&["node1"]);
    let mut node1 = Node::start(world.material("node1")).await;
    Blunt::new(&world, None).knock(&node1).await;
    let (label, text) = node1.refusal().await;
    assert_eq!(label, "no_certificate");
    assert_eq!(text, "the client showed no certificate");
    assert_eq!(node1.counters.refused().get("no_certificate"), Some(&1));
}

#[tokio::test]
async fn another_ca_of_the_same_name() {
    let (world, twin) = (World::new(&["node1"]), World::new(&["node1", "node2"]));
    let mut node1 = Node::start(world.material("node1")).await;
    let files = twin.files("node2");
    let node2 = PersonFiles {
        cert: files.cert,
        key: files.key,
    };
    let (label, text) = refusal(&world, &mut node1, &node2).await;
    assert_eq!(label, "issuer");
    assert!(text.contains("a CA that this node does not know"), "{text}");

    let alice = twin.issue("node1", PersonRole::Client, "alice");
    let (label, text) = refusal(&world, &mut node1, &alice).await;
    assert_eq!(label, "issuer");
    assert!(text.contains("its trustee's own CA only"), "{text}");
}

#[tokio::test]
async fn expired_and_not_yet_valid() {
    let world = World::new(&["node1"]);
    let mut node1 = Node::start(world.material("node1")).await;
    for (ca, uri) in [
        (world.ca(), "spiffe://demo/node/node2"),
        (
            world.clients_ca("node1"),
            "spiffe://demo/client/node1/alice",
        ),
    ] {
        let late = world.forge(&ca, Odd::uris(&[uri]).valid(past()));
        let (label, text) = refusal(&world, &mut node1, &late).await;
        assert_eq!(label, "expired");
        assert!(text.contains("expired"), "{text}");

        let early = world.forge(&ca, Odd::uris(&[uri]).valid(future()));
        let (label, text) = refusal(&world, &mut node1, &early).await;
        assert_eq!(label, "certificate");
        assert!(text.contains("not valid yet"), "{text}");
    }
}

#[tokio::test]
async fn a_client_or_operator_certified_by_the_cluster_ca() {
    let world = World::new(&["node1"]);
    let mut node1 = Node::start(world.material("node1")).await;
    for uri in [
        "spiffe://demo/client/node1/alice",
        "spiffe://demo/operator/node1/olga",
    ] {
        let forged = world.forge(&world.ca(), Odd::uris(&[uri]));
        let (label, text) = refusal(&world, &mut node1, &forged).await;
        assert_eq!(label, "issuer");
        assert!(text.contains("is certified by the cluster CA;"), "{text}");
    }
    // The same name by the right CA is welcome.
    let right = world.issue("node1", PersonRole::Client, "alice");
    let addr = node1.dial_addr();
    let tls = world.person(&right);
    let channel = connect(&tls, &addr, ExpectedPeer::any(), DialOptions::default()).unwrap();
    check(&channel).await.unwrap();
}

#[tokio::test]
async fn a_node_certified_by_a_trustee() {
    let world = World::new(&["node1"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let ca = world.clients_ca("node1");
    let forged = world.forge(&ca, Odd::uris(&["spiffe://demo/node/node2"]));
    let (label, text) = refusal(&world, &mut node1, &forged).await;
    assert_eq!(label, "issuer");
    assert!(
        text.contains("is certified by the trustee's own CA;"),
        "{text}"
    );
    assert!(
        text.ends_with("a node is certified by the cluster CA only"),
        "{text}"
    );
}

#[tokio::test]
async fn a_client_of_another_node() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let bob = world.issue("node2", PersonRole::Client, "bob");
    let (label, text) = refusal(&world, &mut node1, &bob).await;
    assert_eq!(label, "other_node");
    assert!(text.contains("only its own node takes it"), "{text}");

    // Another trustee's CA cannot make a client of this node.
    let ca = world.clients_ca("node2");
    let forged = world.forge(&ca, Odd::uris(&["spiffe://demo/client/node1/bob"]));
    let (label, _) = refusal(&world, &mut node1, &forged).await;
    assert_eq!(label, "issuer");

    // Nor does the right CA open the door to somebody else's client.
    let ca = world.clients_ca("node1");
    let forged = world.forge(&ca, Odd::uris(&["spiffe://demo/client/node2/bob"]));
    let (label, _) = refusal(&world, &mut node1, &forged).await;
    assert_eq!(label, "other_node");
}

#[tokio::test]
async fn a_node_without_a_clients_ca_takes_nodes_only() {
    let world = World::new(&["node1", "node2"]);
    let mut paths = world.paths("node1");
    paths.clients_ca = None;
    let mut node1 = Node::start(quorate_tls::TlsMaterial::load(paths).unwrap()).await;
    let alice = world.issue("node1", PersonRole::Client, "alice");
    let (label, text) = refusal(&world, &mut node1, &alice).await;
    assert_eq!(label, "identity");
    assert!(text.contains("no CA for clients"), "{text}");
    let tls = world.material("node2").client();
    let addr = node1.dial_addr();
    let channel = connect(&tls, &addr, ExpectedPeer::any(), DialOptions::default()).unwrap();
    check(&channel).await.unwrap();
}

#[tokio::test]
async fn no_uri_two_uris_foreign_uris_and_foreign_clusters() {
    let world = World::new(&["node1"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let node2 = "spiffe://demo/node/node2";
    let cases: [(&[&str], &str, &str); 5] = [
        (&[], "identity", "it has no URI name"),
        (
            &[node2, "spiffe://demo/node/node3"],
            "identity",
            "has 2 URI names",
        ),
        (
            &[node2, "https://example.com/"],
            "identity",
            "has 2 URI names",
        ),
        (&["https://example.com/node2"], "identity", "is no identity"),
        (
            &["spiffe://prod/node/node2"],
            "other_cluster",
            "is of another cluster, not of demo",
        ),
    ];
    for (uris, label, part) in cases {
        let odd = Odd::uris(uris).and_dns("node2");
        let forged = world.forge(&world.ca(), odd);
        let (found, text) = refusal(&world, &mut node1, &forged).await;
        assert_eq!(found, label, "{text}");
        assert!(text.contains(part), "{text}");
    }
    let fine = world.forge(&world.ca(), Odd::uris(&[node2]).and_dns("node2"));
    let tls = world.person(&fine);
    let addr = node1.dial_addr();
    let channel = connect(&tls, &addr, ExpectedPeer::any(), DialOptions::default()).unwrap();
    check(&channel).await.unwrap();
}

#[tokio::test]
async fn a_certificate_for_servers_only() {
    let world = World::new(&["node1"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let odd =
        Odd::uris(&["spiffe://demo/node/node2"]).usages(vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let forged = world.forge(&world.ca(), odd);
    let (label, _) = refusal(&world, &mut node1, &forged).await;
    assert_eq!(label, "certificate");
}

#[tokio::test]
async fn plaintext_and_noise() {
    let world = World::new(&["node1"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let words: [&[u8]; 3] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0xff; 300],
    ];
    for word in words {
        let mut tcp = TcpStream::connect(node1.addr).await.unwrap();
        tcp.write_all(word).await.unwrap();
        let (label, text) = node1.refusal().await;
        assert_eq!(label, "plaintext", "{text}");
    }
    drop(TcpStream::connect(node1.addr).await.unwrap());
    assert_eq!(node1.refusal().await.0, "broken");

    let plain = tonic::transport::Endpoint::from_shared(format!("http://{}", node1.addr));
    let status = check(&plain.unwrap().connect_lazy()).await.unwrap_err();
    assert_eq!(node1.refusal().await.0, "plaintext", "{status}");
}

#[tokio::test]
async fn tls_1_2() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let files = world.files("node2");
    let addr = node1.dial_addr();
    let run = |version: &'static str| {
        let mut command = tokio::process::Command::new("openssl");
        command
            .args([
                "s_client",
                version,
                "-alpn",
                "h2",
                "-verify_return_error",
                "-connect",
            ])
            .arg(&addr)
            .arg("-CAfile")
            .arg(world.ca().0)
            .arg("-cert")
            .arg(&files.cert)
            .arg("-key")
            .arg(&files.key)
            .stdin(std::process::Stdio::null());
        async move {
            let out = command.output().await;
            let out = out.expect("this test needs the program openssl: install it");
            String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned()
        }
    };
    let old = run("-tls1_2").await;
    assert!(old.contains("alert protocol version"), "{old}");
    let (label, text) = node1.refusal().await;
    assert_eq!(label, "old_tls");
    assert_eq!(text, "the client does not offer TLS 1.3");

    let new = run("-tls1_3").await;
    assert!(new.contains("Verify return code: 0 (ok)"), "{new}");
    // The node sees the end of the handshake after the client.
    let accepted = async {
        while node1.counters.accepted() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(GUARD, accepted).await.expect("it is");
    assert_eq!(node1.counters.accepted(), 1);
}

#[tokio::test]
async fn without_http_2() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let alice = world.issue("node1", PersonRole::Client, "alice");
    for alpn in [&[][..], &[b"http/1.1".as_slice()]] {
        let mut client = Blunt::new(&world, Some(&alice));
        client.alpn = alpn;
        client.knock(&node1).await;
        assert_eq!(node1.refusal().await.0, "no_h2");
    }
}

#[tokio::test]
async fn key_exchange_is_post_quantum_where_both_can_and_never_weaker_than_x25519() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let tls = world.material("node2").client();
    let addr = node1.dial_addr();
    let channel = connect(&tls, &addr, ExpectedPeer::any(), DialOptions::default()).unwrap();
    check(&channel).await.unwrap();
    assert_eq!(node1.caller().await.key_exchange, "X25519MLKEM768");

    let alice = world.issue("node1", PersonRole::Client, "alice");
    let mut client = Blunt::new(&world, Some(&alice));
    client.groups = vec![aws_lc_rs::kx_group::X25519];
    let tcp = TcpStream::connect(node1.addr).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(Arc::new(client.config()))
        .connect(name, tcp)
        .await
        .unwrap();
    let group = stream.get_ref().1.negotiated_key_exchange_group().unwrap();
    assert_eq!(format!("{:?}", group.name()), "X25519");

    client.groups = vec![aws_lc_rs::kx_group::SECP256R1];
    client.knock(&node1).await;
    assert_eq!(node1.refusal().await.0, "protocol");
}

#[tokio::test]
async fn one_identity_may_not_take_all_connections() {
    let world = World::new(&["node1", "node2"]);
    let options = ListenerOptions {
        max_per_identity: 1,
        ..ListenerOptions::default()
    };
    let mut node1 = Node::start_with(world.material("node1"), options).await;
    let alice = world.issue("node1", PersonRole::Client, "alice");
    let addr = node1.dial_addr();
    let open = |tls: Arc<ClientTls>| {
        connect(&tls, &addr, ExpectedPeer::any(), DialOptions::default()).unwrap()
    };
    let first = open(world.person(&alice));
    check(&first).await.unwrap();
    Blunt::new(&world, Some(&alice)).knock(&node1).await;
    let (label, text) = node1.refusal().await;
    assert_eq!(label, "too_many");
    assert!(
        text.contains("client/node1/alice has 1 connections"),
        "{text}"
    );
    // Others are not touched by it, and the first goes on.
    check(&open(world.material("node2").client()))
        .await
        .unwrap();
    check(&first).await.unwrap();
}

#[tokio::test]
async fn a_silent_client_loses_its_place() {
    let world = World::new(&["node1", "node2"]);
    let options = ListenerOptions {
        // Enough for whoever comes beside it, on a slow machine too.
        handshake_timeout: std::time::Duration::from_secs(3),
        ..ListenerOptions::default()
    };
    let mut node1 = Node::start_with(world.material("node1"), options).await;
    let _silent = TcpStream::connect(node1.addr).await.unwrap();
    // Whoever comes beside it does not wait for it.
    let tls = world.material("node2").client();
    let addr = node1.dial_addr();
    let channel = connect(&tls, &addr, ExpectedPeer::any(), DialOptions::default()).unwrap();
    check(&channel).await.unwrap();
    assert_eq!(node1.refusal().await.0, "timed_out");
}

//! Live connections: dialling, what both ends know, bans, revocations, reloads.

mod common;

use std::sync::Arc;

use common::*;
use quorate_tls::identity::PersonRole;
use quorate_tls::pki::{self, PersonFiles, Validity};
use quorate_tls::{
    ClientPaths, ClientTls, DialError, DialOptions, Dialled, ExpectedPeer, Listener,
    ListenerOptions, Registry, TlsError, TlsMaterial, TlsPaths, dial,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

async fn dialled(tls: &Arc<ClientTls>, node: &Node, registry: &Registry) -> Dialled {
    let addr = node.dial_addr();
    let options = DialOptions::default();
    dial(tls, &addr, ExpectedPeer::any(), registry, options)
        .await
        .unwrap()
}

fn connect(tls: &Arc<ClientTls>, node: &Node) -> tonic::transport::Channel {
    let addr = node.dial_addr();
    let options = DialOptions::default();
    quorate_tls::connect(tls, &addr, ExpectedPeer::any(), options).unwrap()
}

fn assert_told(status: &tonic::Status, words: &str) {
    assert_eq!(status.code(), tonic::Code::Unavailable);
    let told = quorate_tls::explain(status).expect("it was the connection");
    assert!(told.contains(words), "{told}");
}

/// Waits until the registry holds so many: an end that was closed leaves it when its
/// task has run.
async fn until_len(registry: &Registry, len: usize) {
    let arrived = async {
        while registry.len() != len {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(GUARD, arrived).await.expect("in time");
}

#[tokio::test]
async fn both_ends_of_a_dialled_connection_know_both_certificates() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let material2 = world.material("node2");
    let registry = Registry::new();
    let expect = ExpectedPeer::node(node("node1"));
    let addr = node1.dial_addr();
    let options = DialOptions::default();
    let Dialled { channel, peer } = dial(&material2.client(), &addr, expect, &registry, options)
        .await
        .unwrap();
    check(&channel).await.unwrap();
    let caller = node1.caller().await;
    assert_eq!(peer.identity, node1.material.own().identity);
    assert!(peer.outgoing && !caller.outgoing);
    assert_eq!(peer.certificate_digest, node1.material.own().digest);
    assert_eq!(peer.local_certificate_digest, material2.own().digest);
    assert_eq!(caller.certificate_digest, peer.local_certificate_digest);
    assert_eq!(caller.local_certificate_digest, peer.certificate_digest);
    assert_eq!(peer.remote_addr, node1.addr);
    assert_eq!(peer.key_exchange, "X25519MLKEM768");
    assert_eq!((registry.len(), node1.registry.len()), (1, 1));
    drop(channel);
    until_len(&registry, 0).await;
    until_len(&node1.registry, 0).await;
}

#[tokio::test]
async fn a_server_that_is_not_who_it_must_be_is_refused() {
    let world = World::new(&["node1", "node2"]);
    let node1 = Node::start(world.material("node1")).await;
    let addr = node1.dial_addr();
    let tls = world.material("node2").client();
    let registry = Registry::new();
    let attempt = async |expect| {
        let options = DialOptions::default();
        dial(&tls, &addr, expect, &registry, options).await
    };

    let other_node = attempt(ExpectedPeer::node(node("node2")))
        .await
        .unwrap_err();
    let text = other_node.to_string();
    assert!(
        text.contains("the server is spiffe://demo/node/node1, and node2 was dialled"),
        "{text}"
    );

    let other_name = ExpectedPeer {
        server_name: Some("node9".into()),
        ..ExpectedPeer::any()
    };
    let other_name = attempt(other_name).await.unwrap_err();
    assert!(
        matches!(other_name, DialError::Handshake { .. }),
        "{other_name}"
    );

    let by_name = ExpectedPeer {
        server_name: Some("node1".into()),
        node_id: Some(node("node1")),
    };
    let fine = attempt(by_name).await.unwrap();
    check(&fine.channel).await.unwrap();

    // A node of a cluster that we do not belong to, though of the same name.
    let twin = World::new(&["node1"]);
    let impostor = Node::start(twin.material("node1")).await;
    let addr = impostor.dial_addr();
    let options = DialOptions::default();
    let error = dial(&tls, &addr, ExpectedPeer::any(), &registry, options).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("a CA that is not the one given here"),
        "{text}"
    );
    assert_eq!(registry.len(), 1);
}

/// A server with any certificate; takes one connection.
async fn odd_server(world: &World, files: &PersonFiles) -> String {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ))
    .with_protocol_versions(&[&rustls::version::TLS13])
    .unwrap()
    .with_no_client_auth()
    .with_single_cert(
        vec![CertificateDer::from_pem_file(&files.cert).unwrap()],
        PrivateKeyDer::from_pem_file(&files.key).unwrap(),
    )
    .unwrap();
    assert!(world.path().exists());
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = tcp.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        let (stream, _) = tcp.accept().await.unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let _ = acceptor.accept(stream).await;
    });
    addr
}

#[tokio::test]
async fn a_client_s_certificate_makes_no_server() {
    let world = World::new(&["node1", "node2"]);
    let tls = world.material("node2").client();
    let cases = [
        (
            vec!["spiffe://demo/client/node1/alice"],
            "a node was dialled",
        ),
        (vec!["spiffe://prod/node/node1"], "is of another cluster"),
        (vec![], "it has no URI name"),
        (
            vec!["spiffe://demo/node/node1", "spiffe://demo/node/node2"],
            "has 2 URI names",
        ),
    ];
    for (uris, part) in cases {
        let odd = world.forge(&world.ca(), Odd::uris(&uris).and_dns("localhost"));
        let addr = odd_server(&world, &odd).await;
        let addr = addr.replace("127.0.0.1", "localhost");
        let options = DialOptions::default();
        let error = dial(&tls, &addr, ExpectedPeer::any(), &Registry::new(), options).await;
        let error = error.unwrap_err();
        assert!(matches!(error, DialError::Refusal { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    // By the trustee's CA, not even with the right name.
    let ca = world.clients_ca("node2");
    let odd = Odd::uris(&["spiffe://demo/node/node1"]).and_dns("localhost");
    let addr = odd_server(&world, &world.forge(&ca, odd)).await;
    let addr = addr.replace("127.0.0.1", "localhost");
    let options = DialOptions::default();
    let error = dial(&tls, &addr, ExpectedPeer::any(), &Registry::new(), options).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.contains("a CA that is not the one given here"),
        "{text}"
    );
}

#[tokio::test]
async fn unusable_addresses_and_closed_ports_are_told() {
    let world = World::new(&["node1"]);
    let tls = world.material("node1").client();
    for addr in [
        "",
        "node1",
        "node1:",
        "node1:70000",
        "::1:9000",
        ":9000",
        "a b:1",
    ] {
        let error = quorate_tls::connect(&tls, addr, ExpectedPeer::any(), DialOptions::default());
        assert!(matches!(error, Err(DialError::Address(_))), "{addr:?}");
    }
    // Nobody listens there. (A port that was free a moment ago may be another test's now.)
    let closed = "127.0.0.1:1";
    let options = DialOptions::default();
    let error = dial(&tls, closed, ExpectedPeer::any(), &Registry::new(), options).await;
    assert!(matches!(error, Err(DialError::Unreachable { .. })));
}

#[tokio::test]
async fn ipv6_addresses_and_host_names_can_be_dialled() {
    let world = World::new(&["node1", "node2"]);
    let node1 = Node::start(world.material("node1")).await;
    let tls = world.material("node2").client();
    let addr = format!("localhost:{}", node1.addr.port());
    let options = DialOptions::default();
    let over_name = dial(&tls, &addr, ExpectedPeer::any(), &Registry::new(), options)
        .await
        .unwrap();
    check(&over_name.channel).await.unwrap();

    let material = world.material("node1");
    let bound = Listener::bind(
        "[::1]:0",
        material,
        Registry::new(),
        ListenerOptions::default(),
    );
    // A machine without IPv6 has nothing to show here.
    let Ok(listener) = bound.await else { return };
    let addr = listener.local_addr().unwrap().to_string();
    let mut incoming = listener.incoming(CancellationToken::new());
    let registry = Registry::new();
    let (accepted, dialled) = tokio::join!(
        incoming.next(),
        dial(&tls, &addr, ExpectedPeer::any(), &registry, options)
    );
    assert_eq!(
        accepted.unwrap().unwrap().peer().certificate_digest,
        dialled.unwrap().peer.local_certificate_digest
    );
}

#[tokio::test]
async fn a_cancelled_node_loses_its_connections_and_nobody_else_does() {
    let world = World::new(&["node1", "node2", "node3"]);
    let node1 = Node::start(world.material("node1")).await;
    let registry = Registry::new();
    let two = dialled(&world.material("node2").client(), &node1, &registry).await;
    let three = dialled(&world.material("node3").client(), &node1, &registry).await;
    let mut watched = HealthClient::new(two.channel.clone())
        .watch(HealthCheckRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert!(watched.next().await.unwrap().is_ok());
    check(&three.channel).await.unwrap();

    assert_eq!(node1.registry.cancel_node(&node("node2")), 1);
    let end = tokio::time::timeout(GUARD, watched.next())
        .await
        .expect("ends");
    assert!(end.unwrap().is_err(), "a live stream ends with an error");
    until_len(&node1.registry, 1).await;
    let status = check(&two.channel).await.unwrap_err();
    assert_eq!(
        status.code(),
        tonic::Code::Unavailable,
        "it is never made again"
    );
    check(&three.channel).await.unwrap();
    assert_eq!(node1.registry.cancel_node(&node("node2")), 0);
}

#[tokio::test]
async fn an_outgoing_connection_can_be_cancelled_by_the_dialler() {
    let world = World::new(&["node1", "node2"]);
    let node1 = Node::start(world.material("node1")).await;
    let registry = Registry::new();
    let two = dialled(&world.material("node2").client(), &node1, &registry).await;
    check(&two.channel).await.unwrap();
    assert_eq!(registry.cancel_identity(&two.peer.identity), 1);
    assert!(check(&two.channel).await.is_err());
    until_len(&registry, 0).await;
    until_len(&node1.registry, 0).await;
}

#[tokio::test]
async fn a_ban_of_a_node_spares_its_clients() {
    let world = World::new(&["node1"]);
    let node1 = Node::start(world.material("node1")).await;
    let alice = world.person(&world.issue("node1", PersonRole::Client, "alice"));
    let bob = world.person(&world.issue("node1", PersonRole::Client, "bob"));
    let (a, b) = (
        dialled(&alice, &node1, &Registry::new()).await,
        dialled(&bob, &node1, &Registry::new()).await,
    );
    check(&a.channel).await.unwrap();
    check(&b.channel).await.unwrap();
    assert_eq!(node1.registry.cancel_node(&node("node1")), 0);
    assert_eq!(node1.registry.cancel_serial(&alice.own().serial), 1);
    assert!(check(&a.channel).await.is_err());
    check(&b.channel).await.unwrap();
}

#[tokio::test]
async fn a_revocation_ends_live_connections_and_refuses_new_ones() {
    let world = World::new(&["node1", "node2"]);
    let clients_ca = world.clients_ca("node1");
    let alice_files = world.issue("node1", PersonRole::Client, "alice");
    let alice = world.person(&alice_files);
    let mut paths = world.paths("node1");
    paths.crl = Some(world.crl(&clients_ca, &[], Validity::leaf()));
    let mut node1 = Node::start(TlsMaterial::load(paths).unwrap()).await;
    let old = dialled(&alice, &node1, &Registry::new()).await;
    // The nodes' CA has no list, and so revoked nobody.
    let two = dialled(&world.material("node2").client(), &node1, &Registry::new()).await;
    check(&old.channel).await.unwrap();
    check(&two.channel).await.unwrap();

    world.crl(
        &clients_ca,
        &[serial_of(&alice_files.cert)],
        Validity::leaf(),
    );
    node1.material.reload().unwrap();
    check(&old.channel)
        .await
        .expect("a reload alone ends nothing");
    assert_eq!(node1.registry.recheck(&node1.material), 1);
    assert!(check(&old.channel).await.is_err());
    check(&two.channel).await.unwrap();
    let status = check(&connect(&alice, &node1)).await.unwrap_err();
    assert_told(&status, "our certificate was revoked");
    assert_eq!(node1.refusal().await.0, "revoked");
}

#[tokio::test]
async fn a_list_past_its_time_refuses_all_of_its_ca() {
    let world = World::new(&["node1", "node2"]);
    let alice = world.person(&world.issue("node1", PersonRole::Client, "alice"));
    let mut paths = world.paths("node1");
    paths.crl = Some(world.crl(&world.clients_ca("node1"), &[], past()));
    let mut node1 = Node::start(TlsMaterial::load(paths).unwrap()).await;
    let status = check(&connect(&alice, &node1)).await.unwrap_err();
    assert_told(
        &status,
        "it does not trust our certificate's CA, or cannot check it",
    );
    let (label, text) = node1.refusal().await;
    assert_eq!(label, "certificate");
    assert!(text.contains("revocation list is out of date"), "{text}");
    let two = dialled(&world.material("node2").client(), &node1, &Registry::new()).await;
    check(&two.channel).await.unwrap();
}

#[tokio::test]
async fn a_revoked_node_is_refused_by_those_who_dial_it() {
    let world = World::new(&["node1", "node2"]);
    let node1 = Node::start(world.material("node1")).await;
    let mut paths = world.paths("node2");
    paths.crl = Some(world.crl(
        &world.ca(),
        &[node1.material.own().serial],
        Validity::leaf(),
    ));
    let tls = TlsMaterial::load(paths).unwrap().client();
    let addr = node1.dial_addr();
    let options = DialOptions::default();
    let error = dial(&tls, &addr, ExpectedPeer::any(), &Registry::new(), options).await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("the certificate was revoked"), "{text}");
}

#[tokio::test]
async fn a_node_that_reads_its_own_revocation_takes_nobody_and_dials_nobody() {
    let world = World::new(&["node1", "node2"]);
    let mut paths = world.paths("node1");
    paths.crl = Some(world.crl(&world.ca(), &[], Validity::leaf()));
    let mut node1 = Node::start(TlsMaterial::load(paths.clone()).unwrap()).await;
    let node2 = Node::start(world.material("node2")).await;
    let two = world.material("node2").client();
    let old = dialled(&two, &node1, &Registry::new()).await;
    check(&old.channel).await.unwrap();
    let own = serial_of(&world.files("node1").cert);
    world.crl(&world.ca(), &[own], Validity::leaf());
    assert!(node1.material.has_changed());
    let error = node1.material.reload().unwrap_err();
    assert!(matches!(error, TlsError::OwnRevoked(_)), "{error}");
    assert!(node1.material.own_revoked() && !node1.material.has_changed());
    assert_eq!(node1.registry.recheck(&node1.material), 1);
    assert!(check(&old.channel).await.is_err());
    assert!(check(&connect(&two, &node1)).await.is_err());
    assert_eq!(node1.refusal().await.0, "own_revoked");
    let options = DialOptions::default();
    let client = node1.material.client();
    let addr = node2.dial_addr();
    let error = dial(
        &client,
        &addr,
        ExpectedPeer::any(),
        &Registry::new(),
        options,
    )
    .await;
    let text = error.unwrap_err().to_string();
    assert!(text.contains("dials nobody"), "{text}");
    // It does not start so, and is itself again with a new certificate.
    let error = TlsMaterial::load(paths).unwrap_err();
    assert!(matches!(error, TlsError::OwnRevoked(_)), "{error}");
    world.certify("node1", Validity::leaf());
    node1.material.reload().unwrap();
    let new = dialled(&two, &node1, &Registry::new()).await;
    check(&new.channel).await.unwrap();
}

#[tokio::test]
async fn two_cas_of_one_name_and_a_list_by_it_are_refused() {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};
    let world = World::new(&["node1"]);
    let ca = std::fs::read_to_string(world.ca().0).unwrap();
    let subject = pki::show(ca.as_bytes()).unwrap().subject;
    let unit = subject.split_once("OU=").unwrap().1;
    let mut twin = CertificateParams::default();
    twin.distinguished_name = rcgen::DistinguishedName::new();
    let name = &mut twin.distinguished_name;
    name.push(DnType::CommonName, "demo cluster CA");
    name.push(DnType::OrganizationalUnitName, unit);
    twin.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let twin = twin
        .self_signed(&KeyPair::generate().unwrap())
        .unwrap()
        .pem();
    let bundle = world.path().join("bundle.crt");
    std::fs::write(&bundle, format!("{ca}{twin}")).unwrap();
    let mut paths = world.paths("node1");
    paths.ca_cert = bundle;
    // Without a list nobody is looked up by name.
    TlsMaterial::load(paths.clone()).unwrap();
    paths.crl = Some(world.crl(&world.ca(), &[], Validity::leaf()));
    let error = TlsMaterial::load(paths).unwrap_err();
    assert!(matches!(error, TlsError::SameName(_)), "{error}");
}

#[tokio::test]
async fn certificates_are_exchanged_while_running() {
    let world = World::new(&["node1", "node2"]);
    let node1 = Node::start(world.material("node1")).await;
    let material2 = world.material("node2");
    let old = dialled(&material2.client(), &node1, &Registry::new()).await;
    check(&old.channel).await.unwrap();
    let (before1, before2) = (node1.material.own(), material2.own());

    world.certify("node1", Validity::leaf());
    world.certify("node2", Validity::leaf());
    node1.material.reload().unwrap();
    let client2 = material2.client();
    material2.reload().unwrap();
    assert_ne!(node1.material.own().digest, before1.digest);
    let new = dialled(&client2, &node1, &Registry::new()).await;
    assert_eq!(new.peer.certificate_digest, node1.material.own().digest);
    assert_ne!(new.peer.local_certificate_digest, before2.digest);
    check(&new.channel).await.unwrap();
    check(&old.channel).await.expect("the old one goes on");
    assert_eq!(node1.registry.recheck(&node1.material), 0);
}

#[tokio::test]
async fn a_reload_that_fails_changes_nothing() {
    let world = World::new(&["node1", "node2"]);
    let node1 = Node::start(world.material("node1")).await;
    let before = node1.material.own();
    let (one, two) = (world.files("node1"), world.files("node2"));
    let good = std::fs::read(&one.cert).unwrap();
    std::fs::write(&one.cert, "nonsense").unwrap();
    assert!(matches!(
        node1.material.reload(),
        Err(TlsError::Holds { .. })
    ));
    // Half of an exchange: the other node's certificate with our key, then both.
    std::fs::copy(&two.cert, &one.cert).unwrap();
    assert!(matches!(
        node1.material.reload(),
        Err(TlsError::OtherKey { .. })
    ));
    std::fs::copy(&two.key, &one.key).unwrap();
    let other = node1.material.reload().unwrap_err();
    // Its clients' CA is for somebody else, and so is its name.
    assert!(
        matches!(
            other,
            TlsError::Authority { .. } | TlsError::OtherIdentity { .. }
        ),
        "{other}"
    );
    assert_eq!(node1.material.own(), before);
    let tls = world.material("node2").client();
    check(&dialled(&tls, &node1, &Registry::new()).await.channel)
        .await
        .unwrap();
    std::fs::write(&one.cert, good).unwrap();
}

#[tokio::test]
async fn a_node_does_not_start_with_certificates_that_others_refuse() {
    let world = World::new(&["node1", "node2"]);
    let load = |change: &dyn Fn(&mut quorate_tls::TlsPaths)| {
        let mut paths = world.paths("node1");
        change(&mut paths);
        TlsMaterial::load(paths).map(drop).unwrap_err()
    };
    let (one, two) = (world.files("node1"), world.files("node2"));

    let key = load(&|p| p.node_key = two.key.clone());
    assert!(matches!(key, TlsError::OtherKey { .. }), "{key}");
    let ca_for_clients = load(&|p| p.clients_ca = Some(world.ca().0));
    assert!(matches!(ca_for_clients, TlsError::Authority { .. }));
    let other_trustee = load(&|p| p.clients_ca = Some(two.clients_ca_cert.clone()));
    assert!(matches!(other_trustee, TlsError::Authority { .. }));
    let clients_ca_for_nodes = load(&|p| p.ca_cert = one.clients_ca_cert.clone());
    assert!(matches!(clients_ca_for_nodes, TlsError::Authority { .. }));
    let twin = World::new(&[]);
    let other_ca = load(&|p| p.ca_cert = twin.ca().0);
    assert!(
        matches!(other_ca, TlsError::OwnCertificate { .. }),
        "{other_ca}"
    );
    let alice = world.issue("node1", PersonRole::Client, "alice");
    let person = load(&|p| {
        p.node_cert = alice.cert.clone();
        p.node_key = alice.key.clone();
    });
    assert!(matches!(person, TlsError::NotNode { .. }), "{person}");
    let prod = World::named("prod", &[]);
    let foreign = prod.crl(&prod.ca(), &[], Validity::leaf());
    let foreign = load(&|p| p.crl = Some(foreign.clone()));
    assert!(matches!(foreign, TlsError::StrayCrl { .. }), "{foreign}");
    let missing = load(&|p| p.crl = Some(world.path().join("none.crl")));
    assert!(matches!(missing, TlsError::File(_)), "{missing}");

    world.certify("node1", past());
    let expired = load(&|_| {});
    assert!(matches!(expired, TlsError::OwnCertificate { .. }));
    assert!(expired.to_string().contains("expired"), "{expired}");
}

/// A CA that carries no name of ours is told apart by its key.
#[tokio::test]
async fn one_foreign_ca_for_nodes_and_clients_is_refused() {
    let world = World::new(&["node1"]);
    let foreign = (
        world.path().join("foreign.crt"),
        world.path().join("foreign.key"),
    );
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let ca = params.self_signed(&key).unwrap();
    std::fs::write(&foreign.0, ca.pem()).unwrap();
    std::fs::write(&foreign.1, key.serialize_pem()).unwrap();
    let odd = Odd::uris(&["spiffe://demo/node/node1"]).and_dns("localhost");
    let leaf = world.forge(&foreign, odd);
    let mut paths = TlsPaths {
        ca_cert: foreign.0.clone(),
        clients_ca: Some(foreign.0),
        node_cert: leaf.cert,
        node_key: leaf.key,
        crl: None,
    };
    let error = TlsMaterial::load(paths.clone()).unwrap_err();
    assert!(matches!(error, TlsError::Authority { .. }), "{error}");
    paths.clients_ca = Some(world.clients_ca("node1").0);
    TlsMaterial::load(paths).expect("each its own");
}

#[tokio::test]
async fn exposed_keys_are_refused_with_the_command_that_mends_it() {
    use std::os::unix::fs::PermissionsExt;
    let world = World::new(&["node1"]);
    let key = world.files("node1").key;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = TlsMaterial::load(world.paths("node1")).unwrap_err();
    let command = format!("chmod 600 {}", key.display());
    assert!(error.to_string().contains(&command), "{error}");
}

#[tokio::test]
async fn an_expired_client_hears_it_from_itself() {
    let world = World::new(&["node1"]);
    let odd = Odd::uris(&["spiffe://demo/client/node1/alice"]).valid(past());
    let files = world.forge(&world.clients_ca("node1"), odd);
    let error = ClientTls::load(&ClientPaths {
        ca_cert: world.ca().0,
        cert: files.cert,
        key: files.key,
    });
    assert!(error.unwrap_err().to_string().contains("it has expired"));
}

#[tokio::test]
async fn stopping_closes_the_port_and_ends_handshakes() {
    let world = World::new(&["node1"]);
    let material = world.material("node1");
    let (refused, mut refusals) = tokio::sync::mpsc::unbounded_channel();
    let options = ListenerOptions::default();
    let listener = Listener::bind("127.0.0.1:0", material, Registry::new(), options)
        .await
        .unwrap()
        .on_refused(move |_, why| {
            let _ = refused.send(why.label());
        });
    let addr = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let mut incoming = listener.incoming(stop.clone());
    let _silent = TcpStream::connect(addr).await.unwrap();
    // A second one, refused at once, shows that the first was accepted before it.
    drop(TcpStream::connect(addr).await.unwrap());
    assert_eq!(refusals.recv().await, Some("broken"));
    stop.cancel();
    let end = tokio::time::timeout(GUARD, incoming.next()).await;
    assert!(end.expect("ends").is_none());
    assert_eq!(refusals.recv().await, Some("stopping"));
    assert!(
        TcpStream::connect(addr).await.is_err(),
        "the port is closed"
    );
}

#[tokio::test]
async fn a_refused_client_is_told_in_words() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let bob = world.person(&world.issue("node2", PersonRole::Client, "bob"));
    let status = check(&connect(&bob, &node1)).await.unwrap_err();
    assert_told(
        &status,
        "our certificate is not for this node, or by the wrong CA",
    );
    assert_eq!(node1.refusal().await.0, "other_node");
    let addr = node1.dial_addr();
    let options = DialOptions::default();
    let error = dial(&bob, &addr, ExpectedPeer::any(), &Registry::new(), options).await;
    assert!(matches!(
        error,
        Err(DialError::ByServer { .. } | DialError::Handshake { .. })
    ));
}

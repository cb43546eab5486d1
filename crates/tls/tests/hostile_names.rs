//! Certificates with odd names, by a CA that this node trusts: none of them is anybody.

mod common;

use common::blunt::Blunt;
use common::*;
use rcgen::SanType;

/// Shows this certificate; gives the node's reason for refusing it.
async fn refusal(world: &World, node: &mut Node, odd: Odd) -> (&'static str, String) {
    let files = world.forge(&world.ca(), odd);
    Blunt::new(world, Some(&files)).knock(node).await;
    let refusal = node.refusal().await;
    assert!(node.registry.is_empty(), "nobody is in");
    refusal
}

#[tokio::test]
async fn a_name_that_is_almost_right_is_nobodys() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    for uri in [
        // Upper case, in each of its parts.
        "spiffe://demo/node/Node2",
        "spiffe://demo/node/NODE2",
        "spiffe://demo/Node/node2",
        "SPIFFE://demo/node/node2",
        // Wildcards.
        "spiffe://demo/node/*",
        "spiffe://*/node/node2",
        "spiffe://demo/*/node2",
        "spiffe://demo/operator/node1/*",
        // Ways to write the same address on the web, which here are other names.
        "spiffe://demo/node/node2/",
        "spiffe://demo//node/node2",
        "spiffe://demo/./node/node2",
        "spiffe://demo/node/x/../node2",
        "spiffe://demo/node/node%32",
        "spiffe://demo:443/node/node2",
        "spiffe://root@demo/node/node2",
        "spiffe://demo/node/node2?role=operator",
        "spiffe://demo/node/node2#node1",
        " spiffe://demo/node/node2",
        "spiffe://demo/node/node2 ",
        "spiffe:///node/node2",
        "spiffe://demo",
        "spiffe://demo/node",
        "spiffe://demo/node/",
        "spiffe://demo/client/node1",
        "spiffe://demo/client/node1/..",
        "spiffe://demo/client/node1/alice/bob",
        "spiffe://demo/root/node1/alice",
        "",
    ] {
        let odd = Odd::uris(&[uri]).and_dns("node2");
        let (label, text) = refusal(&world, &mut node1, odd).await;
        assert_eq!(label, "identity", "{uri:?}: {text}");
        assert!(text.contains("is no identity"), "{uri:?}: {text}");
    }
}

#[tokio::test]
async fn names_of_other_kinds_are_no_identity() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let uri = "spiffe://demo/node/node2";
    for san in [
        // A host of that name is not what the certificate is for.
        SanType::DnsName("node2".try_into().unwrap()),
        SanType::DnsName("*.demo".try_into().unwrap()),
        SanType::DnsName(uri.try_into().unwrap()),
        SanType::Rfc822Name("node2@demo".try_into().unwrap()),
        SanType::IpAddress([127, 0, 0, 1].into()),
    ] {
        let mut odd = Odd::uris(&[]);
        odd.sans.push(san);
        let (label, text) = refusal(&world, &mut node1, odd).await;
        assert_eq!(
            (label, text.contains("no URI name")),
            ("identity", true),
            "{text}"
        );
    }
    // No names at all.
    let (label, _) = refusal(&world, &mut node1, Odd::uris(&[])).await;
    assert_eq!(label, "identity");
    // The same name twice is two names.
    let (label, text) = refusal(&world, &mut node1, Odd::uris(&[uri, uri])).await;
    assert_eq!(
        (label, text.contains("2 URI names")),
        ("identity", true),
        "{text}"
    );
}

#[tokio::test]
async fn huge_names_are_refused_in_few_words() {
    let world = World::new(&["node1", "node2"]);
    let mut node1 = Node::start(world.material("node1")).await;
    let long = format!("spiffe://demo/node/{}", "a".repeat(12_000));
    let (label, text) = refusal(&world, &mut node1, Odd::uris(&[&long])).await;
    assert_eq!(label, "identity", "{text}");
    assert!(text.len() < 500, "{} bytes in the log", text.len());
    // Many good names.
    let many: Vec<String> = (0..500)
        .map(|i| format!("spiffe://demo/node/node{i}"))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let (label, text) = refusal(&world, &mut node1, Odd::uris(&many)).await;
    assert_eq!(
        (label, text.contains("500 URI names")),
        ("identity", true),
        "{text}"
    );
    // More bytes than the longest message of a handshake: the node ends it.
    let huge = format!("spiffe://demo/node/{}", "a".repeat(80_000));
    let (label, text) = refusal(&world, &mut node1, Odd::uris(&[&huge])).await;
    assert!(
        ["protocol", "identity", "broken", "by_peer"].contains(&label),
        "{label}: {text}"
    );
    assert!(text.len() < 500, "{} bytes in the log", text.len());
    // Whoever is somebody still comes in.
    let files = world.forge(&world.ca(), Odd::uris(&["spiffe://demo/node/node2"]));
    let _open = Blunt::new(&world, Some(&files)).connected(&node1).await;
    while node1.registry.is_empty() {
        tokio::task::yield_now().await;
    }
}

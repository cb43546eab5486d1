//! Ten thousand connections, handshakes that never end, and clients that never speak:
//! bounded in number and in time, and the honest client beside them is served.

mod common;

use std::time::Duration;

use common::blunt::Blunt;
use common::*;
use quorate_tls::identity::PersonRole;
use quorate_tls::{DialOptions, ExpectedPeer, ListenerOptions, connect};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// A limit that who never ends reaches, and that an honest peer on a slow machine does not.
const ENOUGH: Duration = Duration::from_secs(3);

/// How many connections to open: as many as this process may have files, with room for
/// the rest, at most ten thousand.
fn crowd_size() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| {
        let soft = line
            .strip_prefix("Max open files")?
            .split_whitespace()
            .next()?;
        soft.parse::<usize>().ok()
    });
    (files.unwrap_or(1024) * 3 / 4)
        .saturating_sub(200)
        .min(10_000)
}

async fn from(ip: &str, node: &Node) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{ip}:0").parse().unwrap())?;
    socket.connect(node.addr).await
}

/// An honest peer makes a connection of its own and calls.
async fn serves(world: &World, node: &Node) {
    let tls = world.material("node2").client();
    let addr = node.dial_addr();
    // However busy the machine is with the crowd: it gets through.
    let options = DialOptions {
        connect_timeout: GUARD,
        ..DialOptions::default()
    };
    let channel = connect(&tls, &addr, ExpectedPeer::any(), options).unwrap();
    check(&channel).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_silent_connections_keep_nobody_out() {
    let world = World::new(&["node1", "node2"]);
    // No handshake here ends for having taken long: only their number is bounded.
    let options = ListenerOptions {
        handshake_timeout: GUARD * 10,
        ..ListenerOptions::default()
    };
    let most = options.max_handshakes as u64;
    let node1 = Node::start_with(world.material("node1"), options).await;
    let size = crowd_size();
    println!("{size} connections");
    let mut crowd = Vec::with_capacity(size);
    for i in 0..size {
        // Half of them share the honest client's address.
        let ip = ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.1"][i % 4];
        crowd.push(from(ip, &node1).await.unwrap());
        if i % (size / 10) == 0 {
            serves(&world, &node1).await;
        }
    }
    serves(&world, &node1).await;
    // All but as many as there are places have been ended.
    let ended = || {
        node1
            .counters
            .refused()
            .get("crowded")
            .copied()
            .unwrap_or(0)
    };
    let waited = tokio::time::timeout(GUARD, async {
        while ended() < size as u64 - most {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("the oldest give way");
    assert!(
        ended() <= size as u64,
        "the honest client did not: {}",
        ended()
    );
    let mut first = [0];
    assert!(
        matches!(crowd[0].read(&mut first).await, Ok(0) | Err(_)),
        "it is closed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_a_byte_at_a_time_ends_in_time() {
    let world = World::new(&["node1", "node2"]);
    let options = ListenerOptions {
        handshake_timeout: ENOUGH,
        ..ListenerOptions::default()
    };
    let mut node1 = Node::start_with(world.material("node1"), options).await;
    let mut slow = TcpStream::connect(node1.addr).await.unwrap();
    // A record of 512 bytes that goes on for ever: each byte comes well in time.
    let trickle = tokio::spawn(async move {
        let mut sent = 0;
        let mut bytes = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]
            .into_iter()
            .chain(std::iter::repeat(0));
        while let Some(byte) = bytes.next()
            && slow.write_all(&[byte]).await.is_ok()
        {
            sent += 1;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        sent
    });
    assert_eq!(node1.refusal().await.0, "timed_out");
    let sent = tokio::time::timeout(GUARD, trickle).await.unwrap().unwrap();
    assert!(sent > 0);
    serves(&world, &node1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_speaks_after_its_handshake_is_ended() {
    let world = World::new(&["node1", "node2"]);
    let options = ListenerOptions {
        first_words_timeout: ENOUGH,
        ..ListenerOptions::default()
    };
    let node1 = Node::start_with(world.material("node1"), options).await;
    let alice = world.issue("node1", PersonRole::Client, "alice");
    let blunt = Blunt::new(&world, Some(&alice));
    for first in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let mut stream = blunt.connected(&node1).await;
        stream.write_all(first).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(GUARD, stream.read_to_end(&mut rest)).await;
        // With or without TLS's own goodbye.
        let _ = ended.expect("the node ends it");
    }
    let gone = tokio::time::timeout(GUARD, async {
        while !node1.registry.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    gone.await.expect("nobody is left");
    serves(&world, &node1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_have_so_many_connections_together_and_never_a_peers() {
    let world = World::new(&["node1", "node2"]);
    let options = ListenerOptions {
        max_people: 3,
        max_people_per_address: 2,
        ..ListenerOptions::default()
    };
    let mut node1 = Node::start_with(world.material("node1"), options).await;
    let names = ["a", "b", "c", "d"];
    let people = names.map(|name| world.issue("node1", PersonRole::Client, name));
    let mut open = Vec::new();
    for (person, ip, why) in [
        (&people[0], "127.0.0.1", None),
        (&people[1], "127.0.0.1", None),
        (
            &people[2],
            "127.0.0.1",
            Some("at 127.0.0.1 have 2 connections"),
        ),
        (&people[2], "127.0.0.2", None),
        (
            &people[3],
            "127.0.0.3",
            Some("clients and operators have 3 connections"),
        ),
    ] {
        let tcp = from(ip, &node1).await.unwrap();
        let stream = Blunt::new(&world, Some(person)).over(tcp).await.unwrap();
        open.push(stream);
        match why {
            None => {
                let expected = node1.registry.len();
                let accepted = async {
                    while node1.counters.accepted() < expected.max(open.len().min(2)) as u64 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::time::timeout(GUARD, accepted).await.unwrap();
            }
            Some(why) => {
                let (label, text) = node1.refusal().await;
                assert_eq!(label, "too_many");
                assert!(text.contains(why), "{text}");
            }
        }
    }
    // A node is let in beside them.
    serves(&world, &node1).await;
}

//! Which node a command reaches: contexts that people make, several addresses with
//! failover, and files that come from a context.

mod common;

use common::{Dev, Home, NOBODY};

#[test]
fn contexts_are_made_and_changed_by_hand() {
    let home = Home::new();
    let none = home.run(&["config", "current-context"]).expect(2);
    assert!(none.stderr.contains("use-context"), "{}", none.stderr);
    let set = ["config", "set-context", "prod", "--json"];
    let bare = home.run(&set).expect(2);
    let message = bare.error()["message"].to_string();
    assert!(message.contains("--endpoint"), "{message}");
    let whole = [
        "--endpoint",
        "a:1,b:2",
        "--cacert",
        "ca.crt",
        "--cert",
        "app.crt",
        "--key",
        "app.key",
        "--cluster-id",
        "00",
        "--use",
    ];
    let made = home.run(&[&set[..], &whole].concat()).expect(0).json();
    assert_eq!(made["current"], "prod");
    // What is not given stays; files are found from another directory, too.
    let changed = home
        .run(&[&set[..], &["--endpoint", "c:3"]].concat())
        .expect(0)
        .json();
    let prod = &changed["contexts"][0];
    assert_eq!(prod["endpoint"], "c:3");
    assert_eq!(prod["cluster_id"], "00");
    let cert = home.path().join("app.crt");
    assert_eq!(prod["cert"].as_str(), cert.to_str());
    let half = ["--operator-cert", "op.crt"];
    let half = home.run(&[&set[..], &half].concat()).expect(2);
    let message = half.error()["message"].to_string();
    assert!(message.contains("--operator-key"), "{message}");
    let both = ["--operator-cert", "op.crt", "--operator-key", "op.key"];
    home.run(&[&set[..], &both].concat()).expect(0);
    let kept = std::fs::read_to_string(home.contexts()).expect("the contexts");
    assert!(kept.contains("op.crt") && kept.contains("op.key"), "{kept}");
    let current = home.run(&["config", "current-context"]).expect(0);
    assert_eq!(current.stdout, "prod\n");
    let current = home.run(&["config", "current-context", "--json"]).expect(0);
    assert_eq!(current.json()["current"], "prod");
}

#[test]
fn the_next_address_is_tried_when_one_does_not_answer() {
    let home = Home::new();
    let dev = Dev::start(&home, &["--nodes", "1", "--threshold", "1"]);
    let live = dev.node(1)["endpoint"]
        .as_str()
        .expect("an endpoint")
        .to_owned();
    let dead = NOBODY;
    // Somebody who takes the connection and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mute = mute.local_addr().expect("an address").to_string();
    let several = format!("{dead}, {live}");
    for (endpoint, code) in [(&*several, 0), (&*live, 0), (dead, 3)] {
        // The files come from the context that `quorate dev` made.
        let list = ["list", "--endpoint", endpoint, "--context", "node1"];
        home.run(&list).expect(code);
    }
    // By the environment, with a vote: that is as safe to repeat.
    let vote = home
        .command()
        .args(["vote", "tx_1", "--value", "1", "--wait", "confirmed"])
        .env("QUORATE_ENDPOINT", format!("{dead},{live}"))
        .env("QUORATE_CONTEXT", "node1")
        .output()
        .expect("the binary runs");
    assert_eq!(vote.status.code(), Some(0), "{vote:?}");
    // In a context.
    let both = format!("{dead},{live}");
    home.run(&["config", "set-context", "node1", "--endpoint", &both])
        .expect(0);
    home.run(&["status", "tx_1"]).expect(0);
    home.run(&["status", "tx_1", "--context", "node1"])
        .expect(0);
    // Nobody is left: all that was tried is named.
    let none = format!("{dead},{mute}");
    let lost = ["list", "--endpoint", &none, "--context", "node1", "--json"];
    let error = home.run(&lost).expect(3).error();
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains(dead), "{message}");
    // An unknown context is named as such.
    let unknown = home.run(&["list", "--context", "nowhere"]).expect(2);
    assert!(unknown.stderr.contains("nowhere"), "{}", unknown.stderr);
    let files = ["list", "--endpoint", &live];
    let none = home.run(&files).expect(2);
    assert!(none.stderr.contains("--context"), "{}", none.stderr);
}

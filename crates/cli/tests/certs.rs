//! Certificates after their first day: renewed, revoked, and the lists that say so.

mod common;

use common::Home;
use serde_json::Value;

#[test]
fn a_certificate_is_renewed_with_its_key_and_with_a_new_one() {
    let home = Home::enrolled();
    let key = home.path().join("certs/alone.key");
    let old_key = std::fs::read(&key).expect("a key");
    let before = home.certificate("certs/alone.crt");
    let renew = [
        "certs",
        "renew",
        "certs/alone.crt",
        "--days",
        "30",
        "--json",
    ];
    let made = home.run(&renew).expect(0).json();
    assert_eq!(made["cert"], "certs/alone.crt");
    assert_eq!(made["key"], Value::Null);
    assert_eq!(made["facts"]["identity"], "spiffe://solo/node/alone");
    let after = home.certificate("certs/alone.crt");
    assert_eq!(after, made["facts"]);
    assert_ne!(after["serial"], before["serial"]);
    assert_eq!(after["dns"], before["dns"]);
    assert_eq!(std::fs::read(&key).expect("a key"), old_key);

    for file in ["certs/alone.crt", "certs/app.crt"] {
        let made = home
            .run(&["certs", "renew", file, "--new-key", "--json"])
            .expect(0)
            .json();
        assert_eq!(made["key"], file.replace(".crt", ".key"));
    }
    assert_ne!(std::fs::read(&key).expect("a key"), old_key);
    home.run(&["certs", "verify", "certs/alone.crt", "--ca", "certs/ca.crt"])
        .expect(0);
    let own = "certs/alone-clients-ca.crt";
    home.run(&["certs", "verify", "certs/app.crt", "--ca", own])
        .expect(0);
}

#[test]
fn away_from_the_cluster_ca_a_new_key_is_a_request() {
    let home = Home::enrolled();
    let ca = home.path().join("elsewhere");
    std::fs::create_dir(&ca).expect("a directory");
    for file in ["ca.crt", "ca.key"] {
        let from = home.path().join("certs").join(file);
        std::fs::rename(from, ca.join(file)).expect("moved");
    }
    let refused = home.run(&["certs", "renew", "certs/alone.crt"]).expect(2);
    assert!(refused.stderr.contains("--new-key"), "{}", refused.stderr);
    let asked = home
        .run(&["certs", "renew", "certs/alone.crt", "--new-key", "--json"])
        .expect(0)
        .json();
    assert_eq!(asked["csr"], "certs/alone-next.csr");
    let sign = [
        "certs",
        "sign",
        "--node-id",
        "alone",
        "--csr",
        "certs/alone-next.csr",
        "--dir",
        "elsewhere",
        "-o",
        "certs/alone-next.crt",
    ];
    home.run(&sign).expect(0);
    let verify = [
        "certs",
        "verify",
        "certs/alone-next.crt",
        "--ca",
        "elsewhere/ca.crt",
    ];
    home.run(&verify).expect(0);
    // Neither the key in use nor a request under way is written over.
    home.run(&["certs", "renew", "certs/alone.crt", "--new-key"])
        .expect(1);
}

#[test]
fn what_is_revoked_is_on_its_ca_s_list_and_not_renewed() {
    let home = Home::enrolled();
    let empty = home.run(&["certs", "crl", "--json"]).expect(1).error();
    let hint = empty["hint"].as_str().expect("a hint");
    assert!(hint.contains("crl --renew"), "{hint}");
    let made = home
        .run(&["certs", "crl", "--renew", "--days", "7", "--json"])
        .expect(0)
        .json();
    assert_eq!(made["crl"], "certs/ca.crl");
    let list = &made["lists"][0];
    assert_eq!(
        (&list["number"], &list["revoked"]),
        (&1.into(), &Value::Array(vec![]))
    );
    let week = 7 * 86_400_000 + 300_000;
    let span = list["next_update_ms"]
        .as_u64()
        .zip(list["this_update_ms"].as_u64());
    assert_eq!(span.map(|(next, this)| next - this), Some(week));

    let serial = home.certificate("certs/alone.crt")["serial"].clone();
    let revoked = home
        .run(&["certs", "revoke", "certs/alone.crt", "--json"])
        .expect(0)
        .json();
    assert_eq!(revoked["crl"], "certs/ca.crl");
    assert_eq!(revoked["revoked"][0], serial);
    assert_eq!(revoked["list"]["number"], 2);
    let shown = home.run(&["certs", "crl", "--json"]).expect(0).json();
    assert_eq!(shown["lists"][0], revoked["list"]);
    let verify = ["certs", "verify", "certs/alone.crt", "--ca", "certs/ca.crt"];
    home.run(&verify).expect(0);
    let held = home.run(&[&verify[..], &["--crl", "certs/ca.crl"]].concat());
    let said = held.expect(1).stderr;
    assert!(said.contains("was revoked"), "{said}");
    let renewed = home.run(&["certs", "renew", "certs/alone.crt"]).expect(1);
    assert!(renewed.stderr.contains("is revoked"), "{}", renewed.stderr);

    // A client's goes on its trustee's own list, by its number alone, too.
    let serial = home.certificate("certs/app.crt")["serial"].clone();
    let by_number = [
        "certs",
        "revoke",
        "--serial",
        serial.as_str().expect("a number"),
        "--node-id",
        "alone",
        "--json",
    ];
    let revoked = home.run(&by_number).expect(0).json();
    assert_eq!(revoked["crl"], "certs/alone-clients-ca.crl");
    let again = home.run(&["certs", "revoke", "certs/app.crt", "--json"]);
    let again = again.expect(0).json();
    assert_eq!(again["list"]["number"], 2);
    assert_eq!(again["list"]["revoked"], revoked["list"]["revoked"]);
    let own = home.run(&["certs", "crl", "--node-id", "alone"]).expect(0);
    assert!(own.stdout.contains("since"), "{}", own.stdout);

    let both = home.run(&["certs", "revoke", "certs/alone.crt", "certs/app.crt"]);
    assert!(both.expect(2).stderr.contains("several CAs"));
    home.run(&["certs", "revoke"]).expect(2);
    home.run(&["certs", "revoke", "--serial", "xyz"]).expect(2);
}

#[test]
fn every_place_can_be_named() {
    let home = Home::enrolled();
    std::fs::rename(home.path().join("certs"), home.path().join("ca")).expect("moved");
    let alone = home.path().join("mine.crt");
    std::fs::copy(home.path().join("ca/alone.crt"), &alone).expect("copied");
    let renew = [
        "certs", "renew", "mine.crt", "--dir", "ca", "-o", "new.crt", "--json",
    ];
    let made = home.run(&renew).expect(0).json();
    assert_eq!(made["cert"], "new.crt");
    let serial = |file: &str| home.certificate(file)["serial"].clone();
    assert_ne!(serial("new.crt"), serial("mine.crt"));

    let revoke = [
        "certs", "revoke", "mine.crt", "--dir", "ca", "--crl", "a.crl",
    ];
    let revoked = home
        .run(&[&revoke[..], &["--days", "3", "--json"]].concat())
        .expect(0)
        .json();
    assert_eq!(revoked["crl"], "a.crl");
    let lasts = |list: &Value| {
        let next = list["next_update_ms"].as_u64().expect("an end");
        next - list["this_update_ms"].as_u64().expect("a beginning")
    };
    assert_eq!(lasts(&revoked["list"]), 3 * 86_400_000 + 300_000);
    // The list of the trustee's own CA goes beside it, and each is renewed for itself.
    let own = [
        "certs",
        "crl",
        "--node-id",
        "alone",
        "--dir",
        "ca",
        "--crl",
        "a.crl",
    ];
    home.run(&[&own[..], &["--renew"]].concat()).expect(0);
    let both = home.run(&["certs", "crl", "--crl", "a.crl", "--json"]);
    let both = both.expect(0).json();
    let numbers = |lists: &Value| {
        let lists = lists["lists"].as_array().expect("lists");
        let of = |list: &Value| {
            let revoked = list["revoked"].as_array().map(Vec::len);
            (list["number"].as_u64(), revoked)
        };
        let mut numbers: Vec<_> = lists.iter().map(of).collect();
        numbers.sort_unstable();
        numbers
    };
    assert_eq!(numbers(&both), [(Some(1), Some(0)), (Some(1), Some(1))]);
    home.run(&["certs", "crl", "--renew", "--dir", "ca", "--crl", "a.crl"])
        .expect(0);
    let both = home.run(&["certs", "crl", "--crl", "a.crl", "--json"]);
    assert_eq!(
        numbers(&both.expect(0).json()),
        [(Some(1), Some(0)), (Some(2), Some(1))]
    );
}

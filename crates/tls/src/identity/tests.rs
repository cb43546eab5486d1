use super::*;

fn node(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

#[test]
fn identities_go_to_text_and_back() {
    let uris = [
        "spiffe://demo/node/node1",
        "spiffe://demo/client/node1/alice",
        "spiffe://my-cluster-2/operator/node_1/Olga.O-2_b",
    ];
    for uri in uris {
        assert_eq!(Identity::parse(uri).unwrap().to_string(), uri);
    }
    let alice = Identity::parse(uris[1]).unwrap();
    let same = Identity::person("demo", PersonRole::Client, node("node1"), "alice").unwrap();
    assert_eq!(alice, same);
    assert_eq!(alice.role, Role::Client);
    assert_eq!(Identity::parse(uris[0]).unwrap().name, None);
}

#[test]
fn anything_else_is_no_identity() {
    let long = format!("spiffe://demo/client/node1/{}", "x".repeat(64));
    let others = [
        "",
        "node1",
        "https://demo/node/node1",
        "SPIFFE://demo/node/node1",
        "spiffe://demo",
        "spiffe://demo/",
        "spiffe://demo/node",
        "spiffe://demo/node/",
        "spiffe://demo/node/node1/",
        "spiffe://demo/node/node1/alice",
        "spiffe://demo/Node/node1",
        "spiffe://demo/node/NODE1",
        "spiffe:///node/node1",
        "spiffe://Demo/node/node1",
        "spiffe://de mo/node/node1",
        "spiffe://demo:80/node/node1",
        "spiffe://demo/node/node1?x",
        "spiffe://demo/node/node1#x",
        "spiffe://demo/node/../node1",
        "spiffe://demo//node/node1",
        "spiffe://demo/client/node1",
        "spiffe://demo/client/node1/",
        "spiffe://demo/client/node1/a/b",
        "spiffe://demo/client/node1/..",
        "spiffe://demo/client/node1/%61",
        "spiffe://demo/admin/node1/alice",
        "spiffe://demo/clients-ca/node1",
        &long,
    ];
    for uri in others {
        let refused = Identity::parse(uri);
        assert_eq!(
            refused,
            Err(IdentityError::Foreign(uri.to_owned())),
            "{uri}"
        );
    }
}

#[test]
fn names_of_people_are_file_names_too() {
    for name in ["", ".", "..", "a/b", "a b", "ä", &"x".repeat(64)] {
        let refused = Identity::person("demo", PersonRole::Client, node("node1"), name);
        assert!(matches!(refused, Err(IdentityError::Name(_))), "{name:?}");
    }
    for name in ["a", ".a", "A.b_c-9", &"x".repeat(63)] {
        assert!(Identity::person("demo", PersonRole::Client, node("node1"), name).is_ok());
    }
}

#[test]
fn serial_numbers_ignore_leading_zeros_and_colons() {
    let serial = Serial::new(&[0, 0, 0x0a, 0xbc]);
    assert_eq!(serial.to_string(), "0abc");
    for text in ["0ABC", "abc", "00:0a:bc", "000000ABC"] {
        assert_eq!(Serial::from_hex(text), Some(serial.clone()), "{text}");
    }
    for text in ["", "0x12", "xyz", ":"] {
        assert_eq!(Serial::from_hex(text), None, "{text}");
    }
}

#[test]
fn bytes_that_are_no_certificate_name_nobody() {
    for bytes in [&b""[..], b"nonsense", &[0x30, 0x03, 0x02, 0x01, 0x01]] {
        let found = Identity::of_certificate(bytes);
        assert_eq!(found, Err(IdentityError::Unreadable));
    }
}

//! What openssl says of our certificates, and we of its requests.

mod common;

use std::path::Path;
use std::process::Command;

use common::*;
use quorate_tls::Identity;
use quorate_tls::identity::PersonRole;
use quorate_tls::pki::{
    PkiError, Renew, Revoke, SignRequest, Validity, renew, revoke, serial_issued_by, show,
    show_crls, sign_request,
};

fn openssl(args: &[&str]) -> (bool, String) {
    let out = Command::new("openssl")
        .args(args)
        .output()
        .expect("this test needs the program openssl: install it");
    let text = [out.stdout, out.stderr].concat();
    (
        out.status.success(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn openssl_verifies_nodes_and_clients_by_their_ca_and_no_other() {
    let world = World::new(&["node1"]);
    let files = world.files("node1");
    let alice = world.issue("node1", PersonRole::Client, "alice");
    let (ca, clients_ca) = (world.ca().0, files.clients_ca_cert.clone());
    let verify = |ca: &Path, purpose: &str, cert: &Path| {
        openssl(&[
            "verify",
            "-x509_strict",
            "-purpose",
            purpose,
            "-CAfile",
            text(ca),
            text(cert),
        ])
    };
    for (ca, purpose, cert) in [
        (&ca, "sslserver", &files.cert),
        (&ca, "sslclient", &files.cert),
        (&clients_ca, "sslclient", &alice.cert),
    ] {
        let (fine, said) = verify(ca, purpose, cert);
        assert!(fine && said.contains(": OK"), "{said}");
    }
    for (ca, purpose, cert) in [
        (&clients_ca, "sslserver", &files.cert),
        (&ca, "sslclient", &alice.cert),
        (&clients_ca, "sslserver", &alice.cert),
    ] {
        let (fine, said) = verify(ca, purpose, cert);
        assert!(!fine, "{said}");
    }
    let plain = openssl(&["verify", "-CAfile", text(&ca), text(&files.cert)]);
    assert!(plain.0, "{}", plain.1);
}

#[test]
fn openssl_reads_the_same_facts() {
    let world = World::new(&["node1"]);
    let files = world.files("node1");
    let facts = show(&std::fs::read(&files.cert).unwrap()).unwrap();
    let (_, serial) = openssl(&["x509", "-in", text(&files.cert), "-noout", "-serial"]);
    let serial = serial.trim().strip_prefix("serial=").unwrap();
    assert_eq!(quorate_tls::Serial::from_hex(serial), Some(facts.serial));
    let (_, said) = openssl(&["x509", "-in", text(&files.cert), "-noout", "-text"]);
    for part in [
        "URI:spiffe://demo/node/node1, DNS:localhost, IP Address:127.0.0.1",
        "DNS:node1",
        "TLS Web Server Authentication, TLS Web Client Authentication",
        "prime256v1",
        "ecdsa-with-SHA256",
        "CA:FALSE",
        "X509v3 Authority Key Identifier",
    ] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let (_, said) = openssl(&["x509", "-in", text(&world.ca().0), "-noout", "-text"]);
    for part in ["CA:TRUE, pathlen:0", "Certificate Sign, CRL Sign"] {
        assert!(said.contains(part), "{part}\n{said}");
    }
    let (fine, said) = openssl(&["req", "-in", text(&files.csr), "-noout", "-verify"]);
    assert!(fine && said.contains("verify OK"), "{said}");
}

#[test]
fn openssl_honours_our_revocation_list() {
    let world = World::new(&["node1", "node2"]);
    let ca = world.ca();
    let revoked = serial_of(&world.files("node1").cert);
    let crl = world.crl(&ca, &[revoked], Validity::leaf());
    let verify = |cert: &Path| {
        openssl(&[
            "verify",
            "-crl_check",
            "-CRLfile",
            text(&crl),
            "-CAfile",
            text(&ca.0),
            text(cert),
        ])
    };
    let (fine, said) = verify(&world.files("node1").cert);
    assert!(!fine && said.contains("certificate revoked"), "{said}");
    let (fine, said) = verify(&world.files("node2").cert);
    assert!(fine, "{said}");
}

#[test]
fn openssl_reads_a_list_that_grows_and_is_renewed() {
    let world = World::new(&["node1", "node2", "node3"]);
    let (ca_cert, ca_key) = world.ca();
    let crl = world.path().join("ca.crl");
    let add = |ids: &[&str]| {
        let serials = ids
            .iter()
            .map(|id| serial_issued_by(&world.files(id).cert, &ca_cert).unwrap());
        revoke(&Revoke {
            ca_cert: ca_cert.clone(),
            ca_key: ca_key.clone(),
            serials: serials.collect(),
            crl: crl.clone(),
            validity: Validity::leaf(),
        })
        .unwrap()
    };
    let revoked = |id: &str| {
        let (fine, said) = openssl(&[
            "verify",
            "-crl_check",
            "-CRLfile",
            text(&crl),
            "-CAfile",
            text(&ca_cert),
            text(&world.files(id).cert),
        ]);
        assert!(fine || said.contains("certificate revoked"), "{said}");
        !fine
    };
    // An empty list first; then one and another; the same again changes nothing but
    // the number.
    for (new, number, all) in [
        (&[][..], 1, &[][..]),
        (&["node1"], 2, &["node1"]),
        (&["node3"], 3, &["node1", "node3"]),
        (&["node3"], 4, &["node1", "node3"]),
        (&[], 5, &["node1", "node3"]),
    ] {
        let made = add(new);
        assert_eq!(made.number, number);
        assert_eq!(made.revoked.len(), all.len());
        assert_eq!(show_crls(&crl).unwrap(), [made]);
        for id in ["node1", "node2", "node3"] {
            assert_eq!(revoked(id), all.contains(&id), "{id} after {number}");
        }
        let (fine, said) = openssl(&[
            "crl",
            "-in",
            text(&crl),
            "-CAfile",
            text(&ca_cert),
            "-noout",
            "-text",
        ]);
        assert!(fine && said.contains("verify OK"), "{said}");
        for part in [
            "X509v3 CRL Number",
            "X509v3 Authority Key Identifier",
            "Next Update",
        ] {
            assert!(said.contains(part), "{part}\n{said}");
        }
    }

    // The list of another CA in the same file stays as it is, and is nobody's of this.
    let alice = world.issue("node2", PersonRole::Client, "alice");
    let own_ca = world.clients_ca("node2");
    let made = revoke(&Revoke {
        ca_cert: own_ca.0.clone(),
        ca_key: own_ca.1,
        serials: vec![serial_issued_by(&alice.cert, &own_ca.0).unwrap()],
        crl: crl.clone(),
        validity: Validity::leaf(),
    })
    .unwrap();
    assert_eq!((made.number, made.revoked.len()), (1, 1));
    assert_eq!(show_crls(&crl).unwrap().len(), 2);
    assert_eq!(add(&["node2"]).number, 6);
    let lists = show_crls(&crl).unwrap();
    assert_eq!(lists.len(), 2);
    assert!(lists.contains(&made) && revoked("node2"));
    // No CA revokes what it has not made.
    let error = serial_issued_by(&alice.cert, &ca_cert).unwrap_err();
    assert!(matches!(error, PkiError::OtherIssuer { .. }), "{error}");
}

#[test]
fn openssl_verifies_what_was_renewed() {
    let world = World::new(&["node1"]);
    let files = world.files("node1");
    let (ca_cert, ca_key) = world.ca();
    let public_key = || {
        let args = ["x509", "-in", text(&files.cert), "-noout", "-pubkey"];
        openssl(&args).1
    };
    let verified = || {
        let (fine, said) = openssl(&[
            "verify",
            "-x509_strict",
            "-purpose",
            "sslserver",
            "-verify_hostname",
            "node1",
            "-CAfile",
            text(&ca_cert),
            text(&files.cert),
        ]);
        assert!(fine, "{said}");
        let (_, key) = openssl(&["pkey", "-in", text(&files.key), "-pubout"]);
        assert_eq!(key, public_key());
    };
    let (first, serial) = (public_key(), serial_of(&files.cert));
    // One past its time is renewed, too.
    world.certify("node1", past());
    let mut params = Renew {
        cert: files.cert.clone(),
        ca_cert: ca_cert.clone(),
        ca_key: ca_key.clone(),
        crl: None,
        new_key: None,
        out: files.cert.clone(),
        validity: Validity::leaf(),
    };
    let before = show(&std::fs::read(&files.cert).unwrap()).unwrap();
    let after = renew(&params).unwrap();
    assert_eq!(public_key(), first);
    verified();
    assert_eq!(
        (&after.identity, &after.dns, &after.ips),
        (&before.identity, &before.dns, &before.ips)
    );
    assert_ne!(after.serial, serial);

    params.new_key = Some(files.key.clone());
    renew(&params).unwrap();
    assert_ne!(public_key(), first);
    verified();

    // Who is revoked stays so.
    let crl = world.path().join("ca.crl");
    revoke(&Revoke {
        ca_cert: ca_cert.clone(),
        ca_key,
        serials: vec![serial_of(&files.cert)],
        crl: crl.clone(),
        validity: Validity::leaf(),
    })
    .unwrap();
    params.crl = Some(crl);
    let error = renew(&params).unwrap_err();
    assert!(matches!(error, PkiError::Revoked(_)), "{error}");
    // And no CA renews what another has made.
    let (cert, key) = world.clients_ca("node1");
    (params.ca_cert, params.ca_key, params.crl) = (cert, key, None);
    let error = renew(&params).unwrap_err();
    assert!(matches!(error, PkiError::OtherIssuer { .. }), "{error}");
}

/// A request made by openssl with these names and this key; what we say to it.
fn ask(world: &World, san: &str, key: &[&str], more: &[&str]) -> Result<Identity, PkiError> {
    let (key_path, csr) = (world.path().join("o.key"), world.path().join("o.csr"));
    let names = format!("subjectAltName={san}");
    let mut args = vec!["req", "-new", "-nodes", "-subj", "/CN=x"];
    args.extend_from_slice(key);
    args.extend_from_slice(&["-keyout", text(&key_path), "-out", text(&csr)]);
    if !san.is_empty() {
        args.extend_from_slice(&["-addext", &names]);
    }
    args.extend_from_slice(more);
    let (made, said) = openssl(&args);
    assert!(made, "{said}");
    let out = world.path().join("o.crt");
    sign_request(&SignRequest {
        ca_dir: world.path().into(),
        csr,
        node_id: node("node7"),
        sans: Vec::new(),
        out: out.clone(),
        validity: Validity::leaf(),
    })?;
    Ok(show(&std::fs::read(out).unwrap())
        .unwrap()
        .identity
        .unwrap())
}

const P256: &[&str] = &["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"];

#[test]
fn requests_made_by_openssl_are_held_to_the_same_rules() {
    let world = World::new(&[]);
    let right = "URI:spiffe://demo/node/node7";
    let fine = ask(&world, &format!("{right},DNS:node7"), P256, &[]).unwrap();
    assert_eq!(fine, Identity::node("demo", node("node7")));

    for san in [
        "DNS:node7",
        "URI:spiffe://demo/node/node8",
        "URI:spiffe://demo/client/node7/alice",
        "URI:spiffe://prod/node/node7",
        "URI:spiffe://demo/node/node7,URI:spiffe://demo/node/node8",
        "",
    ] {
        let error = ask(&world, san, P256, &[]).unwrap_err();
        assert!(
            matches!(error, PkiError::RequestIdentity { .. }),
            "{san}: {error}"
        );
    }
    for more in [
        "DNS:evil.example.com",
        "IP:10.1.2.3",
        "email:a@example.com",
        "DNS:*.node7",
    ] {
        let error = ask(&world, &format!("{right},{more}"), P256, &[]).unwrap_err();
        assert!(matches!(error, PkiError::RequestName(_)), "{more}: {error}");
    }
    let ca = ["-addext", "basicConstraints=CA:TRUE"];
    let error = ask(&world, right, P256, &ca).unwrap_err();
    assert!(matches!(error, PkiError::RequestAuthority), "{error}");

    let p384 = [
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-384",
        "-sha256",
    ];
    for key in [&p384[..], &["-newkey", "rsa:2048"], &["-newkey", "ed25519"]] {
        let error = ask(&world, right, key, &[]).unwrap_err();
        let known = matches!(
            error,
            PkiError::RequestKey(_) | PkiError::RequestSignature(_)
        );
        assert!(known, "{key:?}: {error}");
    }
}

//! What openssl says of our certificates, and we of its requests.

mod common;

use std::path::Path;
use std::process::Command;

use common::*;
use quorate_tls::Identity;
use quorate_tls::identity::PersonRole;
use quorate_tls::pki::{PkiError, SignRequest, Validity, show, sign_request};

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

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::identity::{PersonRole, Role, Serial};

struct Dir(tempfile::TempDir);

impl Dir {
    /// A cluster CA, and node1 that has asked.
    fn new() -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        init_cluster_ca(&dir.init("demo")).unwrap();
        request(&dir.request("node1", &[])).unwrap();
        dir
    }

    fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    fn files(&self, id: &str) -> NodeFiles {
        NodeFiles::in_dir(&self.path(), &node(id))
    }

    fn init(&self, name: &str) -> InitCa {
        InitCa {
            dir: self.path(),
            cluster_name: name.into(),
            validity: Validity::authority(),
        }
    }

    fn request(&self, id: &str, sans: &[&str]) -> Request {
        Request {
            dir: self.path(),
            cluster_name: "demo".into(),
            node_id: node(id),
            sans: sans.iter().map(|s| (*s).into()).collect(),
            authority_validity: Validity::authority(),
        }
    }

    fn sign(&self, id: &str) -> SignRequest {
        let files = self.files(id);
        SignRequest {
            ca_dir: self.path(),
            csr: files.csr,
            node_id: node(id),
            sans: Vec::new(),
            out: files.cert,
            validity: Validity::leaf(),
        }
    }

    fn issue(&self, id: &str, role: PersonRole, name: &str) -> Issue {
        Issue {
            trustee_dir: self.path(),
            node_id: node(id),
            role,
            name: name.into(),
            out_dir: self.path(),
            validity: Validity::leaf(),
        }
    }

    fn facts(&self, cert: &Path) -> CertFacts {
        show(&std::fs::read(cert).unwrap()).unwrap()
    }
}

fn node(id: &str) -> NodeId {
    NodeId::new(id).unwrap()
}

fn verify_now(cert: &Path, ca: &Path, crl: Option<&Path>) -> Result<CertFacts, VerifyError> {
    verify(&Verify {
        cert: cert.into(),
        ca: ca.into(),
        crl: crl.map(Into::into),
        now: SystemTime::now(),
    })
}

#[test]
fn enrolment_makes_the_files_that_are_promised_and_keys_are_private() {
    let dir = Dir::new();
    sign_request(&dir.sign("node1")).unwrap();
    issue(&dir.issue("node1", PersonRole::Client, "alice")).unwrap();
    let mut names: Vec<(String, u32)> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            (entry.file_name().into_string().unwrap(), mode)
        })
        .collect();
    names.sort();
    let only: Vec<&str> = names.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        only,
        [
            "alice.crt",
            "alice.key",
            "ca.crt",
            "ca.key",
            "node1-clients-ca.crt",
            "node1-clients-ca.key",
            "node1-node.key",
            "node1-vote.key",
            "node1.crt",
            "node1.csr",
            "node1.key",
            "node1.member",
        ]
    );
    for (name, mode) in names {
        assert_eq!(name.ends_with(".key"), mode == 0o600, "{name} {mode:o}");
    }
    let (_, member) = quorate_crypto::read_member(&dir.files("node1").member).unwrap();
    let key = |path: &Path| quorate_crypto::SigningKey::read(path).unwrap().public_key();
    assert_eq!(member.vote_key, key(&dir.files("node1").vote_key));
    assert_eq!(member.node_key, key(&dir.files("node1").node_key));
}

#[test]
fn certificates_say_who_and_what_for() {
    let dir = Dir::new();
    sign_request(&dir.sign("node1")).unwrap();
    let before = SystemTime::now();
    let node1 = dir.facts(&dir.files("node1").cert);
    assert_eq!(node1.identity, Ok(Identity::node("demo", node("node1"))));
    assert_eq!(node1.uris, ["spiffe://demo/node/node1"]);
    assert_eq!(node1.dns, ["localhost", "node1"]);
    assert_eq!(node1.ips.len(), 2);
    assert!(node1.server_auth && node1.client_auth && !node1.is_ca);
    assert_eq!(node1.subject, "CN=node1");
    // Two CAs of one cluster, one of which replaces the other, have two names.
    let (name, unit) = node1.issuer.split_once(", OU=").unwrap();
    assert_eq!((name, unit.len()), ("CN=demo cluster CA", 16));
    let year = LEAF_DAYS * 86_400_000;
    let now = before
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_millis() as u64;
    assert!(node1.not_before_ms < now && node1.not_after_ms.abs_diff(now + year) < 60_000);

    for (role, word) in [
        (PersonRole::Client, "client"),
        (PersonRole::Operator, "operator"),
    ] {
        let files = issue(&dir.issue("node1", role, word)).unwrap();
        let facts = dir.facts(&files.cert);
        assert_eq!(facts.uris, [format!("spiffe://demo/{word}/node1/{word}")]);
        assert!(facts.client_auth && !facts.server_auth && !facts.is_ca);
        assert!(facts.dns.is_empty() && facts.ips.is_empty());
        assert_eq!(facts.identity.unwrap().role, Role::from(role));
    }
    for ca in [
        cluster_ca_cert(&dir.path()),
        dir.files("node1").clients_ca_cert,
    ] {
        let facts = dir.facts(&ca);
        assert!(facts.is_ca && facts.identity.is_err());
        let years = facts.not_after_ms - facts.not_before_ms;
        assert!(years > 3649 * 86_400_000);
    }
}

#[test]
fn nothing_is_written_over_and_nothing_half_done() {
    let dir = Dir::new();
    let exists = |error: PkiError| matches!(error, PkiError::File(FileError::Exists(_)));
    assert!(exists(init_cluster_ca(&dir.init("demo")).unwrap_err()));
    assert!(exists(request(&dir.request("node1", &[])).unwrap_err()));
    // One file of node2 that is there stops all of it.
    std::fs::write(dir.files("node2").vote_key, b"precious").unwrap();
    assert!(exists(request(&dir.request("node2", &[])).unwrap_err()));
    assert!(!dir.files("node2").node_key.exists() && !dir.files("node2").key.exists());
    issue(&dir.issue("node1", PersonRole::Client, "alice")).unwrap();
    let again = issue(&dir.issue("node1", PersonRole::Operator, "alice"));
    assert!(exists(again.unwrap_err()));
}

#[test]
fn wrong_names_are_refused() {
    let dir = Dir::new();
    let sub = dir.path().join("sub");
    let init = InitCa {
        dir: sub.clone(),
        ..dir.init("Demo")
    };
    assert!(matches!(init_cluster_ca(&init), Err(PkiError::Member(_))));
    assert!(!sub.exists());
    let request_for = |id, sans: &[&str]| request(&dir.request(id, sans)).unwrap_err();
    for san in ["*.example.com", "a b", "-x", "", "http://x"] {
        let error = request_for("node2", &[san]);
        assert!(matches!(error, PkiError::San(_)), "{san}: {error}");
    }
    for name in ["../x", "", "a/b"] {
        let error = issue(&dir.issue("node1", PersonRole::Client, name)).unwrap_err();
        assert!(matches!(error, PkiError::Name(_)), "{name}: {error}");
    }
}

#[test]
fn a_node_id_that_is_no_host_name_is_left_out_of_the_host_names() {
    assert_eq!(default_sans(&node("node_1")).len(), 4);
    for id in ["-n", "n-", "7"] {
        assert_eq!(default_sans(&node(id)), ["localhost", "127.0.0.1", "::1"]);
    }
    let dir = Dir::new();
    request(&dir.request("n-", &["n.example.com"])).unwrap();
    let mut sign = dir.sign("n-");
    sign.sans = vec!["n.example.com".into()];
    sign_request(&sign).unwrap();
    assert_eq!(
        dir.facts(&dir.files("n-").cert).dns,
        ["localhost", "n.example.com"]
    );
}

#[test]
fn the_ca_signs_for_the_expected_node_and_allowed_names_only() {
    let dir = Dir::new();
    let mut other = dir.sign("node1");
    other.node_id = node("node2");
    let error = sign_request(&other).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the request is for spiffe://demo/node/node1, not for spiffe://demo/node/node2"
    );
    let foreign = Request {
        cluster_name: "prod".into(),
        ..dir.request("node3", &[])
    };
    request(&foreign).unwrap();
    let error = sign_request(&dir.sign("node3")).unwrap_err();
    assert!(matches!(error, PkiError::RequestIdentity { .. }), "{error}");

    request(&dir.request("node4", &["node4.example.com", "10.0.0.4"])).unwrap();
    let mut sign = dir.sign("node4");
    let error = sign_request(&sign).unwrap_err().to_string();
    assert!(error.contains("`--san node4.example.com`"), "{error}");
    sign.sans = vec!["node4.example.com".into()];
    let error = sign_request(&sign).unwrap_err().to_string();
    assert!(error.contains("`--san 10.0.0.4`"), "{error}");
    assert!(!sign.out.exists());
    sign.sans.push("10.0.0.4".into());
    sign_request(&sign).unwrap();
    assert_eq!(dir.facts(&sign.out).ips.len(), 3);
    // Renewal: the same request, a new certificate in the old one's place.
    let first = dir.facts(&sign.out);
    sign_request(&sign).unwrap();
    assert_ne!(dir.facts(&sign.out).serial, first.serial);
}

#[test]
fn a_request_that_its_key_did_not_sign_is_refused() {
    use rustls::pki_types::CertificateSigningRequestDer;
    use rustls::pki_types::pem::PemObject;
    let dir = Dir::new();
    let sign = dir.sign("node1");
    let der = CertificateSigningRequestDer::from_pem_file(&sign.csr).unwrap();
    let text = String::from_utf8_lossy(&der).into_owned();
    assert!(text.contains("spiffe://demo/node/node1"));
    // Another name in the same request: the signature no longer fits.
    let mut bytes = der.to_vec();
    let name = b"node/node1";
    let at = bytes.windows(name.len()).position(|w| w == name).unwrap();
    bytes[at + name.len() - 1] = b'2';
    let pem = rcgen_pem(&bytes);
    std::fs::write(&sign.csr, pem).unwrap();
    let mut as_node2 = sign.clone();
    as_node2.node_id = node("node2");
    for sign in [sign, as_node2] {
        let error = sign_request(&sign).unwrap_err();
        assert!(matches!(error, PkiError::RequestSignature(_)), "{error}");
    }
    std::fs::write(dir.files("node1").csr, "nonsense").unwrap();
    let error = sign_request(&dir.sign("node1")).unwrap_err();
    assert!(matches!(error, PkiError::RequestSignature(_)), "{error}");
}

fn rcgen_pem(der: &[u8]) -> String {
    use std::fmt::Write;
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in der.chunks(3) {
        let n = chunk.iter().fold(0_u32, |n, b| n << 8 | u32::from(*b)) << (8 * (3 - chunk.len()));
        for i in 0..4 {
            let digit = alphabet[(n >> (18 - 6 * i)) as usize & 63] as char;
            text.push(if i <= chunk.len() { digit } else { '=' });
        }
    }
    let mut pem = String::from("-----BEGIN CERTIFICATE REQUEST-----\n");
    for line in text.as_bytes().chunks(64) {
        writeln!(pem, "{}", String::from_utf8_lossy(line)).unwrap();
    }
    pem + "-----END CERTIFICATE REQUEST-----\n"
}

#[test]
fn no_ca_does_the_work_of_another() {
    let dir = Dir::new();
    // The trustee's CA in the cluster CA's place.
    let fake = tempfile::tempdir().unwrap();
    let files = dir.files("node1");
    std::fs::copy(&files.clients_ca_cert, cluster_ca_cert(fake.path())).unwrap();
    std::fs::copy(&files.clients_ca_key, cluster_ca_key(fake.path())).unwrap();
    let mut sign = dir.sign("node1");
    sign.ca_dir = fake.path().into();
    let error = sign_request(&sign).unwrap_err();
    assert!(matches!(error, PkiError::WrongAuthority { .. }), "{error}");
    // The cluster CA in the trustee's place.
    std::fs::copy(cluster_ca_cert(&dir.path()), &files.clients_ca_cert).unwrap();
    std::fs::copy(cluster_ca_key(&dir.path()), &files.clients_ca_key).unwrap();
    let error = issue(&dir.issue("node1", PersonRole::Client, "alice")).unwrap_err();
    assert!(matches!(error, PkiError::WrongAuthority { .. }), "{error}");
    // A CA whose key is another's.
    request(&dir.request("node2", &[])).unwrap();
    let two = dir.files("node2");
    std::fs::copy(&two.key, &two.clients_ca_key).unwrap();
    let error = issue(&dir.issue("node2", PersonRole::Client, "alice")).unwrap_err();
    assert!(matches!(error, PkiError::WrongAuthority { .. }), "{error}");
    assert!(!dir.path().join("alice.key").exists());
}

#[test]
fn verifying_takes_the_right_ca_the_right_time_and_no_revocation() {
    let dir = Dir::new();
    sign_request(&dir.sign("node1")).unwrap();
    let files = dir.files("node1");
    let ca = cluster_ca_cert(&dir.path());
    let alice = issue(&dir.issue("node1", PersonRole::Client, "alice"))
        .unwrap()
        .cert;
    let fine = verify_now(&files.cert, &ca, None).unwrap();
    assert_eq!(
        fine.identity.unwrap(),
        Identity::node("demo", node("node1"))
    );
    verify_now(&alice, &files.clients_ca_cert, None).unwrap();

    let wrong = verify_now(&alice, &ca, None).unwrap_err();
    assert!(matches!(wrong, VerifyError::Authority { .. }), "{wrong}");
    let wrong = verify_now(&files.cert, &files.clients_ca_cert, None).unwrap_err();
    assert!(matches!(wrong, VerifyError::Authority { .. }), "{wrong}");
    let nobody = verify_now(&ca, &ca, None).unwrap_err();
    assert!(
        matches!(nobody, VerifyError::Pki(PkiError::Identity { .. })),
        "{nobody}"
    );
    let twin = Dir::new();
    let other = verify_now(&files.cert, &cluster_ca_cert(&twin.path()), None).unwrap_err();
    assert!(matches!(other, VerifyError::Chain(_)), "{other}");

    let years = Duration::from_secs(2 * LEAF_DAYS * 86_400);
    for (now, word) in [
        (SystemTime::now() + years, "expired"),
        (SystemTime::now() - years, "not valid yet"),
    ] {
        let params = Verify {
            cert: files.cert.clone(),
            ca: ca.clone(),
            crl: None,
            now,
        };
        let error = verify(&params).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }

    let list = |revoked: &[Serial]| {
        let out = dir.path().join("ca.crl");
        make_crl(&MakeCrl {
            ca_cert: ca.clone(),
            ca_key: cluster_ca_key(&dir.path()),
            revoked: revoked
                .iter()
                .map(|s| (s.clone(), SystemTime::now()))
                .collect(),
            number: 1,
            validity: Validity::leaf(),
            out: out.clone(),
        })
        .unwrap();
        out
    };
    let serial = dir.facts(&files.cert).serial;
    verify_now(&files.cert, &ca, Some(&list(&[]))).unwrap();
    verify_now(&files.cert, &ca, Some(&list(&[Serial::new(&[7])]))).unwrap();
    let revoked = verify_now(&files.cert, &ca, Some(&list(&[serial]))).unwrap_err();
    assert_eq!(revoked.to_string(), "the certificate was revoked");
}

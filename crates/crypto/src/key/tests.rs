use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use quorate_consensus::Verifier;

use super::*;
use crate::Ed25519Verifier;

#[test]
fn a_key_file_is_private_and_gives_the_same_key_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    let public = keygen(&path).unwrap();
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let key = SigningKey::read(&path).unwrap();
    assert_eq!(key.public_key(), public);
    let signature = key.sign(Domain::Boot, b"statement");
    assert!(Ed25519Verifier.verify(&public, Domain::Boot, b"statement", &signature));
    assert!(!Ed25519Verifier.verify(&public, Domain::Vote, b"statement", &signature));
}

#[test]
fn a_key_file_is_never_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    let public = keygen(&path).unwrap();
    let again = keygen(&path).unwrap_err();
    assert!(matches!(again, KeyError::File(FileError::Exists(_))));
    assert_eq!(SigningKey::read(&path).unwrap().public_key(), public);
}

#[test]
fn generated_keys_differ() {
    let key = || SigningKey::generate().unwrap().public_key();
    assert_ne!(key(), key());
}

#[test]
fn a_key_that_others_can_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    keygen(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let text = SigningKey::read(&path).unwrap_err().to_string();
    assert!(
        text.contains(&format!("`chmod 600 {}`", path.display())),
        "{text}"
    );
}

#[test]
fn other_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    let good = SigningKey::from_seed([1; 32]).pem().unwrap();
    let cut = &good[..good.len() / 2];
    for text in ["", "nonsense", cut, &good.replace("PRIVATE", "PUBLIC")] {
        file::write_atomic(&path, text.as_bytes(), file::SECRET).unwrap();
        assert!(matches!(
            SigningKey::read(&path),
            Err(KeyError::Malformed(_))
        ));
    }
    file::write_atomic(&path, good.as_bytes(), file::SECRET).unwrap();
    assert!(SigningKey::read(&path).is_ok());
}

#[test]
fn debug_does_not_tell_the_secret() {
    let key = SigningKey::from_seed([0xab; 32]);
    let text = format!("{key:?}").to_lowercase();
    assert!(
        !text.contains("abab") && !text.contains("171, 171"),
        "{text}"
    );
    assert!(text.contains(&key.public_key().peer_id().to_string()));
}

/// RFC 8032, section 7.1, test 1, with our tag before the message.
#[test]
fn a_seed_gives_the_key_that_the_standard_says() {
    let seed = [
        0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60, 0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c,
        0xc4, 0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19, 0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae,
        0x7f, 0x60,
    ];
    let public = SigningKey::from_seed(seed).public_key();
    assert_eq!(public.bytes[..4], [0xd7, 0x5a, 0x98, 0x01]);
    assert_eq!(public.bytes[28..], [0xf7, 0x07, 0x51, 0x1a]);
}

#[test]
fn openssl_reads_the_key_file_and_agrees_on_the_public_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.key");
    let public = keygen(&path).unwrap();
    let out = Command::new("openssl")
        .args(["pkey", "-pubout", "-outform", "DER", "-in"])
        .arg(&path)
        .output()
        .expect("this test needs the program openssl: install it");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert_eq!(out.stdout[out.stdout.len() - 32..], *public.bytes);
}

//! Certificates for the servers of tests: a CA, and what it signs.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};

/// A CA of ECDSA P-256 for tests, with what it has issued in PEM files of one directory.
///
/// Every method panics when a file cannot be written.
pub struct Certificates {
    directory: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its key, in PEM files.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key, PKCS#8.
    pub key: PathBuf,
}

impl Certificates {
    /// A new CA; its certificate goes to `ca.crt` in this directory, which is made if
    /// missing.
    pub fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory)
            .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        let mut params = named("test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority = CertifiedIssuer::self_signed(params, new_key())
            .unwrap_or_else(|error| panic!("a CA: {error}"));
        let made = Self {
            directory: directory.to_owned(),
            authority,
        };
        write(&made.ca(), &made.authority.pem());
        made
    }

    /// The CA's certificate.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// A certificate for a server at 127.0.0.1 and `localhost`, in `<name>.crt` and
    /// `<name>.key`. (Also for clients: etcd dials itself with it.)
    pub fn server(&self, name: &str) -> Issued {
        self.issue(name, &["localhost", "127.0.0.1"])
    }

    /// A certificate for a client of this name (its common name), in `<name>.crt` and
    /// `<name>.key`.
    pub fn client(&self, name: &str) -> Issued {
        self.issue(name, &[])
    }

    fn issue(&self, name: &str, addresses: &[&str]) -> Issued {
        let mut params = named(name);
        for address in addresses {
            let more = CertificateParams::new(vec![(*address).to_owned()]);
            let more = more.unwrap_or_else(|error| panic!("{address}: {error}"));
            params.subject_alt_names.extend(more.subject_alt_names);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if !addresses.is_empty() {
            let server = ExtendedKeyUsagePurpose::ServerAuth;
            params.extended_key_usages.push(server);
        }
        let key = new_key();
        let certificate = params
            .signed_by(&key, &self.authority)
            .unwrap_or_else(|error| panic!("the certificate of {name}: {error}"));
        let issued = Issued {
            cert: self.directory.join(format!("{name}.crt")),
            key: self.directory.join(format!("{name}.key")),
        };
        write(&issued.cert, &certificate.pem());
        write(&issued.key, &key.serialize_pem());
        // Nobody's programs take a key that others can read.
        let own = fs::Permissions::from_mode(0o600);
        fs::set_permissions(&issued.key, own)
            .unwrap_or_else(|error| panic!("{}: {error}", issued.key.display()));
        issued
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap_or_else(|error| panic!("a key: {error}"))
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

//! A certificate authority for tests and measurements: what it issues lies in a folder, of its own if none is given, which goes when
//! it does.
//!
//! ```
//! let authority = dmrpc_test_authority::Authority::new();
//! let node = authority.issue("node", &["127.0.0.1"]);
//! let listen = format!("tls://127.0.0.1:0?{}", node.options());
//! let connect = format!("tls://127.0.0.1:7070?{}", authority.options());
//! ```
#![forbid(unsafe_code)]

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// An authority, with a root of its own.
pub struct Authority {
    folder: PathBuf,
    /// The folder, if it goes with it.
    own: Option<TempDir>,
    root: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, as files.
pub struct Identity {
    /// The certificate.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

impl Identity {
    /// As options of a `tls://` address.
    pub fn options(&self) -> String {
        format!("cert={}&key={}", self.cert.display(), self.key.display())
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

impl Authority {
    /// A new one, which nobody knows.
    pub fn new() -> Self {
        let own = tempfile::tempdir().expect("a folder for certificates");
        let mut authority = Self::at(own.path());
        authority.own = Some(own);
        authority
    }

    /// A new one, in a folder that stays.
    pub fn at(folder: &Path) -> Self {
        let mut params = CertificateParams::default();
        // Each has a name of its own, as any two authorities have.
        params.distinguished_name.push(DnType::CommonName, folder.display().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let root = CertifiedIssuer::self_signed(params, key).expect("a root certificate");
        let authority = Self { folder: folder.to_owned(), own: None, root };
        std::fs::write(authority.ca(), authority.root.pem()).expect("room for a certificate");
        authority
    }

    /// The file with its root.
    pub fn ca(&self) -> PathBuf {
        self.folder.join("ca.pem")
    }

    /// Its root as an option of a `tls://` address.
    pub fn options(&self) -> String {
        format!("ca={}", self.ca().display())
    }

    /// A certificate for these names of hosts and IP addresses, in files of this name.
    pub fn issue(&self, file: &str, names: &[&str]) -> Identity {
        self.write(file, &params(names))
    }

    /// As [`issue`](Self::issue), for a time that is over.
    pub fn issue_expired(&self, file: &str, names: &[&str]) -> Identity {
        let mut params = params(names);
        (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
        self.write(file, &params)
    }

    fn write(&self, file: &str, params: &CertificateParams) -> Identity {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.root).expect("a certificate");
        let write = |ending: &str, pem: &str| -> PathBuf {
            let path = self.folder.join(format!("{file}.{ending}"));
            std::fs::write(&path, pem).expect("room for a certificate");
            path
        };
        Identity { cert: write("pem", &certificate.pem()), key: write("key", &key.serialize_pem()) }
    }

    /// Where all of it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn params(names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    CertificateParams::new(names).expect("names of hosts and IP addresses")
}

//! Who a side of a `tls://` link is and whom it trusts, and what rustls makes of it. `docs/tls.md` says how it is used.
#![forbid(unsafe_code)]

use crate::link::LinkError;
use crate::options::LinkOptions;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
    SupportedProtocolVersion,
};
use std::fmt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// The name of what is spoken within TLS: a peer that wants to speak something else is refused.
const ALPN: &[u8] = b"dmrpc";

static VERSIONS: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];

/// The files of one side of a `tls://` link, as the options of its address name them. All are PEM.
///
/// ```
/// use dmrpc_fabric::address::Address;
///
/// let address: Address = "tls://node:7070?cert=/etc/dmrpc/node.pem&key=/etc/dmrpc/node.key".parse()?;
/// let Address::Tls { files, .. } = &address else { panic!("tls://") };
/// assert_eq!(files.key.as_deref(), Some("/etc/dmrpc/node.key".as_ref()));
/// assert_eq!(address.without_options().to_string(), "tls://node:7070");
/// # Ok::<(), dmrpc_fabric::link::LinkError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsFiles {
    /// Certificates by which the peer's has to be issued. A connector needs it; a listener that has it takes nobody else.
    pub ca: Option<PathBuf>,
    /// The certificate of this side, and those between it and its issuer. A listener needs it.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

impl TlsFiles {
    /// From the options of an address; or what is wrong with them.
    pub(crate) fn parse(options: &str) -> Result<Self, &'static str> {
        let mut files = Self::default();
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let file = match option.split_once('=') {
                Some(("ca", file)) => (&mut files.ca, file),
                Some(("cert", file)) => (&mut files.cert, file),
                Some(("key", file)) => (&mut files.key, file),
                _ => return Err("a tls:// address has the options ca=FILE, cert=FILE and key=FILE"),
            };
            match file {
                (_, file) if file.is_empty() || file.contains('\0') => return Err("an option names no file"),
                (option, file) => *option = Some(file.into()),
            }
        }
        if files.cert.is_some() != files.key.is_some() {
            return Err("cert=FILE and key=FILE go together");
        }
        Ok(files)
    }

    /// These, if there are any, or else those of a link's options.
    pub(crate) fn or<'a>(&'a self, options: &'a LinkOptions) -> &'a Self {
        if self.is_some() { self } else { &options.tls }
    }

    /// Whether it names any.
    pub(crate) fn is_some(&self) -> bool {
        *self != Self::default()
    }

    /// Which files they are now.
    fn versions(&self) -> Versions {
        [&self.ca, &self.cert, &self.key].map(|file| {
            let found = std::fs::metadata(file.as_ref()?).ok()?;
            Some((found.modified().ok()?, found.ino()))
        })
    }
}

impl fmt::Display for TlsFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = '?';
        for (option, file) in [("ca", &self.ca), ("cert", &self.cert), ("key", &self.key)] {
            if let Some(file) = file {
                write!(f, "{separator}{option}={}", file.display())?;
                separator = '&';
            }
        }
        Ok(())
    }
}

/// When each file was written, and its inode: another one may be older.
type Versions = [Option<(SystemTime, u64)>; 3];

/// Who listens.
pub(crate) struct Listening {
    files: TlsFiles,
    config: Arc<ServerConfig>,
    versions: Versions,
}

impl Listening {
    pub(crate) fn new(files: &TlsFiles) -> Result<Self, LinkError> {
        // Before they are read: what changes meanwhile is read again.
        let versions = files.versions();
        Ok(Self { files: files.clone(), config: server_config(files)?, versions })
    }

    /// The side of one who accepts. What has changed in the files counts from now on, if it is of use.
    pub(crate) fn accept(&mut self) -> Result<rustls::Connection, LinkError> {
        let versions = self.files.versions();
        if versions != self.versions {
            self.versions = versions;
            match server_config(&self.files) {
                Ok(config) => self.config = config,
                Err(error) => tracing::warn!("TLS goes on with the files as they were: {error}"),
            }
        }
        Ok(ServerConnection::new(Arc::clone(&self.config)).map_err(link_error)?.into())
    }
}

/// The side of one who connects to `host`.
pub(crate) fn connection_to(host: &str, files: &TlsFiles) -> Result<rustls::Connection, LinkError> {
    let missing = |why| LinkError::Address { address: format!("tls://{host}{files}"), why };
    let ca = files
        .ca
        .as_ref()
        .ok_or_else(|| missing("to connect it needs ca=FILE, with the issuer of the peer's certificate"))?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| missing("certificates are for names of hosts and for IP addresses"))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(link_error)?
        .with_root_certificates(roots(ca)?);
    let mut config = match identity(files)? {
        Some((chain, key, file)) => config.with_client_auth_cert(chain, key).map_err(unusable(file))?,
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    Ok(ClientConnection::new(Arc::new(config), name).map_err(link_error)?.into())
}

fn server_config(files: &TlsFiles) -> Result<Arc<ServerConfig>, LinkError> {
    let (chain, key, file) = identity(files)?.ok_or_else(|| LinkError::Address {
        address: format!("tls://{files}"),
        why: "to listen it needs cert=FILE and key=FILE",
    })?;
    let config =
        ServerConfig::builder_with_provider(provider()).with_protocol_versions(VERSIONS).map_err(link_error)?;
    let config = match &files.ca {
        Some(ca) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider()).build();
            let verifier = verifier.map_err(|error| credentials(ca, &error))?;
            config.with_client_cert_verifier(verifier)
        }
        None => config.with_no_client_auth(),
    };
    let mut config = config.with_single_cert(chain, key).map_err(unusable(file))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A chain of certificates, its key, and the file that it came from.
type Identity<'a> = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, &'a Path);

fn identity(files: &TlsFiles) -> Result<Option<Identity<'_>>, LinkError> {
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else { return Ok(None) };
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| credentials(key, &error))?;
    Ok(Some((certificates(cert)?, key, cert)))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, LinkError> {
    let found = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let found = found.map_err(|error| credentials(file, &error))?;
    if found.is_empty() { Err(credentials(file, &"it has no certificate")) } else { Ok(found) }
}

fn roots(file: &Path) -> Result<RootCertStore, LinkError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| credentials(file, &error))?;
    }
    Ok(roots)
}

fn credentials(file: &Path, why: &dyn fmt::Display) -> LinkError {
    LinkError::Credentials { file: file.to_owned(), why: why.to_string() }
}

fn unusable(file: &Path) -> impl Fn(rustls::Error) -> LinkError + '_ {
    move |error| credentials(file, &error)
}

/// What an error of rustls is to us.
pub(crate) fn link_error(error: rustls::Error) -> LinkError {
    use AlertDescription as Alert;
    use rustls::Error;
    match error {
        Error::InvalidCertificate(why) => LinkError::Certificate(reason(&why)),
        Error::NoCertificatesPresented => LinkError::Certificate("it has none".to_owned()),
        Error::AlertReceived(alert) => match alert {
            Alert::CertificateRequired => LinkError::Refused("the peer asks for a certificate"),
            Alert::UnknownCA => LinkError::Refused("the peer does not know the issuer of our certificate"),
            Alert::CertificateExpired => LinkError::Refused("our certificate is not valid at this time, says the peer"),
            Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateUnknown
            | Alert::AccessDenied
            | Alert::DecryptError => LinkError::Refused("the peer does not accept our certificate"),
            Alert::NoApplicationProtocol => LinkError::Refused("the peer speaks something else over TLS"),
            Alert::ProtocolVersion | Alert::HandshakeFailure | Alert::InsufficientSecurity => {
                LinkError::Protocol(NOTHING_IN_COMMON)
            }
            _ => LinkError::Protocol("the peer broke off TLS"),
        },
        Error::NoApplicationProtocol => LinkError::Refused("the peer wants to speak something else over TLS"),
        Error::PeerIncompatible(_) => LinkError::Protocol(NOTHING_IN_COMMON),
        Error::InvalidMessage(
            rustls::InvalidMessage::InvalidContentType | rustls::InvalidMessage::UnknownProtocolVersion,
        ) => LinkError::Protocol("something else than TLS"),
        Error::DecryptError => LinkError::Protocol("a TLS record that was tampered with"),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord => LinkError::Protocol("TLS that breaks its rules"),
        other => LinkError::Io { doing: "using TLS", source: std::io::Error::other(other) },
    }
}

/// What is wrong with a certificate, for people.
fn reason(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "its issuer is not one of ca=FILE".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it is not for this side of a connection".to_owned()
        }
        other => other.to_string(),
    }
}

const NOTHING_IN_COMMON: &str = "TLS of another version, or with other ciphers: it takes TLS 1.3";

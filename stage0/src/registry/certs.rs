//! TLS for a registry: the system's certificate authorities, and the authorities and client certificates of `certs.d`
//! (containers-certs.d(5)).

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use stage1::error::{Context, Error, Result};
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use crate::fsutil::dir::names_in;

/// The command line's options for TLS.
#[derive(Clone, Debug, Default)]
pub struct Tls {
    /// The directory with certificates, in place of `certs.d`.
    pub dir: Option<PathBuf>,
    /// Whether to verify no registry's certificate, and to allow plain HTTP.
    pub insecure: bool,
}

/// The certificate authorities that this machine trusts.
fn system() -> &'static [Certificate<'static>] {
    static SYSTEM: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    SYSTEM.get_or_init(|| {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            log::warn!("certificates of this machine: {error}");
        }
        found.certs.iter().map(|cert| Certificate::from_der(cert).to_owned()).collect()
    })
}

/// The cryptography of rustls.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

impl Tls {
    /// The configuration for a registry, `HOST` or `HOST:PORT`. Without `verify` it accepts any certificate.
    ///
    /// # Errors
    /// A certificate or key file can't be read or is not valid PEM, a certificate has no key or a key no certificate,
    /// or they do not belong together.
    pub(super) fn config(&self, registry: &str, verify: bool) -> Result<TlsConfig> {
        let mut roots = if verify { system().to_vec() } else { Vec::new() };
        let mut client = None;
        if let Some(dir) = self.directory(registry) {
            let found = Found::read(&dir)?;
            roots.extend(found.roots);
            client = found.client;
        }
        Ok(TlsConfig::builder()
            .root_certs(RootCerts::Specific(Arc::new(roots)))
            .client_cert(client)
            .disable_verification(!verify)
            .unversioned_rustls_crypto_provider(provider())
            .build())
    }

    /// The directory with a registry's certificates: the user's, else /etc/containers', else /etc/docker's.
    fn directory(&self, registry: &str) -> Option<PathBuf> {
        if self.dir.is_some() {
            return self.dir.clone();
        }
        let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers/certs.d"));
        let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
        own.into_iter().chain(system).map(|dir| dir.join(registry)).find(|dir| dir.is_dir())
    }
}

/// The content of a directory: `*.crt` are authorities; `NAME.cert` and `NAME.key` are a client's certificate and key.
struct Found {
    roots: Vec<Certificate<'static>>,
    client: Option<ClientCert>,
}

impl Found {
    fn read(dir: &Path) -> Result<Self> {
        let mut names = names_in(dir)?;
        names.sort();
        let mut found = Self { roots: Vec::new(), client: None };
        for path in names.iter().map(|name| dir.join(name)) {
            match path.extension().and_then(|end| end.to_str()) {
                Some("crt") => {
                    let all = certificates(&path)?;
                    found.roots.extend(all.iter().map(|one| Certificate::from_der(one).to_owned()));
                }
                Some("cert") => found.client = Some(client(&path)?),
                Some("key") if !path.with_extension("cert").exists() => {
                    return Err(Error::new(format!("{path:?} is a key without a certificate: no .cert is beside it")));
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let bytes = std::fs::read(path).context(|| format!("read {path:?}"))?;
    let all: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::new(format!("{path:?} is not valid PEM: {error}")))?;
    if all.is_empty() { Err(Error::new(format!("{path:?} holds no certificate"))) } else { Ok(all) }
}

fn client(path: &Path) -> Result<ClientCert> {
    let chain = certificates(path)?;
    let key_file = path.with_extension("key");
    let pem = std::fs::read(&key_file).context(|| format!("read {key_file:?}"))?;
    let not_one = |error| Error::new(format!("{key_file:?} is not a key: {error}"));
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(not_one)?;
    CertifiedKey::from_der(chain.clone(), key, &provider())
        .map_err(|error| Error::new(format!("{path:?} and {key_file:?} do not belong together: {error}")))?;
    let key = PrivateKey::from_pem(&pem).map_err(|error| Error::caused_by(format!("{key_file:?}"), error))?;
    let chain: Vec<_> = chain.iter().map(|one| Certificate::from_der(one).to_owned()).collect();
    Ok(ClientCert::new_with_certs(&chain, key))
}

//! The options for reaching a registry, and for pulling an app's image

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stage1::error::{Context, Error, Result};

use crate::cli::session::Session;
use crate::image::options::ImportOptions;
use crate::image::pull::pull;
use crate::image::store::find::look_up;
use crate::interrupt::Watch;
use crate::registry::{Access, Name, Reference, Tls};

/// The options for reaching a registry.
#[derive(Args, Clone, Debug)]
pub struct RegistryOptions {
    /// Read credentials from this file (default: $REGISTRY_AUTH_FILE, then the files of podman, skopeo and docker)
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Read certificates from this directory: *.crt of authorities, NAME.cert and NAME.key of this client (default:
    /// certs.d)
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Verify the registry's certificate; false accepts any certificate, and plain HTTP
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
}

impl RegistryOptions {
    /// The defaults, with this file of credentials.
    pub fn with_authfile(authfile: Option<PathBuf>) -> Self {
        Self { authfile, cert_dir: None, tls_verify: true }
    }

    /// The access to registries with these options and this machine's configuration.
    ///
    /// # Errors
    /// `--cert-dir` is not a directory, or [`Access::new`] fails.
    pub fn access(&self, watch: &Watch) -> Result<Access> {
        if let Some(dir) = self.cert_dir.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(Error::new(format!("--cert-dir {dir:?} is not a directory")));
        }
        let tls = Tls { dir: self.cert_dir.clone(), insecure: !self.tls_verify };
        Access::new(tls, self.authfile.as_deref(), Some(watch))
    }
}

/// When to pull an app's image.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// If the store does not have it
    Missing,
    /// Always, as the registry may have a newer one
    Always,
    /// Never
    Never,
}

impl PullPolicy {
    /// Pulls an app's image if the policy says so; returns the name or id by which the store finds it.
    ///
    /// # Errors
    /// The image can't be pulled.
    pub fn obtain(self, session: &Session, text: &str) -> Result<String> {
        let is_there = look_up(&session.store, text)?.is_some();
        if self == Self::Never || (self == Self::Missing && is_there) {
            return Ok(text.to_owned());
        }
        let watch = Watch::begin()?;
        let access = RegistryOptions::with_authfile(None).access(&watch)?;
        let missing = || format!("there is no image {text:?}, and it can't be pulled");
        let pulled = Name::parse(text)
            .and_then(|name| pull(&session.store, &access, &name, &ImportOptions::default()))
            .context(|| if is_there { format!("pull {text:?}") } else { missing() })?;
        Ok(pulled.imported.image.id.to_string())
    }
}

/// Parses the name of a registry; ignores a leading `https://` and a trailing `/`.
///
/// # Errors
/// The text is not `HOST` or `HOST:PORT`.
pub fn checked_registry(text: &str) -> Result<String> {
    let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let reference = Reference::parse(&format!("{text}/x")).ok().filter(|_| !text.contains('/'));
    let reference = reference.context(|| format!("{text:?} is not a registry: HOST or HOST:PORT"))?;
    Ok(reference.registry().to_owned())
}

//! How registries are asked, and when an image is fetched that an app is to have

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use stage1::error::{Context, Error, Result};

use crate::cli::session::Session;
use crate::image::options::ImportOptions;
use crate::image::pull::pull;
use crate::image::store::find::look_up;
use crate::interrupt::Watch;
use crate::registry::{Access, Name, Reference, Tls};

/// How a registry is asked.
#[derive(Args, Clone, Debug)]
pub struct RegistryOptions {
    /// Take credentials from this file (default: $REGISTRY_AUTH_FILE, then those of podman, skopeo and docker)
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
    /// Take certificates from this directory: *.crt of authorities, NAME.cert and NAME.key of this client (default: certs.d)
    #[arg(long, value_name = "DIR")]
    cert_dir: Option<PathBuf>,
    /// Verify the registry's certificate; with false, accept any, and plain HTTP
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    tls_verify: bool,
}

impl RegistryOptions {
    /// As without options, but for the file of credentials.
    pub fn with_authfile(authfile: Option<PathBuf>) -> Self {
        Self { authfile, cert_dir: None, tls_verify: true }
    }

    /// With this machine's configuration, but for what is given.
    ///
    /// # Errors
    /// The configuration is not what it should be.
    pub fn access(&self, watch: &Watch) -> Result<Access> {
        if let Some(dir) = self.cert_dir.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(Error::new(format!("--cert-dir {dir:?} is not a directory")));
        }
        let tls = Tls { dir: self.cert_dir.clone(), insecure: !self.tls_verify };
        Access::new(tls, self.authfile.as_deref(), Some(watch))
    }
}

/// When an image is fetched that an app is to have.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    /// If it is missing in the store
    Missing,
    /// Always: the registry may have a newer one
    Always,
    /// Never
    Never,
}

impl PullPolicy {
    /// Fetches the image that an app is to have, if it is to be fetched. Gives the word by which the store finds it.
    ///
    /// # Errors
    /// It can't be fetched; or it is not in the store, and means no registry.
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

/// A registry without a repository, as its name is used.
///
/// # Errors
/// It is not one.
pub fn checked_registry(text: &str) -> Result<String> {
    let text = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    let reference = Reference::parse(&format!("{text}/x")).ok().filter(|_| !text.contains('/'));
    let reference = reference.context(|| format!("{text:?} is not a registry: HOST or HOST:PORT"))?;
    Ok(reference.registry().to_owned())
}

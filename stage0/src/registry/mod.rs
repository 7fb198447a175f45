//! The client of registries: image names, configuration, credentials, and the OCI distribution spec.
//!
//! Answers of a registry are hostile input: every size has a limit, every digest is verified, no name in them becomes a
//! path, and secrets only go to the server that they are for. This module does not know the image store.

mod blob;
mod certs;
mod client;
mod credentials;
mod failure;
mod helper;
mod keyring;
mod patience;
mod progress;
mod proxy;
mod reference;
mod registries_conf;
mod token;
mod transport;
mod url;

use std::path::Path;

use stage1::error::{Context, Result};

pub use blob::{Blob, each, fetch};
pub use certs::Tls;
pub use client::{Document, MAX_MANIFEST, Purpose, Repository};
pub use credentials::Credentials;
pub use keyring::Keyring;
pub use progress::{Bar, Bars};
pub use reference::{Name, Reference, ShortName};
pub use registries_conf::{Endpoint, Registries};
pub use transport::{Progress, Transport};

pub(crate) use blob::is_whole;

use crate::interrupt::Watch;

/// All that is needed to reach registries.
#[derive(Debug)]
pub struct Access {
    /// The configuration in `registries.conf`.
    pub registries: Registries,
    /// The user's credentials.
    pub keyring: Keyring,
    /// The HTTP connections.
    pub transport: Transport,
}

impl Access {
    /// Uses this machine's configuration with the options `tls` and `auth_file`; a signal that `watch` records closes
    /// all connections.
    ///
    /// # Errors
    /// A file of `registries.conf` can't be read or is invalid.
    pub fn new(tls: Tls, auth_file: Option<&Path>, watch: Option<&Watch>) -> Result<Self> {
        let registries = Registries::load()?;
        let keyring = Keyring::find(auth_file, &registries);
        Ok(Self { registries, keyring, transport: Transport::new(tls, watch) })
    }

    /// Connects to a repository with the user's credentials for it.
    ///
    /// # Errors
    /// The credentials can't be read, or [`Repository::connect`] fails.
    pub fn repository(&self, endpoint: &Endpoint, purpose: Purpose) -> Result<Repository<'_>> {
        let location = endpoint.reference.location();
        let credentials = self.keyring.credentials(&location).context(|| "credentials")?;
        Repository::connect(&self.transport, endpoint, purpose, credentials)
    }

    /// Checks credentials with a registry.
    ///
    /// # Errors
    /// The registry name is invalid, or the registry can't be reached or refuses the credentials.
    pub fn check(&self, registry: &str, credentials: &Credentials) -> Result<()> {
        // a reference needs a repository; the check asks for a token without any scope, so it is never used
        let reference = Reference::parse(&format!("{registry}/login"))?;
        let endpoint = Endpoint { reference, insecure: self.registries.is_insecure(registry) };
        let repository = Repository::connect(&self.transport, &endpoint, Purpose::Pull, Some(credentials.clone()))?;
        repository.check_credentials()
    }
}

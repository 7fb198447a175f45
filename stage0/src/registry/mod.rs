//! The client of registries: names, their configuration, credentials, and the distribution protocol.
//!
//! What comes from a registry is hostile: every size has a bound, every digest is compared, nothing that it names
//! becomes a path, and what is secret goes to the server that it is for alone. The store of images is not known here.

mod auth;
mod blob;
mod certs;
mod client;
mod credentials;
mod helper;
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

pub use auth::Keyring;
pub use blob::{Blob, each, fetch};
pub use certs::Tls;
pub use client::{Document, MAX_MANIFEST, Purpose, Repository};
pub use credentials::Credentials;
pub use progress::{Bar, Bars};
pub use reference::{Name, Reference, ShortName};
pub use registries_conf::{Endpoint, Registries};
pub use transport::{Progress, Transport};

pub(crate) use blob::is_whole;

use crate::interrupt::Watch;

/// All that it takes to reach registries.
#[derive(Debug)]
pub struct Access {
    /// What `registries.conf` says.
    pub registries: Registries,
    /// Who we are.
    pub keyring: Keyring,
    /// Connections.
    pub transport: Transport,
}

impl Access {
    /// With this machine's configuration, but for what is given.
    ///
    /// # Errors
    /// The configuration is not what it should be.
    pub fn new(tls: Tls, auth_file: Option<&Path>, watch: Option<&Watch>) -> Result<Self> {
        let registries = Registries::load()?;
        let keyring = Keyring::find(auth_file, &registries)?;
        Ok(Self { registries, keyring, transport: Transport::new(tls, watch) })
    }

    /// Connects to a repository, as the user who has credentials for it.
    ///
    /// # Errors
    /// The registry can't be reached, or the credentials can't be read.
    pub fn repository(&self, endpoint: &Endpoint, purpose: Purpose) -> Result<Repository<'_>> {
        let location = endpoint.reference.location();
        let credentials = self.keyring.credentials(&location).context(|| "credentials")?;
        Repository::connect(&self.transport, endpoint, purpose, credentials)
    }

    /// Checks credentials with a registry.
    ///
    /// # Errors
    /// It can't be reached, or refuses them.
    pub fn check(&self, registry: &str, credentials: &Credentials) -> Result<()> {
        // some registries give a token for a repository alone: none is asked for
        let reference = Reference::parse(&format!("{registry}/login"))?;
        let endpoint = Endpoint { reference, insecure: self.registries.is_insecure(registry) };
        let repository = Repository::connect(&self.transport, &endpoint, Purpose::Pull, Some(credentials.clone()))?;
        repository.check_credentials()
    }
}

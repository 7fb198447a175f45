//! `podctl logout`

use std::path::PathBuf;

use clap::Args;
use stage1::error::{Error, Result};

use super::args::registry::{RegistryOptions, checked_registry};
use super::output::say;
use crate::interrupt::Watch;

#[derive(Args, Debug)]
pub struct Logout {
    /// The registry: HOST or HOST:PORT
    #[arg(required_unless_present = "all")]
    registry: Option<String>,
    /// Remove the credentials for all registries
    #[arg(long, conflicts_with = "registry")]
    all: bool,
    /// Remove them from this file (default: $REGISTRY_AUTH_FILE, then podman's)
    #[arg(long, value_name = "FILE")]
    authfile: Option<PathBuf>,
}

impl Logout {
    pub fn run(self) -> Result<()> {
        let registry = self.registry.as_deref().map(checked_registry).transpose()?;
        let watch = Watch::begin()?;
        let gone = RegistryOptions::with_authfile(self.authfile).access(&watch)?.keyring.forget(registry.as_deref())?;
        match registry {
            Some(registry) if gone.is_empty() => Err(Error::new(format!("there are no credentials for {registry}"))),
            _ => gone.iter().try_for_each(|name| say(format!("removed the credentials for {name}"))),
        }
    }
}

//! `podctl generate …`

mod kube;
mod systemd;

use clap::Subcommand;
use stage1::error::Result;

use super::args::lazy::Lazy;
use super::session::Session;
pub use systemd::unit_of;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Print a pod as a file for podctl up
    Kube(Lazy<kube::Kube>),
    /// Print a unit for the host's systemd that keeps a pod
    Systemd(Lazy<systemd::Systemd>),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Kube(kube) => kube.0.run(session),
            Self::Systemd(systemd) => systemd.0.run(session),
        }
    }
}

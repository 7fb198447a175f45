//! `podctl cri`

use std::path::PathBuf;

use clap::Args;
use stage1::error::{Context, Error, Result};

use super::session::Session;
use crate::store::Store;

/// What the Kubernetes runtime is to do.
#[derive(Debug)]
pub struct CriService {
    /// Where its images and pods are.
    pub store: Store,
    /// Its socket.
    pub listen: PathBuf,
    /// The directory that has configurations of networks in `net.d`, besides CNI's own.
    pub local_config: PathBuf,
    /// Entrypoints say more.
    pub debug: bool,
}

/// What serves: the crate that has it builds upon this one.
pub type Serve = fn(CriService) -> Result<()>;

/// A kubelet finds it by --container-runtime-endpoint=unix:///run/podctl/cri.sock.
#[derive(Args, Debug)]
pub struct Cri {
    /// Listen at this socket: unix://PATH
    #[arg(long, value_name = "ADDRESS", default_value = "unix:///run/podctl/cri.sock")]
    listen: String,
    /// Read network configurations from net.d in this directory, before those in /etc/cni/net.d
    #[arg(long, value_name = "DIR", default_value = stage1::net::LOCAL_CONFIG)]
    local_config: PathBuf,
}

impl Cri {
    pub(super) fn run(self, session: Session, serve: Serve) -> Result<()> {
        let path = self.listen.strip_prefix("unix://").unwrap_or(&self.listen);
        let listen = PathBuf::from(path);
        if !listen.is_absolute() {
            return Err(Error::new("not unix:// and an absolute path"))
                .context(|| format!("--listen {:?}", self.listen));
        }
        let Session { store, debug } = session;
        serve(CriService { store, listen, local_config: self.local_config, debug })
    }
}

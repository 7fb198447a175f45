//! `podctl cri`

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;
use stage1::error::{Context, Error, Result};

use super::session::Session;
use crate::cdi;
use crate::store::Store;

/// What the Kubernetes runtime is to do.
#[derive(Debug)]
pub struct CriService {
    /// Where its images and pods are.
    pub store: Store,
    /// Its socket.
    pub listen: PathBuf,
    /// Where clients of exec, attach and port-forward connect to; nowhere without one.
    pub stream: Option<SocketAddr>,
    /// Where its metrics are read; nowhere without one.
    pub metrics: Option<SocketAddr>,
    /// The directory that has configurations of networks in `net.d`, besides CNI's own.
    pub local_config: PathBuf,
    /// The directories with devices of CDI.
    pub cdi_directories: Vec<PathBuf>,
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
    /// Serve exec, attach and port-forward at this address of the loopback interface; port 0 is a free one, "" is nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    stream: String,
    /// Serve metrics for Prometheus at this address, such as 127.0.0.1:9417
    #[arg(long, value_name = "ADDRESS", default_value = "")]
    metrics: String,
    /// Read network configurations from net.d in this directory, before those in /etc/cni/net.d
    #[arg(long, value_name = "DIR", default_value = stage1::net::LOCAL_CONFIG)]
    local_config: PathBuf,
    /// Read the devices of CDI from the files in this directory
    #[arg(long = "cdi-spec-dir", value_name = "DIR", default_values = cdi::DIRECTORIES)]
    cdi_directories: Vec<PathBuf>,
}

impl Cri {
    pub(super) fn run(self, session: Session, serve: Serve) -> Result<()> {
        let path = self.listen.strip_prefix("unix://").unwrap_or(&self.listen);
        let listen = PathBuf::from(path);
        if !listen.is_absolute() {
            return Err(Error::new("not unix:// and an absolute path"))
                .context(|| format!("--listen {:?}", self.listen));
        }
        let stream = address("--stream", &self.stream)?;
        if let Some(other) = stream.filter(|address| !address.ip().is_loopback()) {
            return Err(Error::new(format!(
                "--stream {other}: not an address of the loopback interface: whoever connects needs nothing but a URL, \
                 which the kubelet passes on by itself"
            )));
        }
        let metrics = address("--metrics", &self.metrics)?;
        let Session { store, debug } = session;
        let Self { local_config, cdi_directories, .. } = self;
        serve(CriService { store, listen, stream, metrics, local_config, cdi_directories, debug })
    }
}

fn address(flag: &str, text: &str) -> Result<Option<SocketAddr>> {
    let parse = || text.parse().context(|| format!("{flag} {text:?}: not ADDRESS:PORT, such as 127.0.0.1:0"));
    (!text.is_empty()).then(parse).transpose()
}

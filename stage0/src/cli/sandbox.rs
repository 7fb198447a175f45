//! `podctl sandbox`

use std::path::PathBuf;

use clap::Args;
use stage1::error::Result;

use super::{Session, say};
use crate::sandbox::{self, Network, Options};
use crate::{spec, stage1_image};

#[derive(Args, Debug)]
pub struct Sandbox {
    /// The pod's host name (else rkt-UUID)
    #[arg(long)]
    hostname: Option<String>,
    /// The host's network, or none but loopback
    #[arg(long, value_enum, default_value = "host")]
    net: Network,
    /// A volume: NAME,kind=empty[,mode=M,uid=U,gid=G] or NAME,kind=host,source=PATH[,readOnly=B][,recursive=B]
    #[arg(long = "volume", value_name = "VOLUME")]
    volumes: Vec<String>,
    /// Stay, with the pod's output on this terminal, until the pod ends
    #[arg(long)]
    foreground: bool,
    /// The stage1 image that runs the pod, instead of the built-in one
    #[arg(long, value_name = "FILE")]
    stage1: Option<PathBuf>,
}

impl Sandbox {
    pub fn run(self, session: &Session) -> Result<()> {
        let options = self.options(session)?;
        let stage1 = stage1_image::get(&session.store, self.stage1.as_deref())?;
        let pod = sandbox::prepare(&session.store, &stage1, &options)?;
        let pod = sandbox::mount(&session.store, pod)?;
        if self.foreground {
            match sandbox::become_pod(&session.store, pod, &options)? {}
        }
        say(sandbox::start(&session.store, pod, &options)?)
    }

    fn options(&self, session: &Session) -> Result<Options> {
        Ok(Options {
            hostname: self.hostname.as_deref().map(spec::hostname).transpose()?,
            network: self.net,
            volumes: spec::volumes(&self.volumes)?,
            debug: session.debug,
        })
    }
}

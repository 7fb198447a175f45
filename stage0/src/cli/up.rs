//! `podctl up`

use std::path::PathBuf;

use clap::Args;
use stage1::error::{Error, Result};

use super::args::kube_file::NamedFile;
use super::args::registry::PullPolicy;
use super::output::say;
use super::session::Session;
use crate::entrypoint::bundled_image;
use crate::pod::network;
use crate::pod::settings::Settings;
use crate::poddir::find as pods;
use crate::podfile::apply::{How, up};
use crate::podfile::plan::Pull;
use crate::podfile::service;

#[derive(Args, Debug)]
pub struct Up {
    #[command(flatten)]
    file: NamedFile,
    /// Fail if the file has fields that have no effect, instead of warning of each
    #[arg(long)]
    strict: bool,
    /// Join these networks, as with podctl run (default: as the file says)
    #[arg(long, alias = "network", value_name = "NETWORKS", num_args = 0..=1, default_missing_value = "default")]
    net: Vec<String>,
    /// Read network configurations from net.d in this directory (default: /etc/rkt)
    #[arg(long, value_name = "DIR")]
    local_config: Option<PathBuf>,
    /// Replace a running pod by a new one if it differs in what can't be changed while it runs
    #[arg(long)]
    replace: bool,
    /// Only print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Wait until the pod ends, as a service of the host's systemd; notifies systemd when the pod is ready (sd_notify)
    #[arg(long, conflicts_with = "dry_run")]
    foreground: bool,
    /// Accepted as in other tools: the pods run in the background, unless --foreground is given
    #[arg(short, long, hide = true, conflicts_with = "foreground")]
    detach: bool,
    /// Run new pods by this stage1 image instead of the built-in one
    #[arg(long, value_name = "FILE")]
    stage1: Option<PathBuf>,
}

impl Up {
    pub fn run(self, session: &Session) -> Result<()> {
        let asked = Settings {
            network: network::request(&self.net)?,
            local_config: self.local_config.as_deref().map(network::local_config).transpose()?,
            ..Settings::default()
        };
        let file = self.file.file()?.read(&session.store, &asked)?;
        if self.strict && !file.unused.is_empty() {
            return Err(Error::new(format!("fields that are not honoured: {}", file.unused.join("; "))));
        }
        for path in &file.unused {
            log::warn!("not honoured: {path}");
        }
        let how = How {
            obtain: &|image, pull| {
                let policy = match pull {
                    Pull::IfNotPresent => PullPolicy::Missing,
                    Pull::Always => PullPolicy::Always,
                    Pull::Never => PullPolicy::Never,
                };
                policy.obtain(session, image)
            },
            stage1: &|| bundled_image::get(&session.store, self.stage1.as_deref()),
            say: &|line| say(line),
            replace: self.replace,
            dry: self.dry_run,
            debug: session.debug,
        };
        up(&session.store, &file.pods, &how)?;
        if !self.foreground {
            return Ok(());
        }
        match file.pods.as_slice() {
            [plan] => {
                let pod = pods::find(&session.store, plan.name.as_str())?;
                service::until_it_ends(&session.store, &pod, session.debug)
            }
            _ => Err(Error::new("--foreground is for a file with one pod")),
        }
    }
}

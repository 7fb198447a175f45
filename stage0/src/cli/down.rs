//! `podctl down`

use clap::Args;
use stage1::error::{Context, Error, Result};

use super::args::candidates::a_pod;
use super::args::each::each;
use super::args::kube_file::KubeFile;
use super::output::say;
use super::session::Session;
use crate::pod::gc;
use crate::pod::settings::Settings;
use crate::pod::stop::{self, StopOptions};
use crate::poddir::find as pods;
use crate::poddir::find::State;
use crate::volume::named;
use crate::volume::removal;

#[derive(Args, Debug)]
pub struct Down {
    /// Pods, by name or UUID
    #[arg(value_name = "POD", add = a_pod(), required_unless_present = "file", conflicts_with = "file")]
    pods: Vec<String>,
    #[command(flatten)]
    file: Option<KubeFile>,
    /// Also remove the volumes that the file claims, with their content
    #[arg(long, requires = "file")]
    volumes: bool,
}

impl Down {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let Some(file) = &self.file else {
            // clap does not demand what conflicts with an argument that is given
            if self.volumes {
                return Err(Error::new("--volumes removes the volumes that a file claims: name the file with -f"));
            }
            return each(&self.pods, |pod| end(session, pods::find(store, pod)?, pod));
        };
        let file = file.read(store, &Settings::default())?;
        for plan in &file.pods {
            match pods::named(store, plan.name.as_str())? {
                Some(pod) => end(session, pod, plan.name.as_str())?,
                None => say(format!("pod {}: does not exist", plan.name))?,
            }
            for claim in plan.claims.keys().filter(|_| self.volumes) {
                if named::find(store, claim)?.is_some() {
                    removal::rm(store, claim)?;
                    say(format!("volume {claim}: removed"))?;
                }
            }
        }
        Ok(())
    }
}

/// Stops a pod, if it runs, and removes it.
fn end(session: &Session, pod: pods::Pod, called: &str) -> Result<()> {
    let (store, uuid) = (&session.store, pod.uuid());
    let steps = || -> Result<()> {
        if pod.state() == State::Running {
            stop::stop(store, &pod, StopOptions { debug: session.debug, ..StopOptions::default() })?;
        }
        match pods::find_whole(store, uuid) {
            Ok(pod) => gc::rm(store, pod, session.debug),
            // another process has removed it
            Err(_) => Ok(()),
        }
    };
    steps().context(|| format!("pod {called}"))?;
    say(format!("pod {called}: removed"))
}

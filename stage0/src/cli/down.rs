//! `podctl down`

use std::collections::BTreeSet;

use clap::Args;
use stage1::error::{Context, Error, Result};

use super::args::candidates::a_pod;
use super::args::each::each;
use super::args::kube_file::FileOption;
use super::args::pod::must_be_pods;
use super::output::say;
use super::session::Session;
use crate::pod::gc;
use crate::pod::stop::{self, StopOptions};
use crate::poddir::find as pods;
use crate::poddir::find::State;
use crate::store::Store;
use crate::volume::name::VolumeName;
use crate::volume::named;
use crate::volume::removal;

#[derive(Args, Debug)]
#[group(required = true, args = ["pods", "file"])]
pub struct Down {
    /// Pods, by name or UUID
    #[arg(value_name = "POD", add = a_pod(), conflicts_with = "file")]
    pods: Vec<String>,
    #[command(flatten)]
    file: FileOption,
    /// Also remove the volumes that the file claims, with their content
    #[arg(long, short_alias = 'v', requires = "file")]
    volumes: bool,
}

impl Down {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let Some(file) = self.file.file() else {
            // clap does not demand what conflicts with an argument that is given
            if self.volumes {
                return Err(Error::new("--volumes removes the volumes that a file claims: name the file with -f"));
            }
            must_be_pods(store, &self.pods)?;
            return each(&self.pods, |pod| {
                let found = pods::find(store, pod).map_err(|error| match std::path::Path::new(pod).is_file() {
                    true => Error::new(format!("{}; for the pods of the file: -f {pod}", error.one_line())),
                    false => error,
                });
                end(session, found?, pod)
            });
        };
        let found = file.names()?;
        let names: Vec<String> = found.iter().map(|names| names.pod.to_string()).collect();
        each(&names, |name| match pods::named(store, name)? {
            Some(pod) => end(session, pod, name),
            None => say(format!("pod {name}: does not exist")),
        })?;
        if self.volumes {
            let claims: BTreeSet<VolumeName> = found.into_iter().flat_map(|names| names.claims).collect();
            let claims: Vec<String> = claims.iter().map(ToString::to_string).collect();
            each(&claims, |claim| remove_volume(store, &claim.parse()?))?;
        }
        Ok(())
    }
}

fn remove_volume(store: &Store, claim: &VolumeName) -> Result<()> {
    if named::find(store, claim)?.is_none() {
        return Ok(());
    }
    removal::rm(store, claim)?;
    say(format!("volume {claim}: removed"))
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

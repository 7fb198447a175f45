//! Pods on the command line

use clap::Args;
use stage1::error::Result;

use super::each::each;
use crate::cli::args::candidates::a_pod;
use crate::cli::session::Session;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;

/// A pod.
#[derive(Args, Debug)]
pub struct OnePod {
    /// The pod: its name, its UUID, or the start of that
    #[arg(value_name = "POD", add = a_pod())]
    pod: String,
}

impl OnePod {
    /// The pod that is meant.
    pub fn find(&self, session: &Session) -> Result<Pod> {
        pods::find(&session.store, &self.pod)
    }
}

/// Some pods.
#[derive(Args, Debug)]
pub struct Pods {
    /// Pods: their names, their UUIDs, or the start of these
    #[arg(required = true, value_name = "POD", add = a_pod())]
    pods: Vec<String>,
}

impl Pods {
    /// Does something to each, also after it has failed for one.
    pub fn each(&self, session: &Session, work: impl Fn(Pod) -> Result<()>) -> Result<()> {
        each(&self.pods, |pod| work(pods::find(&session.store, pod)?))
    }
}

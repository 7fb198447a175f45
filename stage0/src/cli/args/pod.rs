//! Pods on the command line

use clap::Args;
use stage1::error::Result;

use super::each::each;
use crate::cli::args::candidates::a_pod;
use crate::cli::session::Session;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;

/// One pod.
#[derive(Args, Debug)]
pub struct OnePod {
    /// The pod: its name, its UUID, or the start of its UUID
    #[arg(value_name = "POD", add = a_pod())]
    pod: String,
}

impl OnePod {
    /// Finds the pod.
    ///
    /// # Errors
    /// As [`pods::find`].
    pub fn find(&self, session: &Session) -> Result<Pod> {
        pods::find(&session.store, &self.pod)
    }
}

/// One or more pods.
#[derive(Args, Debug)]
pub struct Pods {
    /// Pods: their names, their UUIDs, or the starts of their UUIDs
    #[arg(required = true, value_name = "POD", add = a_pod())]
    pods: Vec<String>,
}

impl Pods {
    /// Calls `work` with each pod, and goes on after a failure.
    ///
    /// # Errors
    /// A pod does not exist, or `work` failed: all errors on one line.
    pub fn each(&self, session: &Session, work: impl Fn(Pod) -> Result<()>) -> Result<()> {
        each(&self.pods, |pod| work(pods::find(&session.store, pod)?))
    }
}

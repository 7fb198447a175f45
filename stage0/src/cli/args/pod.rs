//! Pods on the command line

use clap::Args;
use stage1::appc::AcName;
use stage1::error::{Error, Result};

use super::each::each;
use crate::cli::args::candidates::a_pod;
use crate::cli::session::Session;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::manifest;
use crate::store::Store;

/// One pod.
#[derive(Args, Debug)]
pub struct OnePod {
    /// The pod: its name, its UUID, or the start of its UUID
    #[arg(value_name = "POD", add = a_pod())]
    pod: String,
}

impl OnePod {
    /// The word on the command line.
    pub fn word(&self) -> &str {
        &self.pod
    }

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
    /// A word is the name of an app of one of the pods: nothing is done. Or a pod does not exist, or `work` failed: all
    /// errors on one line.
    pub fn each(&self, session: &Session, work: impl Fn(Pod) -> Result<()>) -> Result<()> {
        must_be_pods(&session.store, &self.pods)?;
        each(&self.pods, |pod| work(pods::find(&session.store, pod)?))
    }
}

/// Refuses `POD APP` where each word is a pod, before anything is done to the whole pod.
///
/// # Errors
/// A word is an app of the pod before it and not a pod's name; that a UUID starts with it does not make it a pod. Or the
/// pods can't be read.
pub fn must_be_pods(store: &Store, words: &[String]) -> Result<()> {
    let mut last: Option<(&String, Pod)> = None;
    for word in words {
        let named = pods::named(store, word)?;
        match &last {
            Some((name, pod)) if named.is_none() && is_app(pod, word) => {
                return Err(Error::new(format!(
                    "{word:?} is an app of pod {name}, and this is done to whole pods: \"podctl app start|stop|restart|rm \
                     {name} {word}\" does it to the app; nothing was done"
                )));
            }
            _ => last = named.or_else(|| pods::find(store, word).ok()).map(|pod| (word, pod)).or(last),
        }
    }
    Ok(())
}

fn is_app(pod: &Pod, word: &str) -> bool {
    let Ok(app) = word.parse::<AcName>() else { return false };
    manifest::read(pod.dir()).is_ok_and(|manifest| manifest.app(&app).is_some())
}

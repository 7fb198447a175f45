//! One app of a pod on the command line

use clap::Args;
use stage1::appc::AcName;
use stage1::error::{Context, Result};

use super::pod::OnePod;
use crate::cli::args::candidates::an_app;
use crate::cli::session::Session;
use crate::poddir::find::Pod;
use crate::poddir::manifest::only_one;

/// One app of a pod.
#[derive(Args, Debug)]
pub struct OneApp {
    #[command(flatten)]
    pod: OnePod,
    /// The app (else the only one of the pod)
    #[arg(value_name = "APP", conflicts_with = "app", add = an_app())]
    name: Option<String>,
    /// The app, as an option
    #[arg(long, hide_short_help = true, add = an_app())]
    app: Option<String>,
}

impl OneApp {
    /// The pod and its app.
    pub fn find(&self, session: &Session) -> Result<(Pod, AcName)> {
        let (pod, name) = self.find_named(session)?;
        let name = name.map_or_else(|| only_one(&pod), Ok)?;
        Ok((pod, name))
    }

    /// The pod, and its app if one was named.
    pub fn find_named(&self, session: &Session) -> Result<(Pod, Option<AcName>)> {
        let name = self.name.as_ref().or(self.app.as_ref()).map(|name| app_name(name)).transpose()?;
        Ok((self.pod.find(session)?, name))
    }
}

/// The name of an app, as it was typed.
pub fn app_name(text: &str) -> Result<AcName> {
    text.parse().context(|| "app name")
}

/// What was being done to an app, before the reason why that failed.
pub fn doing(what: &str, app: &AcName) -> String {
    format!("{what} app {:?}", app.as_ref())
}

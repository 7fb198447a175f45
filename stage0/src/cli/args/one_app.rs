//! One app of a pod on the command line

use clap::Args;
use stage1::appc::AcName;
use stage1::error::{Context, Result};

use crate::cli::session::Session;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::manifest::only_one;

/// One app of a pod.
#[derive(Args, Debug)]
pub struct OneApp {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app
    #[arg(value_name = "APP", required_unless_present = "app", conflicts_with = "app")]
    name: Option<String>,
    /// The app
    #[arg(long)]
    app: Option<String>,
}

impl OneApp {
    pub fn find(&self, session: &Session) -> Result<(Pod, AcName)> {
        let name = app_name(self.name.as_ref().or(self.app.as_ref()))?;
        let name = name.context(|| "no app was named")?;
        Ok((pods::find(&session.store, &self.uuid)?, name))
    }

    pub fn doing(&self, what: &str) -> String {
        format!("{what} app {:?}", self.name.as_ref().or(self.app.as_ref()).map_or("", String::as_str))
    }
}

/// An app of a pod; the only one of it if none is named.
#[derive(Args, Debug)]
pub struct AppOrOnlyOne {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app (else the only one of the pod)
    #[arg(long)]
    app: Option<String>,
}

impl AppOrOnlyOne {
    pub fn find(&self, session: &Session) -> Result<(Pod, AcName)> {
        let app = app_name(self.app.as_ref())?;
        let pod = pods::find(&session.store, &self.uuid)?;
        let app = app.map_or_else(|| only_one(&pod), Ok)?;
        Ok((pod, app))
    }
}

/// The name of an app, as it was typed.
pub fn app_name(text: Option<&String>) -> Result<Option<AcName>> {
    text.map(|text| text.parse().context(|| "app name")).transpose()
}

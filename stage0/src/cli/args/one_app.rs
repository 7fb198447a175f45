//! One app of a pod on the command line

use clap::Args;
use stage1::appc::AcName;
use stage1::error::{Context, Result};

use super::each::each;
use super::pod::OnePod;
use crate::app::interrupted;
use crate::cli::args::candidates::an_app;
use crate::cli::session::Session;
use crate::poddir::find::{self as pods, Pod};
use crate::poddir::manifest::only_one;

/// One app of a pod.
#[derive(Args, Debug)]
pub struct OneApp {
    #[command(flatten)]
    pod: OnePod,
    /// The app (default: the pod's only one)
    #[arg(value_name = "APP", conflicts_with = "app", add = an_app())]
    name: Option<String>,
    /// The app, as an option
    #[arg(short_alias = 'c', alias = "container", long, hide_short_help = true, add = an_app())]
    app: Option<String>,
}

impl OneApp {
    /// The pod and its app. Finishes what a killed podctl has left halfway at apps of the pod first.
    pub fn find(&self, session: &Session) -> Result<(Pod, AcName)> {
        let (pod, name) = self.find_named(session)?;
        finish_interrupted(session, &pod);
        let name = name.map_or_else(|| only_one(&pod), Ok)?;
        Ok((pod, name))
    }

    /// The pod, and its app if one was named.
    pub fn find_named(&self, session: &Session) -> Result<(Pod, Option<AcName>)> {
        let named = self.name.as_ref().or(self.app.as_ref()).map(String::as_str);
        let (pod, name) = pod_and_app(&self.pod, named)?;
        Ok((pods::find(&session.store, pod)?, name))
    }
}

/// Apps of one pod.
#[derive(Args, Debug)]
pub struct SomeApps {
    #[command(flatten)]
    pod: OnePod,
    /// The apps (default: the pod's only one)
    #[arg(value_name = "APP", conflicts_with = "app", add = an_app())]
    names: Vec<String>,
    /// The app, as an option
    #[arg(long, hide_short_help = true, add = an_app())]
    app: Option<String>,
}

impl SomeApps {
    /// Calls `work` with each app, and goes on after a failure; messages say that podctl was to `what` an app. Finishes what
    /// a killed podctl has left halfway at apps of the pod first.
    ///
    /// # Errors
    /// The pod does not exist, a name is invalid, or `work` failed: all errors on one line.
    pub fn each(&self, session: &Session, what: &str, work: impl Fn(&Pod, &AcName) -> Result<()>) -> Result<()> {
        let named = self.names.iter().chain(&self.app).next().map(String::as_str);
        let (pod, first) = pod_and_app(&self.pod, named)?;
        let pod = pods::find(&session.store, pod)?;
        let further = self.names.iter().chain(&self.app).skip(1).map(|name| app_name(name));
        let names = first.into_iter().map(Ok).chain(further).collect::<Result<Vec<_>>>()?;
        finish_interrupted(session, &pod);
        let names = if names.is_empty() { vec![only_one(&pod)?] } else { names };
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        each(&names, |name| {
            let app = app_name(name)?;
            work(&pod, &app).context(|| doing(what, &app))
        })
    }
}

fn finish_interrupted(session: &Session, pod: &Pod) {
    if let Err(error) = interrupted::finish(&session.store, pod, session.debug) {
        log::warn!("{}", error.one_line());
    }
}

/// The pod, and the app that was named: by a word of its own, or as POD/APP.
///
/// # Errors
/// The app's name is invalid.
pub fn pod_and_app<'a>(pod: &'a OnePod, app: Option<&'a str>) -> Result<(&'a str, Option<AcName>)> {
    let (pod, app) = match (pod.word().split_once('/'), app) {
        (Some((pod, app)), None) if !app.is_empty() => (pod, Some(app)),
        _ => (pod.word(), app),
    };
    Ok((pod, app.map(app_name).transpose()?))
}

/// Parses the name of an app.
pub fn app_name(text: &str) -> Result<AcName> {
    text.parse().context(|| "app name")
}

/// The context of an error: what podctl was doing to an app, such as `kill app "db"`.
pub fn doing(what: &str, app: &AcName) -> String {
    format!("{what} app {:?}", app.as_ref())
}

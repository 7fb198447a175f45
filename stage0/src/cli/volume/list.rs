//! `podctl volume list`

use clap::Args;
use serde::Serialize;
use stage1::appc::AcName;
use stage1::error::Result;
use stage1::layout;

use super::inspect::Described;
use crate::cli::args::listing::{ListFormat, Listing};
use crate::cli::output;
use crate::cli::session::Session;
use crate::cli::table::{self, Cell};
use crate::fsutil::time::age;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::manifest;
use crate::volume::{implicit, named};

#[derive(Args, Debug)]
pub struct List {
    #[command(flatten)]
    how: Listing,
}

/// An implicit volume, which only an app's image declares: it is removed with its app.
#[derive(Serialize)]
struct Implicit {
    name: String,
    path: std::path::PathBuf,
    pod: String,
    app: String,
}

#[derive(Serialize)]
struct Volumes {
    named: Vec<Described>,
    implicit: Vec<Implicit>,
}

impl List {
    pub fn run(self, session: &Session) -> Result<()> {
        let found = named::list(&session.store)?;
        if self.how.quiet {
            return found.iter().try_for_each(|volume| output::say(&volume.name));
        }
        let named = found.iter().map(|volume| Described::of(&session.store, volume)).collect::<Result<Vec<_>>>()?;
        let mut implicit = Vec::new();
        for pod in pods::list(&session.store)? {
            // `None` if another process has removed the pod
            implicit.extend(pods::while_others_work(&session.store, &pod, of_pod)?.into_iter().flatten());
        }
        if self.how.format == ListFormat::Json {
            return output::json(&Volumes { named, implicit });
        }
        let named = found.iter().zip(named).map(|(volume, described)| {
            let users: Vec<String> = described.used_by.iter().map(|user| user.pod.clone()).collect();
            let users = if users.is_empty() { "-".to_owned() } else { users.join(",") };
            [Cell::from(volume.name.as_str()), "named".into(), age(described.created_at).into(), users.into()]
        });
        let implicit = implicit.into_iter().map(|volume| {
            let user = format!("{}/{}", volume.pod, volume.app);
            [Cell::from(volume.name), "implicit".into(), "-".into(), user.into()]
        });
        table::show_chosen(
            ["NAME", "KIND", "AGE", "USED BY"],
            named.chain(implicit).collect(),
            self.how.no_trunc,
            self.how.format.columns(),
        )
    }
}

/// The implicit volumes of a pod's apps.
fn of_pod(pod: &Pod) -> Result<Vec<Implicit>> {
    if !pod.dir().join(layout::MANIFEST).exists() {
        return Ok(Vec::new());
    }
    let manifest = manifest::read(pod.dir())?;
    let called = pod.name()?.map_or_else(|| pod.short(), |name| name.to_string());
    let mut found = Vec::new();
    for app in &manifest.apps {
        let describe = |name: AcName| Implicit {
            path: pod.dir().join(layout::shared_volume(&name)),
            name: name.to_string(),
            pod: called.clone(),
            app: app.name.to_string(),
        };
        found.extend(implicit::of_app(pod.dir(), &manifest, &app.name)?.into_iter().map(describe));
    }
    Ok(found)
}

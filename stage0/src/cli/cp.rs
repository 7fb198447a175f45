//! `podctl cp`

use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::path::Path;

use clap::Args;
use stage1::appc::AcName;
use stage1::error::{Context, Error, Result};
use stage1::sys::{caps, dir};

use super::args::app_path::{self, AppPath};
use super::session::Session;
use crate::app::copy::{self, Destination, Source};
use crate::app::record::record;
use crate::app::root::AppRoot;
use crate::poddir::find::Pod;

/// Copies files and directories between the host and an app, or from one app to another. Files copied into an app
/// belong to the user that the app runs as; files copied to the host belong to the caller and lose set-user-ID bits and
/// file capabilities. A directory is copied into an existing one, or under a new name; "DIR/." copies its content.
#[derive(Args, Debug)]
pub struct Cp {
    /// Copy this: PATH, POD:PATH or POD/APP:PATH; - reads a tar archive
    #[arg(value_name = "FROM")]
    from: String,
    /// Copy it to: PATH, POD:PATH or POD/APP:PATH; - writes a tar archive
    #[arg(value_name = "TO")]
    to: String,
}

impl Cp {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let from = AppPath::parse(&self.from)?;
        let to = AppPath::parse(&self.to)?;
        match (from, to) {
            (AppPath::Host(_), AppPath::Host(_)) => {
                Err(Error::new("neither path is an app's: write POD:PATH or POD/APP:PATH"))
            }
            (AppPath::App { pod, app, path }, AppPath::Host(to)) => {
                let (pod, app) = app_path::find(session, &pod, app.as_deref())?;
                let root = AppRoot::open(store, &pod, &app)?;
                let source = Source::find(&root, &path).context(|| of_app(&app))?;
                if app_path::is_stream(&to) {
                    let mut out = BufWriter::with_capacity(1 << 17, io::stdout().lock());
                    source.pack(root.ids(), &mut out)?;
                    return out.flush().context(|| "write to standard output");
                }
                copy::copy(&source, &on_host(&to)?, caller())
            }
            (AppPath::Host(from), AppPath::App { pod, app, path }) => {
                let (pod, app) = app_path::find(session, &pod, app.as_deref())?;
                if app_path::is_stream(&from) {
                    let (source, _files) = copy::unpack(store, io::stdin().lock())?;
                    return into_app(session, &source, &pod, &app, &path);
                }
                let source = Source::find(host()?, &copy::host_path(&from)?)?;
                into_app(session, &source, &pod, &app, &path)
            }
            (AppPath::App { pod, app, path }, AppPath::App { pod: other_pod, app: other, path: to }) => {
                let (pod, app) = app_path::find(session, &pod, app.as_deref())?;
                let root = AppRoot::open(store, &pod, &app)?;
                let source = Source::find(&root, &path).context(|| of_app(&app))?;
                let (pod, app) = app_path::find(session, &other_pod, other.as_deref())?;
                into_app(session, &source, &pod, &app, &to)
            }
        }
    }
}

fn into_app(session: &Session, source: &Source, pod: &Pod, app: &AcName, path: &Path) -> Result<()> {
    let root = AppRoot::open(&session.store, pod, app)?;
    root.must_be_writable()?;
    let destination = Destination::find(&root, path).context(|| of_app(app))?;
    let (uid, gid) = record(pod, app)?.map_or((0, 0), |record| (record.confinement.uid, record.confinement.gid));
    let shifted = |id: u32| match root.ids() {
        Some(ids) => ids.to_host(id).context(|| format!("the pod has no id {id}")),
        None => Ok(id),
    };
    if root.ids().is_some() {
        caps::make_files_as(shifted(0)?, shifted(0)?)?;
    }
    copy::copy(source, &destination, (shifted(uid)?, shifted(gid)?)).context(|| of_app(app))
}

fn of_app(app: &AcName) -> String {
    format!("app {app}")
}

/// The user and group that copies on the host belong to.
fn caller() -> (u32, u32) {
    (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
}

fn host() -> Result<impl AsFd> {
    dir::open_dir("/")
}

fn on_host(path: &Path) -> Result<Destination> {
    Destination::find(host()?, &copy::host_path(path)?)
}

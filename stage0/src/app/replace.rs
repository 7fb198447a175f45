//! Replacing an app of a running pod by one with another image or other options.
//!
//! A replacement first writes the old app's options to a note in the pod's directory, and holds the note's lock until
//! it is done. A note without a lock was left by a replacement that was killed: [`recover`] finishes that.

use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stage1::appc::AcName;
use stage1::error::{Context, Error, Result};
use stage1::pod::{State, remove_if_there};

use super::add::add;
use super::files::{AppFiles, SetAside};
use super::health;
use super::host_record::AppRecord;
use super::lifecycle;
use super::options::AddOptions;
use super::status;
use crate::fsutil::dir::names_in;
use crate::fsutil::lock;
use crate::image::store::find::find;
use crate::image::tree as trees;
use crate::poddir::find::Pod;
use crate::poddir::manifest::{self, Locked};
use crate::poddir::pause;
use crate::store::Store;

/// The start of the note's file name; the app's name follows.
const NOTE: &str = "pod.replacing-";

/// The content of a note: the old app.
#[derive(Serialize, Deserialize)]
struct Old {
    /// The options that it was added with.
    options: AddOptions,
    /// Whether it ran.
    runs: bool,
    /// Whether it was started by a command and not stopped since.
    wanted: bool,
    /// Its upper directory, relative to the pod's directory.
    upper: Option<PathBuf>,
}

/// A replacement whose note this process holds locked.
struct Replacement<'a> {
    store: &'a Store,
    pod: &'a Pod,
    app: &'a AcName,
    old: Old,
    debug: bool,
    _lock: File,
}

/// Replaces an app by one with the old app's options, changed by `changes`. The new app is started if the old one ran.
/// Volumes stay; the files that the old app wrote to its root are removed.
///
/// # Errors
/// The old app's options were not recorded, an option is invalid or an image is missing: nothing is changed then. Or
/// the new app can't be added or started: then the old one is put back, with the files it had written, and is started
/// if it ran.
pub fn replace(store: &Store, pod: &Pod, app: &AcName, changes: AddOptions, debug: bool) -> Result<()> {
    let before = AppRecord::new(pod.dir(), app).options()?.context(|| {
        format!(
            "how app {app} was added is not known: an older version or another host manager did that; \"podctl app rm\" \
             and \"podctl app add\" replace it"
        )
    })?;
    pause::must_go_on(pod, Some(app))?;
    let new = AddOptions { name: Some(app.to_string()), debug, ..before.clone().changed_by(changes) };
    // find all errors that can be found before the old app is stopped
    let image = find(store, &new.image)?;
    health::give(store, &image, &new.health, &mut new.runtime_app(&image)?)?;
    drop(trees::ensure(store, &image.id)?);
    find(store, old_image(&before)).context(|| {
        format!("the old app could not be put back if the new one failed: import the image of app {app} again")
    })?;
    let old = Old {
        runs: status::status(pod, app)?.state == "running",
        wanted: AppRecord::new(pod.dir(), app).is_wanted(),
        upper: AppFiles::new(pod.dir(), app).upper()?,
        options: before,
    };
    let replacement = Replacement::begin(store, pod, app, old, debug)?;
    lifecycle::remove_but(store, pod, app, true, debug, |files| files.set_aside().map(drop))?;
    match add(store, pod, &new).and_then(|()| replacement.start()) {
        Ok(()) => replacement.done(),
        Err(error) => Err(replacement.put_back(error)),
    }
}

/// Finishes the replacements in a running pod that were killed: a new app that was added completely stays, else the old
/// one is put back. Replacements that other processes are at work on are left alone.
///
/// # Errors
/// A replacement can't be finished; a later call tries it again.
pub(super) fn recover(store: &Store, pod: &Pod, debug: bool) -> Result<()> {
    if pod.state() != State::Running {
        return Ok(());
    }
    for name in names_in(pod.dir())? {
        let Some(app) = name.to_str().and_then(|name| name.strip_prefix(NOTE)?.parse::<AcName>().ok()) else {
            continue;
        };
        if let Some(left) = Replacement::interrupted(store, pod, &app, debug)? {
            log::warn!("app {app}: its replacement was interrupted");
            left.finish().context(|| format!("finish the replacement of app {app}"))?;
        }
    }
    Ok(())
}

impl<'a> Replacement<'a> {
    fn begin(store: &'a Store, pod: &'a Pod, app: &'a AcName, old: Old, debug: bool) -> Result<Self> {
        let path = note(pod.dir(), app);
        let shown = || format!("write {path:?}");
        let new = pod.dir().join(format!(".{NOTE}{app}"));
        remove_if_there(&new)?;
        let mut file = File::create_new(&new).context(shown)?;
        file.set_permissions(Permissions::from_mode(0o600)).context(shown)?;
        // locked before other processes can see it
        if !lock::try_take(&file, &new, lock::Kind::Exclusive)? {
            return Err(Error::new(format!("app {app} is being replaced by another process")));
        }
        file.write_all(&serde_json::to_vec(&old).context(shown)?).context(shown)?;
        file.sync_all().context(shown)?;
        rustix::fs::renameat_with(rustix::fs::CWD, &new, rustix::fs::CWD, &path, rustix::fs::RenameFlags::NOREPLACE)
            .context(|| format!("app {app} is being replaced by another process: rename {new:?} to {path:?}"))?;
        Ok(Self { store, pod, app, old, debug, _lock: file })
    }

    /// Takes over a replacement of the app that was killed; `None` if there is none.
    fn interrupted(store: &'a Store, pod: &'a Pod, app: &'a AcName, debug: bool) -> Result<Option<Self>> {
        let path = note(pod.dir(), app);
        let shown = || format!("read {path:?}");
        let mut file = match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            file => file.context(shown)?,
        };
        if !lock::try_take(&file, &path, lock::Kind::Exclusive)? || !path.exists() {
            return Ok(None);
        }
        let mut text = Vec::new();
        file.read_to_end(&mut text).context(shown)?;
        let old = serde_json::from_slice(&text).context(shown)?;
        Ok(Some(Self { store, pod, app, old, debug, _lock: file }))
    }

    fn finish(self) -> Result<()> {
        // an entrypoint of the killed podctl may still run: it has the pod's lock
        drop(Locked::new(self.pod.dir())?);
        let manifest = manifest::read(self.pod.dir())?;
        let is_listed = manifest.app(self.app).is_some() && !manifest::is_being_added(self.pod.dir(), self.app);
        let is_whole = is_listed && {
            let now = status::status(self.pod, self.app)?;
            !now.half_removed && now.state != "unknown"
        };
        let is_new = AppRecord::new(self.pod.dir(), self.app).options()?.as_ref() != Some(&self.old.options);
        match is_whole {
            // the app is the old one, which was not removed yet
            true if !is_new => self.start().and_then(|()| self.done()),
            true => match self.start() {
                Ok(()) => self.done(),
                Err(error) => Err(self.put_back(error)),
            },
            false => self.bring_back().and_then(|()| self.done()),
        }
    }

    /// Starts the app if the old one ran.
    fn start(&self) -> Result<()> {
        if self.old.runs {
            return lifecycle::start(self.store, self.pod, self.app, self.debug);
        }
        AppRecord::new(self.pod.dir(), self.app).set_wanted(self.old.wanted)
    }

    /// Puts the old app back after the new one has failed with `error`.
    fn put_back(self, error: Error) -> Error {
        match self.bring_back().and_then(|()| self.done()) {
            Ok(()) => Error::new(format!("{}; the old app is back", error.one_line())),
            Err(also) => {
                Error::new(format!("{}; putting the old app back failed, too: {}", error.one_line(), also.one_line()))
            }
        }
    }

    fn bring_back(&self) -> Result<()> {
        // also the remains of an interrupted addition: a later undo of that would remove the old app's files
        let is_there = manifest::read(self.pod.dir())?.app(self.app).is_some()
            || manifest::is_being_added(self.pod.dir(), self.app)
            || AppFiles::new(self.pod.dir(), self.app).exist();
        if is_there {
            // no upper directory was set aside: the app is the old one, whose removal was interrupted
            let is_old = self.aside().is_nothing();
            let keep = |files: &AppFiles<'_>| if is_old { files.set_aside().map(drop) } else { Ok(()) };
            lifecycle::remove_but(self.store, self.pod, self.app, true, self.debug, keep)?;
        }
        self.aside().put_back()?;
        let old = &self.old.options;
        let options = AddOptions {
            // by its id: its name may name another image now
            image: old_image(old).to_owned(),
            name: Some(self.app.to_string()),
            debug: self.debug,
            ..old.clone()
        };
        add(self.store, self.pod, &options)?;
        self.start()
    }

    fn aside(&self) -> SetAside {
        SetAside::of(self.pod.dir(), self.app, self.old.upper.as_deref())
    }

    fn done(&self) -> Result<()> {
        self.aside().forget()?;
        remove_if_there(&note(self.pod.dir(), self.app))
    }
}

fn note(pod: &Path, app: &AcName) -> PathBuf {
    pod.join(format!("{NOTE}{app}"))
}

/// The image that an app was added from.
fn old_image(options: &AddOptions) -> &str {
    options.image_id.as_ref().unwrap_or(&options.image)
}

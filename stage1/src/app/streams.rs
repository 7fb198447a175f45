//! The multiplexer of an app's streams as the verbs see it: made with the app, stopped and removed with it. Host side,
//! in the pod directory.

use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::{control, deadline};
use crate::appc::AcName;
use crate::cross::Target;
use crate::error::{Context, Result};
use crate::iomux::k8s::LogFile;
use crate::iomux::{self, Modes, PTS, Settings, Streams};
use crate::sys::mount::{self, Attributes, DetachedMount, Propagation, Scope};
use crate::{layout, systemd, unit};

/// Makes what the app's multiplexer needs, if it has one: its directory, and in the pod the directory of log files,
/// which is `log`'s on the host.
pub(super) fn prepare(
    target: &Target,
    app: &AcName,
    modes: Modes,
    log: Option<(LogFile, String)>,
    owner: Option<u32>,
) -> Result<()> {
    let streams: Streams = modes.streams();
    if !iomux::is_used(&streams) {
        return Ok(());
    }
    let log = match log {
        Some((file, directory)) => {
            mount_log_files(target, &directory)?;
            Some(file)
        }
        None => None,
    };
    iomux::prepare(app, &Settings { streams, log, journaled: modes.journaled() }, owner)
}

/// Mounts the host's directory of log files in the pod, where all its apps' multiplexers find it.
fn mount_log_files(target: &Target, directory: &str) -> Result<()> {
    let what = || format!("directory of log files {directory:?}");
    let source = DetachedMount::clone_path(Path::new(directory), Scope::One).context(what)?;
    let attributes = Attributes {
        nosuid: true,
        nodev: true,
        noexec: true,
        propagation: Some(Propagation::Private),
        ..Attributes::default()
    };
    source.set(attributes, Scope::One).context(what)?;
    if let Some(namespace) = target.user_namespace()? {
        // Else the pod could not write there: the host's root is nobody inside.
        source.map_ids(namespace, Scope::One).context(what)?;
    }
    target
        .inside(deadline(), || {
            let place = Path::new(layout::LOG_FILES);
            match rustix::fs::mkdir(place, Mode::RWXU) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(errno) => return Err(errno).context(|| format!("mkdir({place:?})")),
            }
            // Another app may have it there already.
            if mount::is_mount_point(place)? { Ok(()) } else { source.attach_path(place) }
        })
        .context(what)
}

/// Stops the app's multiplexer, if it has one.
pub(super) fn stop(target: &Target, app: &AcName) -> Result<()> {
    if !unit::iomux::exists(app)? {
        return Ok(());
    }
    let deadline = deadline();
    control::with_systemd(target, deadline, |systemd| match systemd.stop_unit(&layout::iomux_unit(app), deadline) {
        Err(error) if !systemd::is_no_such_unit(&error) => Err(error),
        _ => Ok(()),
    })?;
    target.inside(deadline, || {
        // One that was killed has left its terminal mounted.
        let terminal: PathBuf = [layout::IN_POD_IOTTYMUX, app.as_ref(), PTS].iter().collect();
        while mount::detach(&terminal)? {}
        Ok(())
    })
}

/// Stops the app's multiplexer, if it has one, and removes its directory.
pub(super) fn remove(target: &Target, app: &AcName) -> Result<()> {
    stop(target, app)?;
    iomux::remove(app)
}

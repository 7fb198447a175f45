//! Reading an app's launch record from outside the pod.

use stage1::appc::AcName;
use stage1::error::{Context, Result};
use stage1::launch::LaunchRecord;
use stage1::layout;
use stage1::sys::dir;

use crate::poddir::find::Pod;

/// The launch record of an app; `None` before app-add has written it, or if the pod's root is not mounted.
///
/// # Errors
/// The record can't be read or is damaged.
pub fn record(pod: &Pod, app: &AcName) -> Result<Option<LaunchRecord>> {
    if !pod.dir().join(layout::launch_record(app)).exists() {
        return Ok(None);
    }
    let root = dir::open_dir(pod.dir().join(layout::STAGE1_ROOTFS))?;
    let inside = layout::app_dir(app);
    let inside = inside.strip_prefix(layout::STAGE1_ROOTFS).context(|| format!("{inside:?} is not in the pod"))?;
    let directory = dir::open_beneath(root, inside, rustix::fs::OFlags::PATH | rustix::fs::OFlags::DIRECTORY)?;
    LaunchRecord::load(directory, layout::LAUNCH).map(Some)
}

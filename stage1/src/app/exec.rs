//! Becoming an app. Pod side, as the app unit's main process.

use std::convert::Infallible;

use crate::appc::AcName;
use crate::error::Result;
use crate::launch::LaunchRecord;
use crate::{launch, layout, rootfs, sys};

/// Becomes the app: record, mount namespace, confinement, command, in this order.
///
/// # Errors
/// When the app can't be executed as recorded; the exit codes for that are those of [`crate::launch`].
pub fn exec(app: &AcName) -> Result<Infallible> {
    sys::process::not_dumpable()?;
    sys::process::close_on_exec_from_3()?;
    let record = load_record(app)?;
    rootfs::join_pinned(app)?;
    launch::exec(&record.confinement, &record.command())
}

/// Loads an app's launch record, in the pod's root.
pub(super) fn load_record(app: &AcName) -> Result<LaunchRecord> {
    let (dir, name) = layout::in_pod_launch_record(app);
    LaunchRecord::load(sys::dir::open_dir(dir)?, name)
}

//! What an app writes to its standard error, told apart from its output in the pod's journal. Pod side.

use rustix::fs::FileType;

use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::iomux::{NAMES, journal};
use crate::sys::process;

/// Gives this process, which becomes the app, a stream of its own to journald for its standard error. systemd would
/// have both outputs share one, and then nobody can tell them apart. Nothing is done if it does not go to journald.
///
/// # Errors
/// There is no such stream to be had.
pub(super) fn separate(app: &AcName) -> Result<()> {
    let stat = rustix::fs::fstat(rustix::stdio::stderr()).context(|| "fstat(stderr)")?;
    // Of all that it can be, only the journal is a socket.
    if FileType::from_raw_mode(stat.st_mode) != FileType::Socket {
        return Ok(());
    }
    process::set_standard_fd(journal::stream(app, NAMES[2])?, 2)
}

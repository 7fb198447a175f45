//! The verbs of an app's life in a running pod: added, started, stopped, removed; and, on the pod
//! side, executed and its end written down.

mod add;
mod control;
mod end;
mod enter;
mod exec;

pub use add::Addition;
pub use control::{rm, start, stop};
pub use end::record_exit;
pub use enter::{Ended, Entry, Tty, enter};
pub use exec::exec;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::error::{Context, Result};

/// How long the parts of a verb that wait for nobody's app may take.
const TIMEOUT: Duration = Duration::from_secs(30);

fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}

/// Removes a file; none to remove is no error.
fn remove_file(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context(|| format!("remove {path:?}")),
        _ => Ok(()),
    }
}

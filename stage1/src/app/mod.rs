//! Adding, starting, stopping and removing an app of a running pod; and, on the pod side, executing it and recording
//! its end.

mod add;
mod await_others;
mod back_off;
mod control;
mod declared;
mod enter;
mod exec;
mod exit_status;
mod health;
mod hooks;
mod notify;
mod on_host;
mod pid_namespace;
mod reaper_notes;
mod stand_in;
mod streams;
mod update;

pub use add::{Addition, Flags as AdditionFlags, Prepared};
pub use await_others::{AFTER_TIMEOUT, await_others};
pub use back_off::back_off;
pub use control::{rm, start, stop};
pub use declared::{
    MAX_STOP_TIMEOUT, POST_START, PRE_STOP, RESTART, RESTART_LIMIT, RestartPolicy, STOP_SIGNAL, STOP_TIMEOUT,
    parse_hook, parse_restart, parse_restart_limit, parse_stop_signal, parse_stop_timeout, stop_timeout,
};
pub use enter::{Ended, Entry, Tty, enter};
pub use exec::{Readiness, exec};
pub use exit_status::{Again, record_exit, record_exit_late};
pub use health::check_health;
pub use hooks::{Event, run_handlers};
pub use on_host::{end_on_host, run_on_host};
pub use update::update;

use std::time::{Duration, Instant};

use crate::confine::caps::CapSet;
use crate::cross::Target;
use crate::error::{Error, Result};
use crate::sys::process;

/// The timeout for the steps of a verb that do not wait for an app.
const TIMEOUT: Duration = Duration::from_secs(30);

fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}

/// The bounding set of the pod's PID 1. Host side.
fn bounding_set(target: &Target) -> Result<CapSet> {
    let set = CapSet::bounding_of(&target.pid().to_string())?;
    // Read by PID: it is the pod's only if the process of the pidfd still has that PID.
    if process::pidfd_wait_end(target.pidfd(), Duration::ZERO)? {
        return Err(Error::new("the pod has ended"));
    }
    Ok(set)
}

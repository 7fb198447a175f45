//! The verbs of an app's life in a running pod: added, started, stopped, removed; and, on the pod
//! side, executed and its end written down.

mod add;
mod back_off;
mod control;
mod declared;
mod end;
mod enter;
mod exec;
mod note;
mod streams;

pub use add::{Addition, Flags as AdditionFlags, Prepared};
pub use back_off::back_off;
pub use control::{rm, start, stop};
pub use declared::{
    RESTART, RESTART_LIMIT, RestartPolicy, STOP_SIGNAL, STOP_TIMEOUT, parse_restart, parse_restart_limit,
    parse_stop_signal, parse_stop_timeout, stop_timeout,
};
pub use end::{Again, record_exit, record_exit_late};
pub use enter::{Ended, Entry, Tty, enter};
pub use exec::{Event, Readiness, exec, run_handlers};

use std::time::{Duration, Instant};

/// How long the parts of a verb that do not wait for an app may take.
const TIMEOUT: Duration = Duration::from_secs(30);

fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}

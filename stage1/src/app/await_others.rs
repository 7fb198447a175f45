//! Waiting for other apps of the pod before an app starts. Pod side, before the app's handlers.

use std::path::Path;
use std::time::{Duration, Instant};

use super::back_off::ask_for_time;
use super::deadline;
use super::exec::load_record;
use super::reaper_notes::Note;
use crate::appc::{AcName, After, Condition};
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::{Health, Wellness, read_bounded};
use crate::systemd::{ActiveState, Client, PRIVATE_SOCKET};

/// How long an app waits for others; its own start timeout begins after that.
pub const AFTER_TIMEOUT: Duration = Duration::from_secs(180);
/// How often their states are read.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until the apps that `app` must start after have reached the states that its launch record names.
///
/// # Errors
/// One of them can't reach its state any more, or has not within three minutes. The reason is also written to the app's
/// note.
pub fn await_others(app: &AcName) -> Result<()> {
    crate::sys::process::not_dumpable()?;
    crate::sys::process::close_on_exec_from_3()?;
    let mut note = Note::open(app)?;
    let waited = wait(app);
    if let Err(error) = &waited {
        note.write(error, true);
    }
    waited
}

fn wait(app: &AcName) -> Result<()> {
    let record = load_record(app)?;
    ask_for_time(AFTER_TIMEOUT)?;
    let end = Instant::now() + AFTER_TIMEOUT;
    for after in &record.after {
        while !is_met(after)? {
            if Instant::now() >= end {
                let seconds = AFTER_TIMEOUT.as_secs();
                let (other, until) = (&after.app, after.until.word());
                return Err(Error::new(format!(
                    "app {other}, which it comes after, was not {until} within {seconds} s"
                )));
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

fn is_met(after: &After) -> Result<bool> {
    let app = &after.app;
    if after.until == Condition::Exited {
        return match read_bounded(&layout::in_pod_status(app), 16) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(false),
            text => match String::from_utf8_lossy(&text?).trim() {
                "0" => Ok(true),
                code => Err(Error::new(format!("app {app}, which it comes after, ended with {code}"))),
            },
        };
    }
    let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline())?;
    if systemd.active_state(&layout::app_unit(app), deadline())? != ActiveState::Active {
        return Ok(false);
    }
    match after.until {
        Condition::Healthy => {
            let health = Health::load_in_pod(app)?;
            let health =
                health.context(|| format!("app {app}, which it comes after, has no health check: --health-cmd"))?;
            Ok(health.status == Wellness::Healthy)
        }
        _ => Ok(true),
    }
}

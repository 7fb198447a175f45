//! `podctl enable` and `podctl disable`

use std::path::{Path, PathBuf};
use std::process::Command;

use stage1::error::{Context, Error, Result};

use super::args::pod::OnePod;
use super::generate::unit_of;
use super::output::say;
use super::session::Session;
use crate::fsutil::atomic::write;

/// The directory of the administrator's units: systemd.unit(5).
const UNITS: &str = "/etc/systemd/system";

/// Writes the pod's unit and enables it, so that the host starts the pod at boot.
pub fn enable(pod: &OnePod, session: &Session) -> Result<()> {
    let (name, text) = unit_of(session, &pod.find(session)?)?;
    let path = unit(&name)?;
    write(&path, text.as_bytes(), 0o644)?;
    systemctl(&["daemon-reload"])?;
    systemctl(&["enable", &name])?;
    say(format!("{}: starts the pod at boot", path.display()))
}

/// Disables and removes the pod's unit; the pod itself does not change.
pub fn disable(pod: &OnePod, session: &Session) -> Result<()> {
    let (name, _) = unit_of(session, &pod.find(session)?)?;
    let path = unit(&name)?;
    if !path.exists() {
        return Err(Error::new(format!("there is no {}: the pod was not enabled", path.display())));
    }
    systemctl(&["disable", &name])?;
    std::fs::remove_file(&path).context(|| format!("remove {path:?}"))?;
    systemctl(&["daemon-reload"])
}

fn unit(name: &str) -> Result<PathBuf> {
    // sd_booted(3)
    if !Path::new("/run/systemd/system").is_dir() {
        return Err(Error::new("this host's PID 1 is not systemd: nothing could start the pod at boot"));
    }
    Ok(Path::new(UNITS).join(name))
}

fn systemctl(words: &[&str]) -> Result<()> {
    let output = Command::new("systemctl").args(words).output().context(|| "run systemctl")?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("systemctl {}: {}", words.join(" "), said.trim().replace('\n', "; "))))
}

//! Waiting for the end of a pod as a service of the host's systemd: sd_notify(3).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use nix::sys::signal::Signal;
use stage1::error::{Context, Error, Result};
use stage1::sys::signal;

use crate::pod::start;
use crate::pod::stop::{self, StopOptions};
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::store::Store;

/// How often to look for a signal and for the end of the pod.
const POLL: Duration = Duration::from_millis(200);

/// Starts the pod if it has ended, notifies systemd that it is ready, and waits until it ends. SIGTERM, SIGINT or
/// SIGHUP stops the pod in order.
///
/// # Errors
/// The pod can't be started or stopped, or it ended without being removed: then systemd restarts the service.
pub fn until_it_ends(store: &Store, pod: &Pod, debug: bool) -> Result<()> {
    let signals = signal::block(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP])?;
    // a pod that has ended, for example by a reboot, runs again with all its files
    start::start(store, pod, debug)?;
    let pod = &pods::find_whole(store, pod.uuid())?;
    tell("READY=1")?;
    loop {
        if signals.read_signal().context(|| "read(signalfd)")?.is_some() {
            tell("STOPPING=1")?;
            return stop::stop(store, pod, StopOptions { debug, ..StopOptions::default() });
        }
        match pods::find_whole(store, pod.uuid()) {
            Ok(pod) if pod.state() == State::Running => std::thread::sleep(POLL),
            Ok(_) => return Err(Error::new("it has ended")),
            // the user has stopped and removed it
            Err(_) => return Ok(()),
        }
    }
}

/// Sends a notification to the host's systemd; does nothing if `NOTIFY_SOCKET` is not set.
fn tell(what: &str) -> Result<()> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let shown = || format!("tell systemd {what} at {path:?}");
    let address = match path.as_encoded_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let socket = UnixDatagram::unbound().context(shown)?;
    socket.send_to_addr(what.as_bytes(), &address.context(shown)?).context(shown).map(drop)
}

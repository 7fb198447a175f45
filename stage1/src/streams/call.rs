//! Calls of the pod's monitor. A call is one message of words separated by blanks, with or without descriptors; the
//! answer is one line that begins with `ok`, or an error message.
//!
//! The monitor listens in two places: at [`layout::MONITOR`] for processes of the pod, whose identity it checks, and in
//! the pod's directory for processes of the host; no process of the pod can reach that one.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::{fd_passing, process};

/// An app, or one of its handlers, is about to be executed: `start APP main|handler NAME…`, with a descriptor for each
/// name. Pod side.
pub(crate) const START: &str = "start";
/// An app has ended: `ended APP`, answered when all its output has been read and written. Pod side.
pub(crate) const ENDED: &str = "ended";
/// An app that has the host's PID namespace is to be executed there: `on-host APP`. The connection stays, for who executes
/// it and who stands in for it. Pod side.
pub(crate) const ON_HOST: &str = "on-host";
/// Who executes the app on the host has ended before the app: `on-host-end APP`, answered when the rest of the app was
/// killed. Pod side.
pub(crate) const ON_HOST_END: &str = "on-host-end";
/// `list APP`, answered with the names of its endpoints. Host side.
pub(crate) const LIST: &str = "list";
/// `attach APP NAME`, answered with a connection to that endpoint, and its number. Host side.
pub(crate) const ATTACH: &str = "attach";
/// `resize APP ROWS COLUMNS NUMBER`: the window size of the client with that connection to the app's terminal. Host
/// side.
pub(crate) const RESIZE: &str = "resize";
/// `reopen APP`: its log file for a kubelet was renamed. Host side.
pub(crate) const REOPEN: &str = "reopen";
/// `forget APP`: it is being removed. Host side.
pub(crate) const FORGET: &str = "forget";
/// `stop`: the pod is being stopped; the monitor limits its wait for the reader of `run`. Host side.
pub(crate) const STOP: &str = "stop";

/// The first word of an answer to a call that succeeded.
pub(crate) const OK: &str = "ok";
/// Longest message and longest answer, in bytes.
pub(crate) const MAX: usize = 4096;

/// How long an answer to the host may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Calls the monitor of the pod in the current directory. Returns the answer after `ok`, and its descriptors. Host
/// side.
///
/// # Errors
/// No monitor runs, it does not answer, or it refuses.
pub fn from_host(words: &[&str]) -> Result<(String, Vec<OwnedFd>)> {
    Asked::from_host(words)?.answer()
}

/// Calls the monitor from inside the pod. Pod side.
///
/// # Errors
/// As [`from_host`].
pub(crate) fn from_pod(words: &[&str], patience: Duration) -> Result<()> {
    call(&connected(layout::MONITOR)?, words, &[], patience).map(drop)
}

/// A connection to the monitor at `path`.
pub(crate) fn connected(path: &str) -> Result<OwnedFd> {
    let what = || format!("connect to the pod's monitor at {path:?}");
    let address = SocketAddrUnix::new(path).context(what)?;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).context(|| "socket")?;
    connect(&socket, &address).context(what)?;
    Ok(socket)
}

/// Sends a message, and waits for the answer.
pub(crate) fn call(
    socket: &OwnedFd,
    words: &[&str],
    fds: &[BorrowedFd<'_>],
    patience: Duration,
) -> Result<(String, Vec<OwnedFd>)> {
    let text = words.join(" ");
    send(socket, &text, fds)?;
    answer(socket, &text, patience)
}

/// A call of the monitor by the host whose answer is not read yet.
pub(crate) struct Asked {
    socket: OwnedFd,
    text: String,
}

impl Asked {
    /// Calls the monitor as [`from_host`] does, and does not wait.
    ///
    /// # Errors
    /// No monitor runs.
    pub(crate) fn from_host(words: &[&str]) -> Result<Self> {
        let asked = Self { socket: connected(layout::MONITOR_SOCKET)?, text: words.join(" ") };
        send(&asked.socket, &asked.text, &[])?;
        Ok(asked)
    }

    /// Waits for the answer, as [`from_host`] does.
    ///
    /// # Errors
    /// The monitor does not answer, or it refuses.
    pub(crate) fn answer(self) -> Result<(String, Vec<OwnedFd>)> {
        answer(&self.socket, &self.text, PATIENCE)
    }
}

fn send(socket: &OwnedFd, text: &str, fds: &[BorrowedFd<'_>]) -> Result<()> {
    match fd_passing::send_message(socket, text.as_bytes(), fds) {
        // The monitor may have answered before it closed the connection.
        Err(error) if error.errno() == Some(libc::EPIPE) => {}
        sent => sent.context(|| format!("send {text:?} to the pod's monitor"))?,
    }
    Ok(())
}

fn answer(socket: &OwnedFd, text: &str, patience: Duration) -> Result<(String, Vec<OwnedFd>)> {
    if !process::wait_readable(socket, patience)? {
        return Err(Error::new(format!("the pod's monitor did not answer {text:?} within {patience:?}")));
    }
    let got = match fd_passing::receive_message(socket, MAX) {
        // The kernel reports first that the monitor closed the connection with unread data.
        Err(error) if error.errno() == Some(libc::ECONNRESET) => fd_passing::receive_message(socket, MAX),
        got => got,
    };
    let Some((answer, fds)) = got? else {
        return Err(Error::new(format!("the pod's monitor closed the connection without an answer to {text:?}")));
    };
    let answer = String::from_utf8_lossy(&answer).into_owned();
    match answer.strip_prefix(OK) {
        Some(rest) => Ok((rest.trim_start().to_owned(), fds)),
        None => Err(Error::new(format!("the pod's monitor: {answer}"))),
    }
}

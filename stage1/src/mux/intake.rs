//! Who talks to the monitor, and what they may say. Host side.
//!
//! The kernel tells the PID of a peer inside the pod, and with it the peer's cgroup. A peer speaks for the app in whose
//! unit it runs, and for no other.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use crate::appc::AcName;
use crate::cgroup::PodCgroup;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::streams::call;
use crate::sys::fd_passing;

/// Backlog of the monitor's sockets: listen(2).
const BACKLOG: i32 = 256;

/// Where the monitor listens: for the pod, and for the host.
#[derive(Debug)]
pub struct Listeners {
    pub(super) pod: OwnedFd,
    pub(super) host: OwnedFd,
}

impl Listeners {
    /// Listens in the pod's directory, which is the current one. Inside the pod [`Self::bind_in_pod`] does.
    ///
    /// # Errors
    /// A socket can't be made or bound.
    pub fn new() -> Result<Self> {
        let make = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
            let socket = socket.context(|| "socket")?;
            // The mode of what bind(2) makes.
            rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600)).context(|| "fchmod(socket)")?;
            Ok::<_, Error>(socket)
        };
        let (pod, host) = (make()?, make()?);
        forget()?;
        bind_at(&host, layout::MONITOR_SOCKET)?;
        Ok(Self { pod, host })
    }

    /// Listens inside the pod, for the pod's root alone. Pod side, before PID 1 is executed.
    ///
    /// # Errors
    /// The socket can't be bound.
    pub fn bind_in_pod(&self) -> Result<()> {
        bind_at(&self.pod, layout::MONITOR)
    }
}

/// Removes the socket in the pod's directory, the current one.
pub(super) fn forget() -> Result<()> {
    crate::pod::remove_if_there(Path::new(layout::MONITOR_SOCKET))
}

fn bind_at(socket: &OwnedFd, path: &str) -> Result<()> {
    let what = || format!("bind({path:?})");
    bind(socket, &SocketAddrUnix::new(path).context(what)?).context(what)?;
    listen(socket, BACKLOG).context(what)
}

/// A hint for a failure for lack of descriptors.
pub(super) fn explained(error: Error) -> Error {
    if error.errno() != Some(libc::EMFILE) {
        return error;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let helps = "remove apps, or give whoever starts the pod a higher limit (ulimit -n)";
    Error::caused_by(format!("the pod's monitor has no descriptor left of {limit}: {helps}"), error)
}

/// What was said.
#[derive(Debug)]
pub(super) enum Said {
    /// Nothing yet.
    Nothing,
    /// Nothing more: it has hung up.
    HungUp,
    /// An app, or a handler of it, is about to start, with these ends of its streams.
    Start { app: AcName, main: bool, ends: Vec<(String, OwnedFd)> },
    /// An app has ended.
    Ended(AcName),
    /// What can be attached to?
    List(AcName),
    /// A connection to an endpoint is wanted.
    Attach(AcName, String),
    /// How large the window of a client of an app's terminal is: which client.
    Resize(AcName, rustix::termios::Winsize, u64),
    /// A kubelet's log file was renamed.
    Reopen(AcName),
    /// An app is being removed.
    Forget(AcName),
    /// The pod is being stopped.
    Stop,
}

/// What a caller says; `in_pod`: it is inside of the pod with this cgroup.
pub(super) fn read(talk: BorrowedFd<'_>, in_pod: Option<&PodCgroup>) -> Result<Said> {
    let (text, fds) = match fd_passing::receive_message(talk, call::MAX) {
        Err(error) if error.errno() == Some(libc::EAGAIN) => return Ok(Said::Nothing),
        Err(error) if error.errno() == Some(libc::ECONNRESET) => return Ok(Said::HungUp),
        got => match got? {
            Some(got) => got,
            None => return Ok(Said::HungUp),
        },
    };
    let text = String::from_utf8(text).context(|| "a message is not UTF-8")?;
    let words: Vec<&str> = text.split(' ').collect();
    let name = |word: &str| word.parse::<AcName>().context(|| format!("app name {word:?}"));
    let said = match (in_pod, &words[..]) {
        (Some(_), [call::START, app, who @ ("main" | "handler"), names @ ..]) if names.len() == fds.len() => {
            let ends = names.iter().map(|&name| name.to_owned()).zip(fds).collect();
            Said::Start { app: name(app)?, main: *who == "main", ends }
        }
        (Some(_), [call::ENDED, app]) => Said::Ended(name(app)?),
        (None, [call::LIST, app]) => Said::List(name(app)?),
        (None, [call::ATTACH, app, endpoint]) => Said::Attach(name(app)?, (*endpoint).to_owned()),
        (None, [call::RESIZE, app, rows, columns, client]) => {
            let number = |word: &str| word.parse::<u16>().context(|| format!("{word:?} is not a size"));
            let (ws_row, ws_col) = (number(rows)?, number(columns)?);
            let client = client.parse::<u64>().context(|| format!("{client:?} is not a client"))?;
            Said::Resize(name(app)?, rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }, client)
        }
        (None, [call::REOPEN, app]) => Said::Reopen(name(app)?),
        (None, [call::FORGET, app]) => Said::Forget(name(app)?),
        (None, [call::STOP]) => Said::Stop,
        _ => return Err(Error::new(format!("the message {text:?} is not understood"))),
    };
    if let (Some(cgroup), Said::Start { app, .. } | Said::Ended(app)) = (in_pod, &said) {
        check_peer(talk, cgroup, app)?;
    }
    Ok(said)
}

/// Makes sure that a peer runs in the unit of `app`, or in the one that writes down its end.
fn check_peer(talk: BorrowedFd<'_>, cgroup: &PodCgroup, app: &AcName) -> Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(talk).context(|| "getsockopt(SO_PEERCRED)")?;
    let pid = peer.pid.as_raw_nonzero().get();
    let units = [layout::app_cgroup(app), layout::late_reaper_cgroup(app)];
    for unit in &units {
        if cgroup.has_process(pid, unit)? {
            return Ok(());
        }
    }
    Err(Error::new(format!("process {pid} does not run in the unit of app {app}: it may not speak for it")))
}

/// Sends the answer. A caller that has gone misses it, which is not an error.
pub(super) fn answer(talk: impl AsFd, done: Result<String>, fds: &[BorrowedFd<'_>]) {
    let text = match done {
        Ok(rest) => format!("{} {rest}", call::OK),
        Err(error) => {
            let error = explained(error);
            log::warn!("{}", error.one_line());
            error.one_line()
        }
    };
    let bytes = &text.as_bytes()[..text.len().min(call::MAX)];
    let sent = match fds.is_empty() {
        true => rustix::net::send(talk, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map(drop).context(|| "send"),
        false => fd_passing::send_message(talk, bytes, fds),
    };
    if let Err(error) = sent {
        log::debug!("answer {text:?}: {}", error.one_line());
    }
}

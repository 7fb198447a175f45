//! The monitor's sockets, the requests that it takes there, and who may make which. Host side.
//!
//! The kernel names the PID of a peer inside the pod, and the PID leads to the peer's cgroup. A peer may only make
//! requests about the app in whose unit it runs.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::Mode;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use super::on_host::Work;
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
    /// Makes both sockets and listens in the pod's directory, the current one; [`Self::bind_in_pod`] then listens
    /// inside the pod.
    ///
    /// # Errors
    /// A socket can't be made or bound.
    pub fn new() -> Result<Self> {
        let make = || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
            let socket = socket.context(|| "socket")?;
            // bind(2) makes the file with the socket's mode.
            rustix::fs::fchmod(&socket, Mode::from_raw_mode(0o600)).context(|| "fchmod(socket)")?;
            Ok::<_, Error>(socket)
        };
        let (pod, host) = (make()?, make()?);
        forget()?;
        bind_at(&host, layout::MONITOR_SOCKET)?;
        Ok(Self { pod, host })
    }

    /// Listens inside the pod; only the pod's root can connect. Pod side, before PID 1 is executed.
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

/// Adds a hint to a failure for lack of descriptors.
pub(super) fn explained(error: Error) -> Error {
    if error.errno() != Some(libc::EMFILE) {
        return error;
    }
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let helps = "remove apps, or give whoever starts the pod a higher limit (ulimit -n)";
    Error::caused_by(format!("the pod's monitor has no descriptor left of {limit}: {helps}"), error)
}

/// A request to the monitor.
#[derive(Debug)]
pub(super) enum Request {
    /// None has arrived yet.
    NotYet,
    /// None will come: the peer has closed the connection.
    HungUp,
    /// Take over these ends of the streams of an app, or of a handler of it, that is about to start.
    Start { app: AcName, main: bool, ends: Vec<(String, OwnedFd)> },
    /// The app has ended: answer when its output has been read and written.
    Ended(AcName),
    /// Execute an app in the host's PID namespace, or end what is left of it there.
    OnHost(AcName, Work),
    /// List the endpoints of an app.
    List(AcName),
    /// Connect to an endpoint of an app.
    Attach(AcName, String),
    /// Note the window size of the client with this number, attached to an app's terminal.
    Resize(AcName, rustix::termios::Winsize, u64),
    /// Open the log file for a kubelet anew: it was renamed.
    Reopen(AcName),
    /// Forget an app, which is being removed.
    Forget(AcName),
    /// Note that the pod is being stopped.
    Stop,
}

/// Reads one request of a peer; `in_pod` is the pod's cgroup if the peer is inside the pod.
pub(super) fn read(peer: BorrowedFd<'_>, in_pod: Option<&PodCgroup>) -> Result<Request> {
    let (text, fds) = match fd_passing::receive_message(peer, call::MAX) {
        Err(error) if error.errno() == Some(libc::EAGAIN) => return Ok(Request::NotYet),
        Err(error) if error.errno() == Some(libc::ECONNRESET) => return Ok(Request::HungUp),
        got => match got? {
            Some(got) => got,
            None => return Ok(Request::HungUp),
        },
    };
    let text = String::from_utf8(text).context(|| "a message is not UTF-8")?;
    let words: Vec<&str> = text.split(' ').collect();
    let name = |word: &str| word.parse::<AcName>().context(|| format!("app name {word:?}"));
    let request = match (in_pod, &words[..]) {
        (Some(_), [call::START, app, who @ ("main" | "handler"), names @ ..]) if names.len() == fds.len() => {
            let ends = names.iter().map(|&name| name.to_owned()).zip(fds).collect();
            Request::Start { app: name(app)?, main: *who == "main", ends }
        }
        (Some(_), [call::ENDED, app]) => Request::Ended(name(app)?),
        (Some(_), [call::ON_HOST, app]) => Request::OnHost(name(app)?, Work::Run),
        (Some(_), [call::ON_HOST_END, app]) => Request::OnHost(name(app)?, Work::End),
        (None, [call::LIST, app]) => Request::List(name(app)?),
        (None, [call::ATTACH, app, endpoint]) => Request::Attach(name(app)?, (*endpoint).to_owned()),
        (None, [call::RESIZE, app, rows, columns, client]) => {
            let number = |word: &str| word.parse::<u16>().context(|| format!("{word:?} is not a size"));
            let (ws_row, ws_col) = (number(rows)?, number(columns)?);
            let client = client.parse::<u64>().context(|| format!("{client:?} is not a client"))?;
            Request::Resize(name(app)?, rustix::termios::Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }, client)
        }
        (None, [call::REOPEN, app]) => Request::Reopen(name(app)?),
        (None, [call::FORGET, app]) => Request::Forget(name(app)?),
        (None, [call::STOP]) => Request::Stop,
        _ => return Err(Error::new(format!("the message {text:?} is not a request of the pod's monitor"))),
    };
    if let (Some(cgroup), Request::Start { app, .. } | Request::Ended(app) | Request::OnHost(app, _)) =
        (in_pod, &request)
    {
        check_peer(peer, cgroup, app)?;
    }
    Ok(request)
}

/// Refuses a peer that runs neither in the unit of `app` nor in the unit that writes its exit status.
fn check_peer(peer: BorrowedFd<'_>, cgroup: &PodCgroup, app: &AcName) -> Result<()> {
    let peer = rustix::net::sockopt::socket_peercred(peer).context(|| "getsockopt(SO_PEERCRED)")?;
    let pid = peer.pid.as_raw_nonzero().get();
    let units = [layout::app_cgroup(app), layout::late_reaper_cgroup(app)];
    for unit in &units {
        if cgroup.has_process(pid, unit)? {
            return Ok(());
        }
    }
    Err(Error::new(format!("process {pid} does not run in the unit of app {app}, and may make no requests about it")))
}

/// Sends the answer to a request. It is not an error if the peer has gone.
pub(super) fn answer(peer: impl AsFd, done: Result<String>, fds: &[BorrowedFd<'_>]) {
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
        true => rustix::net::send(peer, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map(drop).context(|| "send"),
        false => fd_passing::send_message(peer, bytes, fds),
    };
    if let Err(error) = sent {
        log::debug!("answer {text:?}: {}", error.one_line());
    }
}

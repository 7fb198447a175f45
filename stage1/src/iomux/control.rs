//! What the multiplexer is told: that the app starts, that its log file is to be opened anew. Pod side.
//!
//! A message is a word, the answer `ok` or what went wrong. While an app starts, the connection of `app-exec` stays
//! open: as long the multiplexer holds the app's ends of its streams, so that none of them seems to be at its end.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use super::CONTROL;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::process;

/// An app is about to start.
pub(super) const RUN: &str = "run";
/// The log file is to be opened anew.
pub(super) const REOPEN: &str = "reopen";
/// All is well.
pub(super) const OK: &str = "ok";

/// Longest message and longest answer, in bytes.
const MAX: usize = 4096;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many clients may wait to be taken.
const BACKLOG: i32 = 128;

/// A socket of the multiplexer in the current directory, in place of what is there; by a relative path, as an app's
/// name may be longer than the path of a socket.
pub(super) fn bound(name: &str, kind: SocketType) -> Result<OwnedFd> {
    let what = || format!("bind({name:?})");
    match rustix::fs::unlink(name) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).context(what),
    }
    let address = SocketAddrUnix::new(name).context(what)?;
    let socket = open(kind, SocketFlags::NONBLOCK)?;
    bind(&socket, &address).context(what)?;
    rustix::fs::chmod(name, rustix::fs::Mode::from_raw_mode(0o600)).context(what)?;
    listen(&socket, BACKLOG).context(what)?;
    Ok(socket)
}

pub(super) fn connected(name: &str, kind: SocketType) -> Result<OwnedFd> {
    let what = || format!("connect({name:?})");
    let address = SocketAddrUnix::new(name).context(what)?;
    let socket = open(kind, SocketFlags::empty())?;
    connect(&socket, &address).context(what)?;
    Ok(socket)
}

fn open(kind: SocketType, flags: SocketFlags) -> Result<OwnedFd> {
    socket_with(AddressFamily::UNIX, kind, flags | SocketFlags::CLOEXEC, None).context(|| "socket")
}

/// What a peer has sent; `None` when it has closed the connection.
pub(super) fn read(socket: &OwnedFd) -> Result<Option<String>> {
    let mut text = [0; MAX];
    match rustix::net::recv(socket, &mut text[..], RecvFlags::DONTWAIT) {
        Ok((_, 0)) | Err(Errno::CONNRESET) => Ok(None),
        Ok((count, _)) => Ok(Some(String::from_utf8_lossy(&text[..count.min(MAX)]).into_owned())),
        Err(Errno::AGAIN | Errno::INTR) => Ok(Some(String::new())),
        Err(errno) => Err(errno).context(|| "recv"),
    }
}

/// Answers; whoever has gone does not want to know.
pub(super) fn answer(socket: &OwnedFd, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(MAX)];
    if let Err(errno) = rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
        log::debug!("answer {text:?}: {errno}");
    }
}

/// Tells the multiplexer in the current directory a word, and waits for its answer; the connection, still open.
/// Pod side.
///
/// # Errors
/// It does not run, does not answer, or has an error to tell.
pub(super) fn tell(word: &str) -> Result<OwnedFd> {
    let socket = connected(CONTROL, SocketType::SEQPACKET).context(|| "the app's multiplexer does not run")?;
    rustix::net::send(&socket, word.as_bytes(), SendFlags::NOSIGNAL).context(|| format!("send {word:?}"))?;
    let end = Instant::now() + PATIENCE;
    // A pidfd and a socket are waited for in the same way.
    if !process::pidfd_wait_end(&socket, end.saturating_duration_since(Instant::now()))? {
        return Err(Error::new("the app's multiplexer does not answer"));
    }
    match read(&socket)?.as_deref() {
        Some(OK) => Ok(socket),
        Some(why) => Err(Error::new(format!("the app's multiplexer: {why}"))),
        None => Err(Error::new("the app's multiplexer has ended")),
    }
}

/// Makes the directory of an app's multiplexer the current one. Pod side.
pub(super) fn enter(app: &crate::appc::AcName) -> Result<()> {
    let place = Path::new(layout::IN_POD_IOTTYMUX).join(app.as_ref());
    rustix::process::chdir(&place).context(|| format!("chdir({place:?}): the app has no streams to attach to"))
}

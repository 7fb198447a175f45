//! Talking to the service manager that started this process: sd_notify(3), with descriptors to keep.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};

use super::process;
use crate::error::{Context, Error, Result};

/// The socket on which the service manager listens.
#[derive(Debug)]
pub struct Supervisor(UnixDatagram);

impl Supervisor {
    /// The one that the environment names.
    ///
    /// # Errors
    /// It names none, or it can't be reached.
    pub fn connect() -> Result<Self> {
        let path = std::env::var_os("NOTIFY_SOCKET").context(|| "NOTIFY_SOCKET is not set: systemd starts this")?;
        let connect = || -> std::io::Result<UnixDatagram> {
            let socket = UnixDatagram::unbound()?;
            socket.connect(&path)?;
            Ok(socket)
        };
        connect().map(Self).context(|| format!("connect to {path:?}"))
    }

    /// This process does its work from now on.
    pub fn ready(&self) -> Result<()> {
        self.tell("READY=1", None)
    }

    /// Keeps `fd` open under `name`, for the next process of this service should this one end by itself.
    pub fn keep(&self, name: &str, fd: impl AsFd) -> Result<()> {
        // Not to be given up when its other side is closed for a while.
        self.tell(&format!("FDSTORE=1\nFDPOLL=0\nFDNAME={name}"), Some(fd.as_fd()))
    }

    /// Closes what was kept under `name`.
    pub fn forget(&self, name: &str) -> Result<()> {
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={name}"), None)
    }

    fn tell(&self, text: &str, fd: Option<BorrowedFd<'_>>) -> Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Error::new("sendmsg: a descriptor does not fit"));
        }
        rustix::net::sendmsg(&self.0, &[IoSlice::new(text.as_bytes())], &mut control, SendFlags::NOSIGNAL)
            .map(drop)
            .context(|| format!("tell the supervisor {text:?}"))
    }
}

/// The descriptors that were kept, and under which names: sd_listen_fds_with_names(3). First thing in a program.
///
/// # Errors
/// One of them is not open.
pub fn kept() -> Result<Vec<(String, OwnedFd)>> {
    let get = |name: &str| std::env::var(name).ok();
    let number = |name: &str| get(name)?.parse::<u32>().ok();
    if number("LISTEN_PID") != Some(std::process::id()) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    let names = get("LISTEN_FDNAMES").unwrap_or_default();
    let mut kept = Vec::new();
    for (fd, name) in (3..).zip(names.split(':')).take(count.try_into().unwrap_or(0)) {
        let fd = process::adopt_fd(fd)?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC).context(|| "fcntl(F_SETFD)")?;
        kept.push((name.to_owned(), fd));
    }
    Ok(kept)
}

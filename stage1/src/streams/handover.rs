//! What `app-exec` hands to the pod's monitor before it becomes the app: the other ends of the app's pipes, or of its
//! terminal, and its syslog socket. Pod side.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{Gid, Mode as FileMode, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{NAMES, StreamMode, StreamModes, TTY, call};
use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::layout;
use crate::sys::{process, pty};

/// The name of the syslog socket among what is handed over.
pub(crate) const SYSLOG: &str = "syslog";
/// How long the monitor may take to answer: it may wait for a disk.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whose streams are handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandRole {
    /// The app's own.
    Main,
    /// Those of a handler, which reads nothing and has no terminal.
    Handler,
}

impl CommandRole {
    /// Its word in the message.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Main => "main",
            Self::Handler => "handler",
        }
    }
}

/// A connection to the monitor. Only a process in the pod's root can make it.
#[derive(Debug)]
pub struct Handover(OwnedFd);

impl Handover {
    /// Connects to the monitor.
    ///
    /// # Errors
    /// It can't be reached.
    pub fn begin() -> Result<Self> {
        call::connected(layout::MONITOR).map(Self)
    }

    /// Makes the app's streams in its mount namespace, owned by `owner`, hands their other ends over, and makes the
    /// app's ends this process's standard descriptors. The app may open them anew also after it has changed its user.
    ///
    /// # Errors
    /// Something can't be made, or the monitor refuses it.
    pub fn finish(self, app: &AcName, modes: StreamModes, who: CommandRole, owner: (u32, u32)) -> Result<()> {
        let mut ours: [Option<OwnedFd>; 3] = [None, None, None];
        let mut given: Vec<(&str, OwnedFd)> = Vec::new();
        let needs = |number: usize| match who {
            CommandRole::Main => modes.is_pipe(number),
            CommandRole::Handler => number > 0 && modes.0[number] != StreamMode::Null,
        };
        for (number, name) in NAMES.into_iter().enumerate().filter(|(number, _)| needs(*number)) {
            let (read, write) = pipe(owner).context(|| format!("make the app's {name}"))?;
            let (own, other) = if number == 0 { (read, write) } else { (write, read) };
            ours[number] = Some(own);
            given.push((name, other));
        }
        let mut terminal = None;
        if who == CommandRole::Main && modes.have_terminal() {
            let (master, slave) = pty::open_pair_in(layout::DEVPTS)?;
            // So that the app may open it anew, for example as /dev/tty.
            rustix::fs::fchown(&slave, Some(Uid::from_raw(owner.0)), None)
                .context(|| format!("fchown(terminal, {})", owner.0))?;
            pty::control(&slave)?;
            given.push((TTY, master));
            terminal = Some(slave);
        }
        if who == CommandRole::Main
            && let Some(socket) = syslog()?
        {
            given.push((SYSLOG, socket));
        }
        let mut words = vec![call::START, app.as_ref(), who.word()];
        words.extend(given.iter().map(|(name, _)| *name));
        let fds: Vec<_> = given.iter().map(|(_, fd)| fd.as_fd()).collect();
        call::call(&self.0, &words, &fds, PATIENCE)?;
        for (number, own) in (0..).zip(&ours) {
            let is_terminal =
                || matches!(modes.0[usize::try_from(number).unwrap_or(0)], StreamMode::Tty | StreamMode::Interactive);
            match (own, &terminal) {
                (Some(own), _) => process::set_standard_fd(own, number)?,
                (None, Some(terminal)) if is_terminal() => process::set_standard_fd(terminal, number)?,
                // The descriptors that systemd has opened belong to the pod.
                (None, _) => process::set_standard_fd(null()?, number)?,
            }
        }
        Ok(())
    }
}

fn null() -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open("/dev/null", flags, FileMode::empty()).context(|| "open(\"/dev/null\")")
}

/// A pipe that every process that has its descriptor may open anew, with whatever user.
fn pipe(owner: (u32, u32)) -> Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC).context(|| "pipe")?;
    rustix::fs::fchmod(&write, FileMode::from_raw_mode(0o666)).context(|| "fchmod(pipe)")?;
    rustix::fs::fchown(&write, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))
        .context(|| format!("fchown(pipe, {}, {})", owner.0, owner.1))?;
    Ok((read, write))
}

/// Whether the /dev of this mount namespace is the one that an app is given: a volume may be there instead, the host's
/// for one, where nothing is to be made.
fn has_own_dev() -> Result<bool> {
    const TMPFS_MAGIC: u64 = 0x0102_1994;
    let stat = rustix::fs::statfs("/dev").context(|| "statfs(\"/dev\")")?;
    let size = stat.f_blocks.saturating_mul(u64::try_from(stat.f_bsize).unwrap_or(0));
    Ok(u64::try_from(stat.f_type) == Ok(TMPFS_MAGIC) && size.to_string() == layout::DEV_SIZE)
}

/// A new socket at the app's /dev/log; none if the app's /dev is not the one that we made, but a volume.
fn syslog() -> Result<Option<OwnedFd>> {
    if !has_own_dev()? {
        return Ok(None);
    }
    let what = || format!("bind({:?})", layout::DEV_LOG);
    match rustix::fs::unlink(layout::DEV_LOG) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).context(what),
    }
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).context(|| "socket")?;
    // The mode of what bind(2) makes.
    rustix::fs::fchmod(&socket, FileMode::from_raw_mode(0o666)).context(what)?;
    let umask = rustix::process::umask(FileMode::empty());
    let bound = SocketAddrUnix::new(layout::DEV_LOG).and_then(|address| bind(&socket, &address));
    rustix::process::umask(umask);
    bound.context(what)?;
    Ok(Some(socket))
}

/// Waits until the monitor has taken all that the app has written, at most as long as `patience`.
///
/// # Errors
/// The monitor can't be reached, or has not taken all in that time.
pub fn ended(app: &AcName, patience: Duration) -> Result<()> {
    call::from_pod(&[call::ENDED, app.as_ref()], patience)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Its mode alone: who opens it may be neither its owner nor of its group, nor have any capability.
    #[test]
    fn anybody_may_open_a_pipe_anew() {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let (read, write) = pipe((uid, gid)).unwrap();
        for end in [&read, &write] {
            let stat = rustix::fs::fstat(end).unwrap();
            assert_eq!((stat.st_mode & 0o7777, stat.st_uid, stat.st_gid), (0o666, uid, gid));
        }
    }
}

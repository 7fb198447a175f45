//! The host's journal, by its native protocol: systemd.io/JOURNAL_NATIVE_PROTOCOL. Host side.

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};

use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::sys::fd_passing;

/// Where the host's journald listens.
const SOCKET: &str = "/run/systemd/journal/socket";
/// The longest entry, in bytes: a longer line is split into several.
const LONGEST: usize = 48 << 10;
/// How long to wait for a journald that does not read, before entries are dropped.
const PATIENCE: Duration = Duration::from_secs(1);
/// The priority of standard output: info.
pub(super) const STDOUT: u8 = 6;
/// The priority of standard error: err.
pub(super) const STDERR: u8 = 3;

/// An app's connection to the host's journal.
#[derive(Debug)]
pub(super) struct Journald {
    socket: OwnedFd,
    /// The fields of every entry.
    fields: String,
    app: AcName,
    lost: u64,
}

impl Journald {
    /// Connects to the host's journald for an app.
    ///
    /// # Errors
    /// The socket can't be made or connected.
    pub(super) fn open(app: &AcName, uuid: &str) -> Result<Self> {
        let what = || format!("connect to the host's journald at {SOCKET:?}");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None).context(|| "socket")?;
        connect(&socket, &SocketAddrUnix::new(SOCKET).context(what)?).context(what)?;
        let short = uuid.get(..8).unwrap_or(uuid);
        let fields = format!(
            "SYSLOG_IDENTIFIER={app}\nCONTAINER_NAME={app}\nCONTAINER_TAG={app}\nCONTAINER_ID={short}\n\
             CONTAINER_ID_FULL={uuid}\nPOD_UUID={uuid}\n"
        );
        Ok(Self { socket, fields, app: app.clone(), lost: 0 })
    }

    /// Sends an entry. Entries that journald does not take are dropped and counted; warnings tell the first and the
    /// sum.
    pub(super) fn send(&mut self, priority: u8, message: &[u8], partial: bool) {
        let mut text = format!("PRIORITY={priority}\n").into_bytes();
        text.extend_from_slice(self.fields.as_bytes());
        if partial {
            text.extend_from_slice(b"CONTAINER_PARTIAL_MESSAGE=true\n");
        }
        text.extend_from_slice(b"MESSAGE\n");
        text.extend_from_slice(&(message.len() as u64).to_le_bytes());
        text.extend_from_slice(message);
        text.push(b'\n');
        if let Err(error) = self.send_text(&text) {
            if self.lost == 0 {
                log::warn!(
                    "app {}: the host's journald takes no entries; they are dropped: {}",
                    self.app,
                    error.one_line()
                );
            }
            self.lost += 1;
        } else if self.lost > 0 {
            log::warn!("app {}: {} entries for the host's journal were dropped", self.app, self.lost);
            self.lost = 0;
        }
    }

    fn send_text(&self, text: &[u8]) -> Result<()> {
        loop {
            match rustix::net::send(&self.socket, text, SendFlags::NOSIGNAL) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(Errno::MSGSIZE | Errno::NOBUFS) => return self.send_file(text),
                // After a dropped entry, do not wait again for each of the next ones.
                Err(Errno::AGAIN) if self.lost == 0 => {
                    let mut fds = [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)];
                    let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::MAX);
                    if poll(&mut fds, patience).context(|| "poll(journald)")? == 0 {
                        return Err(Errno::AGAIN).context(|| "send");
                    }
                }
                Err(errno) => return Err(errno).context(|| "send"),
            }
        }
    }

    /// Sends an entry that is too long for a datagram as a sealed file.
    fn send_file(&self, text: &[u8]) -> Result<()> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let file = rustix::fs::memfd_create("log", flags).context(|| "memfd_create")?;
        let mut file = std::fs::File::from(file);
        file.write_all(text).context(|| "write(memfd)")?;
        let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
        rustix::fs::fcntl_add_seals(&file, seals).context(|| "fcntl(F_ADD_SEALS)")?;
        fd_passing::send_message(&self.socket, b"", &[file.as_fd()])
    }
}

/// Makes entries of one stream's output; holds the line that has not ended yet.
#[derive(Debug)]
pub(super) struct Entries {
    priority: u8,
    text: Vec<u8>,
}

impl Entries {
    pub(super) fn new(priority: u8) -> Self {
        Self { priority, text: Vec::new() }
    }

    pub(super) fn take(&mut self, bytes: &[u8], journal: &mut Journald) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            for part in line.chunks(LONGEST) {
                if self.text.len() + part.len() > LONGEST + 1 {
                    journal.send(self.priority, &std::mem::take(&mut self.text), true);
                }
                self.text.extend_from_slice(part);
            }
            if self.text.ends_with(b"\n") {
                self.text.pop();
                journal.send(self.priority, &std::mem::take(&mut self.text), false);
            }
        }
    }

    /// Sends the line that is left at the end of the output.
    pub(super) fn finish(&mut self, journal: &mut Journald) {
        if !self.text.is_empty() {
            journal.send(self.priority, &std::mem::take(&mut self.text), false);
        }
    }
}

//! The apps' output on the output of `run`. Host side.
//!
//! The bytes of a pod's only app are copied unchanged, standard output to standard output, standard error to standard
//! error. The output of several apps is copied line by line, each after the app's name. While the reader of `run` does
//! not read, nothing more is read from the apps.

use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;

use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use rustix::net::SendFlags;

use super::buffer::empty;
use super::poller::{Interest, Poller, Watched};
use crate::appc::AcName;
use crate::error::{Context, Result};
use crate::terminal::{own, standard};

/// The longest line after an app's name, in bytes; a longer one continues in the next line.
const LONGEST: usize = 64 << 10;

/// Size of a pipe that is the output of `run`, in bytes: larger than the kernel's default, so that its reader seldom
/// waits for the monitor.
const PIPE: usize = 256 << 10;

/// How the apps' output is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Show {
    /// Not at all.
    Nothing,
    /// As it is.
    Raw,
    /// Line by line, after the app's name.
    Named,
}

/// The output of `run`.
#[derive(Debug)]
pub(super) struct Console {
    pub(super) show: Show,
    ports: [Option<Port>; 2],
}

impl Console {
    pub(super) fn new(show: Show, poller: &Rc<Poller>, tokens: [u64; 2]) -> Result<Self> {
        let mut ports = [None, None];
        if show != Show::Nothing {
            for ((port, number), token) in ports.iter_mut().zip([1, 2]).zip(tokens) {
                *port = Some(Port::new(number, poller, token)?);
            }
        }
        Ok(Self { show, ports })
    }

    /// Whether the reader is behind, so that nothing more may be read from the apps.
    pub(super) fn is_full(&self) -> bool {
        self.ports.iter().flatten().any(|port| !port.queue.is_empty())
    }

    /// How many bytes are queued for the reader.
    pub(super) fn waiting(&self) -> usize {
        self.ports.iter().flatten().map(|port| port.queue.len()).sum()
    }

    /// Writes to standard output (1) or standard error (2).
    pub(super) fn write(&mut self, number: usize, bytes: &[u8]) -> Result<()> {
        self.ports[number - 1].as_mut().map_or(Ok(()), |port| port.write(bytes))
    }

    /// Writes what is queued, as far as the reader takes it.
    pub(super) fn go_on(&mut self) -> Result<()> {
        self.ports.iter_mut().flatten().try_for_each(Port::flush)
    }

    /// Drops what is queued for the reader, and shows nothing more.
    pub(super) fn give_up(&mut self) {
        self.ports = [None, None];
        self.show = Show::Nothing;
    }
}

/// Standard output or standard error of `run`.
#[derive(Debug)]
struct Port {
    /// `None` once the reader has gone.
    fd: Option<Watched>,
    /// It can be polled: it is not a regular file.
    waits: bool,
    is_socket: bool,
    queue: Vec<u8>,
}

impl Port {
    fn new(number: usize, poller: &Rc<Poller>, token: u64) -> Result<Self> {
        let fd = own(standard(number), OFlags::WRONLY).or_else(|error| {
            // Another user's terminal can't be opened anew.
            log::debug!("{}", error.one_line());
            standard(number).try_clone_to_owned().context(|| "dup(output)")
        })?;
        let kind = FileType::from_raw_mode(rustix::fs::fstat(&fd).context(|| "fstat(output)")?.st_mode);
        let waits = kind != FileType::RegularFile && !is_null(&fd)?;
        if kind == FileType::Fifo
            && rustix::pipe::fcntl_getpipe_size(&fd).is_ok_and(|size| size < PIPE)
            && let Err(errno) = rustix::pipe::fcntl_setpipe_size(&fd, PIPE)
        {
            log::debug!("fcntl(F_SETPIPE_SZ, {PIPE}): {errno}");
        }
        let fd = Some(Watched::new(poller, fd, token));
        Ok(Self { fd, waits, is_socket: kind == FileType::Socket, queue: Vec::new() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let done = if self.queue.is_empty() { self.try_write(bytes) } else { 0 };
        if self.fd.is_some() && done < bytes.len() {
            self.queue.extend_from_slice(&bytes[done..]);
        }
        self.wait()
    }

    fn flush(&mut self) -> Result<()> {
        let queue = std::mem::take(&mut self.queue);
        let done = self.try_write(&queue);
        if self.fd.is_some() && done < queue.len() {
            self.queue = queue[done..].to_vec();
        }
        self.wait()
    }

    fn wait(&self) -> Result<()> {
        match &self.fd {
            Some(fd) if self.waits => fd.watch((!self.queue.is_empty()).then_some(Interest::OUT)),
            _ => Ok(()),
        }
    }

    /// Writes as much as the reader takes now. Returns how much that was. After the reader has gone nothing more is
    /// written; the pod goes on.
    fn try_write(&mut self, bytes: &[u8]) -> usize {
        let mut done = 0;
        while let (Some(fd), true) = (&self.fd, done < bytes.len()) {
            let wrote = match self.is_socket {
                true => rustix::net::send(fd, &bytes[done..], SendFlags::DONTWAIT | SendFlags::NOSIGNAL),
                false => rustix::io::write(fd, &bytes[done..]),
            };
            match wrote {
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return done,
                Err(errno) => {
                    log::debug!("the reader of the output of run has gone: {errno}");
                    self.fd = None;
                }
            }
        }
        done
    }
}

fn is_null(fd: impl AsFd) -> Result<bool> {
    let null: OwnedFd = rustix::fs::open("/dev/null", OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())
        .context(|| "open(\"/dev/null\")")?;
    let rdev = |fd: rustix::fd::BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_rdev);
    Ok(rdev(fd.as_fd()).context(|| "fstat")? == rdev(null.as_fd()).context(|| "fstat")?)
}

/// Copies one stream of an app to the output of `run`; holds the line that has not ended yet.
#[derive(Debug)]
pub(super) struct Shown {
    number: usize,
    name: String,
    line: Vec<u8>,
}

impl Shown {
    pub(super) fn new(app: &AcName, number: usize) -> Self {
        Self { number, name: format!("{app} | "), line: Vec::new() }
    }

    pub(super) fn take(&mut self, bytes: &[u8], console: &mut Console, draft: &mut Vec<u8>) -> Result<()> {
        match console.show {
            Show::Nothing => Ok(()),
            Show::Raw => console.write(self.number, bytes),
            Show::Named => {
                for line in bytes.split_inclusive(|byte| *byte == b'\n') {
                    self.line.extend_from_slice(line);
                    if line.ends_with(b"\n") || self.line.len() >= LONGEST {
                        self.end_line(draft);
                    }
                }
                let written = console.write(self.number, draft);
                empty(draft);
                written
            }
        }
    }

    /// Writes the line that is left at the end of the output. `draft` is empty before and after.
    pub(super) fn finish(&mut self, console: &mut Console, draft: &mut Vec<u8>) -> Result<()> {
        if !self.line.is_empty() {
            self.end_line(draft);
        }
        let written = console.write(self.number, draft);
        empty(draft);
        written
    }

    fn end_line(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.name.as_bytes());
        out.append(&mut self.line);
        if !out.ends_with(b"\n") {
            out.push(b'\n');
        }
    }
}

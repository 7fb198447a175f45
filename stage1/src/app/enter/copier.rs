//! A process that copies a command's output to a file of the caller. Host side, beside the process that relays for the
//! command.
//!
//! It is a process of its own because a read from the command's pipe can block: sendfile(2) from a terminal to a pipe,
//! as busybox's cat calls it, holds the kernel's lock on the pipe until something is typed.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Error, Result};
use crate::sys::process::{self, Fork};
use crate::terminal::{self, Flow};

/// The copying process, as its parent sees it.
pub(super) struct Copier {
    pid: Pid,
    /// Closing it tells the process to copy what is there, and to end.
    go_on: Option<OwnedFd>,
    /// A pipe from the process: carries its error message, and is at its end when the process has ended.
    report: OwnedFd,
}

impl Copier {
    /// Starts the process, which copies from `source`, a pipe, to `sink` with the flow that `flow` makes of them.
    pub(super) fn start(source: OwnedFd, sink: OwnedFd, flow: impl FnOnce(OwnedFd, OwnedFd) -> Flow) -> Result<Self> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC).context(|| "pipe");
        let (until, go_on) = pipe()?;
        let (report, words) = pipe()?;
        match process::fork()? {
            Fork::Parent(pid) => Ok(Self { pid, go_on: Some(go_on), report }),
            Fork::Child => {
                let keep = [source.as_fd(), sink.as_fd(), until.as_fd(), words.as_fd()];
                let alone = process::close_all_but(&keep);
                let done = alone.and_then(|()| copy(flow(source, sink), until.as_fd()));
                if let Err(error) = &done
                    && let Err(io) = File::from(words).write_all(error.one_line().as_bytes())
                {
                    log::error!("{} (and telling so failed: {io})", error.one_line());
                }
                process::exit_now(i32::from(done.is_err()))
            }
        }
    }

    /// Tells the process that the command has ended: it copies the rest and ends.
    pub(super) fn finish(&mut self) {
        self.go_on = None;
    }

    /// A descriptor that is readable when the process has ended.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Waits for the end of the process. Returns its error message if it failed.
    pub(super) fn outcome(self) -> Result<()> {
        let mut text = String::new();
        File::from(self.report).read_to_string(&mut text).context(|| "read the copying process's report")?;
        process::wait_child(self.pid)?;
        if text.is_empty() { Ok(()) } else { Err(Error::new(text)) }
    }
}

fn copy(mut flow: Flow, until: BorrowedFd<'_>) -> Result<()> {
    let mut wake = vec![until];
    while !flow.is_done() {
        if terminal::step(&mut [&mut flow], &wake, None)?.first() == Some(&true) {
            flow.finish();
            wake.clear();
        }
    }
    flow.take_error().map_or(Ok(()), Err)
}

//! A process that copies what a command writes to a file of the caller's. Host side, beside the one that accompanies
//! the command.
//!
//! Not in the loop of that one: a process that sends from a terminal to a pipe, sendfile(2) as of busybox's cat, holds
//! the kernel's lock on that pipe while it waits for something to be typed, so that a read of the pipe waits as long.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Context, Error, Result};
use crate::sys::process::{self, Fork};
use crate::terminal::{self, Flow};

/// The process, from outside.
pub(super) struct Copier {
    pid: Pid,
    /// Closed when it is to take what is there, and end.
    go_on: Option<OwnedFd>,
    /// At its end when it has ended; before that, why it failed.
    report: OwnedFd,
}

impl Copier {
    /// Starts it: from `source`, a pipe's end, to `sink`, with a flow made of them by `flow`.
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

    /// The command has ended: what it has still written is to come.
    pub(super) fn finish(&mut self) {
        self.go_on = None;
    }

    /// What is readable when it has ended.
    pub(super) fn end(&self) -> BorrowedFd<'_> {
        self.report.as_fd()
    }

    /// Waits for its end, and says why it failed, if it did.
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

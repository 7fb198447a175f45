//! How a process of the host becomes one of the pod without showing the pod anything of the host. The pod's processes
//! see each other, and one with CAP_SYS_PTRACE can open the root, the working directory and the descriptors of another
//! through /proc (CVE-2016-9962, CVE-2024-21626).
//!
//! | process | PID namespace | root | descriptors |
//! |---|---|---|---|
//! | this one | the host's | the host's | the host's |
//! | its child, the crosser | the host's | first the host's, then the pod's | those of its parent, then what the command gets |
//! | the command, a sibling of the crosser | the pod's | the pod's | what the command gets, and two pipes |
//!
//! A cgroup's directory belongs to the host: this process moves the command into its cgroup, and then releases it.

use std::convert::Infallible;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::unistd::Pid;
use rustix::pipe::{PipeFlags, pipe_with};

use super::wiring::{Inside, Tty, Wiring};
use crate::app::deadline;
use crate::cross::{Across, Sibling, fork_across};
use crate::error::{Context, Error, Result, exit};
use crate::sys::process;
use crate::terminal;

/// The command's process, as this process sees it.
pub(in crate::app) struct Born {
    /// A child of this process, in the PID namespace of this process.
    pub(in crate::app) pid: Pid,
    sibling: Sibling,
    go: File,
    why: File,
}

/// What connects the command's process to this one until execve(2).
pub(in crate::app) struct Tie {
    go: File,
    why: File,
}

/// Both ends of the pipes between this process and the command's.
fn pipes() -> Result<(Tie, File, File)> {
    let pipe = |flags| pipe_with(PipeFlags::CLOEXEC | flags).context(|| "pipe");
    let (go, our_go) = pipe(PipeFlags::empty())?;
    // A process of the pod could fill the pipe.
    terminal::set_nonblocking(&our_go)?;
    let (our_why, why) = pipe(PipeFlags::NONBLOCK)?;
    Ok((Tie { go: go.into(), why: why.into() }, our_go.into(), our_why.into()))
}

/// Runs `join` in a child, which enters the pod's namespaces and root, and `become_command` in a process that this
/// child clones there as its sibling. That process has the three standard descriptors as `join` left them, and those of
/// `inside`.
///
/// # Errors
/// A call fails, or `join` fails or takes too long.
pub(super) fn cross(
    inside: Inside,
    join: impl FnOnce() -> Result<()>,
    become_command: impl FnOnce(&mut Tie, Inside) -> Result<Infallible>,
) -> Result<Born> {
    let (mut tie, go, mut why) = pipes()?;
    let enter = |rings: BorrowedFd<'_>| {
        process::die_with_parent()?;
        join()?;
        inside.leave_callers()?;
        let ties = [tie.go.as_fd(), tie.why.as_fd(), rings];
        process::close_all_but(&inside.descriptors().chain(ties).collect::<Vec<_>>())
    };
    match fork_across(deadline(), enter)? {
        Across::Failed(error) => process::exit_now(tie.tell(Err(error))),
        Across::Inside => {
            let done = process::die_with_parent().and_then(|()| become_command(&mut tie, inside));
            process::exit_now(tie.tell(done.map(|never| match never {})))
        }
        Across::Outside(sibling) => {
            drop((tie, inside));
            let Some(pid) = sibling.pid else {
                sibling.reap_crosser()?;
                return Err(told(&mut why)?.unwrap_or_else(|| Error::new("the process that joined the pod was killed")));
            };
            Ok(Born { pid, sibling, go, why })
        }
    }
}

/// [`cross`] for a command that makes its own streams inside. Until then it has /dev/null, as this process must have.
///
/// # Errors
/// As [`cross`].
pub(in crate::app) fn cross_without_streams(
    join: impl FnOnce() -> Result<()>,
    become_command: impl FnOnce(&mut Tie) -> Result<Infallible>,
) -> Result<Born> {
    let Wiring { inside, .. } = Wiring::new(Tty::Never)?;
    cross(inside, join, |tie, _| become_command(tie))
}

/// Longest error text, in bytes: less than a pipe holds, so that writing never blocks.
const MAX: usize = 4096;

/// Reads why the command was not executed, if the child has reported that.
fn told(why: &mut File) -> Result<Option<Error>> {
    let mut text = [0; MAX];
    let length = match why.read(&mut text) {
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => 0,
        length => length.context(|| "read why there is no command")?,
    };
    Ok(text[..length].split_first().map(|(code, text)| Error::new(String::from_utf8_lossy(text)).with_exit_code(*code)))
}

impl Born {
    /// Releases the command, and tells it whether it is in its app's cgroup.
    pub(in crate::app) fn go(&mut self, in_app: bool) -> Result<()> {
        match self.go.write_all(&[u8::from(in_app)]) {
            // It has ended already, which the caller finds out.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            done => done.context(|| "let the command go on")?,
        }
        self.sibling.reap_crosser().map(drop)
    }

    /// What has something to read, or is closed, once the command is executed or its process has ended.
    pub(in crate::app) fn ended_or_executed(&self) -> BorrowedFd<'_> {
        self.why.as_fd()
    }

    /// After the end of the process: why it did not become the command, if so.
    pub(in crate::app) fn failure(&mut self) -> Result<Option<Error>> {
        told(&mut self.why)
    }
}

impl Tie {
    /// Waits until the parent releases this process. Returns whether it is in its app's cgroup.
    ///
    /// # Errors
    /// The parent process has ended.
    pub(in crate::app) fn wait(&mut self) -> Result<bool> {
        let mut word = [0];
        self.go.read_exact(&mut word).context(|| "the calling process has ended")?;
        Ok(word[0] != 0)
    }

    /// A descriptor that is readable once the parent process has ended.
    pub(in crate::app) fn parent(&self) -> BorrowedFd<'_> {
        self.go.as_fd()
    }

    /// Tells the parent why the command could not be executed. Returns the exit status for this process.
    fn tell(&mut self, done: Result<()>) -> i32 {
        let Err(error) = done else { return 0 };
        let code = error.exit_code().unwrap_or(exit::SETUP);
        let mut text = vec![code];
        text.extend(error.one_line().bytes().take(MAX - 1));
        if let Err(io) = self.why.write_all(&text) {
            log::error!("{} (and telling so failed: {io})", error.one_line());
        }
        i32::from(code)
    }
}

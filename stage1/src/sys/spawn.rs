//! Executing a program in a child, from a process that may have several threads.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::signal;
use crate::error::{Context, Result};

/// What a child is given beyond what [`Command`] can say.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heritage<'a> {
    /// A descriptor that the child inherits under the same number. In this process it stays close-on-exec, so children
    /// that other threads start meanwhile do not get it.
    pub descriptor: Option<BorrowedFd<'a>>,
    /// Whether the child leads a new session: setsid(2).
    pub session: bool,
    /// Whether the child's signals have their default dispositions.
    pub signals: bool,
}

/// Starts a program in a child. Unlike [`super::process::fork`] it may be called with several threads.
///
/// # Errors
/// The fork, a call that `heritage` needs, or the exec fails.
pub fn spawn(mut command: Command, heritage: Heritage<'_>) -> Result<Child> {
    let descriptor = heritage.descriptor.map(|fd| fd.as_raw_fd());
    let inherit = move || -> io::Result<()> {
        if let Some(number) = descriptor {
            // SAFETY: the caller lends the descriptor until this function returns, which is after the child has
            // executed its program; the child has it under the same number.
            let fd = unsafe { BorrowedFd::borrow_raw(number) };
            rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
        }
        if heritage.session {
            rustix::process::setsid()?;
        }
        if heritage.signals { signal::all_default() } else { Ok(()) }
    };
    // SAFETY: between fork and exec the closure only makes system calls: it takes no lock and allocates no memory, so
    // the state in which other threads left those does not matter.
    unsafe { command.pre_exec(inherit) };
    command.spawn().context(|| format!("execute {:?}", command.get_program()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Only the program that was given the descriptor has it.
    #[test]
    fn a_descriptor_is_inherited_by_one_program_alone() {
        let file = tempfile::tempfile().unwrap();
        let number = file.as_raw_fd();
        let look = || {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", &format!("test -e /proc/self/fd/{number}")]);
            command
        };
        let given = Heritage { descriptor: Some(file.as_fd()), session: true, signals: true };
        assert!(spawn(look(), given).unwrap().wait().unwrap().success());
        assert!(!spawn(look(), Heritage::default()).unwrap().wait().unwrap().success());
        assert!(rustix::io::fcntl_getfd(&file).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        let missing = spawn(Command::new("/no/such/program"), given).unwrap_err().one_line();
        assert!(missing.contains("/no/such/program"), "{missing}");
    }
}

//! Starting a program as a child, in a process that may have several threads.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use super::signal;
use crate::error::{Context, Result};

/// What a started program gets besides what a `Command` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heritage<'a> {
    /// A descriptor that it inherits under the number that it has here. It is close-on-exec for all others that this
    /// process starts, whatever its threads do meanwhile.
    pub descriptor: Option<BorrowedFd<'a>>,
    /// It leads a session of its own: setsid(2).
    pub session: bool,
    /// Its signals have their default dispositions.
    pub signals: bool,
}

/// Starts a program. Also in a process of several threads, where a mere fork is refused.
///
/// # Errors
/// It can't be executed.
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
    // SAFETY: between fork and exec the closure makes system calls alone: it takes no lock and no memory, whatever
    // state other threads have left those in.
    unsafe { command.pre_exec(inherit) };
    command.spawn().context(|| format!("execute {:?}", command.get_program()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// The descriptor is handed to the one program, and this process's own others don't get it.
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

//! Apps in the host's PID namespace: the monitor, which is outside of the pod, executes who runs them. Host side, in the
//! pod's directory.

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;

use nix::sys::wait::WaitStatus;
use rustix::fs::{Mode, OFlags};

use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::read_pid;
use crate::sys::dir::c_string;
use crate::sys::process::{self, Fork};
use crate::sys::spawn::{self, Program};

/// What is to be done with an app in the host's PID namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Run it to its end.
    Run,
    /// Kill what is left of it.
    End,
}

/// Executes `enter`, which does the work for the process at the other end of `talk`. It checks that the app may have the
/// host's PID namespace. It is not a child of this process, which does not wait for it.
///
/// # Errors
/// The program can't be executed.
pub(super) fn start(app: &AcName, work: Work, talk: BorrowedFd<'_>) -> Result<()> {
    let pid = read_pid(Path::new("."))?.context(|| "the pod's directory names no PID")?;
    // of the stage1 image, which the pod can't write to
    let path = c_string(format!("{}{}/enter", layout::STAGE1_ROOTFS, layout::BIN).as_bytes())?;
    let words = ["enter".to_owned(), format!("--pid={pid}"), format!("--appname={app}")];
    let option = match work {
        Work::Run => "--on-host",
        Work::End => "--on-host-end",
    };
    let words = words.into_iter().chain([format!("{option}={}", talk.as_raw_fd())]);
    let arguments: Vec<CString> = words.map(|word| c_string(word.as_bytes())).collect::<Result<_>>()?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let null = null.context(|| "open /dev/null")?;
    let (standard, directory) = ([null.as_fd(); 3], c_string(b".")?);
    match process::fork()? {
        Fork::Child => {
            let program = Program {
                path: &path,
                arguments: &arguments,
                environment: &[],
                standard,
                descriptor: Some(talk),
                directory: &directory,
            };
            // a signal from the terminal of `run` is not the app's
            let done = process::new_session().and_then(|()| spawn::start(&program));
            process::exit_now(i32::from(done.is_err()))
        }
        Fork::Parent(child) => match process::wait_child(child)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            _ => Err(Error::new(format!("app {app}: {path:?} can't be executed"))),
        },
    }
}

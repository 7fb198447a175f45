//! User namespaces: user_namespaces(7).

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use nix::sched::CloneFlags;
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use super::process::{self, Fork};
use crate::error::{Context, Result};

/// Writes the id maps of the user namespace of process `pid`: id `n`, below `count`, is `shift + n` on the host. Host
/// side.
///
/// # Errors
/// The process has ended, its namespace is mapped already, or this process may not map it.
pub fn set_ids(pid: i32, shift: u32, count: u32) -> Result<()> {
    for map in ["uid_map", "gid_map"] {
        let file = format!("/proc/{pid}/{map}");
        std::fs::write(&file, format!("0 {shift} {count}\n")).context(|| format!("write {file}"))?;
    }
    Ok(())
}

/// Makes a user namespace without processes, with ids as in [`set_ids`]: for an id-mapped mount, mount_setattr(2). This
/// process may have several threads.
///
/// # Errors
/// This process may not make user namespaces, or may not map the ids.
pub fn new(shift: u32, count: u32) -> Result<OwnedFd> {
    let (wait, go) = pipe_with(PipeFlags::CLOEXEC).context(|| "pipe")?;
    // SAFETY: all that the child does is close(2), read(2) and _exit(2).
    match unsafe { process::clone_into(CloneFlags::CLONE_NEWUSER) }? {
        Fork::Child => {
            drop(go);
            // Returns when the parent has closed the other end or has ended.
            let ended = File::from(wait).read(&mut [0]);
            process::exit_now(i32::from(ended.is_err()))
        }
        Fork::Parent(child) => {
            let path = format!("/proc/{child}/ns/user");
            let opened = set_ids(child.as_raw(), shift, count).and_then(|()| {
                rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                    .context(|| format!("open {path}"))
            });
            drop(go);
            process::wait_child(child)?;
            opened
        }
    }
}

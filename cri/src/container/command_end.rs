//! Killing a command that was run in a container, with nothing else of it.
//!
//! The command is a child of the program that accompanies it, outside of the pod. Killed together they would leave a dead
//! process in the pod that the pod's own PID 1 can't reap, and for which it waits when it ends.

use std::time::Duration;

use rustix::process::Signal;
use stage1::error::{Context, Result};
use stage1::sys::process;

/// How long the program may take to end after its command.
pub const AFTER: Duration = Duration::from_secs(2);

/// Kills the children of the process `program`, which ends when they have. Whether there were any: else it has to be
/// killed itself.
///
/// # Errors
/// One can't be killed.
pub fn kill_command(program: u32) -> Result<bool> {
    let path = format!("/proc/{program}/task/{program}/children");
    let children = std::fs::read_to_string(path).unwrap_or_default();
    let mut killed = false;
    for child in children.split_whitespace() {
        let child: i32 = child.parse().context(|| format!("PID {child:?}"))?;
        // it may have ended, and its number be another's by now
        let Ok(pidfd) = process::pidfd_open(child) else { continue };
        if parent_of(child) == Some(program) {
            process::pidfd_kill(&pidfd, Signal::KILL)?;
            killed = true;
        }
    }
    Ok(killed)
}

/// The parent's PID; the fourth field of a process's line, after a name that may have blanks and parentheses in it.
fn parent_of(pid: i32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_child_is_killed_and_its_parent_reaps_it() {
        let mut program =
            Command::new("/bin/sh").args(["-c", "sleep 1000; echo $?"]).stdout(Stdio::piped()).spawn().unwrap();
        while !kill_command(program.id()).unwrap() {
            std::thread::sleep(Duration::from_millis(5));
        }
        let out = program.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&out.stdout), "137\n");
        program = Command::new("/bin/sh").args(["-c", "read x"]).stdin(Stdio::piped()).spawn().unwrap();
        assert!(!kill_command(program.id()).unwrap(), "it has none");
        drop(program.stdin.take());
        program.wait().unwrap();
    }
}

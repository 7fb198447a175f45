//! Finding the pod's PID 1. Host side.

use std::fs;
use std::io;
use std::path::Path;

use crate::error::{Context, Error, Result};
use crate::layout;

/// Maximum size of a PID file, in bytes: ten digits, a newline, and some more.
const MAX_PID: u64 = 32;

/// The PID, as the host counts, of the PID 1 of the pod in the directory `pod`: the one in the file `pid`, or the only
/// child of the process in the file `ppid`. `None` if neither file exists or the parent has no child.
///
/// The PID may have been recycled since it was written: the caller has to check the process, as `cross::Target` does.
///
/// # Errors
/// A file does not have exactly one PID, or the parent has several children.
pub fn read_pid(pod: &Path) -> Result<Option<i32>> {
    if let Some(pid) = read(pod, layout::PID)? {
        return Ok(Some(pid));
    }
    match read(pod, layout::PPID)? {
        Some(parent) => only_child(parent),
        None => Ok(None),
    }
}

fn read(pod: &Path, name: &str) -> Result<Option<i32>> {
    let file = pod.join(name);
    let content = match super::read_bounded(&file, MAX_PID) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(None),
        content => content?,
    };
    let text = || format!("{file:?} has {:?}, which is not a PID", String::from_utf8_lossy(&content));
    parse(&content).context(text).map(Some)
}

/// Parses decimal digits without a leading zero, and at most one newline.
fn parse(content: &[u8]) -> Option<i32> {
    let digits = content.strip_suffix(b"\n").unwrap_or(content);
    if digits.first().is_none_or(|first| *first == b'0') || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn only_child(parent: i32) -> Result<Option<i32>> {
    let children = children(parent).context(|| format!("find the child of process {parent}"))?;
    match children[..] {
        [] => Ok(None),
        [child] => Ok(Some(child)),
        _ => Err(Error::new(format!(
            "process {parent} in the file {:?} has {} children: expected one, the pod's PID 1",
            layout::PPID,
            children.len()
        ))),
    }
}

/// The children of all threads of a process: proc_tid_children(5). Empty if the process has ended.
fn children(parent: i32) -> Result<Vec<i32>> {
    let tasks = format!("/proc/{parent}/task");
    let mut children = Vec::new();
    let threads = match fs::read_dir(&tasks) {
        Ok(threads) => threads,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(children),
        Err(error) => return Err(error).context(|| format!("read directory {tasks}")),
    };
    for thread in threads {
        let path = match thread {
            Ok(thread) => thread.path().join("children"),
            Err(error) if has_ended(&error) => return Ok(children),
            Err(error) => return Err(error).context(|| format!("read directory {tasks}")),
        };
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // The thread has ended, or the kernel does not have this file (CONFIG_PROC_CHILDREN).
            Err(error) if has_ended(&error) => {
                if path.parent().is_some_and(Path::exists) {
                    return scan(parent);
                }
                continue;
            }
            Err(error) => return Err(error).context(|| format!("read {path:?}")),
        };
        for word in text.split_ascii_whitespace() {
            children.push(word.parse().context(|| format!("{path:?} has {word:?}"))?);
        }
    }
    Ok(children)
}

fn has_ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// [`children`] for kernels that do not list them: reads the parent of every process.
fn scan(parent: i32) -> Result<Vec<i32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc").context(|| "read directory /proc")? {
        let name = entry.context(|| "read directory /proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        let stat = match fs::read(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat,
            Err(error) if has_ended(&error) => continue,
            Err(error) => return Err(error).context(|| format!("read /proc/{pid}/stat")),
        };
        if parent_in(&stat).context(|| format!("/proc/{pid}/stat is not in the format of proc_pid_stat(5)"))? == parent
        {
            children.push(pid);
        }
    }
    Ok(children)
}

/// The parent's PID, the fourth field of /proc/PID/stat. The second field, in parentheses, is set by the process
/// itself.
fn parent_in(stat: &[u8]) -> Option<i32> {
    let after = stat.iter().rposition(|byte| *byte == b')')? + 1;
    std::str::from_utf8(&stat[after..]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    #[test]
    fn strict_decimal() {
        assert_eq!(parse(b"42\n"), Some(42));
        assert_eq!(parse(b"2147483647"), Some(i32::MAX));
        for bad in ["", "\n", "0", "-1", "+1", " 1", "1 ", "1\n\n", "01", "1\r\n", "1x", "0x1", "2147483648", "1\0"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse("٣".as_bytes()), None);
    }

    #[test]
    fn name_of_a_process_can_not_fake_its_parent() {
        assert_eq!(parent_in(b"7 (x) S 1 (y) R 5 6) S 42 7 7 0"), Some(42));
        assert_eq!(parent_in(b"7 (x"), None);
    }

    /// A shell with `count` children, all of which run until the shell's input ends.
    fn parent(count: usize) -> Child {
        let script = format!("exec 3<&0; {} echo; wait", "cat <&3 >/dev/null & ".repeat(count));
        let mut shell =
            Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut ready = [0];
        io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut ready).unwrap();
        shell
    }

    #[test]
    fn only_child_of_ppid() {
        let temp = tempfile::tempdir().unwrap();
        let pod = temp.path();
        assert_eq!(read_pid(pod).unwrap(), None);
        for count in [0, 1, 2] {
            let mut shell = parent(count);
            let id = i32::try_from(shell.id()).unwrap();
            fs::write(pod.join("ppid"), format!("{id}\n")).unwrap();
            let found = read_pid(pod);
            let mut scanned = scan(id).unwrap();
            let mut listed = children(id).unwrap();
            scanned.sort_unstable();
            listed.sort_unstable();
            assert_eq!(scanned, listed);
            assert_eq!(scanned.len(), count);
            match count {
                0 => assert_eq!(found.unwrap(), None),
                1 => assert_eq!(found.unwrap(), Some(scanned[0])),
                _ => assert!(found.unwrap_err().one_line().contains("has 2 children")),
            }
            drop(shell.stdin.take());
            shell.wait().unwrap();
            assert_eq!(read_pid(pod).unwrap(), None, "the parent has ended");
        }
        fs::write(pod.join("pid"), "77\n").unwrap();
        assert_eq!(read_pid(pod).unwrap(), Some(77));
        fs::write(pod.join("pid"), "77 78\n").unwrap();
        assert!(read_pid(pod).unwrap_err().one_line().contains("not a PID"));
    }
}

//! Finding what a test left on the machine, and removing it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::process;

/// Time for processes that are ending, and for what they use, to disappear.
const GRACE: Duration = Duration::from_secs(2);

/// Reaps every child that has ended; returns the status of `wanted`, if it was among them.
pub fn reap(wanted: Option<Pid>) -> Option<WaitStatus> {
    let mut found = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return found,
            Ok(status) if status.pid() == wanted => found = Some(status),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => panic!("waitpid(-1): {e}"),
        }
    }
}

/// Lists what is left of a test with the directory `dir` and pods with these UUIDs, one line each. Waits for a while
/// until nothing is left.
pub fn count(dir: &Path, pods: &[String]) -> Vec<String> {
    let end = Instant::now() + GRACE;
    loop {
        reap(None);
        let left = look(dir, pods);
        if left.is_empty() || Instant::now() > end {
            return left;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn look(dir: &Path, pods: &[String]) -> Vec<String> {
    let me = std::process::id() as i32;
    let mut left: Vec<String> = process::descendants(me).iter().map(|p| format!("process {p}")).collect();
    left.extend(mounts(dir, pods).iter().map(|m| format!("mount {}", m.display())));
    left.extend(cgroups(pods).iter().map(|c| format!("cgroup {}", c.display())));
    left.extend(links().iter().map(|name| format!("interface {name}")));
    left.extend(reservations(pods).iter().map(|file| format!("address {}", file.display())));
    left
}

/// The host's ends of pods' interfaces, in this test's network namespace.
fn links() -> Vec<String> {
    let text = fs::read_to_string("/proc/self/net/dev").unwrap_or_default();
    let names = text.lines().filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    names.filter(|name| name.starts_with("veth")).collect()
}

/// Addresses that are reserved for one of the pods, in the plugins' default directory.
fn reservations(pods: &[String]) -> Vec<PathBuf> {
    let files = directories(Path::new("/var/lib/cni/networks")).into_iter().flat_map(fs::read_dir).flatten().flatten();
    let is_ours = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap_or_default();
        pods.iter().any(|pod| text.starts_with(pod.as_str()))
    };
    files.map(|file| file.path()).filter(is_ours).collect()
}

/// Mount points below the test's directory, or named after one of its pods (such as a pinned namespace).
fn mounts(dir: &Path, pods: &[String]) -> Vec<PathBuf> {
    process::mountinfo("self")
        .into_iter()
        .filter_map(|fields| fields.get(4).map(|p| p.replace("\\040", " ").replace("\\012", "\n")))
        .filter(|at| Path::new(at).starts_with(dir) || pods.iter().any(|p| at.contains(p.as_str())))
        .map(PathBuf::from)
        .collect()
}

/// Cgroups named after one of the pods, in any hierarchy, at most two levels deep.
fn cgroups(pods: &[String]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for fields in process::mountinfo("self") {
        let kind = fields.iter().position(|f| f == "-").and_then(|at| fields.get(at + 1));
        if kind.is_some_and(|k| k == "cgroup" || k == "cgroup2") {
            let root = PathBuf::from(&fields[4]);
            let mut seen = vec![root.clone()];
            seen.extend(directories(&root));
            for parent in seen {
                found.extend(directories(&parent).into_iter().filter(|dir| {
                    let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
                    pods.iter().any(|pod| name.contains(pod.as_str()) || name.contains(&process::escaped(pod)))
                }));
            }
        }
    }
    found
}

fn directories(path: &Path) -> Vec<PathBuf> {
    fs::read_dir(path)
        .into_iter()
        .flatten()
        .filter_map(|e| {
            let e = e.ok()?;
            e.file_type().ok()?.is_dir().then(|| e.path())
        })
        .collect()
}

/// Kills every descendant of this process, then detaches the mounts and removes the cgroups. Returns what could not be
/// removed.
pub fn clear(dir: &Path, pods: &[String]) -> Vec<String> {
    let me = std::process::id() as i32;
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        reap(None);
        let family = process::descendants(me);
        if family.is_empty() || Instant::now() > end {
            break;
        }
        for p in family {
            // ESRCH: it has just ended by itself.
            if let Err(e) = kill(Pid::from_raw(p.pid), Signal::SIGKILL)
                && e != Errno::ESRCH
            {
                eprintln!("kill {}: {e}", p.pid);
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..8 {
        for at in mounts(dir, pods).iter().rev() {
            if let Err(e) = umount2(at, MntFlags::MNT_DETACH) {
                eprintln!("umount {}: {e}", at.display());
            }
        }
    }
    for group in cgroups(pods) {
        remove_cgroup(&group, end);
    }
    let names = pods.iter().map(|pod| crate::nethost::namespace(pod)).filter(|name| name.exists());
    for file in reservations(pods).into_iter().chain(names) {
        if let Err(e) = fs::remove_file(&file) {
            eprintln!("rm {}: {e}", file.display());
        }
    }
    look(dir, pods)
}

fn remove_cgroup(group: &Path, end: Instant) {
    for inner in directories(group) {
        remove_cgroup(&inner, end);
    }
    while let Err(e) = fs::remove_dir(group) {
        if e.raw_os_error() != Some(Errno::EBUSY as i32) || Instant::now() > end {
            eprintln!("rmdir {}: {e}", group.display());
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

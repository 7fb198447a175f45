//! Checks of the machine for `podctl doctor`: what pods need, whether the machine has it, and what its lack costs.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::Serialize;
use stage1::cgroup::{self, Version};
use stage1::error::{Context, Error, Result};
use stage1::net;

use crate::fsutil::inotify;
use crate::store::Store;

/// The oldest kernel with every system call that pods need; the newest of them is mount_setattr(2) with
/// `MOUNT_ATTR_IDMAP`.
const OLDEST_KERNEL: (u32, u32) = (5, 12);
/// The cgroup controllers that enforce limits.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "io"];
/// Report less free disk space than this, in bytes.
const LITTLE_SPACE: u64 = 1 << 30;

/// Report inotify instances for fewer pods than this.
const FEW_PODS: u64 = 30;

/// How a part of the machine meets what pods need.
#[derive(Serialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It meets it.
    Ok,
    /// It does not: some features are slower or do not work.
    Missing,
    /// It does not, and no pod can run.
    Fatal,
}

/// The result of checking one part of the machine.
#[derive(Serialize, Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The name of the part, for example `kernel`.
    pub part: &'static str,
    /// Whether it meets what pods need.
    pub verdict: Verdict,
    /// What the check found, or what is missing.
    pub found: String,
    /// What does not work without it, and the remedy; `None` if the verdict is [`Verdict::Ok`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<&'static str>,
}

impl Finding {
    fn new(part: &'static str, found: Result<String>, lack: Verdict, cost: &'static str) -> Self {
        match found {
            Ok(found) => Self { part, verdict: Verdict::Ok, found, cost: None },
            Err(missing) => Self { part, verdict: lack, found: missing.one_line(), cost: Some(cost) },
        }
    }
}

/// Checks all parts of the machine. A part that can't be read counts as missing.
pub fn examine(store: &Store) -> Vec<Finding> {
    use Verdict::{Fatal, Missing};
    let local_config = Path::new(net::LOCAL_CONFIG);
    vec![
        Finding::new(
            "kernel",
            read("/proc/sys/kernel/osrelease").and_then(|release| kernel(&release)),
            Fatal,
            "pods need Linux 5.12 or newer",
        ),
        Finding::new(
            "cgroups",
            hierarchies(),
            Fatal,
            "pods need a cgroup hierarchy: mount -t cgroup2 none /sys/fs/cgroup",
        ),
        Finding::new("controllers", controllers(), Missing, "limits on these resources have no effect"),
        Finding::new(
            "overlayfs",
            read("/proc/filesystems").and_then(|all| file_system(&all, "overlay")),
            Missing,
            "every pod gets a copy of its images: load the module with modprobe overlay",
        ),
        Finding::new(
            "user namespaces",
            read("/proc/sys/user/max_user_namespaces").and_then(|most| namespaces(&most)),
            Missing,
            "--private-users fails; a pod's root is the host's",
        ),
        Finding::new(
            "seccomp",
            read("/proc/sys/kernel/seccomp/actions_avail").and_then(|all| filters(&all)),
            Fatal,
            "the kernel can't filter system calls; apps run only with --disable-seccomp",
        ),
        Finding::new(
            "inotify",
            inotify::most_pods().and_then(room_for_pods),
            Missing,
            "few pods can run at once: sysctl -w fs.inotify.max_user_instances=8192",
        ),
        Finding::new(
            "network plugins",
            plugins(net::missing_plugins(local_config)),
            Missing,
            "pods have --net=none and --net=host only: install containernetworking-plugins",
        ),
        Finding::new(
            "disk space",
            space(store.dir()),
            Missing,
            "images and logs may not fit: podctl image prune, podctl gc",
        ),
        Finding::new(
            "programs",
            programs(store.dir()),
            Fatal,
            "podctl runs its helpers from its data directory: mount it without noexec, or choose another with --dir",
        ),
    ]
}

fn read(path: &str) -> Result<String> {
    fs::read_to_string(path).context(|| format!("read {path}"))
}

fn kernel(release: &str) -> Result<String> {
    let release = release.trim();
    let mut numbers = release.split(['.', '-']).map_while(|word| word.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= OLDEST_KERNEL => Ok(format!("Linux {release}")),
        _ => Err(Error::new(format!("Linux {release}"))),
    }
}

fn hierarchies() -> Result<String> {
    let all = cgroup::hierarchies()?;
    let named = |hierarchy: &cgroup::Hierarchy| if hierarchy.version == Version::V2 { "v2" } else { "v1" };
    let versions: BTreeSet<&str> = all.iter().map(named).collect();
    Ok(versions.into_iter().collect::<Vec<_>>().join(" and "))
}

fn controllers() -> Result<String> {
    let mut there = BTreeSet::new();
    for hierarchy in &cgroup::hierarchies()? {
        let unified = fs::read_to_string(hierarchy.mount.join("cgroup.controllers")).unwrap_or_default();
        there.extend(unified.split_whitespace().map(str::to_owned));
        there.extend(hierarchy.controllers.iter().map(|name| if name == "blkio" { "io".into() } else { name.clone() }));
    }
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !there.contains(*name)).collect();
    if missing.is_empty() { Ok(CONTROLLERS.join(", ")) } else { Err(Error::new(format!("no {}", missing.join(", ")))) }
}

fn file_system(table: &str, name: &str) -> Result<String> {
    match table.lines().any(|line| line.split_whitespace().next_back() == Some(name)) {
        true => Ok("the kernel has it".into()),
        false => Err(Error::new("the kernel does not have it, or has not loaded it")),
    }
}

fn namespaces(most: &str) -> Result<String> {
    match most.trim().parse::<u64>() {
        Ok(0) | Err(_) => Err(Error::new("none allowed by /proc/sys/user/max_user_namespaces")),
        Ok(number) => Ok(format!("{number} allowed")),
    }
}

fn filters(actions: &str) -> Result<String> {
    match actions.split_whitespace().any(|word| word == "errno") {
        true => Ok("filters".into()),
        false => Err(Error::new("no filters")),
    }
}

fn room_for_pods(most: u64) -> Result<String> {
    let said = format!("instances for {most} pods");
    if most < FEW_PODS { Err(Error::new(said)) } else { Ok(said) }
}

fn plugins((missing, places): (Vec<&str>, String)) -> Result<String> {
    if missing.is_empty() {
        return Ok("all that the built-in networks need".into());
    }
    Err(Error::new(format!("no {} in {places}", missing.join(", "))))
}

/// The nearest existing directory at or above `dir`: podctl makes the data directory only when it first writes to it.
fn existing(dir: &Path) -> &Path {
    dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"))
}

fn space(dir: &Path) -> Result<String> {
    let dir = existing(dir);
    let stat = rustix::fs::statvfs(dir).context(|| format!("statvfs({dir:?})"))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let said = format!("{:.1} GB free in {}", free as f64 / 1e9, dir.display());
    if free < LITTLE_SPACE { Err(Error::new(said)) } else { Ok(said) }
}

fn programs(dir: &Path) -> Result<String> {
    let dir = existing(dir);
    let stat = rustix::fs::statvfs(dir).context(|| format!("statvfs({dir:?})"))?;
    match stat.f_flag.contains(rustix::fs::StatVfsMountFlags::NOEXEC) {
        true => Err(Error::new(format!("{} is mounted noexec", dir.display()))),
        false => Ok(format!("can be executed in {}", dir.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_from_what_is_there() {
        for (release, good) in
            [("6.18.0", true), ("5.12.0-1-amd64\n", true), ("5.11.9", false), ("4.19", false), ("", false)]
        {
            assert_eq!(kernel(release).is_ok(), good, "{release}");
        }
        let table = "nodev\tsysfs\n\text4\nnodev\toverlay\n";
        assert!(file_system(table, "overlay").is_ok() && file_system("nodev\toverlayx\n", "overlay").is_err());
        assert!(namespaces("1000\n").is_ok() && namespaces("0\n").is_err() && namespaces("").is_err());
        assert!(room_for_pods(30).is_ok() && room_for_pods(29).is_err());
        assert!(filters("kill_process trap errno allow\n").is_ok() && filters("").is_err());
        let said = plugins((vec!["ptp", "portmap"], "/a:/b".into())).unwrap_err().one_line();
        assert_eq!(said, "no ptp, portmap in /a:/b");
        let base = tempfile::tempdir().unwrap();
        assert_eq!(existing(&base.path().join("a/b")), base.path());
    }

    #[test]
    fn a_lack_tells_its_cost() {
        let lack = Finding::new("kernel", kernel("4.19"), Verdict::Fatal, "pods need Linux 5.12 or newer");
        assert_eq!((lack.verdict, lack.cost), (Verdict::Fatal, Some("pods need Linux 5.12 or newer")));
        assert_eq!(Finding::new("kernel", kernel("6.1"), Verdict::Fatal, "x").cost, None);
    }
}

//! The procfs of an app's own PID namespace, mounted at each start in a copy of the app's mount namespace. Pod side.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::OFlags;

use crate::error::{Context, Result};
use crate::sys::mount::{self, Attributes, DetachedMount, Scope};
use crate::sys::{dir, process};

const PROC: &str = "/proc";

/// A mount on a file or directory of the procfs.
struct Cover {
    /// Its mount point, relative to /proc.
    place: String,
    /// For a bind mount of a part of the procfs: the path of that part, relative to the root of the procfs.
    own: Option<String>,
    read_only: bool,
}

/// Replaces the procfs in the app's root with one of this process's PID namespace, with the same mounts on it. It first
/// gives this process a mount namespace of its own, a copy, so that no other process sees the new procfs.
///
/// # Errors
/// The namespace can't be made, or a mount can't be made or attached.
pub fn renew_proc() -> Result<()> {
    process::unshare(CloneFlags::CLONE_NEWNS)?;
    renew().context(|| "mount the procfs of the app's PID namespace")
}

fn renew() -> Result<()> {
    let table = format!("{}/mountinfo", std::process::id());
    // Before the old one is detached: in a user namespace the kernel mounts a procfs only if the mount namespace has a
    // fully visible one already: user_namespaces(7).
    let proc = DetachedMount::new("proc", &[], Attributes::DATA)?;
    // By the new one: the old one does not have this process if it is not in the PID namespace of the old one.
    let opened = dir::open_beneath(&proc, &table, OFlags::RDONLY)?;
    let table = std::io::read_to_string(std::fs::File::from(opened)).context(|| format!("read {table}"))?;
    let covers = covers(&table);
    let old = open(&dir::open_dir(PROC)?, ".")?;
    let foreign = |cover: &Cover| match cover.own {
        Some(_) => Ok(None),
        None => DetachedMount::clone_of(open(&old, &cover.place)?, Scope::One).map(Some),
    };
    let foreign = covers.iter().map(foreign).collect::<Result<Vec<_>>>()?;
    drop(old);
    mount::detach(Path::new(PROC))?;
    proc.attach_path(PROC)?;
    // All are opened before the first is attached, because a path below a mount leads into that mount.
    let sources = covers.iter().map(|cover| cover.own.as_deref().map(|own| open(&proc, own)).transpose());
    let sources = sources.collect::<Result<Vec<_>>>()?;
    for ((cover, source), foreign) in covers.iter().zip(sources).zip(foreign) {
        let mount = match (source, foreign) {
            (Some(source), _) => DetachedMount::clone_of(source, Scope::One)?,
            (None, Some(foreign)) => foreign,
            (None, None) => continue,
        };
        mount.set(Attributes { read_only: cover.read_only, ..Attributes::DATA }, Scope::One)?;
        mount.attach(open(&proc, &cover.place)?, &Path::new(PROC).join(&cover.place))?;
    }
    Ok(())
}

fn open(proc: impl std::os::fd::AsFd, name: &str) -> Result<OwnedFd> {
    dir::open_beneath(proc, name, OFlags::PATH)
}

/// The mounts below /proc in the table of proc_pid_mountinfo(5), each before those that are on it. Pure.
fn covers(table: &str) -> Vec<Cover> {
    let mut found: Vec<Cover> = table.lines().filter_map(cover).collect();
    found.sort_by_key(|cover| cover.place.matches('/').count());
    found
}

fn cover(line: &str) -> Option<Cover> {
    let (mount, of) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point, options) = (fields.next()?, fields.next()?, fields.next()?);
    let place = point.strip_prefix(PROC)?.strip_prefix('/')?.to_owned();
    let own = of.starts_with("proc ").then(|| root.trim_start_matches('/').to_owned());
    Some(Cover { place, own, read_only: options.split(',').any(|option| option == "ro") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_a_procfs() {
        let table = "\
            50 40 0:5 / /proc rw,nosuid - proc proc rw\n\
            53 51 0:5 /sys/net /proc/sys/net rw,nosuid - proc proc rw\n\
            51 50 0:5 /sys /proc/sys ro,nosuid - proc proc rw\n\
            52 50 0:9 /run/stage1/mask-file /proc/kcore ro - tmpfs tmpfs rw\n\
            54 40 0:9 / /process rw - tmpfs tmpfs rw";
        let found: Vec<_> = covers(table).into_iter().map(|cover| (cover.place, cover.own, cover.read_only)).collect();
        let own = |name: &str| Some(name.to_owned());
        let expected = [("sys", own("sys"), true), ("kcore", None, true), ("sys/net", own("sys/net"), false)];
        assert_eq!(found, expected.map(|(place, own, read_only)| (place.to_owned(), own, read_only)));
    }
}

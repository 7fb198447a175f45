//! The procfs of an app's own PID namespace, mounted at each start in a copy of the app's mount namespace. Pod side.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sched::CloneFlags;
use rustix::fs::OFlags;

use crate::error::{Context, Result};
use crate::sys::mount::{self, Attributes, DetachedMount, Scope};
use crate::sys::{dir, process};

const PROC: &str = "/proc";

/// What lies on a file of the procfs.
struct Cover {
    /// Where, below /proc.
    place: String,
    /// Which file of the procfs itself it shows, if it is that.
    own: Option<String>,
    read_only: bool,
}

/// Puts a procfs of this process's PID namespace in the place of the one in the app's root, with the same covers. Only
/// this process and what it becomes see it: its mount namespace is a copy from here on.
///
/// # Errors
/// Something can't be mounted or covered.
pub fn renew_proc() -> Result<()> {
    process::unshare(CloneFlags::CLONE_NEWNS)?;
    renew().context(|| "mount the procfs of the app's PID namespace")
}

fn renew() -> Result<()> {
    const TABLE: &str = "/proc/self/mountinfo";
    let covers = covers(&std::fs::read_to_string(TABLE).context(|| format!("read {TABLE}"))?);
    let old = open(&dir::open_dir(PROC)?, ".")?;
    let foreign = |cover: &Cover| match cover.own {
        Some(_) => Ok(None),
        None => DetachedMount::clone_of(open(&old, &cover.place)?, Scope::One).map(Some),
    };
    let foreign = covers.iter().map(foreign).collect::<Result<Vec<_>>>()?;
    // In a user namespace the kernel makes one only where there is one already, with nothing of it hidden for good.
    let proc = DetachedMount::new("proc", &[], Attributes::DATA)?;
    drop(old);
    mount::detach(Path::new(PROC))?;
    proc.attach_path(PROC)?;
    // All before the first is attached: what lies below a cover is not what the cover shows.
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

/// The mounts below /proc, those that others lie on first: proc_pid_mountinfo(5). Pure.
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

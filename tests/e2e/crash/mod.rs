//! podctl and the entrypoints are killed at any system call: the next command finds the old or the new state, or
//! repairs it.
//!
//! Every verb is killed right before each of its system calls that changes what others can see, as far as there is
//! time for it in a normal run. With `CRASH_POINTS=changes` it is killed before each of them, with `CRASH_POINTS=all`
//! before every system call, once alone and once with all that it has started. Each test prints how many points it has tried.

pub mod apps;
pub mod crossings;
pub mod pods;
pub mod store;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tests::podctl::Pod;
use tests::process::{descendants, mountinfo, pod_cgroups};
use tests::tracer::{self, Points, Traced, Victims, wanted};

/// How many points of a verb a normal run tries.
const A_FEW: usize = 24;

/// One verb, killed again and again.
struct Trial<'a> {
    what: &'a str,
    /// Whether to trace the processes that it starts.
    follow: bool,
    /// How many points a normal run tries.
    few: usize,
}

impl Trial<'_> {
    /// Makes the state with `before`, kills the command, and checks the result with `after`.
    fn run(&self, before: &mut dyn FnMut(usize), command: &dyn Fn() -> Command, after: &mut dyn FnMut(&str)) {
        before(0);
        let (points, all) = (wanted().unwrap_or(Points::Changes), wanted().is_some());
        let there = tracer::count(&command(), self.follow, points);
        after("to its end");
        let stride = if all { 1 } else { there.div_ceil(self.few).max(1) };
        let mut tried = 0;
        for (nth, at) in (0..).step_by(stride).enumerate() {
            let kinds = match (all, nth % 2) {
                (true, _) => &[Victims::Command, Victims::Family][..],
                (false, 0) => &[Victims::Command],
                (false, _) => &[Victims::Family],
            };
            let mut ended = false;
            for victims in kinds {
                before(at);
                let traced = tracer::kill_at(&command(), self.follow, points, at, *victims);
                ended |= matches!(traced, Traced::Ended(_));
                tried += 1;
                after(&format!("at {at} of {there}, {victims:?}: {traced:?}"));
            }
            if ended {
                break;
            }
        }
        println!("{}: killed at {tried} points; it makes {there} system calls that count", self.what);
    }
}

/// All paths below a directory, on the same file system.
fn names(top: &Path) -> BTreeSet<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    fn walk(dir: &Path, top: &Path, device: u64, into: &mut BTreeSet<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            into.insert(path.strip_prefix(top).expect("a path below").to_owned());
            let Ok(stat) = path.symlink_metadata() else { continue };
            if stat.is_dir() && stat.dev() == device {
                walk(&path, top, device, into);
            }
        }
    }
    let mut found = BTreeSet::new();
    if let Ok(stat) = top.symlink_metadata() {
        walk(top, top, stat.dev(), &mut found);
    }
    found
}

#[track_caller]
fn assert_same(now: &BTreeSet<PathBuf>, before: &BTreeSet<PathBuf>, when: &str) {
    let more: Vec<_> = now.difference(before).collect();
    let less: Vec<_> = before.difference(now).collect();
    assert!(more.is_empty() && less.is_empty(), "{when}: there is also {more:?}, there is no {less:?}");
}

/// The state of a pod, without times and contents.
struct Traces {
    files: BTreeSet<PathBuf>,
    inside: BTreeSet<PathBuf>,
    mounts: usize,
    host_mounts: usize,
    cgroups: BTreeSet<PathBuf>,
}

impl Traces {
    fn of(pod: &Pod<'_>) -> Self {
        let root = PathBuf::from(format!("/proc/{}/root", pod.pid()));
        let mut inside = names(&root.join("run/stage1"));
        inside.extend(names(&root.join("run/systemd/system")));
        Self {
            files: names(&pod.dir()),
            inside,
            mounts: mountinfo(&pod.pid().to_string()).len(),
            host_mounts: mountinfo("self").iter().filter(|fields| fields[4].contains(&pod.uuid)).count(),
            cgroups: cgroups(&pod.uuid),
        }
    }

    #[track_caller]
    fn must_be(&self, before: &Self, when: &str) {
        assert_same(&self.files, &before.files, when);
        assert_same(&self.inside, &before.inside, when);
        assert_same(&self.cgroups, &before.cgroups, when);
        assert_eq!((self.mounts, self.host_mounts), (before.mounts, before.host_mounts), "{when}: mounts");
    }
}

/// The cgroups of a pod, in all hierarchies.
fn cgroups(uuid: &str) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for top in pod_cgroups(uuid) {
        let directories = names(&top).into_iter().map(|name| top.join(name)).filter(|path| path.is_dir());
        // A slice of systemd for the services that clean up after apps.
        found.extend(directories.filter(|path| !path.ends_with("system-app\\x2dended.slice")));
    }
    found
}

/// The number of processes of an app that sleeps for ever.
fn sleepers(pid1: i32) -> usize {
    descendants(pid1).iter().filter(|p| p.words == "/probe sleep inf" && p.state != 'Z').count()
}

//! The cgroups of a pod on the host, from its start to its removal.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::{Context, Layout};
use tests::process::{Process, cgroups_named_after, hierarchies_named_after, mountinfo, pod_cgroups, wait_for};

tests::cases! {
    both an_apps_cgroup_comes_and_goes;
    both a_pods_cgroups_are_there_until_it_is_removed;
    both a_pods_cgroup_is_made_where_it_is_asked_for;
    native only_cgroups_with_the_pods_uuid_are_removed;
}

fn an_apps_cgroup_comes_and_goes(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let text = fs::read_to_string(pod.dir().join("subcgroup"))?;
    let controller = if t.layout == Layout::V1 { "systemd" } else { "" };
    let root = Path::new("/sys/fs/cgroup").join(controller).join(text.trim());
    assert!(root.is_dir(), "{} is not there", root.display());
    pod.add("one", &[], &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let group = root.join("system.slice/app-one.service");
    assert!(!fs::read_to_string(group.join("cgroup.procs"))?.is_empty(), "the app is not in {}", group.display());
    pod.app("stop", "one", &[]).ok();
    wait_for("the app's cgroup to go", 5, || (!group.exists()).then_some(()));
    pod.app("rm", "one", &[]).ok();
    pod.end();
    assert!(!root.exists());
    Ok(())
}

/// By a name that holds its UUID, which is how host managers and people find them, whether anything runs there or not.
/// Where the host has a systemd, that removes the cgroup when nothing runs there, and another one stays.
fn a_pods_cgroups_are_there_until_it_is_removed(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for (options, cut_off, by_gc) in
        [(&[][..], false, false), (&[][..], true, true), (&["--private-users"][..], false, true)]
    {
        let pod = podctl.pod(options);
        let name = format!("machine-rkt\\x2d{}.scope", pod.uuid.replace('-', "\\x2d"));
        let recorded = fs::read_to_string(pod.dir().join("subcgroup"))?;
        assert_eq!(recorded.rsplit('/').next(), Some(name.as_str()));
        let all = hierarchies_named_after(&pod.uuid);
        let hierarchies = pod_cgroups(&pod.uuid);
        assert!(hierarchies.len() >= if t.layout == Layout::V1 { 5 } else { 1 }, "{hierarchies:?}");
        pod.add("one", &["--memory=64Mi"], &["spawn", "sleep", "inf", "+", "sleep", "inf"]);
        pod.app("start", "one", &[]).ok();
        let pid1 = pod.pid();
        if cut_off {
            let monitor = Process::look_up(pid1).expect("the pod's PID 1").parent;
            kill(Pid::from_raw(monitor), Signal::SIGKILL)?;
            wait_for("the pod's end", 15, || (!Process::lives(pid1)).then_some(()));
        } else {
            podctl.ok(&["stop", &pod.uuid]);
        }
        assert_eq!(hierarchies_named_after(&pod.uuid), all, "{options:?} {cut_off}");
        wait_for("all its processes to have ended", 5, || {
            let of = |dir: &Path| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            let apps = |dir: &Path| of(&dir.join("system.slice/app-one.service"));
            hierarchies.iter().all(|dir| of(dir).is_empty() && apps(dir).is_empty()).then_some(())
        });
        if by_gc {
            podctl.ok(&["gc", "--mark-only"]);
            assert_eq!(hierarchies_named_after(&pod.uuid), all, "marked for removal");
            podctl.ok(&["gc", "--grace-period=0s"]);
        } else {
            podctl.ok(&["rm", &pod.uuid]);
        }
        assert_eq!(cgroups_named_after(&pod.uuid), Vec::<PathBuf>::new(), "{options:?} {cut_off}");
    }
    Ok(())
}

fn a_pods_cgroup_is_made_where_it_is_asked_for(t: &Context) -> Verdict {
    let podctl = t.podctl();
    // names of this test alone, whatever else runs here
    let own = format!("e2e{}{}", std::process::id(), if t.layout == Layout::V1 { "one" } else { "two" });
    for (parent, path) in [
        (format!("/{own}/inner"), format!("{own}/inner")),
        (format!("{own}-inner.slice"), format!("{own}.slice/{own}-inner.slice")),
    ] {
        let pod = podctl.pod(&[&format!("--cgroup-parent={parent}")]);
        let name = format!("machine-rkt\\x2d{}.scope", pod.uuid.replace('-', "\\x2d"));
        assert_eq!(fs::read_to_string(pod.dir().join("subcgroup"))?, format!("{path}/{name}"));
        let mounts = mountinfo("self").into_iter().filter(|m| m.iter().any(|f| f == "cgroup" || f == "cgroup2"));
        // in the layout v2 those of v1 are mounted over
        let hierarchies = mounts.map(|mount| Path::new(&mount[4]).join(&path).join(&name)).filter(|dir| dir.is_dir());
        let hierarchies: Vec<PathBuf> = hierarchies.collect();
        assert!(hierarchies.len() >= if t.layout == Layout::V1 { 5 } else { 1 }, "{hierarchies:?}");
        pod.add("one", &["--memory=64Mi"], &["sleep", "inf"]);
        pod.app("start", "one", &[]).ok();
        podctl.ok(&["pause", &pod.uuid, "one"]);
        podctl.ok(&["unpause", &pod.uuid, "one"]);
        assert_eq!(pod.enter("one", &["/probe", "exit", "3"]).code, Some(3));
        pod.end();
        for dir in hierarchies {
            assert!(!dir.exists(), "{}", dir.display());
            // what others may use stays
            for above in dir.ancestors().skip(1).take(2) {
                fs::remove_dir(above).map_err(|e| format!("{}: {e}", above.display()))?;
            }
        }
    }
    for bad in ["/", "/../x", "a--b.slice"] {
        let line = podctl.run(&["sandbox", &format!("--cgroup-parent={bad}")]);
        assert!(line.code != Some(0) && line.stderr.contains("cgroup parent"), "{line}");
    }
    Ok(())
}

/// The file with the path of a pod's cgroup can hold anything.
fn only_cgroups_with_the_pods_uuid_are_removed(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let other = podctl.pod(&[]);
    let others = fs::read_to_string(other.dir().join("subcgroup"))?;
    let hierarchies = pod_cgroups(&other.uuid);
    for path in [others.as_str(), "machine-nobodys.scope"] {
        let pod = podctl.pod(&[]);
        podctl.ok(&["stop", &pod.uuid]);
        let spare = hierarchies[0].with_file_name("machine-nobodys.scope");
        fs::create_dir_all(&spare)?;
        fs::write(pod.dir().join("subcgroup"), path)?;
        podctl.ok(&["rm", &pod.uuid]);
        assert_eq!(cgroups_named_after(&pod.uuid), Vec::<PathBuf>::new(), "{path}");
        assert!(spare.exists() && pod_cgroups(&other.uuid) == hierarchies, "{path}");
        fs::remove_dir(spare)?;
    }
    assert_eq!(podctl.json(&["status", &other.uuid, "--format=json"])["state"], "running");
    other.end();
    Ok(())
}

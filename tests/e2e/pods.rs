//! Pods that ended without cleaning up, under podctl or another host manager: their state, and that nothing is left of
//! them.

use std::fs;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{Process, mountinfo, pod_cgroups, wait_for};

tests::cases! {
    both after_a_power_cut;
    native what_another_host_manager_has_left;
    native a_pods_end_is_waited_for;
}

/// Kills a pod and its monitor at once.
#[track_caller]
pub(crate) fn cut_off(pid1: i32) {
    let monitor = Process::look_up(pid1).expect("the pod's PID 1").parent;
    kill(Pid::from_raw(monitor), Signal::SIGKILL).expect("kill the monitor");
    wait_for("the pod's end", 15, || (!Process::lives(pid1) && !Process::lives(monitor)).then_some(()));
}

/// Removes an empty cgroup and those below it.
#[track_caller]
fn remove_cgroup(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroup(&entry.path());
        }
    }
    wait_for(&format!("{} to be removed", dir.display()), 10, || fs::remove_dir(dir).ok());
}

/// Removes what a reboot removes: mounts, cgroups, and the process with the recorded PID.
#[track_caller]
pub(crate) fn forget(dir: &Path, uuid: &str) {
    for m in mountinfo("self").iter().rev().filter(|m| Path::new(&m[4]).starts_with(dir)) {
        umount2(m[4].as_str(), MntFlags::empty()).unwrap_or_else(|e| panic!("unmount {}: {e}", m[4]));
    }
    pod_cgroups(uuid).iter().for_each(|group| remove_cgroup(group));
    let pid = ["pid", "ppid"].map(|name| dir.join(name)).into_iter().find(|path| path.exists()).expect("a PID");
    fs::write(&pid, format!("{}\n", std::process::id())).expect("write a PID");
}

#[track_caller]
fn nothing_is_left(podctl: &Podctl, uuid: &str) {
    assert_eq!(podctl.json(&["list", "--format=json"]), json!([]));
    assert_eq!(pod_cgroups(uuid), Vec::<PathBuf>::new());
    let pods = podctl.data.join("pods");
    let mounts: Vec<_> = mountinfo("self").into_iter().filter(|m| Path::new(&m[4]).starts_with(&pods)).collect();
    assert!(mounts.is_empty(), "{mounts:?}");
}

fn after_a_power_cut(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for making in [&[][..], &["--private-users"], &["--no-overlay"]] {
        for rebooted in [false, true] {
            let pod = podctl.pod(&[making, &["--net=none"]].concat());
            pod.add("ended", &[], &["exit", "3"]);
            pod.add("lived", &[], &["sleep", "inf"]);
            pod.add("idle", &[], &["sleep", "inf"]);
            pod.app("start", "ended", &[]).ok();
            pod.app("start", "lived", &[]).ok();
            assert_eq!(pod.exit_code("ended"), 3);
            cut_off(pod.pid());
            if rebooted {
                forget(&pod.dir(), &pod.uuid);
            }
            let status = podctl.json(&["status", &pod.uuid, "--format=json"]);
            assert!(status["state"] == "exited" && status["pid"].is_null(), "{status}");
            let apps = status["apps"].as_array().expect("apps").iter();
            let apps: Vec<_> =
                apps.map(|app| (app["name"].as_str(), app["state"].as_str(), &app["exit_code"])).collect();
            let exited = |name, code| (Some(name), Some("exited"), code);
            assert_eq!(apps, [exited("ended", &json!(3)), exited("lived", &json!(null)), exited("idle", &json!(null))]);
            podctl.ok(&["stop", &pod.uuid]);
            assert!(podctl.fails(&["enter", &pod.uuid, "--app=ended", "--", "/probe"]).contains("exited"));
            podctl.ok(&["gc"]);
            let marked = podctl.json(&["status", &pod.uuid, "--format=json"]);
            assert_eq!(marked["state"], "exited garbage");
            assert_eq!(marked["apps"][0]["exit_code"], 3, "{marked}");
            assert_eq!(marked["apps"][1]["finished_at"], marked["gc_marked_at"], "{marked}");
            podctl.ok(&["gc", "--grace-period=0s"]);
            nothing_is_left(&podctl, &pod.uuid);
        }
    }
    Ok(())
}

fn what_another_host_manager_has_left(t: &Context) -> Verdict {
    let host = t.minihost();
    let podctl = Podctl::new(&tests::dist().join("podctl"), &t.dir.join("mini"), &t.dir);
    for rebooted in [false, true] {
        let (mut pod, mut monitor) = host.boot(&json!([]), &["--net=none"]);
        pod.add("one", &["/probe", "exit", "3"], &json!([]));
        pod.start_app("one").ok();
        wait_for("the app's end", 10, || (pod.state("one").0 == "exited").then_some(()));
        let pid1 = pod.pid();
        monitor.kill()?;
        monitor.wait()?;
        wait_for("the pod's end", 15, || (!Process::lives(pid1)).then_some(()));
        if rebooted {
            forget(&pod.dir(), &pod.uuid);
        }
        let prepared = host.prepare(&json!([]));
        let theirs = Pod { podctl: &podctl, uuid: pod.uuid.clone() };
        assert_eq!(theirs.status("one")["exit_code"], 3);
        podctl.ok(&["gc", "--mark-only"]);
        assert!(pod.in_phase("exited-garbage").exists() && prepared.in_phase("prepared").exists());
        podctl.ok(&["gc", "--grace-period=0s", "--expire-prepared=0s"]);
        nothing_is_left(&podctl, &pod.uuid);
    }
    Ok(())
}

fn a_pods_end_is_waited_for(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none"]);
    podctl.ok(&["status", &pod.uuid, "--wait-ready=10s"]);
    pod.add("one", &[], &["orderly", "5"]);
    pod.app("start", "one", &[]).ok();
    let line = podctl.fails(&["wait", &pod.uuid, "--timeout=100ms"]);
    assert!(line.contains("still running"), "{line}");
    let mut waits = [&["wait", &pod.uuid][..], &["status", &pod.uuid, "--wait"], &["wait", &pod.uuid, "--timeout=1h"]]
        .map(|args| podctl.command(args).stdout(std::process::Stdio::null()).spawn().expect("podctl"));
    podctl.ok(&["stop", &pod.uuid]);
    for wait in &mut waits {
        let status = wait_for("the end of the wait", 10, || wait.try_wait().expect("wait"));
        assert!(status.success(), "{status}");
    }
    assert_eq!(pod.status("one")["exit_code"], 5);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

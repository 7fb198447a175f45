//! Stopping a pod that does not end by itself.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::Context;
use tests::process::Process;

tests::cases! {
    both a_stopped_monitor_does_not_hinder_a_stop;
    both a_frozen_pod_is_killed_by_force;
    native a_stop_with_a_timeout_kills_when_it_is_over;
    native durations_are_written_the_same_way_everywhere;
}

fn a_stopped_monitor_does_not_hinder_a_stop(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for words in [&["stop", "--force"][..], &["stop"]] {
        let pod = podctl.pod(&[]);
        pod.add("a", &[], &["sleep", "inf"]);
        pod.app("start", "a", &[]).ok();
        let monitor = Process::look_up(pod.pid()).ok_or("PID 1 is gone")?.parent;
        kill(Pid::from_raw(monitor), Signal::SIGSTOP)?;
        let start = Instant::now();
        podctl.ok(&[words, &[&pod.uuid]].concat());
        assert!(start.elapsed() < Duration::from_secs(15), "{words:?}: {:?}", start.elapsed());
        podctl.ok(&["rm", &pod.uuid]);
    }
    Ok(())
}

fn a_frozen_pod_is_killed_by_force(t: &Context) -> Verdict {
    if !t.has_controllers() {
        return Ok(());
    }
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &[], &["sleep", "inf"]);
    pod.app("start", "a", &[]).ok();
    let path = fs::read_to_string(pod.dir().join("subcgroup"))?;
    let path = path.trim().trim_start_matches('/');
    let (file, word) =
        [("/sys/fs/cgroup/freezer", "freezer.state", "FROZEN"), ("/sys/fs/cgroup", "cgroup.freeze", "1")]
            .iter()
            .map(|(root, file, word)| (PathBuf::from(root).join(path).join(file), *word))
            .find(|(file, _)| file.exists())
            .ok_or("no freezer for the pod's cgroup")?;
    fs::write(&file, word)?;
    podctl.ok(&["stop", "--force", &pod.uuid]);
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_stop_with_a_timeout_kills_when_it_is_over(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    // the app has a long stop timeout, and ignores its stop signal
    pod.add("a", &["--stop-timeout", "1h", "--stop-signal", "SIGWINCH"], &["sleep", "inf"]);
    pod.app("start", "a", &[]).ok();
    let start = Instant::now();
    podctl.ok(&["stop", "--timeout", "1", &pod.uuid]);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(15), "{took:?}");
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn durations_are_written_the_same_way_everywhere(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &["--stop-timeout", "1500ms"], &["sleep", "inf"]);
    pod.app("start", "a", &[]).ok();
    for timeout in ["1", "1s", "1000ms"] {
        let start = Instant::now();
        let line = podctl.fails(&["wait", "--timeout", timeout, &pod.uuid]);
        assert!(line.contains("still running") && start.elapsed() < Duration::from_secs(10), "{line}");
        podctl.fails(&["status", &format!("--wait={timeout}"), &pod.uuid]);
        podctl.ok(&["gc", "--grace-period", timeout, "--expire-prepared", timeout]);
        podctl.ok(&["image", "gc", "--grace-period", timeout]);
        podctl.ok(&["app", "stop", &pod.uuid, "a", "--timeout", timeout]);
    }
    let line = podctl.fails(&["wait", "--timeout", "soon", &pod.uuid]);
    assert!(line.contains("expected seconds, or a number with a unit"), "{line}");
    pod.end();
    Ok(())
}

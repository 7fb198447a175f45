//! A systemd unit for a pod: the pod tells the host's systemd when it is ready, and systemd ends it in order.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::Context;
use tests::process::{run, wait_for};

tests::cases! {
    native what_keeps_a_pod_tells_when_it_is_ready_and_ends_it;
    native a_pod_is_enabled_for_boot;
}

fn what_keeps_a_pod_tells_when_it_is_ready_and_ends_it(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=shop"]);
    pod.add("a", &[], &["sleep", "inf"]);
    pod.app("start", "a", &[]).ok();
    let path = t.dir.join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let told = || -> String {
        let mut bytes = [0; 100];
        let length = socket.recv(&mut bytes).unwrap_or_else(|e| panic!("{e}"));
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let mut keeper = podctl.command(&["keep", "shop"]).env("NOTIFY_SOCKET", &path).spawn()?;
    assert_eq!(told(), "READY=1");
    kill(Pid::from_raw(i32::try_from(keeper.id())?), Signal::SIGTERM)?;
    assert_eq!(told(), "STOPPING=1");
    assert!(keeper.wait()?.success());
    assert_eq!(podctl.json(&["status", "shop", "--format=json"])["state"], "exited", "its end was waited for");
    podctl.ok(&["rm", "shop"]);

    // a pod that ends although no one asked for it is a failure, for which systemd restarts its service
    let pod = podctl.sandbox(&["--name=shop"]);
    let mut keeper = podctl.command(&["keep", "shop"]).env("NOTIFY_SOCKET", &path).spawn()?;
    assert_eq!(told(), "READY=1");
    podctl.ok(&["stop", "--force", "shop"]);
    assert!(!keeper.wait()?.success());
    // starting the unit starts the pod, as at boot
    let mut keeper = podctl.command(&["keep", "shop"]).env("NOTIFY_SOCKET", &path).spawn()?;
    assert_eq!(told(), "READY=1");
    assert_eq!(podctl.json(&["status", "shop", "--format=json"])["state"], "running");
    kill(Pid::from_raw(i32::try_from(keeper.id())?), Signal::SIGTERM)?;
    assert!(keeper.wait()?.success());
    podctl.ok(&["rm", &pod.uuid]);
    Ok(())
}

fn a_pod_is_enabled_for_boot(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.sandbox(&["--name=shop"]);
    let unit = podctl.ok(&["generate", "systemd", "shop"]);
    for line in ["Type=notify", "Delegate=yes", "TimeoutStopSec=infinity", "WantedBy=multi-user.target"] {
        assert!(unit.lines().any(|l| l == line), "{line}: {unit}");
    }
    let runs = unit.lines().find(|line| line.starts_with("ExecStart=")).expect("ExecStart");
    assert!(runs.ends_with("keep shop") && runs.contains(&podctl.data.display().to_string()), "{runs}");
    if !Path::new("/run/systemd/system").is_dir() {
        for verb in ["enable", "disable"] {
            assert!(podctl.fails(&[verb, "shop"]).contains("PID 1 is not systemd"));
        }
        pod.end();
        return Ok(());
    }
    let systemctl = |words: &[&str]| run(Command::new("systemctl").args(words));
    assert!(podctl.ok(&["enable", "shop"]).contains("podctl-shop.service"));
    assert_eq!(systemctl(&["is-enabled", "podctl-shop"]).ok(), "enabled");
    systemctl(&["start", "podctl-shop"]).ok();
    assert_eq!(systemctl(&["is-active", "podctl-shop"]).ok(), "active");
    systemctl(&["stop", "podctl-shop"]).ok();
    assert_eq!(podctl.json(&["status", "shop", "--format=json"])["state"], "exited");
    // as at boot: the pod exists and does not run
    systemctl(&["start", "podctl-shop"]).ok();
    wait_for("the pod", 60, || (podctl.json(&["status", "shop", "--format=json"])["state"] == "running").then_some(()));
    systemctl(&["stop", "podctl-shop"]).ok();
    podctl.ok(&["disable", "shop"]);
    assert!(!Path::new("/etc/systemd/system/podctl-shop.service").exists());
    assert!(fs::read_dir("/etc/systemd/system/multi-user.target.wants").map_or(0, Iterator::count) == 0);
    podctl.ok(&["rm", "shop"]);
    Ok(())
}

//! The entrypoints, run by another host manager and killed.

use std::cell::RefCell;

use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::minihost::MiniPod;
use tests::process::wait_for;

use super::{A_FEW, Trial, sleepers};

tests::cases! {
    native add 120;
    native start 120;
    native stop 120;
    native rm 120;
}

const APP: [&str; 2] = ["--debug=false", "--app=a"];

/// Whether the app has this many processes.
#[track_caller]
fn wait_for_sleepers(pod: &MiniPod<'_>, wanted: usize) {
    wait_for("the app", 10, || (sleepers(pod.pid()) == wanted).then_some(()));
}

/// Kills an entrypoint at each point, then runs it again, as the contract requires.
fn crossing(t: &Context, verb: &str, before: impl Fn(&mut MiniPod<'_>), after: impl Fn(&mut MiniPod<'_>)) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&json!([]), &["--net=none"]);
    pod.stage("a", &["/probe", "sleep", "inf"], &json!([]), &json!({}));
    let uuid = format!("--uuid={}", pod.uuid);
    let words: Vec<&str> = APP.into_iter().chain((verb == "app/add").then_some(uuid.as_str())).collect();
    cross(&pod, "add");
    let shared = RefCell::new(pod);
    let trial = Trial { what: verb, follow: true, few: A_FEW / 2 };
    trial.run(&mut |_| before(&mut shared.borrow_mut()), &|| shared.borrow().crossing(verb, &words), &mut |_| {
        shared.borrow().cross(verb, &words).ok();
        after(&mut shared.borrow_mut());
    });
    let mut pod = shared.into_inner();
    pod.rm("a");
    let end = pod.stop(false, monitor);
    assert!(end.success(), "{end}");
    pod.collect(1);
    Ok(())
}

/// Runs an entrypoint for the app.
#[track_caller]
fn cross(pod: &MiniPod<'_>, verb: &str) {
    let uuid = format!("--uuid={}", pod.uuid);
    let words: Vec<&str> = APP.into_iter().chain((verb == "add").then_some(uuid.as_str())).collect();
    pod.cross(&format!("app/{verb}"), &words).ok();
}

fn add(t: &Context) -> Verdict {
    let after = |pod: &mut MiniPod<'_>| {
        pod.start_app("a").ok();
        wait_for_sleepers(pod, 1);
        cross(pod, "stop");
        wait_for_sleepers(pod, 0);
    };
    crossing(t, "app/add", |pod| cross(pod, "rm"), after)
}

fn start(t: &Context) -> Verdict {
    let before = |pod: &mut MiniPod<'_>| {
        cross(pod, "stop");
        wait_for_sleepers(pod, 0);
    };
    crossing(t, "app/start", before, |pod| wait_for_sleepers(pod, 1))
}

fn stop(t: &Context) -> Verdict {
    let before = |pod: &mut MiniPod<'_>| {
        pod.start_app("a").ok();
        wait_for_sleepers(pod, 1);
    };
    let after = |pod: &mut MiniPod<'_>| {
        wait_for_sleepers(pod, 0);
        assert_eq!(pod.state("a"), ("exited", Some(143)));
    };
    crossing(t, "app/stop", before, after)
}

fn rm(t: &Context) -> Verdict {
    let after = |pod: &mut MiniPod<'_>| {
        let env = pod.dir().join("stage1/rootfs/rkt/env");
        let units = pod.dir().join("stage1/rootfs/etc/systemd/system");
        let left: Vec<_> = [env, units]
            .iter()
            .flat_map(|dir| super::names(dir))
            .filter(|name| name.to_string_lossy().starts_with(".tmp") || name.to_string_lossy().contains("app-a"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    };
    crossing(t, "app/rm", |pod| cross(pod, "add"), after)
}

//! Many operations at once: an operation that loses a race does not fail.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{descendants, mountinfo, wait_for};

tests::cases! {
    native pods_come_and_go_under_everybodys_eyes 120;
    native a_pod_is_removed_by_eight_at_once 120;
    native eight_imports_of_one_image_and_of_eight 120;
    native eight_adds_to_one_pod 120;
    native eight_adds_of_one_name 120;
    native an_app_is_started_stopped_and_removed_at_once 240;
    native run_is_killed_while_it_boots 120;
}

const AT_ONCE: usize = 8;

/// Runs all of them at once; returns their results.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|nth| {
                scope.spawn({
                    let work = &work;
                    move || work(nth)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("a thread")).collect()
    })
}

/// The messages about a pod that does not exist (any more), or about an app.
fn is_gone(complaint: &str) -> bool {
    complaint.contains("there is no pod") || complaint.contains("has no app")
}

fn pods_come_and_go_under_everybodys_eyes(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    podctl.sandbox(&[]).end();
    let end = Instant::now() + Duration::from_secs(8);
    let wrong = at_once(AT_ONCE + 2, |nth| {
        let mut wrong = Vec::new();
        let mut rounds = 0;
        while Instant::now() < end {
            rounds += 1;
            let all = || -> BTreeSet<String> {
                let listed = podctl.json(&["list", "--format", "json"]);
                let listed = listed.as_array().cloned().unwrap_or_default();
                listed.iter().filter_map(|pod| pod["name"].as_str().map(str::to_owned)).collect()
            };
            match nth {
                // Two threads that make pods with an app that ends, and stop some of them.
                0 | 1 => {
                    let words = ["run", "--net=none", "probe", "--name=a", "--exec=/probe", "--", "exit", "0"];
                    wrong.extend(complaint(&podctl, &words, &[]));
                    wrong.extend(complaint(&podctl, &["prepare", "probe", "--name=a"], &[]));
                }
                2 | 3 => wrong.extend(complaint(&podctl, &["list"], &[])),
                4 | 5 => wrong.extend(complaint(&podctl, &["gc", "--grace-period=0s", "--expire-prepared=0s"], &[])),
                _ => {
                    for uuid in all() {
                        let verb = ["rm", "status", "app list"][(rounds + nth) % 3];
                        let words: Vec<&str> = verb.split(' ').chain([uuid.as_str()]).collect();
                        let fair = ["there is no pod", "it is running", "is being prepared"];
                        wrong.extend(complaint(&podctl, &words, &fair));
                    }
                }
            }
        }
        assert!(rounds > 0);
        wrong
    });
    let wrong: Vec<String> = wrong.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
    podctl.ok(&["gc", "--grace-period=0s", "--expire-prepared=0s"]);
    assert_eq!(podctl.json(&["list", "--format", "json"]).as_array().map(Vec::len), Some(0));
    Ok(())
}

/// What a command says on standard error, unless a race explains it.
fn complaint(podctl: &Podctl, words: &[&str], fair: &[&str]) -> Option<String> {
    let out = podctl.run(words);
    let fine = out.code == Some(0) && out.stderr.is_empty() || fair.iter().any(|fair| out.stderr.contains(fair));
    (!fine).then(|| out.to_string())
}

fn a_pod_is_removed_by_eight_at_once(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for _ in 0..4 {
        let pod = podctl.pod(&["--net=none"]);
        pod.add("a", &[], &["exit", "0"]);
        let uuid = pod.uuid.as_str();
        for verb in ["stop", "rm"] {
            for out in at_once(AT_ONCE, |nth| match (verb, nth % 3) {
                ("rm", 0) => podctl.run(&["gc", "--grace-period=0s"]),
                _ => podctl.run(&[verb, uuid]),
            }) {
                // A command that comes after the end of the pods finds no such pod.
                assert!(out.code == Some(0) || is_gone(&out.stderr), "{out}");
            }
        }
        podctl.fails(&["status", uuid]);
        assert!(!mountinfo("self").iter().any(|fields| fields[4].contains(uuid)), "something is still mounted");
    }
    Ok(())
}

fn eight_imports_of_one_image_and_of_eight(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let root = |name: &str| {
        let root = t.dir.join(name);
        fs::create_dir_all(root.join("bin")).expect("mkdir");
        fs::write(root.join("bin/app"), name.repeat(10_000)).expect("write");
        root.display().to_string()
    };
    let same = root("same");
    at_once(AT_ONCE, |_| podctl.ok(&["image", "import", &same, "--name", "example.com/same"]));
    let images = || podctl.json(&["image", "list", "--format", "json"]).as_array().map(Vec::len);
    assert_eq!(images(), Some(1));
    let others: Vec<String> = (0..AT_ONCE).map(|nth| root(&format!("other-{nth}"))).collect();
    at_once(AT_ONCE, |nth| {
        podctl.ok(&["image", "import", &others[nth], "--name", &format!("example.com/other-{nth}")]);
        // Meanwhile others list and remove it.
        podctl.ok(&["image", "verify"]);
        podctl.ok(&["image", "gc"]);
    });
    assert_eq!(images(), Some(1 + AT_ONCE));
    podctl.ok(&["image", "verify"]);
    let count = |name: &str| fs::read_dir(podctl.data.join(name)).map(Iterator::count).ok();
    assert_eq!((count("images"), count("trees"), count("tmp")), (Some(9), Some(9), Some(0)));
    Ok(())
}

fn eight_adds_to_one_pod(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--volume=shared,kind=empty"]);
    let names: Vec<String> = (0..AT_ONCE).map(|nth| format!("a{nth}")).collect();
    for _ in 0..2 {
        at_once(AT_ONCE, |nth| {
            pod.add(&names[nth], &["--mount=volume=shared,target=/shared"], &["sleep", "inf"]);
            podctl.ok(&["app", "list", &pod.uuid]);
            podctl.ok(&["status", &pod.uuid]);
        });
        assert_eq!(pod.manifest_apps().len(), AT_ONCE);
        at_once(AT_ONCE, |nth| pod.app("start", &names[nth], &[]).ok());
        at_once(AT_ONCE, |nth| pod.app("rm", &names[nth], &[]).ok());
        assert_eq!(pod.manifest_apps().len(), 0);
    }
    pod.end();
    Ok(())
}

fn eight_adds_of_one_name(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for _ in 0..4 {
        let outs = at_once(AT_ONCE, |_| pod.try_add("probe", "a", &[], &["sleep", "inf"]));
        assert_eq!(outs.iter().filter(|out| out.code == Some(0)).count(), 1, "one of them adds it");
        for out in outs.into_iter().filter(|out| out.code != Some(0)) {
            let complaint = out.complaint();
            assert!(complaint.contains("already has an app a"), "{complaint}");
        }
        pod.app("start", "a", &[]).ok();
        for out in at_once(AT_ONCE, |_| pod.app("rm", "a", &[])) {
            assert!(out.code == Some(0) || is_gone(&out.stderr), "{out}");
        }
        assert!(pod.manifest_apps().is_empty());
    }
    pod.end();
    Ok(())
}

fn an_app_is_started_stopped_and_removed_at_once(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let sleepers = |pod: &Pod<'_>| {
        descendants(pod.pid()).iter().filter(|p| p.words == "/probe sleep inf" && p.state != 'Z').count()
    };
    // A stop cancels a start that is under way, which then fails; an app that is gone can't be started.
    let fair = ["start app a", "has no app", "was not added"];
    for round in 0..6 {
        pod.add("a", &[], &["sleep", "inf"]);
        for out in at_once(AT_ONCE, |nth| pod.app(["start", "stop"][nth % 2], "a", &[])) {
            assert!(out.code == Some(0) || fair.iter().any(|fair| out.stderr.contains(fair)), "{out}");
        }
        // The reported state is the real one, whichever operation came last.
        wait_for("the true state", 10, || ((pod.state("a") == "running") == (sleepers(&pod) == 1)).then_some(()));
        let verbs = ["start", "stop", "rm", "restart"];
        for out in at_once(AT_ONCE, |nth| pod.app(verbs[(nth + round) % 4], "a", &[])) {
            assert!(out.code == Some(0) || fair.iter().any(|fair| out.stderr.contains(fair)), "{out}");
        }
        assert!(pod.manifest_apps().is_empty());
        wait_for("the app's end", 10, || (sleepers(&pod) == 0).then_some(()));
        let status = pod.dir().join("stage1/rootfs/rkt/status");
        assert_eq!(fs::read_dir(status)?.count(), 0, "markers are left of an app that is gone");
    }
    pod.end();
    Ok(())
}

/// The process that becomes the monitor, as soon as it exists.
fn monitor_of(podctl: &Child) -> Option<i32> {
    let parent = podctl.id();
    let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    children.split_whitespace().next()?.parse().ok()
}

fn run_is_killed_while_it_boots(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.sandbox(&[]).end();
    let mut hit = 0;
    for after in (0..120).step_by(6).chain(std::iter::repeat_n(0, 100)) {
        if after == 0 && hit > 0 {
            break;
        }
        let mut child =
            podctl.command(&["sandbox", "--net=none"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let monitor =
            wait_for("the monitor", 20, || monitor_of(&child).or_else(|| child.try_wait().expect("wait").map(|_| 0)));
        std::thread::sleep(Duration::from_millis(after));
        let killed = monitor != 0 && kill(Pid::from_raw(monitor), Signal::SIGKILL).is_ok();
        let out = child.wait_with_output()?;
        if out.status.success() {
            // The pod was ready before; on a loaded machine, before the test saw its monitor.
            let uuid = String::from_utf8_lossy(&out.stdout).trim().to_owned();
            if !killed {
                podctl.ok(&["stop", &uuid]);
            }
            wait_for("the pod to have ended", 60, || {
                podctl.ok(&["status", &uuid]).contains("state=exited").then_some(())
            });
            podctl.ok(&["rm", &uuid]);
        } else {
            hit += 1;
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(said.lines().count() == 1 && said.contains("did not come up"), "{said:?}");
        }
        assert_eq!(podctl.json(&["list", "--format", "json"]).as_array().map(Vec::len), Some(0));
    }
    println!("killed while it booted: {hit} times");
    assert!(hit > 0, "it was ready before each kill");
    Ok(())
}

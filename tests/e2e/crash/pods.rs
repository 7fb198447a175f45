//! Making, running, ending and removing pods.

use std::process::Command;

use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Podctl;
use tests::process::{Process, mountinfo, wait_for};

use super::{A_FEW, Trial, cgroups, names};

tests::cases! {
    native sandbox 120;
    native monitor 120;
    native pod_rm 120;
    native pod_gc 120;
    native prepare 120;
}

/// All pods.
fn uuids(podctl: &Podctl) -> Vec<String> {
    let all = podctl.json(&["list", "--format", "json"]);
    let all = all.as_array().expect("a list").iter();
    all.map(|pod| pod["name"].as_str().unwrap_or_default().to_owned()).collect()
}

/// Ends and removes every pod, and checks that nothing is left of any.
#[track_caller]
fn clear_pods(podctl: &Podctl, by_gc: bool, when: &str) {
    let pods = uuids(podctl);
    for uuid in &pods {
        podctl.ok(&["status", uuid]);
        podctl.ok(&["app", "list", uuid]);
        // A pod that was not running yet, or has just ended by itself.
        podctl.run(&["stop", "--force", uuid]);
    }
    wait_for(&format!("the pods to have ended ({when})"), 20, || {
        let all = podctl.json(&["list", "--format", "json"]);
        let busy = ["running", "preparing", "deleting"];
        let still = all.as_array().expect("a list").iter().filter(|pod| busy.iter().any(|word| pod["state"] == *word));
        (still.count() == 0).then_some(())
    });
    if by_gc {
        podctl.ok(&["gc", "--grace-period=0s", "--expire-prepared=0s"]);
    }
    for uuid in uuids(podctl) {
        // gc spares pods that are very young.
        let embryo = podctl.data.join("pods/embryo").join(&uuid).exists();
        assert!(!by_gc || embryo, "{when}: gc has left pod {uuid}");
        podctl.ok(&["rm", &uuid]);
    }
    no_trace(podctl, &pods, when);
}

/// Checks that nothing is left of these pods.
#[track_caller]
fn no_trace(podctl: &Podctl, pods: &[String], when: &str) {
    for uuid in pods {
        assert!(cgroups(uuid).is_empty(), "{when}: {:?}", cgroups(uuid));
        let mounted: Vec<_> = mountinfo("self").into_iter().filter(|fields| fields[4].contains(uuid)).collect();
        assert!(mounted.is_empty(), "{when}: {mounted:?}");
        let mentions = |words: &str| words.contains(uuid.as_str());
        wait_for(&format!("the processes of the pod to have ended ({when})"), 10, || {
            (!tests::process::all().iter().any(|p| p.state != 'Z' && mentions(&p.words))).then_some(())
        });
    }
    let left: Vec<_> =
        names(&podctl.data.join("pods")).into_iter().filter(|name| name.components().count() > 1).collect();
    assert!(left.is_empty(), "{when}: {left:?}");
}

fn sandbox(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.sandbox(&[]).end();
    let mut round = 0;
    let trial = Trial { what: "sandbox", follow: false, few: A_FEW };
    trial.run(&mut |_| {}, &|| podctl.command(&["sandbox", "--net=none"]), &mut |when| {
        round += 1;
        clear_pods(&podctl, round % 2 == 0, when);
    });
    Ok(())
}

fn monitor(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    podctl.sandbox(&[]).end();
    let mut round = 0;
    // Traces the monitor's own system calls until the app and the monitor have ended, but no processes that it forks.
    let run = || podctl.command(&["run", "--net=none", "probe", "--name=a", "--exec=/probe", "--", "exit", "0"]);
    let trial = Trial { what: "run, up to the end of the pod", follow: false, few: A_FEW };
    trial.run(&mut |_| {}, &run, &mut |when| {
        round += 1;
        // The processes that the killed command leaves behind remove a pod that did not start.
        let data = podctl.data.display().to_string();
        let is_left = |p: &Process| p.words.contains(&data) && p.words.contains(" run --net=none probe");
        wait_for(&format!("what the command has left behind ({when})"), 20, || {
            (!tests::process::all().iter().any(|p| p.state != 'Z' && is_left(p))).then_some(())
        });
        for uuid in uuids(&podctl) {
            wait_for(&format!("the pod's end ({when})"), 20, || {
                (!podctl.ok(&["status", &uuid]).contains("state=running")).then_some(())
            });
            let status = podctl.json(&["status", &uuid, "--format=json"]);
            if status["state"] == "exited" {
                assert_eq!(status["apps"][0]["state"], "exited", "{when}: {status}");
            }
        }
        clear_pods(&podctl, round % 2 == 0, when);
    });
    Ok(())
}

/// A pod whose app has ended; its monitor has ended as well.
fn ended_pod(podctl: &Podctl) -> String {
    let pod = podctl.pod(&["--net=none"]);
    pod.add("a", &[], &["exit", "0"]);
    podctl.ok(&["stop", "--force", &pod.uuid]);
    pod.uuid
}

fn removal(t: &Context, what: &str, command: &dyn Fn(&Podctl, &str) -> Command, by_gc: bool) -> Verdict {
    let podctl = t.podctl();
    let uuid = std::cell::RefCell::new(String::new());
    let before = &mut |_| *uuid.borrow_mut() = ended_pod(&podctl);
    let trial = Trial { what, follow: true, few: A_FEW };
    trial.run(before, &|| command(&podctl, &uuid.borrow()), &mut |when| {
        let gone = vec![uuid.borrow().clone()];
        clear_pods(&podctl, by_gc, when);
        no_trace(&podctl, &gone, when);
    });
    Ok(())
}

fn pod_rm(t: &Context) -> Verdict {
    removal(t, "rm", &|podctl, uuid| podctl.command(&["rm", uuid]), false)
}

fn pod_gc(t: &Context) -> Verdict {
    removal(t, "gc", &|podctl, _| podctl.command(&["gc", "--grace-period=0s"]), true)
}

fn prepare(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    podctl.sandbox(&[]).end();
    let words = ["prepare", "--name=web", "--net=none", "probe", "--name=a", "--exec=/probe", "--", "exit", "7"];
    let trial = Trial { what: "prepare", follow: true, few: A_FEW };
    trial.run(&mut |_| {}, &|| podctl.command(&words), &mut |when| {
        // A prepared pod is complete and has its name.
        let mut prepared = 0;
        for uuid in uuids(&podctl) {
            if podctl.ok(&["status", &uuid]).contains("state=prepared") {
                assert!(podctl.ok(&["status", "web"]).contains(&uuid), "{when}");
                assert_eq!(podctl.run(&["run-prepared", "web"]).code, Some(7), "{when}");
                prepared += 1;
            }
        }
        // A pod that was not prepared never becomes one: another pod can have its name at once.
        if prepared == 0 {
            wait_for(&format!("the name to be free ({when})"), 20, || {
                (podctl.run(&words).code == Some(0)).then_some(())
            });
        }
        clear_pods(&podctl, true, when);
    });
    Ok(())
}

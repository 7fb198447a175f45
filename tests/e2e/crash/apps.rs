//! The operations on apps, each killed at many points, on one pod.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Stdio;

use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, pod_file};
use tests::process::{wait_for, wait_for_waiter};

use super::{A_FEW, Traces, Trial, assert_same, sleepers};

tests::cases! {
    native app_add 120;
    native app_start 120;
    native app_stop 120;
    native app_rm 120;
    native app_replace 180;
    native up_of_a_file 180;
    native app_export 120;
}

/// The reported state becomes true at last: what started before the kill may still be at work.
#[track_caller]
fn must_be_honest(pod: &Pod<'_>, when: &str) {
    pod.podctl.ok(&["list"]);
    pod.podctl.ok(&["app", "list", &pod.uuid]);
    wait_for(&format!("the true state ({when})"), 10, || {
        ((pod.state("a") == "running") == (sleepers(pod.pid()) == 1)).then_some(())
    });
}

/// The app was started: soon its processes are only the command.
#[track_caller]
fn must_sleep(pod: &Pod<'_>, when: &str) {
    assert_eq!(pod.state("a"), "running", "{when}");
    wait_for(&format!("the app ({when})"), 10, || (sleepers(pod.pid()) == 1).then_some(()));
}

const SLEEPS: [&str; 2] = ["sleep", "inf"];

fn app_add(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--volume=shared,kind=empty"]);
    let options = ["--mount=volume=shared,target=/shared", "--memory=64M"];
    let add = || {
        let mut args = vec!["app", "add", &pod.uuid, "probe", "--name", "a", "--mount=volume=out,target=/out"];
        args.extend(options);
        args.extend(["--exec", "/probe", "--", "sleep", "inf"]);
        podctl.command(&args)
    };
    let try_add = || pod.try_add("probe", "a", &options, &SLEEPS);
    try_add().ok();
    pod.app("start", "a", &[]).ok();
    pod.app("rm", "a", &[]).ok();
    let traces = Traces::of(&pod);
    let mut round = 0;
    let volume = pod.dir().join("sharedVolumes/shared");
    // So that the next point begins with a new app.
    let before = &mut |_| fs::remove_dir_all(&volume).expect("rm the volume");
    let trial = Trial { what: "app add", follow: true, few: A_FEW };
    trial.run(before, &add, &mut |when| {
        round += 1;
        podctl.ok(&["list"]);
        podctl.ok(&["app", "list", &pod.uuid]);
        if round % 3 == 0 {
            // The app was removed as if it had never existed.
            pod.app("rm", "a", &[]);
        } else if try_add().code != Some(0) {
            // The app is complete.
            assert_eq!(pod.manifest_apps(), ["a"], "{when}");
        }
        if round % 3 != 0 {
            pod.app("start", "a", &[]).ok();
            must_sleep(&pod, when);
            assert_eq!(pod.enter("a", &["/probe", "print", "x"]).ok(), "x");
            pod.app("rm", "a", &[]).ok();
        }
        assert!(pod.manifest_apps().is_empty(), "{when}");
        assert_eq!(sleepers(pod.pid()), 0, "{when}");
        fs::create_dir_all(&volume).expect("mkdir");
        Traces::of(&pod).must_be(&traces, when);
    });
    pod.end();
    Ok(())
}

fn app_start(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &[], &SLEEPS);
    pod.app("start", "a", &[]).ok();
    let traces = Traces::of(&pod);
    // One app that was never started, and one that has ended.
    let before = &mut |at: usize| {
        pod.app("stop", "a", &[]).ok();
        if at.is_multiple_of(2) {
            pod.app("rm", "a", &[]).ok();
            pod.add("a", &[], &SLEEPS);
        }
    };
    let trial = Trial { what: "app start", follow: true, few: A_FEW };
    trial.run(before, &|| podctl.command(&["app", "start", &pod.uuid, "a"]), &mut |when| {
        must_be_honest(&pod, when);
        pod.app("start", "a", &[]).ok();
        must_sleep(&pod, when);
        assert_same(&Traces::of(&pod).inside, &traces.inside, when);
        pod.app("stop", "a", &[]).ok();
        assert_eq!((pod.status("a")["exit_code"].as_i64(), sleepers(pod.pid())), (Some(143), 0), "{when}");
    });
    pod.app("rm", "a", &[]).ok();
    pod.end();
    Ok(())
}

fn app_stop(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &[], &SLEEPS);
    let traces = Traces::of(&pod);
    let before = &mut |_| {
        pod.app("start", "a", &[]).ok();
        must_sleep(&pod, "before");
    };
    // A stop timeout longer than the app declares takes a file in the pod.
    let stop = || podctl.command(&["app", "stop", &pod.uuid, "a", "--timeout", "30"]);
    let trial = Trial { what: "app stop", follow: true, few: A_FEW };
    trial.run(before, &stop, &mut |when| {
        must_be_honest(&pod, when);
        pod.app("stop", "a", &[]).ok();
        let status = pod.status("a");
        assert_eq!((status["state"].as_str(), status["exit_code"].as_i64()), (Some("exited"), Some(143)), "{when}");
        assert_eq!(sleepers(pod.pid()), 0, "{when}");
        pod.app("start", "a", &[]).ok();
        pod.app("stop", "a", &[]).ok();
        assert_same(&Traces::of(&pod).inside, &traces.inside, when);
    });
    pod.app("rm", "a", &[]).ok();
    pod.end();
    Ok(())
}

fn app_rm(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.run_app("a", &[], &["exit", "0"]);
    let traces = Traces::of(&pod);
    let before = &mut |at: usize| {
        pod.add("a", &[], &SLEEPS);
        if at.is_multiple_of(2) {
            pod.app("start", "a", &[]).ok();
        }
    };
    let trial = Trial { what: "app rm", follow: true, few: A_FEW };
    trial.run(before, &|| podctl.command(&["app", "rm", &pod.uuid, "a"]), &mut |when| {
        podctl.ok(&["list"]);
        podctl.ok(&["app", "list", &pod.uuid]);
        let again = pod.app("rm", "a", &[]);
        if again.code != Some(0) {
            again.complaint();
        }
        assert!(pod.manifest_apps().is_empty(), "{when}");
        assert_eq!(sleepers(pod.pid()), 0, "{when}");
        Traces::of(&pod).must_be(&traces, when);
    });
    pod.end();
    Ok(())
}

/// The old app with all that it had written, or the new one, and nothing of the other.
fn app_replace(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &["--env=WHICH=old"], &SLEEPS);
    pod.app("start", "a", &[]).ok();
    pod.app("rm", "a", &[]).ok();
    let add = || {
        pod.add("a", &["--env=WHICH=old"], &SLEEPS);
        pod.app("start", "a", &[]).ok();
        pod.enter("a", &["/probe", "write", "/own", "kept"]).ok();
    };
    add();
    let traces = Traces::of(&pod);
    let before = &mut |_| {
        if pod.manifest_apps() == ["a"] {
            pod.app("rm", "a", &[]).ok();
        }
        add();
    };
    let replace = || podctl.command(&["app", "replace", &pod.uuid, "a", "--env=WHICH=new"]);
    let mut seen = [0, 0];
    let trial = Trial { what: "app replace", follow: true, few: A_FEW };
    trial.run(before, &replace, &mut |when| {
        podctl.ok(&["list"]);
        // whatever the next command is
        pod.app("start", "a", &[]).ok();
        must_sleep(&pod, when);
        let report: serde_json::Value =
            serde_json::from_str(&pod.enter("a", &["/probe", "report"]).ok()).expect("report");
        let own = pod.enter("a", &["/probe", "cat", "/own"]);
        match report["env"]["WHICH"].as_str() {
            Some("old") => {
                seen[0] += 1;
                assert_eq!((own.code, own.stdout.trim()), (Some(0), "kept"), "{when}: {}", own.stderr);
            }
            Some("new") => {
                seen[1] += 1;
                assert_ne!(own.code, Some(0), "{when}: a new root");
            }
            other => panic!("{when}: {other:?}"),
        }
        Traces::of(&pod).files.iter().for_each(|file| {
            let name = file.to_string_lossy().into_owned();
            assert!(!name.contains("replacing") && !name.starts_with("set-aside/"), "{when}: {name} is left");
        });
        assert_same(&Traces::of(&pod).inside, &traces.inside, when);
    });
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
    pod.end();
    Ok(())
}

/// A second `up` finishes what the killed one has begun: both apps run.
fn up_of_a_file(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let file = |apps: &[&str]| {
        let app = |name: &&str| format!("  - {{name: {name}, image: probe, command: [/probe, sleep, inf]}}\n");
        let apps: String = apps.iter().map(app).collect();
        let path = t.dir.join("pod.yaml");
        fs::write(&path, pod_file("shop", &format!("  containers:\n{apps}"))).expect("write the file");
        path.display().to_string()
    };
    podctl.ok(&["up", "-f", &file(&["a"])]);
    let pod = podctl.pod_named("shop");
    let trial = Trial { what: "up", follow: false, few: A_FEW };
    let before = &mut |_| {
        podctl.ok(&["up", "-f", &file(&["a"])]);
        assert_eq!(pod.manifest_apps(), ["a"]);
    };
    let both = || podctl.command(&["up", "-f", &file(&["a", "b", "c"])]);
    trial.run(before, &both, &mut |when| {
        podctl.ok(&["up", "-f", &file(&["a", "b", "c"])]);
        assert_eq!(["a", "b", "c"].map(|app| pod.state(app)), ["running"; 3], "{when}");
    });
    pod.end();
    Ok(())
}

/// An app that a killed `export` has frozen goes on with the next operation on an app of the pod.
fn app_export(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    pod.add("a", &[], &SLEEPS);
    pod.app("start", "a", &[]).ok();
    let archive = t.dir.join("a.tar").display().to_string();
    let trial = Trial { what: "export", follow: false, few: A_FEW };
    let export = || podctl.command(&["export", &pod.uuid, "a", "--overwrite", "-o", &archive]);
    trial.run(&mut |_| {}, &export, &mut |when| {
        pod.app("start", "a", &[]).ok();
        let is_paused = podctl.json(&["inspect", &pod.uuid, "a"])["paused"].clone();
        assert_eq!(is_paused, false, "{when}");
    });
    // What somebody has paused stays so.
    podctl.ok(&["pause", &pod.uuid, "a"]);
    podctl.ok(&["export", &pod.uuid, "a", "--overwrite", "-o", &archive]);
    assert_eq!(podctl.json(&["inspect", &pod.uuid, "a"])["paused"], true);
    // also when an export was killed before it froze the app
    let note = pod.dir().join("snapshot.a");
    fs::write(&note, "")?;
    fs::set_permissions(&note, Permissions::from_mode(0o600))?;
    pod.app("start", "a", &[]);
    assert_eq!(podctl.json(&["inspect", &pod.uuid, "a"])["paused"], true);
    assert!(!note.exists());
    podctl.ok(&["unpause", &pod.uuid, "a"]);

    // A second export waits for the first, and freezes the app itself when that is killed.
    let mut first = podctl.command(&["export", &pod.uuid, "a"]).stdout(Stdio::piped()).spawn()?;
    let is_frozen = || fs::metadata(&note).is_ok_and(|stat| stat.mode() & 0o200 == 0).then_some(());
    wait_for("the first export", 20, is_frozen);
    let mut second = podctl.command(&["export", &pod.uuid, "a", "--overwrite", "-o", &archive]).spawn()?;
    wait_for_waiter(&note);
    first.kill()?;
    first.wait()?;
    assert!(second.wait()?.success());
    assert_eq!(podctl.json(&["inspect", &pod.uuid, "a"])["paused"], false);
    assert!(!note.exists());
    // A pause during an export lasts after it.
    let mut export = podctl.command(&["export", &pod.uuid, "a"]).stdout(Stdio::piped()).spawn()?;
    wait_for("the export", 20, is_frozen);
    let mut pause = podctl.command(&["pause", &pod.uuid, "a"]).spawn()?;
    wait_for_waiter(&note);
    export.kill()?;
    export.wait()?;
    assert!(pause.wait()?.success());
    assert_eq!(podctl.json(&["inspect", &pod.uuid, "a"])["paused"], true);
    podctl.ok(&["unpause", &pod.uuid, "a"]);
    let names = fs::read_dir(&t.dir)?.map(|entry| entry.expect("entry").file_name());
    let rests: Vec<_> = names.filter(|name| name.to_string_lossy().starts_with(".podctl-")).collect();
    assert!(rests.is_empty(), "beside the archive: {rests:?}");
    pod.end();
    Ok(())
}

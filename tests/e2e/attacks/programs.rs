//! Programs of the host that a pod can see while they cross: CVE-2019-5736.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::wait_for;

use super::{lines, run_attacker};

tests::cases! {
    both no_entrypoint_is_overwritten 120;
    native the_monitor_is_not_overwritten 120;
}

/// All capabilities that an app may be given by name; CAP_SYS_PTRACE in particular opens the programs of others.
const CAPABILITIES: &str = "--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH,CAP_FOWNER,CAP_CHOWN,\
                            CAP_SETUID,CAP_SETGID,CAP_MKNOD,CAP_SYS_CHROOT";

/// The files of the stage1 that the host executes, with their content.
fn programs(podctl: &Podctl) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for tree in fs::read_dir(podctl.data.join("trees")).expect("trees").flatten() {
        let bin = tree.path().join("rootfs/opt/stage1/bin");
        for file in fs::read_dir(bin).into_iter().flatten().flatten() {
            found.insert(file.path(), fs::read(file.path()).expect("an entrypoint"));
        }
    }
    assert!(found.len() > 10, "{:?}", found.keys());
    found
}

#[track_caller]
fn assert_unchanged(before: &BTreeMap<PathBuf, Vec<u8>>, podctl: &Podctl, log: &Path) {
    for (path, bytes) in programs(podctl) {
        assert!(before[&path] == bytes, "{path:?} was overwritten: {:?}", lines(log));
    }
}

/// Whether the attacker had the program of this name open, through a read-only mount.
#[track_caller]
fn is_seen(log: &Path, name: &str) -> bool {
    let said = lines(log);
    let is = |what: String| said.contains(&what);
    assert!(!is(format!("wrote {name}")), "{name} was overwritten: {said:?}");
    assert!(!is(format!("opened {name} writable")), "{name} can be overwritten: {said:?}");
    is(format!("opened {name} read-only"))
}

/// Repeats it until the attacker has seen a process of this name.
#[track_caller]
fn until_seen(log: &Path, name: &str, mut verb: impl FnMut()) {
    for _ in 0..40 {
        verb();
        if is_seen(log, name) {
            return;
        }
    }
    panic!("{name} was never seen: {:?}", lines(log));
}

/// Without the call of `hold_program_read_only` the attacker was seen to overwrite app-start, which the next start of an
/// app then could not execute.
fn no_entrypoint_is_overwritten(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let log = podctl.out().join("log");
    pod.add("attacker", &[CAPABILITIES], &["hijack", "/out/log"]);
    pod.app("start", "attacker", &[]).ok();
    wait_for("the attacker", 10, || lines(&log).contains(&"ready".to_owned()).then_some(()));
    let before = programs(&podctl);

    pod.add("two", &["--stdout=stream"], &["sleep", "inf"]);
    let start = |pod: &Pod<'_>| pod.app("start", "two", &[]).ok();
    until_seen(&log, "app-start", || drop(start(&pod)));
    until_seen(&log, "enter", || drop(pod.enter("two", &["/probe", "print", "x"]).ok()));
    // The monitor does not become a process of the pod; only its children join the other namespaces.
    podctl.ok(&["attach", &pod.uuid, "--app", "two", "--mode", "list"]);
    until_seen(&log, "app-stop", || {
        pod.app("stop", "two", &[]).ok();
        start(&pod);
    });
    until_seen(&log, "app-rm", || {
        pod.app("stop", "two", &[]).ok();
        pod.app("rm", "two", &[]).ok();
        pod.add("two", &[], &["sleep", "inf"]);
    });
    assert_unchanged(&before, &podctl, &log);
    fs::write(podctl.out().join("log.stop"), "")?;
    wait_for("the attacker's end", 10, || (pod.state("attacker") == "exited").then_some(()));
    assert_unchanged(&before, &podctl, &log);
    pod.end();
    Ok(())
}

/// It starts the apps of an immutable pod itself, one after another. It also runs as long as the pod, so that a write
/// would have to wait for its end ("Text file busy"); that is no defence, as the program may be another pod's.
/// Seen to fail without the call of `hold_program_read_only`: the attacker had `run` open through a writable mount.
fn the_monitor_is_not_overwritten(t: &Context) -> Verdict {
    let podctl = t.podctl();
    // Many apps, so that one starts while the first one looks.
    let others = ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9", "a10", "a11"];
    let (mut child, log) = run_attacker(&podctl, CAPABILITIES, &["hijack", "/out/log"], &others)?;
    wait_for("the monitor to be seen", 30, || is_seen(&log, "run").then_some(()));
    fs::write(log.with_extension("stop"), "")?;
    assert!(child.wait()?.success());
    podctl.ok(&["gc", "--grace-period=0s"]);
    Ok(())
}

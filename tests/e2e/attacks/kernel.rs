//! Attacks on the host's kernel through its files: CVE-2022-0492, and redirecting runc's masks, consoles and its own
//! writes to /proc: CVE-2025-31133, -52565 and -52881.

use std::fs;
use std::os::unix::fs::symlink;

use tests::Verdict;
use tests::harness::Context;
use tests::podctl::Pod;
use tests::process::wait_for;

tests::cases! {
    native no_release_agent_can_be_reached;
    native nothing_is_masked_with_a_link 120;
    native nothing_is_written_through_an_apps_proc;
}

fn ways(pod: &Pod<'_>, app: &str, options: &[&str]) -> String {
    pod.run_app(app, options, &["release-agent", &format!("/out/{app}")]);
    fs::read_to_string(pod.podctl.out().join(app)).expect("the ways")
}

fn no_release_agent_can_be_reached(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let admin = "--caps-retain=CAP_SYS_ADMIN,CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_SETUID,CAP_SETGID";
    for options in [&["--net=none"][..], &["--net=none", "--private-users"]] {
        let pod = podctl.pod(options);
        assert_eq!(ways(&pod, "plain", &[]), "", "{options:?}");
        // Without a filter the app may mount in a user namespace of its own; writing there needs more.
        let is_stopped = |found: &str| !found.contains("wrote") && !found.contains("opened");
        for (app, user) in [("unfiltered", "0"), ("user", "1000")] {
            let found = ways(&pod, app, &["--disable-seccomp", "--user", user, "--group", user]);
            assert!(is_stopped(&found), "{options:?}, {app}: {found}");
        }
        let found = ways(&pod, "admin", &[admin, "--disable-seccomp"]);
        if options.contains(&"--private-users") {
            assert!(is_stopped(&found), "{found}");
        } else {
            // This capability without a user namespace is the host's: it shows the attack when nothing stops it.
            assert!(found.contains("mounted") || found.contains("wrote"), "the attack does nothing: {found}");
        }
        pod.end();
    }
    Ok(())
}

fn nothing_is_masked_with_a_link(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let out = podctl.out();
    let pod = podctl.pod(&["--net=none"]);
    let capabilities = "--caps-retain=CAP_SYS_PTRACE,CAP_DAC_OVERRIDE,CAP_DAC_READ_SEARCH,CAP_FOWNER";
    pod.add("attacker", &[capabilities], &["plant", "/proc/sys/kernel/core_pattern", "/out/stop"]);
    pod.app("start", "attacker", &[]).ok();
    wait_for("the first link", 10, || out.join("stop.planted").exists().then_some(()));
    let before = fs::read_to_string("/proc/sys/kernel/core_pattern")?;
    let (mut ran, mut n) = (0, 0);
    // On a busy machine nearly all are refused: it goes on until one has run.
    while n < 10 || (ran == 0 && n < 100) {
        n += 1;
        let app = format!("app-{n}");
        let file = format!("/out/{app}");
        let tries = ["writable", &file, "/proc", "/sys", "+", "append", "/dev/null", "|/escaped"];
        // An image with a link in the place of a mask or of its console is refused as well.
        if pod.try_add("probe", &app, &[], &tries).code == Some(0) {
            if pod.app("start", &app, &[]).code == Some(0) {
                wait_for("the end", 20, || (pod.state(&app) == "exited").then_some(()));
            }
            pod.app("rm", &app, &[]).ok();
        }
        if let Ok(found) = fs::read_to_string(out.join(&app)) {
            ran += 1;
            let global = found.lines().find(|path| path.starts_with("/proc/sys/kernel") || path.starts_with("/sys/"));
            assert_eq!(global, None, "{app}: {found}");
        }
    }
    fs::write(out.join("stop"), "")?;
    wait_for("the attacker's end", 10, || (pod.state("attacker") == "exited").then_some(()));
    assert!(ran > 0, "no app has run");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern")?, before);
    pod.end();
    Ok(())
}

/// A volume covers /proc, and redirects writes for a process to a file of the app.
fn nothing_is_written_through_an_apps_proc(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let out = podctl.out();
    let fake = t.dir.join("fake");
    for dir in ["self/attr", "thread-self/attr", "self/fd", "sys/net/ipv4", "sys/kernel"] {
        fs::create_dir_all(fake.join(dir))?;
    }
    let places = [
        "self/attr/exec",
        "self/attr/current",
        "thread-self/attr/exec",
        "self/oom_score_adj",
        "self/uid_map",
        "self/gid_map",
        "self/setgroups",
        "self/loginuid",
        "sys/net/ipv4/ping_group_range",
        "sys/kernel/hostname",
    ];
    for place in places {
        symlink("/out/target", fake.join(place))?;
    }
    let volume = format!("--volume=fake,kind=host,source={}", fake.display());
    let pod = podctl.pod(&["--net=none", &volume]);
    fs::write(out.join("target"), "untouched")?;
    let options = ["--mount=volume=fake,target=/proc", "--oom-score-adj=300", "--stdout=tty"];
    pod.add("one", &options, &["write", "/out/up", "", "+", "sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    wait_for("the app", 10, || out.join("up").exists().then_some(()));
    assert_eq!(pod.enter("one", &["/probe", "print", "entered"]).ok(), "entered");
    pod.app("stop", "one", &[]).ok();
    assert_eq!(fs::read_to_string(out.join("target"))?, "untouched");
    pod.end();
    Ok(())
}

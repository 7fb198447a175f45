//! Health checks of apps, the reaction to unhealthy ones, and apps that wait for others.

#![allow(clippy::zombie_processes, reason = "the warden of a failed test reaps what it has left")]

use std::fs;
use std::process::Stdio;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::oci::OciImage;
use tests::podctl::{Pod, Podctl};
use tests::process::{descendants, wait_for};

tests::cases! {
    both checks_and_what_is_told_of_them 120;
    both apps_wait_for_others 120;
    native an_images_own_check_counts;
    native requests_need_no_program_of_the_image;
    native a_paused_app_is_not_checked;
}

/// A health check with the probe.
fn check(words: &[&str]) -> String {
    let words: Vec<&str> = ["/probe"].iter().chain(words).copied().collect();
    format!("--health-cmd={}", json!(words))
}

#[track_caller]
fn until(podctl: &Podctl, pod: &Pod<'_>, app: &str, words: &str) -> String {
    wait_for(&format!("{app}: {words}"), 40, || {
        let text = podctl.ok(&["status", &pod.uuid]);
        text.lines().find(|line| line.starts_with(&format!("{app} ")) && line.contains(words)).map(str::to_owned)
    })
}

fn checks_and_what_is_told_of_them(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    let often = ["--health-interval=200ms", "--health-retries=2"];
    let add = |app: &str, check: &str, more: &[&str], actions: &[&str]| {
        pod.add(app, &[&[check], &often[..], more].concat(), actions);
        pod.app("start", app, &[]).ok();
    };
    let sleep = ["report", "/out/app.json", "+", "sleep", "inf"];
    // The check runs inside the app's confinement, as its user and in its cgroup.
    let who = ["--user=web", "--group=extra", "--supplementary-gid=77", "--memory=64Mi", "--env=COLOUR=green"];
    add("well", &check(&["report", "/out/check.json", "+", "cat", "/out/wanted"]), &who, &sleep);
    until(&podctl, &pod, "well", "running (unhealthy 2x: ");
    let line = podctl.fails(&["wait", "--healthy", "--timeout=100ms", "web"]);
    assert!(line.contains("timed out"), "{line}");
    assert!(podctl.ok(&["list"]).contains("running (1 unhealthy)"));
    fs::write(podctl.out().join("wanted"), "all is well\n")?;
    podctl.ok(&["wait", "--healthy", "--timeout=30s", "web"]);
    let health = &pod.status("well")["health"];
    assert_eq!((&health["status"], &health["output"]), (&json!("healthy"), &json!("all is well")), "{health}");
    let (app, seen) = (pod.read("app"), pod.read("check"));
    for key in ["ids", "capabilities", "seccomp", "no_new_privs", "cgroup", "namespaces", "root"] {
        assert_eq!(seen[key], app[key], "{key}");
    }
    assert_eq!(seen["env"]["COLOUR"], "green");
    let fds: Vec<&String> = seen["fds"].as_object().ok_or("no fds")?.keys().collect();
    assert_eq!(fds, ["0", "1", "2"]);
    // A check that times out has failed, and its process group is killed.
    let forks = check(&["fork", "sleep", "4711", "+", "sleep", "4712"]);
    add("slow", &forks, &["--health-timeout=200ms"], &["sleep", "inf"]);
    until(&podctl, &pod, "slow", "unhealthy 2x: check timed out");
    wait_for("at most the process of one check", 20, || {
        let left = descendants(pod.pid()).into_iter().filter(|process| process.words.contains("sleep 4711")).count();
        (left < 2).then_some(())
    });
    // A failure in the start period does not count.
    add("young", &check(&["exit", "1"]), &["--health-start-period=1h"], &["sleep", "inf"]);
    wait_for("a check that does not count", 20, || (pod.status("young")["health"]["exit_code"] == 1).then_some(()));
    assert!(until(&podctl, &pod, "young", "running (starting)").contains("running"));
    // The configured action is taken.
    let count = ["append", "/out/starts", "x", "+", "sleep", "inf"];
    add("again", &check(&["exit", "3"]), &["--health-on-failure=restart"], &count);
    until(&podctl, &pod, "again", "restarted 1x, last: health check failed, ");
    let last = &pod.status("again")["last_end"];
    assert!(last["unhealthy"] == true && last["exit_signal"] == "SIGTERM", "{last}");
    let text = podctl.ok(&["app", "status", "web", "again"]);
    assert!(text.contains("\nlast_exit_signal=SIGTERM\n") && text.contains("\nlast_unhealthy=true"), "{text}");
    wait_for("the second start", 20, || {
        (fs::read_to_string(podctl.out().join("starts")).ok()?.lines().count() > 1).then_some(())
    });
    add("stops", &check(&["exit", "3"]), &["--health-on-failure=stop"], &["sleep", "inf"]);
    until(&podctl, &pod, "stops", "exited (health check failed)");
    let events = podctl.ok(&["events", "web", "stops"]);
    assert!(events.lines().any(|line| line.ends_with("exited (SIGTERM: health check failed)")), "{events}");
    // A crash loop and an OOM kill next to it: all have different statuses.
    pod.add("loop", &["--restart=always"], &["exit", "1"]);
    let _ = pod.app("start", "loop", &[]);
    until(&podctl, &pod, "loop", "restarting (");
    if t.has_controllers() {
        pod.add("big", &["--memory=32Mi"], &["alloc", "100000000"]);
        let _ = pod.app("start", "big", &[]);
        until(&podctl, &pod, "big", "exited (out of memory)");
    }
    // A stop ends the checks, and a new start begins again.
    for app in ["slow", "again", "loop", "stops", "young"] {
        pod.app("stop", app, &[]).ok();
        pod.app("rm", app, &[]).ok();
    }
    pod.app("stop", "well", &[]).ok();
    assert!(pod.status("well")["health"].is_null());
    pod.app("start", "well", &[]).ok();
    until(&podctl, &pod, "well", "running (healthy)");
    pod.end();
    Ok(())
}

fn apps_wait_for_others(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let out = podctl.out();
    fs::create_dir_all(&out)?;
    let volume = format!("--volume=out,kind=host,source={}", out.display());
    // In an order in which no app could start at once: each one records that it has started. An app that did not wait
    // would be ahead of what takes its time: init a second, the first check of db another one.
    let note = |word: &'static str| ["append", "/out/order", word];
    let app = |name: &str, options: &[&str], actions: &[&str]| -> Vec<String> {
        let words = [&["probe", "--exec=/probe", "--mount=volume=out,target=/out"][..], options].concat();
        let name = format!("--name={name}");
        words.iter().copied().chain([name.as_str(), "--"]).chain(actions.iter().copied()).map(str::to_owned).collect()
    };
    let healthy = check(&["cat", "/out/wanted", "+", "append", "/out/order", "well"]);
    let apps = [
        app("web", &["--after=db:healthy,init:exited"], &[&note("web")[..], &["+", "orderly", "0"]].concat()),
        app(
            "init",
            &["--after=db:started"],
            &[&["sleep", "1", "+"][..], &note("init"), &["+", "write", "/out/wanted", "x"]].concat(),
        ),
        app("db", &[&healthy, "--health-interval=2s"], &[&note("db")[..], &["+", "sleep", "inf"]].concat()),
    ];
    let mut args: Vec<String> = ["prepare", "--net=none", "--name=web", &volume].map(str::to_owned).to_vec();
    args.extend(apps.join(&"---".to_owned()));
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let uuid = podctl.ok(&args);
    let mut run = podctl.command(&["run-prepared", &uuid]).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let order = || fs::read_to_string(out.join("order")).unwrap_or_default();
    wait_for("all apps", 40, || order().contains("web").then_some(()));
    let order: Vec<String> = order().lines().map(str::to_owned).collect();
    let first: Vec<&str> = order.iter().take_while(|line| *line != "web").map(String::as_str).collect();
    assert!(
        first.len() > 2 && first[..2] == ["db", "init"] && first[2..].iter().all(|line| *line == "well"),
        "{order:?}"
    );
    podctl.ok(&["wait", "--healthy", "--timeout=30s", "web"]);
    podctl.ok(&["stop", "web"]);
    assert!(run.wait()?.success());
    podctl.ok(&["rm", "web"]);
    // A condition that can't be met is reported, and no app waits for ever.
    let line = podctl.fails(&["run", "--net=none", "probe", "--after=b", "---", "probe", "--name=b", "--after=probe"]);
    assert!(line.contains("wait for each other"), "{line}");
    let pod = podctl.pod(&["--net=none"]);
    pod.add("init", &[], &["exit", "4"]);
    pod.add("web", &["--after=init:exited"], &["sleep", "inf"]);
    pod.add("db", &["--after=web2:healthy"], &["sleep", "inf"]);
    pod.add("web2", &[], &["sleep", "inf"]);
    pod.app("start", "init", &[]).ok();
    assert_eq!(pod.exit_code("init"), 4);
    let line = pod.app("start", "web", &[]).complaint();
    assert!(line.contains("init") && line.contains("ended with 4"), "{line}");
    pod.app("start", "web2", &[]).ok();
    let line = pod.app("start", "db", &[]).complaint();
    assert!(line.contains("web2") && line.contains("no health check"), "{line}");
    let status: Value = pod.status("db");
    assert_eq!((&status["state"], &status["exit_code"]), (&json!("exited"), &json!(254)), "{status}");
    pod.end();
    Ok(())
}

/// HEALTHCHECK of an image.
fn an_images_own_check_counts(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let second = 1_000_000_000_u64;
    let image = OciImage::new(&t.dir, &[]).configured(|config| {
        config["config"]["Healthcheck"] = json!({ "Test": ["CMD", "/probe", "cat", "/out/wanted"],
            "Interval": second / 5, "Timeout": 7 * second, "Retries": 2, "StartPeriod": 0 });
        config["config"]["Cmd"] = json!(["sleep", "inf"]);
    });
    let layout = image.layout(&t.dir.join("layout"), "1");
    podctl.ok(&["image", "import", &layout, "--name", "checked"]);
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    pod.try_add("checked", "one", &[], &[]).ok();
    pod.app("start", "one", &[]).ok();
    until(&podctl, &pod, "one", "running (unhealthy ");
    pod.try_add("checked", "none", &["--health-cmd=none"], &[]).ok();
    pod.app("start", "none", &[]).ok();
    assert_eq!(pod.status("none")["health"], Value::Null);
    fs::write(podctl.out().join("wanted"), "well")?;
    podctl.ok(&["wait", "--healthy", "--timeout=30s", "web"]);
    let check: Value = serde_json::from_str(
        podctl.json(&["inspect", "web", "one"])["annotations"]["podctl.io/health-check"].as_str().expect("a check"),
    )?;
    assert_eq!((&check["timeout_ms"], &check["retries"]), (&json!(7000), &json!(2)), "{check}");
    pod.end();
    Ok(())
}

/// Probes of a pod file: the probe's image has neither curl nor nc.
fn requests_need_no_program_of_the_image(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let path = t.dir.join("shop.yaml");
    let app = |name: &str, does: &str, probe: &str| {
        format!("  - {{name: {name}, image: probe, command: [/probe, {does}], {probe}}}\n")
    };
    let often = "periodSeconds: 1, failureThreshold: 1, timeoutSeconds: 20";
    let http = |port: u16, more: &str| format!("{{httpGet: {{port: {port}, path: /ok{more}}}, {often}}}");
    let containers = [
        app("web", r#"answer, tcp, "8080", "HTTP/1.1 200 OK\r\n\r\n""#, &format!("readinessProbe: {}", http(8080, ""))),
        app("raw", r#"answer, tcp, "8081", hello"#, &format!("readinessProbe: {{tcpSocket: {{port: 8081}}, {often}}}")),
        app(
            "busy",
            r#"answer, tcp, "8082", "HTTP/1.1 503 No\r\n\r\n""#,
            &format!("readinessProbe: {}", http(8082, ", host: 127.0.0.1")),
        ),
        app("deaf", "sleep, inf", &format!("livenessProbe: {}", http(8083, ", httpHeaders: [{name: A, value: b}]"))),
    ];
    let text =
        format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: shop}}\nspec:\n  containers:\n{}", containers.concat());
    fs::write(&path, text)?;
    let file = path.display().to_string();
    podctl.ok(&["up", "--net=none", "--strict", "-f", &file]);
    let pod = podctl.pod_named("shop");
    until(&podctl, &pod, "web", "running (healthy)");
    assert_eq!(pod.status("web")["health"]["output"], "HTTP status 200");
    until(&podctl, &pod, "raw", "running (healthy)");
    until(&podctl, &pod, "busy", "x: HTTP status 503)");
    until(&podctl, &pod, "deaf", "health check failed");
    // The pod as a file says all of it: nothing differs.
    fs::write(&path, podctl.ok(&["generate", "kube", "shop"]))?;
    assert_eq!(podctl.ok(&["up", "--net=none", "--strict", "-f", &file]), "pod shop: unchanged");
    podctl.ok(&["down", "shop"]);
    Ok(())
}

/// The checks of another app tell how much time has passed.
fn a_paused_app_is_not_checked(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    let strict =
        ["--health-interval=200ms", "--health-retries=1", "--health-timeout=200ms", "--health-on-failure=restart"];
    let count = |app: &str| fs::metadata(podctl.out().join(app)).map_or(0, |file| file.len());
    let more = |app: &str, than: u64| {
        wait_for(&format!("checks of {app}"), 60, || (count(app) > than).then_some(()));
    };
    let mut often = strict;
    often[2] = "--health-timeout=30s";
    for (app, how) in [("still", strict), ("clock", often)] {
        pod.add(
            app,
            &[&[check(&["append", &format!("/out/{app}"), "x"]).as_str()], &how[..]].concat(),
            &["sleep", "inf"],
        );
        pod.app("start", app, &[]).ok();
    }
    more("clock", 0);
    podctl.ok(&["pause", "web", "still"]);
    let restarts = || pod.status("still")["restarts"].as_u64().unwrap_or(0);
    let before = restarts();
    more("clock", count("clock") + 6);
    assert_eq!(restarts(), before, "{}", pod.status("still"));
    podctl.ok(&["unpause", "web", "still"]);
    more("still", count("still"));
    assert_eq!(restarts(), before, "{}", pod.status("still"));
    pod.end();
    Ok(())
}

//! The names of pods and apps on the command line, and the words of other tools.

use std::process::{Command, Stdio};

use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{run, wait_for};

tests::cases! {
    both a_pod_has_a_name 90;
    native fifty_pods_want_one_name 120;
    native apps_are_arguments_and_the_only_one_is_meant;
    native words_of_other_tools 90;
    native words_are_completed;
    native lists_and_errors_use_the_users_words;
}

/// The UUIDs and the names of all pods.
fn pods(podctl: &Podctl) -> Vec<(String, String)> {
    let all = podctl.json(&["list", "--format=json"]);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    all.as_array().expect("a list").iter().map(|pod| (text(&pod["name"]), text(&pod["pod_name"]))).collect()
}

fn a_pod_has_a_name(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=web"]);
    pod.add("a", &[], &["sleep", "inf"]);
    podctl.ok(&["app", "start", "web", "a"]);
    assert_eq!(podctl.json(&["status", "web", "--format=json"])["name"], pod.uuid.as_str());
    assert_eq!(podctl.json(&["app", "status", "web", "a", "--format=json"])["state"], "running");
    assert_eq!(pods(&podctl), [(pod.uuid.clone(), "web".to_owned())]);
    assert!(podctl.ok(&["list"]).contains("web") && podctl.ok(&["status", &pod.uuid]).contains("name=web"));
    assert!(podctl.ok(&["enter", "web", "a", "--", "/probe", "help"]).contains("report"));

    // taken as long as the pod exists, in any phase
    let taken = |state: &str| {
        for words in
            [&["sandbox", "--net=none", "--name", "web"][..], &["prepare", "--net=none", "--name=web", "probe"]]
        {
            let line = podctl.fails(words);
            assert!(line.contains("the name web") && line.contains(&pod.uuid[..8]) && line.contains(state), "{line}");
        }
        assert_eq!(pods(&podctl).len(), 1);
    };
    taken("running");
    assert!(podctl.fails(&["rm", "web"]).contains("podctl stop"));
    podctl.ok(&["stop", "web"]);
    podctl.ok(&["wait", "web"]);
    taken("exited");
    podctl.ok(&["gc", "--mark-only"]);
    taken("exited garbage");
    podctl.ok(&["rm", "web"]);
    assert!(podctl.fails(&["status", "web"]).contains("there is no pod \"web\""));

    // free again; gc frees it as well, and a pod that never ran does not keep it
    podctl.ok(&["prepare", "--net=none", "--name", "web", "probe", "--name", "b", "--exec=/probe", "--", "exit", "3"]);
    assert_eq!(podctl.run(&["run-prepared", "web"]).code, Some(3));
    podctl.ok(&["gc", "--grace-period=0s"]);
    assert_eq!(pods(&podctl), []);
    podctl.ok(&["prepare", "--net=none", "--name", "web", "probe"]);
    podctl.ok(&["gc", "--expire-prepared=0s", "--mark-only"]);
    let code =
        podctl.run(&["run", "--rm", "--net=none", "--name=web", "probe", "--exec=/probe", "--", "exit", "4"]).code;
    assert_eq!(code, Some(4));
    podctl.ok(&["gc", "--grace-period=0s"]);
    assert_eq!(pods(&podctl), []);

    for bad in ["", "-x", "a b", "../x", "a/b", "ä", "a\nb", &"x".repeat(65), "00000000-0000-4000-8000-000000000000"] {
        podctl.fails(&["sandbox", "--net=none", &format!("--name={bad}")]);
        podctl.fails(&["status", "--", bad]);
    }
    assert!(podctl.fails(&["run", "--name=x", "--name=y", "probe"]).contains("given twice"));
    assert_eq!(pods(&podctl), []);
    Ok(())
}

fn fifty_pods_want_one_name(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let words = ["prepare", "--net=none", "--name=web", "probe"];
    let all: Vec<_> = (0..50)
        .map(|_| podctl.command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("podctl"))
        .collect();
    let mut got = Vec::new();
    for one in all {
        let out = one.wait_with_output()?;
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        match out.status.success() {
            true => got.push(String::from_utf8_lossy(&out.stdout).trim().to_owned()),
            false => assert!(said.contains("the name web is that of pod") && said.lines().count() == 1, "{said}"),
        }
    }
    assert_eq!(got.len(), 1, "{got:?}");
    assert_eq!(pods(&podctl), [(got.remove(0), "web".to_owned())]);
    podctl.ok(&["rm", "web"]);
    Ok(())
}

fn apps_are_arguments_and_the_only_one_is_meant(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=web"]);
    assert!(podctl.fails(&["app", "start", "web"]).contains("no app"));
    pod.add("one", &["--stdin=stream", "--stdout=stream"], &["line", "hello", "+", "sleep", "inf"]);
    podctl.ok(&["app", "start", "web"]);
    wait_for("the app's line", 20, || podctl.ok(&["logs", "web", "one"]).contains("hello").then_some(()));
    for words in [&["logs", "web"][..], &["logs", "web", "--app", "one"], &["logs", "web", "one", "--tail=5"]] {
        assert!(podctl.ok(words).contains("hello"), "{words:?}");
    }
    for words in [
        &["exec", "web", "one", "--", "/probe", "help"][..],
        &["exec", "web", "--", "/probe", "help"],
        &["exec", "web", "-u", "1000:1000", "-e", "A=b", "-w", "/", "--", "/probe", "help"],
        &["app", "exec", "web", "one", "--", "/probe", "help"],
        &["enter", "web", "one", "--", "/probe", "help"],
        &["enter", "web", "--app=one", "--", "/probe", "help"],
    ] {
        assert!(podctl.ok(words).contains("report"), "{words:?}");
    }
    assert!(podctl.ok(&["attach", "web", "one", "--list"]).contains("stdin"));
    assert!(podctl.ok(&["attach", "web", "--list"]).contains("stdin"));
    podctl.ok(&["app", "restart", "web"]);
    podctl.ok(&["app", "stop", "web", "--timeout=0"]);

    pod.add("two", &[], &["sleep", "inf"]);
    for verb in ["start", "stop", "restart", "rm", "exec"] {
        let line =
            podctl.fails(&[&["app", verb, "web"][..], if verb == "exec" { &["--", "/probe"] } else { &[] }].concat());
        assert!(line.contains("one, two") && line.contains("choose one of them"), "{verb}: {line}");
    }
    assert!(podctl.fails(&["logs", "web", "three"]).contains("has no app three"));
    assert_eq!(podctl.run(&["app", "start", "web", "one", "--app", "two"]).code, Some(2));
    pod.end();
    Ok(())
}

/// podctl's answer to unsupported words: one line, exit code 2.
#[track_caller]
fn told(podctl: &Podctl, words: &[&str]) -> String {
    let out = podctl.run(words);
    let code = if ["run", "enter", "exec"].contains(&words[0]) { 125 } else { 2 };
    assert_eq!(out.code, Some(code), "{words:?}: {out}");
    out.complaint()
}

fn words_of_other_tools(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let out = podctl.out();
    std::fs::create_dir_all(&out)?;
    std::fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777))?;
    let bind = format!("{}:/out", out.display());
    let words = [
        "run",
        "--rm",
        "--name",
        "web",
        "--net",
        "none",
        "-v",
        &bind,
        "-e",
        "A=b c",
        "-m",
        "64m",
        "--cpus=1.5",
        "-w",
        "/out",
    ];
    podctl
        .ok(&[&words[..], &["-u=1000", "docker://probe", "--entrypoint=/probe", "--", "report", "/out/x.json"]]
            .concat());
    let pod = Pod { podctl: &podctl, uuid: String::new() };
    let report = pod.read("x");
    assert_eq!(report["cwd"], "/out", "{report}");
    assert_eq!(report["env"]["A"], "b c", "{report}");

    // on a running pod, too; read-only applies to that app alone
    let pod = podctl.pod(&["--name=web", "--net=none"]);
    let bind = format!("{}:/in:ro", out.display());
    pod.add("reads", &["-v", &bind], &["report", "/in/y.json"]);
    podctl.ok(&["app", "start", "web"]);
    assert_ne!(pod.exit_code("reads"), 0);
    let mounts = pod.status("reads")["mounts"].clone();
    let here = out.display().to_string();
    let expected = json!({"name": "host-in", "container_path": "/in", "host_path": here, "read_only": true});
    assert!(mounts.as_array().expect("mounts").contains(&expected), "{mounts}");
    pod.end();

    // ports: the same errors as for podctl's own words
    assert!(podctl.fails(&["sandbox", "--net", "none", "-p", "8080:80"]).contains("no port can be forwarded"));
    assert!(podctl.fails(&["sandbox", "-p", "x:80"]).contains("HOSTPORT:PODPORT"));
    assert!(podctl.fails(&["run", "--net=none", "probe", "-v", "/tmp"]).contains("HOSTPATH:PATH"));
    assert!(podctl.fails(&["run", "--net=none", "probe", "-v", "no!:/x"]).contains("not a name for a volume"));
    let missing = ["run", "--net=none", "probe", "--mount=volume=none,target=/x"];
    assert!(podctl.fails(&missing).contains("no volume none"));
    assert!(podctl.fails(&["run", "--net=none", "oci:dir"]).contains("podctl image import"));

    // options that do not mean the same: podctl's spelling
    for (words, ours) in [
        (&["run", "-d", "probe"][..], "podctl sandbox"),
        (&["run", "--cap-add=NET_ADMIN", "probe"], "--caps-retain"),
        (&["pull", "nginx"], "podctl image pull"),
        (&["create", "nginx"], "podctl prepare"),
        (&["enter", "web", "a", "/bin/sh"], "podctl enter POD APP -- /bin/sh"),
        (&["exec", "web", "a", "sh"], "podctl exec POD APP -- sh"),
        (&["exec", "web", "a"], "<CMD>... is missing; write -- before the command: podctl exec POD APP -- COMMAND"),
        (&["commit", "web", "a", "mine"], "podctl commit POD APP --tag mine"),
        (&["list", "--format", "{{.Names}}"], "podctl has no templates: give columns, such as name,state, or json"),
        (&["run", "--net", "probe"], "--net=default"),
        (&["rm", "-f", "web"], "podctl stop --force"),
    ] {
        let line = told(&podctl, words);
        assert!(line.contains(ours), "{words:?}: {line}");
    }
    for words in [&["ps"][..], &["ls"], &["ps", "-a"], &["images"], &["image", "ls"], &["volume", "ls"]] {
        podctl.ok(words);
    }
    assert_eq!(pods(&podctl), []);
    Ok(())
}

fn words_are_completed(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--name=web"]);
    pod.add("one", &[], &["sleep", "inf"]);
    let dir = format!("--dir={}", podctl.data.display());
    let complete = |words: &str, last: &str| {
        // called as bash calls what the script has registered
        let script = format!(
            "source <(podctl completion bash); COMP_WORDS=(podctl {dir} {words} {last}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); f=$(complete -p podctl | sed 's/.* -F //; s/ .*//'); \
             \"$f\" podctl '{last}' x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let path = format!("{}:{}", tests::dist().display(), std::env::var("PATH").unwrap_or_default());
        run(Command::new("bash").args(["-c", &script]).env("PATH", path)).ok()
    };
    assert_eq!(complete("status", "we").trim(), "web");
    assert_eq!(complete("logs web", "o").trim(), "one");
    assert_eq!(complete("app add web", "pro").trim(), "probe");
    assert!(complete("app", "re").contains("restart"));
    assert_eq!(complete("status", "zz").trim(), "");
    for shell in ["zsh", "fish"] {
        assert!(podctl.ok(&["completion", shell]).contains("PODCTL_COMPLETE"));
    }
    pod.end();
    Ok(())
}

fn lists_and_errors_use_the_users_words(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    pod.add("one", &["--user=web", "--group=extra"], &["sleep", "inf"]);
    // Columns as the user chooses and orders them; ids and cells are whole for programs that read them.
    let words = |args: &[&str]| -> Vec<Vec<String>> {
        podctl.ok(args).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    assert_eq!(words(&["list", "--format=state,name"]), [["STATE", "NAME"], ["running", "web"]]);
    assert_eq!(words(&["image", "ls", "--format=name", "--filter=reference=probe"]), [["NAME"], ["probe"]]);
    assert_eq!(words(&["top", "web", "--format=in pod"])[..2], [vec!["IN", "POD"], vec!["1"]]);
    let line = podctl.fails(&["list", "--format=banana"]);
    assert!(line.contains("there is no column \"banana\": choose of name, id, state, age, apps, ip, ports"), "{line}");
    assert_eq!(words(&["app", "ls", "web"])[1][..2], ["one", "created"]);
    // Times for programs are RFC 3339, beside those that rkt has.
    let is_time = |value: &serde_json::Value| {
        let text = value.as_str().unwrap_or_default();
        text.len() >= "2026-11-26T10:41:58Z".len() && text.as_bytes()[10] == b'T' && text.ends_with('Z')
    };
    let status = podctl.json(&["status", "web", "--format=json"]);
    assert!(is_time(&status["created"]) && is_time(&status["started"]), "{status}");
    assert!(is_time(&status["apps"][0]["created"]) && status["apps"][0]["created_at"].is_i64(), "{status}");
    assert!(is_time(&podctl.json(&["images", "--format=json"])[0]["imported"]));
    assert!(is_time(&podctl.json(&["top", "web", "--format=json"])[0]["started"]));
    // Messages call the pod as its user does, and say what is to be done.
    for (args, expected) in [
        (&["app", "start", "web", "two"][..], "pod web has no app two: \"podctl app list\" shows all"),
        (&["pause", "web", "one"], "app one does not run: \"podctl app start\" starts it"),
        (&["cp", "web/one:/no/such", "-"], "app one: there is no /no/such"),
        (&["cp", "/no/such", "web/one:/"], "there is no /no/such"),
        (
            &["wait", "--healthy", "--timeout=50ms", "web"],
            "wait for pod web: timed out: it is still running, no app of it runs",
        ),
    ] {
        let line = podctl.fails(args);
        assert!(line.ends_with(expected), "{args:?}: {line}");
    }
    // A pod file has numbers only: those that the names mean in the image.
    let file = podctl.ok(&["generate", "kube", "web"]);
    assert!(file.contains("runAsUser: 1001") && file.contains("runAsGroup: "), "{file}");
    pod.app("start", "one", &[]).ok();
    pod.app("stop", "one", &[]).ok();
    let ended = podctl.json(&["app", "status", "web", "one", "--format=json"]);
    assert!(is_time(&ended["started"]) && is_time(&ended["finished"]), "{ended}");
    pod.app("rm", "one", &[]).ok();
    let line = podctl.fails(&["exec", "web", "--", "x"]);
    assert!(line.contains("pod web has no app: \"podctl app add\" gives it one"), "{line}");
    pod.end();
    Ok(())
}

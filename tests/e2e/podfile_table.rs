//! What a file says of hooks, of parts of volumes, and of what is the host's: rows of the table of docs/pod-files.md.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl, pod_file};

tests::cases! {
    native hooks_run_as_the_apps_user_after_its_start_and_before_its_stop;
    native a_part_of_a_volume_is_mounted_and_no_link_leads_out_of_it;
    native what_is_the_hosts_is_shared_as_the_file_says;
}

struct Shop {
    podctl: Podctl,
    path: String,
}

impl Shop {
    fn new(t: &Context) -> Self {
        let podctl = t.podctl();
        podctl.import_probe();
        fs::create_dir_all(podctl.out()).expect("out");
        fs::set_permissions(podctl.out(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
        Self { podctl, path: t.dir.join("shop.yaml").display().to_string() }
    }

    /// Writes the file of a pod with these lines in its spec.
    fn write(&self, spec: &str) -> &str {
        let out = self.podctl.out();
        let out = format!("  volumes:\n  - {{name: out, hostPath: {{path: {}, type: Directory}}}}\n", out.display());
        fs::write(&self.path, pod_file("shop", &format!("{spec}{out}"))).expect("write");
        &self.path
    }

    /// Makes the pod what the file says, which is said completely.
    #[track_caller]
    fn up(&self, spec: &str) -> Pod<'_> {
        self.podctl.ok(&["up", "--strict", "-f", self.write(spec)]);
        self.podctl.pod_named("shop")
    }

    /// The pod as a file says all of it: nothing differs.
    #[track_caller]
    fn comes_back(&self) {
        let made = self.podctl.ok(&["generate", "kube", "shop"]);
        fs::write(&self.path, &made).expect("write");
        assert_eq!(self.podctl.ok(&["up", "--strict", "-f", &self.path]), "pod shop: unchanged", "{made}");
    }

    #[track_caller]
    fn read(&self, name: &str) -> String {
        let path = self.podctl.out().join(name);
        fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    }

    #[track_caller]
    fn down(&self) {
        self.podctl.ok(&["down", "shop"]);
    }
}

fn hooks_run_as_the_apps_user_after_its_start_and_before_its_stop(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    let app = |name: &str, command: &str, hooks: &str| {
        format!(
            "  - {{name: {name}, image: probe, command: [/probe, {command}], securityContext: {{runAsUser: 1001}}, \
             volumeMounts: [{{name: out, mountPath: /out}}], lifecycle: {{{hooks}}}}}\n"
        )
    };
    let hook = |name: &str, words: &str| format!("{name}: {{exec: {{command: [/probe, {words}]}}}}");
    let both = [hook("postStart", "write, /out/started, x"), hook("preStop", "append, /out/order, hook")].join(", ");
    let apps = [
        app("web", "told, /out/told, +, append, /out/order, app, +, exit, \"7\"", &both),
        app("short", "exit, \"0\"", &hook("preStop", "write, /out/never, x")),
        app("stubborn", "stubborn", &hook("preStop", "print, waits, +, sleep, inf")),
    ];
    let spec =
        |apps: &str| format!("  restartPolicy: Never\n  terminationGracePeriodSeconds: 1\n  containers:\n{apps}");
    let pod = shop.up(&spec(&apps.concat()));
    assert_eq!(shop.read("started"), "x", "before up has ended");
    assert_eq!(shop.podctl.out().join("started").metadata()?.uid(), 1001);
    shop.comes_back();
    // first the hook, to its end, then the signal
    tests::process::wait_for("the app to wait", 20, || shop.podctl.out().join("told").exists().then_some(()));
    pod.app("stop", "web", &[]).ok();
    assert_eq!(shop.read("order"), "hook\napp\n");
    assert_eq!(pod.exit_code("web"), 7);
    // one that never ends has the app's time, and the app is killed in the end
    pod.app("stop", "stubborn", &[]).ok();
    assert_eq!(pod.status("stubborn")["exit_signal"], "SIGKILL");
    // before a stop, not after an end
    assert_eq!(pod.exit_code("short"), 0);
    pod.app("stop", "short", &[]).ok();
    assert!(!shop.podctl.out().join("never").exists());
    // the whole pod's end runs it, too
    pod.app("start", "web", &[]).ok();
    fs::remove_file(shop.podctl.out().join("order"))?;
    shop.podctl.ok(&["stop", "shop"]);
    assert_eq!(shop.read("order").lines().next(), Some("hook"));
    shop.down();

    // a start whose hook fails has failed
    let bad = app("web", "sleep, inf", &hook("postStart", "warn, no luck, +, exit, \"3\""));
    let line = shop.podctl.run(&["up", "--strict", "-f", shop.write(&spec(&bad))]);
    let why = line.stderr.lines().last().unwrap_or_default();
    assert!(why.contains("post-start hook") && why.contains("exited with 3: no luck"), "{}", line.stderr);
    assert!(why.contains("the pod was removed again"), "{}", line.stderr);
    Ok(())
}

fn a_part_of_a_volume_is_mounted_and_no_link_leads_out_of_it(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    let secret = t.dir.join("secret");
    fs::create_dir(&secret)?;
    fs::write(secret.join("word"), "of the host")?;
    symlink(&secret, shop.podctl.out().join("away"))?;
    fs::create_dir(shop.podctl.out().join("real"))?;
    fs::write(shop.podctl.out().join("real/word"), "of the volume")?;
    symlink("real", shop.podctl.out().join("inside"))?;
    let spec = "  containers:\n  - name: web\n    image: probe\n    command: [/probe, sleep, inf]\n    \
                env: [{name: WHO, value: web}]\n    volumeMounts:\n    \
                - {name: out, mountPath: /whole}\n    \
                - {name: out, mountPath: /new, subPath: a/b}\n    \
                - {name: out, mountPath: /mine, subPathExpr: of-$(WHO)}\n    \
                - {name: out, mountPath: /link, subPath: inside}\n    \
                - {name: out, mountPath: /file, subPath: real/word, readOnly: true}\n    \
                - {name: out, mountPath: /away, subPath: away}\n";
    let pod = shop.up(spec);
    let cat = |path: &str| pod.enter("web", &["/probe", "cat", path]);
    pod.enter("web", &["/probe", "write", "/new/x", "1"]).ok();
    pod.enter("web", &["/probe", "write", "/mine/x", "2"]).ok();
    assert_eq!((shop.read("a/b/x"), shop.read("of-web/x")), ("1".to_owned(), "2".to_owned()));
    assert_eq!(cat("/link/word").ok(), "of the volume");
    assert_eq!(cat("/file").ok(), "of the volume");
    assert_eq!(pod.enter("web", &["/probe", "open", "w", "/file"]).ok(), "EROFS");
    // the link's target is looked for in the volume, where it is a new directory
    assert_ne!(cat("/away/word").code, Some(0));
    pod.enter("web", &["/probe", "write", "/away/planted", "x"]).ok();
    assert!(!secret.join("planted").exists(), "a link has led out of the volume");
    shop.comes_back();
    let shown = shop.podctl.json(&["inspect", "shop", "web"])["volumes"].clone();
    assert!(shown.to_string().contains("/out/a/b\""), "{shown}");
    shop.down();
    // what leads out by its words is refused
    for path in ["../x", "/x", "a/../../x"] {
        let spec = format!(
            "  containers:\n  - {{name: web, image: probe, command: [/probe, sleep, inf], \
             volumeMounts: [{{name: out, mountPath: /x, subPath: \"{path}\"}}]}}\n"
        );
        assert!(shop.podctl.fails(&["up", "-f", shop.write(&spec)]).contains("subPath"), "{path}");
    }
    Ok(())
}

fn what_is_the_hosts_is_shared_as_the_file_says(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    let out = shop.podctl.out();
    let host = |name: &str, kind: &str| {
        format!("{{name: {name}, hostPath: {{path: {}, type: {kind}}}}}", out.join(name).display())
    };
    let mount = |name: &str| format!("{{name: {name}, mountPath: /{name}}}");
    let names = ["dir", "file", "zero"];
    let app = |name: &str, more: &str| {
        format!(
            "  - {{name: {name}, image: probe, imagePullPolicy: Never, command: [/probe, sleep, inf], stdin: true, \
             startupProbe: {{exec: {{command: [/probe, exit, \"0\"]}}, periodSeconds: 1, failureThreshold: 7}}, \
             resources: {{limits: {{memory: 64Mi, cpu: 500m}}, requests: {{memory: 32Mi, cpu: 250m}}}}, \
             volumeMounts: [{}]{more}}}\n",
            names.map(mount).join(", ")
        )
    };
    let volumes = [
        host("dir", "DirectoryOrCreate"),
        host("file", "FileOrCreate"),
        "{name: zero, hostPath: {path: /dev/zero, type: CharDevice}}".to_owned(),
    ];
    let volumes: String = volumes.map(|volume| format!("  - {volume}\n")).concat();
    let spec = format!("  hostIPC: true\n  containers:\n{}", app("web", ""));
    let text = fs::read_to_string(shop.write(&spec))? + &volumes;
    fs::write(&shop.path, text)?;
    shop.podctl.ok(&["up", "--strict", "-f", &shop.path]);
    let found = shop.podctl.json(&["inspect", "shop", "web"]);
    let pid = found["pid"].as_i64().expect("pid");
    for space in ["ipc", "net"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{space}"));
        assert_eq!(of(&pid.to_string())?, of("self")?, "{space}");
    }
    assert!(out.join("dir").is_dir() && out.join("file").is_file());
    let pod = shop.podctl.pod_named("shop");
    pod.enter("web", &["/probe", "write", "/dir/x", "1"]).ok();
    assert_eq!(shop.read("dir/x"), "1");
    assert_eq!(pod.enter("web", &["/probe", "open", "r", "/zero"]).ok(), "ok");
    let isolators = found["isolators"].to_string();
    for words in [r#""limit":"64Mi""#, r#""request":"32Mi""#, r#""limit":"500m""#, r#""request":"250m""#] {
        assert!(isolators.contains(words), "{words}: {isolators}");
    }
    assert_eq!(found["annotations"]["coreos.com/rkt/stage2/stdin"], "stream");
    let check: serde_json::Value =
        serde_json::from_str(found["annotations"]["podctl.io/health-check"].as_str().expect("a check"))?;
    assert_eq!((&check["start_period_ms"], &check["on_failure"]), (&json!(7000), &json!("restart")), "{check}");
    shop.comes_back();
    shop.down();
    Ok(())
}

//! Pod files that are refused, at work twice, or edited after their pod was made.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl, pod_file as pod};
use tests::process::{Output, wait_for};

tests::cases! {
    native a_refused_up_leaves_nothing_behind;
    native values_have_lines_and_an_edited_file_still_takes_its_pod_down;
    native of_two_ups_at_once_the_second_is_told_of_the_first;
    native a_pod_comes_back_from_what_it_generates;
    native a_sandbox_comes_back_and_what_its_file_can_not_say_is_told;
    native apps_by_name_several_at_once_and_files_without_an_option;
}

struct Shop {
    podctl: Podctl,
    dir: PathBuf,
}

impl Shop {
    fn new(t: &Context) -> Self {
        let podctl = t.podctl();
        podctl.import_probe();
        fs::create_dir_all(podctl.out()).expect("out");
        Self { podctl, dir: t.dir.clone() }
    }

    fn file(&self, text: &str) -> String {
        let path = self.dir.join("shop.yaml");
        fs::write(&path, text).expect("write");
        path.display().to_string()
    }

    fn up(&self, text: &str) -> Output {
        self.podctl.run(&["up", "-f", &self.file(text)])
    }

    fn pod(&self) -> Pod<'_> {
        self.podctl.pod_named("shop")
    }
}

fn a_refused_up_leaves_nothing_behind(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    let made = shop.podctl.out().join("made");
    let volumes = format!(
        "  volumes:\n  - {{name: v, persistentVolumeClaim: {{claimName: data}}}}\n  \
         - {{name: d, hostPath: {{path: {}/deep, type: DirectoryOrCreate}}}}\n",
        made.display()
    );
    let spec = |init: &str, app: &str| {
        let mounts = "volumeMounts: [{name: v, mountPath: /v}, {name: d, mountPath: /d}]";
        let init = if init.is_empty() {
            String::new()
        } else {
            format!("  initContainers:\n  - {{name: init, image: probe, command: [/probe, {init}], {mounts}}}\n")
        };
        format!("{init}  containers:\n  - {{name: a, {app}, {mounts}}}\n{volumes}")
    };
    let sleeps = "image: probe, command: [/probe, sleep, inf]";
    let absent = "image: none-of-this, imagePullPolicy: Never";
    let nothing_is_left = |said: &Output| {
        assert_ne!(said.code, Some(0), "{said}");
        let line = said.stderr.lines().last().unwrap_or_default();
        assert!(!line.contains("failed, too"), "{line}");
        assert_eq!(shop.podctl.ok(&["volume", "ls", "-q"]), "", "{line}");
        assert_eq!(shop.podctl.ok(&["list", "-q"]), "", "{line}");
        assert!(!made.exists(), "{line}");
        line.to_owned()
    };
    // before anything is made: the second pod is refused, so the first one is not made
    let two = pod("first", &spec("", sleeps)) + &pod("shop", &spec("", absent));
    for (text, why) in [
        (pod("shop", &spec("", absent)), "none-of-this"),
        (two, "none-of-this"),
        (pod("shop", &spec("", "image: probe, securityContext: {runAsNonRoot: true}")), "runAsNonRoot"),
        (
            pod("shop", &spec("", &format!("{sleeps}, resources: {{limits: {{memory: 12Q}}}}"))),
            "spec.containers[0].resources.limits.memory: \"12Q\" is not a quantity: expected a number",
        ),
        (
            pod("shop", &spec("", sleeps)) + "  - {name: e, emptyDir: {medium: Memory, sizeLimit: 1X}}\n",
            "spec.volumes[2].emptyDir.sizeLimit: \"1X\" is not a quantity",
        ),
        (pod("shop", &spec("", sleeps)) + "  - {name: s, secret: {secretName: none}}\n", "no Secret \"none\""),
        // after it: the app can't be started
        (pod("shop", &spec("", "image: probe, command: [/no/such]")), "the pod was removed again"),
        (pod("shop", &spec("", &format!("{sleeps}, readinessProbe: 7"))), "readinessProbe"),
    ] {
        let line = nothing_is_left(&shop.up(&text));
        assert!(line.contains(why), "{why}: {line}");
        // what is wrong in the file is said with the file, what is wrong with the pod with the pod
        assert!(line.contains("shop.yaml") != line.contains("pod shop: "), "{line}");
    }
    let dry = shop.podctl.run(&["up", "--dry-run", "-f", &shop.file(&pod("shop", &spec("", sleeps)))]).ok();
    assert_eq!(dry, "pod shop: would be made, with a");
    assert!(!made.exists() && shop.podctl.ok(&["volume", "ls", "-q"]).is_empty());

    // an init container that fails: its log goes with the pod, so its end is shown; what it has written stays
    let ends = "lines, \"30\", \"step\", +, raw, \"1b5b33316d7265640a\", +, write, /v/kept, x, +, write, /d/x, y, +, exit, \"3\"";
    let never = format!("  restartPolicy: Never\n{}", spec(ends, sleeps));
    let said = shop.up(&pod("shop", &never));
    assert!(!said.stderr.contains("tried again"), "{said}");
    let lines: Vec<&str> = said.stderr.lines().collect();
    let last = lines.last().copied().unwrap_or_default();
    assert!(last.contains("app init: it ended with 3: the last lines of its output are above"), "{said}");
    assert!(last.contains("an app has run with what stays: volume data, "), "{said}");
    let shown: Vec<&str> = lines.iter().copied().filter(|line| line.contains("warning: init: ")).collect();
    assert_eq!(shown.len(), 20, "{said}");
    assert!(shown[18].contains("step") && shown[19].contains("red"), "{said}");
    assert!(!said.stderr.contains('\u{1b}'), "{said}");
    assert_eq!(shop.podctl.ok(&["list", "-q"]), "");
    assert_eq!(shop.podctl.ok(&["volume", "ls", "-q"]), "data");
    assert_eq!(fs::read_to_string(made.join("deep/x"))?, "y");
    // the file as it should be takes the volume up
    // one that fails once is tried again
    let said = shop.up(&pod("shop", &spec("once, /v/once, \"4\"", sleeps)));
    assert!(said.stderr.contains("app init: it ended with 4, and is tried again in 1 s"), "{said}");
    assert!(said.ok().contains("app init: added\napp a: added"));
    assert_eq!(shop.pod().exit_code("init"), 0);
    shop.up(&pod("shop", &spec("write, /v/more, x", sleeps))).ok();
    assert_eq!(shop.pod().enter("a", &["/probe", "cat", "/v/kept"]).ok(), "x");
    // a change of the running pod that fails leaves no new volume
    let text = pod("shop", &spec("write, /v/more, x", sleeps));
    let claim = "  - {name: w, persistentVolumeClaim: {claimName: more}}\n";
    let new =
        "  - {name: b, image: probe, command: [/no/such], volumeMounts: [{name: w, mountPath: /w}]}\n  volumes:\n";
    let said = shop.up(&(text.replace("  volumes:\n", new) + claim));
    assert!(said.stderr.contains("the pod is as it was"), "{said}");
    assert_eq!(shop.podctl.ok(&["volume", "ls", "-q"]), "data");
    shop.podctl.ok(&["down", "shop"]);
    Ok(())
}

fn values_have_lines_and_an_edited_file_still_takes_its_pod_down(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    let key = "-----BEGIN KEY-----\nabc=\nPATH=/evil\n-----END KEY-----\n";
    let text =
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  KEY: |\n    -----BEGIN KEY-----\n    abc=\n    \
                PATH=/evil\n    -----END KEY-----\n  WORD: one\n"
            .to_owned()
            + &pod(
                "shop",
                "  containers:\n  - {name: a, image: probe, command: [/probe, report, /out/a.json, +, sleep, inf], \
             envFrom: [{configMapRef: {name: c}}], volumeMounts: [{name: out, mountPath: /out}, {name: v, mountPath: /v}]}\n",
            )
            + &format!(
                "  volumes: [{{name: out, hostPath: {{path: {}}}}}, {{name: v, persistentVolumeClaim: {{claimName: data}}}}]\n",
                shop.podctl.out().display()
            );
    shop.up(&text).ok();
    let of_shop = shop.pod();
    let entered = |more: &[&str]| -> Value {
        let words = [&["exec"], more, &["shop", "a", "--", "/probe", "report"]].concat();
        serde_json::from_str(&shop.podctl.ok(&words)).expect("report")
    };
    for env in [&of_shop.read("a")["env"], &entered(&[])["env"]] {
        assert_eq!((&env["KEY"], &env["WORD"]), (&key.into(), &"one".into()), "{env}");
        assert_ne!(env["PATH"], "/evil");
    }
    assert_eq!(entered(&["--env", "MORE=1\n2"])["env"]["MORE"], "1\n2");
    // the file for older host managers has one variable per line, so it lacks this one
    let file = fs::read_to_string(of_shop.dir().join("stage1/rootfs/rkt/env/a"))?;
    assert!(file.contains("WORD=one\n") && !file.contains("evil"), "{file}");
    let again = shop.podctl.ok(&["generate", "kube", "shop"]);
    assert_eq!(shop.up(&again).ok(), "pod shop: unchanged", "{again}");
    // an app that is added with such a value
    let words = ["app", "add", "shop", "probe", "--name", "b", "-e", "LINES=x\ny", "--", "cat", "/proc/self/environ"];
    shop.podctl.ok(&words);
    shop.podctl.ok(&["app", "start", "shop", "b"]);
    wait_for("both lines of the environment of b", 20, || {
        shop.podctl.ok(&["logs", "shop", "b"]).contains("LINES=x\ny").then_some(())
    });

    // now the file becomes one that no pod can be made of
    let broken = text.replace("image: probe", "image: 7").replace("kind: ConfigMap", "kind: Banana");
    assert_ne!(shop.up(&broken).code, Some(0));
    let path = shop.file("a: [");
    let line = shop.podctl.fails(&["down", "-f", &path]);
    assert!(line.contains("not YAML") && line.contains("podctl down NAME"), "{line}");
    let path = shop.file(&broken);
    let said = shop.podctl.ok(&["down", "--volumes", "-f", &path]);
    assert_eq!(said, "pod shop: removed\nvolume data: removed");
    assert_eq!(shop.podctl.ok(&["down", "-f", &path]), "pod shop: does not exist");
    Ok(())
}

fn of_two_ups_at_once_the_second_is_told_of_the_first(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    let text = pod(
        "shop",
        "  initContainers:\n  - {name: init, image: probe, command: [/probe, write, /out/begun, x, +, wait, /out/go], \
         volumeMounts: [{name: out, mountPath: /out}]}\n  \
         containers: [{name: a, image: probe, command: [/probe, sleep, inf]}]\n",
    ) + &format!("  volumes: [{{name: out, hostPath: {{path: {}}}}}]\n", shop.podctl.out().display());
    let path = shop.file(&text);
    let mut first = shop.podctl.command(&["up", "-f", &path]).spawn()?;
    wait_for("the init container", 60, || shop.podctl.out().join("begun").exists().then_some(()));
    let line = shop.podctl.fails(&["up", "-f", &path]);
    assert!(line.contains("another podctl makes, changes or removes this pod"), "{line}");
    assert!(line.contains("run \"podctl up\" again") && !line.contains("podctl rm"), "{line}");
    // Ctrl-C ends one that waits, and the next one goes on.
    kill(Pid::from_raw(first.id().cast_signed()), Signal::SIGINT)?;
    let ended = wait_for("its end", 20, || first.try_wait().expect("wait"));
    assert_eq!(ended.signal(), Some(2), "{ended}");
    let second = shop.podctl.command(&["up", "-f", &path]).spawn()?;
    fs::write(shop.podctl.out().join("go"), "")?;
    assert!(second.wait_with_output()?.status.success());
    assert_eq!(shop.podctl.ok(&["up", "-f", &path]), "pod shop: unchanged");
    shop.podctl.ok(&["pause", "shop"]);
    let line = shop.podctl.fails(&["up", "-f", &path]);
    assert!(line.contains("is paused") && !line.contains("undoing"), "{line}");
    shop.podctl.ok(&["unpause", "shop"]);
    shop.podctl.ok(&["app", "stop", "shop", "a"]);
    let line = shop.podctl.ok(&["up", "-f", &path]);
    assert!(line.starts_with("pod shop: unchanged; ended: a ("), "{line}");
    shop.podctl.ok(&["stop", "shop"]);
    let line = shop.podctl.ok(&["up", "--dry-run", "-f", &path]);
    assert!(line.contains("would be removed, with what its apps wrote"), "{line}");
    shop.podctl.ok(&["down", "shop"]);

    // several from the beginning: one makes the pod; each other one finds it as it should be, or is refused
    let said: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| shop.podctl.run(&["up", "-f", &path]))).collect();
        all.into_iter().map(|one| one.join().expect("up")).collect()
    });
    let made = said.iter().filter(|said| said.stdout.contains("pod shop: started")).count();
    assert_eq!(made, 1, "{said:?}");
    for said in &said {
        let is_refused = said.stderr.contains("run \"podctl up\" again");
        assert!(said.code == Some(0) || is_refused, "{said}");
        assert!(!said.stderr.contains("podctl rm"), "{said}");
    }
    assert_eq!(shop.podctl.ok(&["up", "-f", &path]), "pod shop: unchanged");
    assert_eq!(shop.pod().state("a"), "running");
    shop.podctl.ok(&["down", "shop"]);
    Ok(())
}

fn a_pod_comes_back_from_what_it_generates(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    let out = shop.podctl.out();
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: keys}\nstringData: {PASSWORD: ge$$heim, other: never used}\n---\n\
                apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata: {COLOUR: blue, page: <p>}\nbinaryData: {raw: /w==}\n---\n\
                apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data, labels: {team: shop}}\nspec:\n  \
                accessModes: [ReadWriteMany]\n  storageClassName: fast\n  resources: {requests: {storage: 7Gi}}\n"
        .to_owned()
        + &pod(
            "shop",
            "  restartPolicy: Never\n  initContainers:\n  - {name: side, image: probe, command: [/probe, sleep, inf], \
             restartPolicy: Always, ports: [{containerPort: 7}]}\n  containers:\n  - name: a\n    image: probe\n    imagePullPolicy: Never\n    \
             command: [/probe, report, /out/a.json, +, sleep, inf]\n    envFrom: [{secretRef: {name: keys}}]\n    \
             env:\n    - {name: PW, valueFrom: {secretKeyRef: {name: keys, key: PASSWORD}}}\n    \
             - {name: URL, value: \"db://u:$(PW)@$(COLOUR)\"}\n    \
             - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: COLOUR}}}\n    \
             ports: [{containerPort: 80, name: web}, {containerPort: 53, hostPort: 53, protocol: UDP}]\n    \
             volumeMounts: [{name: out, mountPath: /out}, {name: v, mountPath: /v}, {name: d, mountPath: /d}, \
             {name: c, mountPath: /c}, {name: s, mountPath: /s}]\n",
        )
        + &format!(
            "  volumes:\n  - {{name: out, hostPath: {{path: {0}, type: Directory}}}}\n  \
             - {{name: d, hostPath: {{path: {0}/new, type: DirectoryOrCreate}}}}\n  \
             - {{name: c, configMap: {{name: settings, items: [{{key: page, path: www/index.html, mode: 0440}}, \
             {{key: raw, path: raw}}]}}}}\n  - {{name: s, secret: {{secretName: keys, items: [{{key: PASSWORD, path: p}}]}}}}\n  \
             - {{name: v, persistentVolumeClaim: {{claimName: data}}}}\n",
            out.display()
        );
    shop.podctl.ok(&["up", "--strict", "-f", &shop.file(&text)]);
    let of_shop = shop.pod();
    let env = of_shop.read("a")["env"].clone();
    // a value of a Secret is what it is, not expanded again
    assert_eq!((&env["PW"], &env["URL"]), (&"ge$$heim".into(), &"db://u:ge$$heim@$(COLOUR)".into()), "{env}");
    let pids = || ["side", "a"].map(|app| shop.podctl.json(&["inspect", "shop", app])["pid"].as_i64());
    let before = pids();
    let made = shop.podctl.run(&["generate", "kube", "shop"]);
    assert!(made.stderr.contains("the file has the values of Secrets (keys)"), "{made}");
    assert!(!made.stderr.contains("no words"), "{made}");
    let made = made.ok();
    for part in [
        "kind: PersistentVolumeClaim",
        "team: shop",
        "type: DirectoryOrCreate",
        "type: Directory\n",
        "containerPort: 80",
        "hostPort: 53",
        "containerPort: 7\n",
        "restartPolicy: Always",
        "secretKeyRef",
        "configMapKeyRef",
        "kind: ConfigMap",
        "$(PW)",
        "imagePullPolicy: Never",
        "imagePullPolicy: IfNotPresent",
        "storage: 7Gi",
        "storageClassName: fast",
        "- ReadWriteMany",
        "page: <p>",
        "binaryData:",
        "key: page",
        "path: www/index.html",
        "configMap:",
        "secretName: keys",
    ] {
        assert!(made.contains(part), "{part}: {made}");
    }
    assert_eq!(made.matches("kind: Secret").count(), 1, "{made}");
    assert_eq!(made.matches("kind: ConfigMap").count(), 1, "{made}");
    for secret in ["heim", "never used"] {
        assert!(!made.contains(secret), "{secret}: {made}");
    }
    assert_eq!(shop.podctl.ok(&["up", "--strict", "-f", &shop.file(&made)]), "pod shop: unchanged", "{made}");
    assert_eq!(pids(), before);
    assert_eq!(shop.podctl.ok(&["generate", "kube", "shop"]), made, "the same again");
    // facts without effect are kept, and replace no app
    let text = text.replace("containerPort: 80,", "containerPort: 81,");
    assert_eq!(shop.up(&text).ok(), "pod shop: unchanged");
    assert_eq!(pids(), before);
    assert!(shop.podctl.ok(&["generate", "kube", "shop"]).contains("containerPort: 81"));

    // and the pod is made of it
    shop.podctl.ok(&["down", "shop"]);
    let path = shop.file(&made);
    shop.podctl.ok(&["up", "--strict", "-f", &path]);
    assert_eq!(
        shop.podctl.ok(&["generate", "kube", "shop"]).lines().skip(1).collect::<Vec<_>>(),
        made.lines().skip(1).collect::<Vec<_>>()
    );
    shop.podctl.ok(&["down", "--volumes", "-f", &path]);
    Ok(())
}

fn a_sandbox_comes_back_and_what_its_file_can_not_say_is_told(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    shop.podctl.ok(&["sandbox", "--name", "shop", "--net=none", "--pod-pids", "500"]);
    let of_shop = shop.pod();
    let uuid = of_shop.uuid.clone();
    let retried = ["--restart", "on-failure:3"];
    let add = |app: &str, more: &[&str]| {
        let words = [&["app", "add", "shop", "probe", "--name", app], &retried[..], more, &["--", "sleep", "inf"]];
        shop.podctl.ok(&words.concat());
        shop.podctl.ok(&["app", "start", "shop", app]);
    };
    add("a", &["--pids", "50", "--cpu-shares", "5", "--ulimit", "nofile=100", "-l", "team=shop"]);
    let made = shop.podctl.run(&["generate", "kube", "shop"]);
    let told = [
        "app a: a pod file has no words for --cpu-shares, --label team, --pids, --ulimit, \
         the limit of --restart on-failure:3: they are left out",
        "the pod: a pod file has no words for --pod-pids: it is left out",
    ];
    for line in told {
        assert!(made.stderr.contains(line), "{line}: {made}");
    }
    assert_eq!(made.stderr.lines().count(), told.len(), "{made}");
    let text = made.ok();
    for part in ["restartPolicy: OnFailure", "podctl.io/net: none", &format!("hostname: rkt-{uuid}")] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // the app of the file is another one; what is the pod's is as it was
    assert_eq!(shop.up(&text).ok(), "app a: replaced");
    let said = shop.podctl.run(&["generate", "kube", "shop"]);
    assert!(!said.stderr.contains("app a"), "{said}");
    assert_eq!(shop.podctl.ok(&["up", "--strict", "-f", &shop.file(&text)]), "pod shop: unchanged", "{text}");
    assert_eq!(shop.pod().uuid, uuid);
    // an isolated pod is as isolated when it is made of the file
    shop.podctl.ok(&["down", "shop"]);
    shop.up(&text).ok();
    let inspected = shop.podctl.json(&["inspect", "shop"]);
    assert_eq!(inspected["runtime"]["NetList"], serde_json::json!({ "none": "" }), "{inspected}");
    assert_eq!(shop.up(&text).ok(), "pod shop: unchanged");
    // the command line decides over the file; a file that asks for two networks at once is refused
    let differs = shop.podctl.fails(&["up", "--net=default-restricted", "-f", &shop.file(&text)]);
    assert!(differs.contains("the network can't be changed while the pod runs"), "{differs}");
    let both = shop.file(&text.replace("spec:\n", "spec:\n  hostNetwork: true\n"));
    assert!(shop.podctl.fails(&["up", "-f", &both]).contains("podctl.io/net (none) exclude each other"));
    shop.podctl.ok(&["down", "shop"]);
    // nothing is left to say of plain apps
    shop.podctl.ok(&["sandbox", "--name", "shop"]);
    shop.podctl.ok(&["app", "add", "shop", "probe", "--name", "b", "--", "sleep", "inf"]);
    shop.podctl.ok(&["app", "start", "shop", "b"]);
    let made = shop.podctl.run(&["generate", "kube", "shop"]);
    assert_eq!(made.stderr, "", "{made}");
    assert_eq!(shop.up(&made.ok()).ok(), "pod shop: unchanged");
    shop.podctl.ok(&["down", "shop"]);
    Ok(())
}

fn apps_by_name_several_at_once_and_files_without_an_option(t: &Context) -> Verdict {
    let shop = Shop::new(t);
    let apps: String = ["a", "b", "c"]
        .map(|app| format!("  - {{name: {app}, image: probe, command: [/probe, sleep, inf]}}\n"))
        .concat();
    let path = shop.file(&pod("shop", &format!("  restartPolicy: Never\n  containers:\n{apps}")));
    shop.podctl.ok(&["up", &path]);
    let of_shop = shop.pod();
    let states = || ["a", "b", "c"].map(|app| of_shop.state(app));
    shop.podctl.ok(&["app", "stop", "shop", "a", "c"]);
    assert_eq!(states(), ["exited", "running", "exited"]);
    // it goes on after a failure
    let line = shop.podctl.fails(&["app", "start", "shop", "a", "none", "c"]);
    assert!(line.contains("none") && !line.contains("\"a\""), "{line}");
    assert_eq!(states(), ["running"; 3]);
    let pid = || shop.podctl.json(&["inspect", "shop", "b"])["pid"].as_i64();
    let before = pid();
    shop.podctl.ok(&["app", "restart", "shop", "b", "c"]);
    assert_ne!(pid(), before);
    shop.podctl.ok(&["app", "rm", "shop", "a", "b"]);
    assert_eq!(of_shop.manifest_apps(), ["c"]);
    shop.podctl.ok(&["app", "stop", "shop"]);
    assert_eq!(of_shop.state("c"), "exited");
    assert_eq!(shop.podctl.ok(&["port", "shop"]), shop.podctl.ok(&["port", "list", "shop"]));

    let line = shop.podctl.fails(&["app", "add", "shop", "probe", "-p", "8080:80"]);
    assert!(line.contains("it is the pod's") && line.contains("podctl port add POD"), "{line}");
    assert!(shop.podctl.fails(&["network", "ls"]).contains("/etc/rkt/net.d"));
    let line = shop.podctl.fails(&["down", &path]);
    assert!(line.contains(&format!("for the pods of the file: -f {path}")), "{line}");
    // Words for whole pods: an app is not taken for one, and nothing is done.
    for verb in ["stop", "restart", "rm", "down"] {
        let line = shop.podctl.fails(&[verb, "shop", "c"]);
        assert!(line.contains("\"c\" is an app of pod shop") && line.contains("nothing was done"), "{line}");
    }
    // nor when the UUID of a pod starts with the app's name
    let app = &of_shop.uuid[..2];
    shop.podctl.ok(&["app", "add", "shop", "probe", "--name", app]);
    let line = shop.podctl.fails(&["rm", "shop", app]);
    assert!(line.contains("is an app of pod shop"), "{line}");
    shop.podctl.ok(&["app", "rm", "shop", app]);
    assert_eq!(of_shop.manifest_apps(), ["c"]);
    // The limits of the pod are not the file's: they stay.
    let only_c = shop.file(&pod(
        "shop",
        "  restartPolicy: Never\n  containers:\n  - {name: c, image: probe, command: [/probe, sleep, inf]}\n",
    ));
    shop.podctl.ok(&["update", "shop", "--pod-pids", "500"]);
    shop.podctl.ok(&["up", "-f", &only_c]);
    shop.podctl.ok(&["down", "-f", &path]);
    Ok(())
}

//! A pod as a file: `up`, `down`, `generate`.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::nethost::{Host, ask_from_here};
use tests::podctl::{Pod, Podctl, pod_file};
use tests::process::wait_for;

tests::cases! {
    native what_a_file_says_is_in_force;
    native up_again_changes_what_differs_and_nothing_else;
    native a_failed_up_leaves_the_pod_as_it_was;
    native what_there_is_no_way_to_do_is_refused_before_anything_is_done;
    native a_pod_with_ids_of_its_own_from_a_file;
    native ports_lead_to_the_pod;
}

/// Writes a file in the test's directory.
fn file(t: &Context, name: &str, text: &str) -> String {
    let path = t.dir.join(name);
    fs::write(&path, text).unwrap_or_else(|e| panic!("{name}: {e}"));
    path.display().to_string()
}

/// The pod of this name.
#[track_caller]
fn pod<'a>(podctl: &'a Podctl, name: &str) -> Pod<'a> {
    let uuid = podctl.json(&["inspect", name])["name"].as_str().expect("uuid").to_owned();
    Pod { podctl, uuid }
}

/// The PID of an app's first process.
#[track_caller]
fn pid(podctl: &Podctl, name: &str, app: &str) -> i64 {
    wait_for(&format!("the process of {app}"), 20, || podctl.json(&["inspect", name, app])["pid"].as_i64())
}

fn prepare(t: &Context) -> Podctl {
    let podctl = t.podctl();
    podctl.import_probe();
    fs::create_dir_all(podctl.out()).expect("out");
    fs::set_permissions(podctl.out(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
    podctl
}

fn what_a_file_says_is_in_force(t: &Context) -> Verdict {
    let podctl = prepare(t);
    let text = format!(
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {{name: settings}}
data: {{COLOUR: blue, page.html: "<p>hello</p>"}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{password: geheim}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {{name: kept, labels: {{team: shop}}}}
spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: shop, labels: {{app: shop}}, annotations: {{note: mine}}}}
spec:
  hostNetwork: true
  hostname: till
  restartPolicy: Never
  terminationGracePeriodSeconds: 3
  affinity: {{nodeAffinity: {{preferredDuringSchedulingIgnoredDuringExecution: [{{weight: 7, preference: {{}}}}]}}}}
  hostAliases: [{{ip: 10.1.2.3, hostnames: [elsewhere, there]}}]
  dnsConfig: {{nameservers: [10.9.8.7], searches: [example.org], options: [{{name: ndots, value: "3"}}]}}
  securityContext: {{runAsUser: 1001, runAsGroup: 2001, fsGroup: 4001, supplementalGroups: [3001]}}
  initContainers:
  - name: init
    image: probe
    command: [/probe, write, /empty/init, done]
    volumeMounts: [{{name: empty, mountPath: /empty}}]
  containers:
  - name: web
    image: probe
    bananas: 3
    command: [/probe]
    args: [report, "/out/$(NAME).json", +, sleep, inf]
    workingDir: /shared
    env:
    - {{name: NAME, value: web}}
    - {{name: BOTH, value: "$(NAME)-$(COLOUR)-$$(NAME)"}}
    - {{name: PASSWORD, valueFrom: {{secretKeyRef: {{name: keys, key: password}}}}}}
    - {{name: POD, valueFrom: {{fieldRef: {{fieldPath: metadata.name}}}}}}
    - {{name: LABEL, valueFrom: {{fieldRef: {{fieldPath: "metadata.labels['app']"}}}}}}
    - {{name: LIMIT, valueFrom: {{resourceFieldRef: {{resource: limits.memory}}}}}}
    envFrom: [{{configMapRef: {{name: settings}}}}, {{secretRef: {{name: none, optional: true}}}}]
    resources: {{limits: {{memory: 64Mi, cpu: 1}}, requests: {{cpu: 500m}}}}
    securityContext:
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {{drop: [ALL], add: [NET_BIND_SERVICE]}}
    lifecycle: {{stopSignal: SIGINT}}
    livenessProbe: {{exec: {{command: [/probe, cat, /config/www/index.html]}}, periodSeconds: 60}}
    tty: true
    volumeMounts:
    - {{name: out, mountPath: /out}}
    - {{name: empty, mountPath: /empty}}
    - {{name: memory, mountPath: /memory}}
    - {{name: config, mountPath: /config}}
    - {{name: secret, mountPath: /secret, readOnly: true}}
    - {{name: claim, mountPath: /data}}
  - name: second
    image: probe
    command: [/probe, sleep, inf]
    securityContext: {{runAsUser: 0, seccompProfile: {{type: Unconfined}}}}
    volumeMounts: [{{name: memory, mountPath: /memory}}, {{name: claim, mountPath: /claimed, readOnly: true}}]
  volumes:
  - {{name: out, hostPath: {{path: {out}, type: Directory}}}}
  - {{name: empty, emptyDir: {{}}}}
  - {{name: memory, emptyDir: {{medium: Memory, sizeLimit: 1Mi}}}}
  - {{name: config, configMap: {{name: settings, items: [{{key: page.html, path: www/index.html, mode: 0440}}]}}}}
  - {{name: secret, secret: {{secretName: keys, defaultMode: 0400}}}}
  - {{name: claim, persistentVolumeClaim: {{claimName: kept}}}}
"#,
        out = podctl.out().display()
    );
    let path = file(t, "shop.yaml", &text);
    let refused = podctl.fails(&["up", "--strict", "-f", &path]);
    for path in ["spec.containers[0].bananas", "spec.affinity"] {
        assert!(refused.contains(path), "{path}: {refused}");
    }
    assert!(podctl.ok(&["list", "-q"]).is_empty(), "a strict up that fails makes nothing");
    let done = podctl.run(&["up", "-f", &path]);
    assert!(done.stderr.contains("not honoured: Pod shop: spec.containers[0].bananas"), "{}", done.stderr);
    assert!(done.ok().contains("app web: added"));

    let shop = pod(&podctl, "shop");
    let report = shop.read("web");
    let env = &report["env"];
    for (name, value) in [
        ("BOTH", "web-blue-$(NAME)"),
        ("PASSWORD", "geheim"),
        ("POD", "shop"),
        ("LABEL", "shop"),
        ("LIMIT", "64Mi"),
        ("COLOUR", "blue"),
    ] {
        assert_eq!(env[name], value, "{env}");
    }
    assert_eq!(report["cwd"], "/shared", "{report}");
    assert_eq!(report["ids"]["uid"], json!([1001, 1001, 1001, 1001]), "{report}");
    assert_eq!(report["ids"]["gid"], json!([2001, 2001, 2001, 2001]));
    let cat = |app: &str, path: &str| shop.enter(app, &["/probe", "cat", path]).ok();
    assert_eq!(cat("web", "/empty/init"), "done", "init containers come first");
    assert_eq!(shop.exit_code("init"), 0);
    assert_eq!(cat("web", "/config/www/index.html"), "<p>hello</p>");
    assert_eq!(cat("second", "/claimed/kept"), "from the image", "the claim's first content");
    let stat = |app: &str, path: &str| -> Value {
        serde_json::from_str(&shop.enter(app, &["/probe", "stat", path]).ok()).expect("stat")
    };
    assert_eq!(stat("web", "/config/www/index.html")["mode"], "0440");
    assert_eq!(stat("web", "/config/www/index.html")["gid"], 4001);
    assert_eq!(stat("second", "/memory")["gid"], 4001);
    assert_eq!(stat("web", "/empty")["mode"], "2777");
    assert_eq!(shop.enter("second", &["/probe", "open", "w", "/claimed/kept"]).ok(), "EROFS");
    // an `emptyDir` in memory is shared, and limited in size
    shop.enter("second", &["/probe", "write", "/memory/word", "spoken"]).ok();
    assert_eq!(cat("web", "/memory/word"), "spoken");
    let found = podctl.json(&["inspect", "shop", "web"]);
    let memory = found["mounts"].as_array().expect("mounts").iter().find(|m| m["target"] == "/memory").cloned();
    assert_eq!(memory.expect("/memory")["type"], "tmpfs");
    assert_eq!(found["read_only_rootfs"], true);
    assert_eq!(found["no_new_privileges"], true);
    assert_eq!(found["capabilities"], json!(["CAP_NET_BIND_SERVICE"]), "{found}");
    let groups = found["supplementary_groups"].as_array().expect("groups");
    assert!(groups.contains(&json!(3001)) && groups.contains(&json!(4001)), "{groups:?}");
    assert_eq!(found["annotations"]["podctl.io/stop-signal"], "SIGINT");
    assert_eq!(found["annotations"]["coreos.com/rkt/stage2/stdin"], "tty");
    let health = found["annotations"]["podctl.io/health-check"].as_str().unwrap_or_default();
    assert!(health.contains("index.html") && health.contains("\"interval_ms\":60000"), "{health}");
    assert_eq!(podctl.json(&["inspect", "shop", "second"])["seccomp"], "unconfined");
    assert!(cat("second", "/etc/hosts").contains("10.1.2.3\telsewhere there"));
    assert!(cat("second", "/etc/resolv.conf").contains("nameserver 10.9.8.7"));
    assert!(cat("second", "/etc/resolv.conf").contains("options ndots:3"));
    assert_eq!(cat("second", "/etc/hostname"), "till");
    let claimed = podctl.json(&["volume", "inspect", "kept"]);
    assert_eq!(claimed[0]["labels"], json!({"team": "shop"}));

    // and back
    let made = podctl.ok(&["generate", "kube", "shop"]);
    let again = file(t, "again.yaml", &made);
    let before = (pid(&podctl, "shop", "web"), pid(&podctl, "shop", "second"));
    assert_eq!(podctl.ok(&["up", "--strict", "-f", &again]), "pod shop: unchanged", "{made}");
    assert_eq!(before, (pid(&podctl, "shop", "web"), pid(&podctl, "shop", "second")));

    assert_eq!(podctl.ok(&["down", "-f", &path]), "pod shop: removed");
    assert_eq!(podctl.ok(&["volume", "ls", "-q"]), "kept", "claims outlive their pods");
    assert!(podctl.ok(&["down", "-f", &path, "--volumes"]).contains("volume kept: removed"));
    Ok(())
}

/// A pod of several apps that sleep, each with these arguments.
fn sleepers(apps: &[(&str, &str)]) -> String {
    let mut text = pod_file("shop", "  containers:\n");
    for (name, more) in apps {
        text += &format!("  - {{name: {name}, image: probe, command: [/probe, sleep, inf]{more}}}\n");
    }
    text
}

fn up_again_changes_what_differs_and_nothing_else(t: &Context) -> Verdict {
    let podctl = prepare(t);
    let up = |text: &str, more: &[&str]| {
        let path = file(t, "pod.yaml", text);
        podctl.ok(&[&["up", "-f", &path], more].concat())
    };
    let map = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {word: WORD}\n---\n";
    let with_map = |word: &str| {
        let mounts = ", volumeMounts: [{name: c, mountPath: /c}]";
        let pod = sleepers(&[("a", ""), ("b", ", env: [{name: N, value: \"1\"}]"), ("c", mounts)]);
        format!("{}{pod}  volumes: [{{name: c, configMap: {{name: c}}}}]\n", map.replace("WORD", word))
    };
    let first = up(&with_map("one"), &[]);
    assert_eq!(first, "pod shop: started\napp a: added\napp b: added\napp c: added");
    let shop = pod(&podctl, "shop");
    let pids = || ["a", "b", "c"].map(|app| pid(&podctl, "shop", app));
    let before = pids();
    assert_eq!(up(&with_map("one"), &[]), "pod shop: unchanged");
    assert_eq!(up(&with_map("one"), &["--dry-run"]), "pod shop: unchanged");
    let labelled = with_map("one").replace("metadata: {name: shop}", "metadata: {name: shop, labels: {team: a}}");
    assert_eq!(up(&labelled, &["--dry-run"]), "pod shop: labels and annotations would be changed");
    assert_eq!(up(&labelled, &[]), "pod shop: labels and annotations changed");
    assert_eq!(up(&with_map("one"), &[]), "pod shop: labels and annotations changed");
    assert_eq!(pids(), before);

    // only the content of a ConfigMap
    assert_eq!(up(&with_map("two"), &["--dry-run"]), "app c: would be replaced");
    assert_eq!(up(&with_map("two"), &[]), "app c: replaced");
    assert_eq!(shop.enter("c", &["/probe", "cat", "/c/word"]).ok(), "two");
    let now = pids();
    assert_eq!(now[..2], before[..2]);
    assert_ne!(now[2], before[2]);
    let contents = fs::read_dir(shop.dir().join("sharedVolumes"))?.count();
    assert_eq!(contents, 1, "what nobody mounts any more is gone");

    // one app changed, one new, one removed; `-` is standard input
    let text = sleepers(&[("a", ""), ("b", ", env: [{name: N, value: \"2\"}]"), ("d", "")]);
    let said = tests::process::run_with_input(&mut podctl.command(&["up", "-f", "-"]), &text).ok();
    assert_eq!(said, "app c: removed\napp b: replaced\napp d: added");
    assert_eq!(pid(&podctl, "shop", "a"), before[0], "the others are not touched");
    assert_ne!(pid(&podctl, "shop", "b"), before[1]);
    assert_eq!(shop.manifest_apps(), ["a", "b", "d"]);

    // fields that are fixed when a pod is made
    let text = text.replace("  hostNetwork: true\n", "  hostNetwork: true\n  hostname: other\n");
    let path = file(t, "pod.yaml", &text);
    let line = podctl.fails(&["up", "-f", &path]);
    assert!(line.contains("the host name can't be changed while the pod runs: --replace"), "{line}");
    assert_eq!(pid(&podctl, "shop", "a"), before[0]);
    podctl.ok(&["up", "-f", &path, "--replace"]);
    assert_ne!(pod(&podctl, "shop").uuid, shop.uuid);
    // a pod that has ended is made again
    podctl.ok(&["stop", "shop"]);
    assert!(podctl.ok(&["up", "-f", &path]).starts_with("pod shop: it had ended and was removed"));
    let refused = podctl.run(&["down", "shop", "--volumes"]).complaint();
    assert!(refused.contains("name the file with -f"), "{refused}");
    assert_eq!(podctl.ok(&["down", "shop"]), "pod shop: removed");
    assert!(podctl.ok(&["list", "-q"]).is_empty());
    Ok(())
}

fn a_failed_up_leaves_the_pod_as_it_was(t: &Context) -> Verdict {
    let podctl = prepare(t);
    let path = file(t, "pod.yaml", &sleepers(&[("a", ""), ("b", ""), ("gone", "")]));
    podctl.ok(&["up", "-f", &path]);
    let shop = pod(&podctl, "shop");
    let manifest = fs::read_to_string(shop.dir().join("pod"))?;
    let a = pid(&podctl, "shop", "a");
    // b changes, and c can't be started: its program does not exist
    let text = sleepers(&[("a", ""), ("b", ", env: [{name: N, value: \"2\"}]")]);
    let text = format!("{text}  - {{name: c, image: probe, command: [/no/such]}}\n");
    let line = podctl.run(&["up", "-f", &file(t, "bad.yaml", &text)]);
    assert_ne!(line.code, Some(0));
    assert!(
        line.stderr.contains("app c") && line.stderr.contains("the pod is as it was; restored: b, gone"),
        "{}",
        line.stderr
    );
    let names = |text: &str| -> Vec<String> {
        let manifest: Value = serde_json::from_str(text).expect("manifest");
        let mut apps: Vec<String> = manifest["apps"].as_array().expect("apps").iter().map(Value::to_string).collect();
        apps.sort();
        apps
    };
    assert_eq!(names(&fs::read_to_string(shop.dir().join("pod"))?), names(&manifest));
    assert_eq!(pid(&podctl, "shop", "a"), a);
    for app in ["b", "gone"] {
        assert_eq!(shop.state(app), "running");
    }
    // a pod that can't be made completely is not made
    let text = text.replace("name: shop", "name: other");
    let line = podctl.run(&["up", "-f", &file(t, "other.yaml", &text)]);
    assert!(line.stderr.contains("the pod was removed again"), "{}", line.stderr);
    assert_eq!(podctl.ok(&["list", "-q"]), shop.uuid);
    podctl.ok(&["down", "shop"]);
    Ok(())
}

fn what_there_is_no_way_to_do_is_refused_before_anything_is_done(t: &Context) -> Verdict {
    let podctl = prepare(t);
    let base = sleepers(&[("a", "")]);
    let spec = |more: &str| base.replace("  hostNetwork: true\n", &format!("  hostNetwork: true\n  {more}\n"));
    let container = |more: &str| sleepers(&[("a", &format!(", {more}"))]);
    let limit = |limit: &str| container(&format!("resources: {{limits: {{{limit}}}}}"));
    for (text, why) in [
        (spec("hostPID: true"), "spec.hostPID"),
        (spec("restartPolicy: Sometimes"), "spec.restartPolicy"),
        (spec("securityContext: {sysctls: [{name: kernel.panic, value: \"1\"}]}"), "kernel.panic"),
        (spec("volumes: [{name: v, nfs: {server: s, path: /}}]"), "expected hostPath, emptyDir"),
        (spec("volumes: [{name: v, hostPath: {path: /no/such}}]"), "/no/such"),
        (spec("volumes: [{name: v, configMap: {name: none}}]"), "the file has no ConfigMap \"none\""),
        (spec("terminationGracePeriodSeconds: 99999999999"), "spec.terminationGracePeriodSeconds 99999999999"),
        (spec("terminationGracePeriodSeconds: -1"), "spec.terminationGracePeriodSeconds -1"),
        (
            limit("memory: 64m"),
            "spec.containers[0].resources.limits.memory: \"64m\": m means thousandths of a byte: 64Mi",
        ),
        (limit("memory: 1n"), "spec.containers[0].resources.limits.memory"),
        (limit("memory: 1000"), "spec.containers[0].resources.limits.memory"),
        (limit("cpu: 0"), "spec.containers[0].resources.limits.cpu"),
        (limit("cpu: 1n"), "spec.containers[0].resources.limits.cpu"),
        (
            spec("volumes: [{name: v, emptyDir: {medium: Memory, sizeLimit: 64m}}]"),
            "spec.volumes[0].emptyDir.sizeLimit",
        ),
        (container("securityContext: {privileged: true}"), "securityContext.privileged"),
        (container("securityContext: {runAsNonRoot: true}"), "runAsNonRoot"),
        (container("securityContext: {capabilities: {add: [BANANA]}}"), "\"BANANA\" is not a capability"),
        (container("securityContext: {seccompProfile: {type: Localhost}}"), "seccompProfile"),
        (container("volumeMounts: [{name: none, mountPath: /x}]"), "no volume \"none\""),
        (container("env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]"), "fieldRef \"status.podIP\""),
        (
            container("volumeMounts: [{name: v, mountPath: /x, subPath: y}]")
                .replace("  hostNetwork", "  volumes: [{name: v, emptyDir: {medium: Memory}}]\n  hostNetwork"),
            "subPath: not of an emptyDir in memory",
        ),
        (container("lifecycle: {preStop: {tcpSocket: {port: 1}}}"), "lifecycle.preStop"),
        (base.replace("kind: Pod", "kind: Job"), "kind \"Job\""),
        (container("env: [{name: A, value: 1}]"), "spec.containers[0].env[0].value"),
        (container("imagePullPolicy: Perhaps"), "imagePullPolicy"),
        (base.replace("image: probe", "imagePullPolicy: Never, image: none-of-this"), "none-of-this"),
        (base.replace("kind: Pod", "kind: Banana"), "kind \"Banana\""),
        (base.replace("name: shop", "name: ../x"), "metadata.name"),
        ("a: [".to_owned(), "not YAML"),
        (String::new(), "no Pod"),
    ] {
        let path = file(t, "bad.yaml", &text);
        let line = podctl.run(&["up", "-f", &path]);
        assert_ne!(line.code, Some(0), "{text}");
        assert_eq!(line.stdout, "", "nothing was made: {text}");
        let last = line.stderr.lines().last().unwrap_or_default();
        assert!(last.contains(why), "{why}: {}", line.stderr);
        assert!(podctl.ok(&["list", "-q"]).is_empty(), "{text}");
    }
    Ok(())
}

fn a_pod_with_ids_of_its_own_from_a_file(t: &Context) -> Verdict {
    let podctl = prepare(t);
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {key: Z2VoZWlt}\n---\n\
        apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: shop}\nspec:\n  replicas: 1\n  \
        selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: b}}\n    spec:\n      hostUsers: false\n      \
        securityContext: {sysctls: [{name: kernel.shmmni, value: \"123\"}]}\n      \
        containers:\n      - name: a\n        image: probe\n        command: [/probe, sleep, inf]\n        \
        volumeMounts: [{name: s, mountPath: /s}, {name: m, mountPath: /m}, {name: v, mountPath: /data}]\n      volumes:\n      \
        - {name: s, secret: {secretName: s, defaultMode: 0400}}\n      - {name: m, emptyDir: {medium: Memory}}\n      \
        - {name: v, persistentVolumeClaim: {claimName: kept}}\n";
    let path = file(t, "pod.yaml", text);
    podctl.ok(&["up", "--net=none", "-f", &path]);
    let shop = pod(&podctl, "shop-pod");
    assert_eq!(shop.enter("a", &["/probe", "cat", "/s/key"]).ok(), "geheim");
    assert_eq!(shop.enter("a", &["/probe", "cat", "/proc/sys/kernel/shmmni"]).ok(), "123");
    let stat: Value = serde_json::from_str(&shop.enter("a", &["/probe", "stat", "/s/key"]).ok())?;
    assert_eq!((stat["uid"].as_u64(), stat["mode"].as_str()), (Some(0), Some("0400")), "{stat}");
    shop.enter("a", &["/probe", "write", "/m/x", "y"]).ok();
    shop.enter("a", &["/probe", "write", "/data/x", "y"]).ok();
    let data = podctl.json(&["volume", "inspect", "kept"])[0]["path"].as_str().expect("path").to_owned();
    assert_eq!(fs::metadata(format!("{data}/x"))?.uid(), 0);
    let before = pid(&podctl, "shop-pod", "a");
    assert_eq!(podctl.ok(&["up", "--net=none", "-f", &path]), "pod shop-pod: unchanged");
    assert_eq!(pid(&podctl, "shop-pod", "a"), before);
    podctl.ok(&["down", "-f", &path, "--volumes"]);
    Ok(())
}

fn ports_lead_to_the_pod(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let local = t.dir.join("etc").display().to_string();
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: shop}\nspec:\n  containers:\n  \
        - {name: a, image: probe, command: [/probe, answer, tcp, \"80\", hello], \
        ports: [{containerPort: 80, hostPort: 8099}, {containerPort: 81}]}\n";
    let path = file(t, "pod.yaml", text);
    let up = ["up", "--net=br", "--local-config", &local, "-f", &path];
    host.podctl.ok(&up);
    assert_eq!(ask_from_here("tcp", "127.0.0.1:8099"), "hello");
    let before = pid(&host.podctl, "shop", "a");
    let made = file(t, "again.yaml", &host.podctl.ok(&["generate", "kube", "shop"]));
    assert_eq!(host.podctl.ok(&["up", "--net=br", "--local-config", &local, "-f", &made]), "pod shop: unchanged");
    assert_eq!(pid(&host.podctl, "shop", "a"), before);
    // Other ports of a pod that runs: its apps run on.
    let text = text.replace("hostPort: 8099", "hostPort: 8098");
    let path = file(t, "pod.yaml", &text);
    let up =
        |more: &[&str]| host.podctl.ok(&[&["up", "--net=br", "--local-config", &local, "-f", &path], more].concat());
    assert_eq!(up(&["--dry-run"]), "pod shop: ports would be changed");
    assert_eq!(up(&[]), "pod shop: ports changed");
    assert_eq!(ask_from_here("tcp", "127.0.0.1:8098"), "hello");
    assert!(std::net::TcpStream::connect("127.0.0.1:8099").is_err(), "the old port still leads there");
    assert_eq!(pid(&host.podctl, "shop", "a"), before);
    assert_eq!(up(&[]), "pod shop: unchanged");
    host.podctl.ok(&["down", "shop"]);
    Ok(())
}

//! Tests the host manager's side of the stage1 contract, with a stage1 image whose entrypoints are shell scripts that
//! record how they are called. The end-to-end tests run the real stage1.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

/// Records the entrypoint's arguments, environment, descriptors and working directory in the pod's directory.
const NOTE: &str = r#"#!/bin/sh
name=$(basename "$0")
{ for arg; do echo "arg $arg"; done; tr '\0' '\n' </proc/$$/environ | sed 's/^/env /'
  echo "cwd $PWD"; echo "self $0"
} >"called-$name"
ls -l /proc/$$/fd >>"called-$name"
if [ -e "$PWD/fail-$name" ]; then echo "first line"; echo "$name can't" >&2; exit 254; fi
"#;

const RUN: &str = r#"
flock -n . true && echo unlocked >lock-was
trap 'exit 0' TERM
echo $$ >pid
ln -s ready stage1/rootfs/rkt/supervisor-status
while :; do sleep 0.02; done
"#;

struct Fake {
    base: tempfile::TempDir,
    stage1: PathBuf,
}

impl Fake {
    /// Makes a stage1 image whose `run` executes this script after the record; `None` without root, as mounting needs
    /// it.
    fn new(run: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: mounting needs root");
            return None;
        }
        let base = tempfile::tempdir().unwrap();
        let root = base.path().join("stage1-root");
        for dir in ["rkt/status", "rkt/env", "opt/stage2", "opt/stage1/bin"] {
            fs::create_dir_all(root.join(dir)).unwrap();
        }
        std::os::unix::fs::symlink("fake", root.join("flavor")).unwrap();
        let scripts = [
            ("run", run),
            ("enter", "echo entered; exit 9"),
            ("gc", "echo \"$*\" >>../../../gc-calls"),
            ("stop", "kill $(cat pid)"),
            ("app-add", "echo unit >stage1/rootfs/unit; echo 'app-add: warn: no limit here'; echo 'app-add: debug: x'"),
            ("app-start", ""),
            ("app-stop", "if [ -e exits ]; then cat exits >stage1/rootfs/rkt/status/a; else exit 5; fi"),
            ("app-rm", "rm -f stage1/rootfs/unit"),
        ];
        let mut annotations = Vec::new();
        for (name, script) in scripts {
            let path = root.join("opt/stage1/bin").join(name);
            fs::write(&path, format!("{NOTE}\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            let annotation = format!("coreos.com/rkt/stage1/{}", name.replace("app-", "app/"));
            annotations.push(json!({"name": annotation, "value": format!("/opt/stage1/bin/{name}")}));
        }
        let manifest = json!({
            "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "example.com/stage1", "annotations": annotations,
            "labels": [{"name": "version", "value": "1"}],
        });
        let stage1 = base.path().join("stage1.aci");
        stage0::image::archive::pack(manifest.to_string().as_bytes(), &root, fs::File::create(&stage1).unwrap(), true)
            .unwrap();
        let app = base.path().join("app-root");
        fs::create_dir_all(app.join("bin")).unwrap();
        fs::write(app.join("bin/app"), "program").unwrap();
        Some(Self { base, stage1 })
    }

    fn data(&self) -> PathBuf {
        self.base.path().join("data").canonicalize().unwrap()
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = Command::new("/bin/sh");
        // with a descriptor that the pod must not inherit
        command.args(["-c", "exec 7</etc/passwd; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_podctl")]);
        command.arg("--dir").arg(self.base.path().join("data")).args(args).env("OF_THE_CALLER", "1").output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Runs a command that must fail with a message of one line; that line.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code().is_some_and(|code| code != 0), "{args:?} succeeded");
        assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
        text.trim().to_owned()
    }

    #[track_caller]
    fn sandbox(&self, more: &[&str]) -> String {
        self.ok(&[&["sandbox", "--stage1", self.stage1.to_str().unwrap()], more].concat())
    }

    #[track_caller]
    fn import(&self) -> String {
        let root = self.base.path().join("app-root");
        self.ok(&["image", "import", root.to_str().unwrap(), "--name", "app", "--exec", "/bin/app", "--", "x"])
    }

    fn pod(&self, uuid: &str) -> PathBuf {
        self.data().join("pods/run").join(uuid)
    }

    fn mounts(&self) -> usize {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        table.lines().filter(|line| line.contains(self.data().to_str().unwrap())).count()
    }

    /// Stops and removes the pod, and checks that nothing of it is left.
    fn end(&self, uuid: &str) {
        self.ok(&["stop", uuid]);
        self.ok(&["rm", uuid]);
        self.nothing_left();
        assert_eq!(fs::read_to_string(self.data().join("gc-calls")).unwrap(), format!("{uuid}\n"));
    }

    fn nothing_left(&self) {
        assert_eq!(self.mounts(), 0);
        for phase in self.data().join("pods").read_dir().unwrap() {
            assert_eq!(phase.unwrap().path().read_dir().unwrap().count(), 0);
        }
    }
}

impl Drop for Fake {
    /// A test that failed must not leave its pod.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for pod in self.data().join("pods/run").read_dir().into_iter().flatten().flatten() {
                let uuid = pod.file_name().into_string().unwrap();
                for verb in ["stop", "rm"] {
                    eprintln!("{verb}: {:?}", self.run(&[verb, &uuid]).status);
                }
            }
        }
    }
}

/// What an entrypoint recorded, by kind: `arg`, `env`, `cwd`, `self`, `fd`.
fn noted(pod: &Path, name: &str) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in fs::read_to_string(pod.join(format!("called-{name}"))).unwrap().lines() {
        let (kind, rest) = match line.split_once(" -> ") {
            Some((before, to)) => ("fd", format!("{} {to}", before.rsplit(' ').next().unwrap())),
            None => line.split_once(' ').map(|(kind, rest)| (kind, rest.to_owned())).unwrap(),
        };
        found.entry(kind.to_owned()).or_default().push(rest);
    }
    found
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn a_pod_is_prepared_and_run_as_the_contract_says() {
    let Some(fake) = Fake::new(RUN) else { return };
    let volume = "--volume=v,kind=host,source=/usr,readOnly=true";
    let uuid = fake.sandbox(&["--hostname", "h1", "--net=none", volume]);
    let pod = fake.pod(&uuid);

    let manifest = json_file(&pod.join("pod"));
    assert_eq!(manifest["acKind"], "PodManifest");
    assert_eq!(manifest["annotations"][0], json!({"name": "coreos.com/rkt/stage1/mutable", "value": "true"}));
    assert_eq!(manifest["volumes"][0], json!({"name": "v", "kind": "host", "source": "/usr", "readOnly": true}));
    let mode = |name: &str| pod.join(name).metadata().unwrap().mode() & 0o777;
    assert_eq!((mode("pod"), mode("pod.lck"), mode("console")), (0o640, 0o600, 0o640));
    assert_eq!(fs::read_link(pod.join("flavor")).unwrap(), Path::new("fake"));
    assert!(pod.join("pod-created").exists() && pod.join("overlay-prepared").exists());
    let tree = fs::read_to_string(pod.join("stage1TreeStoreID")).unwrap();
    assert!(
        pod.join("overlay").join(&tree).join("upper/rkt/status").is_dir(),
        "the status directory is in the upper layer"
    );
    assert!(pod.join("overlay").join(&tree).join("work").is_dir());

    let run = noted(&pod, "run");
    assert_eq!(run["arg"], ["--net=none", "--mutable", "--hostname=h1", &uuid]);
    assert_eq!(run["cwd"], [pod.to_str().unwrap()]);
    let entrypoint = fake.data().join("trees").join(&tree).join("rootfs/opt/stage1/bin/run");
    assert_eq!(run["self"], [entrypoint.to_str().unwrap()], "executed out of the tree store");
    let lock = run["env"].iter().find_map(|line| line.strip_prefix("RKT_LOCK_FD=")).unwrap();
    for expected in ["RKT_SELINUX_CONTEXT=", "RKT_SELINUX_MOUNT_CONTEXT=", "OF_THE_CALLER=1"] {
        assert!(run["env"].contains(&expected.to_owned()), "{expected}");
    }
    let console = pod.join("console");
    for line in &run["fd"] {
        let (number, to) = line.split_once(' ').unwrap();
        // the shell's own descriptors: its script, and those it saves while it redirects the output of this `ls`
        if number.len() > 1 || (number == "1" && to.ends_with("/called-run")) {
            continue;
        }
        let expected = match number {
            "0" => "/dev/null",
            "1" | "2" => console.to_str().unwrap(),
            number if number == lock => pod.to_str().unwrap(),
            _ => "nothing",
        };
        assert_eq!(to, expected, "descriptor {number}");
    }
    assert!(!pod.join("lock-was").exists(), "the directory was not locked");

    let status: Value = serde_json::from_str(&fake.ok(&["status", &uuid, "--format", "json"])).unwrap();
    assert_eq!((status["name"].as_str(), status["state"].as_str()), (Some(uuid.as_str()), Some("running")));
    assert!(fake.fails(&["rm", &uuid]).contains("running"));
    fake.end(&uuid);
}

#[test]
fn an_app_is_added_started_stopped_and_removed_by_the_entrypoints() {
    let Some(fake) = Fake::new(RUN) else { return };
    let image = fake.import();
    let uuid = fake.sandbox(&["--volume=v,kind=empty"]);
    let pod = fake.pod(&uuid);
    fake.ok(&[
        "app",
        "add",
        &uuid[..8],
        &image[..20],
        "--name",
        "a",
        "--env",
        "K=v w",
        "--mount",
        "volume=v,target=/d",
    ]);

    let rootfs = pod.join("stage1/rootfs");
    let pid = fs::read_to_string(pod.join("pid")).unwrap();
    let tree = fs::read_to_string(pod.join("stage1TreeStoreID")).unwrap();
    let bin = fake.data().join("trees").join(tree).join("rootfs/opt/stage1/bin");
    let add = noted(&pod, "app-add");
    assert_eq!(add["arg"], ["--debug=false", "--app=a", &format!("--uuid={uuid}")]);
    assert_eq!(add["cwd"], [pod.to_str().unwrap()]);
    let mut environment = add["env"].clone();
    environment.sort();
    let path = std::env::var("PATH").unwrap();
    let expected = [
        format!("PATH={path}"),
        format!("RKT_STAGE1_ENTERCMD={}", bin.join("enter").display()),
        format!("RKT_STAGE1_ENTERPID={}", pid.trim()),
    ];
    // variables that the shell sets itself
    environment.retain(|line| !["PWD=", "SHLVL=", "_=", "OLDPWD="].iter().any(|own| line.starts_with(own)));
    assert_eq!(environment, expected);

    assert_eq!(fs::read_to_string(rootfs.join("rkt/env/a")).unwrap(), "K=v w\nAC_APP_NAME=a\n");
    assert_eq!(fs::read_to_string(rootfs.join("opt/stage2/a/rootfs/bin/app")).unwrap(), "program");
    assert_eq!(fs::read_to_string(pod.join("appsinfo/a/treeStoreID")).unwrap(), image);
    assert!(pod.join("overlay").join(&image).join("upper/a").is_dir());
    let listed = &json_file(&pod.join("pod"))["apps"][0];
    assert_eq!((listed["name"].as_str(), listed["image"]["id"].as_str()), (Some("a"), Some(image.as_str())));
    assert_eq!(listed["app"]["exec"], json!(["/bin/app", "x"]));
    let state = || {
        let text = fake.ok(&["app", "status", &uuid, "--app", "a", "--format", "json"]);
        let status: Value = serde_json::from_str(&text).unwrap();
        status["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(), "created");

    fs::write(pod.join("fail-app-start"), "").unwrap();
    let line = fake.fails(&["app", "start", &uuid, "a"]);
    assert!(line.contains("app-start can't (ended with 254)"), "{line}");
    assert_eq!(state(), "created", "a failed start does not count as running");
    fs::remove_file(pod.join("fail-app-start")).unwrap();
    fake.ok(&["app", "start", &uuid, "a"]);
    assert_eq!(state(), "running");
    fs::remove_file(pod.join("called-app-start")).unwrap();
    fake.ok(&["app", "start", &uuid, "a"]);
    assert!(!pod.join("called-app-start").exists(), "a second start does nothing");

    fs::write(pod.join("exits"), "3\n").unwrap();
    fake.ok(&["app", "stop", &uuid, "a", "--timeout", "2"]);
    assert_eq!(noted(&pod, "app-stop")["arg"], ["--debug=false", "--app=a", "--timeout=2"]);
    assert_eq!(state(), "exited");
    let text = fake.ok(&["app", "status", &uuid, "--app", "a", "--format", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap()["exit_code"], 3);
    fake.ok(&["app", "start", &uuid, "a"]);
    assert_eq!(state(), "running", "an app that has exited is started anew");

    let entered = fake.run(&["enter", &uuid, "--app", "a", "--", "ls", "-l"]);
    assert_eq!((entered.status.code(), entered.stdout.as_slice()), (Some(9), &b"entered\n"[..]));
    assert_eq!(noted(&pod, "enter")["arg"], [&format!("--pid={}", pid.trim()), "--appname=a", "--", "ls", "-l"]);

    fake.ok(&["app", "rm", &uuid, "a"]);
    assert_eq!(json_file(&pod.join("pod"))["apps"], json!([]));
    for gone in ["appsinfo/a", "stage1/rootfs/opt/stage2/a", "stage1/rootfs/rkt/env/a", "stage1/rootfs/unit"] {
        assert!(!pod.join(gone).exists(), "{gone}");
    }
    assert_eq!(rootfs.join("rkt/status").read_dir().unwrap().count(), 0);
    assert!(!pod.join("overlay").join(&image).exists());
    assert!(fake.fails(&["app", "rm", &uuid, "a"]).contains("no app a"));
    fake.end(&uuid);
}

/// The mode and content of every file of a pod that `app add` could change.
fn picture(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let stat = path.symlink_metadata().unwrap();
        // not the records of the entrypoints, nor the overlay's directories, which keep traces of removed files
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("called-") || name == "work" || name == "upper" {
            continue;
        }
        let content = if stat.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        found.push(format!("{path:?} {:o} {}", stat.mode(), String::from_utf8_lossy(&content)));
        if stat.is_dir() {
            todo.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found.sort();
    found
}

#[test]
fn a_failed_or_interrupted_add_leaves_the_pod_as_it_was() {
    let Some(fake) = Fake::new(RUN) else { return };
    fake.import();
    let uuid = fake.sandbox(&["--volume=v,kind=host,source=/usr"]);
    let pod = fake.pod(&uuid);
    // with other white space, and with a field that podctl does not know
    let text = fs::read_to_string(pod.join("pod")).unwrap().replacen('{', "{ \"later\":\t1,", 1);
    fs::write(pod.join("pod"), text).unwrap();
    fs::write(pod.join("fail-app-add"), "").unwrap();
    let before = picture(&pod);
    let mounts = fake.mounts();
    let add = ["app", "add", &uuid, "app", "--name", "a"];
    let line = fake.fails(&add);
    assert!(line.contains("app-add can't"), "{line}");
    assert_eq!((picture(&pod), fake.mounts()), (before.clone(), mounts));

    for (more, why) in [
        (["--memory", "banana"], "banana"),
        (["--mount", "volume=w,target=/x"], "no volume w"),
        (["--env", "A\nC=d"], "name of a variable"),
        (["--cpu", "-1"], "--cpu"),
    ] {
        let line = fake.fails(&[&add[..], &more].concat());
        assert!(line.contains(why), "{line}");
        assert_eq!(picture(&pod), before);
    }

    // podctl is killed during app-add, which goes on for 0.5 s
    let stage1_tree = fs::read_to_string(pod.join("stage1TreeStoreID")).unwrap();
    let script = fake.data().join("trees").join(stage1_tree).join("rootfs/opt/stage1/bin/app-add");
    let script_text = fs::read_to_string(&script).unwrap();
    fs::remove_file(pod.join("fail-app-add")).unwrap();
    let before = picture(&pod);
    fs::write(&script, format!("{script_text}\nkill -9 $PPID; sleep 0.5; echo late >stage1/rootfs/unit\n")).unwrap();
    assert_eq!(fake.run(&add).status.code(), None);
    fs::write(&script, script_text).unwrap();
    assert!(pod.join("pod.adding-a").exists());
    assert!(fake.fails(&["app", "start", &uuid, "a"]).contains("interrupted"));
    fake.ok(&["app", "rm", &uuid, "a"]);
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!((picture(&pod), fake.mounts()), (before, mounts));
    fake.ok(&add);
    let manifest = json_file(&pod.join("pod"));
    assert_eq!((manifest["later"].as_i64(), manifest["apps"].as_array().map(Vec::len)), (Some(1), Some(1)));
    assert!(fake.fails(&add).contains("already has an app a"));
    fake.end(&uuid);
}

#[test]
fn pods_that_take_no_apps_say_why() {
    let Some(fake) = Fake::new(RUN) else { return };
    fake.import();
    let uuid = fake.sandbox(&[]);
    let pod = fake.pod(&uuid);
    let add = ["app", "add", &uuid, "app", "--name", "a"];
    let text = fs::read_to_string(pod.join("pod")).unwrap();
    fs::write(pod.join("pod"), text.replace("true", "false")).unwrap();
    assert!(fake.fails(&add).contains("immutable"));
    fs::write(pod.join("pod"), text).unwrap();
    let ready = pod.join("stage1/rootfs/rkt/supervisor-status");
    fs::remove_file(&ready).unwrap();
    assert!(fake.fails(&add).contains("not ready"));
    std::os::unix::fs::symlink("ready", &ready).unwrap();
    fake.ok(&["stop", &uuid]);
    fake.ok(&["stop", &uuid]);
    assert!(fake.fails(&add).contains("exited, not running"));
    assert!(fake.fails(&["app", "add", "", "app"]).contains("no pod"));
    fake.ok(&["gc", "--grace-period", "1h"]);
    assert!(fake.data().join("pods/exited-garbage").join(&uuid).exists(), "marked");
    fake.ok(&["gc", "--grace-period", "1h"]);
    assert_eq!(fake.mounts(), 1, "kept for its grace period");
    fake.ok(&["gc", "--grace-period", "0s"]);
    fake.nothing_left();
}

#[test]
fn a_pod_that_does_not_come_up_tells_why_and_leaves_nothing() {
    let Some(fake) = Fake::new("echo starting; echo 'no such luck' >&2; exit 3") else { return };
    let line = fake.fails(&["sandbox", "--stage1", fake.stage1.to_str().unwrap()]);
    assert!(line.contains("did not come up") && line.contains("starting | no such luck"), "{line}");
    fake.nothing_left();
    let line = fake.fails(&["sandbox", "--stage1", "/no/such/file"]);
    assert!(line.contains("/no/such/file"), "{line}");
}

#[test]
fn images_have_names_ids_and_prefixes() {
    let Some(fake) = Fake::new(RUN) else { return };
    let first = fake.import();
    assert_eq!(fake.import(), first, "the same content is the same image");
    let list =
        |fake: &Fake| -> Value { serde_json::from_str(&fake.ok(&["image", "list", "--format", "json"])).unwrap() };
    assert_eq!(list(&fake).as_array().map(Vec::len), Some(1));
    assert_eq!((list(&fake)[0]["id"].as_str(), list(&fake)[0]["name"].as_str()), (Some(first.as_str()), Some("app")));
    fs::write(fake.base.path().join("app-root/bin/app"), "newer program").unwrap();
    let second = fake.import();
    assert_ne!(first, second);
    let names: BTreeMap<String, String> = list(&fake)
        .as_array()
        .unwrap()
        .iter()
        .map(|image| (image["id"].as_str().unwrap().to_owned(), image["name"].as_str().unwrap().to_owned()))
        .collect();
    assert_eq!((names[&first].as_str(), names[&second].as_str()), ("", "app"), "the name goes to the newer image");
    let uuid = fake.sandbox(&[]);
    assert!(fake.fails(&["app", "add", &uuid, "sha512-", "--name", "a"]).contains("no image"));
    assert!(fake.fails(&["app", "add", &uuid, "nothing", "--name", "a"]).contains("no image \"nothing\""));
    fake.ok(&["app", "add", &uuid, &first[..24], "--name", "a"]);
    fake.end(&uuid);
}

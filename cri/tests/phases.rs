//! Tests pods in every phase, written by hand: their states, which of them gc removes and when, and a thousand of them.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

struct Data(tempfile::TempDir);

impl Data {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_podctl"));
        command.arg("--dir").arg(self.0.path()).args(args);
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that must fail with status 254 and a message of one line; that line.
    #[track_caller]
    fn fails(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(254), 1), "{args:?}: {text}");
        text
    }

    fn phase(&self, phase: &str) -> PathBuf {
        self.0.path().join("pods").join(phase)
    }

    /// Writes a pod with these apps; the pod's UUID begins with the number.
    fn pod(&self, phase: &str, number: usize, apps: &[&str]) -> PathBuf {
        let dir = self.phase(phase).join(format!("{number:08x}-0000-4000-8000-000000000000"));
        fs::create_dir_all(&dir).unwrap();
        let status = dir.join("stage1/rootfs/rkt/status");
        // a pod that was never run has no root yet
        let has_root = phase != "prepared";
        if has_root {
            fs::create_dir_all(&status).unwrap();
        }
        let apps: Vec<Value> = apps
            .iter()
            .map(|app| {
                if has_root {
                    fs::write(status.join(format!("{app}-created")), "").unwrap();
                    fs::write(status.join(format!("{app}-started")), "").unwrap();
                    fs::write(status.join(app), "3\n").unwrap();
                }
                json!({"name": app, "image": {"id": format!("sha512-{}", "0".repeat(128))}})
            })
            .collect();
        let annotations = json!([{"name": "coreos.com/rkt/stage1/mutable", "value": "true"}]);
        let manifest =
            json!({"acKind": "PodManifest", "acVersion": "0.8.11", "apps": apps, "annotations": annotations});
        fs::write(dir.join("pod"), manifest.to_string()).unwrap();
        fs::write(dir.join("pod-created"), "").unwrap();
        dir
    }

    /// The phase of each pod, by its number.
    fn phases(&self) -> BTreeMap<usize, String> {
        let mut found = BTreeMap::new();
        for phase in self.phase("").read_dir().unwrap() {
            let phase = phase.unwrap();
            for pod in phase.path().read_dir().unwrap() {
                let name = pod.unwrap().file_name().into_string().unwrap();
                let number = usize::from_str_radix(&name[..8], 16).unwrap();
                assert!(
                    found.insert(number, phase.file_name().into_string().unwrap()).is_none(),
                    "{name} is there twice"
                );
            }
        }
        found
    }

    fn states(&self) -> BTreeMap<usize, String> {
        let list: Value = serde_json::from_str(&self.ok(&["list", "--format=json"])).unwrap();
        let number = |pod: &Value| usize::from_str_radix(&pod["name"].as_str().unwrap()[..8], 16).unwrap();
        list.as_array().unwrap().iter().map(|pod| (number(pod), pod["state"].as_str().unwrap().to_owned())).collect()
    }
}

fn lock(dir: &Path) -> File {
    let file = File::open(dir).unwrap();
    file.lock().unwrap();
    file
}

fn map(pairs: &[(usize, &str)]) -> BTreeMap<usize, String> {
    pairs.iter().map(|(number, word)| (*number, (*word).to_owned())).collect()
}

#[test]
fn every_phase_is_told_and_collected_as_it_should_be() {
    let data = Data::new();
    let places =
        ["embryo", "prepare", "prepare", "prepared", "run", "run", "exited-garbage", "exited-garbage", "garbage"];
    let dirs: Vec<PathBuf> = (0..).zip(places).map(|(number, phase)| data.pod(phase, number, &["a"])).collect();
    // an embryo has a directory and no manifest yet
    fs::remove_file(dirs[0].join("pod")).unwrap();
    let held: Vec<File> = [2, 5, 7].iter().map(|number: &usize| lock(&dirs[*number])).collect();
    let told = [
        (0, "embryo"),
        (1, "aborted prepare"),
        (2, "preparing"),
        (3, "prepared"),
        (4, "exited"),
        (5, "running"),
        (6, "exited garbage"),
        (7, "deleting"),
        (8, "garbage"),
    ];
    assert_eq!(data.states(), map(&told));

    data.ok(&["gc", "--mark-only", "--grace-period=0s"]);
    let marked = [
        (0, "embryo"),
        (1, "garbage"),
        (2, "prepare"),
        (3, "prepared"),
        (4, "exited-garbage"),
        (5, "run"),
        (6, "exited-garbage"),
        (7, "exited-garbage"),
        (8, "garbage"),
    ];
    assert_eq!(data.phases(), map(&marked));
    data.ok(&["gc", "--mark-only", "--expire-prepared=0s"]);
    assert_eq!(data.phases()[&3], "garbage");
    let mark = |number: &str| -> Value {
        serde_json::from_str::<Value>(&data.ok(&["status", number, "--format=json"])).unwrap()["gc_marked_at"].clone()
    };
    assert!(mark("00000004").is_i64() && mark("00000005").is_null());

    // a pod that never ran has no grace period
    data.ok(&["gc"]);
    let kept = [
        (0, "embryo"),
        (2, "prepare"),
        (4, "exited-garbage"),
        (5, "run"),
        (6, "exited-garbage"),
        (7, "exited-garbage"),
    ];
    assert_eq!(data.phases(), map(&kept));
    data.ok(&["gc", "--grace-period=0s"]);
    assert_eq!(data.phases(), map(&[(0, "embryo"), (2, "prepare"), (5, "run"), (7, "exited-garbage")]));
    drop(held);
    data.ok(&["gc", "--grace-period=0s"]);
    assert_eq!(data.phases(), map(&[(0, "embryo")]));
}

#[test]
fn an_end_is_waited_for_through_all_phases() {
    let data = Data::new();
    let made = data.pod("embryo", 1, &["a"]);
    let dir = data.phase("prepared").join(made.file_name().unwrap());
    fs::create_dir_all(data.phase("prepared")).unwrap();
    fs::rename(made, &dir).unwrap();
    let line = data.fails(&["wait", "00000001", "--timeout=50ms"]);
    assert!(line.contains("still prepared"), "{line}");
    let mut waits: Vec<_> = [&["wait", "00000001"][..], &["status", "00000001", "--wait=1h", "--format=json"]]
        .iter()
        .map(|args| data.command(args).stdout(Stdio::piped()).spawn().unwrap())
        .collect();
    let held = lock(&dir);
    let running = data.phase("run").join(dir.file_name().unwrap());
    fs::create_dir_all(data.phase("run")).unwrap();
    fs::rename(&dir, &running).unwrap();
    let line = data.fails(&["status", "00000001", "--wait-ready=50ms"]);
    assert!(line.contains("still running"), "{line}");
    std::os::unix::fs::symlink("ready", running.join("stage1/rootfs/rkt/supervisor-status")).unwrap();
    data.ok(&["status", "00000001", "--wait-ready"]);
    // the pod's process has ended, but another process still holds its lock
    let mut ended = Command::new("true").spawn().unwrap();
    // by a rename, as podctl writes it: the waiting commands read the file all the time
    fs::write(running.join("pid.new"), format!("{}\n", ended.id())).unwrap();
    fs::rename(running.join("pid.new"), running.join("pid")).unwrap();
    ended.wait().unwrap();
    for wait in &mut waits {
        assert!(wait.try_wait().unwrap().is_none(), "the pod has not ended");
    }
    drop(held);
    let status: Vec<Output> = waits.into_iter().map(|wait| wait.wait_with_output().unwrap()).collect();
    assert!(status.iter().all(|output| output.status.success()), "{status:?}");
    let status: Value = serde_json::from_slice(&status[1].stdout).unwrap();
    assert_eq!((status["state"].as_str(), status["apps"][0]["exit_code"].as_i64()), (Some("exited"), Some(3)));
    let line = data.fails(&["status", "00000001", "--wait-ready"]);
    assert!(line.contains("cannot become ready"), "{line}");
    data.ok(&["wait", "00000001"]);
    assert!(data.fails(&["wait", "2"]).contains("no pod"));
}

#[test]
fn a_thousand_pods() {
    let data = Data::new();
    for number in 0..1000 {
        let phase = if number % 5 == 0 { "run" } else { "prepared" };
        data.pod(phase, number << 8, &["one", "two"]);
    }
    let timed = |args: &[&str]| -> (String, Duration) {
        let began = Instant::now();
        let text = data.ok(args);
        (text, began.elapsed())
    };
    let (list, json) = timed(&["list", "--format=json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    assert_eq!(list.as_array().unwrap().iter().filter(|pod| pod["state"] == "exited").count(), 200);
    assert!(list.as_array().unwrap().iter().all(|pod| pod["app_names"] == json!(["one", "two"])));
    let (text, table) = timed(&["list"]);
    assert_eq!(text.lines().count(), 1001);
    let (found, one) = timed(&["status", "0003e4"]);
    assert!(found.contains("uuid=0003e400-"), "{found}");
    let (_, gc) = timed(&["gc", "--grace-period=0s"]);
    assert_eq!(data.phases().len(), 800);
    println!("1000 pods: list as JSON {json:?}, as text {table:?}; status of one {one:?}; gc of 200 {gc:?}");
}

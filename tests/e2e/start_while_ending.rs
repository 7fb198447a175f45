//! Starting what is ending: a pod, or an app of it, that is started while it ends runs when the start has returned.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use stage1::layout;
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::{Process, wait_for, wait_for_waiter};

tests::cases! {
    both a_pod_that_is_ending_is_started_again 120;
    native a_pod_that_is_stopped_under_a_start_is_started_again;
    native an_app_that_is_being_stopped_is_started_again;
}

/// What an app does that ends only when the test lets it: `ending` says that it was told to end.
const SLOW: [&str; 9] = ["told", "/out/up", "+", "write", "/out/ending", "x", "+", "wait", "/out/go"];

fn file(t: &Context, podctl: &Podctl) -> String {
    let words = ["/probe"].iter().chain(&SLOW).map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: shop}}\nspec:\n  hostNetwork: true\n  restartPolicy: Never\n  \
         terminationGracePeriodSeconds: 600\n  containers:\n  - name: a\n    image: probe\n    command: [{words}]\n    \
         volumeMounts: [{{name: out, mountPath: /out}}]\n  volumes: [{{name: out, hostPath: {{path: {}}}}}]\n",
        podctl.out().display()
    );
    let path = t.dir.join("shop.yaml");
    fs::write(&path, text).expect("write");
    path.display().to_string()
}

/// A command in the background, and what it has printed.
struct Started {
    child: Child,
    said: PathBuf,
}

impl Started {
    fn new(t: &Context, podctl: &Podctl, words: &[&str]) -> Self {
        let said = t.dir.join(format!("said-by-{}", words[0]));
        let to = || Stdio::from(File::options().create(true).append(true).open(&said).expect("open"));
        let child = podctl.command(words).stdin(Stdio::null()).stdout(to()).stderr(to()).spawn().expect("podctl");
        Self { child, said }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("wait").is_some()
    }

    /// Fails if the command ends now. One second is long enough for one that does not wait; the test is right for any
    /// time.
    #[track_caller]
    fn waits(&mut self) {
        let until = Instant::now() + Duration::from_secs(1);
        while !self.has_ended() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(!self.has_ended(), "it did not wait for the end");
    }

    #[track_caller]
    fn ends_well(mut self) {
        let status = self.child.wait().expect("wait");
        assert!(status.success(), "{status}: {}", self.said());
        let _ = fs::remove_file(&self.said);
    }
}

/// Waits until the app has made this file.
#[track_caller]
fn says(podctl: &Podctl, word: &str) {
    wait_for(word, 60, || podctl.out().join(word).exists().then_some(()));
}

fn a_pod_that_is_ending_is_started_again(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    fs::create_dir_all(podctl.out())?;
    let path = file(t, &podctl);
    let uuid = || podctl.json(&["inspect", "shop"])["name"].as_str().unwrap_or_default().to_owned();
    let pod = || Pod { podctl: &podctl, uuid: uuid() };
    let runs = |before: &str, is_new: bool| {
        assert_eq!((pod().state("a").as_str(), pod().uuid != before), ("running", is_new));
        says(&podctl, "up");
    };
    podctl.ok(&["up", "-f", &path]);
    for words in [&["stop", "shop"][..], &["down", "shop"]] {
        says(&podctl, "up");
        let before = uuid();
        let ender = Started::new(t, &podctl, words);
        says(&podctl, "ending");
        let said = podctl.ok(&["up", "-f", &path, "--dry-run"]);
        assert_eq!(said, "pod shop: it is ending\npod shop: would be made, with a");
        let mut up = Started::new(t, &podctl, &["up", "-f", &path]);
        wait_for("what up says", 60, || {
            assert!(!up.has_ended(), "it did not wait for the end: {}", up.said());
            up.said().contains("pod shop: it is ending: waiting for its end").then_some(())
        });
        let _ = fs::remove_file(podctl.out().join("up"));
        fs::write(podctl.out().join("go"), "")?;
        up.ends_well();
        ender.ends_well();
        runs(&before, true);
        for name in ["ending", "go"] {
            fs::remove_file(podctl.out().join(name))?;
        }
    }

    // One that the monitor ends, for a signal, and that is started with all it has.
    says(&podctl, "up");
    let before = uuid();
    let monitor = Process::look_up(pod().pid()).ok_or("PID 1 is gone")?.parent;
    kill(Pid::from_raw(monitor), Signal::SIGTERM)?;
    says(&podctl, "ending");
    let mut start = Started::new(t, &podctl, &["start", "shop"]);
    start.waits();
    let _ = fs::remove_file(podctl.out().join("up"));
    fs::write(podctl.out().join("go"), "")?;
    start.ends_well();
    runs(&before, false);
    // Several at once, while it ends: one starts it, and no other waits for the end of the new run.
    fs::write(podctl.out().join("go"), "")?;
    for _ in 0..3 {
        let stop = podctl.command(&["stop", "shop"]).spawn()?;
        let starts: Vec<_> = (0..3).map(|_| podctl.command(&["start", "shop"]).spawn()).collect::<Result<_, _>>()?;
        for (what, mut child) in starts.into_iter().map(|child| ("a start", child)).chain([("the stop", stop)]) {
            // the times that a run may take to end, which is what they waited for in vain, are longer
            let status = wait_for(what, 60, || child.try_wait().expect("wait"));
            assert!(status.success(), "{what}: {status}");
        }
        podctl.ok(&["start", "shop"]);
    }
    podctl.ok(&["stop", "--force", "shop"]);
    podctl.ok(&["rm", "shop"]);
    Ok(())
}

/// A start that has found the pod running goes on when another process has stopped the pod.
fn a_pod_that_is_stopped_under_a_start_is_started_again(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    pod.add("a", &[], &["sleep", "inf"]);
    pod.app("start", "a", &[]).ok();
    let before = pod.pid();
    // the start waits for this lock after it has found the pod running
    let path = pod.dir().join(layout::LOCK);
    let lock = File::open(&path)?;
    lock.lock()?;
    let start = Started::new(t, &podctl, &["start", "web"]);
    wait_for_waiter(&path);
    podctl.ok(&["stop", "web"]);
    drop(lock);
    start.ends_well();
    assert_eq!((pod.state("a").as_str(), pod.pid() != before), ("running", true));
    pod.end();
    Ok(())
}

fn an_app_that_is_being_stopped_is_started_again(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    pod.add("a", &["--stop-timeout=1h"], &SLOW);
    pod.app("start", "a", &[]).ok();
    says(&podctl, "up");
    let stop = Started::new(t, &podctl, &["app", "stop", "web", "a"]);
    says(&podctl, "ending");
    let mut start = Started::new(t, &podctl, &["app", "start", "web", "a"]);
    start.waits();
    let _ = fs::remove_file(podctl.out().join("up"));
    fs::write(podctl.out().join("go"), "")?;
    start.ends_well();
    stop.ends_well();
    assert_eq!(pod.state("a"), "running");
    says(&podctl, "up");
    podctl.ok(&["stop", "--force", "web"]);
    podctl.ok(&["rm", "web"]);
    Ok(())
}

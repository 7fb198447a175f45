//! Measures the time of the entrypoints, and its ratio to reference measurements of the same run: `scripts/bench`. With
//! the `stage1.aci` of another build as its argument, measures that in turn with ours, and prints the ratio to it.
//!
//! Of each build there are two pods, one with one app and one with a hundred, run by the independent host manager.
//! Nothing here passes or fails.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use stage1::cross::Target;
use stage1::systemd::{Client, PRIVATE_SOCKET};
use tests::dist;
use tests::minihost::{MiniHost, MiniPod};

/// Number of measurements of each entrypoint. Medians of fewer differ from run to run by more than a tenth.
const ROUNDS: usize = 160;
/// Number of boots.
const BOOTS: usize = 20;
/// Apps in the full pod.
const MANY: usize = 100;
/// The reference for `app-start`: a unit that does nothing.
const EMPTY_UNIT: &str = "[Service]\nType=simple\nExecStart=/opt/stage1/bin/supervisor-ready --help\nStandardOutput=null\n\
                          CollectMode=inactive-or-failed\n[Unit]\nDefaultDependencies=no\n";

fn main() {
    let dir = std::env::temp_dir().join(format!("podctl-bench.{}", std::process::id()));
    std::fs::create_dir(&dir).expect("make the work directory");
    let images: Vec<PathBuf> =
        [dist().join("stage1.aci")].into_iter().chain(std::env::args_os().nth(1).map(PathBuf::from)).collect();
    let hosts: Vec<MiniHost> =
        images.iter().enumerate().map(|(i, image)| MiniHost::new(&dir.join(i.to_string()), image)).collect();
    boot(&hosts);
    let mut builds: Vec<Build> = hosts.iter().map(Build::new).collect();
    idle(&builds);
    builds.iter_mut().for_each(Build::fill);
    verbs(&mut builds);
    enter(&builds);
    for (pod, monitor) in builds.into_iter().flat_map(|build| build.0) {
        pod.stop(true, monitor);
        pod.collect(1);
    }
    std::fs::remove_dir_all(&dir).expect("remove the work directory");
}

/// The pods of one build: with one app, and with many.
struct Build<'a>([(MiniPod<'a>, Child); 2]);

impl<'a> Build<'a> {
    fn new(host: &'a MiniHost) -> Self {
        Self([(); 2].map(|()| host.boot(&json!([]), &["--net=none"])))
    }

    fn fill(&mut self) {
        for ((pod, _), count) in self.0.iter_mut().zip([1, MANY]) {
            let unit = pod.dir().join("stage1/rootfs/etc/systemd/system/bench-empty.service");
            std::fs::write(unit, EMPTY_UNIT).expect("write the empty unit");
            for n in 0..count {
                pod.add(&format!("app-{n}"), &["/probe", "sleep", "inf"], &json!([]));
                pod.start_app(&format!("app-{n}")).ok();
            }
        }
    }
}

/// Prints a line: the time of our build, and of the other if there is one.
fn show(what: &str, samples: &[Samples]) {
    let ours = &samples[0];
    let other = samples.get(1).map(|other| format!("  other {:6.2} ms = {:.2} x", other.median(), ours.ratio(other)));
    println!("{what:<29} {ours}{}", other.unwrap_or_default());
}

/// Measures the time from the exec of `run` until the pod is ready.
fn boot(hosts: &[MiniHost]) {
    let mut ready = vec![Samples::default(); hosts.len()];
    for _ in 0..BOOTS {
        for (host, ready) in hosts.iter().zip(&mut ready) {
            let pod = host.prepare(&json!([]));
            let start = Instant::now();
            let monitor = pod.start(&["--net=none"]);
            let link = pod.upper().join("rkt/supervisor-status");
            while std::fs::read_link(&link).is_err() {
                std::thread::sleep(Duration::from_micros(200));
            }
            ready.push(start.elapsed());
            pod.stop(true, monitor);
            pod.collect(1);
        }
    }
    show("boot: run to ready", &ready);
}

/// Measures the memory of an idle pod.
fn idle(builds: &[Build]) {
    std::thread::sleep(Duration::from_secs(1));
    for Build([(pod, monitor), _]) in builds {
        println!("idle: PSS of PID 1            {} KB", pss(pod.pid().cast_unsigned()));
        println!("idle: PSS of the monitor      {} KB", pss(monitor.id()));
    }
}

fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = text.lines().find(|l| l.starts_with("Pss:")).expect("a Pss line");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// What is measured of an app, in order.
const VERBS: [&str; 5] = ["add", "start", "raw start", "stop", "rm"];

fn verbs(builds: &mut [Build]) {
    let mut times = VERBS.map(|_| [(); 2].map(|()| vec![Samples::default(); builds.len()]));
    for _ in 0..ROUNDS {
        for (which, build) in builds.iter_mut().enumerate() {
            for (full, (pod, _)) in build.0.iter_mut().enumerate() {
                pod.stage("one-more", &["/probe", "sleep", "inf"], &json!([]), &json!({}));
                let uuid = format!("--uuid={}", pod.uuid);
                let took = [
                    time(pod.crossing("app/add", &["--app=one-more", &uuid])),
                    time(pod.crossing("app/start", &["--app=one-more"])),
                    raw_start(pod),
                    time(pod.crossing("app/stop", &["--app=one-more"])),
                    time(pod.crossing("app/rm", &["--app=one-more"])),
                ];
                for (times, took) in times.iter_mut().zip(took) {
                    times[full][which].push(took);
                }
                pod.rm("one-more");
            }
        }
    }
    for (verb, [alone, beside]) in VERBS.iter().zip(times) {
        show(&format!("app {verb:<9} beside 1 app"), &alone);
        show(&format!("app {verb:<9} beside {MANY} apps"), &beside);
        println!("app {verb:<9} {MANY} apps / 1 app   {:.2} x", beside[0].ratio(&alone[0]));
    }
}

/// The time of a client that crosses into the pod and has systemd start the empty unit.
fn raw_start(pod: &MiniPod<'_>) -> Duration {
    let old = std::env::current_dir().expect("the current directory");
    std::env::set_current_dir(pod.dir()).expect("go to the pod directory");
    let start = Instant::now();
    let target = Target::open(pod.pid()).expect("the pod");
    let deadline = Instant::now() + Duration::from_secs(10);
    target
        .as_member(deadline, || {
            let mut systemd = Client::connect(Path::new(PRIVATE_SOCKET), deadline)?;
            systemd.start_unit("bench-empty.service", deadline).map(drop)
        })
        .expect("start the empty unit");
    let took = start.elapsed();
    std::env::set_current_dir(old).expect("go back");
    took
}

fn enter(builds: &[Build]) {
    let mut ours = vec![Samples::default(); builds.len()];
    let mut theirs = Samples::default();
    let app = |pid| {
        let app = tests::process::descendants(pid).into_iter().find(|p| p.words.starts_with("/probe sleep"));
        app.expect("the app's process").pid.to_string()
    };
    let apps: Vec<String> = builds.iter().map(|build| app(build.0[0].0.pid())).collect();
    for _ in 0..ROUNDS {
        for (build, ours) in builds.iter().zip(&mut ours) {
            ours.push(time(build.0[0].0.enter(Some("app-0"), &["/probe", "exit", "0"])));
        }
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-a", "-t", &apps[0], "/probe", "exit", "0"]);
        theirs.push(time(nsenter));
    }
    show("enter", &ours);
    println!("nsenter -a                    {theirs}  enter = {:.2} x", ours[0].ratio(&theirs));
}

/// The time of a command, which must succeed. Its output goes to pipes.
fn time(mut command: Command) -> Duration {
    command.stdin(Stdio::null());
    let start = Instant::now();
    let output = command.output().expect("run a command");
    let took = start.elapsed();
    assert!(output.status.success(), "{command:?}: {}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    took
}

#[derive(Clone, Debug, Default)]
struct Samples(Vec<f64>);

impl Samples {
    fn push(&mut self, took: Duration) {
        self.0.push(took.as_secs_f64() * 1000.0);
    }

    fn median(&self) -> f64 {
        self.quantile(2)
    }

    fn ratio(&self, other: &Self) -> f64 {
        self.median() / other.median()
    }

    fn quantile(&self, quarter: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() * quarter / 4).copied().unwrap_or(f64::NAN)
    }
}

impl std::fmt::Display for Samples {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:6.2} ms  (quartiles {:.2}, {:.2})", self.median(), self.quantile(1), self.quantile(3))
    }
}

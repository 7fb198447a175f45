//! Measures the time of the entrypoints, and its ratio to reference measurements of the same run: `scripts/bench`.
//!
//! There are two pods, one with one app and one with a hundred, run by the independent host manager. Nothing here
//! passes or fails.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::json;
use stage1::cross::Target;
use stage1::systemd::{Client, PRIVATE_SOCKET};
use tests::dist;
use tests::minihost::{MiniHost, MiniPod};

/// Number of measurements of each entrypoint.
const ROUNDS: usize = 40;
/// Apps in the full pod.
const MANY: usize = 100;
/// The reference for `app-start`: a unit that does nothing.
const EMPTY_UNIT: &str = "[Service]\nType=simple\nExecStart=/opt/stage1/bin/supervisor-ready --help\nStandardOutput=null\n\
                          CollectMode=inactive-or-failed\n[Unit]\nDefaultDependencies=no\n";

fn main() {
    let dir = std::env::temp_dir().join(format!("podctl-bench.{}", std::process::id()));
    std::fs::create_dir(&dir).expect("make the work directory");
    let host = MiniHost::new(&dir, &dist().join("stage1.aci"));
    boot(&host);
    let mut pods = [host.boot(&json!([]), &["--net=none"]), host.boot(&json!([]), &["--net=none"])];
    idle(&pods[0].0, &pods[0].1);
    for (i, (pod, _)) in pods.iter_mut().enumerate() {
        let unit = pod.dir().join("stage1/rootfs/etc/systemd/system/bench-empty.service");
        std::fs::write(unit, EMPTY_UNIT).expect("write the empty unit");
        for n in 0..(if i == 0 { 1 } else { MANY }) {
            pod.add(&format!("app-{n}"), &["/probe", "sleep", "inf"], &json!([]));
            pod.start_app(&format!("app-{n}")).ok();
        }
    }
    verbs(&mut pods);
    enter(&pods[0].0);
    for (pod, monitor) in pods {
        pod.stop(true, monitor);
        pod.collect(1);
    }
    std::fs::remove_dir_all(&dir).expect("remove the work directory");
}

/// Measures the time from the exec of `run` until the pod is ready.
fn boot(host: &MiniHost) {
    let mut ready = Samples::default();
    for _ in 0..10 {
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
    println!("boot: run to ready            {ready}");
}

/// Measures the memory of an idle pod.
fn idle(pod: &MiniPod<'_>, monitor: &Child) {
    std::thread::sleep(Duration::from_secs(1));
    println!("idle: PSS of PID 1            {} KB", pss(pod.pid().cast_unsigned()));
    println!("idle: PSS of the monitor      {} KB", pss(monitor.id()));
}

fn pss(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = text.lines().find(|l| l.starts_with("Pss:")).expect("a Pss line");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

fn verbs(pods: &mut [(MiniPod<'_>, Child); 2]) {
    let mut add = [Samples::default(), Samples::default()];
    let mut start = add.clone();
    let mut stop = add.clone();
    let mut rm = add.clone();
    let mut raw = add.clone();
    for _ in 0..ROUNDS {
        for (i, (pod, _)) in pods.iter_mut().enumerate() {
            pod.stage("one-more", &["/probe", "sleep", "inf"], &json!([]), &json!({}));
            let uuid = format!("--uuid={}", pod.uuid);
            add[i].push(time(pod.crossing("app/add", &["--app=one-more", &uuid])));
            start[i].push(time(pod.crossing("app/start", &["--app=one-more"])));
            raw[i].push(raw_start(pod));
            stop[i].push(time(pod.crossing("app/stop", &["--app=one-more"])));
            rm[i].push(time(pod.crossing("app/rm", &["--app=one-more"])));
            pod.rm("one-more");
        }
    }
    for (name, [one, many]) in [("add", add), ("start", start), ("stop", stop), ("rm", rm), ("raw start", raw)] {
        println!("app {name:<9} beside 1 app     {one}");
        println!("app {name:<9} beside {MANY} apps  {many}  = {:.2} x", many.median() / one.median());
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
            let mut systemd = Client::connect(std::path::Path::new(PRIVATE_SOCKET), deadline)?;
            systemd.start_unit("bench-empty.service", deadline).map(drop)
        })
        .expect("start the empty unit");
    let took = start.elapsed();
    std::env::set_current_dir(old).expect("go back");
    took
}

fn enter(pod: &MiniPod<'_>) {
    let app = tests::process::descendants(pod.pid()).into_iter().find(|p| p.words.starts_with("/probe sleep"));
    let app = app.expect("the app's process").pid.to_string();
    let (mut ours, mut theirs) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        ours.push(time(pod.enter(Some("app-0"), &["/probe", "exit", "0"])));
        let mut nsenter = Command::new("nsenter");
        nsenter.args(["-a", "-t", &app, "/probe", "exit", "0"]);
        theirs.push(time(nsenter));
    }
    println!("enter                         {ours}");
    println!("nsenter -a                    {theirs}  enter = {:.2} x", ours.median() / theirs.median());
}

/// The time of a command, which must succeed.
fn time(mut command: Command) -> Duration {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let start = Instant::now();
    let status = command.status().expect("run a command");
    let took = start.elapsed();
    assert!(status.success(), "{command:?}: {status}");
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

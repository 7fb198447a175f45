//! The test runner: one process that runs the list of tests, and for each test a warden process with the test's body as
//! its child.
//!
//! The warden is a child subreaper in its own mount and network namespaces: processes that the body leaves become its
//! children, and mounts that the body leaves are in its namespace. It waits for the body until a deadline, lists what
//! is left, removes that, and passes on the body's output and result. Warden and body are this executable, executed
//! again (`--warden NAME`, `--body NAME DIR`), so no test runs in a process with threads of another test.
//!
//! The harness resets what it inherited from its caller (umask, ignored SIGCHLD and SIGPIPE) for itself, and gives it
//! to podctl: so a run of the tests from such a caller tests podctl with it.
//!
//! Environment variables: `E2E_DIR` is the directory of the tests' directories; with `E2E_BUILT` the probe was already
//! built, and cargo is not run; `E2E_PATIENCE` is a factor for all timeouts, for emulated machines.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, Uid, getppid};

use crate::minihost::MiniHost;
use crate::podctl::Podctl;
use crate::{Verdict, dist, leftovers, process, source, target};

/// Directory of the machine's network configurations, which is hidden from the tests.
const NETWORKS: &str = "/etc/cni/net.d";
/// Maximum number of tests that run at the same time: with more, timeouts would depend on the machine's speed.
const AT_ONCE: usize = 3;
/// Tests that start so many processes at once that the timeouts of a test beside them would depend on the machine's
/// speed: they are begun first, and run alone.
const ALONE: &[&str] = &["net::thirty_at_once"];

/// Environment variable of tests: the shell commands that are run before podctl in the same shell.
pub const CALLER: &str = "E2E_CALLER";

/// In which cgroup layouts a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Runs {
    /// In every cgroup layout that this machine can show.
    Both,
    /// Once, in the machine's own layout: for tests that do not depend on cgroups, or that need controllers.
    Native,
}

/// One test.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// `module::function`.
    pub name: &'static str,
    /// In which layouts it runs.
    pub runs: Runs,
    /// Timeout, in seconds.
    pub seconds: u64,
    /// The test.
    pub body: fn(&Context) -> Verdict,
}

/// Lists the tests of a module as its `CASES`: `both name;`, `native name;`, `both name 120;` (seconds).
#[macro_export]
macro_rules! cases {
    ($($runs:ident $name:ident $($seconds:literal)?;)*) => {
        /// The tests of this module.
        pub const CASES: &[$crate::harness::Case] = &[$($crate::harness::Case {
            name: concat!(module_path!(), "::", stringify!($name)),
            runs: $crate::cases!(@ $runs),
            seconds: { let seconds = 60; $(let _ = seconds; let seconds = $seconds;)? seconds },
            body: $name,
        }),*];
    };
    (@ both) => { $crate::harness::Runs::Both };
    (@ native) => { $crate::harness::Runs::Native };
}

/// The environment of a test.
#[derive(Debug)]
pub struct Context {
    /// The test's own directory, empty at first.
    pub dir: PathBuf,
    /// The cgroup layout it runs in.
    pub layout: Layout,
}

impl Context {
    /// Our host manager with its data in this test's directory.
    pub fn podctl(&self) -> Podctl {
        Podctl::new(&dist().join("podctl"), &self.dir.join("data"), &self.dir)
    }

    /// The independent host manager with its data in this test's directory.
    pub fn minihost(&self) -> MiniHost {
        self.minihost_in("mini")
    }

    /// The independent host manager with its data in the directory `name` of the test's directory.
    pub fn minihost_in(&self, name: &str) -> MiniHost {
        MiniHost::new(&self.dir.join(name), &dist().join("stage1.aci"))
    }

    /// Whether limits can be enforced, because the layout has controllers.
    pub fn has_controllers(&self) -> bool {
        match self.layout {
            Layout::V1 => true,
            Layout::V2 => fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|c| c.contains("memory")),
        }
    }
}

/// A cgroup layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A directory per controller under `/sys/fs/cgroup`.
    V1,
    /// One cgroup2 on `/sys/fs/cgroup`.
    V2,
}

impl Layout {
    /// The layout of this mount namespace.
    pub fn here() -> Self {
        match statfs("/sys/fs/cgroup") {
            Ok(fs) if fs.filesystem_type() == CGROUP2_SUPER_MAGIC => Self::V2,
            _ => Self::V1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        }
    }
}

/// Runs the tests that the command line selects or, in a warden or a body, the one test. The decoys fail on purpose;
/// only tests of the harness run them.
pub fn main(cases: &[&[Case]], decoys: &[Case]) -> ExitCode {
    let caller = inherited();
    stage1::inherited::settle().expect("an ordinary process");
    let all = list(cases);
    let args: Vec<String> = std::env::args().collect();
    let named = |name: &str| {
        let known = all.iter().cloned().chain(list(&[decoys])).find(|(n, _)| n == name);
        known.map(|(_, c)| c).unwrap_or_else(|| panic!("{name}: no such test"))
    };
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [_, "--warden", name] => return warden(name, named(name)),
        [_, "--body", name, dir] => return body(named(name), Path::new(dir)),
        _ => {}
    }
    let (args, filters) = split_filters(args);
    let mut arguments = Arguments::from_iter(args);
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(AT_ONCE).min(AT_ONCE));
    let talkative = arguments.nocapture;
    if !caller.is_empty() {
        println!("podctl is called after: {caller}");
    }
    let unknown = |filter: &&String| !all.iter().any(|(name, _)| name.contains(filter.as_str()));
    if let Some(filter) = filters.iter().find(unknown) {
        eprintln!("No test has a name like {filter:?}.");
        return ExitCode::FAILURE;
    }
    if !arguments.list
        && let Err(missing) = prepare()
    {
        eprintln!("The end-to-end tests can't run: {missing}");
        return ExitCode::FAILURE;
    }
    let wanted = |name: &str| filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()));
    if let Some(gone) = ALONE.iter().find(|alone| !all.iter().any(|(name, _)| name.ends_with(*alone))) {
        eprintln!("No test is called {gone}, which is to run alone.");
        return ExitCode::FAILURE;
    }
    let runs_alone = |name: &str| ALONE.iter().any(|alone| name.ends_with(alone));
    let (first, others): (Vec<_>, Vec<_>) =
        all.iter().map(|(name, _)| name).filter(|name| wanted(name)).partition(|name| runs_alone(name));
    let machine = Arc::new(RwLock::new(()));
    let trials = first.into_iter().chain(others).map(|name| {
        let (test, caller, machine) = (name.clone(), caller.clone(), machine.clone());
        Trial::test(name, move || {
            let _whole = runs_alone(&test).then(|| machine.write());
            let _share = (!runs_alone(&test)).then(|| machine.read());
            watch(&test, talkative, &caller)
        })
    });
    let listing = arguments.list;
    let result = libtest_mimic::run(&arguments, trials.collect());
    if !listing && result.num_passed + result.num_failed == 0 {
        eprintln!("No test is left to run.");
        return ExitCode::FAILURE;
    }
    result.exit_code()
}

/// Splits the command line into options and the filters at its end, because libtest takes one filter only.
fn split_filters(mut args: Vec<String>) -> (Vec<String>, Vec<String>) {
    const WITH_VALUE: &[&str] = &["--skip", "--test-threads", "--format", "--color", "--logfile"];
    let mut first = args.iter().rposition(|arg| arg.starts_with('-')).map_or(1, |option| option + 1);
    if WITH_VALUE.contains(&args[first - 1].as_str()) {
        first = args.len().min(first + 1);
    }
    let filters = args.split_off(first);
    (args, filters)
}

/// The shell commands that reproduce what this process inherited from its caller. An ignored SIGPIPE is not reported by
/// itself: Rust's runtime ignores it too.
fn inherited() -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
    let mut commands = Vec::new();
    if let Some(umask) = field("Umask:").filter(|umask| umask != "0022") {
        commands.push(format!("umask {umask}"));
    }
    let ignored = field("SigIgn:").and_then(|mask| u64::from_str_radix(&mask, 16).ok()).unwrap_or_default();
    if ignored & 1 << (Signal::SIGCHLD as u64 - 1) != 0 {
        // Done by env(1), because dash does not pass an ignored SIGCHLD on to programs.
        commands.push("set -- env --ignore-signal=CHLD,PIPE \"$@\"".to_owned());
    }
    commands.join("; ")
}

/// Every test under its full name: the layout, the module, the function.
fn list(cases: &[&[Case]]) -> Vec<(String, Case)> {
    let native = Layout::here();
    let mut all = Vec::new();
    for case in cases.iter().copied().flatten() {
        let short = case.name.split_once("::").map_or(case.name, |(_, rest)| rest);
        let layouts: &[Layout] = match (case.runs, native) {
            (Runs::Native, Layout::V1) => &[Layout::V1],
            (Runs::Both, Layout::V1) => &[Layout::V1, Layout::V2],
            // With all controllers bound to cgroup2 no v1 layout can be mounted.
            (_, Layout::V2) => &[Layout::V2],
        };
        all.extend(layouts.iter().map(|l| (format!("{}::{short}", l.name()), *case)));
    }
    all
}

/// Checks that all that the tests need exists: no test is skipped because something is missing.
fn prepare() -> Result<(), String> {
    if !Uid::effective().is_root() {
        return Err("they make pods: run them as root".into());
    }
    for file in ["podctl", "stage1.aci", "stage1/manifest"] {
        let path = dist().join(file);
        if !path.exists() {
            return Err(format!("{} is missing: run scripts/build first", path.display()));
        }
    }
    if Layout::here() == Layout::V2 {
        println!("This machine's own cgroup layout is v2: there is no v1 layout to run the tests in as well.");
    }
    if std::env::var_os("E2E_BUILT").is_none() {
        build_probe()?;
    } else {
        must_be_current(&crate::image::probe(), &source().join("tests/probe/src"))?;
    }
    fs::create_dir_all(workshop()).map_err(|e| format!("{}: {e}", workshop().display()))
}

/// Fails if a program is older than its source; a machine without the source passes.
fn must_be_current(program: &Path, source: &Path) -> Result<(), String> {
    let changed =
        |path: &Path| path.metadata().and_then(|stat| stat.modified()).map_err(|e| format!("{}: {e}", path.display()));
    let built = changed(program)?;
    for entry in fs::read_dir(source).into_iter().flatten() {
        let file = entry.map_err(|e| format!("{}: {e}", source.display()))?.path();
        if changed(&file)? > built {
            return Err(format!("{} is newer than {}: unset E2E_BUILT", file.display(), program.display()));
        }
    }
    Ok(())
}

fn build_probe() -> Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--locked", "--target", "x86_64-unknown-linux-musl", "--bin", "probe"])
        // The packages that scripts/build builds, so that shared dependencies are compiled once.
        .args(["-p", "entrypoints", "-p", "stage0", "-p", "cri", "-p", "probe"])
        .arg("--target-dir")
        .arg(target())
        .current_dir(source())
        .status()
        .map_err(|e| format!("cargo build -p probe: {e}"))?;
    if built.success() { Ok(()) } else { Err("the probe app does not build".into()) }
}

/// The directory in which every running test has its directory.
fn workshop() -> PathBuf {
    std::env::var_os("E2E_DIR").map(PathBuf::from).unwrap_or_else(|| target().join("e2e"))
}

/// In the runner: runs one test by its warden.
fn watch(name: &str, talkative: bool, caller: &str) -> Result<(), Failed> {
    let me = std::env::current_exe()?;
    let began = Instant::now();
    // In its own process group: Ctrl-C ends the runner only, and the warden notices that and cleans up.
    let out =
        Command::new(me).args(["--warden", name]).env(CALLER, caller).stdin(Stdio::null()).process_group(0).output()?;
    let words = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    if talkative {
        eprintln!("{words}{name}: {:.1} s", began.elapsed().as_secs_f32());
    }
    if out.status.success() { Ok(()) } else { Err(Failed::from(words)) }
}

/// In the warden: enters new namespaces, runs the body, lists what it left, and removes that.
#[expect(clippy::zombie_processes, reason = "attend() reaps the body along with every orphan")]
fn warden(name: &str, case: Case) -> ExitCode {
    let runner = getppid();
    nix::sys::prctl::set_child_subreaper(true).expect("prctl(PR_SET_CHILD_SUBREAPER)");
    enter_mounts(name.starts_with("v2::") && Layout::here() == Layout::V1);
    enter_network();
    let dir = workshop().join(name.replace("::", "-"));
    make_fresh(&dir);
    let me = std::env::current_exe().expect("current_exe");
    let mut body = Command::new(me);
    body.args(["--body", name]).arg(&dir).current_dir(&dir).env("RUST_BACKTRACE", "0");
    let child = body.spawn().expect("the body");
    let (failure, pods) = attend(Pid::from_raw(child.id() as i32), case.seconds * patience(), runner, &dir);

    let mut failed = failure.is_some();
    if let Some(why) = failure {
        eprintln!("{name}: {why}");
    } else {
        let left = leftovers::count(&dir, &pods);
        if !left.is_empty() {
            failed = true;
            eprintln!("{name}: passed, but left behind:\n  {}", left.join("\n  "));
        }
    }
    let stuck = leftovers::clear(&dir, &pods);
    if stuck.is_empty() {
        if let Err(e) = fs::remove_dir_all(&dir) {
            failed = true;
            eprintln!("{name}: {}: {e}", dir.display());
        }
    } else {
        failed = true;
        eprintln!("{name}: can't be cleared away:\n  {}", stuck.join("\n  "));
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Factor for the timeouts of tests: with `CRASH_POINTS` a test runs a command once per system call.
fn patience() -> u64 {
    if crate::tracer::wanted().is_some() { 60 } else { 1 }
}

/// Enters a new mount namespace in which the machine's network configurations are hidden and, with `with_cgroup2`,
/// cgroup2 is the only hierarchy.
fn enter_mounts(with_cgroup2: bool) {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).expect("unshare(CLONE_NEWNS)");
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).expect("mount(/, MS_PRIVATE)");
    if with_cgroup2 {
        mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), NONE).expect("mount(cgroup2)");
    }
    if Path::new(NETWORKS).is_dir() {
        mount(Some("none"), NETWORKS, Some("tmpfs"), MsFlags::empty(), NONE).expect("mount(tmpfs, /etc/cni/net.d)");
    }
}

/// Enters a new network namespace, with the loopback interface up, that serves as the host's network of this test.
fn enter_network() {
    unshare(CloneFlags::CLONE_NEWNET).expect("unshare(CLONE_NEWNET)");
    stage1::sys::net::loopback_up().expect("the loopback interface up");
}

fn make_fresh(dir: &Path) {
    // A run that was killed may have left its directory; its warden has detached the mounts in it.
    let stuck = leftovers::clear(dir, &[]);
    assert!(stuck.is_empty(), "left from an earlier run: {stuck:?}");
    if dir.exists() {
        fs::remove_dir_all(dir).unwrap_or_else(|e| panic!("rm -r {}: {e}", dir.display()));
    }
    fs::create_dir_all(dir).unwrap_or_else(|e| panic!("mkdir {}: {e}", dir.display()));
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("chmod");
}

/// Waits for the body. Returns the reason of its failure, if it failed, and the UUIDs of all pods that it made.
fn attend(body: Pid, seconds: u64, runner: Pid, dir: &Path) -> (Option<String>, Vec<String>) {
    let seconds = seconds * process::patience();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut pods = BTreeSet::new();
    let failure = loop {
        pods.extend(pods_below(dir));
        match leftovers::reap(Some(body)) {
            Some(WaitStatus::Exited(_, 0)) => break None,
            Some(WaitStatus::Exited(_, _)) => break Some("failed".into()),
            Some(other) => break Some(format!("ended by {other:?}")),
            None if getppid() != runner => break Some("the runner is gone".into()),
            None if Instant::now() > end => {
                let family = process::descendants(std::process::id() as i32);
                let family: Vec<String> = family.iter().map(|p| format!("  {p}")).collect();
                break Some(format!("not done after {seconds} s; then there were\n{}", family.join("\n")));
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    pods.extend(pods_below(dir));
    (failure, pods.into_iter().collect())
}

/// The names of the pod directories in `DIR/*/pods/PHASE/`.
fn pods_below(dir: &Path) -> Vec<String> {
    let names = |path: &Path| -> Vec<PathBuf> {
        fs::read_dir(path).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect()
    };
    names(dir)
        .iter()
        .flat_map(|data| names(&data.join("pods")))
        .flat_map(|phase| names(&phase))
        .filter_map(|pod| Some(pod.file_name()?.to_str()?.to_owned()))
        .filter(|name| name.len() == 36)
        .collect()
}

/// In the body: runs the test. A panic prints its message and ends the process with another status.
fn body(case: Case, dir: &Path) -> ExitCode {
    let context = Context { dir: dir.to_owned(), layout: Layout::here() };
    match (case.body)(&context) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

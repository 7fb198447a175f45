//! Running commands, and inspecting processes and cgroups in /proc and the file system.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};

/// The result of a command.
#[derive(Debug, Clone)]
pub struct Output {
    /// The command, for messages.
    pub command: String,
    /// Its exit status; `None` if a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Output {
    /// The trimmed standard output of a command that must have succeeded; panics otherwise.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.code == Some(0), "should have succeeded: {self}");
        self.stdout.trim_end().to_owned()
    }

    /// The error line of a command that must have failed with exactly one line on stderr; panics otherwise.
    #[track_caller]
    pub fn complaint(self) -> String {
        assert!(self.code.is_some_and(|c| c != 0), "should have failed: {self}");
        let lines: Vec<&str> = self.stderr.lines().collect();
        assert!(lines.len() == 1 && !lines[0].trim().is_empty(), "should have said one line on stderr: {self}");
        assert!(!self.stderr.contains("panicked"), "should have failed in words of its own: {self}");
        lines[0].to_owned()
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = match (self.code, self.signal) {
            (Some(code), _) => format!("exit status {code}"),
            (_, signal) => format!("signal {}", signal.unwrap_or(0)),
        };
        write!(f, "{}: {end}\n--- stdout\n{}--- stderr\n{}---", self.command, self.stdout, self.stderr)
    }
}

/// Runs a command with empty standard input until it has ended; panics if it can't be started.
#[track_caller]
pub fn run(command: &mut Command) -> Output {
    run_with_input(command, "")
}

/// Number of descriptors of this process that a running command uses: its pipes, and those needed to start it.
const DESCRIPTORS: u64 = 8;
/// Number of descriptors that are kept for everything else.
const OTHERS: u64 = 24;

/// Number of running commands.
static RUNNING: Mutex<u64> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// A permit to run a command: there are as many as this process has descriptors for.
struct Room;

impl Room {
    fn wait() -> Self {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).expect("getrlimit(RLIMIT_NOFILE)");
        let most = (limit.saturating_sub(OTHERS) / DESCRIPTORS).max(1);
        let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        *ENDED.wait_while(running, |running| *running >= most).unwrap_or_else(PoisonError::into_inner) += 1;
        Self
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// Runs a command until it has ended; panics if it can't be started.
#[track_caller]
pub fn run_with_input(command: &mut Command, input: &str) -> Output {
    let words = describe(command);
    let _room = Room::wait();
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() });
    let mut child = command.spawn().unwrap_or_else(|e| panic!("{words}: {e}"));
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(input.as_bytes()).unwrap_or_else(|e| panic!("{words}: stdin: {e}"));
    }
    let out = child.wait_with_output().unwrap_or_else(|e| panic!("{words}: {e}"));
    Output {
        command: words,
        code: out.status.code(),
        signal: out.status.signal(),
        stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
    }
}

/// The command line, without quoting.
pub fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|a| a.to_string_lossy().into_owned()));
    words.join(" ")
}

/// Factor for all timeouts: `E2E_PATIENCE`.
pub fn patience() -> u64 {
    std::env::var("E2E_PATIENCE").map_or(1, |times| times.parse().expect("E2E_PATIENCE is a number"))
}

/// Waits until a process waits for the lock of a file: flock(2), proc_locks(5).
///
/// # Panics
/// None does in time, or the file or the table can't be read.
#[track_caller]
pub fn wait_for_waiter(path: &Path) {
    let inode = path.metadata().expect("stat a file with a lock").ino();
    wait_for("a process that waits for a lock", 20, || {
        let table = std::fs::read_to_string("/proc/locks").expect("read /proc/locks");
        table.lines().any(|line| line.contains("->") && line.contains(&format!(":{inode} "))).then_some(())
    });
}

/// Calls the closure until it returns a value; panics with `what` after `seconds`.
#[track_caller]
pub fn wait_for<T>(what: &str, seconds: u64, mut look: impl FnMut() -> Option<T>) -> T {
    let seconds = seconds * patience();
    let end = Instant::now() + Duration::from_secs(seconds);
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(Instant::now() < end, "waited {seconds} s in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A process, as /proc shows it: proc(5).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// PID in this process's PID namespace.
    pub pid: i32,
    /// PID of its parent.
    pub parent: i32,
    /// State: `R`, `S`, `Z`…
    pub state: char,
    /// Its command line, or its name in brackets.
    pub words: String,
    /// Name of the kernel function that it sleeps in.
    pub sleeps_in: String,
}

impl Process {
    /// The process with this PID; `None` if it does not exist.
    pub fn look_up(pid: i32) -> Option<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let stat = std::fs::read_to_string(dir.join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let bytes = std::fs::read(dir.join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&bytes).trim_end_matches('\0').replace('\0', " ");
        let words = if words.is_empty() { format!("[{}]", name.split_once('(')?.1) } else { words };
        let sleeps_in = std::fs::read_to_string(dir.join("wchan")).unwrap_or_default();
        Some(Self { pid, parent, state, words, sleeps_in })
    }

    /// PID of its parent; panics if it does not exist.
    #[track_caller]
    pub fn parent_of(pid: i32) -> i32 {
        Self::look_up(pid).unwrap_or_else(|| panic!("process {pid} has gone")).parent
    }

    /// Its soft limit of open files; panics if it does not exist.
    #[track_caller]
    pub fn most_files(pid: i32) -> u64 {
        let path = format!("/proc/{pid}/limits");
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        let line = text.lines().find_map(|line| line.strip_prefix("Max open files"));
        let soft = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        soft.unwrap_or_else(|| panic!("{path} has no such number: {text}"))
    }

    /// Whether a signal is in one of these sets of its `/proc/PID/status`: `SigBlk`, or `SigPnd` and `ShdPnd`.
    pub fn has_signal(pid: i32, sets: &[&str], signal: i32) -> bool {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        text.lines().filter_map(|line| line.split_once(":\t")).any(|(name, mask)| {
            sets.contains(&name) && u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & (1 << (signal - 1)) != 0)
        })
    }

    /// Waits until a signal that was sent to it is no longer pending: a second one before that would be merged with it.
    #[track_caller]
    pub fn has_taken(pid: i32, signal: i32) {
        wait_for("the signal to be taken", 20, || {
            (!Self::has_signal(pid, &["SigPnd", "ShdPnd"], signal)).then_some(())
        });
    }

    /// Waits until it blocks SIGTERM or waits for it in sigtimedwait(2), as a probe does that ends in order on SIGTERM.
    #[track_caller]
    pub fn holds_sigterm(pid: i32) {
        wait_for("SIGTERM to be blocked", 20, || {
            let waits = || Self::look_up(pid).is_some_and(|p| p.sleeps_in.contains("sigtimedwait"));
            (Self::has_signal(pid, &["SigBlk"], 15) || waits()).then_some(())
        });
    }

    /// Whether it exists and is not a zombie.
    pub fn lives(pid: i32) -> bool {
        Self::look_up(pid).is_some_and(|p| p.state != 'Z')
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (child of {}, {} in {}): {}", self.pid, self.parent, self.state, self.sleeps_in, self.words)
    }
}

/// All processes in /proc.
pub fn all() -> Vec<Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries.filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok()).filter_map(Process::look_up).collect()
}

/// All descendants of a process, without itself.
pub fn descendants(of: i32) -> Vec<Process> {
    let all = all();
    let mut family = vec![of];
    let mut found: Vec<Process> = Vec::new();
    loop {
        let before = found.len();
        for p in &all {
            if family.contains(&p.parent) && !family.contains(&p.pid) {
                family.push(p.pid);
                found.push(p.clone());
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// The lines of a mountinfo file, split into fields.
pub fn mountinfo(pid: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
    text.lines().map(|l| l.split(' ').map(str::to_owned).collect()).collect()
}

/// A text with type, mode, owner and content of everything below a path, to find out whether something has changed.
/// Symlinks are not followed.
pub fn picture(path: &Path) -> String {
    fn walk(path: &Path, into: &mut Vec<String>) {
        use std::os::unix::fs::MetadataExt;
        let Ok(m) = std::fs::symlink_metadata(path) else {
            into.push(format!("{} absent", path.display()));
            return;
        };
        let mut line = format!("{} {:o} {}:{}", path.display(), m.mode(), m.uid(), m.gid());
        if m.is_file() {
            let bytes = std::fs::read(path).unwrap_or_default();
            line += &format!(" {}", String::from_utf8_lossy(&bytes));
        } else if m.is_symlink() {
            line += &format!(" -> {}", std::fs::read_link(path).unwrap_or_default().display());
        }
        into.push(line);
        if m.is_dir() {
            let mut names: Vec<_> =
                std::fs::read_dir(path).into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).collect();
            names.sort();
            names.iter().for_each(|p| walk(p, into));
        }
    }
    let mut lines = Vec::new();
    walk(path, &mut lines);
    lines.join("\n")
}

/// A pod's UUID, escaped for the name of its cgroup: systemd-escape(1).
pub fn escaped(uuid: &str) -> String {
    uuid.replace('-', "\\x2d")
}

/// The cgroups of a pod, in all hierarchies.
pub fn pod_cgroups(uuid: &str) -> Vec<PathBuf> {
    let name = format!("machine-rkt\\x2d{}.scope", escaped(uuid));
    places().map(|place| place.join(&name)).filter(|dir| dir.is_dir()).collect()
}

/// The cgroups whose name has the UUID, where host managers look for them: the pod's, or the one that stays after its
/// end.
pub fn cgroups_named_after(uuid: &str) -> Vec<PathBuf> {
    let holds = |dir: &PathBuf| {
        let name = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        (name.contains(uuid) || name.contains(&escaped(uuid))) && dir.is_dir()
    };
    places().flat_map(std::fs::read_dir).flatten().flatten().map(|entry| entry.path()).filter(holds).collect()
}

/// The mount points of the hierarchies that have such a cgroup.
pub fn hierarchies_named_after(uuid: &str) -> BTreeSet<PathBuf> {
    let mounts = cgroup_mounts();
    let of = |dir: PathBuf| {
        mounts.iter().filter(|mount| dir.starts_with(mount)).max_by_key(|m| m.as_os_str().len()).cloned()
    };
    cgroups_named_after(uuid).into_iter().filter_map(of).collect()
}

fn cgroup_mounts() -> Vec<PathBuf> {
    let hierarchies = mountinfo("self").into_iter().filter(|m| m.iter().any(|f| f == "cgroup" || f == "cgroup2"));
    hierarchies.map(|m| PathBuf::from(&m[4])).collect()
}

/// The directories that may have cgroups of pods: the roots of the hierarchies, and machine.slice in them.
fn places() -> impl Iterator<Item = PathBuf> {
    cgroup_mounts().into_iter().flat_map(|mount| [mount.clone(), mount.join("machine.slice")])
}

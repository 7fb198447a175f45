//! Running a command under ptrace(2), to list its system calls or to kill it right before one of them.
//!
//! Children are followed, so the entrypoints that the command runs, and their children in a pod, are traced too. The
//! tracing process must not have other threads.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The shell script that the traced process starts with: it says that it runs, waits for a line, so that it can be
/// seized, and then executes the command. So the command is traced from its first system call on, and the shell is not:
/// seized earlier, the shell's own execve(2) might be taken for the command's.
const BEGINNING: &str = r#"echo && read -r _ && exec "$@" </dev/null >/dev/null"#;

/// Which processes are killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// The command only; its descendants keep running.
    Command,
    /// The command and all its descendants.
    Family,
}

/// The points that `CRASH_POINTS` asks for: `changes`, or `all`, which takes hours. `None` without that variable: then
/// tests try a sample.
pub fn wanted() -> Option<Points> {
    match std::env::var("CRASH_POINTS").as_deref() {
        Ok("all") => Some(Points::Every),
        Ok("changes") => Some(Points::Changes),
        Ok(other) => panic!("CRASH_POINTS={other:?}: use all or changes"),
        Err(_) => None,
    }
}

/// The system calls before which a command is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Points {
    /// All system calls.
    Every,
    /// Those that change what other processes can see: files, mounts, namespaces, locks, processes, messages.
    Changes,
}

impl Points {
    fn count(self, call: &Call) -> bool {
        self == Self::Every || call.changes()
    }
}

/// A system call that a process is about to make.
#[derive(Debug, Clone)]
pub struct Call {
    /// The process that makes it.
    pub pid: Pid,
    /// Its number: `SYS_…`.
    pub number: i64,
    /// Its arguments.
    pub arguments: [u64; 6],
}

impl Call {
    fn of(pid: Pid) -> nix::Result<Self> {
        let regs = ptrace::getregs(pid)?;
        let arguments = [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9];
        Ok(Self { pid, number: regs.orig_rax.cast_signed(), arguments })
    }

    fn changes(&self) -> bool {
        const MAKES: u64 = (libc::O_CREAT | libc::O_TRUNC) as u64;
        match self.number {
            libc::SYS_open => self.arguments[1] & MAKES != 0,
            libc::SYS_openat => self.arguments[2] & MAKES != 0,
            number => CHANGES.contains(&number),
        }
    }

    /// The string that an argument points to.
    pub fn text(&self, argument: usize) -> String {
        let memory = File::open(format!("/proc/{}/mem", self.pid)).expect("the memory of a traced process");
        let mut bytes = Vec::new();
        let mut byte = [0];
        while bytes.len() < 4096
            && memory.read_at(&mut byte, self.arguments[argument] + bytes.len() as u64).is_ok_and(|read| read == 1)
            && byte[0] != 0
        {
            bytes.push(byte[0]);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The path of the file that an argument, a descriptor, refers to.
    pub fn descriptor(&self, argument: usize) -> PathBuf {
        let number = self.arguments[argument] as u32 as i32;
        let link = match number {
            libc::AT_FDCWD => format!("/proc/{}/cwd", self.pid),
            number => format!("/proc/{}/fd/{number}", self.pid),
        };
        fs::read_link(link).unwrap_or_default()
    }

    /// The path that two arguments, a directory descriptor and a string, mean together.
    pub fn path(&self, directory: usize, text: usize) -> PathBuf {
        self.descriptor(directory).join(self.text(text))
    }
}

const CHANGES: &[i64] = &[
    libc::SYS_chmod,
    libc::SYS_chown,
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_connect,
    libc::SYS_creat,
    libc::SYS_execve,
    libc::SYS_exit_group,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_fchown,
    libc::SYS_fchownat,
    libc::SYS_fdatasync,
    libc::SYS_flock,
    libc::SYS_fork,
    libc::SYS_fsetxattr,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_kill,
    libc::SYS_link,
    libc::SYS_linkat,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_mknod,
    libc::SYS_mknodat,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pivot_root,
    libc::SYS_pwrite64,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_rmdir,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setns,
    libc::SYS_symlink,
    libc::SYS_symlinkat,
    libc::SYS_syncfs,
    libc::SYS_umount2,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_unshare,
    libc::SYS_utimensat,
    libc::SYS_vfork,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The end of a traced command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Traced {
    /// It was killed at the requested system call.
    Killed,
    /// It ended before: its exit status, or 128 + signal.
    Ended(i32),
}

/// Runs a command and kills it right before the `nth` (from 0) of the system calls in `points`.
#[track_caller]
pub fn kill_at(command: &Command, follow: bool, points: Points, nth: usize, victims: Victims) -> Traced {
    let mut seen = 0;
    Trace::begin(command, follow).run(victims, |call| {
        let hit = points.count(call) && {
            seen += 1;
            seen > nth
        };
        if hit { Verdict::Kill } else { Verdict::Go }
    })
}

/// Runs a command, which must succeed, and returns the number of its system calls in `points`.
#[track_caller]
pub fn count(command: &Command, follow: bool, points: Points) -> usize {
    let mut seen = 0;
    let ended = Trace::begin(command, follow).run(Victims::Family, |call| {
        seen += usize::from(points.count(call));
        Verdict::Go
    });
    assert_eq!(ended, Traced::Ended(0), "{command:?}");
    seen
}

/// Runs a command until it has ended, and calls `look` right before each of its system calls.
#[track_caller]
pub fn watch(command: &Command, mut look: impl FnMut(&Call)) -> Traced {
    Trace::begin(command, true).run(Victims::Family, |call| {
        look(call);
        Verdict::Go
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Go,
    Kill,
}

struct Trace {
    main: Pid,
    /// The traced processes.
    family: BTreeSet<Pid>,
    /// The processes that have ended, or were let go. A child may be gone before its parent's fork is
    /// reported.
    gone: BTreeSet<Pid>,
    executed: bool,
}

impl Trace {
    #[expect(clippy::zombie_processes, reason = "next() reaps it along with the others")]
    fn begin(command: &Command, follow: bool) -> Self {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", BEGINNING, "sh"]).arg(command.get_program()).args(command.get_args());
        shell.env_clear().envs(environment(command));
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        // In its own process group: a signal that it sends to its group does not reach the test.
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut child = shell.spawn().expect("/bin/sh");
        child.stdout.take().expect("a pipe").read_exact(&mut [0]).expect("the shell's first line");
        let main = Pid::from_raw(child.id().cast_signed());
        let mut options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
        if follow {
            options |= Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
        }
        ptrace::seize(main, options).expect("ptrace(SEIZE)");
        ptrace::interrupt(main).expect("ptrace(INTERRUPT)");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(b"go\n").expect("write to the shell");
        Self { main, family: BTreeSet::from([main]), gone: BTreeSet::new(), executed: false }
    }

    fn run(mut self, victims: Victims, mut judge: impl FnMut(&Call) -> Verdict) -> Traced {
        while let Some(status) = self.next() {
            match status {
                WaitStatus::Exited(pid, code) if pid == self.main => {
                    self.let_go(None);
                    return Traced::Ended(code);
                }
                WaitStatus::Signaled(pid, signal, _) if pid == self.main => {
                    self.let_go(None);
                    return Traced::Ended(128 + signal as i32);
                }
                WaitStatus::PtraceSyscall(pid) if self.executed && is_entry(pid) => {
                    let verdict = Call::of(pid).map_or(Verdict::Go, |call| judge(&call));
                    if verdict == Verdict::Kill {
                        self.end(victims, pid);
                        return Traced::Killed;
                    }
                    go_on(pid, None);
                }
                other => self.step(other),
            }
        }
        panic!("the traced command has vanished");
    }

    /// Waits for the next event of a traced process.
    fn next(&mut self) -> Option<WaitStatus> {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL)) {
                Ok(status) => {
                    if let WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _) = status {
                        self.family.remove(&pid);
                        self.gone.insert(pid);
                    }
                    return Some(status);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::ECHILD) => return None,
                Err(errno) => panic!("waitpid: {errno}"),
            }
        }
    }

    /// Continues a stopped process.
    fn step(&mut self, status: WaitStatus) {
        match status {
            WaitStatus::PtraceEvent(pid, _, event) => {
                if event == libc::PTRACE_EVENT_EXEC && pid == self.main {
                    self.executed = true;
                }
                self.note_birth(pid, event);
                go_on(pid, None);
            }
            WaitStatus::PtraceSyscall(pid) => go_on(pid, None),
            WaitStatus::Stopped(pid, signal) => {
                self.family.insert(pid);
                go_on(pid, Some(signal));
            }
            _ => {}
        }
    }

    /// Adds a process that has stopped to the family, and its new child if it stopped because of a fork. The child may
    /// already be gone.
    fn note_birth(&mut self, pid: Pid, event: i32) {
        self.family.insert(pid);
        if matches!(event, libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE)
            && let Ok(child) = ptrace::getevent(pid)
        {
            let child = Pid::from_raw(i32::try_from(child).expect("a PID"));
            if !self.gone.contains(&child) {
                self.family.insert(child);
            }
        }
    }

    /// Kills the victims; the rest of the family keeps running, untraced.
    fn end(mut self, victims: Victims, stopped: Pid) {
        let doomed: BTreeSet<Pid> = match victims {
            Victims::Command => BTreeSet::from([self.main]),
            Victims::Family => self.family.clone(),
        };
        for pid in &doomed {
            slay(*pid);
        }
        match victims {
            Victims::Command => {
                if stopped != self.main {
                    let _ = ptrace::detach(stopped, None);
                    self.family.remove(&stopped);
                    self.gone.insert(stopped);
                }
                self.let_go(Some(self.main));
            }
            Victims::Family => {
                // A child that was just being forked is reported, and killed, now.
                while !self.family.is_empty()
                    && let Some(status) = self.next()
                {
                    if let Some(pid) = status.pid()
                        && !matches!(status, WaitStatus::Exited(..) | WaitStatus::Signaled(..))
                    {
                        slay(pid);
                    }
                }
            }
        }
    }

    /// Stops tracing all processes, and waits for the end of the killed one.
    fn let_go(&mut self, killed: Option<Pid>) {
        for pid in self.family.iter().filter(|pid| Some(**pid) != killed) {
            // Fails for a process that has ended; one that has not made its first stop will stop anyway.
            let _ = ptrace::interrupt(*pid);
        }
        while !self.family.is_empty()
            && let Some(status) = self.next()
        {
            match status {
                WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {}
                WaitStatus::PtraceEvent(pid, _, event) => {
                    self.note_birth(pid, event);
                    self.leave(pid, None, killed);
                }
                WaitStatus::Stopped(pid, signal) => self.leave(pid, Some(signal), killed),
                WaitStatus::PtraceSyscall(pid) => self.leave(pid, None, killed),
                _ => {}
            }
        }
    }

    fn leave(&mut self, pid: Pid, signal: Option<Signal>, killed: Option<Pid>) {
        if Some(pid) != killed && ptrace::detach(pid, signal).is_ok() {
            self.family.remove(&pid);
            self.gone.insert(pid);
        }
    }
}

/// The command's environment: the variables that were set on it or, if none were, this process's. A `Command` does not
/// tell whether its environment was cleared.
fn environment(command: &Command) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
    let own: Vec<_> =
        command.get_envs().filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))).collect();
    if own.is_empty() { std::env::vars_os().collect() } else { own }
}

fn is_entry(pid: Pid) -> bool {
    ptrace::syscall_info(pid).is_ok_and(|info| info.op == libc::PTRACE_SYSCALL_INFO_ENTRY)
}

fn go_on(pid: Pid, signal: Option<Signal>) {
    match ptrace::syscall(pid, signal) {
        // ESRCH: it was killed meanwhile.
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => panic!("ptrace(SYSCALL, {pid}): {errno}"),
    }
}

fn slay(pid: Pid) {
    match kill(pid, Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(errno) => panic!("kill({pid}): {errno}"),
    }
}

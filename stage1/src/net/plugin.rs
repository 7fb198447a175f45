//! Running a network plugin: a program that takes its command in its environment and its configuration on its standard
//! input, as the CNI specification defines. Host side.
//!
//! It runs in the host's mount and network namespaces, in a new session, with the standard descriptors only.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::WaitStatus;
use nix::unistd::Pid;
use rustix::fs::{MemfdFlags, OFlags};
use serde::Deserialize;

use crate::error::{Context, Error, Result};
use crate::json::{self, or_default};
use crate::sys::process::{self, Fork};
use crate::sys::{dir, signal};

/// Maximum length of a plugin's standard output, in bytes.
const MAX_ANSWER: usize = 256 << 10;
/// Length of its standard error that is kept, in bytes: the beginning.
const MAX_WORDS: usize = 32 << 10;
/// Plugin directories of host managers of the rkt family: on the host, and in an image, relative to the pod directory.
const FAMILY: [&str; 2] = ["/usr/lib/rkt/plugins/net", "stage1/rootfs/usr/lib/rkt/plugins/net"];
/// Plugin directories of distributions.
const DISTRIBUTION: [&str; 3] = ["/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni"];
/// The value of `CNI_VERSION`, which the oldest plugins expect.
const VERSION: &str = "0.1.0";
/// Directories that are added to the caller's `PATH`, for the programs that plugins execute.
const PROGRAMS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A command of the CNI specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// ADD: join the network.
    Add,
    /// CHECK: check that the network is as ADD made it.
    Check,
    /// DEL: leave the network, even if it was joined only in part or was already left.
    Del,
}

impl Command {
    fn word(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
        }
    }

    /// The timeout of one plugin. The usual plugins remove the interface first and then its iptables rules, which they
    /// no longer find the next time: a DEL must not be killed while it may only be slow.
    pub fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Add => 30,
            Self::Check => 10,
            Self::Del => 40,
        })
    }
}

/// The directories in which plugins are searched: `CNI_PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SearchPath(Vec<PathBuf>);

impl SearchPath {
    /// The absolute directories in the caller's `CNI_PATH`; without that variable those of host managers of the rkt
    /// family, then the image's own directory and those of distributions.
    pub fn of_environment(local_config: &Path) -> Self {
        match std::env::var_os("CNI_PATH").filter(|path| !path.is_empty()) {
            Some(path) => Self(std::env::split_paths(&path).filter(|dir| dir.is_absolute()).collect()),
            None => {
                let family = [local_config.join("net.d")].into_iter().chain(FAMILY.map(PathBuf::from));
                Self(family.chain(own_directory()).chain(DISTRIBUTION.map(PathBuf::from)).collect())
            }
        }
    }

    #[cfg(test)]
    pub(super) fn of(directory: &Path) -> Self {
        Self(vec![directory.to_owned()])
    }

    /// The directories in `earlier`, a value of `CNI_PATH`, followed by those of this path that are not in it.
    pub fn after(&self, earlier: &str) -> Self {
        let mut all: Vec<PathBuf> = std::env::split_paths(earlier).collect();
        all.extend(self.0.iter().filter(|dir| !all.contains(dir)).cloned().collect::<Vec<_>>());
        Self(all)
    }

    /// The path of the plugin `name`, perhaps relative to the pod directory `dir`.
    ///
    /// # Errors
    /// No directory has an executable file of that name.
    pub fn find(&self, dir: &Path, name: &str) -> Result<PathBuf> {
        let mut candidates = self.0.iter().map(|directory| directory.join(name));
        candidates.find(|file| is_executable(&dir.join(file))).context(|| {
            format!(
                "the network plugin {name:?} is missing: it is not in {self}; install the Debian package \
                 containernetworking-plugins, or do without: --net=none or --net=host"
            )
        })
    }
}

impl std::fmt::Display for SearchPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let places: Vec<_> = self.0.iter().map(|directory| directory.display().to_string()).collect();
        f.write_str(&places.join(":"))
    }
}

/// The directory `cni` beside that of this program, in which an image may bring plugins.
fn own_directory() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    Some(program.parent()?.parent()?.join("cni"))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|stat| stat.is_file() && stat.permissions().mode() & 0o111 != 0)
}

/// A call of a plugin.
pub struct Call<'a> {
    /// The pod directory, which is the plugin's working directory.
    pub dir: &'a Path,
    /// `CNI_COMMAND`.
    pub command: Command,
    /// Path of the program.
    pub program: &'a Path,
    /// `CNI_CONTAINERID`: the pod's UUID.
    pub container: &'a str,
    /// `CNI_NETNS`: path of the network namespace; empty if that does not exist any more.
    pub namespace: &'a str,
    /// `CNI_IFNAME`: name of the interface in the pod.
    pub interface: &'a str,
    /// `CNI_ARGS`: `KEY=VALUE;…`
    pub arguments: &'a str,
    /// `CNI_PATH`: directories of further plugins.
    pub path: &'a str,
    /// The configuration, as the plugin's standard input.
    pub input: &'a [u8],
}

impl Call<'_> {
    /// Runs the plugin until it has ended, at most until `deadline`, and returns its standard output. A request to end
    /// that `signals` report interrupts it.
    ///
    /// # Errors
    /// The plugin can't be run, fails (then the message has its error object and its standard error), writes too much,
    /// times out, or is interrupted.
    pub fn run(&self, deadline: Instant, signals: Option<&SignalFd>) -> Result<Vec<u8>> {
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        self.attempt(deadline, signals).context(|| format!("plugin {name} {}", self.command.word()))
    }

    fn attempt(&self, deadline: Instant, signals: Option<&SignalFd>) -> Result<Vec<u8>> {
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).context(|| "pipe");
        let (answer, answer_end) = pipe()?;
        let (words, words_end) = pipe()?;
        let input = self.input()?;
        let parent = process::pidfd_open(std::process::id().cast_signed())?;
        let child = match process::fork()? {
            Fork::Parent(child) => child,
            Fork::Child => {
                let Err(error) = self.become_plugin(&parent, &input, &answer_end, &words_end);
                // The parent reads this, if standard error was already replaced.
                eprintln!("{}", error.one_line());
                process::exit_now(127)
            }
        };
        drop((answer_end, words_end));
        let mut running = Running {
            child,
            pidfd: process::pidfd_open(child.as_raw())?,
            answer: OutputPipe::new(answer, MAX_ANSWER)?,
            words: OutputPipe::new(words, MAX_WORDS)?,
        };
        let name = self.program.file_name().unwrap_or_default().display();
        log::debug!("executing net-plugin {name} ({} {}, {:?})", self.command.word(), self.interface, self.program);
        let watched = running.watch(deadline, signals);
        if watched.is_err() {
            process::kill_session(running.child)?;
        }
        let status = process::wait_child(running.child)?;
        watched?;
        running.answer.fill()?;
        running.words.fill()?;
        let words = running.words.text();
        match status {
            WaitStatus::Exited(_, 0) => {
                words.lines().for_each(|line| log::debug!("{:?}: {line}", self.program));
                Ok(running.answer.kept)
            }
            status => Err(Error::new(failure(&running.answer.text(), &words, status))),
        }
    }

    /// The configuration as a file in memory: memfd_create(2).
    fn input(&self) -> Result<File> {
        let mut file =
            File::from(rustix::fs::memfd_create("cni", MemfdFlags::CLOEXEC).context(|| "memfd_create(cni)")?);
        file.write_all(self.input).and_then(|()| file.rewind()).context(|| "write the plugin's configuration")?;
        Ok(file)
    }

    /// In the child: executes the plugin.
    fn become_plugin(
        &self,
        parent: &OwnedFd,
        input: &File,
        answer: &OwnedFd,
        words: &OwnedFd,
    ) -> Result<std::convert::Infallible> {
        process::set_standard_fd(input, 0)?;
        process::set_standard_fd(answer, 1)?;
        process::set_standard_fd(words, 2)?;
        process::new_session()?;
        process::die_with_parent()?;
        if process::pidfd_wait_end(parent, Duration::ZERO)? {
            return Err(Error::new("the parent process has ended"));
        }
        process::close_on_exec_from_3()?;
        std::env::set_current_dir(self.dir).context(|| format!("chdir({:?})", self.dir))?;
        let program = dir::c_string(self.program.as_os_str().as_bytes())?;
        signal::exec_with_defaults(&program, std::slice::from_ref(&program), &self.environment()?)
    }

    /// The plugin's environment: the caller's without variables that are meant for this program, and those of the CNI
    /// specification.
    fn environment(&self) -> Result<Vec<std::ffi::CString>> {
        let own = ["RKT_", "CNI_", "LISTEN_", "NOTIFY_SOCKET", "PATH"];
        let inherited =
            std::env::vars_os().filter(|(name, _)| !own.iter().any(|own| name.as_bytes().starts_with(own.as_bytes())));
        let mut environment = Vec::new();
        for (mut name, value) in inherited {
            name.push("=");
            name.push(value);
            environment.push(dir::c_string(&name.into_vec())?);
        }
        let path = std::env::var("PATH").map_or_else(|_| PROGRAMS.to_owned(), |path| format!("{path}:{PROGRAMS}"));
        for (name, value) in [
            ("PATH", path.as_str()),
            ("CNI_VERSION", VERSION),
            ("CNI_COMMAND", self.command.word()),
            ("CNI_CONTAINERID", self.container),
            ("CNI_NETNS", self.namespace),
            ("CNI_IFNAME", self.interface),
            ("CNI_ARGS", self.arguments),
            ("CNI_PATH", self.path),
        ] {
            environment.push(dir::c_string(format!("{name}={value}").as_bytes())?);
        }
        Ok(environment)
    }
}

/// A plugin that runs.
struct Running {
    child: Pid,
    pidfd: OwnedFd,
    answer: OutputPipe,
    words: OutputPipe,
}

impl Running {
    /// Waits until the plugin has ended. Processes that it has started may still run, and hold its output open.
    ///
    /// # Errors
    /// The deadline has passed, the output is too long, or a signal asks this process to end. The plugin still runs
    /// then.
    fn watch(&mut self, deadline: Instant, signals: Option<&SignalFd>) -> Result<()> {
        let limit = deadline.saturating_duration_since(Instant::now()).as_secs_f64();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::new(format!("it timed out after {limit:.0} s and was killed")));
            }
            let mut fds = vec![PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
            fds.extend(signals.map(|signals| PollFd::new(signals.as_fd(), PollFlags::POLLIN)));
            for stream in [&self.answer, &self.words] {
                fds.extend(stream.pipe.as_ref().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
            }
            let timeout = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno).context(|| "poll(plugin)"),
            }
            self.answer.fill()?;
            self.words.fill()?;
            if self.answer.is_over_full {
                return Err(Error::new(format!("its output is longer than {MAX_ANSWER} bytes; it was killed")));
            }
            if let Some(signals) = signals
                && signal::is_asked_to_end(signals)?
            {
                return Err(Error::new("interrupted"));
            }
            if process::pidfd_wait_end(&self.pidfd, Duration::ZERO)? {
                return Ok(());
            }
        }
    }
}

/// The reading end of a pipe, and the beginning of the data that was read from it.
struct OutputPipe {
    pipe: Option<File>,
    kept: Vec<u8>,
    limit: usize,
    is_over_full: bool,
}

impl OutputPipe {
    fn new(pipe: OwnedFd, limit: usize) -> Result<Self> {
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK).context(|| "fcntl(O_NONBLOCK)")?;
        Ok(Self { pipe: Some(pipe.into()), kept: Vec::new(), limit, is_over_full: false })
    }

    /// Reads without blocking, at most 64 KiB. Data beyond the limit is dropped.
    fn fill(&mut self) -> Result<()> {
        let mut buffer = [0; 4096];
        for _ in 0..16 {
            let Some(pipe) = &mut self.pipe else { return Ok(()) };
            match pipe.read(&mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(read) => {
                    let room = self.limit - self.kept.len();
                    self.is_over_full |= read > room;
                    self.kept.extend(&buffer[..read.min(room)]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context(|| "read from the plugin"),
            }
        }
        Ok(())
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.kept).trim().to_owned()
    }
}

/// The message for a plugin that failed: its error object or, without one, its standard output; then its standard
/// error.
fn failure(answer: &str, words: &str, status: WaitStatus) -> String {
    let ended = match status {
        WaitStatus::Exited(_, code) => format!("exited with {code}"),
        WaitStatus::Signaled(_, signal, _) => format!("was killed by {signal}"),
        _ => "ended".to_owned(),
    };
    let mut parts: Vec<String> = Vec::new();
    match error_object(answer) {
        Some((message, details, code)) => {
            parts.extend([message, details].into_iter().filter(|part| !part.is_empty()));
            parts.extend(code.map(|code| format!("CNI error {code}")));
        }
        None if !answer.is_empty() => parts.push(answer.to_owned()),
        None => {}
    }
    if !words.is_empty() {
        parts.push(words.to_owned());
    }
    if parts.is_empty() {
        return format!("it {ended} without a message");
    }
    let text = parts.join("; ");
    // Go: exec: "iptables": executable file not found in $PATH
    let has = |wanted| text.split(|c: char| !c.is_ascii_alphanumeric()).any(|word| word == wanted);
    let hint =
        if has("iptables") && has("executable") && has("PATH") { "; install the Debian package iptables" } else { "" };
    format!("{text} (it {ended}){hint}")
}

fn error_object(answer: &str) -> Option<(String, String, Option<u64>)> {
    /// The error object of the CNI specification.
    #[derive(Deserialize)]
    struct ErrorJson {
        #[serde(default, deserialize_with = "or_default")]
        msg: String,
        #[serde(default, deserialize_with = "or_default")]
        details: String,
        code: Option<u64>,
    }
    let ErrorJson { msg, details, code } = json::parse(answer.as_bytes()).ok()?;
    (!msg.is_empty() || !details.is_empty()).then_some((msg, details, code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_a_plugin_says() {
        let ended = WaitStatus::Exited(Pid::from_raw(1), 1);
        let failure = |answer, words| failure(answer, words, ended);
        let object = r#"{"cniVersion":"0.4.0","code":7,"msg":"no luck","details":"none at all"}"#;
        assert_eq!(failure(object, ""), "no luck; none at all; CNI error 7 (it exited with 1)");
        assert_eq!(failure(r#"{"msg":"x"}"#, "trace"), "x; trace (it exited with 1)");
        assert_eq!(failure("plain", "words"), "plain; words (it exited with 1)");
        assert_eq!(failure("", ""), "it exited with 1 without a message");
        let missing = r#"{"msg":"failed to locate iptables: exec: \"iptables\": executable file not found in $PATH"}"#;
        assert!(failure(missing, "").ends_with("; install the Debian package iptables"), "{}", failure(missing, ""));
    }

    #[test]
    fn plugins_are_executable_files() {
        let tmp = tempfile::tempdir().unwrap();
        let search = SearchPath::of(tmp.path());
        std::fs::write(tmp.path().join("ptp"), "").unwrap();
        std::fs::create_dir(tmp.path().join("bridge")).unwrap();
        for missing in ["ptp", "bridge", "none"] {
            let line = search.find(Path::new("."), missing).unwrap_err().one_line();
            assert!(line.contains("containernetworking-plugins") && line.contains("--net=none"), "{line}");
        }
        std::fs::set_permissions(tmp.path().join("ptp"), PermissionsExt::from_mode(0o755)).unwrap();
        assert_eq!(search.find(Path::new("."), "ptp").unwrap(), tmp.path().join("ptp"));
        let relative = SearchPath(vec!["".into()]);
        assert_eq!(relative.find(tmp.path(), "ptp").unwrap(), Path::new("ptp"));
        let both = search.after("/a:/b");
        assert_eq!(both.to_string(), format!("/a:/b:{}", tmp.path().display()));
        assert_eq!(both.after("/b").to_string(), format!("/b:/a:{}", tmp.path().display()));
    }
}

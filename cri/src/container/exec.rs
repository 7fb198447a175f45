//! Running a command in a container and waiting for its end

use std::ffi::OsString;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use stage0::entrypoint::enter::{self, EnterOptions};
use stage1::error::Context;
use stage1::sys::process;
use tonic::Code;

use super::command_end::{AFTER, kill_command};
use super::life::must_run;
use super::{Container, find};
use crate::api::{ExecSyncRequest, ExecSyncResponse};
use crate::fault::{Fault, Result};
use crate::node::Node;
use crate::sandbox::Sandbox;

/// The most bytes of each stream in an answer: clients accept no longer messages.
const MOST: usize = 8 << 20;
/// How long to wait for the end of a command's output after the command has ended: its children may hold it open.
const DRAIN: Duration = Duration::from_secs(2);

/// `ExecSync`: runs a command in a container, waits for its end, and returns its output and exit code. Kills the
/// command after the timeout, in seconds; 0 means none.
///
/// # Errors
/// The container does not run, there is no command, it can't be executed, or it timed out (`DEADLINE_EXCEEDED`).
pub fn sync(node: &Node, request: &ExecSyncRequest) -> Result<ExecSyncResponse> {
    let mut command = program(node, &request.container_id, &request.cmd, false)?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context(|| "execute enter")?;
    let stdout = Kept::of(child.stdout.take());
    let stderr = Kept::of(child.stderr.take());
    let limit = u64::try_from(request.timeout).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
    let exit_code = wait(&mut child, limit)?;
    let end = Instant::now() + DRAIN;
    Ok(ExecSyncResponse { stdout: stdout.take_until(end), stderr: stderr.take_until(end), exit_code })
}

/// The program of the host that runs a command in a container, with a terminal or without.
///
/// # Errors
/// The container does not run, or there is no command.
pub fn program(node: &Node, container: &str, words: &[String], tty: bool) -> Result<Command> {
    let (sandbox, container) = running(node, container)?;
    if words.is_empty() {
        return Err(Fault::invalid("there is no command"));
    }
    let app = container.app.app.as_ref();
    let options = EnterOptions {
        // the container's user; as no group is given, with the container's groups
        user: app.map(|app| app.user.clone()).filter(|user| !user.is_empty()),
        tty: Some(if tty { "always" } else { "never" }),
        ..EnterOptions::default()
    };
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    Ok(enter::program(&node.store, &sandbox.pod, Some(container.name()), &options, &words)?)
}

/// A container that runs, with its sandbox.
///
/// # Errors
/// The container does not exist or does not run.
pub fn running(node: &Node, container: &str) -> Result<(Sandbox, Container)> {
    let (sandbox, container) = find(node, container)?;
    must_run(&sandbox)?;
    if container.status(&sandbox)?.state != "running" {
        return Err(Fault::not_now(format!("container {} does not run", container.id)));
    }
    Ok((sandbox, container))
}

/// Waits for the child's end; returns its exit code, or 128 plus the number of the signal that killed it.
fn wait(child: &mut Child, limit: Option<Duration>) -> Result<i32> {
    let pidfd = process::pidfd_open(i32::try_from(child.id()).context(|| "pid")?)?;
    let in_time = match limit {
        Some(limit) => process::pidfd_wait_end(&pidfd, limit)?,
        None => true,
    };
    if !in_time {
        let ends = kill_command(child.id())? && process::pidfd_wait_end(&pidfd, AFTER)?;
        if !ends {
            // the command ends with the enter process that runs it
            child.kill().context(|| "kill enter")?;
        }
    }
    let status = child.wait().context(|| "wait for enter")?;
    if !in_time {
        let seconds = limit.unwrap_or_default().as_secs();
        let message = format!("the command timed out after {seconds} s and was killed");
        return Err(Fault { code: Code::DeadlineExceeded, message });
    }
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    Ok(status.code().unwrap_or_else(|| 128 + signal.unwrap_or_default()))
}

/// The output of a stream so far.
struct Kept {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Kept {
    /// Reads a stream to its end in a thread; drops bytes after the first [`MOST`].
    fn of(stream: Option<impl Read + Send + 'static>) -> Self {
        let bytes: Arc<Mutex<Vec<u8>>> = Arc::default();
        let into = Arc::clone(&bytes);
        let thread = stream.map(|mut stream| {
            std::thread::spawn(move || {
                let mut block = vec![0; 16 << 10];
                while let Ok(read @ 1..) = stream.read(&mut block) {
                    let mut kept = into.lock().unwrap_or_else(PoisonError::into_inner);
                    let room = MOST.saturating_sub(kept.len());
                    kept.extend_from_slice(&block[..read.min(room)]);
                }
            })
        });
        Self { bytes, thread }
    }

    /// Waits until the stream ends or `end`, and returns the output.
    fn take_until(self, end: Instant) -> Vec<u8> {
        if let Some(thread) = self.thread {
            while !thread.is_finished() && Instant::now() < end {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        std::mem::take(&mut *self.bytes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

//! The request behind a URL

use std::process::Command;

use stage0::entrypoint::attach::{self, AttachMode, AttachOptions};
use stage1::error::Context;
use stage1::streams::TTY;
use stage1::sys::process;

use super::forward::Network;
use super::session::Wanted;
use crate::api::{AttachRequest, ExecRequest, NamespaceMode, PortForwardRequest};
use crate::container::exec;
use crate::fault::{Fault, Result};
use crate::node::Node;
use crate::sandbox;

/// The request that a URL was made for. The state of the container is checked again when the client connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Run a command in a container.
    Exec {
        /// The container's id.
        container: String,
        /// The command.
        words: Vec<String>,
        /// The command's streams.
        wanted: Wanted,
    },
    /// Attach to a container.
    Attach {
        /// The container's id.
        container: String,
        /// The streams.
        wanted: Wanted,
    },
    /// Connect to ports of a sandbox.
    PortForward {
        /// The sandbox's id.
        sandbox: String,
        /// The ports that the client may connect to; any if empty.
        ports: Vec<u16>,
    },
}

impl Request {
    /// The word for the request in URLs.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Exec { .. } => "exec",
            Self::Attach { .. } => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }

    /// Checks a request to run a command.
    ///
    /// # Errors
    /// The container does not run, or the command or the streams are invalid.
    pub fn exec(node: &Node, request: &ExecRequest) -> Result<Self> {
        let &ExecRequest { stdin, stdout, stderr, tty, .. } = request;
        let wanted = check(Wanted { stdin, stdout, stderr, tty })?;
        // starts nothing, but reports errors now
        exec::program(node, &request.container_id, &request.cmd, tty)?;
        Ok(Self::Exec { container: request.container_id.clone(), words: request.cmd.clone(), wanted })
    }

    /// Checks a request to attach to a container.
    ///
    /// # Errors
    /// The container does not run, or the streams are invalid or not those of the container.
    pub fn attach(node: &Node, request: &AttachRequest) -> Result<Self> {
        let &AttachRequest { stdin, stdout, stderr, tty, .. } = request;
        let wanted = check(Wanted { stdin, stdout, stderr, tty })?;
        let (_, container) = exec::running(node, &request.container_id)?;
        if container.record.tty != tty {
            let has = if container.record.tty { "has a terminal" } else { "has no terminal" };
            return Err(Fault::invalid(format!("the container {has}: tty must say the same")));
        }
        Ok(Self::Attach { container: request.container_id.clone(), wanted })
    }

    /// Checks a request to connect to ports.
    ///
    /// # Errors
    /// The sandbox is not ready, or a port is invalid.
    pub fn port_forward(node: &Node, request: &PortForwardRequest) -> Result<Self> {
        network(node, &request.pod_sandbox_id)?;
        let port = |port: &i32| {
            u16::try_from(*port).ok().filter(|port| *port > 0).ok_or_else(|| Fault::invalid(format!("port {port}")))
        };
        let ports = request.port.iter().map(port).collect::<Result<_>>()?;
        Ok(Self::PortForward { sandbox: request.pod_sandbox_id.clone(), ports })
    }
}

/// Checks the streams: at least one, and no stderr with a terminal, which has only one output.
fn check(wanted: Wanted) -> Result<Wanted> {
    match wanted {
        Wanted { tty: true, stderr: true, .. } => {
            Err(Fault::invalid("tty and stderr: what is written to a terminal is one stream, stdout"))
        }
        Wanted { stdin: false, stdout: false, stderr: false, .. } => {
            Err(Fault::invalid("none of stdin, stdout and stderr is asked for"))
        }
        wanted => Ok(wanted),
    }
}

/// The program of the host that attaches to a container.
///
/// # Errors
/// The container does not run.
pub fn attaching(node: &Node, container: &str, wanted: Wanted) -> Result<Command> {
    let (sandbox, container) = exec::running(node, container)?;
    let names: &[(&str, bool)] = match (wanted.tty, wanted.stdin) {
        (true, true) => &[(TTY, true)],
        (true, false) => &[("tty-out", true)],
        (false, _) => &[("stdin", wanted.stdin), ("stdout", wanted.stdout), ("stderr", wanted.stderr)],
    };
    let names = names.iter().filter(|(_, wanted)| *wanted).map(|(name, _)| (*name).to_owned());
    let options = AttachOptions {
        mode: AttachMode::Custom(names.collect()),
        // no key detaches: all input is for the container
        keys: Some(String::new()),
        pass_end: container.record.stdin_once,
        // as kubectl expects it
        from_now: true,
        debug: node.debug,
    };
    Ok(attach::program(&node.store, &sandbox.pod, container.name(), &options)?)
}

/// The network namespace of a sandbox.
///
/// # Errors
/// The sandbox is not ready.
pub fn network(node: &Node, sandbox: &str) -> Result<Network> {
    let sandbox = sandbox::find(node, sandbox)?;
    let ended = || Fault::not_now(format!("sandbox {} is not ready", sandbox.id()));
    if !sandbox.is_ready()? {
        return Err(ended());
    }
    if sandbox.record.namespaces[0] == NamespaceMode::Node as i32 {
        return Ok(None);
    }
    let pid = sandbox.pod.pid_if_running()?.ok_or_else(ended)?;
    let pidfd = process::pidfd_open(pid)?;
    let path = format!("/proc/{pid}/ns/net");
    let namespace = std::fs::File::open(&path).context(|| format!("open {path:?}"))?;
    // the PID may have been reused before the namespace was opened
    let is_same =
        sandbox.pod.pid_if_running()? == Some(pid) && !process::pidfd_wait_end(&pidfd, std::time::Duration::ZERO)?;
    if is_same { Ok(Some(namespace.into())) } else { Err(ended()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_have_to_make_sense() {
        let all = Wanted { stdin: true, stdout: true, stderr: true, tty: false };
        assert_eq!(check(all).unwrap(), all);
        check(Wanted { tty: true, stderr: false, ..all }).unwrap();
        for bad in [Wanted { tty: true, ..all }, Wanted::default(), Wanted { tty: true, ..Wanted::default() }] {
            assert_eq!(check(bad).unwrap_err().code, tonic::Code::InvalidArgument, "{bad:?}");
        }
    }
}

//! The channels between a client and a command in a pod, for every transport

use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

/// The most pieces of a stream that are buffered; then the writer waits.
const HELD: usize = 16;

/// The size of a client's terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Size {
    /// Columns.
    #[serde(default)]
    pub width: u16,
    /// Rows.
    #[serde(default)]
    pub height: u16,
}

/// The streams of a command.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Whether the client writes to standard input.
    pub stdin: bool,
    /// Whether the client reads standard output.
    pub stdout: bool,
    /// Whether the client reads standard error.
    pub stderr: bool,
    /// Whether the command has a terminal.
    pub tty: bool,
}

/// The command's ends of the channels.
#[derive(Debug)]
pub struct Inner {
    /// Receives the client's input until that ends.
    pub stdin: mpsc::Receiver<Vec<u8>>,
    /// The size of the client's terminal; `None` before the client has sent it.
    pub size: watch::Receiver<Option<Size>>,
    /// Resolves when the client has disconnected.
    pub gone: oneshot::Receiver<()>,
    /// Standard output and standard error.
    pub outputs: [mpsc::Sender<Vec<u8>>; 2],
}

/// The client's ends of the channels.
#[derive(Debug)]
pub struct Outer {
    /// Sends the client's input; drop it to end the input.
    pub stdin: Option<mpsc::Sender<Vec<u8>>>,
    /// The size of the client's terminal.
    pub size: watch::Sender<Option<Size>>,
    /// Drop it when the client has disconnected.
    pub here: oneshot::Sender<()>,
    /// Standard output and standard error.
    pub outputs: [mpsc::Receiver<Vec<u8>>; 2],
}

/// Makes the channels.
pub fn ends() -> (Inner, Outer) {
    let (stdin_to, stdin) = mpsc::channel(HELD);
    let (size_to, size) = watch::channel(None);
    let (here, gone) = oneshot::channel();
    let ((out_to, out), (err_to, err)) = (mpsc::channel(HELD), mpsc::channel(HELD));
    let inner = Inner { stdin, size, gone, outputs: [out_to, err_to] };
    (inner, Outer { stdin: Some(stdin_to), size: size_to, here, outputs: [out, err] })
}

/// The end of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The command ended with this exit code.
    Code(i32),
    /// The command could not be run, or its end is unknown: the reason.
    Failed(String),
}

impl Ended {
    /// The end as a `Status` of Kubernetes' API in JSON, for protocols from v4 on.
    pub fn status(&self) -> Vec<u8> {
        let status = match self {
            Self::Code(0) => json!({ "metadata": {}, "status": "Success" }),
            Self::Code(code) => json!({
                "metadata": {},
                "status": "Failure",
                "reason": "NonZeroExitCode",
                "message": format!("command terminated with non-zero exit code: exit status {code}"),
                "details": { "causes": [{ "reason": "ExitCode", "message": code.to_string() }] },
            }),
            Self::Failed(why) => json!({
                "metadata": {},
                "status": "Failure",
                "reason": "InternalError",
                "code": 500,
                "message": why,
                "details": { "causes": [{ "message": why }] },
            }),
        };
        status.to_string().into_bytes()
    }

    /// The end for older protocols: the reason of a failure as text; empty after success.
    pub fn words(&self) -> Vec<u8> {
        match self {
            Self::Code(0) => Vec::new(),
            Self::Code(code) => format!("the command ended with exit code {code}").into_bytes(),
            Self::Failed(why) => why.clone().into_bytes(),
        }
    }
}

/// Timeout for a client to open the streams that it has asked for.
pub const OPENING: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_told_as_kubernetes_tells_it() {
        let parse = |ended: Ended| serde_json::from_slice::<serde_json::Value>(&ended.status()).unwrap();
        assert_eq!(parse(Ended::Code(0))["status"], "Success");
        let failed = parse(Ended::Code(7));
        assert_eq!((&failed["reason"], &failed["status"]), (&"NonZeroExitCode".into(), &"Failure".into()));
        assert_eq!(failed["details"]["causes"][0], json!({ "reason": "ExitCode", "message": "7" }));
        assert_eq!(parse(Ended::Failed("no \"x\"".into()))["message"], "no \"x\"");
        assert_eq!((Ended::Code(0).words(), Ended::Code(3).words().is_empty()), (Vec::new(), false));
    }

    #[test]
    fn a_size_is_read_as_clients_write_it() {
        let size: Size = serde_json::from_str(r#"{"Width":80,"Height":24}"#).unwrap();
        assert_eq!(size, Size { width: 80, height: 24 });
        assert!(serde_json::from_str::<Size>(r#"{"Width":-1,"Height":70000}"#).is_err());
    }
}

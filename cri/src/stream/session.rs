//! What a client and a command in a pod say to each other, whichever way the client speaks.

use std::time::Duration;

use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

/// How many pieces of each stream are held for the other side; then whoever writes waits.
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

/// Which streams there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The client writes to the command.
    pub stdin: bool,
    /// It reads what the command writes.
    pub stdout: bool,
    /// It reads its errors.
    pub stderr: bool,
    /// The command has a terminal.
    pub tty: bool,
}

/// The command's ends.
#[derive(Debug)]
pub struct Inner {
    /// What the client writes, to its end.
    pub stdin: mpsc::Receiver<Vec<u8>>,
    /// The size of its terminal, once it has said it.
    pub size: watch::Receiver<Option<Size>>,
    /// Resolves when the client is gone.
    pub gone: oneshot::Receiver<()>,
    /// Where standard output and error go.
    pub outputs: [mpsc::Sender<Vec<u8>>; 2],
}

/// The client's ends. When `here` is dropped it is gone.
#[derive(Debug)]
pub struct Outer {
    /// Where to its input goes; dropped, that is at its end.
    pub stdin: Option<mpsc::Sender<Vec<u8>>>,
    /// Where the size of its terminal goes.
    pub size: watch::Sender<Option<Size>>,
    /// It is there.
    pub here: oneshot::Sender<()>,
    /// What the command writes.
    pub outputs: [mpsc::Receiver<Vec<u8>>; 2],
}

/// Both.
pub fn ends() -> (Inner, Outer) {
    let (stdin_to, stdin) = mpsc::channel(HELD);
    let (size_to, size) = watch::channel(None);
    let (here, gone) = oneshot::channel();
    let ((out_to, out), (err_to, err)) = (mpsc::channel(HELD), mpsc::channel(HELD));
    let inner = Inner { stdin, size, gone, outputs: [out_to, err_to] };
    (inner, Outer { stdin: Some(stdin_to), size: size_to, here, outputs: [out, err] })
}

/// How it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this exit code.
    Code(i32),
    /// It could not be run, or be accompanied to its end: why.
    Failed(String),
}

impl Ended {
    /// As clients are told of it since version 4 of the protocol: a status of Kubernetes' API.
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

    /// As clients of older versions are told: only why it failed, in words.
    pub fn words(&self) -> Vec<u8> {
        match self {
            Self::Code(0) => Vec::new(),
            Self::Code(code) => format!("the command ended with exit code {code}").into_bytes(),
            Self::Failed(why) => why.clone().into_bytes(),
        }
    }
}

/// How long a client may take to open the streams that it has asked for.
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

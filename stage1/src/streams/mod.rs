//! An app's standard streams: their modes, how `app-exec` hands them to the pod's monitor, and how to attach to them.
//! The monitor's side is [`crate::mux`].
//!
//! `app-exec` makes pipes, or a terminal in the app's own devpts, keeps the app's ends and hands the others over
//! ([`handover`]). For host managers, the directory `/rkt/iottymux/APP` of the pod has
//!
//! | file | content | made by |
//! |---|---|---|
//! | `env` | which streams are of mode `stream`, and whether there is a terminal: `STAGE2_STDOUT=true` | app-add |
//! | `endpoints` | the sockets for clients, in JSON | app-add |
//! | `stage2-stdin`, … | a FIFO for each stream of mode `stream` | app-add |
//! | `sock-stdin`, …, `sock-tty` | sockets for clients, which carry the stream's bytes only | the monitor, at the first start |

pub mod attach;
pub mod call;
mod endpoints;
pub mod handover;
mod kube;
mod place;

use serde::{Deserialize, Serialize};

pub use endpoints::{Endpoint, EndpointList};
pub use kube::{Format, LOG_DIR, LOG_MODE, LOG_PATH, LogFile};
pub use place::{DeclaredStreams, prepare, remove};

use crate::appc;
use crate::error::{Context, Error, Result};
use crate::pod::PodApp;

/// The names of the standard streams.
pub const NAMES: [&str; 3] = ["stdin", "stdout", "stderr"];
/// The name of a terminal among the endpoints.
pub const TTY: &str = "tty";
/// The monitor sends this byte (EOT) to a client that has ended the input, when that end was passed on.
pub(crate) const PASSED_ON: u8 = 4;

/// Annotations of an app in the pod manifest: the modes of its streams.
pub const ANNOTATIONS: [&str; 3] =
    ["coreos.com/rkt/stage2/stdin", "coreos.com/rkt/stage2/stdout", "coreos.com/rkt/stage2/stderr"];

/// The mode of a standard stream of an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamMode {
    /// /dev/null.
    Null,
    /// A pipe; the output goes to the app's log, to the output of `run` and to attached clients.
    Log,
    /// A pipe; the output goes to the app's log and to attached clients.
    Stream,
    /// The app's terminal.
    Tty,
    /// The app's terminal, connected to that of `run`'s caller.
    Interactive,
}

/// Parses the mode of standard stream `number`: CONTRACT section 7.
///
/// # Errors
/// The stream has no such mode.
pub fn parse_mode(number: usize, word: &str) -> Result<StreamMode> {
    match (word, number) {
        ("null", _) => Ok(StreamMode::Null),
        ("log", 1 | 2) => Ok(StreamMode::Log),
        ("stream", _) => Ok(StreamMode::Stream),
        ("tty", _) => Ok(StreamMode::Tty),
        ("interactive", _) => Ok(StreamMode::Interactive),
        _ => {
            let log = if number == 0 { "" } else { "log, " };
            let name = NAMES.get(number).copied().unwrap_or_default();
            Err(Error::new(format!("{name} mode {word:?}: use {log}null, stream, tty or interactive")))
        }
    }
}

/// The modes of an app's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamModes(pub [StreamMode; 3]);

impl Default for StreamModes {
    fn default() -> Self {
        Self([StreamMode::Null, StreamMode::Log, StreamMode::Log])
    }
}

impl StreamModes {
    /// The modes in the app's annotations of the pod manifest. With `interactive`, the app gets the terminal of `run`'s
    /// caller, unless an annotation asks for a stream or a terminal.
    ///
    /// # Errors
    /// An annotation has an unknown mode.
    pub fn of(app: &PodApp, interactive: bool) -> Result<Self> {
        let mut modes = Self::default();
        for ((number, mode), name) in modes.0.iter_mut().enumerate().zip(ANNOTATIONS) {
            if let Some(word) = appc::find(&app.runtime.annotations, name) {
                *mode = parse_mode(number, word).context(|| format!("annotation {name}"))?;
            }
        }
        let is_own = modes.0.iter().any(|mode| matches!(mode, StreamMode::Stream | StreamMode::Tty));
        Ok(if interactive && !is_own { Self([StreamMode::Interactive; 3]) } else { modes })
    }

    /// Whether they are the defaults.
    pub(crate) fn are_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is a terminal among them.
    pub fn have_terminal(self) -> bool {
        self.0.iter().any(|mode| matches!(mode, StreamMode::Tty | StreamMode::Interactive))
    }

    /// Whether that terminal is connected to the one of `run`'s caller.
    pub fn are_interactive(self) -> bool {
        self.0.contains(&StreamMode::Interactive)
    }

    /// Whether standard stream `number` is a pipe to or from the monitor.
    pub fn is_pipe(self, number: usize) -> bool {
        match self.0[number] {
            StreamMode::Log => number > 0,
            mode => mode == StreamMode::Stream,
        }
    }

    /// The names of the endpoints to attach to.
    pub fn endpoints(self) -> Vec<&'static str> {
        let pipes = NAMES.into_iter().enumerate().filter(|(number, _)| self.is_pipe(*number)).map(|(_, name)| name);
        pipes.chain(self.have_terminal().then_some(TTY)).collect()
    }
}

/// The name of the FIFO of a standard stream.
pub(crate) fn fifo(name: &str) -> String {
    format!("stage2-{name}")
}

/// The name of the socket of an endpoint.
pub(crate) fn socket(name: &str) -> String {
    format!("sock-{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_the_contract() {
        for (number, words) in [
            (0, "null stream tty interactive"),
            (1, "log null stream tty interactive"),
            (2, "log null stream tty interactive"),
        ] {
            for word in words.split(' ') {
                parse_mode(number, word).unwrap();
            }
        }
        for (number, word) in [(0, "log"), (0, ""), (1, "Stream"), (2, "journal+console\nExecStart=/bin/sh")] {
            let error = parse_mode(number, word).unwrap_err().one_line();
            assert!(error.starts_with(NAMES[number]) && !error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn endpoints_follow_the_modes() {
        assert_eq!(StreamModes::default().endpoints(), ["stdout", "stderr"]);
        let modes = StreamModes([StreamMode::Stream, StreamMode::Null, StreamMode::Tty]);
        assert_eq!(modes.endpoints(), ["stdin", "tty"]);
        assert!(modes.have_terminal() && !modes.are_interactive() && !modes.is_pipe(1));
    }
}

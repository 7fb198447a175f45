//! An app's standard streams: what each of them is, how `app-exec` hands them to the pod's monitor, and how one
//! attaches to them. The monitor's side is [`crate::mux`].
//!
//! `app-exec` makes pipes, or a terminal in the app's own devpts, keeps the app's ends and hands the others over
//! ([`handover`]). In the directory `/rkt/iottymux/APP` of the pod there are, for host managers that look there,
//!
//! | file | what | made by |
//! |---|---|---|
//! | `env` | which streams and terminals there are, `STAGE2_STDOUT=true` for one | app-add |
//! | `endpoints` | the sockets for clients, in JSON | app-add |
//! | `stage2-stdin`, … | a FIFO for each stream of mode `stream` | app-add |
//! | `sock-stdin`, …, `sock-tty` | where clients connect: bytes, nothing else | the monitor, at the first start |

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
/// What a client of the input gets before the end when the end of the input was passed on: EOT.
pub(crate) const PASSED_ON: u8 = 4;

/// Annotations of an app in the pod manifest: the modes of its streams.
pub const ANNOTATIONS: [&str; 3] =
    ["coreos.com/rkt/stage2/stdin", "coreos.com/rkt/stage2/stdout", "coreos.com/rkt/stage2/stderr"];

/// What a standard stream of an app is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StreamMode {
    /// /dev/null.
    Null,
    /// A pipe into the app's log, and to the output of `run`.
    Log,
    /// A pipe into the app's log, and to whoever attaches.
    Stream,
    /// The app's terminal.
    Tty,
    /// The app's terminal, which the caller of `run` has in front of it.
    Interactive,
}

/// The mode of standard stream `number` that a word means: CONTRACT section 7.
///
/// # Errors
/// It means none for this stream.
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
    /// As the app's annotations in the pod manifest say; `interactive` is for an app that has the caller's terminal
    /// unless they ask for streams or a terminal of their own.
    ///
    /// # Errors
    /// An annotation with a word that means nothing.
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

    /// Whether they are what they are unless anything else is asked for.
    pub(crate) fn are_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Whether there is a terminal among them.
    pub fn have_terminal(self) -> bool {
        self.0.iter().any(|mode| matches!(mode, StreamMode::Tty | StreamMode::Interactive))
    }

    /// Whether the caller of `run` has that terminal in front of it.
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

    /// The names of what one can attach to.
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

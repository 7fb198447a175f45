//! The multiplexer of an app's streams: what an app reads and writes, for any number of clients that come and go.
//!
//! Each app that has a stream or a terminal of the multiplexer has a process of its own, `iottymux`: one thread,
//! one loop ([`serve`]). In the directory `/rkt/iottymux/APP` of the pod there are
//!
//! | file | what | made by |
//! |---|---|---|
//! | `env` | which streams there are, `STAGE2_STDOUT=true` for one | app-add, host side |
//! | `stage2-stdin`, … | the FIFO between the multiplexer and the app | app-add |
//! | `stage2-pts` | the app's terminal, mounted | iottymux, pod side |
//! | `sock-stdin`, …, `sock-tty` | where clients connect: bytes, nothing else | iottymux |
//! | `sock-control` | where `app-exec` says that the app starts, and log files are reopened | iottymux |
//! | `endpoints` | the sockets for clients, in JSON | iottymux |
//!
//! **Output.** Every client of a stream gets each byte from the moment it connects on; the first one also what was
//! written before, and one that comes when nobody was there what was written meanwhile, up to [`REPLAY`] bytes, the
//! newest. Nobody attached: the app is never held up. Somebody attached: it is held up when [`BUFFER`] bytes wait for a
//! client, with these limits: the client that is ahead of all others must take something within [`DEAD`], any other
//! one [`LEAST`] bytes within [`HOLD`]. Else it is dropped: its connection is closed. So a client paces the app and the
//! others as long as it can be said to keep up. At the app's end a connection is shut down for writing instead, and closed when the client has closed it.
//!
//! **Input.** What one client sends at once, up to 64 KiB, goes to the app in one piece. While the app does not read, the clients
//! wait. A client that shuts its side down for writing, and stays, asks for the end of the input, and gets one byte, 4,
//! when that was passed on; one that goes does not ask. In a terminal the end of the input is a character.
//!
//! **The multiplexer's own end.** systemd keeps its FIFOs and the terminal open meanwhile and starts it anew with
//! them, so the app sees nothing of it. What clients were connected have to come again; what it had read and nobody
//! had got yet is lost.

pub mod app;
pub mod attach;
mod channel;
mod control;
mod endpoints;
pub(crate) mod journal;
pub mod k8s;
mod place;
mod ring;
pub mod serve;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use endpoints::{Endpoint, Targets};
pub use place::{Settings, prepare, remove};

use crate::appc;
use crate::error::{Context, Error, Result};
use crate::pod::PodApp;
use crate::unit::{Input, Output};

/// What is kept of a stream's output while nobody is attached, in bytes.
pub const REPLAY: u64 = 64 << 10;
/// What may wait for a client, in bytes, besides what its socket holds.
pub const BUFFER: usize = 512 << 10;
/// What a FIFO holds, in bytes: more than usual, to be handed on with fewer switches between processes.
const PIPE: usize = 1 << 20;
/// How long the app, and the other clients, wait for a client that takes less than [`LEAST`].
pub const HOLD: Duration = Duration::from_millis(200);
/// What a client must take in that time when it holds up the app, in bytes.
pub const LEAST: u64 = 128 << 10;
/// How long the client that is ahead of all others may take nothing while the app waits for it.
pub const DEAD: Duration = Duration::from_secs(2);

/// The names of the standard streams.
pub const NAMES: [&str; 3] = ["stdin", "stdout", "stderr"];
/// The name of a terminal among the endpoints.
pub const TTY: &str = "tty";
/// What a client of the input gets before the end when the end of the input was passed on: EOT.
const PASSED_ON: u8 = 4;
/// The name of the app's terminal.
pub(crate) const PTS: &str = "stage2-pts";
const CONTROL: &str = "sock-control";
const ENDPOINTS: &str = "endpoints";
const ENV: &str = "env";

/// Annotations of an app in the pod manifest: the modes of its streams.
pub const ANNOTATIONS: [&str; 3] =
    ["coreos.com/rkt/stage2/stdin", "coreos.com/rkt/stage2/stdout", "coreos.com/rkt/stage2/stderr"];

/// How an app has a stream from the multiplexer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Via {
    /// A FIFO.
    Stream,
    /// The app's terminal.
    Tty,
}

/// Which of the standard streams are the multiplexer's.
pub type Streams = [Option<Via>; 3];

/// What a standard stream of an app is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// /dev/null.
    Null,
    /// The journal.
    Log,
    /// The journal, and as a stream of the multiplexer the app's log file.
    Filed,
    /// A stream of the multiplexer.
    Stream,
    /// The terminal of the multiplexer.
    Tty,
    /// The pod's console.
    Interactive,
}

/// The mode of standard stream `number` that a word means: CONTRACT section 7.
///
/// # Errors
/// It means none for this stream.
pub fn parse_mode(number: usize, word: &str) -> Result<Mode> {
    match (word, number) {
        ("null", _) => Ok(Mode::Null),
        ("log", 1 | 2) => Ok(Mode::Log),
        ("stream", _) => Ok(Mode::Stream),
        ("tty", _) => Ok(Mode::Tty),
        ("interactive", _) => Ok(Mode::Interactive),
        _ => {
            let log = if number == 0 { "" } else { "log, " };
            let name = NAMES.get(number).copied().unwrap_or_default();
            Err(Error::new(format!("{name} mode {word:?}: use {log}null, stream, tty or interactive")))
        }
    }
}

/// The modes of an app's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes(pub [Mode; 3]);

impl Modes {
    /// As the app's annotations in the pod manifest say.
    ///
    /// # Errors
    /// An annotation with a word that means nothing.
    pub fn of(app: &PodApp) -> Result<Self> {
        let mut modes = [Mode::Null, Mode::Log, Mode::Log];
        for ((number, mode), name) in modes.iter_mut().enumerate().zip(ANNOTATIONS) {
            if let Some(word) = appc::find(&app.runtime.annotations, name) {
                *mode = parse_mode(number, word).context(|| format!("annotation {name}"))?;
            }
        }
        Ok(Self(modes))
    }

    /// The same for an app with a log file, which the multiplexer writes: it has the way to the journal too.
    pub fn with_log_file(self) -> Self {
        Self(self.0.map(|mode| if mode == Mode::Log { Mode::Filed } else { mode }))
    }

    /// The names of the streams that the multiplexer passes on to the journal.
    pub fn journaled(self) -> Vec<&'static str> {
        NAMES.into_iter().zip(self.0).filter(|(_, mode)| *mode == Mode::Filed).map(|(name, _)| name).collect()
    }

    /// Those that the multiplexer has.
    pub fn streams(self) -> Streams {
        self.0.map(|mode| match mode {
            Mode::Stream | Mode::Filed => Some(Via::Stream),
            Mode::Tty => Some(Via::Tty),
            Mode::Null | Mode::Log | Mode::Interactive => None,
        })
    }

    /// Standard input, for the unit.
    pub fn input(self) -> Input {
        match self.0[0] {
            Mode::Stream | Mode::Filed | Mode::Tty => Input::Multiplexed,
            Mode::Interactive => Input::Interactive,
            Mode::Null | Mode::Log => Input::Null,
        }
    }

    /// Standard output (1) or error (2), for the unit.
    pub fn output(self, number: usize) -> Output {
        match self.0[number] {
            Mode::Stream | Mode::Filed | Mode::Tty => Output::Multiplexed,
            Mode::Interactive => Output::Interactive,
            Mode::Null => Output::Null,
            Mode::Log => Output::Log,
        }
    }
}

/// Whether the multiplexer has any of the streams.
pub fn is_used(streams: &Streams) -> bool {
    streams.iter().any(Option::is_some)
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
    fn what_the_unit_and_the_record_are_told() {
        let modes = Modes([Mode::Stream, Mode::Log, Mode::Tty]);
        assert_eq!(modes.streams(), [Some(Via::Stream), None, Some(Via::Tty)]);
        assert_eq!(
            (modes.input(), modes.output(1), modes.output(2)),
            (Input::Multiplexed, Output::Log, Output::Multiplexed)
        );
        let filed = modes.with_log_file();
        assert_eq!(filed.streams(), [Some(Via::Stream), Some(Via::Stream), Some(Via::Tty)]);
        assert_eq!(
            (filed.output(1), filed.journaled(), modes.journaled()),
            (Output::Multiplexed, vec!["stdout"], vec![])
        );
        assert!(is_used(&modes.streams()) && !is_used(&Modes([Mode::Interactive, Mode::Null, Mode::Log]).streams()));
    }
}

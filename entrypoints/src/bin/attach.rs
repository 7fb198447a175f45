//! `attach`: connects the caller to the streams of an app. Host side, crossing.

use std::ffi::OsString;
use std::process::ExitCode;

use stage1::appc::AcName;
use stage1::streams::attach::{Action, Attachment, WantedStreams, attach};
use stage1::terminal::DetachKeys;
use stage1::{Result, cli};

/// Lists the streams of an app, or attaches to them until the app exits.
#[derive(argh::FromArgs)]
struct Attach {
    /// list, auto-attach (to all streams), custom-attach, or reopen-log (after the log file was renamed)
    #[argh(option)]
    action: Action,
    /// the app's name
    #[argh(option)]
    app: AcName,
    /// attach to the input of the terminal
    #[argh(switch)]
    tty_in: bool,
    /// attach to the output of the terminal
    #[argh(switch)]
    tty_out: bool,
    /// attach to standard input
    #[argh(switch)]
    stdin: bool,
    /// attach to standard output
    #[argh(switch)]
    stdout: bool,
    /// attach to standard error
    #[argh(switch)]
    stderr: bool,
    /// close the app's input when standard input ends
    #[argh(switch)]
    eof: bool,
    /// leave out what the app wrote before
    #[argh(switch)]
    from_now: bool,
    /// keys that detach from a terminal (ctrl-p,ctrl-q)
    #[argh(option, default = "DetachKeys::default()")]
    detach_keys: DetachKeys,
    /// exit with the app's status
    #[argh(switch)]
    exit_code: bool,
    /// print debug messages
    #[argh(switch)]
    debug: bool,
}

impl cli::Tool for Attach {
    const NAME: &'static str = "attach";
    const SWITCHES: &'static [&'static str] =
        &["tty-in", "tty-out", "stdin", "stdout", "stderr", "eof", "from-now", "exit-code", "debug"];

    fn debug(&self) -> bool {
        self.debug
    }

    fn run(self, _: Vec<OsString>) -> Result<u8> {
        let streams = [self.stdin, self.stdout, self.stderr];
        let wanted = WantedStreams { tty_in: self.tty_in, tty_out: self.tty_out, streams };
        let what = Attachment {
            app: self.app,
            wanted,
            pass_end: self.eof,
            from_now: self.from_now,
            keys: self.detach_keys,
            exit_code: self.exit_code,
        };
        attach(self.action, &what)
    }
}

entrypoints::allocate_fast!();

fn main() -> ExitCode {
    entrypoints::run::<Attach>()
}

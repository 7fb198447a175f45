//! `podctl attach`

use clap::Args;
use stage1::error::Result;

use super::args::one_app::OneApp;
use super::session::Session;
use crate::entrypoint::attach::{self, AttachMode, AttachOptions};

#[derive(Args, Debug)]
pub struct Attach {
    #[command(flatten)]
    one: OneApp,
    /// Attach to: auto (all that the app has), or some of stdin,stdout,stderr, or of tty-in,tty-out,tty (both)
    #[arg(long, value_name = "MODE", default_value = "auto")]
    mode: AttachMode,
    /// Only list the streams that can be attached to
    #[arg(long, conflicts_with = "mode")]
    list: bool,
    /// Detach from a terminal with these keys: characters and ctrl-LETTER, separated by commas; empty disables them
    /// (default: ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// Close the app's standard input when podctl's ends
    #[arg(long)]
    eof: bool,
}

impl Attach {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        let options = AttachOptions {
            mode: if self.list { AttachMode::List } else { self.mode },
            keys: self.detach_keys,
            pass_end: self.eof,
            from_now: false,
            debug: session.debug,
        };
        match attach::attach(&session.store, &pod, &app, &options)? {}
    }
}

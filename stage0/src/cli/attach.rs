//! `podctl attach`

use clap::Args;
use stage1::error::Result;

use super::args::one_app::One;
use super::session::Session;
use crate::entrypoint::attach;
use crate::entrypoint::attach::{Mode, Options};

#[derive(Args, Debug)]
pub struct Attach {
    #[command(flatten)]
    one: One,
    /// To what: auto (all that there is), or some of stdin,stdout,stderr, or of tty-in,tty-out,tty (both)
    #[arg(long, value_name = "MODE", default_value = "auto")]
    mode: Mode,
    /// Print what can be attached to instead
    #[arg(long, conflicts_with = "mode")]
    list: bool,
    /// What is typed to leave a terminal: characters and ctrl-LETTER, joined by commas; nothing to switch it off (else
    /// ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<String>,
    /// The end of standard input is the end of the app's, too
    #[arg(long)]
    eof: bool,
}

impl Attach {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        let options = Options {
            mode: if self.list { Mode::List } else { self.mode },
            keys: self.detach_keys,
            pass_end: self.eof,
            debug: session.debug,
        };
        match attach::attach(&session.store, &pod, &app, &options)? {}
    }
}

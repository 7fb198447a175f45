//! `podctl attach`

use clap::Args;
use stage1::appc::AcName;
use stage1::error::{Context, Result};

use super::session::Session;
use crate::entrypoint::attach;
use crate::entrypoint::attach::{Mode, Options};
use crate::poddir::find as pods;
use crate::poddir::manifest::only_one;

#[derive(Args, Debug)]
pub struct Attach {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app (else the only one of the pod)
    #[arg(long)]
    app: Option<String>,
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
        let app = self.app.as_ref().map(|app| app.parse::<AcName>().context(|| "app name")).transpose()?;
        let pod = pods::find(&session.store, &self.uuid)?;
        let app = app.map_or_else(|| only_one(&pod), Ok)?;
        let options = Options {
            mode: if self.list { Mode::List } else { self.mode },
            keys: self.detach_keys,
            pass_end: self.eof,
            debug: session.debug,
        };
        match attach::attach(&session.store, &pod, &app, &options)? {}
    }
}

//! `podctl volume …`

mod create;
mod inspect;
mod list;
mod prune;
mod rm;

use clap::Subcommand;
use stage1::error::Result;

use super::session::Session;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a volume
    Create(create::Create),
    /// List named volumes, and the implicit ones that images of apps declare
    #[command(visible_alias = "ls")]
    List(list::List),
    /// Print the paths and users of volumes, as JSON
    Inspect(inspect::Inspect),
    /// Remove volumes that no pod uses, with all that is in them
    Rm(rm::Rm),
    /// Remove all named volumes that no pod uses, with all that is in them
    Prune(prune::Prune),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Create(create) => create.run(session),
            Self::List(list) => list.run(session),
            Self::Inspect(inspect) => inspect.run(session),
            Self::Rm(rm) => rm.run(session),
            Self::Prune(prune) => prune.run(session),
        }
    }
}

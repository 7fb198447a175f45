//! `podctl volume …`

mod create;
mod inspect;
mod list;
mod prune;
mod rm;

use clap::Subcommand;
use stage1::error::Result;

use super::args::lazy::Lazy;
use super::session::Session;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Make a volume
    Create(Lazy<create::Create>),
    /// List named volumes, and the implicit ones that images of apps declare
    #[command(visible_alias = "ls")]
    List(Lazy<list::List>),
    /// Print the paths and users of volumes, as JSON
    Inspect(Lazy<inspect::Inspect>),
    /// Remove volumes that no pod uses, with all that is in them
    Rm(Lazy<rm::Rm>),
    /// Remove all named volumes that no pod uses, with all that is in them
    Prune(Lazy<prune::Prune>),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Create(create) => create.0.run(session),
            Self::List(list) => list.0.run(session),
            Self::Inspect(inspect) => inspect.0.run(session),
            Self::Rm(rm) => rm.0.run(session),
            Self::Prune(prune) => prune.0.run(session),
        }
    }
}

//! `podctl volume rm`

use clap::Args;
use stage1::error::{Context, Result};

use crate::cli::args::candidates::a_volume;
use crate::cli::args::each::each;
use crate::cli::session::Session;
use crate::volume::removal;

#[derive(Args, Debug)]
pub struct Rm {
    /// Volumes
    #[arg(required = true, value_name = "VOLUME", add = a_volume())]
    volumes: Vec<String>,
}

impl Rm {
    pub fn run(self, session: &Session) -> Result<()> {
        each(&self.volumes, |name| {
            removal::rm(&session.store, &name.parse()?).context(|| format!("remove volume {name:?}"))
        })
    }
}

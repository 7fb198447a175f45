//! `podctl diff`

use clap::Args;
use serde::Serialize;
use stage1::error::Result;

use super::args::one_app::OneApp;
use super::output::{self, Format};
use super::session::Session;
use crate::app::changes::{self, ChangeKind};
use crate::poddir::manifest::must_have;

/// Lists the files of an app that differ from its image: A for added, C for changed, D for deleted.
#[derive(Args, Debug)]
pub struct Diff {
    #[command(flatten)]
    one: OneApp,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Serialize)]
struct Shown {
    path: String,
    change: &'static str,
}

impl Diff {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        must_have(&pod, &app)?;
        let changes = changes::list(&session.store, &pod, &app)?;
        if self.format == Format::Json {
            let shown = changes.iter().map(|one| Shown {
                path: one.path.display().to_string(),
                change: match one.kind {
                    ChangeKind::Added => "added",
                    ChangeKind::Changed => "changed",
                    ChangeKind::Deleted => "deleted",
                },
            });
            return output::json(&shown.collect::<Vec<_>>());
        }
        changes.iter().try_for_each(|one| {
            let letter = match one.kind {
                ChangeKind::Added => 'A',
                ChangeKind::Changed => 'C',
                ChangeKind::Deleted => 'D',
            };
            let path = one.path.display().to_string();
            output::say(format_args!("{letter} {}", stage1::error::escape_control(&path)))
        })
    }
}

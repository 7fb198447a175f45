//! `podctl doctor`

use std::path::Path;

use clap::Args;
use serde::Serialize;
use stage1::error::{Error, Result};

use super::output::{self, Format};
use super::screen::Tone;
use super::session::Session;
use super::table::{self, Cell};
use crate::machine::{self, Finding, Verdict};

/// Checks whether this machine has what pods need: what is missing, what does not work without it, and how to get it.
/// Exits with 1 if no pod can run.
#[derive(Args, Debug)]
pub struct Doctor {
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Serialize)]
struct Report<'a> {
    version: &'static str,
    directory: &'a Path,
    findings: &'a [Finding],
}

impl Doctor {
    pub fn run(self, session: &Session) -> Result<()> {
        let findings = machine::examine(&session.store);
        let (version, directory) = (env!("CARGO_PKG_VERSION"), session.store.dir());
        match self.format {
            Format::Json => output::json(&Report { version, directory, findings: &findings })?,
            Format::Text => {
                table::show(["PART", "STATE", "FOUND"], findings.iter().map(row).collect(), true)?;
                for one in &findings {
                    one.cost.map_or(Ok(()), |cost| output::say(format_args!("\n{}: {cost}", one.part)))?;
                }
            }
        }
        let fatal = findings.iter().filter(|one| one.verdict == Verdict::Fatal);
        let fatal: Vec<&str> = fatal.map(|one| one.part).collect();
        if fatal.is_empty() {
            return Ok(());
        }
        Err(Error::new(format!("no pod can run on this machine: see {}", fatal.join(", "))).with_exit_code(1))
    }
}

fn row(one: &Finding) -> [Cell; 3] {
    let (word, tone) = match one.verdict {
        Verdict::Ok => ("ok", Tone::Good),
        Verdict::Missing => ("missing", Tone::Bad),
        Verdict::Fatal => ("fatal", Tone::Bad),
    };
    [one.part.into(), Cell::toned(word, Some(tone)), one.found.clone().into()]
}

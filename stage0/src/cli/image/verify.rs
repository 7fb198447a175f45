//! `podctl image verify`

use clap::Args;
use indicatif::ProgressStyle;
use serde::Serialize;
use stage1::error::{Context, Error, Result};

use super::progress::progress;
use crate::cli::output::{self, Format};
use crate::cli::session::Session;
use crate::image::store as images;
use crate::image::store::find;
use crate::image::verify::{Health, verify};

#[derive(Args, Debug)]
pub struct Verify {
    /// Images: their names, their ids, or the starts of their ids (default: all images)
    images: Vec<String>,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Serialize)]
struct Verified {
    id: String,
    health: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<String>,
}

impl Verify {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let ids = match self.images.is_empty() {
            true => images::ids(store)?,
            false => self.images.iter().map(|text| find::find_id(store, text)).collect::<Result<_>>()?,
        };
        let bar = progress(ids.len() as u64, "verifying");
        if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {pos}/{len}") {
            bar.set_style(style);
        }
        let mut found = Vec::new();
        for id in ids {
            let (health, fault) = match verify(store, &id).context(|| format!("verify image {}", id.short()))? {
                Health::Whole => ("whole", None),
                Health::Mended(fault) => ("mended", Some(fault)),
                Health::Damaged(fault) => ("damaged", Some(fault)),
            };
            found.push(Verified { id: id.to_string(), health, fault });
            bar.inc(1);
        }
        bar.finish_and_clear();
        let damaged = found.iter().filter(|one| one.health == "damaged").count();
        match self.format {
            Format::Json => output::json(&found)?,
            Format::Text => output::table(
                ["ID", "HEALTH", "FAULT"],
                found.into_iter().map(|one| {
                    [
                        one.id[.."sha512-".len() + 12].to_owned(),
                        one.health.to_owned(),
                        one.fault.unwrap_or_else(|| "-".into()),
                    ]
                }),
            )?,
        }
        if damaged > 0 {
            return Err(Error::new(format!("{damaged} damaged: import them again")));
        }
        Ok(())
    }
}

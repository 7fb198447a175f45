//! `podctl image list`

use clap::Args;
use serde::Serialize;
use stage1::error::Result;

use super::filter::Filter;
use crate::cli::output::{self, Format, say};
use crate::cli::session::Session;
use crate::fsutil::time::{age, nanoseconds};
use crate::image::store as images;
use crate::image::store::find;

#[derive(Args, Debug)]
pub struct List {
    /// List only images that match: reference=PATTERN, label=NAME[=VALUE], dangling=BOOL, id=START, before=IMAGE,
    /// since=IMAGE
    #[arg(long = "filter", short, value_name = "KEY=VALUE")]
    filters: Vec<String>,
    /// Print only ids
    #[arg(long, short)]
    quiet: bool,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// A line of the list; the field names are those of rkt's api.
#[derive(Serialize)]
struct Listed {
    id: String,
    name: String,
    /// The digest of the image's manifest at the registry that it was pulled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    import_time: i64,
    /// `None` if another process has just removed the image.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_used_time: Option<i64>,
    size: u64,
}

impl List {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let filters: Vec<Filter> = self.filters.iter().map(|text| Filter::parse(store, text)).collect::<Result<_>>()?;
        let mut images = find::list(store)?;
        images.retain(|(image, names)| filters.iter().all(|filter| filter.fits(image, names)));
        if self.quiet {
            return images.iter().try_for_each(|(image, _)| say(&image.id));
        }
        let listed = images.into_iter().map(|(image, names)| Listed {
            id: image.id.to_string(),
            // empty for an image whose name now names a newer one
            name: names.join(", "),
            digest: image.info.kept.last().map(|kept| kept.manifest.clone()),
            import_time: image.info.import_time,
            last_used_time: images::last_used(&session.store, &image.id).ok().map(nanoseconds),
            size: image.info.size,
        });
        match self.format {
            Format::Json => output::json(&listed.collect::<Vec<_>>()),
            Format::Text => output::table(
                ["ID", "NAME", "SIZE", "AGE"],
                listed.map(|image| {
                    [
                        image.id["sha512-".len()..][..12].to_owned(),
                        image.name,
                        output::size(image.size),
                        age(image.import_time),
                    ]
                }),
            ),
        }
    }
}

//! `podctl image list`

use clap::Args;
use serde::Serialize;
use stage1::appc;
use stage1::error::Result;

use super::filter::Filter;
use crate::cli::args::listing::{ListFormat, Listing};
use crate::cli::output::{self, say};
use crate::cli::session::Session;
use crate::cli::table::{self, Cell};
use crate::fsutil::time::{age, nanoseconds, rfc3339};
use crate::image::store as images;
use crate::image::store::{Image, find};

/// The annotation of a stage1 image with its entrypoint that runs a pod.
const RUN: &str = "coreos.com/rkt/stage1/run";

#[derive(Args, Debug)]
pub struct List {
    /// List also the images that run pods (stage1), which podctl imports by itself
    #[arg(short, long)]
    all: bool,
    /// List only images that match: reference=PATTERN, label=NAME[=VALUE], dangling=BOOL, id=START, before=IMAGE,
    /// since=IMAGE
    #[arg(long = "filter", short, value_name = "KEY=VALUE")]
    filters: Vec<String>,
    #[command(flatten)]
    how: Listing,
}

/// A line of the list; the field names are those of rkt's api.
#[derive(Serialize)]
struct Listed {
    id: String,
    name: String,
    /// The digest of the image's manifest at the registry that it was pulled from.
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    /// In nanoseconds since 1970.
    import_time: i64,
    /// As RFC 3339.
    imported: String,
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
        images.retain(|(image, _)| self.all || !runs_pods(image));
        images.retain(|(image, names)| filters.iter().all(|filter| filter.fits(image, names)));
        if self.how.quiet {
            return images.iter().try_for_each(|(image, _)| say(&image.id));
        }
        let listed = images.into_iter().map(|(image, names)| Listed {
            id: image.id.to_string(),
            // empty for an image whose name now names a newer one
            name: names.join(", "),
            digest: image.info.kept.last().map(|kept| kept.manifest.clone()),
            import_time: image.info.import_time,
            imported: rfc3339(image.info.import_time),
            last_used_time: images::last_used(&session.store, &image.id).ok().map(nanoseconds),
            size: image.info.size,
        });
        let Listing { format, no_trunc, .. } = &self.how;
        if *format == ListFormat::Json {
            return output::json(&listed.collect::<Vec<_>>());
        }
        let row = |image: Listed| {
            let id = if *no_trunc { image.id } else { image.id["sha512-".len()..][..12].to_owned() };
            [Cell::from(id), image.name.into(), output::size(image.size).into(), age(image.import_time).into()]
        };
        table::show_chosen(["ID", "NAME", "SIZE", "AGE"], listed.map(row).collect(), *no_trunc, format.columns())
    }
}

/// Whether the image runs pods: its manifest names the entrypoint that starts one.
fn runs_pods(image: &Image) -> bool {
    appc::find(&image.parsed.annotations, RUN).is_some()
}

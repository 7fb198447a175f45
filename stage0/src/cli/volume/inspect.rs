//! `podctl volume inspect`

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde::Serialize;
use stage1::error::Result;

use crate::cli::args::candidates::a_volume;
use crate::cli::output::{self, Format};
use crate::cli::session::Session;
use crate::fsutil::time::rfc3339;
use crate::store::Store;
use crate::volume::name::VolumeName;
use crate::volume::named::{self, NamedVolume};
use crate::volume::users::{self, User};

#[derive(Args, Debug)]
pub struct Inspect {
    /// Volumes
    #[arg(required = true, value_name = "VOLUME", add = a_volume())]
    volumes: Vec<VolumeName>,
    /// Print it as json, or as text with one line for each value: 0.name=data
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

impl Inspect {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let found = self.volumes.iter().map(|name| Described::of(store, &named::must_find(store, name)?));
        output::values(&found.collect::<Result<Vec<_>>>()?, self.format)
    }
}

/// A named volume as JSON.
#[derive(Serialize)]
pub(super) struct Described {
    name: String,
    /// The path of its data on the host.
    path: PathBuf,
    /// In nanoseconds since 1970.
    pub(super) created_at: i64,
    /// As RFC 3339.
    created: String,
    labels: BTreeMap<String, String>,
    /// Whether no app has mounted it yet: the image of the first app gives it its content.
    fresh: bool,
    pub(super) used_by: Vec<User>,
}

impl Described {
    pub(super) fn of(store: &Store, volume: &NamedVolume) -> Result<Self> {
        Ok(Self {
            name: volume.name.to_string(),
            path: volume.data(),
            created_at: volume.info.created_at,
            created: rfc3339(volume.info.created_at),
            labels: volume.info.labels.clone(),
            fresh: volume.info.content != named::Content::Used,
            used_by: users::of(store, &volume.name)?,
        })
    }
}

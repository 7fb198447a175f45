//! `podctl image inspect`

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use stage1::appc::{ImageManifest, find};
use stage1::error::{Error, Result};

use crate::cli::output::{self, Format};
use crate::cli::session::Session;
use crate::image::store as images;
use crate::image::store::Image;
use crate::image::store::find;
use crate::image::store::names as image_names;

#[derive(Args, Debug)]
pub struct Inspect {
    /// Images: their names, their ids, or the starts of their ids
    #[arg(required = true)]
    images: Vec<String>,
    /// Print it as
    #[arg(long, value_enum, default_value = "json")]
    format: Format,
}

/// An image's configuration, for programs; values that it does not have are empty or left out.
#[derive(Default, Serialize)]
struct Inspected {
    id: String,
    names: Vec<String>,
    /// The digests of the registry manifests that it was pulled by, the latest last.
    digests: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    created: String,
    import_time: i64,
    size: u64,
    os: String,
    architecture: String,
    entrypoint: Vec<String>,
    cmd: Vec<String>,
    env: Vec<String>,
    user: String,
    working_dir: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    stop_signal: String,
    ports: Vec<String>,
    volumes: Vec<String>,
    labels: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Value::is_null")]
    healthcheck: Value,
    /// The digests of the uncompressed layers, the lowest first.
    layers: Vec<String>,
}

impl Inspect {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let (mut found, mut failed) = (Vec::new(), Vec::new());
        for text in &self.images {
            let inspect = || -> Result<Inspected> {
                let image = find::find(store, text)?;
                let names = image_names::names_of(store, &image.id)?;
                let said = match images::config(store, &image.id)? {
                    Some(config) => of_config(&config),
                    None => of_manifest(&image.parsed),
                };
                Ok(Inspected { names, ..with_store(said, &image) })
            };
            match inspect() {
                Ok(inspected) => found.push(inspected),
                Err(error) => failed.push(error.one_line()),
            }
        }
        match self.format {
            Format::Json => output::json(&found)?,
            Format::Text => found.iter().try_for_each(Inspected::print)?,
        }
        if failed.is_empty() { Ok(()) } else { Err(Error::new(failed.join("; "))) }
    }
}

fn with_store(said: Inspected, image: &Image) -> Inspected {
    Inspected {
        id: image.id.to_string(),
        digests: image.info.kept.iter().map(|kept| kept.manifest.clone()).collect(),
        import_time: image.info.import_time,
        size: image.info.size,
        ..said
    }
}

/// The values of an image in OCI or Docker format.
fn of_config(config: &Value) -> Inspected {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().into_iter().flatten().map(text).collect::<Vec<_>>();
    let keys = |value: &Value| value.as_object().into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let runs = &config["config"];
    Inspected {
        created: text(&config["created"]),
        os: text(&config["os"]),
        architecture: text(&config["architecture"]),
        entrypoint: list(&runs["Entrypoint"]),
        cmd: list(&runs["Cmd"]),
        env: list(&runs["Env"]),
        user: text(&runs["User"]),
        working_dir: text(&runs["WorkingDir"]),
        stop_signal: text(&runs["StopSignal"]),
        ports: keys(&runs["ExposedPorts"]),
        volumes: keys(&runs["Volumes"]),
        labels: runs["Labels"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.clone(), text(value)))
            .collect(),
        healthcheck: runs["Healthcheck"].clone(),
        layers: list(&config["rootfs"]["diff_ids"]),
        ..Inspected::default()
    }
}

/// The values of an application container image.
fn of_manifest(manifest: &ImageManifest) -> Inspected {
    let annotation = |name: &str| find(&manifest.annotations, name).unwrap_or_default().to_owned();
    let label = |name: &str| find(&manifest.labels, name).unwrap_or_default().to_owned();
    let app = manifest.app.clone().unwrap_or_default();
    Inspected {
        created: annotation("created"),
        os: label("os"),
        architecture: label("arch"),
        entrypoint: app.exec,
        env: app.environment.iter().map(|one| format!("{}={}", one.name, one.value)).collect(),
        user: if app.user.is_empty() { String::new() } else { format!("{}:{}", app.user, app.group) },
        working_dir: app.working_directory,
        stop_signal: annotation("org.opencontainers.image.stopSignal"),
        ports: app.ports.iter().map(|port| format!("{}/{}", port.port, port.protocol)).collect(),
        volumes: app.mount_points.iter().map(|point| point.path.clone()).collect(),
        labels: manifest.labels.iter().map(|one| (one.name.clone(), one.value.clone())).collect(),
        ..Inspected::default()
    }
}

impl Inspected {
    fn print(&self) -> Result<()> {
        let pairs: Vec<String> = self.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let health = if self.healthcheck.is_null() { String::new() } else { self.healthcheck.to_string() };
        let rows = [
            ("ID", self.id.clone()),
            ("NAMES", self.names.join(", ")),
            ("DIGESTS", self.digests.join(" ")),
            ("CREATED", self.created.clone()),
            ("SIZE", output::size(self.size)),
            ("PLATFORM", format!("{}/{}", self.os, self.architecture)),
            ("ENTRYPOINT", self.entrypoint.join(" ")),
            ("CMD", self.cmd.join(" ")),
            ("ENV", self.env.join(" ")),
            ("USER", self.user.clone()),
            ("WORKING DIR", self.working_dir.clone()),
            ("STOP SIGNAL", self.stop_signal.clone()),
            ("PORTS", self.ports.join(" ")),
            ("VOLUMES", self.volumes.join(" ")),
            ("LABELS", pairs.join(" ")),
            ("HEALTH CHECK", health),
            ("LAYERS", self.layers.len().to_string()),
        ];
        output::table(["", ""], rows.map(|(name, value)| [name.to_owned(), value]))
    }
}

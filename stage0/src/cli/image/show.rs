//! `podctl image show`

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use stage1::appc::NameValue;
use stage1::error::{Context, Result};

use crate::cli::output::{self, Format};
use crate::cli::session::Session;
use crate::image::archive::ImageId;
use crate::image::store::Image;
use crate::image::store::find;
use crate::image::store::users;
use crate::image::tree as trees;

#[derive(Args, Debug)]
pub struct Show {
    /// The image: its name, its id, or the start of its id
    image: String,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

#[derive(Serialize)]
struct Shown {
    id: String,
    names: Vec<String>,
    /// The digests of the registry manifests that it was pulled by, the latest last.
    digests: Vec<String>,
    import_time: i64,
    size: u64,
    /// The fault that a quick check of the tree found, if any.
    #[serde(skip_serializing_if = "Option::is_none")]
    tree_fault: Option<String>,
    dependencies: Vec<String>,
    pods: Vec<String>,
    manifest: Value,
}

impl Show {
    pub fn run(self, session: &Session) -> Result<()> {
        let store = &session.store;
        let image = find::find(store, &self.image)?;
        let names = find::list(store)?.into_iter().find(|(other, _)| other.id == image.id);
        let shown = Shown {
            id: image.id.to_string(),
            names: names.map(|(_, names)| names).unwrap_or_default(),
            digests: image.info.kept.iter().map(|kept| kept.manifest.clone()).collect(),
            import_time: image.info.import_time,
            size: image.info.size,
            tree_fault: trees::quick_fault(store, &image.id)?,
            dependencies: image.info.dependencies.iter().map(ImageId::to_string).collect(),
            pods: users::users(store)?.remove(image.id.as_str()).unwrap_or_default(),
            manifest: serde_json::from_slice(&image.manifest).context(|| "read the manifest")?,
        };
        match self.format {
            Format::Json => output::json(&shown),
            Format::Text => shown.print(&image),
        }
    }
}

impl Shown {
    fn print(&self, image: &Image) -> Result<()> {
        let pairs = |list: &[NameValue]| -> Vec<String> {
            list.iter().map(|one| format!("{}={}", one.name, one.value)).collect()
        };
        let pairs_of = |list: &[NameValue]| pairs(list).join(" ");
        let app = image.parsed.app.as_ref();
        let rows = [
            ("ID", self.id.clone()),
            ("NAMES", self.names.join(", ")),
            ("DIGESTS", self.digests.join(" ")),
            ("IMPORTED", output::time(Some(self.import_time))),
            ("SIZE", output::size(self.size)),
            ("LABELS", pairs(&image.parsed.labels).join(" ")),
            ("RUNS", app.map(|app| app.exec.join(" ")).unwrap_or_default()),
            ("USER", app.map(|app| format!("{}:{}", app.user, app.group)).unwrap_or_default()),
            ("ENV", app.map(|app| pairs_of(&app.environment)).unwrap_or_default()),
            (
                "PORTS",
                app.map(|app| app.ports.iter().map(|p| p.name.clone()).collect::<Vec<_>>().join(" "))
                    .unwrap_or_default(),
            ),
            (
                "VOLUMES",
                app.map(|app| app.mount_points.iter().map(|m| m.path.clone()).collect::<Vec<_>>().join(" "))
                    .unwrap_or_default(),
            ),
            ("ANNOTATIONS", pairs(&image.parsed.annotations).join(" ")),
            ("DEPENDENCIES", self.dependencies.join(" ")),
            ("PODS", self.pods.join(" ")),
            ("TREE", self.tree_fault.clone().unwrap_or_else(|| "whole (quick check)".into())),
        ];
        output::table(["", ""], rows.map(|(name, value)| [name.to_owned(), value]))
    }
}

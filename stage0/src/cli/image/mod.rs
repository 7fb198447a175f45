//! `podctl image …`

mod cat_manifest;
mod export;
mod filter;
mod gc;
mod import;
mod inspect;
mod list;
mod progress;
mod prune;
mod pull;
mod push;
mod render;
mod rm;
mod show;
mod source;
mod tag;
mod untag;
mod verify;

use clap::Subcommand;
use stage1::error::Result;

use super::args::lazy::Lazy;
use super::session::Session;
pub use list::List;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Import an image, or a plain root file system, into the store
    Import(Lazy<import::Import>),
    /// Pull images from registries
    Pull(Lazy<pull::Pull>),
    /// Push an image to a registry, bit for bit as it was pulled
    Push(Lazy<push::Push>),
    /// Add names to an image
    Tag(Lazy<tag::Tag>),
    /// Remove names of images; the images stay
    Untag(Lazy<untag::Untag>),
    /// List the images
    #[command(visible_alias = "ls")]
    List(Lazy<List>),
    /// Show an image
    Show(Lazy<show::Show>),
    /// Print the configuration of images: command, user, environment, ports, volumes, labels
    Inspect(Lazy<inspect::Inspect>),
    /// Print the manifest of an image
    CatManifest(Lazy<cat_manifest::CatManifest>),
    /// Check every byte of images and their trees, and repair what can be repaired
    Verify(Lazy<verify::Verify>),
    /// Remove images that no pod uses
    ///
    /// A name is taken away from an image that has other names, too; the image stays. An id removes the image with all its
    /// names.
    Rm(Lazy<rm::Rm>),
    /// Remove images whose name went to a newer one, and trees, that no pod uses
    Gc(Lazy<gc::Gc>),
    /// Remove images without a name, or all images, that no pod uses
    Prune(Lazy<prune::Prune>),
    /// Write an image to a file, as an application container image
    Export(Lazy<export::Export>),
    /// Copy the files of an image and its dependencies to a new directory
    Render(Lazy<render::Render>),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Import(import) => import.0.run(session),
            Self::Pull(pull) => pull.0.run(session),
            Self::Push(push) => push.0.run(session),
            Self::Tag(tag) => tag.0.run(session),
            Self::Untag(untag) => untag.0.run(session),
            Self::List(list) => list.0.run(session),
            Self::Show(show) => show.0.run(session),
            Self::Inspect(inspect) => inspect.0.run(session),
            Self::CatManifest(cat) => cat.0.run(session),
            Self::Verify(verify) => verify.0.run(session),
            Self::Rm(rm) => rm.0.run(session),
            Self::Gc(gc) => gc.0.run(session),
            Self::Prune(prune) => prune.0.run(session),
            Self::Export(export) => export.0.run(session),
            Self::Render(render) => render.0.run(session),
        }
    }
}

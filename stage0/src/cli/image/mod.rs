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

use super::session::Session;
pub use list::List;

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Import an image, or a plain root file system, into the store
    Import(import::Import),
    /// Pull images from registries
    Pull(pull::Pull),
    /// Push an image to a registry, bit for bit as it was pulled
    Push(push::Push),
    /// Add names to an image
    Tag(tag::Tag),
    /// Remove names of images; the images stay
    Untag(untag::Untag),
    /// List the images
    #[command(visible_alias = "ls")]
    List(List),
    /// Show an image
    Show(show::Show),
    /// Print the configuration of images: command, user, environment, ports, volumes, labels
    Inspect(inspect::Inspect),
    /// Print the manifest of an image
    CatManifest(cat_manifest::CatManifest),
    /// Check every byte of images and their trees, and repair what can be repaired
    Verify(verify::Verify),
    /// Remove images that no pod uses
    ///
    /// A name is taken away from an image that has other names, too; the image stays. An id removes the image with all its
    /// names.
    Rm(rm::Rm),
    /// Remove images whose name went to a newer one, and trees, that no pod uses
    Gc(gc::Gc),
    /// Remove images without a name, or all images, that no pod uses
    Prune(prune::Prune),
    /// Write an image to a file, as an application container image
    Export(export::Export),
    /// Copy the files of an image and its dependencies to a new directory
    Render(render::Render),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Import(import) => import.run(session),
            Self::Pull(pull) => pull.run(session),
            Self::Push(push) => push.run(session),
            Self::Tag(tag) => tag.run(session),
            Self::Untag(untag) => untag.run(session),
            Self::List(list) => list.run(session),
            Self::Show(show) => show.run(session),
            Self::Inspect(inspect) => inspect.run(session),
            Self::CatManifest(cat) => cat.run(session),
            Self::Verify(verify) => verify.run(session),
            Self::Rm(rm) => rm.run(session),
            Self::Gc(gc) => gc.run(session),
            Self::Prune(prune) => prune.run(session),
            Self::Export(export) => export.run(session),
            Self::Render(render) => render.run(session),
        }
    }
}

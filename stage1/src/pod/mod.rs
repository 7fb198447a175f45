//! The files of a pod directory: their content, and how they are replaced. Host side unless a comment says otherwise.

mod config;
pub mod events;
mod exit_details;
mod files;
mod health;
mod phase;
mod pid;
mod reserved_space;
mod status;

use std::path::{Path, PathBuf};

pub use config::RuntimeConfig;
pub use exit_details::{ExitDetails, is_of_oom};
pub(crate) use files::replace;
pub use files::{
    Directory, Durable, open_regular_beneath, read_bounded, remove_if_there, sweep_temporaries, write_atomic,
};
pub use health::{Check, Health, MAX_OUTPUT, Wellness};
pub use phase::{Lock, Phase, State, lock_apps, state};
pub use pid::read_pid;
pub use reserved_space::{keep as keep_room, write_kept};
pub use status::{AppState, AppStatus, app_status, is_ready};

use crate::appc::{AcName, App, ImageManifest, PodManifest, RuntimeApp};
use crate::error::{Context, Error, Result};
use crate::layout;

/// Maximum size of a manifest, in bytes.
pub const MAX_MANIFEST: u64 = 16 << 20;

/// A pod's manifest and settings.
#[derive(Clone, Debug)]
pub struct Pod {
    dir: PathBuf,
    /// The manifest.
    pub manifest: PodManifest,
    /// The settings that `run` was given; the defaults before it ran.
    pub config: RuntimeConfig,
}

impl Pod {
    /// Loads the pod in the directory `dir`.
    ///
    /// # Errors
    /// The manifest is missing, or it or the runtime configuration can't be read or is not valid.
    pub fn load(dir: &Path) -> Result<Self> {
        let manifest = PodManifest::parse(&read_bounded(&dir.join(layout::MANIFEST), MAX_MANIFEST)?)
            .context(|| format!("pod manifest {:?}", dir.join(layout::MANIFEST)))?;
        Ok(Self { dir: dir.to_owned(), manifest, config: RuntimeConfig::load(dir)? })
    }

    /// The app `name` with the manifest of its image. No other image manifest is read.
    ///
    /// # Errors
    /// The pod manifest does not list the app, or the image manifest is missing or not valid.
    pub fn app(&self, name: &AcName) -> Result<PodApp> {
        let app = self.manifest.app(name).context(|| format!("app {name} is not in the pod manifest"))?;
        Ok(PodApp { runtime: app.clone(), image: self.image_manifest(name)? })
    }

    fn image_manifest(&self, app: &AcName) -> Result<ImageManifest> {
        // Host managers that do not write the first file have the manifest beside the app's root.
        let [file, beside] =
            [layout::app_image_manifest(app), layout::app_dir(app).join("manifest")].map(|path| self.dir.join(path));
        let (json, file) = match read_bounded(&file, MAX_MANIFEST) {
            Err(error) if error.errno() == Some(libc::ENOENT) => match read_bounded(&beside, MAX_MANIFEST) {
                Err(other) if other.errno() == Some(libc::ENOENT) => return Err(error),
                json => (json?, beside),
            },
            json => (json?, file),
        };
        ImageManifest::parse(&json).context(|| format!("image manifest {file:?}"))
    }
}

/// An app of a pod, with the manifest of its image.
#[derive(Clone, Debug)]
pub struct PodApp {
    /// The app in the pod manifest.
    pub runtime: RuntimeApp,
    /// The manifest of its image.
    pub image: ImageManifest,
}

impl PodApp {
    /// How the app is run: the `app` section of the pod manifest or, without it, that of the image manifest.
    ///
    /// # Errors
    /// Neither manifest has such a section.
    pub fn app(&self) -> Result<&App> {
        self.runtime
            .app
            .as_ref()
            .or(self.image.app.as_ref())
            .context(|| format!("app {}: neither the pod nor its image says what to run", self.runtime.name))
    }
}

/// Checks that `text` is a UUID with dashes (RFC 9562), and returns it in lower case.
///
/// # Errors
/// `text` is not a UUID.
pub fn check_uuid(text: &str) -> Result<String> {
    let lengths = [8, 4, 4, 4, 12];
    let groups: Vec<&str> = text.split('-').collect();
    let fits = groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(g, n)| g.len() == n && g.bytes().all(|b| b.is_ascii_hexdigit()));
    if fits {
        Ok(text.to_ascii_lowercase())
    } else {
        Err(Error::new(format!("{text:?} is not a pod's UUID, such as 01234567-89ab-cdef-0123-456789abcdef")))
    }
}

/// Makes the symbolic link [`layout::IN_POD_SUPERVISOR_STATUS`], which tells the host that the pod takes apps. Pod
/// side.
///
/// # Errors
/// The link can't be made.
pub fn mark_supervisor_ready() -> Result<()> {
    let link = Path::new(layout::IN_POD_SUPERVISOR_STATUS);
    let temporary = link.with_extension("new");
    remove_if_there(&temporary)?;
    std::os::unix::fs::symlink(status::READY, &temporary).context(|| format!("symlink {temporary:?}"))?;
    std::fs::rename(&temporary, link).context(|| format!("rename {temporary:?} to {link:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids() {
        assert_eq!(check_uuid("0123ABCD-0000-4000-8000-0123456789ab").unwrap(), "0123abcd-0000-4000-8000-0123456789ab");
        for bad in ["", "x", "0123abcd-0000-4000-8000-0123456789a", "../../etc", "0123abcd-0000-4000-8000-0123456789ag"]
        {
            assert!(check_uuid(bad).is_err());
        }
    }

    #[test]
    fn only_the_image_that_is_asked_for_is_read() {
        let tmp = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = tmp.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let image = |word: &str| {
            format!(
                r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/x","app":{{"exec":["{word}"],"user":"0","group":"0"}}}}"#
            )
        };
        let (a, b): (AcName, AcName) = ("a".parse().unwrap(), "b".parse().unwrap());
        let command =
            |name: &AcName| -> Result<String> { Ok(Pod::load(tmp.path())?.app(name)?.app()?.exec[0].clone()) };
        write(
            "pod",
            r#"{"acKind":"PodManifest","acVersion":"0.8.11","apps":[{"name":"a","image":{"id":"sha512-0"}},
            {"name":"b","image":{"id":"sha512-0"},"app":{"exec":["/pod"],"user":"0","group":"0"}}]}"#,
        );
        write("appsinfo/b/manifest", "broken");
        assert!(command(&a).unwrap_err().one_line().contains("appsinfo/a/manifest"));
        write("stage1/rootfs/opt/stage2/a/manifest", &image("/beside"));
        assert_eq!(command(&a).unwrap(), "/beside");
        write("appsinfo/a/manifest", &image("/image"));
        assert_eq!(command(&a).unwrap(), "/image");
        write("appsinfo/a/manifest", &image("/image").replace("app\"", "ppa\""));
        assert!(command(&a).unwrap_err().one_line().contains("what to run"));
        assert!(command(&b).unwrap_err().one_line().contains("appsinfo/b/manifest"));
        write("appsinfo/b/manifest", &image("/image"));
        assert_eq!(command(&b).unwrap(), "/pod");
        assert!(command(&"c".parse().unwrap()).unwrap_err().one_line().contains("app c is not in the pod"));
    }
}

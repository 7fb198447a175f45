//! A pod directory: what is in its files, and how they are replaced. Host side unless it says otherwise.

mod config;
mod files;
mod phase;
mod status;

use std::path::{Path, PathBuf};

pub use config::{InsecureOptions, RuntimeConfig};
pub use files::{read_bounded, write_atomic};
pub use phase::{Lock, Phase, State, lock_apps, state};
pub use status::{AppState, AppStatus, app_status, is_ready};

use crate::appc::{AcName, App, ImageManifest, PodManifest, RuntimeApp};
use crate::error::{Context, Error, Result};
use crate::layout;

/// Longest manifest that is read, in bytes.
pub const MAX_MANIFEST: u64 = 16 << 20;

/// A pod's manifest and settings.
#[derive(Clone, Debug)]
pub struct Pod {
    dir: PathBuf,
    /// The manifest.
    pub manifest: PodManifest,
    /// What `run` was told; the defaults before it ran.
    pub config: RuntimeConfig,
}

impl Pod {
    /// Loads the pod in `dir`.
    pub fn load(dir: &Path) -> Result<Self> {
        let manifest = PodManifest::parse(&read_bounded(&dir.join(layout::MANIFEST), MAX_MANIFEST)?)
            .context(|| format!("pod manifest {:?}", dir.join(layout::MANIFEST)))?;
        Ok(Self { dir: dir.to_owned(), manifest, config: RuntimeConfig::load(dir)? })
    }

    /// The app `name` with its image's manifest, of all the pod's image manifests the only one that is read.
    pub fn app(&self, name: &AcName) -> Result<PodApp> {
        let app = self.manifest.app(name).context(|| format!("app {name} is not in the pod manifest"))?;
        let file = self.dir.join(layout::app_image_manifest(name));
        let image =
            ImageManifest::parse(&read_bounded(&file, MAX_MANIFEST)?).context(|| format!("image manifest {file:?}"))?;
        Ok(PodApp { runtime: app.clone(), image })
    }
}

/// An app of a pod and the image it is made from.
#[derive(Clone, Debug)]
pub struct PodApp {
    /// The pod manifest's part.
    pub runtime: RuntimeApp,
    /// The image's manifest.
    pub image: ImageManifest,
}

impl PodApp {
    /// How it is run: as the pod manifest says, or else the image's.
    pub fn app(&self) -> Result<&App> {
        self.runtime
            .app
            .as_ref()
            .or(self.image.app.as_ref())
            .context(|| format!("app {}: neither the pod nor its image says what to run", self.runtime.name))
    }
}

/// Checks that `text` is a UUID and returns it in lower case: RFC 9562, with dashes.
pub fn check_uuid(text: &str) -> Result<String> {
    let lengths = [8, 4, 4, 4, 12];
    let groups: Vec<&str> = text.split('-').collect();
    let fits = groups.len() == lengths.len()
        && groups.iter().zip(lengths).all(|(g, n)| g.len() == n && g.bytes().all(|b| b.is_ascii_hexdigit()));
    if fits { Ok(text.to_ascii_lowercase()) } else { Err(Error::new(format!("{text:?} is not a UUID"))) }
}

/// The PID of the pod's PID 1 in the host's view, from the file `pid` or `ppid`; `None` if the pod
/// in `dir` has neither, or the parent has no child any more.
pub fn read_pid(dir: &Path) -> Result<Option<i32>> {
    if let Some(pid) = read_number(&dir.join(layout::PID))? {
        return Ok(Some(pid));
    }
    let Some(parent) = read_number(&dir.join(layout::PPID))? else { return Ok(None) };
    let file = format!("/proc/{parent}/task/{parent}/children");
    let children = match std::fs::read_to_string(&file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("read {file}"))?,
    };
    let mut children = children.split_whitespace().map(str::parse);
    match (children.next(), children.next()) {
        (None, _) => Ok(None),
        (Some(child), None) => Ok(Some(child.context(|| format!("{file}: not a PID"))?)),
        _ => Err(Error::new(format!("process {parent} has several children: which one is the pod's PID 1?"))),
    }
}

fn read_number(file: &Path) -> Result<Option<i32>> {
    let text = match std::fs::read_to_string(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.context(|| format!("read {file:?}"))?,
    };
    let digits = text.strip_suffix('\n').unwrap_or(&text);
    let number = digits.parse().ok().filter(|n| *n > 0 && digits.bytes().all(|b| b.is_ascii_digit()));
    Ok(Some(number.context(|| format!("{file:?} holds {digits:?}, which is not a PID"))?))
}

/// Tells the host that the pod's supervisor is ready. Pod side.
pub fn mark_supervisor_ready() -> Result<()> {
    let link = Path::new(layout::IN_POD_SUPERVISOR_STATUS);
    let temporary = link.with_extension("new");
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).context(|| format!("remove {temporary:?}"));
        }
        _ => {}
    }
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
    fn pids() {
        let tmp = tempfile::tempdir().unwrap();
        assert_eq!(read_pid(tmp.path()).unwrap(), None);
        std::fs::write(tmp.path().join("pid"), "42\n").unwrap();
        assert_eq!(read_pid(tmp.path()).unwrap(), Some(42));
        for bad in ["", "-1\n", "0", "+5", "4 2", "x"] {
            std::fs::write(tmp.path().join("pid"), bad).unwrap();
            assert!(read_pid(tmp.path()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_parents_only_child_is_the_pod() {
        let tmp = tempfile::tempdir().unwrap();
        // `sleep` has no child at all.
        let mut child = std::process::Command::new("sleep").arg("10").spawn().unwrap();
        std::fs::write(tmp.path().join("ppid"), format!("{}\n", child.id())).unwrap();
        assert_eq!(read_pid(tmp.path()).unwrap(), None);
        child.kill().unwrap();
        child.wait().unwrap();
        let mut shell = std::process::Command::new("sh")
            .args(["-c", "sleep 10 >/dev/null & echo $!; exec >/dev/null; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let grandchild = std::io::read_to_string(shell.stdout.take().unwrap());
        std::fs::write(tmp.path().join("ppid"), format!("{}\n", shell.id())).unwrap();
        let found = read_pid(tmp.path()).unwrap();
        shell.kill().unwrap();
        shell.wait().unwrap();
        drop(grandchild);
        if let Some(pid) = found {
            crate::sys::process::pidfd_kill(
                crate::sys::process::pidfd_open(pid).unwrap(),
                rustix::process::Signal::KILL,
            )
            .unwrap();
        }
        assert!(found.is_some());
    }
}

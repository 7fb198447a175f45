//! Further options of an app: tmpfs, devices, secrets, resource limits of processes, labels and annotations

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value};
use stage1::appc::{MEDIUM, Mount, NameValue, SIZE, Volume, VolumeKind};
use stage1::confine::rlimits::{ResourceLimit, ULIMITS};
use stage1::error::{Context, Error, Result};

use super::label;
use super::limits::memory;
use crate::app::mounts::{self, absolute};
use crate::app::options::AddOptions;
use crate::cdi;
use crate::fsutil::dir::in_words;
use crate::volume::content::relative;

/// The size limit of a secret, in bytes.
const LONGEST_SECRET: u64 = 1 << 20;

/// Further options of an app.
#[derive(Args, Debug, Default)]
pub struct Extras {
    /// Mount a tmpfs: PATH[:size=64m][,mode=1777][,ro]
    #[arg(long, value_name = "PATH")]
    tmpfs: Vec<String>,
    /// Give it its own /dev/shm of this size (default: the pod's, which its apps share)
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// Allow it to use a device of the host: DEVICE[:PATH][:r|rw], or one of CDI: VENDOR/CLASS=NAME
    #[arg(long = "device", value_name = "DEVICE")]
    devices: Vec<String>,
    /// Read the devices of CDI from the files in this directory
    #[arg(long = "cdi-spec-dir", value_name = "DIR", default_values = cdi::DIRECTORIES)]
    cdi_directories: Vec<PathBuf>,
    /// Give it a secret, as the file /run/secrets/NAME
    #[arg(long = "secret", value_name = "NAME=FILE")]
    secrets: Vec<String>,
    /// Set a resource limit of its processes (getrlimit(2)): nofile=1024:4096
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,
    /// Give it a label
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    labels: Vec<String>,
    /// Give it an annotation
    #[arg(long = "annotation", value_name = "NAME[=VALUE]")]
    annotations: Vec<String>,
}

impl Extras {
    /// The mounts for tmpfs, /dev/shm and devices by path.
    ///
    /// # Errors
    /// An option is invalid, or a device does not exist.
    pub fn mounts(&self) -> Result<Vec<Mount>> {
        let mut found = Vec::new();
        for text in &self.tmpfs {
            found.push(tmpfs(text).context(|| format!("--tmpfs {text:?}"))?);
        }
        if let Some(size) = &self.shm_size {
            let size = memory(size).context(|| "--shm-size")?;
            found.push(in_memory("/dev/shm", Some(size), "1777", false).context(|| "--shm-size")?);
        }
        for text in self.devices.iter().filter(|text| !cdi::is_name(text)) {
            found.push(device(text).context(|| format!("--device {text:?}"))?);
        }
        Ok(found)
    }

    /// Adds what its devices of CDI need.
    ///
    /// # Errors
    /// As [`cdi::resolve`] and [`cdi::Additions::add_to`].
    pub fn add_devices(&self, options: &mut AddOptions) -> Result<()> {
        let names: Vec<String> = self.devices.iter().filter(|text| cdi::is_name(text)).cloned().collect();
        cdi::resolve(&self.cdi_directories, &names)?.add_to(options, false)
    }

    /// The contents of its secrets, by name.
    ///
    /// # Errors
    /// An option is invalid, or a file can't be read or is larger than 1 MiB.
    pub fn secrets(&self) -> Result<BTreeMap<String, Vec<u8>>> {
        let read = |text: &String| {
            let shown = || format!("--secret {text:?}");
            let (name, path) = text.split_once('=').context(|| format!("{}: expected NAME=FILE", shown()))?;
            let name = relative(name).context(shown)?;
            if name.contains('/') {
                return Err(Error::new(format!("{}: a secret's name has no slash", shown())));
            }
            let path = Path::new(path);
            let bytes = stage1::pod::read_bounded(path, LONGEST_SECRET).map_err(in_words(path)).context(shown)?;
            Ok((name, bytes))
        };
        self.secrets.iter().map(read).collect()
    }

    /// The annotations with its resource limits.
    ///
    /// # Errors
    /// A limit is invalid.
    pub fn annotations(&self) -> Result<Vec<NameValue>> {
        for text in &self.ulimits {
            text.parse::<ResourceLimit>().context(|| "--ulimit")?;
        }
        let all = (!self.ulimits.is_empty()).then(|| NameValue::new(ULIMITS, self.ulimits.join(" ")));
        Ok(all.into_iter().collect())
    }

    /// The user's labels.
    ///
    /// # Errors
    /// As [`label::pairs`].
    pub fn labels(&self) -> Result<BTreeMap<String, String>> {
        label::pairs(&self.labels)
    }

    /// The user's annotations.
    ///
    /// # Errors
    /// As [`label::pairs`].
    pub fn user_annotations(&self) -> Result<BTreeMap<String, String>> {
        label::pairs(&self.annotations)
    }
}

fn tmpfs(text: &str) -> Result<Mount> {
    let (path, options) = text.split_once(':').unwrap_or((text, ""));
    let path = absolute(path)?;
    let (mut size, mut mode, mut read_only) = (None, "1777", false);
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("size", value)) => size = Some(memory(value)?),
            Some(("mode", value)) => mode = value,
            None if option == "ro" => read_only = true,
            // the defaults
            None if matches!(option, "rw" | "nosuid" | "nodev") => {}
            _ => return Err(Error::new(format!("unknown option {option:?}: expected size=, mode= or ro"))),
        }
    }
    in_memory(&path, size, mode, read_only)
}

fn in_memory(path: &str, size: Option<u64>, mode: &str, read_only: bool) -> Result<Mount> {
    let mut other: Map<String, Value> = Map::from_iter([(MEDIUM.to_owned(), "own-memory".into())]);
    other.extend(size.map(|size| (SIZE.to_owned(), size.into())));
    if size == Some(0) {
        return Err(Error::new("the kernel takes a size of 0 for no limit: give a size, such as 64m"));
    }
    if path == "/" {
        return Err(Error::new(
            "it can't be the app's root: use --readonly-rootfs, and --tmpfs for the directories it writes to",
        ));
    }
    let name = mounts::name("memory", path)?;
    let volume = Volume {
        name: name.clone(),
        kind: VolumeKind::Empty,
        source: None,
        read_only: read_only.then_some(true),
        recursive: None,
        mode: Some(mode.to_owned()),
        uid: None,
        gid: None,
        other,
    };
    volume.mode()?;
    Ok(Mount { volume: name, path: path.to_owned(), app_volume: Some(volume), other: Map::new() })
}

fn device(text: &str) -> Result<Mount> {
    let words: Vec<&str> = text.split(':').collect();
    let (source, path, access) = match words.as_slice() {
        [source] => (*source, *source, "rw"),
        [source, access] if !access.starts_with('/') => (*source, *source, *access),
        [source, path] => (*source, *path, "rw"),
        [source, path, access] => (*source, *path, *access),
        _ => return Err(Error::new("expected DEVICE[:PATH][:r|rw]")),
    };
    let read_only = match access {
        "r" => true,
        "rw" => false,
        other => return Err(Error::new(format!("{other:?}: expected r or rw; an app can't make device nodes"))),
    };
    let (source, path) = (absolute(source)?, absolute(path)?);
    if !mounts::is_device(&source)? {
        return Err(Error::new(format!("{source:?} is not a device; -v mounts files and directories")));
    }
    mounts::host(&path, &source, read_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_devices_and_secrets() {
        let mount = tmpfs("/scratch:size=1m,mode=0700,ro").unwrap();
        let volume = mount.app_volume.unwrap();
        assert_eq!((volume.size(), volume.mode().unwrap(), volume.read_only), (Some(1 << 20), 0o700, Some(true)));
        for bad in ["scratch", "/x:banana", "/x:size=b", "/x:size=0", "/x:mode=9", "/"] {
            assert!(tmpfs(bad).is_err(), "{bad}");
        }
        let shm = Extras { shm_size: Some("0".to_owned()), ..Extras::default() };
        assert!(shm.mounts().unwrap_err().one_line().starts_with("--shm-size: the kernel takes a size of 0"));
        let mount = device("/dev/null:/dev/nothing:r").unwrap();
        assert_eq!((mount.path.as_str(), mount.app_volume.unwrap().read_only), ("/dev/nothing", Some(true)));
        assert_eq!(device("/dev/null").unwrap().path, "/dev/null");
        for bad in ["/etc/passwd", "/dev/null:rwm", "null", "/dev/none", "/dev/null:/a:b:c"] {
            assert!(device(bad).is_err(), "{bad}");
        }
        let base = tempfile::tempdir().unwrap();
        let file = base.path().join("key");
        std::fs::write(&file, "geheim").unwrap();
        let of = |name: &str| {
            let secrets = vec![format!("{name}={}", file.display())];
            Extras { secrets, ..Extras::default() }.secrets()
        };
        assert_eq!(of("db").unwrap()["db"], b"geheim");
        for bad in ["", "../x", "a/b"] {
            assert!(of(bad).is_err(), "{bad}");
        }
        let ulimits = vec!["nofile=1:2".to_owned(), "core=0".to_owned()];
        let annotations = Extras { ulimits, ..Extras::default() }.annotations().unwrap();
        assert_eq!(annotations[0].value, "nofile=1:2 core=0");
    }
}

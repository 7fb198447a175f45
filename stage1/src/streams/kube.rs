//! Log files for a kubelet, in a directory of the host; annotations of pod and app name them.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::appc::{self, PodManifest};
use crate::error::{Context, Error, Result};
use crate::pod::PodApp;

/// The format of a log file's lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// The format of rkt.
    Plain,
    /// The format of CRI, which kubelets read.
    Cri,
}

impl Format {
    /// Its name in the annotation.
    pub fn word(self) -> &'static str {
        match self {
            Self::Plain => "k8s-plain",
            Self::Cri => "k8s-cri",
        }
    }

    /// The longest text of one line of the file, in bytes.
    pub const fn longest(self) -> usize {
        match self {
            Self::Plain => 256 << 10,
            Self::Cri => 16 << 10,
        }
    }
}

impl std::str::FromStr for Format {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "k8s-plain" => Ok(Self::Plain),
            "k8s-cri" => Ok(Self::Cri),
            _ => Err(Error::new(format!("log mode {text:?}: use k8s-plain or k8s-cri"))),
        }
    }
}

/// Annotation of a pod manifest: the format of its apps' log files.
pub const LOG_MODE: &str = "coreos.com/rkt/experiment/logmode";
/// Annotation of a pod manifest: the directory of the host with the log files.
pub const LOG_DIR: &str = "coreos.com/rkt/experiment/kubernetes-log-dir";
/// Annotation of an app in the pod manifest: the file, below that directory.
pub const LOG_PATH: &str = "coreos.com/rkt/experiment/kubernetes-log-path";

/// Longest path of a log file below its directory.
const MAX_PATH: usize = 1024;

/// A log file of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Format of its lines.
    pub format: Format,
    /// Its path below the directory of the pod's log files.
    pub path: String,
}

impl LogFile {
    /// A log file at `path`, below the directory of the pod's log files.
    ///
    /// # Errors
    /// The path is empty, absolute, too long, leads out of its directory, or has control characters.
    pub fn new(format: Format, path: &str) -> Result<Self> {
        check_path(path).context(|| format!("log file {path:?}"))?;
        Ok(Self { format, path: path.to_owned() })
    }

    /// The log file that the annotations of an app and its pod ask for, and its directory on the host.
    ///
    /// # Errors
    /// One of them is missing while the others are there, or has an invalid value.
    pub fn declared(pod: &PodManifest, app: &PodApp) -> Result<Option<(Self, String)>> {
        let Some(path) = appc::find(&app.runtime.annotations, LOG_PATH) else { return Ok(None) };
        let Some(mode) = appc::find(&pod.annotations, LOG_MODE) else { return Ok(None) };
        let file = Self::new(mode.parse().context(|| format!("annotation {LOG_MODE}"))?, path)
            .context(|| format!("annotation {LOG_PATH}"))?;
        let dir = appc::find(&pod.annotations, LOG_DIR)
            .context(|| format!("the app has a log file, but the pod no annotation {LOG_DIR}"))?;
        if !dir.starts_with('/') || dir.contains('\0') {
            return Err(Error::new(format!("annotation {LOG_DIR}: {dir:?} is not an absolute path")));
        }
        Ok(Some((file, dir.to_owned())))
    }
}

/// A path below a directory: relative, no `..`, names a file.
fn check_path(path: &str) -> Result<()> {
    let plain = Path::new(path).components().all(|component| matches!(component, Component::Normal(_)));
    if path.is_empty() || path.ends_with('/') || !plain {
        return Err(Error::new("not a relative path without \"..\""));
    }
    if path.len() > MAX_PATH || path.chars().any(char::is_control) {
        return Err(Error::new("too long, or with control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_their_directory() {
        for good in ["a.log", "pod/web_0.log", "a/b/c", "..a", "a b"] {
            LogFile::new(Format::Plain, good).unwrap();
        }
        let long = "x".repeat(MAX_PATH + 1);
        for bad in ["", "/a", "..", "../a", "a/../../b", "a/..", "a/", "./a", "a\nb", "a\0", &long] {
            assert!(LogFile::new(Format::Plain, bad).is_err(), "{bad:?}");
        }
    }
}

//! An OCI image's configuration (OCI image-spec, config.md).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use stage1::error::{Error, Result};

use crate::fsutil::digest::Digest;
use crate::image::platform::Platform;

/// The fields of an image's configuration that podctl reads.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    pub(super) author: Option<String>,
    #[serde(default)]
    pub(super) created: Option<String>,
    #[serde(default)]
    pub(super) config: Option<Execution>,
    rootfs: Layers,
}

#[derive(Debug, Deserialize)]
struct Layers {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Execution {
    pub(super) user: Option<String>,
    pub(super) exposed_ports: Option<BTreeMap<String, Value>>,
    pub(super) env: Option<Vec<String>>,
    pub(super) entrypoint: Option<Vec<String>>,
    pub(super) cmd: Option<Vec<String>>,
    pub(super) volumes: Option<BTreeMap<String, Value>>,
    pub(super) working_dir: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) stop_signal: Option<String>,
}

impl Config {
    /// The image's platform, in the names that the spec prescribes. Fails if it does not fit `wanted`.
    pub(super) fn must_fit(&self, wanted: &Platform) -> Result<Platform> {
        let its =
            Platform { os: self.os.clone(), architecture: self.architecture.clone(), variant: self.variant.clone() };
        // not every configuration has a variant
        let asked = Platform { variant: wanted.variant.clone().filter(|_| its.variant.is_some()), ..wanted.clone() };
        if its.fits(&asked) {
            let (plain, taken) = its.plain(&asked);
            taken.iter().for_each(|taken| log::warn!("{taken}"));
            return Ok(plain);
        }
        Err(Error::new(format!("the image is for {its}, not for {wanted}; --platform chooses")))
    }

    /// The digests of the uncompressed layers (`rootfs.diff_ids`), the lowest first.
    pub(super) fn layers(&self) -> Result<Vec<Digest>> {
        self.rootfs.diff_ids.iter().flatten().map(|text| Digest::new(text)).collect()
    }
}

/// The working directory of an image's app, as an absolute path; `/` if the configuration has none.
pub(crate) fn working_directory(config: &Config) -> String {
    let text = config.config.as_ref().and_then(|execution| execution.working_dir.as_deref()).unwrap_or_default();
    let plain = plain_path(text);
    if text.split('/').any(|part| part == "..") {
        log::warn!("the working directory {text:?} is taken for {plain:?}");
    }
    plain
}

/// The absolute path with `.` and `..` resolved textually, as other runtimes do for a working directory.
pub(super) fn plain_path(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_working_directory_is_a_plain_path() {
        for (text, plain) in
            [("", "/"), ("srv", "/srv"), ("/app/../tmp", "/tmp"), ("/../..", "/"), ("//a/./b/", "/a/b")]
        {
            assert_eq!(plain_path(text), plain, "{text}");
        }
    }
}

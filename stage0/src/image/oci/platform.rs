//! Which image of several is wanted, and what machines an image is for.

use serde::Deserialize;
use stage1::error::{Error, Result};

/// The image that is wanted of several.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Its reference or tag, if there is more than one.
    pub reference: Option<String>,
    /// Its platform, `os/architecture` or `os/architecture/variant`; else this machine's.
    pub platform: Option<String>,
    /// What it is called if it has no name of its own.
    pub name: Option<String>,
}

impl Wanted {
    pub(super) fn platform(&self) -> Result<Platform> {
        let Some(text) = &self.platform else {
            let architecture = match std::env::consts::ARCH {
                "x86_64" => "amd64",
                "aarch64" => "arm64",
                other => other,
            };
            return Ok(Platform { os: "linux".into(), architecture: architecture.into(), variant: None });
        };
        let parts: Vec<&str> = text.split('/').collect();
        match parts.as_slice() {
            [os, architecture] | [os, architecture, _] if !os.is_empty() && !architecture.is_empty() => Ok(Platform {
                os: (*os).into(),
                architecture: (*architecture).into(),
                variant: parts.get(2).map(|variant| (*variant).into()),
            }),
            _ => Err(Error::new(format!("platform {text:?} is not OS/ARCHITECTURE, such as linux/amd64"))),
        }
    }
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

impl Platform {
    pub(super) fn fits(&self, wanted: &Self) -> bool {
        let variant = wanted.variant.is_none() || self.variant == wanted.variant;
        self.os == wanted.os && self.architecture == wanted.architecture && variant
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

//! Choosing one of several images, and the platform of an image (OCI image-spec, image-index.md).

use serde::Deserialize;
use stage1::error::{Error, Result};

/// Which of several images to take.
#[derive(Clone, Debug, Default)]
pub struct ImageChoice {
    /// The image's reference or tag.
    pub reference: Option<String>,
    /// The platform, as `OS/ARCHITECTURE` or `OS/ARCHITECTURE/VARIANT`; this machine's if `None`.
    pub platform: Option<String>,
    /// The name for an image that has none of its own.
    pub name: Option<String>,
}

impl ImageChoice {
    /// The platform, parsed.
    ///
    /// # Errors
    /// The text does not have two or three parts.
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
                architecture: plain_architecture(architecture).into(),
                variant: parts.get(2).map(|variant| (*variant).into()),
            }),
            _ => Err(Error::new(format!("platform {text:?} is not OS/ARCHITECTURE, such as linux/amd64"))),
        }
    }
}

/// The platform that an image is for.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub(super) os: String,
    #[serde(default)]
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: Option<String>,
}

impl Platform {
    /// Whether an image for this platform runs on `wanted`.
    pub(super) fn fits(&self, wanted: &Self) -> bool {
        let variant = wanted.variant.is_none() || self.variant == wanted.variant;
        // an empty field fits everything
        let same = |its: &str, wanted: &str| its.is_empty() || its == wanted;
        same(&self.os, &wanted.os) && same(plain_architecture(&self.architecture), &wanted.architecture) && variant
    }

    /// Replaces empty fields by those of `wanted`, and other names of an architecture by Go's, which the image-spec
    /// prescribes. Returns the result, and a sentence for each replacement.
    pub(super) fn plain(&self, wanted: &Self) -> (Self, Vec<String>) {
        let mut taken = Vec::new();
        let mut word = |what: &str, its: &str, plain: &str, wanted: &str| {
            let plain = if its.is_empty() { wanted } else { plain };
            if plain != its {
                taken.push(format!("the {what} {its:?} is taken for {plain:?}"));
            }
            plain.to_owned()
        };
        let os = word("operating system", &self.os, &self.os, &wanted.os);
        let plain = plain_architecture(&self.architecture);
        let architecture = word("architecture", &self.architecture, plain, &wanted.architecture);
        (Self { os, architecture, variant: self.variant.clone() }, taken)
    }
}

/// Go's name of an architecture (`GOARCH`) for the name that the kernel or a distribution gives it.
fn plain_architecture(word: &str) -> &str {
    match word {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i486" | "i586" | "i686" | "x86" => "386",
        "armhf" | "armel" | "armv6l" | "armv7l" => "arm",
        "ppc64el" => "ppc64le",
        other => other,
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_for_a_platform_are_understood() {
        let platform =
            |os: &str, architecture: &str| Platform { os: os.into(), architecture: architecture.into(), variant: None };
        let wanted = platform("linux", "amd64");
        for (os, architecture, notes) in
            [("linux", "amd64", 0), ("linux", "x86_64", 1), ("", "", 2), ("linux", "", 1), ("", "x86-64", 2)]
        {
            let its = platform(os, architecture);
            assert!(its.fits(&wanted), "{its:?}");
            let (plain, taken) = its.plain(&wanted);
            assert_eq!((plain, taken.len()), (wanted.clone(), notes), "{its:?}");
        }
        for (os, architecture) in [("linux", "aarch64"), ("windows", "amd64"), ("unknown", "unknown")] {
            assert!(!platform(os, architecture).fits(&wanted), "{os}/{architecture}");
        }
        let asked = ImageChoice { platform: Some("linux/aarch64".into()), ..ImageChoice::default() };
        assert_eq!(asked.platform().unwrap(), platform("linux", "arm64"));
    }
}

//! Names of images in registries: `registry/repository:tag`, `registry/repository@digest`, and short names without a
//! registry (distribution spec, "Pulling manifests", for their grammar).

use std::fmt;

use stage1::error::{Error, Result};

use crate::fsutil::digest::Digest;

/// The longest name of a registry and repository, in bytes.
const MAX_NAME: usize = 255;
/// The longest tag, in bytes.
const MAX_TAG: usize = 128;
/// Docker Hub, which has several names, and whose images without a user are in `library/`.
pub(crate) const HUB: &str = "docker.io";
/// The tag of a name without tag and digest.
const LATEST: &str = "latest";

/// The full name of an image in a registry. As text, with `/` replaced, it is a valid file name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The name of an image as the user wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// A name with a registry.
    Full(Reference),
    /// A name without a registry.
    Short(ShortName),
}

/// A name without a registry, such as `busybox` or `library/busybox:1.36`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortName {
    /// The repository as the user wrote it, without tag and digest.
    pub repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ShortName {
    /// The image of this name in a registry, which may have a path (`quay.io/user`).
    ///
    /// # Errors
    /// `registry` is not a registry, or the name is too long.
    pub fn at(&self, registry: &str) -> Result<Reference> {
        self.instead(&format!("{registry}/{}", self.repository))
    }

    /// The image in `repository`, which an alias gives for this name; it gets this name's tag and digest.
    ///
    /// # Errors
    /// `repository` is not a name with a registry.
    pub fn instead(&self, repository: &str) -> Result<Reference> {
        match Name::parse(repository)? {
            Name::Full(mut reference) => {
                reference.tag = self.tag.clone().or(reference.tag).filter(|_| self.digest.is_none());
                reference.digest.clone_from(&self.digest);
                Ok(reference)
            }
            Name::Short(_) => Err(Error::new(format!("{repository:?} names no registry"))),
        }
    }

    /// Whether a full name ends with this one at a `/`, and has the same tag or digest.
    pub fn is_end_of(&self, full: &Reference) -> bool {
        let whole = full.location();
        let ends = whole.strip_suffix(self.repository.as_str()).is_some_and(|above| above.ends_with('/'));
        let tag = self.tag.as_deref().unwrap_or(LATEST);
        ends && match &self.digest {
            Some(digest) => full.digest.as_ref() == Some(digest),
            None => full.digest.is_none() && full.tag() == Some(tag),
        }
    }

    /// The digest, if the user wrote one.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }
}

impl Name {
    /// Parses a name as users write it; ignores a leading `docker://`.
    ///
    /// # Errors
    /// The registry, repository, tag or digest is invalid, or the name is too long.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::new(format!("{text:?} is not the name of an image in a registry: {why}"));
        let rest = text.strip_prefix("docker://").unwrap_or(text);
        let (rest, digest) = match rest.split_once('@') {
            Some((rest, digest)) => (rest, Some(Digest::new(digest).map_err(|error| bad(&error.one_line()))?)),
            None => (rest, None),
        };
        // a colon before the last slash belongs to a port
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(bad("a tag has at most 128 letters, digits, \"_\", \".\" and \"-\""));
        }
        let (registry, repository) = match path.split_once('/') {
            Some((first, rest)) if is_registry_like(first) => (Some(first), rest),
            _ => (None, path),
        };
        if !repository.split('/').all(is_component) {
            return Err(bad("a repository is words of lower-case letters and digits, separated by slashes"));
        }
        if path.len() + HUB.len() + "/library/".len() > MAX_NAME {
            return Err(bad("it is too long"));
        }
        let tag = tag.map(str::to_owned);
        let Some(registry) = registry else {
            return Ok(Self::Short(ShortName { repository: repository.to_owned(), tag, digest }));
        };
        if !is_registry(registry) {
            return Err(bad("its registry is not HOST or HOST:PORT"));
        }
        let registry = if registry == "index.docker.io" { HUB } else { registry };
        let repository = match registry == HUB && !repository.contains('/') {
            true => format!("library/{repository}"),
            false => repository.to_owned(),
        };
        // a digest takes precedence over a tag
        let tag = if digest.is_some() { None } else { Some(tag.unwrap_or_else(|| LATEST.into())) };
        Ok(Self::Full(Reference { registry: registry.to_owned(), repository, tag, digest }))
    }

    /// Parses a name for an image of the store; a short name gets the registry `localhost`.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn local(text: &str) -> Result<Reference> {
        match Self::parse(text)? {
            Self::Full(reference) => Ok(reference),
            Self::Short(short) => short.at("localhost"),
        }
    }
}

impl Reference {
    /// Parses a name with a registry.
    ///
    /// # Errors
    /// As [`Name::parse`], or the name has no registry.
    pub fn parse(text: &str) -> Result<Self> {
        match Name::parse(text)? {
            Name::Full(reference) => Ok(reference),
            Name::Short(_) => Err(Error::new(format!("{text:?} names no registry"))),
        }
    }

    /// `HOST` or `HOST:PORT`.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository in the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// `REGISTRY/REPOSITORY`.
    pub fn location(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The tag; `None` if it has a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest; `None` if it has a tag.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The digest or tag, by which the API names a manifest.
    pub fn version(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => LATEST.to_owned(),
        }
    }

    /// The same tag or digest in another `REGISTRY/REPOSITORY`.
    ///
    /// # Errors
    /// `location` is not a registry with a repository.
    pub(crate) fn moved_to(&self, location: &str) -> Result<Self> {
        let separator = if self.digest.is_some() { '@' } else { ':' };
        Self::parse(&format!("{location}{separator}{}", self.version()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.digest.is_some() { '@' } else { ':' };
        write!(f, "{}/{}{separator}{}", self.registry, self.repository, self.version())
    }
}

/// Whether the first part of a name is a registry rather than the start of a repository.
fn is_registry_like(text: &str) -> bool {
    text == "localhost" || text.contains(['.', ':']) || text.bytes().any(|b| b.is_ascii_uppercase())
}

/// Whether a text is `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
pub(crate) fn is_registry(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let is_port = |port: &str| port.parse::<u16>().is_ok() && port.bytes().all(|b| b.is_ascii_digit());
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_host = match host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(is_label),
    };
    is_host && port.is_none_or(is_port) && text.len() <= MAX_NAME
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

/// Whether a text is words of lower-case letters and digits, separated by `.`, `_`, `__` or any number of `-`.
fn is_component(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let ends_well = text.starts_with(word) && text.ends_with(word);
    let separators = text.split(word).filter(|between| !between.is_empty());
    ends_well && separators.into_iter().all(|one| matches!(one, "." | "_" | "__") || one.bytes().all(|b| b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_names() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (text, full) in [
            ("docker.io/busybox", "docker.io/library/busybox:latest".to_owned()),
            ("docker://index.docker.io/a/b:1", "docker.io/a/b:1".to_owned()),
            ("localhost:5000/a/b_c", "localhost:5000/a/b_c:latest".to_owned()),
            ("localhost/a", "localhost/a:latest".to_owned()),
            ("Upper/a", "Upper/a:latest".to_owned()),
            ("[::1]:5000/a:b", "[::1]:5000/a:b".to_owned()),
            (&format!("quay.io/a/b:tag@{digest}"), format!("quay.io/a/b@{digest}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().to_string(), full, "{text}");
            assert_eq!(Reference::parse(&full).unwrap().to_string(), full);
        }
    }

    #[test]
    fn invalid_names_are_refused() {
        for bad in [
            "",
            "/",
            "a//b",
            "quay.io/",
            "quay.io/A",
            "quay.io/a:",
            "quay.io/a:-x",
            "quay.io/../a",
            "quay.io/a/./b",
            "quay.io/a@sha256:00",
            "quay.io:port/a",
            "-x.io/a",
            "quay.io/a:b/c",
            "http://quay.io/a",
            "user@quay.io/a",
            "quay.io/a?b",
            "quay.io/a%2fb",
            "quay.io/a\nb",
            "a___b",
            "a._b",
            &format!("quay.io/{}", "a".repeat(250)),
            &format!("quay.io/a:{}", "a".repeat(129)),
        ] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn short_names() {
        let short = |text| match Name::parse(text).unwrap() {
            Name::Short(short) => short,
            Name::Full(full) => panic!("{full}"),
        };
        assert_eq!(short("busybox").at("docker.io").unwrap().to_string(), "docker.io/library/busybox:latest");
        assert_eq!(short("a/b:1").at("quay.io").unwrap().to_string(), "quay.io/a/b:1");
        assert_eq!(short("alias:1").instead("quay.io/x/y").unwrap().to_string(), "quay.io/x/y:1");
        assert!(short("alias").instead("x/y").is_err());
        assert_eq!(Name::local("mine:2").unwrap().to_string(), "localhost/mine:2");
        let full = Reference::parse("quay.io/a/b:1").unwrap();
        assert!(short("b:1").is_end_of(&full) && short("a/b:1").is_end_of(&full));
        assert!(!short("b").is_end_of(&full) && !short("c/a/b:1").is_end_of(&full));
        assert!(!short("b").is_end_of(&Reference::parse("quay.io/bb").unwrap()));
    }
}

//! The source of an import, also in skopeo's form

use std::path::{Path, PathBuf};

use stage1::error::{Error, Result};

use crate::image::options::ImageFormat;

/// The source of an import.
#[derive(Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard input.
    Input,
    /// A file or directory; its format and the reference of the image, if given.
    Path(PathBuf, Option<ImageFormat>, Option<String>),
    /// An image of a registry: `docker://NAME`.
    Registry(String),
}

impl Source {
    /// Parses `-`, a path, or `TRANSPORT:PATH[:REFERENCE]`.
    ///
    /// # Errors
    /// The transport has no path or is not supported.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "-" {
            return Ok(Self::Input);
        }
        let Some((transport, rest)) = text.split_once(':') else { return Ok(Self::Path(text.into(), None, None)) };
        let kind = match transport {
            "docker" if rest.starts_with("//") => return Ok(Self::Registry(text.to_owned())),
            "docker-archive" => ImageFormat::Docker,
            "oci-archive" | "oci" => ImageFormat::Oci,
            "dir" => ImageFormat::Dir,
            "containers-storage" | "docker-daemon" | "ostree" | "sif" | "tarball" => {
                return Err(Error::new(format!(
                    "{transport}: is not supported; copy the image with skopeo to oci-archive:FILE, and import that"
                )));
            }
            _ => return Ok(Self::Path(text.into(), None, None)),
        };
        let (path, reference) = match rest.split_once(':') {
            // dir: has no reference, and its path may have colons
            Some((path, reference)) if kind != ImageFormat::Dir && !Path::new(rest).exists() => (path, Some(reference)),
            _ => (rest, None),
        };
        if path.is_empty() {
            return Err(Error::new(format!("{transport}: without a path")));
        }
        Ok(Self::Path(path.into(), Some(kind), reference.filter(|text| !text.is_empty()).map(str::to_owned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_skopeo_writes_them() {
        let path =
            |path: &str, kind, reference: Option<&str>| Source::Path(path.into(), kind, reference.map(Into::into));
        for (text, expected) in [
            ("-", Source::Input),
            ("./x.tar", path("./x.tar", None, None)),
            ("/a:b", path("/a:b", None, None)),
            ("docker://quay.io/x:1", Source::Registry("docker://quay.io/x:1".into())),
            ("docker-archive:/no/x.tar", path("/no/x.tar", Some(ImageFormat::Docker), None)),
            ("docker-archive:x.tar:a/b:1", path("x.tar", Some(ImageFormat::Docker), Some("a/b:1"))),
            ("oci:/no/dir:1", path("/no/dir", Some(ImageFormat::Oci), Some("1"))),
            ("oci-archive:x.tar", path("x.tar", Some(ImageFormat::Oci), None)),
            ("dir:/no/a:b", path("/no/a:b", Some(ImageFormat::Dir), None)),
        ] {
            assert_eq!(Source::parse(text).unwrap(), expected, "{text}");
        }
        for bad in ["oci:", "dir:", "docker-daemon:x:1", "docker-archive::1"] {
            assert!(Source::parse(bad).is_err(), "{bad}");
        }
    }
}

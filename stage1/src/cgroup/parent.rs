//! Where a pod's cgroup is made: below which other one. Host side.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

/// Annotation of a pod: the cgroup that its own is made in, as [`Parent`] is written.
pub const CGROUP_PARENT: &str = "podctl.io/cgroup-parent";

/// The cgroup that a pod's is made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// A slice of systemd, by its name: systemd.slice(5). Where the host's PID 1 is systemd, it makes it.
    Slice(String),
    /// A path below the root of every hierarchy.
    Path(PathBuf),
}

impl FromStr for Parent {
    type Err = Error;

    /// A path, such as `/kubepods/burstable/pod1`, or the name of a slice, such as `kubepods-burstable.slice`, before which
    /// a path may stand.
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::new(format!("cgroup parent {text:?}: {why}"));
        let path: PathBuf = Path::new(text).components().filter(|part| *part != Component::RootDir).collect();
        if path.as_os_str().is_empty() || path.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(wrong("expected a path below the root, or the name of a slice"));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some(words) = name.strip_suffix(".slice") else { return Ok(Self::Path(path)) };
        let is_plain = |word: &str| !word.is_empty() && !word.contains(char::is_whitespace);
        if !words.split('-').all(is_plain) {
            return Err(wrong("it is not the name of a slice: systemd.slice(5)"));
        }
        Ok(Self::Slice(name.into_owned()))
    }
}

impl fmt::Display for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Slice(name) => f.write_str(name),
            Self::Path(path) => write!(f, "/{}", path.display()),
        }
    }
}

impl Parent {
    /// The path of it, relative to the root of each hierarchy: of the slice `a-b.slice` it is `a.slice/a-b.slice`.
    pub(super) fn path(&self) -> PathBuf {
        match self {
            Self::Path(path) => path.clone(),
            Self::Slice(name) => {
                let words = name.trim_end_matches(".slice");
                let ends = words.match_indices('-').map(|(at, _)| at).chain([words.len()]);
                ends.map(|end| format!("{}.slice", &words[..end])).collect()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names_of_slices() {
        for (text, path, shown) in [
            ("/kubepods/burstable/pod1", "kubepods/burstable/pod1", "/kubepods/burstable/pod1"),
            ("mine", "mine", "/mine"),
            ("mine.slice", "mine.slice", "mine.slice"),
            ("a-b-c.slice", "a.slice/a-b.slice/a-b-c.slice", "a-b-c.slice"),
            ("/a.slice/a-b.slice", "a.slice/a-b.slice", "a-b.slice"),
        ] {
            let parent: Parent = text.parse().unwrap();
            assert_eq!((parent.path(), parent.to_string()), (PathBuf::from(path), shown.to_owned()));
            assert_eq!(parent.to_string().parse::<Parent>().unwrap(), parent);
        }
        for bad in ["", "/", "..", "/a/../b", "a--b.slice", "-a.slice", ".slice", "a b.slice"] {
            assert!(bad.parse::<Parent>().is_err(), "{bad}");
        }
    }
}

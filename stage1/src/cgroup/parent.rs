//! The parent of a pod's cgroup. Host side.

use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};

/// Annotation of a pod: the parent of its cgroup, as [`Parent`] is written.
pub const CGROUP_PARENT: &str = "podctl.io/cgroup-parent";

/// The parent of a pod's cgroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The name of a slice: systemd.slice(5). If the host's PID 1 is systemd, systemd makes the slice.
    Slice(String),
    /// A path relative to the root of every cgroup hierarchy.
    Path(PathBuf),
}

impl FromStr for Parent {
    type Err = Error;

    /// Reads a path, such as `/kubepods/burstable/pod1`, or the name of a slice, such as `kubepods-burstable.slice`; a
    /// path before the name of a slice is ignored.
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
    /// Its path relative to the root of every hierarchy: `a.slice/a-b.slice` for the slice `a-b.slice`.
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

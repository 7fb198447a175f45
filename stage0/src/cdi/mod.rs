//! CDI, the Container Device Interface 1.1: devices that vendors describe in files, by the names that they give them.
//!
//! A device adds device nodes, mounts, variables and groups to an app. What podctl does not do for a device, such as its
//! hooks, is refused, so that no app runs with a device that works by halves.

mod edits;
mod name;
mod spec;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use stage1::error::{Context, Error, Result};

pub use edits::Additions;
pub use name::is_name;
use spec::Spec;

/// The directories with files of CDI, as they are used unless others are named. A later one takes precedence.
pub const DIRECTORIES: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// The devices that files describe.
#[derive(Debug, Default)]
struct Known {
    /// The files that can be used.
    specs: Vec<(PathBuf, Spec)>,
    /// What is wrong with others.
    unusable: Vec<String>,
    /// The files that have a device: one, or several of the same directory, of which none counts.
    devices: BTreeMap<String, Vec<usize>>,
}

/// What the devices with these names add to an app. A file that can't be used is left out with a warning.
///
/// # Errors
/// A name is malformed; no file, or several files of one directory, have the device; or the device asks for something that
/// this host lacks or that is not supported. The message names the device, and the file.
pub fn resolve(directories: &[PathBuf], names: &[String]) -> Result<Additions> {
    let mut found = Additions::default();
    if names.is_empty() {
        return Ok(found);
    }
    let known = read(directories)?;
    let mut whole = Vec::new();
    for name in names {
        name::check(name)?;
        let index = known.find(directories, name)?;
        let (path, spec) = &known.specs[index];
        let shown = || format!("CDI device {name:?} of {}", path.display());
        // what all devices of a file need comes once
        if !whole.contains(&index) {
            whole.push(index);
            found.take(spec.common()).context(shown)?;
        }
        let own = spec.devices().find(|(device, _)| device == name);
        found.take(own.map(|(_, edits)| edits).unwrap_or_default()).context(shown)?;
    }
    Ok(found)
}

impl Known {
    /// The number of the file that has a device.
    fn find(&self, directories: &[PathBuf], name: &str) -> Result<usize> {
        match self.devices.get(name).map_or(&[][..], Vec::as_slice) {
            [one] => Ok(*one),
            [] => {
                let places: Vec<String> = directories.iter().map(|dir| dir.display().to_string()).collect();
                let rest: String = self.unusable.iter().map(|why| format!("; {why}")).collect();
                Err(Error::new(format!("CDI device {name:?}: no file in {} has it{rest}", places.join(" or "))))
            }
            several => {
                let places: Vec<String> =
                    several.iter().map(|index| self.specs[*index].0.display().to_string()).collect();
                Err(Error::new(format!(
                    "CDI device {name:?}: it is in {}: leave one of them out",
                    places.join(" and in ")
                )))
            }
        }
    }

    fn add(&mut self, path: &Path) {
        match Spec::read(path) {
            Ok(spec) => self.specs.push((path.to_owned(), spec)),
            Err(error) => {
                let line = format!("{}: {}", path.display(), error.one_line());
                log::warn!("{line}; its devices can't be used");
                self.unusable.push(line);
            }
        }
    }
}

/// Reads the files in the directories, those that exist: `*.json` and `*.yaml`.
fn read(directories: &[PathBuf]) -> Result<Known> {
    let mut known = Known::default();
    for directory in directories {
        let entries = match std::fs::read_dir(directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.context(|| format!("read {directory:?}"))?,
        };
        let paths = entries.map(|entry| Ok(entry.context(|| format!("read {directory:?}"))?.path()));
        let mut paths = paths.collect::<Result<Vec<PathBuf>>>()?;
        paths.sort();
        let first = known.specs.len();
        let is_spec =
            |path: &PathBuf| path.extension().is_some_and(|end| end == "json" || end == "yaml") && !path.is_dir();
        paths.iter().filter(|path| is_spec(path)).for_each(|path| known.add(path));
        let mut here: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, (_, spec)) in known.specs.iter().enumerate().skip(first) {
            spec.devices().for_each(|(name, _)| here.entry(name).or_default().push(index));
        }
        known.devices.extend(here);
    }
    Ok(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = "cdiVersion: 0.6.0\nkind: example.com/net\n";

    fn put(dir: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(name), text).unwrap();
    }

    fn env(found: &Additions) -> Vec<String> {
        found.env.iter().map(|one| format!("{}={}", one.name, one.value)).collect()
    }

    #[test]
    fn later_directories_take_precedence_and_files_that_are_wrong_are_left_out() {
        let base = tempfile::tempdir().unwrap();
        let dirs = ["etc", "run", "missing"].map(|name| base.path().join(name));
        let device = |value: &str| {
            format!(
                "{COMMON}devices: [{{name: a, containerEdits: {{env: [OWN={value}]}}}}]\ncontainerEdits: {{env: [ALL=1]}}\n"
            )
        };
        put(&dirs[0], "a.yaml", &device("etc"));
        put(&dirs[0], "wrong.yaml", "kind: [");
        put(&dirs[0], "notes.txt", "not a spec");
        put(
            &dirs[0],
            "b.json",
            r#"{"cdiVersion":"1.0.0","kind":"example.com/gpu",
            "devices":[{"name":"0","containerEdits":{"env":["GPU=0"]}},{"name":"1","containerEdits":{"env":["GPU=1","B=2"]}}]}"#,
        );
        std::fs::create_dir(dirs[0].join("dir.yaml")).unwrap();
        let find = |names: &[&str]| resolve(&dirs, &names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>());
        assert_eq!(env(&find(&["example.com/net=a"]).unwrap()), ["ALL=1", "OWN=etc"]);
        put(&dirs[1], "a.yaml", &device("run"));
        assert_eq!(env(&find(&["example.com/net=a"]).unwrap()), ["ALL=1", "OWN=run"]);
        // of two devices the later one's variable counts
        let both = find(&["example.com/gpu=1", "example.com/gpu=0", "example.com/net=a"]).unwrap();
        assert_eq!(env(&both), ["B=2", "GPU=0", "ALL=1", "OWN=run"]);
        put(&dirs[1], "again.yaml", &device("again"));
        let twice = find(&["example.com/net=a"]).unwrap_err().one_line();
        assert!(twice.contains("run/a.yaml and in ") && twice.contains("run/again.yaml"), "{twice}");
        let missing = find(&["example.com/net=b"]).unwrap_err().one_line();
        for part in ["\"example.com/net=b\"", "no file in ", "etc or ", "wrong.yaml: "] {
            assert!(missing.contains(part), "{missing}");
        }
        assert!(find(&["example.com/net"]).unwrap_err().one_line().contains("VENDOR/CLASS=NAME"));
        assert_eq!(find(&[]).unwrap(), Additions::default());
    }
}

//! A file of CDI: reading and checking it.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use serde::Deserialize;
use serde_json::Value;
use stage1::error::{Context, Error, Result};
use stage1::json;

use super::name::{is_device, is_kind};

/// The versions of the specification that are understood.
const VERSIONS: [&str; 10] = ["0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0"];

/// The size limit of a file, in bytes.
const LONGEST: u64 = 1 << 20;

/// The devices of one kind.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Spec {
    cdi_version: String,
    kind: String,
    #[serde(default, rename = "annotations")]
    _annotations: Value,
    devices: Vec<Device>,
    #[serde(default, deserialize_with = "json::or_default")]
    container_edits: Edits,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Device {
    name: String,
    #[serde(default, rename = "annotations")]
    _annotations: Value,
    container_edits: Edits,
}

/// What is changed in a container.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub(super) struct Edits {
    /// Variables: `NAME=VALUE`.
    #[serde(deserialize_with = "json::or_default")]
    pub(super) env: Vec<String>,
    #[serde(deserialize_with = "json::or_default")]
    pub(super) device_nodes: Vec<DeviceNode>,
    #[serde(deserialize_with = "json::or_default")]
    pub(super) net_devices: Vec<Value>,
    #[serde(deserialize_with = "json::or_default")]
    pub(super) mounts: Vec<Mount>,
    #[serde(deserialize_with = "json::or_default")]
    pub(super) hooks: Vec<Hook>,
    #[serde(deserialize_with = "json::or_default")]
    pub(super) additional_gids: Vec<u32>,
    pub(super) intel_rdt: Option<Value>,
}

/// A device node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct DeviceNode {
    /// Its path in the container.
    pub(super) path: String,
    /// Its path on the host, if that is another one.
    pub(super) host_path: Option<String>,
    /// `b`, `c`, `u` (as `c`) or `p`.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) major: Option<i64>,
    pub(super) minor: Option<i64>,
    pub(super) file_mode: Option<u32>,
    /// Some of `r`, `w` and `m`.
    pub(super) permissions: Option<String>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

/// A mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Mount {
    pub(super) host_path: String,
    pub(super) container_path: String,
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    #[serde(default, deserialize_with = "json::or_default")]
    pub(super) options: Vec<String>,
}

/// A program that is to be run at a point of a container's life.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hook {
    pub(super) hook_name: String,
    pub(super) path: String,
}

impl Spec {
    /// Reads a file, YAML or JSON by its name.
    ///
    /// # Errors
    /// The file can't be read, is not a regular one, is larger than 1 MiB, or is not what the specification asks for.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = text(path)?;
        let value = match path.extension().is_some_and(|end| end == "json") {
            true => serde_json::from_str(&text).context(|| "not JSON")?,
            false => serde_yaml_ng::from_str(&text).context(|| "not YAML")?,
        };
        let spec: Self = json::from_value(value)?;
        spec.check()?;
        Ok(spec)
    }

    fn check(&self) -> Result<()> {
        if !VERSIONS.contains(&self.cdi_version.as_str()) {
            let known = VERSIONS.join(", ");
            return Err(Error::new(format!("cdiVersion {:?}: not one of {known}", self.cdi_version)));
        }
        if !is_kind(&self.kind) {
            return Err(Error::new(format!("kind {:?}: expected VENDOR/CLASS", self.kind)));
        }
        if self.devices.is_empty() {
            return Err(Error::new("it has no devices"));
        }
        for (at, device) in self.devices.iter().enumerate() {
            if !is_device(&device.name) {
                return Err(Error::new(format!("{:?} is not the name of a device", device.name)));
            }
            if self.devices[..at].iter().any(|other| other.name == device.name) {
                return Err(Error::new(format!("the device {:?} is there twice", device.name)));
            }
        }
        let mut all = std::iter::once(&self.container_edits).chain(self.devices.iter().map(|one| &one.container_edits));
        let wrong = all.find_map(|edits| edits.env.iter().find(|text| text.find('=').is_none_or(|at| at == 0)));
        match wrong {
            Some(text) => Err(Error::new(format!("env {text:?}: expected NAME=VALUE"))),
            None => Ok(()),
        }
    }

    /// What all its devices need.
    pub(super) fn common(&self) -> Edits {
        self.container_edits.clone()
    }

    /// Its devices, by their full names, and what each needs.
    pub(super) fn devices(&self) -> impl Iterator<Item = (String, Edits)> {
        self.devices.iter().map(|one| (format!("{}={}", self.kind, one.name), one.container_edits.clone()))
    }
}

/// What a regular file says, or the one that a link leads to. Does not wait for the writer of a FIFO.
fn text(path: &Path) -> Result<String> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).context(|| "open")?);
    if !file.metadata().context(|| "stat")?.is_file() {
        return Err(Error::new("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).context(|| "read")?;
    if bytes.len() as u64 > LONGEST {
        return Err(Error::new("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).context(|| "read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_file_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let read = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            Spec::read(&path).map_err(|error| error.one_line())
        };
        let with = |version: &str, kind: &str, devices: &str| {
            read("a.json", &format!(r#"{{"cdiVersion":"{version}","kind":"{kind}","devices":{devices}}}"#))
        };
        let one = r#"[{"name":"0","containerEdits":{"hooks":null}}]"#;
        with("0.5.0", "a.b/c", one).unwrap();
        // tabs are white space in JSON
        read("b.json", "{\n\t\"cdiVersion\": \"0.5.0\",\n\t\"kind\": \"a/b\",\n\t\"devices\": [\n\t\t{\"name\": \"x\", \"containerEdits\": {}}]}")
            .unwrap();
        for (result, why) in [
            (with("9.0.0", "a/b", one), "cdiVersion \"9.0.0\": not one of 0.1.0"),
            (with("0.5.0", "a", one), "expected VENDOR/CLASS"),
            (with("0.5.0", "a/b", "[]"), "it has no devices"),
            (with("0.5.0", "a/b", r#"[{"name":"-","containerEdits":{}}]"#), "not the name of a device"),
            (with("0.5.0", "a/b", &format!("[{0},{0}]", &one[1..one.len() - 1])), "there twice"),
            (with("0.5.0", "a/b", r#"[{"name":"0"}]"#), "devices[0]: missing field `containerEdits`"),
            (with("0.5.0", "a/b", r#"[{"name":"0","containerEdits":{"magic":1}}]"#), "unknown field `magic`"),
            (with("0.5.0", "a/b", r#"[{"name":"0","containerEdits":{"env":["=x"]}}]"#), "expected NAME=VALUE"),
            (with("0.5.0", "a/b", r#"[{"name":"0","containerEdits":{"env":["é"]}}]"#), "expected NAME=VALUE"),
            (read("a.json", "{"), "not JSON"),
            (read("a.yaml", "- ]"), "not YAML"),
        ] {
            let line = result.map(drop).unwrap_err();
            assert!(line.contains(why), "{why}: {line}");
        }
    }

    #[test]
    fn only_regular_files_of_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let spec = r#"{"cdiVersion":"0.5.0","kind":"a/b","devices":[{"name":"x","containerEdits":{}}]}"#;
        let spec = |size: usize| format!("{spec}{}", " ".repeat(size - spec.len()));
        std::fs::write(at("longest.json"), spec(1 << 20)).unwrap();
        std::os::unix::fs::symlink("longest.json", at("link.json")).unwrap();
        for name in ["longest.json", "link.json"] {
            Spec::read(&at(name)).unwrap();
        }
        std::fs::write(at("longer.json"), spec((1 << 20) + 1)).unwrap();
        std::fs::write(at("bytes.json"), b"\xff").unwrap();
        rustix::fs::mkfifoat(rustix::fs::CWD, at("fifo.json"), Mode::RWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", at("zero.json")).unwrap();
        std::os::unix::fs::symlink("fifo.json", at("indirect.json")).unwrap();
        std::fs::create_dir(at("dir.json")).unwrap();
        for (name, why) in [
            ("longer.json", "larger than 1 MiB"),
            ("bytes.json", "utf-8"),
            ("fifo.json", "not a regular file"),
            ("indirect.json", "not a regular file"),
            ("zero.json", "not a regular file"),
            ("dir.json", "not a regular file"),
            ("missing.json", "No such file"),
        ] {
            let line = Spec::read(&at(name)).unwrap_err().one_line();
            assert!(line.contains(why), "{name}: {line}");
        }
    }
}

//! What people write on the command line, turned into the parts of manifests.

use std::path::{Component, Path};

use serde_json::{Map, Value, json};
use stage1::appc::{AcName, Isolator, Isolators, Mount, NameValue, Volume, VolumeKind, parse_bool};
use stage1::error::{Context, Error, Result};
use stage1::launch::env;

/// A host name as the kernel and RFC 1123 take it.
///
/// # Errors
/// It is none.
pub fn hostname(text: &str) -> Result<String> {
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        let ends = [bytes.first(), bytes.last()];
        bytes.len() <= 63
            && ends.iter().all(|end| end.is_some_and(u8::is_ascii_alphanumeric))
            && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
    };
    if text.len() <= 64 && text.split('.').all(is_label) {
        Ok(text.to_owned())
    } else {
        Err(Error::new(format!("host name {text:?}: use letters, digits, dashes and dots, 64 at most")))
    }
}

/// The parts of `name=value,name=value`; each name once, and only these.
fn parts<'a>(text: &'a str, allowed: &[&str]) -> Result<Vec<(&'a str, &'a str)>> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for part in text.split(',') {
        let (name, value) = part.split_once('=').context(|| format!("{part:?} is not NAME=VALUE"))?;
        if !allowed.contains(&name) {
            return Err(Error::new(format!("{name:?} is not one of {}", allowed.join(", "))));
        }
        if found.iter().any(|(other, _)| *other == name) {
            return Err(Error::new(format!("{name} is given twice")));
        }
        found.push((name, value));
    }
    Ok(found)
}

fn value<'a>(parts: &[(&str, &'a str)], name: &str) -> Option<&'a str> {
    parts.iter().find(|(other, _)| *other == name).map(|(_, value)| *value)
}

/// An absolute path without `..`, and without a line break.
fn absolute(text: &str) -> Result<String> {
    let path = Path::new(text);
    let plain = path.components().all(|component| matches!(component, Component::RootDir | Component::Normal(_)));
    if path.is_absolute() && plain && !text.contains(['\n', '\0']) {
        Ok(text.to_owned())
    } else {
        Err(Error::new(format!("{text:?} is not an absolute path without \"..\"")))
    }
}

/// Volumes of a pod, each written `NAME,kind=host,source=/x,readOnly=true,recursive=true` or
/// `NAME,kind=empty,mode=0755,uid=0,gid=0`. A host volume's source must exist.
///
/// # Errors
/// The first that can't be understood.
pub fn volumes(texts: &[String]) -> Result<Vec<Volume>> {
    let mut volumes: Vec<Volume> = Vec::new();
    for text in texts {
        let volume = volume(text).context(|| format!("volume {text:?}"))?;
        if volumes.iter().any(|other| other.name == volume.name) {
            return Err(Error::new(format!("two volumes are called {}", volume.name)));
        }
        volumes.push(volume);
    }
    Ok(volumes)
}

fn volume(text: &str) -> Result<Volume> {
    let (name, rest) = text.split_once(',').context(|| "it has a name and a kind: NAME,kind=host,source=/x")?;
    let name: AcName = name.parse()?;
    let parts = parts(rest, &["kind", "source", "readOnly", "recursive", "mode", "uid", "gid"])?;
    let get = |name: &str| value(&parts, name);
    let boolean = |name: &str| -> Result<Option<bool>> {
        get(name).map(|text| parse_bool(text).context(|| format!("{name}={text}: not a boolean"))).transpose()
    };
    let id = |name: &str| -> Result<Option<u32>> {
        get(name).map(|text| text.parse().context(|| format!("{name}={text}"))).transpose()
    };
    let kind = match get("kind") {
        Some("host") => VolumeKind::Host,
        Some("empty") => VolumeKind::Empty,
        other => return Err(Error::new(format!("kind={}: it is host or empty", other.unwrap_or("")))),
    };
    let others = if kind == VolumeKind::Host { ["mode", "uid", "gid"] } else { ["source", "recursive", "recursive"] };
    if let Some(other) = others.into_iter().find(|name| get(name).is_some()) {
        return Err(Error::new(format!("{other} does not go with this kind of volume")));
    }
    let source = get("source").map(absolute).transpose()?;
    if kind == VolumeKind::Host {
        let source = source.as_deref().context(|| "a host volume has a source")?;
        source_exists(source)?;
    }
    let mode = get("mode").map(|text| octal(text).map(|()| text.to_owned())).transpose()?;
    let read_only = boolean("readOnly")?;
    let recursive = boolean("recursive")?;
    let (uid, gid) = (id("uid")?, id("gid")?);
    Ok(Volume { name, kind, source, read_only, recursive, mode, uid, gid, other: Map::new() })
}

fn octal(text: &str) -> Result<()> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(()),
        _ => Err(Error::new(format!("mode={text}: not an octal number up to 7777"))),
    }
}

/// Whether `text` is the absolute path of a directory of the host.
///
/// # Errors
/// It is not.
pub fn directory(text: &str) -> Result<()> {
    match Path::new(&absolute(text)?).metadata().context(|| format!("{text:?}"))?.is_dir() {
        true => Ok(()),
        false => Err(Error::new(format!("{text:?} is not a directory"))),
    }
}

/// Whether a host volume can be mounted.
///
/// # Errors
/// Its source is not there.
pub fn source_exists(source: &str) -> Result<()> {
    Path::new(source).metadata().context(|| format!("the source {source:?}")).map(drop)
}

/// Mounts of an app, each written `volume=NAME,target=PATH`.
///
/// # Errors
/// The first that can't be understood.
pub fn mounts(texts: &[String]) -> Result<Vec<Mount>> {
    texts.iter().map(|text| mount(text).context(|| format!("mount {text:?}"))).collect()
}

fn mount(text: &str) -> Result<Mount> {
    let parts = parts(text, &["volume", "target"])?;
    let volume = value(&parts, "volume").context(|| "it names a volume: volume=NAME,target=PATH")?;
    let target = value(&parts, "target").context(|| "it has a target: volume=NAME,target=PATH")?;
    let path = absolute(target)?;
    Ok(Mount { volume: volume.parse()?, path, app_volume: None, other: Map::new() })
}

/// Variables, each written `NAME=VALUE`. The environment is a file of lines, so a value has no line break.
///
/// # Errors
/// The first that can't be taken.
pub fn environment(texts: &[String]) -> Result<Vec<NameValue>> {
    texts.iter().map(|text| variable(text).context(|| format!("variable {text:?}"))).collect()
}

fn variable(text: &str) -> Result<NameValue> {
    let (name, value) = text.split_once('=').context(|| "it is written NAME=VALUE")?;
    env::check(name, value)?;
    Ok(NameValue::new(name, value))
}

/// The isolators that an app is given on the command line.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Limits {
    /// How much memory it may use: 64M, 1Gi
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Above how much memory it is slowed down (cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory_high: Option<String>,
    /// How much swap it may use (cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// How much of the processors it may use: 500m, 1.5
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub cpu: Option<String>,
    /// Its share of the processors, against that of others
    #[arg(long, value_name = "NUMBER")]
    pub cpu_shares: Option<u64>,
    /// How many processes and threads it may have
    #[arg(long, value_name = "NUMBER")]
    pub pids: Option<u64>,
    /// Its share of the disks, against that of others: 1 to 10000
    #[arg(long, value_name = "NUMBER")]
    pub io_weight: Option<u64>,
    /// How soon the kernel ends it when memory runs out: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    /// The only capabilities it keeps: CAP_CHOWN,CAP_KILL
    #[arg(long, value_name = "CAPS", value_delimiter = ',')]
    pub caps_retain: Vec<String>,
    /// Capabilities it does not get
    #[arg(long, value_name = "CAPS", value_delimiter = ',', conflicts_with = "caps_retain")]
    pub caps_remove: Vec<String>,
    /// System calls it may or may not make: mode=retain|remove[,errno=NAME],CALL,…
    #[arg(long, value_name = "FILTER")]
    pub seccomp: Option<String>,
    /// It can't gain privileges, by setuid programs for example
    #[arg(long)]
    pub no_new_privileges: bool,
}

/// What is not restricted, at the operator's own risk.
#[derive(clap::Args, serde::Serialize, serde::Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Insecure {
    /// Neither hide kernel paths nor make them read-only
    #[arg(long)]
    pub disable_paths: bool,
    /// Keep all capabilities
    #[arg(long)]
    pub disable_capabilities_restriction: bool,
    /// No system call filter
    #[arg(long)]
    pub disable_seccomp: bool,
}

impl Insecure {
    /// As flags of an entrypoint.
    pub fn flags(self) -> Vec<String> {
        let flags = [
            (self.disable_paths, "--disable-paths"),
            (self.disable_capabilities_restriction, "--disable-capabilities-restriction"),
            (self.disable_seccomp, "--disable-seccomp"),
        ];
        flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()).collect()
    }

    /// What either leaves unrestricted.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            disable_paths: self.disable_paths || other.disable_paths,
            disable_capabilities_restriction: self.disable_capabilities_restriction
                || other.disable_capabilities_restriction,
            disable_seccomp: self.disable_seccomp || other.disable_seccomp,
        }
    }
}

/// `mode=retain|remove[,errno=NAME],CALL,…` as an isolator's name and value, as rkt's `--seccomp` has it.
fn seccomp(text: &str) -> Result<(&'static str, Value)> {
    let (mut name, mut errno, mut calls) = (None, None, Vec::new());
    for word in text.split(',') {
        match word.split_once('=') {
            Some(("mode", "retain")) => name = Some("os/linux/seccomp-retain-set"),
            Some(("mode", "remove")) => name = Some("os/linux/seccomp-remove-set"),
            Some(("errno", value)) => errno = Some(value),
            None if !word.is_empty() => calls.push(word),
            _ => {
                return Err(Error::new(format!("{word:?} is neither mode=retain, mode=remove, errno=NAME nor a call")));
            }
        }
    }
    let name = name.context(|| "mode=retain or mode=remove is missing")?;
    let mut value = json!({ "set": calls });
    if let Some(errno) = errno {
        value["errno"] = json!(errno);
    }
    Ok((name, value))
}

impl Limits {
    /// As isolators of a manifest.
    ///
    /// # Errors
    /// The first with a value that makes no sense.
    pub fn isolators(&self) -> Result<Vec<Isolator>> {
        let mut found = Vec::new();
        let mut add = |option: &str, name: &str, value: Value| -> Result<()> {
            let isolator = Isolator { name: name.into(), value, other: Map::new() };
            Isolators::parse(std::slice::from_ref(&isolator)).context(|| option.to_owned())?;
            found.push(isolator);
            Ok(())
        };
        if let Some(memory) = &self.memory {
            add("--memory", "resource/memory", json!({ "limit": memory }))?;
        }
        for (option, name, limit) in [
            ("--memory-high", "resource/memory-high", &self.memory_high),
            ("--memory-swap", "resource/memory-swap", &self.memory_swap),
        ] {
            if let Some(limit) = limit {
                add(option, name, json!({ "limit": limit }))?;
            }
        }
        if let Some(pids) = self.pids {
            add("--pids", "resource/pids", json!({ "limit": pids }))?;
        }
        if let Some(weight) = self.io_weight {
            add("--io-weight", "resource/io-weight", json!({ "weight": weight }))?;
        }
        if let Some(text) = &self.seccomp {
            let (name, value) = seccomp(text).context(|| format!("--seccomp {text:?}"))?;
            add("--seccomp", name, value)?;
        }
        if let Some(cpu) = &self.cpu {
            add("--cpu", "resource/cpu", json!({ "limit": cpu }))?;
        }
        if let Some(shares) = self.cpu_shares {
            add("--cpu-shares", "os/linux/cpu-shares", json!(shares))?;
        }
        if let Some(adjustment) = self.oom_score_adj {
            add("--oom-score-adj", "os/linux/oom-score-adj", json!(adjustment))?;
        }
        if !self.caps_retain.is_empty() {
            add("--caps-retain", "os/linux/capabilities-retain-set", json!({ "set": self.caps_retain }))?;
        }
        if !self.caps_remove.is_empty() {
            add("--caps-remove", "os/linux/capabilities-remove-set", json!({ "set": self.caps_remove }))?;
        }
        if self.no_new_privileges {
            add("--no-new-privileges", "os/linux/no-new-privileges", json!(true))?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volumes_are_read_as_rkt_writes_them() {
        let one = |text: &str| volumes(&[text.to_owned()]);
        let host = one("data,kind=host,source=/tmp,readOnly=true,recursive=false").unwrap().remove(0);
        assert_eq!((host.name.as_ref(), host.source.as_deref()), ("data", Some("/tmp")));
        assert_eq!((host.read_only, host.recursive), (Some(true), Some(false)));
        let empty = one("data,kind=empty,mode=1777,uid=5").unwrap().remove(0);
        assert_eq!((empty.mode.as_deref(), empty.uid, empty.gid), (Some("1777"), Some(5), None));
        for (bad, why) in [
            ("data", "a name and a kind"),
            ("data,kind=magic", "host or empty"),
            ("../x,kind=empty", "not a valid name"),
            ("data,kind=host", "has a source"),
            ("data,kind=host,source=/no/such/place", "No such file"),
            ("data,kind=host,source=tmp", "not an absolute path"),
            ("data,kind=host,source=/tmp/../etc", "not an absolute path"),
            ("data,kind=host,source=/tmp,mode=0700", "does not go with"),
            ("data,kind=empty,source=/tmp", "does not go with"),
            ("data,kind=empty,mode=9", "octal"),
            ("data,kind=empty,kind=host", "given twice"),
            ("data,kind=host,source=/tmp,readonly=true", "is not one of"),
            ("data,kind=host,source=/tmp,readOnly=perhaps", "not a boolean"),
        ] {
            let error = one(bad).unwrap_err().one_line();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let twice = volumes(&["a,kind=empty".to_owned(), "a,kind=empty".to_owned()]);
        assert!(twice.unwrap_err().one_line().contains("two volumes"));
    }

    #[test]
    fn seccomp_filters_are_read_as_rkt_writes_them() {
        let (name, value) = seccomp("mode=remove,errno=EACCES,chroot,@docker/default-blacklist").unwrap();
        assert_eq!(name, "os/linux/seccomp-remove-set");
        assert_eq!(value, json!({ "set": ["chroot", "@docker/default-blacklist"], "errno": "EACCES" }));
        for bad in ["", "chroot", "mode=banana,chroot", "mode=retain,,x", "mode=retain,what=x"] {
            assert!(seccomp(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn mounts_variables_limits_and_host_names() {
        assert_eq!(mounts(&["volume=v,target=/data".to_owned()]).unwrap()[0].path, "/data");
        for bad in ["volume=v", "target=/data", "volume=v,target=data", "volume=V,target=/d", "volume=v,target=/a/../b"]
        {
            assert!(mounts(&[bad.to_owned()]).is_err(), "{bad}");
        }
        assert_eq!(environment(&["A=b=c".to_owned()]).unwrap()[0].value, "b=c");
        for bad in ["A", "=b", "A=b\nB=c", "A\nB=c"] {
            let error = environment(&[bad.to_owned()]).unwrap_err().one_line();
            assert!(!error.contains('\n'), "{bad:?}");
        }
        let limits = Limits { memory: Some("banana".into()), ..Limits::default() };
        assert!(limits.isolators().unwrap_err().one_line().starts_with("--memory"));
        let limits = Limits { memory: Some("64M".into()), no_new_privileges: true, ..Limits::default() };
        assert_eq!(limits.isolators().unwrap().len(), 2);
        assert!(hostname("web-1.example.com").is_ok());
        for bad in ["", "-a", "a_b", "a..b", "a\nb", &"a".repeat(65)] {
            assert!(hostname(bad).is_err(), "{bad:?}");
        }
    }
}

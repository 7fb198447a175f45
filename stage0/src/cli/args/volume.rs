//! Volumes and mounts on the command line.

use std::path::Path;

use serde_json::Map;
use stage1::appc::{AcName, Mount, PROPAGATION, Volume, VolumeKind, parse_bool};
use stage1::error::{Context, Error, Result};

use crate::app::mounts::absolute;
use crate::fsutil::dir::must_exist;

/// Splits `name=value,name=value` into pairs; each allowed name at most once. A value may contain a comma unless
/// `NAME=` follows it.
fn parts<'a>(text: &'a str, allowed: &[&str]) -> Result<Vec<(&'a str, &'a str)>> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        // a part ends where the next one, NAME=…, begins
        let end = text
            .match_indices(',')
            .map(|(at, _)| at)
            .find(|at| text[at + 1..].split(',').next().is_some_and(|n| n.contains('=')));
        let (part, after) = end.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])));
        rest = after;
        let (name, value) = part.split_once('=').context(|| format!("expected NAME=VALUE, found {part:?}"))?;
        if !allowed.contains(&name) {
            return Err(Error::new(format!("unknown key {name:?}: expected {}", allowed.join(", "))));
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

/// Parses volumes of a pod, each `NAME,kind=host,source=/x,readOnly=true,recursive=true` or
/// `NAME,kind=empty,mode=0755,uid=0,gid=0`. A host volume's source must exist.
///
/// # Errors
/// A volume is invalid, or two have one name.
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
    let (name, rest) = text.split_once(',').context(|| "expected NAME,kind=host,source=PATH or NAME,kind=empty")?;
    let name: AcName = name.parse()?;
    let parts = parts(rest, &["kind", "source", "readOnly", "recursive", "propagation", "mode", "uid", "gid"])?;
    let get = |name: &str| value(&parts, name);
    let boolean = |name: &str| -> Result<Option<bool>> {
        get(name).map(|text| parse_bool(text).context(|| format!("{name}={text}: expected true or false"))).transpose()
    };
    let id = |name: &str| -> Result<Option<u32>> {
        get(name).map(|text| text.parse().context(|| format!("{name}={text}: expected a number"))).transpose()
    };
    let kind = match get("kind") {
        Some("host") => VolumeKind::Host,
        Some("empty") => VolumeKind::Empty,
        Some(other) => return Err(Error::new(format!("unknown kind {other:?}: expected host or empty"))),
        None => return Err(Error::new("kind is missing: expected kind=host or kind=empty")),
    };
    let others = if kind == VolumeKind::Host { ["mode", "uid", "gid"] } else { ["source", "recursive", "propagation"] };
    if let Some(other) = others.into_iter().find(|name| get(name).is_some()) {
        return Err(Error::new(format!(
            "{other} does not apply to a volume of kind {}",
            get("kind").unwrap_or_default()
        )));
    }
    let source = get("source").map(absolute).transpose()?;
    if kind == VolumeKind::Host {
        let source = source.as_deref().context(|| "source is missing: a host volume needs source=PATH")?;
        must_exist(source)?;
    }
    let mode = get("mode").map(|text| octal(text).map(|()| text.to_owned())).transpose()?;
    let read_only = boolean("readOnly")?;
    let recursive = boolean("recursive")?;
    let (uid, gid) = (id("uid")?, id("gid")?);
    let mut other = Map::new();
    other.extend(get("propagation").map(|word| (PROPAGATION.to_owned(), word.into())));
    let volume = Volume { name, kind, source, read_only, recursive, mode, uid, gid, other };
    volume.propagation()?;
    Ok(volume)
}

fn octal(text: &str) -> Result<()> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o7777 => Ok(()),
        _ => Err(Error::new(format!("mode={text}: expected an octal number up to 7777"))),
    }
}

/// Checks that `text` is the absolute path of a directory of the host.
///
/// # Errors
/// It is not one.
pub fn directory(text: &str) -> Result<()> {
    match Path::new(&absolute(text)?).metadata().context(|| format!("{text:?}"))?.is_dir() {
        true => Ok(()),
        false => Err(Error::new(format!("{text:?} is not a directory"))),
    }
}

/// Parses mounts of an app, each `volume=NAME,target=PATH`.
///
/// # Errors
/// A mount is invalid.
pub fn mounts(texts: &[String]) -> Result<Vec<Mount>> {
    texts.iter().map(|text| mount(text).context(|| format!("mount {text:?}"))).collect()
}

fn mount(text: &str) -> Result<Mount> {
    let parts = parts(text, &["volume", "target"])?;
    let volume = value(&parts, "volume").context(|| "volume is missing: expected volume=NAME,target=PATH")?;
    let target = value(&parts, "target").context(|| "target is missing: expected volume=NAME,target=PATH")?;
    // a relative path, or one with "..", is resolved in the app's root
    if target.is_empty() || target.contains(['\n', '\0']) {
        return Err(Error::new(format!("the target {target:?} is not a path")));
    }
    Ok(Mount { volume: volume.parse()?, path: target.to_owned(), app_volume: None, other: Map::new() })
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
            ("data", "expected NAME,kind=host"),
            ("data,kind=magic", "unknown kind \"magic\": expected host or empty"),
            ("data,readOnly=true", "kind is missing"),
            ("../x,kind=empty", "not a valid name"),
            ("data,kind=host", "needs source=PATH"),
            ("data,kind=host,source=/no/such/place", "the source \"/no/such/place\" does not exist"),
            ("data,kind=host,source=tmp", "not an absolute path"),
            ("data,kind=host,source=/tmp/../etc", "not an absolute path"),
            ("data,kind=host,source=/tmp,mode=0700", "mode does not apply to a volume of kind host"),
            ("data,kind=empty,source=/tmp", "source does not apply to a volume of kind empty"),
            ("data,kind=empty,mode=9", "octal"),
            ("data,kind=empty,kind=host", "given twice"),
            ("data,kind=host,source=/tmp,readonly=true", "unknown key"),
            ("data,kind=host,source=/tmp,readOnly=perhaps", "expected true or false"),
        ] {
            let error = one(bad).unwrap_err().one_line();
            assert!(error.contains(why), "{bad}: {error}");
        }
        let twice = volumes(&["a,kind=empty".to_owned(), "a,kind=empty".to_owned()]);
        assert!(twice.unwrap_err().one_line().contains("two volumes"));
    }

    #[test]
    fn mounts_are_read_as_rkt_writes_them() {
        assert_eq!(mounts(&["volume=v,target=/data".to_owned()]).unwrap()[0].path, "/data");
        assert_eq!(mounts(&["volume=v,target=../data".to_owned()]).unwrap()[0].path, "../data");
        for bad in ["volume=v", "target=/data", "volume=v,target=", "volume=V,target=/d", "volume=v,target=/a\nb"] {
            assert!(mounts(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}

//! Translates a pod's volumes and the mounts of its containers.

use std::collections::BTreeMap;
use std::fs::FileType;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use k8s_openapi::api::core::v1::{
    EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath, Volume as Declared, VolumeMount,
};
use serde_json::{Map, Value};
use stage1::appc::{AcName, Mount, Volume, VolumeKind};
use stage1::error::{Context, Error, Result};

use super::env::{self, Variables};
use super::plan::{HostPath, PodPlan};
use super::quantities;
use super::sources::{SourceKind, Sources};
use crate::store::Store;
use crate::volume::content::{Content, relative};
use crate::volume::name::VolumeName;
use crate::volume::named;

/// The default mode of the files of ConfigMaps and Secrets.
const USUAL_MODE: i32 = 0o644;

/// The volumes of a pod, by their names in the file.
pub type Volumes = BTreeMap<String, Volume>;

/// Translates one volume. Adds its claim, or its files of a ConfigMap or Secret, to the plan.
///
/// # Errors
/// The volume's kind is not supported, a field is invalid, or its path of the host or its ConfigMap or Secret does not
/// exist.
pub fn declare(
    store: &Store,
    declared: &mut Declared,
    sources: &Sources,
    fs_group: Option<u32>,
    plan: &mut PodPlan,
) -> Result<Volume> {
    let name: AcName = declared.name.parse()?;
    if let Some(host) = declared.host_path.take() {
        let source = host_path(&host, &mut plan.host_paths)?;
        return Ok(volume(name, VolumeKind::Host, Some(source)));
    }
    if let Some(mut empty) = declared.empty_dir.take() {
        return empty_dir(name, &mut empty, fs_group);
    }
    if let Some(claim) = declared.persistent_volume_claim.take() {
        let volume_name: VolumeName = claim.claim_name.parse().context(|| "persistentVolumeClaim.claimName")?;
        let source = named::source(store, &volume_name);
        let source = source.to_str().context(|| format!("{source:?} is not UTF-8"))?.to_owned();
        plan.claims.entry(volume_name).or_default();
        let read_only = claim.read_only;
        return Ok(Volume { read_only, ..volume(name, VolumeKind::Host, Some(source)) });
    }
    let (kind, source, items, mode, optional) = if let Some(map) = declared.config_map.take() {
        (SourceKind::Config, map.name, map.items, map.default_mode, map.optional)
    } else if let Some(secret) = declared.secret.take() {
        let source = secret.secret_name.context(|| "secret.secretName is missing")?;
        (SourceKind::Secret, source, secret.items, secret.default_mode, secret.optional)
    } else {
        return Err(Error::new(
            "unsupported volume: expected hostPath, emptyDir, configMap, secret or persistentVolumeClaim",
        ));
    };
    let optional = optional.unwrap_or(false);
    let values = sources.all(kind, &source, optional)?.cloned().unwrap_or_default();
    let files = files(&values, items, mode.unwrap_or(USUAL_MODE), optional).context(|| source)?;
    let content = Content { files, group: fs_group.unwrap_or(0) };
    let volume = content.as_volume();
    if !plan.contents.contains(&content) {
        plan.contents.push(content);
    }
    volume
}

fn volume(name: AcName, kind: VolumeKind, source: Option<String>) -> Volume {
    Volume { name, kind, source, read_only: None, recursive: None, mode: None, uid: None, gid: None, other: Map::new() }
}

fn empty_dir(name: AcName, empty: &mut EmptyDirVolumeSource, fs_group: Option<u32>) -> Result<Volume> {
    let mut other: Map<String, Value> = Map::new();
    let limit = empty.size_limit.take().map(|limit| quantities::bytes(&limit.0)).transpose()?;
    match empty.medium.take().as_deref() {
        None | Some("") => {
            if limit.is_some() {
                log::warn!("emptyDir {name}: sizeLimit has no effect without medium Memory");
            }
        }
        Some("Memory") => {
            other.insert(stage1::appc::MEDIUM.to_owned(), "memory".into());
            other.extend(limit.map(|limit| (stage1::appc::SIZE.to_owned(), limit.into())));
        }
        Some(medium) => return Err(Error::new(format!("emptyDir.medium {medium:?}: expected Memory or nothing"))),
    }
    // the mode that kubelets give it; with fsGroup, the setgid bit gives new files the group
    let (mode, gid) = if fs_group.is_some() { ("2777", fs_group) } else { ("0777", None) };
    Ok(Volume { mode: Some(mode.to_owned()), gid, other, ..volume(name, VolumeKind::Empty, None) })
}

/// Checks the path and its type. Adds a directory or file that the type says to make, and that does not exist, to
/// `new`.
fn host_path(host: &HostPathVolumeSource, new: &mut Vec<HostPath>) -> Result<String> {
    let path = Path::new(&host.path);
    let plain = path.components().all(|part| !matches!(part, std::path::Component::ParentDir));
    if !path.is_absolute() || !plain {
        return Err(Error::new(format!("hostPath {path:?} is not an absolute path without \"..\"")));
    }
    let wanted = host.type_.as_deref().unwrap_or_default();
    let is: fn(&FileType) -> bool = match wanted {
        "" => |_| true,
        "Directory" | "DirectoryOrCreate" => FileType::is_dir,
        "File" | "FileOrCreate" => FileType::is_file,
        "Socket" => FileTypeExt::is_socket,
        "CharDevice" => FileTypeExt::is_char_device,
        "BlockDevice" => FileTypeExt::is_block_device,
        other => return Err(Error::new(format!("unknown hostPath.type {other:?}"))),
    };
    if matches!(wanted, "DirectoryOrCreate" | "FileOrCreate") && !path.exists() {
        new.push(HostPath { path: path.to_owned(), is_directory: wanted == "DirectoryOrCreate" });
        return Ok(host.path.clone());
    }
    let kind = path.metadata().context(|| format!("hostPath {path:?}"))?.file_type();
    if is(&kind) { Ok(host.path.clone()) } else { Err(Error::new(format!("hostPath {path:?} is not a {wanted}"))) }
}

/// The files of a ConfigMap or Secret, with content and mode by path: of all keys, or of `items`.
fn files(
    values: &BTreeMap<String, Vec<u8>>,
    items: Option<Vec<KeyToPath>>,
    usual: i32,
    optional: bool,
) -> Result<BTreeMap<String, (Vec<u8>, u32)>> {
    let mode = |mode: i32| match u32::try_from(mode) {
        Ok(mode @ 0..=0o777) => Ok(mode),
        _ => Err(Error::new(format!("mode {mode} is not from 0 to 0777"))),
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        return values.iter().map(|(key, value)| Ok((relative(key)?, (value.clone(), mode(usual)?)))).collect();
    };
    let mut found = BTreeMap::new();
    for item in items {
        match values.get(&item.key) {
            Some(value) => {
                found.insert(relative(&item.path)?, (value.clone(), mode(item.mode.unwrap_or(usual))?));
            }
            None if optional => {}
            None => return Err(Error::new(format!("it has no key {:?}", item.key))),
        }
    }
    Ok(found)
}

/// Translates a container's volumeMounts. `variables` are those that subPathExpr may refer to.
///
/// # Errors
/// The pod has no such volume, a target is not an absolute path, or a subPath is invalid or of a volume in memory.
pub fn mounts(wanted: &mut Vec<VolumeMount>, volumes: &Volumes, variables: &Variables) -> Result<Vec<Mount>> {
    let mut found = Vec::new();
    for mount in wanted {
        let name = std::mem::take(&mut mount.name);
        let volume = volumes.get(&name).context(|| format!("volumeMounts: the pod has no volume {name:?}"))?;
        let path = std::mem::take(&mut mount.mount_path);
        if !path.starts_with('/') || path.contains(['\n', '\0', ':']) {
            return Err(Error::new(format!("volumeMounts: {path:?} is not an absolute path")));
        }
        let part = match (mount.sub_path.take(), mount.sub_path_expr.take()) {
            (Some(path), None) => Some(path),
            (None, Some(path)) => Some(env::expand(&path, variables)),
            (None, None) => None,
            _ => return Err(Error::new(format!("volumeMounts {name:?}: subPath and subPathExpr exclude each other"))),
        };
        let mut other = Map::new();
        if let Some(part) = part.filter(|part| !part.is_empty()) {
            if volume.memory()?.is_some() {
                return Err(Error::new(format!("volumeMounts {name:?}: subPath: not of an emptyDir in memory")));
            }
            let part = relative(&part).context(|| format!("volumeMounts {name:?}: subPath"))?;
            other.insert(stage1::appc::SUB_PATH.to_owned(), part.into());
        }
        let read_only = mount.read_only.take().filter(|read_only| *read_only).or(volume.read_only);
        let own = Volume { read_only, ..volume.clone() };
        found.push(Mount { volume: own.name.clone(), path, app_volume: Some(own), other });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_files() {
        let values = BTreeMap::from([("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]);
        let all = files(&values, None, 0o600, false).unwrap();
        assert_eq!(all["a"], (b"1".to_vec(), 0o600));
        let item = |key: &str, mode| KeyToPath { key: key.into(), path: format!("x/{key}"), mode };
        let some = files(&values, Some(vec![item("b", Some(0o444))]), 0o600, false).unwrap();
        assert_eq!(some, BTreeMap::from([("x/b".to_owned(), (b"2".to_vec(), 0o444))]));
        assert!(files(&values, Some(vec![item("c", None)]), 0o600, false).is_err());
        assert!(files(&values, Some(vec![item("c", None)]), 0o600, true).unwrap().is_empty());
        assert!(files(&values, None, 0o1777, false).is_err());
    }

    #[test]
    fn paths_of_the_host_are_of_the_kind_asked_for() {
        let base = tempfile::tempdir().unwrap();
        let path = |name: &str| base.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir(path("d")).unwrap();
        std::fs::write(path("f"), "").unwrap();
        let host = |name: &str, kind: &str| {
            let mut new = Vec::new();
            host_path(&HostPathVolumeSource { path: path(name), type_: Some(kind.to_owned()) }, &mut new).map(|_| new)
        };
        for (name, kind, there) in [
            ("d", "Directory", true),
            ("d", "DirectoryOrCreate", true),
            ("d", "", true),
            ("d", "File", false),
            ("d", "FileOrCreate", false),
            ("f", "FileOrCreate", true),
            ("f", "File", true),
            ("f", "Socket", false),
            ("f", "Banana", false),
            ("none", "", false),
            ("none", "Banana", false),
            ("none", "Directory", false),
        ] {
            assert_eq!(host(name, kind).ok(), there.then(Vec::new), "{name} {kind}");
        }
        for (name, kind, is_directory) in [("a/b", "DirectoryOrCreate", true), ("a/f", "FileOrCreate", false)] {
            let expected = HostPath { path: path(name).into(), is_directory };
            assert_eq!(host(name, kind).unwrap(), [expected], "{name}");
            assert!(!base.path().join("a").exists(), "nothing is made before the whole file is checked");
        }
        let device = HostPathVolumeSource { path: "/dev/null".into(), type_: Some("CharDevice".into()) };
        host_path(&device, &mut Vec::new()).unwrap();
        assert!(host_path(&HostPathVolumeSource { path: "/a/../b".into(), type_: None }, &mut Vec::new()).is_err());
    }
}

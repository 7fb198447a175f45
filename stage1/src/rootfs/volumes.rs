//! Resolving the volumes of an app from the manifests ([`resolve`]), and opening them ([`Opener`]). Host side.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::plan::{Volume, VolumeOptions, stat_source};
use super::{copy, memory};
use rustix::fs::OFlags;

use crate::appc::{self, AcName, App, MountPoint, RuntimeApp, VolumeKind};
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::sys::dir::{self, EntryKind};
use crate::sys::mount::{self, Propagation};

/// A volume and its mount target in an app.
#[derive(Clone, Debug, PartialEq)]
pub struct Mapping {
    /// The volume.
    pub volume: appc::Volume,
    /// Absolute path in the app, without `..` and symlinks.
    pub target: PathBuf,
    /// The part of the volume that is mounted, a relative path without `..`; `None` means the whole volume.
    pub part: Option<PathBuf>,
    /// Whether the app can't write to it.
    pub read_only: bool,
    /// Whether the manifests do not name it, and it exists only because the image has a mount point.
    pub implicit: bool,
}

/// Resolves an app's mounts and mount points to volumes of the pod, in the order in which they are to be mounted:
/// shorter targets first.
///
/// `place` resolves a path in the app's root to an absolute path without `..` and symlinks. A volume's own `readOnly`
/// takes precedence over that of the mount point. A mount point without a mount gets the pod's volume of its name, or a
/// new empty volume, unless it is inside another mounted volume.
///
/// # Errors
/// The pod lacks the volume of a mount, a target is not a path or is the root, or two volumes have the same target.
pub fn resolve(
    runtime: &RuntimeApp,
    app: &App,
    pod: &[appc::Volume],
    place: impl Fn(&Path) -> Result<PathBuf>,
) -> Result<Vec<Mapping>> {
    let target = |path: &str| target(path, &place);
    let find = |name: &str| pod.iter().find(|v| v.name.as_ref() == name);
    let points = app.mount_points.iter().map(|point| Ok((target(&point.path)?, point))).collect::<Result<Vec<_>>>()?;
    let mut out: Vec<Mapping> = Vec::new();
    for mount in &runtime.mounts {
        let volume = mount.app_volume.as_ref().or_else(|| find(mount.volume.as_ref()));
        let volume =
            volume.context(|| format!("app {}: the pod has no volume {:?}", runtime.name, mount.volume.as_ref()))?;
        let target = target(&mount.path)?;
        let point = points.iter().find(|(place, _)| *place == target).map(|(_, point)| *point);
        push(&mut out, volume, target, point, false)?;
        if let (Some(part), Some(mapping)) = (mount.sub_path()?, out.last_mut()) {
            mapping.part = Some(part.to_owned());
        }
    }
    let is_free = |out: &[Mapping], target: &Path| !out.iter().any(|m| m.target == target);
    for (target, point) in &points {
        if let Some(volume) = find(&point.name).filter(|_| is_free(&out, target)) {
            push(&mut out, volume, target.clone(), Some(point), false)?;
        }
    }
    for (index, (target, point)) in points.iter().enumerate() {
        if out.iter().any(|m| if m.implicit { m.target == *target } else { target.starts_with(&m.target) }) {
            continue;
        }
        let own = implicit_volume(&runtime.name, index)?;
        if find(own.name.as_ref()).is_some() {
            return Err(Error::new(format!("the volume name {} is reserved for an implicit volume", own.name)));
        }
        push(&mut out, &own, target.clone(), Some(point), true)?;
    }
    out.sort_by_key(|mapping| mapping.target.components().count());
    Ok(out)
}

fn push(
    out: &mut Vec<Mapping>,
    volume: &appc::Volume,
    target: PathBuf,
    point: Option<&MountPoint>,
    implicit: bool,
) -> Result<()> {
    if out.iter().any(|m| m.target == target) {
        return Err(Error::new(format!("two volumes are mounted on {target:?}: leave one of them out")));
    }
    let read_only = volume.read_only.unwrap_or(point.is_some_and(|p| p.read_only));
    out.push(Mapping { volume: volume.clone(), target, part: None, read_only, implicit });
    Ok(())
}

/// Resolves a mount target in the app's root.
fn target(path: &str, place: impl Fn(&Path) -> Result<PathBuf>) -> Result<PathBuf> {
    if path.is_empty() || path.contains('\0') {
        return Err(Error::new(format!("mount target {path:?} is not a path")));
    }
    let target = place(Path::new(path)).context(|| format!("mount target {path:?}"))?;
    if target == Path::new("/") {
        return Err(Error::new(format!("mount target {path:?} is the app's root: no volume can be mounted there")));
    }
    Ok(target)
}

/// Checks that the sources of all host volumes of a pod exist. Host side.
///
/// # Errors
/// A source does not exist, or its path can't be searched; the exit code is 1.
pub fn check_sources(pod: &[appc::Volume]) -> Result<()> {
    let host = pod.iter().filter(|volume| volume.kind == VolumeKind::Host);
    for source in host.filter_map(|volume| volume.source.as_deref()) {
        stat_source(Path::new(source)).map_err(|error| error.with_exit_code(1))?;
    }
    Ok(())
}

/// The implicit empty volume of the app's mount point `index`. Its name is unique in the pod.
fn implicit_volume(app: &AcName, index: usize) -> Result<appc::Volume> {
    let name = format!("{app}-implicit-{index}").parse()?;
    Ok(appc::Volume {
        name,
        kind: VolumeKind::Empty,
        source: None,
        read_only: None,
        recursive: None,
        mode: None,
        uid: None,
        gid: None,
        other: serde_json::Map::new(),
    })
}

/// Removes unfinished volumes that a killed `app-add` has left. Host side, in the pod directory, with the lock for
/// adding apps held.
///
/// # Errors
/// The directory of volumes can't be read, or a volume can't be removed.
pub fn sweep() -> Result<()> {
    let dir = Path::new(layout::SHARED_VOLUMES);
    let entries = match dir.read_dir() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.context(|| format!("read directory {dir:?}"))?,
    };
    for entry in entries {
        let path = entry.context(|| format!("read directory {dir:?}"))?.path();
        if path.to_str().is_some_and(|path| path.ends_with(layout::UNFINISHED_VOLUME)) {
            std::fs::remove_dir_all(&path).context(|| format!("remove {path:?}"))?;
        }
    }
    Ok(())
}

/// Opens the volumes of mappings. The directory of an `empty` volume is made when the first app uses it.
#[derive(Debug)]
pub struct Opener<'a> {
    /// The host id of the pod's root user.
    pub root_id: u32,
    /// The pod's user namespace, if it has its own.
    pub user_namespace: Option<OwnedFd>,
    /// The app's root file system.
    pub image: &'a OwnedFd,
    /// Whether the image was converted from Docker's format, in which an implicit volume starts as a copy of the
    /// image's content at its target.
    pub converted: bool,
}

impl Opener<'_> {
    /// Opens the volume of a mapping. Host side.
    ///
    /// # Errors
    /// The source does not exist, can't be made, or can't be mounted as the mapping says.
    pub fn open(&self, mapping: &Mapping) -> Result<Volume> {
        let volume = &mapping.volume;
        let describe = || format!("volume {}", volume.name);
        if volume.kind == VolumeKind::Empty
            && let Some(memory) = volume.memory()?
        {
            if mapping.part.is_some() {
                return Err(Error::new(format!("{}: a part of a volume in memory can't be mounted", describe())));
            }
            let options = memory::options(volume)?;
            return Ok(Volume::in_memory(&volume.name, &mapping.target, memory, options, mapping.read_only));
        }
        let (source, recursive) = match volume.kind {
            VolumeKind::Empty => (self.empty(mapping).context(describe)?, false),
            VolumeKind::Host => {
                let source = volume.source.as_deref().filter(|s| s.starts_with('/'));
                let source =
                    source.context(|| format!("volume {}: a host volume needs an absolute source", volume.name))?;
                (PathBuf::from(source), volume.recursive.unwrap_or(true))
            }
        };
        let read_only_below = volume.is_read_only_below();
        let propagation = self.propagation(mapping, &source, recursive, read_only_below).context(describe)?;
        let user_namespace = match volume.kind {
            // Its files are made with the host ids of the pod's users.
            VolumeKind::Empty => None,
            VolumeKind::Host if volume.has_host_ids() => None,
            VolumeKind::Host => self.user_namespace.as_ref().map(AsFd::as_fd),
        };
        let read_only = mapping.read_only;
        let options = VolumeOptions { read_only, read_only_below, recursive, propagation, user_namespace };
        match &mapping.part {
            None => Volume::open(&volume.name, &source, &mapping.target, options).context(describe),
            Some(part) => {
                let opened = part_of(&source, part, !mapping.read_only).context(describe)?;
                Volume::open_part(&volume.name, (&source.join(part), opened), &mapping.target, options)
                    .context(describe)
            }
        }
    }

    /// How mounts that are made later propagate. A later mount of the host propagates with the host's attributes: not
    /// to a volume that is read-only with all below it, because it may be writable.
    fn propagation(
        &self,
        mapping: &Mapping,
        source: &Path,
        recursive: bool,
        read_only_below: bool,
    ) -> Result<Propagation> {
        let all_read_only = mapping.read_only && read_only_below;
        let asked = match mapping.volume.propagation()? {
            None if recursive && !all_read_only => return Ok(Propagation::Slave),
            None | Some(Propagation::Private) => return Ok(Propagation::Private),
            Some(asked) => asked,
        };
        if all_read_only {
            return Err(Error::new(
                "a volume that is read-only with all mounts below it can only have the propagation private: later \
                 mounts could be writable",
            ));
        }
        let of_source = mount::propagation_of(source)?;
        if asked == Propagation::Shared && self.user_namespace.is_some() {
            return Err(Error::new("mounts of a pod with its own user namespace don't propagate to the host"));
        }
        if of_source == Propagation::Private || (asked, of_source) == (Propagation::Shared, Propagation::Slave) {
            let kind = if asked == Propagation::Shared { "shared" } else { "shared or slave" };
            return Err(Error::new(format!(
                "{source:?} is in a mount that is not {kind} on the host, so mounts don't propagate: see \
                 \"mount --make-rshared\""
            )));
        }
        Ok(asked)
    }

    /// The directory of an empty volume. A new one is made under another name and renamed, so that it appears complete.
    fn empty(&self, mapping: &Mapping) -> Result<PathBuf> {
        let path = layout::shared_volume(&mapping.volume.name);
        if path.try_exists().context(|| format!("stat {path:?}"))? {
            return Ok(path);
        }
        let parent = Path::new(layout::SHARED_VOLUMES);
        std::fs::create_dir_all(parent).context(|| format!("mkdir {parent:?}"))?;
        // The host manager's lock allows one `app-add` at a time, so an existing directory is left from a killed one.
        let new = layout::unfinished_volume(&mapping.volume.name);
        let made = self.fill(&new, mapping).and_then(|()| match std::fs::rename(&new, &path) {
            // An `app-add` of another app has made the volume meanwhile.
            Err(_) if path.is_dir() => std::fs::remove_dir_all(&new).context(|| format!("remove {new:?}")),
            other => other.context(|| format!("rename {new:?} to {path:?}")),
        });
        if let Err(error) = made {
            return match std::fs::remove_dir_all(&new) {
                Err(left) if left.kind() != std::io::ErrorKind::NotFound => {
                    Err(error).context(|| format!("{new:?} is left behind ({left})"))
                }
                _ => Err(error),
            };
        }
        Ok(path)
    }

    fn fill(&self, path: &Path, mapping: &Mapping) -> Result<()> {
        match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(|| format!("remove {path:?}"));
            }
            _ => {}
        }
        std::fs::DirBuilder::new().mode(0o700).create(path).context(|| format!("mkdir {path:?}"))?;
        if self.converted && mapping.implicit {
            let content = dir::try_open_in(self.image, &mapping.target, OFlags::RDONLY | OFlags::DIRECTORY)?;
            if let Some(content) = content {
                let copy = dir::open_dir_for_reading(path)?;
                return copy::tree(&content, &copy, None).context(|| format!("copy {:?} of the image", mapping.target));
            }
        }
        let volume = &mapping.volume;
        let id = |id: Option<u32>| id.unwrap_or(0).checked_add(self.root_id).context(|| "owner out of range");
        let (uid, gid, mode) = (id(volume.uid)?, id(volume.gid)?, volume.mode()?);
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).context(|| format!("chown({path:?}, {uid}:{gid})"))?;
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).context(|| format!("chmod({path:?}, {mode:o})"))
    }
}

/// Opens a part of a volume that apps can write to: symbolic links are resolved with the volume as the root, and never
/// lead out of it. With `make`, a missing part is made as a directory with the owner and the mode of the volume.
fn part_of(volume: &Path, part: &Path, make: bool) -> Result<OwnedFd> {
    let top = dir::open_dir(volume)?;
    if let Some(found) = dir::try_open_in(&top, part, OFlags::PATH)? {
        return Ok(found);
    }
    if !make {
        return Err(Error::new(format!("it has no {part:?}, and is read-only")));
    }
    let made = dir::create_in(&top, part, EntryKind::Directory)?;
    let like = rustix::fs::fstat(&top).context(|| format!("stat {volume:?}"))?;
    // Opened again, because fchown(2) and fchmod(2) do not work with O_PATH.
    let own = dir::open_in(&made, ".", OFlags::RDONLY | OFlags::DIRECTORY)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(like.st_uid), rustix::fs::Gid::from_raw(like.st_gid));
    rustix::fs::fchown(&own, Some(uid), Some(gid)).context(|| format!("chown {part:?} of {volume:?}"))?;
    let mode = rustix::fs::Mode::from_raw_mode(like.st_mode);
    rustix::fs::fchmod(&own, mode).context(|| format!("chmod {part:?} of {volume:?}"))?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::os::unix::fs::{MetadataExt, symlink};

    #[test]
    fn parts_of_a_volume_never_lead_out_of_it() {
        let base = tempfile::tempdir().unwrap();
        let (volume, outside) = (base.path().join("v"), base.path().join("outside"));
        std::fs::create_dir(&volume).unwrap();
        std::fs::create_dir(&outside).unwrap();
        std::fs::write(outside.join("secret"), "s").unwrap();
        symlink(&outside, volume.join("away")).unwrap();
        symlink("../outside", volume.join("up")).unwrap();
        symlink("/in", volume.join("link")).unwrap();
        std::fs::set_permissions(&volume, PermissionsExt::from_mode(0o2770)).unwrap();
        let id = |fd: OwnedFd| rustix::fs::fstat(&fd).unwrap().st_ino;
        let ino = |path: &str| volume.join(path).metadata().unwrap().ino();
        assert_eq!(id(part_of(&volume, Path::new("a/b"), true).unwrap()), ino("a/b"));
        assert_eq!(volume.join("a/b").metadata().unwrap().mode() & 0o7777, 0o2770);
        assert_eq!(id(part_of(&volume, Path::new("link"), true).unwrap()), ino("in"));
        assert!(part_of(&volume, Path::new("away/secret"), false).is_err());
        for way_out in ["away", "up"] {
            let opened = id(part_of(&volume, Path::new(way_out), true).unwrap());
            assert_ne!(opened, outside.metadata().unwrap().ino(), "{way_out}");
        }
        assert!(part_of(&volume, Path::new("none"), false).unwrap_err().one_line().contains("has no \"none\""));
        std::fs::write(volume.join("file"), "f").unwrap();
        assert_eq!(id(part_of(&volume, Path::new("file"), false).unwrap()), ino("file"));
        assert!(part_of(&volume, Path::new("file/x"), true).is_err());
    }

    fn mappings(
        runtime: serde_json::Value,
        app: serde_json::Value,
        pod: serde_json::Value,
    ) -> Result<Vec<(String, String, bool)>> {
        let mut whole = json!({"name": "a", "image": {"id": "x"}});
        whole["mounts"] = runtime;
        let runtime: RuntimeApp = crate::json::from_value(whole).unwrap();
        let app: App = crate::json::from_value(json!({"mountPoints": app})).unwrap();
        let pod: Vec<appc::Volume> = crate::json::from_value(pod).unwrap();
        // An image in which /var/run is a symlink.
        let place = |path: &Path| {
            let tmp = tempfile::tempdir().unwrap();
            std::fs::create_dir(tmp.path().join("var")).unwrap();
            std::os::unix::fs::symlink("/run", tmp.path().join("var/run")).unwrap();
            dir::canonical_in(dir::open_dir(tmp.path())?, path)
        };
        let found = resolve(&runtime, &app, &pod, place)?;
        Ok(found
            .into_iter()
            .map(|m| (m.volume.name.to_string(), m.target.display().to_string(), m.read_only))
            .collect())
    }

    #[test]
    fn mounts_then_points_then_implicit() {
        let found = mappings(
            json!([{"volume": "v", "path": "/data//x/"}]),
            json!([{"name": "p", "path": "/data/x", "readOnly": true}, {"name": "v2", "path": "/y", "readOnly": true}, {"name": "Z_z", "path": "/z"}]),
            json!([{"name": "v", "kind": "empty"}, {"name": "v2", "kind": "host", "source": "/", "readOnly": false}]),
        );
        let expected = [("v2", "/y", false), ("a-implicit-2", "/z", false), ("v", "/data/x", true)];
        assert_eq!(found.unwrap(), expected.map(|(a, b, c)| (a.to_owned(), b.to_owned(), c)));
    }

    #[test]
    fn by_depth_and_what_was_asked_for_is_not_hidden() {
        let volumes = || json!([{"name": "v", "kind": "empty"}, {"name": "w", "kind": "empty"}]);
        for (mounts, points, expected) in [
            (json!([["v", "/m/x"], ["w", "/m"]]), json!([]), &[("w", "/m"), ("v", "/m/x")][..]),
            (json!([["v", "/data/sub"]]), json!(["/data"]), &[("a-implicit-0", "/data"), ("v", "/data/sub")]),
            (json!([["v", "/data"]]), json!(["/data/sub"]), &[("v", "/data")]),
            (json!([["v", "/run/x"]]), json!(["/var/run"]), &[("a-implicit-0", "/run"), ("v", "/run/x")]),
            (json!([["v", "/run"]]), json!(["/var/run"]), &[("v", "/run")]),
            (json!([["v", "/var/run/x"], ["w", "/run"]]), json!([]), &[("w", "/run"), ("v", "/run/x")]),
            (json!([["v", "dir1"], ["w", "../../foo/./x"]]), json!([]), &[("v", "/dir1"), ("w", "/foo/x")]),
        ] {
            let list = |value: &serde_json::Value| value.as_array().cloned().unwrap();
            let mounts: Vec<_> = list(&mounts).iter().map(|m| json!({"volume": m[0], "path": m[1]})).collect();
            let points: Vec<_> = list(&points).iter().map(|p| json!({"name": "p", "path": p})).collect();
            let found = mappings(json!(mounts), json!(points), volumes()).unwrap();
            let found: Vec<_> = found.iter().map(|(name, target, _)| (name.as_str(), target.as_str())).collect();
            assert_eq!(found, expected, "{mounts:?} {points:?}");
        }
    }

    #[test]
    fn refusals() {
        let volumes = || json!([{"name": "v", "kind": "empty"}, {"name": "w", "kind": "empty"}]);
        for mounts in [
            json!([{"volume": "none", "path": "/x"}]),
            json!([{"volume": "v", "path": ""}]),
            json!([{"volume": "v", "path": "/"}]),
            json!([{"volume": "v", "path": "/a/../.."}]),
            json!([{"volume": "v", "path": "/run/x"}, {"volume": "w", "path": "/var/run/x"}]),
            json!([{"volume": "v", "path": "/x"}, {"volume": "w", "path": "/x/"}]),
        ] {
            assert!(mappings(mounts.clone(), json!([]), volumes()).is_err(), "{mounts}");
        }
    }
}

//! What devices add to an app.

use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use stage1::appc::NameValue;
use stage1::error::{Context, Error, Result};
use stage1::sys::mount::Propagation;

use super::spec::{DeviceNode, Edits, Hook, Mount};
use crate::app::mounts;
use crate::app::options::AddOptions;

/// What devices add to an app.
#[derive(Debug, Default, PartialEq)]
pub struct Additions {
    /// Variables.
    pub env: Vec<NameValue>,
    /// Supplementary groups.
    pub gids: Vec<u32>,
    /// Paths of the host.
    binds: Vec<Bind>,
}

/// A path of the host in an app.
#[derive(Clone, Debug, PartialEq)]
struct Bind {
    source: String,
    target: String,
    read_only: bool,
    /// With what is mounted below the source.
    recursive: bool,
    propagation: Option<Propagation>,
}

impl Additions {
    /// Adds these edits. Of two values of a variable, and of two things at one path, the later one counts.
    ///
    /// # Errors
    /// They ask for what is not supported, or for what this host does not have.
    pub(super) fn take(&mut self, edits: Edits) -> Result<()> {
        let Edits { env, device_nodes, net_devices, mounts, hooks, additional_gids, intel_rdt } = edits;
        if let Some(Hook { hook_name, path }) = hooks.first() {
            return Err(Error::new(format!(
                "it wants {path:?} to be run as its {hook_name} hook: podctl runs no OCI hooks, as they change the files of \
                 an OCI bundle, which its apps do not have"
            )));
        }
        if !net_devices.is_empty() {
            return Err(Error::new("netDevices: moving the host's network interfaces into a pod is not supported"));
        }
        if intel_rdt.is_some() {
            return Err(Error::new("intelRdt: resource control groups of processors are not supported"));
        }
        for text in env {
            // the file was checked
            let (name, value) = text.split_once('=').unwrap_or((&text, ""));
            self.env.retain(|old| old.name != name);
            self.env.push(NameValue::new(name, value));
        }
        let nodes = device_nodes.iter().map(of_node);
        for bind in nodes.chain(mounts.iter().map(of_mount)) {
            let bind = bind?;
            self.binds.retain(|old| old.target != bind.target);
            self.binds.push(bind);
        }
        // 0 stands for no group
        for gid in additional_gids.into_iter().filter(|gid| *gid != 0) {
            if !self.gids.contains(&gid) {
                self.gids.push(gid);
            }
        }
        Ok(())
    }

    /// Adds it to the options of an app; it takes precedence over what they have. With `host_ids` files keep the owners
    /// that they have on the host, also in a pod with ids of its own.
    ///
    /// # Errors
    /// A path gives no valid name of a volume.
    pub fn add_to(self, options: &mut AddOptions, host_ids: bool) -> Result<()> {
        for variable in self.env {
            options.env.retain(|old| old.name != variable.name);
            options.env.push(variable);
        }
        for Bind { source, target, read_only, recursive, propagation } in self.binds {
            let mut mount = mounts::host_named(mounts::name("cdi", &target)?, &target, &source, read_only);
            if let Some(volume) = &mut mount.app_volume {
                volume.recursive = Some(recursive);
            }
            // as other runtimes do, read-only is the mount itself
            let mount = mounts::with_ways(mount, propagation, read_only && recursive);
            options.mounts.retain(|old| old.path != target);
            options.mounts.push(if host_ids { mounts::with_host_ids(mount) } else { mount });
        }
        for gid in self.gids {
            if !options.supplementary_gids.contains(&gid) {
                options.supplementary_gids.push(gid);
            }
        }
        Ok(())
    }
}

fn absolute(path: &str) -> Result<()> {
    if path.starts_with('/') { Ok(()) } else { Err(Error::new(format!("the path {path:?} is not absolute"))) }
}

/// A device node of the host in the app. An app gets the host's own node, so that must be as the file describes it.
fn of_node(node: &DeviceNode) -> Result<Bind> {
    let source = node.host_path.as_ref().filter(|path| !path.is_empty()).unwrap_or(&node.path);
    let what = || format!("device node {source:?}");
    absolute(source)?;
    absolute(&node.path)?;
    let stat = Path::new(source).metadata().context(what)?;
    let file = stat.file_type();
    let kinds = [("c", file.is_char_device()), ("b", file.is_block_device()), ("p", file.is_fifo())];
    let kind = kinds.into_iter().find(|(_, is_it)| *is_it).map(|(kind, _)| kind);
    let kind = kind.context(|| format!("{}: it is not a device", what()))?;
    let number = (i64::from(rustix::fs::major(stat.rdev())), i64::from(rustix::fs::minor(stat.rdev())));
    let asked =
        node.kind.as_deref().filter(|asked| !asked.is_empty()).map(|asked| if asked == "u" { "c" } else { asked });
    if let Some(asked) = asked.filter(|asked| *asked != kind) {
        return Err(Error::new(format!("{}: it is of type {kind} on this host, not of {asked}", what())));
    }
    // without a major number both are the host's
    let asked = node.major.filter(|major| *major != 0 && kind != "p").map(|major| (major, node.minor.unwrap_or(0)));
    if let Some((major, minor)) = asked.filter(|asked| *asked != number) {
        let (own_major, own_minor) = number;
        return Err(Error::new(format!("{}: it is {own_major}:{own_minor} on this host, not {major}:{minor}", what())));
    }
    for (name, asked, has) in [
        ("mode", node.file_mode.map(|mode| mode & 0o7777), stat.mode() & 0o7777),
        ("uid", node.uid, stat.uid()),
        ("gid", node.gid, stat.gid()),
    ] {
        if let Some(asked) = asked.filter(|asked| *asked != has) {
            let shown = |number: u32| if name == "mode" { format!("{number:04o}") } else { number.to_string() };
            return Err(Error::new(format!(
                "{}: its {name} is {} on this host, not {}: an app gets the host's own node, so change that",
                what(),
                shown(has),
                shown(asked)
            )));
        }
    }
    let permissions = node.permissions.as_deref().unwrap_or("rwm");
    if let Some(other) = permissions.chars().find(|c| !"rwm".contains(*c)) {
        return Err(Error::new(format!("{}: permissions {permissions:?}: {other:?} is not r, w or m", what())));
    }
    let read_only = !permissions.contains('w') && !permissions.is_empty();
    Ok(Bind { source: source.clone(), target: node.path.clone(), read_only, recursive: false, propagation: None })
}

fn of_mount(mount: &Mount) -> Result<Bind> {
    let (source, target) = (mount.host_path.clone(), mount.container_path.clone());
    let what = || format!("mount of {source:?} at {target:?}");
    absolute(&source).and_then(|()| absolute(&target)).context(what)?;
    if let Some(kind) = mount.kind.as_deref().filter(|kind| !matches!(*kind, "" | "bind" | "none")) {
        return Err(Error::new(format!("{}: type {kind:?} is not supported: only paths of the host are", what())));
    }
    Path::new(&source).metadata().context(what)?;
    let (mut read_only, mut recursive, mut propagation) = (false, false, None);
    for option in &mount.options {
        match option.as_str() {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "bind" => {}
            "rbind" => recursive = true,
            "private" | "rprivate" => propagation = Some(Propagation::Private),
            "slave" | "rslave" => propagation = Some(Propagation::Slave),
            "shared" | "rshared" => propagation = Some(Propagation::Shared),
            // an app can use no device but those that it is given
            "nodev" => {}
            // what a mount has by default
            "suid" | "dev" | "exec" | "relatime" | "defaults" => {}
            other => return Err(Error::new(format!("{}: the option {other:?} is not supported", what()))),
        }
    }
    Ok(Bind { source, target, read_only, recursive, propagation })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn take(edits: serde_json::Value) -> Result<Additions> {
        let mut found = Additions::default();
        found.take(serde_json::from_value(edits).unwrap())?;
        Ok(found)
    }

    #[test]
    fn everything_is_added_and_takes_precedence() {
        let found = take(json!({
            "env": ["A=1", "B=2=3", "A=4"],
            "deviceNodes": [
                {"path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "permissions": "r"},
                {"path": "/dev/own", "hostPath": "/dev/null", "type": "u"},
            ],
            "mounts": [
                {"hostPath": "/etc", "containerPath": "/vendor", "options": ["ro", "rbind", "rprivate", "nodev"]},
                {"hostPath": "/usr", "containerPath": "/dev/zero"},
            ],
            "additionalGids": [0, 44, 7, 44],
        }))
        .unwrap();
        let mut options = AddOptions {
            env: vec![NameValue::new("A", "0"), NameValue::new("C", "c")],
            mounts: vec![
                mounts::host("/vendor", "/srv", false).unwrap(),
                mounts::host("/data", "/srv", false).unwrap(),
            ],
            supplementary_gids: vec![7],
            ..AddOptions::default()
        };
        found.add_to(&mut options, true).unwrap();
        let env: Vec<_> = options.env.iter().map(|one| (one.name.as_str(), one.value.as_str())).collect();
        assert_eq!(env, [("C", "c"), ("B", "2=3"), ("A", "4")]);
        let mounts: Vec<_> = options
            .mounts
            .iter()
            .map(|mount| {
                let volume = mount.app_volume.as_ref().unwrap();
                (mount.path.as_str(), volume.source.as_deref().unwrap(), volume.read_only.unwrap(), volume.recursive)
            })
            .collect();
        assert_eq!(
            mounts,
            [
                ("/data", "/srv", false, None),
                ("/dev/own", "/dev/null", false, Some(false)),
                ("/vendor", "/etc", true, Some(true)),
                ("/dev/zero", "/usr", false, Some(false)),
            ]
        );
        assert!(options.mounts[1..].iter().all(|mount| mount.app_volume.as_ref().unwrap().has_host_ids()));
        assert_eq!(options.supplementary_gids, [7, 44]);
    }

    #[test]
    fn what_can_not_be_had_is_refused() {
        let node = |more: serde_json::Value| {
            let mut node = json!({"path": "/dev/null"});
            node.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "deviceNodes": [node] })
        };
        let mount = |source: &str, more: serde_json::Value| {
            let mut mount = json!({"hostPath": source, "containerPath": "/x"});
            mount.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({ "mounts": [mount] })
        };
        for (edits, why) in [
            (json!({"hooks": [{"hookName": "createContainer", "path": "/bin/x", "args": []}]}), "runs no OCI hooks"),
            (json!({"netDevices": [{"hostInterfaceName": "eth1"}]}), "netDevices"),
            (json!({"intelRdt": {}}), "intelRdt"),
            (node(json!({"type": "b"})), "it is of type c on this host, not of b"),
            (node(json!({"major": 1, "minor": 4})), "it is 1:3 on this host, not 1:4"),
            (node(json!({"fileMode": 0o600})), "its mode is 0666 on this host, not 0600"),
            (node(json!({"gid": 7})), "its gid is 0 on this host, not 7"),
            (node(json!({"permissions": "rx"})), "'x' is not r, w or m"),
            (node(json!({"hostPath": "/etc/passwd"})), "it is not a device"),
            (node(json!({"hostPath": "/dev/no-such-device"})), "\"/dev/no-such-device\""),
            (node(json!({"path": "dev/x"})), "not absolute"),
            (mount("/no/such/file", json!({})), "mount of \"/no/such/file\" at \"/x\""),
            (mount("/etc", json!({"type": "tmpfs"})), "type \"tmpfs\""),
            (mount("/etc", json!({"options": ["nosuid"]})), "the option \"nosuid\""),
            (mount("etc", json!({})), "not absolute"),
        ] {
            let line = take(edits).unwrap_err().one_line();
            assert!(line.contains(why), "{why}: {line}");
        }
    }
}

//! The device policy of a pod: a fixed list of devices that it and its apps may use and make. Host side.
//!
//! With cgroup v1 the pod's cgroup has the list, and further devices of an app must be allowed there first. With v2 the
//! list is a BPF program on the pod's cgroup, which the program of an app's unit replaces for that app.

use std::path::Path;

use super::{PodCgroup, SLICE, Version};
use crate::error::{Context, Result};
use crate::sys::device_bpf;

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Character device.
    Character,
    /// Block device.
    Block,
}

/// A device that may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Kind of the device.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number; `None` means every one.
    pub minor: Option<u32>,
    /// Whether it may be written. Reading is always allowed.
    pub write: bool,
    /// Whether a node for it may be made: mknod(2).
    pub make: bool,
}

impl DeviceRule {
    /// The value of a unit's `DeviceAllow=`: systemd.resource-control(5).
    pub fn directive(&self) -> String {
        let (path, group) = match self.kind {
            DeviceKind::Character => ("/dev/char", "char"),
            DeviceKind::Block => ("/dev/block", "block"),
        };
        let access = self.access();
        match self.minor {
            // systemd reads the numbers from the path, which does not have to exist.
            Some(minor) => format!("{path}/{}:{minor} {access}", self.major),
            None => format!("{group}-{} {access}", self.major),
        }
    }

    /// The line for `devices.allow` of cgroup v1.
    fn line(&self) -> String {
        let kind = if self.kind == DeviceKind::Block { 'b' } else { 'c' };
        let minor = self.minor.map_or_else(|| "*".to_owned(), |minor| minor.to_string());
        format!("{kind} {}:{minor} {}", self.major, self.access())
    }

    fn access(&self) -> &'static str {
        match (self.write, self.make) {
            (false, false) => "r",
            (true, false) => "rw",
            (false, true) => "rm",
            (true, true) => "rwm",
        }
    }
}

/// The devices that every app may use: null, zero, full, random, urandom and tty, for which it may also make nodes; and
/// console, ptmx, all of devpts, and tun.
pub const CLOSED: [DeviceRule; 10] = [
    character(1, Some(3), true),
    character(1, Some(5), true),
    character(1, Some(7), true),
    character(1, Some(8), true),
    character(1, Some(9), true),
    character(5, Some(0), true),
    character(5, Some(1), false),
    character(5, Some(2), false),
    character(136, None, false),
    character(10, Some(200), false),
];

/// PID 1 may also make a node for tun, in the pod's /dev.
const OF_PID1: DeviceRule = character(10, Some(200), true);

const fn character(major: u32, minor: Option<u32>, make: bool) -> DeviceRule {
    DeviceRule { kind: DeviceKind::Character, major, minor, write: true, make }
}

impl PodCgroup {
    /// Restricts the pod to [`CLOSED`]. Called before there is a cgroup below the pod's.
    ///
    /// With cgroup v2 a host whose kernel can't do that gets a warning.
    ///
    /// # Errors
    /// The kernel refuses a rule of cgroup v1.
    pub(super) fn close_devices(&self) -> Result<()> {
        let rules = || CLOSED.iter().chain([&OF_PID1]);
        if let Some(dir) = self.devices_dir() {
            write(&dir, "devices.deny", "a")?;
            return rules().try_for_each(|rule| write(&dir, "devices.allow", &rule.line()));
        }
        let program: Vec<_> = rules().map(program_rule).collect();
        for (_, dir) in self.directories().filter(|(hierarchy, _)| hierarchy.version == Version::V2) {
            if let Err(error) = device_bpf::attach_device_program(&dir, &program) {
                log::warn!("this host can't restrict the devices of the pod itself: {}", error.one_line());
            }
        }
        Ok(())
    }

    /// Allows the pod devices beyond [`CLOSED`] that one of its apps may use; `None` means every device. Only cgroup v1
    /// needs that.
    ///
    /// # Errors
    /// The kernel refuses a rule.
    pub fn allow_devices(&self, rules: Option<&[DeviceRule]>) -> Result<()> {
        let Some(dir) = self.devices_dir() else { return Ok(()) };
        let lines: Vec<String> = match rules {
            Some(rules) => rules.iter().map(DeviceRule::line).collect(),
            None => ["c *:* rwm", "b *:* rwm"].map(str::to_owned).to_vec(),
        };
        // From the top down: the kernel refuses a rule that the cgroup above does not allow.
        for dir in [dir.clone(), dir.join(SLICE)].iter().filter(|dir| dir.is_dir()) {
            lines.iter().try_for_each(|line| write(dir, "devices.allow", line))?;
        }
        Ok(())
    }

    /// The pod's directory in the hierarchy of the devices controller of cgroup v1.
    fn devices_dir(&self) -> Option<std::path::PathBuf> {
        self.directories()
            .find(|(hierarchy, _)| hierarchy.controllers.iter().any(|c| c == "devices"))
            .map(|(_, dir)| dir)
    }
}

fn write(dir: &Path, file: &str, line: &str) -> Result<()> {
    let path = dir.join(file);
    std::fs::write(&path, line).context(|| format!("write {line:?} to {path:?}"))
}

fn program_rule(rule: &DeviceRule) -> device_bpf::DeviceRule {
    device_bpf::DeviceRule {
        block: rule.kind == DeviceKind::Block,
        major: rule.major,
        minor: rule.minor,
        write: rule.write,
        make: rule.make,
    }
}

//! The devices that a pod and its apps may use and make: a closed list, not systemd's own. Host side.
//!
//! On v1 the pod's own cgroup has the list, and what an app may use besides has to be allowed there first. On v2 it is
//! a program on the pod's cgroup, which the program of an app's unit takes the place of.

use std::path::Path;

use super::{PodCgroup, SLICE, Version};
use crate::error::{Context, Result};
use crate::sys::bpf;

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
    /// Kind of device.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number; all if absent.
    pub minor: Option<u32>,
    /// Reading is always allowed; this allows writing too.
    pub write: bool,
    /// Allows to make a node of it: mknod(2).
    pub make: bool,
}

impl DeviceRule {
    /// The value of a unit's `DeviceAllow=`.
    pub fn directive(&self) -> String {
        let (path, group) = match self.kind {
            DeviceKind::Character => ("/dev/char", "char"),
            DeviceKind::Block => ("/dev/block", "block"),
        };
        let access = self.access();
        match self.minor {
            // systemd reads the numbers from such a path; nothing needs to be there.
            Some(minor) => format!("{path}/{}:{minor} {access}", self.major),
            None => format!("{group}-{} {access}", self.major),
        }
    }

    /// A line of v1's devices.allow.
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

/// What every app may use: null, zero, full, random, urandom and tty, nodes of which it may make; and console, ptmx,
/// all of devpts, and tun.
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

/// What PID 1 needs besides, to fill the pod's /dev.
const OF_PID1: DeviceRule = character(10, Some(200), true);

const fn character(major: u32, minor: Option<u32>, make: bool) -> DeviceRule {
    DeviceRule { kind: DeviceKind::Character, major, minor, write: true, make }
}

impl PodCgroup {
    /// Closes the list of the pod's devices. To be called before there is a cgroup below the pod's.
    ///
    /// A host that can't do that is a warning.
    pub(super) fn close_devices(&self) -> Result<()> {
        let rules = || CLOSED.iter().chain([&OF_PID1]);
        if let Some(dir) = self.devices_dir() {
            write(&dir, "devices.deny", "a")?;
            return rules().try_for_each(|rule| write(&dir, "devices.allow", &rule.line()));
        }
        let program: Vec<_> = rules().map(program_rule).collect();
        for (_, dir) in self.directories().filter(|(hierarchy, _)| hierarchy.version == Version::V2) {
            if let Err(error) = bpf::attach_device_program(&dir, &program) {
                log::warn!("this host can't keep the pod itself from devices: {}", error.one_line());
            }
        }
        Ok(())
    }

    /// Lets the pod have what one of its apps may use beyond the closed list; `None` is any device.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn allow_devices(&self, rules: Option<&[DeviceRule]>) -> Result<()> {
        let Some(dir) = self.devices_dir() else { return Ok(()) };
        let lines: Vec<String> = match rules {
            Some(rules) => rules.iter().map(DeviceRule::line).collect(),
            None => ["c *:* rwm", "b *:* rwm"].map(str::to_owned).to_vec(),
        };
        // From the top down: a cgroup has no more than the one above it.
        for dir in [dir.clone(), dir.join(SLICE)].iter().filter(|dir| dir.is_dir()) {
            lines.iter().try_for_each(|line| write(dir, "devices.allow", line))?;
        }
        Ok(())
    }

    /// The pod's directory in v1's hierarchy of devices.
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

fn program_rule(rule: &DeviceRule) -> bpf::DeviceRule {
    bpf::DeviceRule {
        block: rule.kind == DeviceKind::Block,
        major: rule.major,
        minor: rule.minor,
        write: rule.write,
        make: rule.make,
    }
}

//! Sets of capabilities, by name and by number: capabilities(7).

use std::fmt;

use ::caps::Capability;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use Capability::*;

use crate::error::{Context, Result};
use crate::sys::procfs;

/// The capabilities of an app without a capability set: the 14 of appc.
const DEFAULT: CapSet = CapSet::of(&[
    CAP_AUDIT_WRITE,
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_FSETID,
    CAP_FOWNER,
    CAP_KILL,
    CAP_MKNOD,
    CAP_NET_RAW,
    CAP_NET_BIND_SERVICE,
    CAP_SETUID,
    CAP_SETGID,
    CAP_SETPCAP,
    CAP_SETFCAP,
    CAP_SYS_CHROOT,
]);

/// Further capabilities that a pod's systemd needs: for mounts, cgroups and namespaces (SYS_ADMIN), to halt (SYS_BOOT),
/// for limits (SYS_RESOURCE) and priorities (SYS_NICE) of services, for terminals (SYS_TTY_CONFIG), and to look at
/// processes of services (SYS_PTRACE).
const SUPERVISOR: CapSet =
    CapSet::of(&[CAP_SYS_ADMIN, CAP_SYS_BOOT, CAP_SYS_RESOURCE, CAP_SYS_NICE, CAP_SYS_TTY_CONFIG, CAP_SYS_PTRACE]);

/// A set of capabilities. Bit N is the capability with the number N, as in the kernel.
///
/// In JSON it is a list of names. The set of all capabilities, also those of later kernels, is `["all"]`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSet(u64);

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// Every capability, also those of later kernels.
    pub const ALL: Self = Self(u64::MAX);
    /// CAP_SYS_ADMIN only.
    pub const SYS_ADMIN: Self = Self::of(&[CAP_SYS_ADMIN]);

    /// The bounding set of the process with the PID `process`, or of this one for `self`: proc_pid_status(5).
    ///
    /// # Errors
    /// The process does not exist, or its status can't be read.
    pub fn bounding_of(process: &str) -> Result<Self> {
        let file = format!("/proc/{process}/status");
        let status = procfs::read(&file).context(|| format!("read {file}"))?;
        let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("CapBnd:")?.trim(), 16).ok());
        bits.map(Self).context(|| format!("{file} has no CapBnd"))
    }

    /// The capabilities of an app without a capability set.
    pub const fn app_default() -> Self {
        DEFAULT
    }

    /// The capabilities that a pod's systemd needs, and [`Self::app_default`].
    pub const fn supervisor() -> Self {
        SUPERVISOR.or(DEFAULT)
    }

    const fn of(capabilities: &[Capability]) -> Self {
        let (mut bits, mut at) = (0, 0);
        while at < capabilities.len() {
            bits |= 1 << capabilities[at] as u8;
            at += 1;
        }
        Self(bits)
    }

    /// Whether it has no capability.
    pub const fn is_empty(&self) -> bool {
        self.0 == 0
    }

    /// The set with these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// Its bits.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Parses names of capabilities, with or without `CAP_`, in upper or lower case.
    ///
    /// # Errors
    /// The first name that is not a capability.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.into_iter().try_fold(Self::EMPTY, |set, name| {
            let upper = name.to_ascii_uppercase();
            let full = if upper.starts_with("CAP_") { upper } else { format!("CAP_{upper}") };
            full.parse::<Capability>().map(|capability| Self(set.0 | capability.bitmask())).map_err(|_| name)
        })
    }

    /// Whether every capability of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The union of both sets.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The intersection of both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set without the capabilities of `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of the capabilities, with `CAP_`, in the order of their numbers. Numbers without a name are left out.
    pub fn names(self) -> impl Iterator<Item = String> {
        let mut named: Vec<Capability> = ::caps::all().into_iter().filter(|c| self.0 & c.bitmask() != 0).collect();
        named.sort_by_key(Capability::index);
        named.into_iter().map(|capability| capability.to_string())
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl Serialize for CapSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if *self == Self::ALL { serializer.collect_seq(["all"]) } else { serializer.collect_seq(self.names()) }
    }
}

impl<'de> Deserialize<'de> for CapSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        if names == ["all"] {
            return Ok(Self::ALL);
        }
        let set = Self::parse(names.iter().map(String::as_str));
        set.map_err(|name| D::Error::custom(format!("{name:?} is not a capability")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_agree_with_the_kernel_headers() {
        assert_eq!(CapSet::ALL.names().count(), 41);
        for (name, number) in
            [("CAP_CHOWN", 0), ("SETPCAP", 8), ("cap_net_raw", 13), ("SYS_ADMIN", 21), ("CAP_CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(CapSet::parse([name]), Ok(CapSet(1 << number)), "{name}");
        }
        // The mask of the default set of other container runtimes.
        assert_eq!(CapSet::app_default().bits(), 0xa804_25fb);
        assert_eq!(CapSet::parse(["CAP_KILL", "CAP_", "x"]), Err("CAP_"));
        assert_eq!(CapSet::parse(["CAP_CAP_KILL"]), Err("CAP_CAP_KILL"));
        assert_eq!(CapSet::parse(["äöü"]), Err("äöü"));
    }

    #[test]
    fn json() {
        let set = CapSet::parse(["NET_RAW", "KILL"]).unwrap();
        assert_eq!(serde_json::to_string(&set).unwrap(), r#"["CAP_KILL","CAP_NET_RAW"]"#);
        for set in [set, CapSet::ALL, CapSet::EMPTY, CapSet::app_default()] {
            let text = serde_json::to_string(&set).unwrap();
            assert_eq!(serde_json::from_str::<CapSet>(&text).unwrap(), set, "{text}");
        }
        assert_eq!(serde_json::to_string(&CapSet::ALL).unwrap(), r#"["all"]"#);
        assert!(serde_json::from_str::<CapSet>(r#"["all","KILL"]"#).is_err());
        assert!(serde_json::from_str::<CapSet>(r#"["CAP_NOPE"]"#).is_err());
    }
}

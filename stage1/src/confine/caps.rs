//! Sets of capabilities, by name and by number.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Names by number, without `CAP_`: capabilities(7), up to CAP_CHECKPOINT_RESTORE (40).
const NAMES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE \
    SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL \
    SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

/// What an app has when its manifest says nothing (appc: 14 capabilities).
const DEFAULT: &str = "AUDIT_WRITE CHOWN DAC_OVERRIDE FSETID FOWNER KILL MKNOD NET_RAW NET_BIND_SERVICE SETUID SETGID \
    SETPCAP SETFCAP SYS_CHROOT";

/// What a pod's systemd needs besides: mounts, cgroups and namespaces; the end of the pod; limits and priorities of
/// what it starts; terminals; whose the words are that the journal gets.
const SUPERVISOR: &str = "SYS_ADMIN SYS_BOOT SYS_RESOURCE SYS_NICE SYS_TTY_CONFIG SYS_PTRACE";

/// A set of capabilities, one bit a number, as the kernel keeps them.
///
/// Written as a list of names; the whole set, which includes capabilities that only a later kernel
/// knows, as `["all"]`.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct CapSet(u64);

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);
    /// Every capability, also those of later kernels.
    pub const ALL: Self = Self(u64::MAX);
    /// CAP_SYS_ADMIN alone.
    pub const SYS_ADMIN: Self = Self(1 << 21);

    /// What an app has when its manifest says nothing.
    pub fn app_default() -> Self {
        Self::parse(DEFAULT.split_ascii_whitespace()).unwrap_or_else(|_| unreachable!("a table of our own"))
    }

    /// What a pod's systemd needs, with what the apps have when their manifests say nothing.
    pub fn supervisor() -> Self {
        Self::parse(SUPERVISOR.split_ascii_whitespace())
            .unwrap_or_else(|_| unreachable!("a table of our own"))
            .or(Self::app_default())
    }

    /// The set of these bits.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// One bit a capability.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The set of these names: with or without `CAP_`, in either case.
    ///
    /// # Errors
    /// The first name that is not a capability.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, &'a str> {
        names.into_iter().try_fold(Self::EMPTY, |set, name| {
            let short = match name.get(..4) {
                Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
                _ => name,
            };
            let number = NAMES.split_ascii_whitespace().position(|known| known.eq_ignore_ascii_case(short));
            number.map(|n| Self(set.0 | 1 << n)).ok_or(name)
        })
    }

    /// True if every capability of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// In either set.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// In both sets.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// In this set and not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The names of this set, `CAP_` included; of numbers that have one.
    pub fn names(self) -> impl Iterator<Item = String> {
        let named = NAMES.split_ascii_whitespace().enumerate();
        named.filter(move |(n, _)| self.0 & 1 << n != 0).map(|(_, name)| format!("CAP_{name}"))
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
        assert_eq!(NAMES.split_ascii_whitespace().count(), 41);
        for (name, number) in
            [("CAP_CHOWN", 0), ("SETPCAP", 8), ("cap_net_raw", 13), ("SYS_ADMIN", 21), ("CAP_CHECKPOINT_RESTORE", 40)]
        {
            assert_eq!(CapSet::parse([name]), Ok(CapSet(1 << number)), "{name}");
        }
        // The mask that is known from other runtimes' containers.
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

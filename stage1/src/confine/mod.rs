//! The confinement of an app: computed from its isolators on the host side, applied to a process in the pod.
//!
//! The same [`Confinement`] applies to the app and to every command that enters it. [`Confinement::apply`] has two
//! steps; between them the caller may still access files as the app's user:
//!
//! 1. [`Confinement::become_user`]: not dumpable; umask 0022, no signal blocked or ignored; securebits 0; a new session
//!    keyring; resource limits; the bounding set reduced; groups, gid and uid set; the inheritable and ambient sets
//!    equal to the app's ambient capabilities.
//! 2. [`Confinement::seal`]: no-new-privileges, then the seccomp filter.
//!
//! After the second step the caller calls execve(2), which gives the process:
//!
//! | | uid 0 | another uid |
//! |---|---|---|
//! | bounding | the app's set | the app's set |
//! | effective, permitted | the app's set, as far as this process has it | the app's ambient set |
//! | inheritable, ambient | the app's ambient set | the app's ambient set |
//! | no-new-privileges | as the app asks; by default not set | as the app asks; by default set with a filter |
//!
//! The filter is loaded last, so that it can't forbid a system call of ours except execve: every retain set has execve,
//! and a remove set with execve is refused when the filter is computed. Without no-new-privileges the kernel demands
//! CAP_SYS_ADMIN for loading a filter. CAP_SYS_ADMIN is therefore kept until the exec, also over the change of user;
//! the exec removes it: execve(2) gives uid 0 its bounding set, which was reduced already, and another uid its ambient
//! set.

pub mod accounts;
mod bpf;
pub mod caps;
pub mod ids;
pub mod insecure;
pub mod profile;
pub mod rlimits;
pub mod seccomp;
mod tables;

use rustix::process::{Gid, Uid};
use serde::{Deserialize, Serialize};

use self::caps::CapSet;
use self::ids::Ids;
use self::insecure::InsecureOptions;
use self::rlimits::ResourceLimit;
use self::seccomp::Filter;
use crate::appc::{Isolators, SetMode};
use crate::error::{Context, Error, Result};
use crate::sys;

/// The ids of a process and its restrictions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// All its supplementary group ids.
    pub groups: Vec<u32>,
    /// The bounding set. For uid 0 it is also the effective and permitted set.
    pub capabilities: CapSet,
    /// The ambient set, a subset of the bounding set: the app has these capabilities as any user, and execve(2) keeps
    /// them.
    #[serde(default, skip_serializing_if = "CapSet::is_empty")]
    pub ambient: CapSet,
    /// Whether execve(2) can't give privileges: prctl(2), PR_SET_NO_NEW_PRIVS.
    pub no_new_privileges: bool,
    /// Whether the app asks that execve(2) can give privileges. Without that, a user other than 0 with a filter always
    /// has no-new-privileges.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_gain_privileges: bool,
    /// Resource limits.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<ResourceLimit>,
    /// Flags for loading the filter: seccomp(2).
    #[serde(default, skip_serializing_if = "is_zero")]
    pub seccomp_flags: u32,
    /// System call filter; `None` means that calls are not filtered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Filter>,
}

impl Confinement {
    /// Computes an app's confinement. Host side. Pure.
    ///
    /// # Errors
    /// A capability, system call, wildcard or error name is unknown, or no app could be started with the filter.
    pub fn compute(isolators: &Isolators, insecure: InsecureOptions, ids: &Ids) -> Result<Self> {
        let capabilities = if insecure.disable_capabilities { CapSet::ALL } else { capabilities(isolators)? };
        let (seccomp, seccomp_flags) = match &isolators.seccomp_program {
            _ if insecure.disable_seccomp => (None, 0),
            Some(program) => (Some(crate::json::from_value(program.filter.clone())?), program.flags),
            None => (Filter::compute(isolators.seccomp.as_ref(), capabilities)?, 0),
        };
        let can_gain_privileges = isolators.no_new_privileges == Some(false);
        let no_new_privileges = match isolators.no_new_privileges {
            Some(said) => said,
            None => ids.uid != 0 && seccomp.is_some(),
        };
        Ok(Self {
            uid: ids.uid,
            gid: ids.gid,
            groups: ids.groups.clone(),
            capabilities,
            ambient: ambient(isolators, capabilities)?,
            no_new_privileges,
            can_gain_privileges,
            limits: Vec::new(),
            seccomp_flags,
            seccomp,
        })
    }

    /// The same confinement with other ids, for a command that enters an app as another user.
    #[must_use]
    pub fn with_ids(mut self, ids: &Ids) -> Self {
        if self.uid != ids.uid {
            self.ambient = CapSet::EMPTY;
        }
        self.uid = ids.uid;
        self.gid = ids.gid;
        self.groups.clone_from(&ids.groups);
        self.no_new_privileges |= self.uid != 0 && self.seccomp.is_some() && !self.can_gain_privileges;
        self
    }

    /// Confines this process by [`Self::become_user`] and [`Self::seal`], right before an exec. Pod side.
    ///
    /// # Errors
    /// As [`Self::become_user`] and [`Self::seal`].
    pub fn apply(&self) -> Result<()> {
        self.become_user()?;
        self.seal()
    }

    /// The first step of [`Self::apply`]: everything but no-new-privileges and the filter. Pod side, in a process with
    /// one thread.
    ///
    /// # Errors
    /// The kernel refuses a call, for example for lack of a capability. The process is then partly confined, and must
    /// end.
    pub fn become_user(&self) -> Result<()> {
        sys::process::not_dumpable()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        sys::signal::reset()?;
        sys::process_attributes::reset_securebits()?;
        sys::seccomp::new_session_keyring()?;
        // Before the capabilities are dropped: raising a hard limit needs CAP_SYS_RESOURCE.
        self.limits.iter().try_for_each(ResourceLimit::set)?;
        sys::caps::limit_bounding_set(self.capabilities.bits())?;
        let for_filter = match self.seccomp.is_some() && !self.no_new_privileges {
            true => CapSet::SYS_ADMIN,
            false => CapSet::EMPTY,
        };
        let keep = if self.uid == 0 { self.capabilities } else { self.ambient }.or(for_filter);
        // Without it the change from uid 0 clears the permitted set. The exec resets it.
        rustix::thread::set_keep_capabilities(!keep.is_empty()).context(|| "prctl(PR_SET_KEEPCAPS)")?;
        self.set_ids()?;
        // A change of ids resets it to the value of /proc/sys/fs/suid_dumpable.
        sys::process::not_dumpable()?;
        sys::caps::lower_to(keep.bits())?;
        sys::caps::set_ambient(self.ambient.bits())
    }

    /// The second step of [`Self::apply`]: no-new-privileges, then the filter. Pod side.
    ///
    /// # Errors
    /// As [`Self::become_user`].
    pub fn seal(&self) -> Result<()> {
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).context(|| "prctl(PR_SET_NO_NEW_PRIVS)")?;
        }
        match &self.seccomp {
            None => Ok(()),
            Some(filter) => filter.load(self.seccomp_flags).context(|| match self.no_new_privileges {
                true => "seccomp filter",
                false => "seccomp filter (without no-new-privileges it needs CAP_SYS_ADMIN)",
            }),
        }
    }

    fn set_ids(&self) -> Result<()> {
        let gid = |id| Gid::from_raw(id);
        let groups: Vec<_> = self.groups.iter().copied().map(gid).collect();
        rustix::thread::set_thread_groups(&groups)
            .context(|| format!("setgroups of {} supplementary groups", groups.len()))?;
        let (user, group) = (Uid::from_raw(self.uid), gid(self.gid));
        rustix::thread::set_thread_res_gid(group, group, group).context(|| format!("setresgid({})", self.gid))?;
        rustix::thread::set_thread_res_uid(user, user, user).context(|| format!("setresuid({})", self.uid))
    }
}

/// The capabilities of an app: those of a retain set, the default set without those of a remove set, or the default
/// set.
pub(crate) fn capabilities(isolators: &Isolators) -> Result<CapSet> {
    let Some(set) = &isolators.capabilities else { return Ok(CapSet::app_default()) };
    let named = CapSet::parse(set.names.iter().map(String::as_str))
        .map_err(|name| Error::new(format!("capability set: {name:?} is not a capability (such as CAP_NET_RAW)")))?;
    Ok(match set.mode {
        SetMode::Retain => named,
        SetMode::Remove => CapSet::app_default().without(named),
    })
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The ambient set, which must be a subset of `bounding`.
fn ambient(isolators: &Isolators, bounding: CapSet) -> Result<CapSet> {
    let named = CapSet::parse(isolators.ambient.iter().map(String::as_str))
        .map_err(|name| Error::new(format!("ambient set: {name:?} is not a capability (such as CAP_NET_RAW)")))?;
    let beyond: Vec<String> = named.without(bounding).names().collect();
    if beyond.is_empty() {
        return Ok(named);
    }
    Err(Error::new(format!("ambient set: the app does not keep {}: retain it, too", beyond.join(", "))))
}

/// Reduces the bounding set of this process, and its permitted and effective sets, to `most`: no exec gives it others.
///
/// # Errors
/// This process lacks CAP_SETPCAP to reduce its bounding set.
pub fn limit_capabilities(most: CapSet) -> Result<()> {
    sys::caps::limit_bounding_set(most.bits())?;
    sys::caps::lower_to(most.bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appc::CapabilitySet;

    fn compute(mode: SetMode, names: &[&str]) -> Result<CapSet> {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let isolators = Isolators { capabilities: Some(CapabilitySet { mode, names }), ..Isolators::default() };
        Confinement::compute(&isolators, InsecureOptions::default(), &Ids::default()).map(|c| c.capabilities)
    }

    #[test]
    fn capability_sets() {
        assert_eq!(compute(SetMode::Retain, &["CAP_SYS_ADMIN"]).unwrap(), CapSet::SYS_ADMIN);
        assert_eq!(compute(SetMode::Retain, &[]).unwrap(), CapSet::EMPTY);
        let removed = compute(SetMode::Remove, &["CAP_MKNOD", "CAP_SYS_ADMIN"]).unwrap();
        assert_eq!(removed, CapSet::app_default().without(CapSet::parse(["MKNOD"]).unwrap()));
        assert!(compute(SetMode::Retain, &["CAP_BANANA"]).unwrap_err().one_line().contains("CAP_BANANA"));
    }

    #[test]
    fn ambient_capabilities_are_some_of_those_it_keeps() {
        let of = |names: &[&str], uid| {
            let ambient = names.iter().map(|&name| name.to_owned()).collect();
            let isolators = Isolators { ambient, ..Isolators::default() };
            Confinement::compute(&isolators, InsecureOptions::default(), &Ids { uid, ..Ids::default() })
        };
        let found = of(&["NET_BIND_SERVICE"], 33).unwrap();
        assert_eq!(found.ambient, CapSet::parse(["CAP_NET_BIND_SERVICE"]).unwrap());
        assert!(found.clone().with_ids(&Ids { uid: 34, ..Ids::default() }).ambient.is_empty());
        assert!(!found.with_ids(&Ids { uid: 33, gid: 7, ..Ids::default() }).ambient.is_empty());
        assert!(of(&["CAP_SYS_ADMIN"], 0).unwrap_err().one_line().contains("CAP_SYS_ADMIN"));
        assert!(of(&["CAP_BANANA"], 0).unwrap_err().one_line().contains("CAP_BANANA"));
    }

    #[test]
    fn filters_and_privileges() {
        let compute = |uid, no_new_privileges, insecure| {
            let isolators = Isolators { no_new_privileges, ..Isolators::default() };
            Confinement::compute(&isolators, insecure, &Ids { uid, ..Ids::default() }).unwrap()
        };
        let root = compute(0, None, InsecureOptions::default());
        assert!(root.seccomp.is_some() && !root.no_new_privileges);
        assert!(compute(0, Some(true), InsecureOptions::default()).no_new_privileges);
        assert!(compute(33, None, InsecureOptions::default()).no_new_privileges);
        let gains = compute(33, Some(false), InsecureOptions::default());
        assert!(gains.seccomp.is_some() && !gains.no_new_privileges);
        assert!(!gains.with_ids(&Ids { uid: 34, ..Ids::default() }).no_new_privileges);
        let open = compute(
            33,
            None,
            InsecureOptions { disable_seccomp: true, disable_capabilities: true, disable_paths: false },
        );
        assert_eq!((open.seccomp, open.no_new_privileges, open.capabilities), (None, false, CapSet::ALL));
        assert!(root.clone().with_ids(&Ids { uid: 7, ..Ids::default() }).no_new_privileges);
        assert!(!root.with_ids(&Ids { gid: 7, ..Ids::default() }).no_new_privileges);
    }
}

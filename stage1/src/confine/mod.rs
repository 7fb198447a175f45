//! What an app may do: computed from its isolators on the host side, applied to a process in the pod.
//!
//! One [`Confinement`] for the app itself and for everything that enters it. [`Confinement::apply`]
//! is two steps, between which the caller may still look at files as the app's user:
//!
//! 1. [`Confinement::become_user`]: not dumpable; umask 0022, signals as a new program expects them;
//!    securebits 0; a session keyring of its own; the bounding set cut; groups, gid and uid set; the
//!    inheritable and ambient sets empty.
//! 2. [`Confinement::seal`]: no-new-privileges, then the seccomp filter.
//!
//! After 2 only execve(2) is left to do. The exec then gives the process what was asked for:
//!
//! | | uid 0 | another uid |
//! |---|---|---|
//! | bounding | the app's set | the app's set |
//! | effective, permitted | the app's set, as far as this process had it | none |
//! | inheritable, ambient | those asked for | those asked for, effective and permitted as well |
//! | no-new-privileges | as asked | as asked; with a filter unless it is asked not to be |
//!
//! Why the filter comes after everything and yet can be loaded: without no-new-privileges the kernel
//! wants CAP_SYS_ADMIN for it. The effective set until the exec does not decide what the app gets:
//! execve(2) gives uid 0 its bounding set, which is cut already, and another uid its ambient set: so
//! CAP_SYS_ADMIN is kept up to the exec, also over the change of user, and gone with it. In this order no filter, however narrow, can forbid a call of ours, save execve, without
//! which no app could be started at all: every retain set has it, and a remove set that names it is
//! refused when the filter is computed.

pub mod accounts;
mod bpf;
pub mod caps;
pub mod ids;
pub mod insecure;
pub mod limits;
pub mod seccomp;
mod tables;

use rustix::process::{Gid, Uid};
use serde::{Deserialize, Serialize};

use self::caps::CapSet;
use self::ids::Ids;
use self::insecure::InsecureOptions;
use self::limits::ResourceLimit;
use self::seccomp::Filter;
use crate::appc::{Isolators, SetMode};
use crate::error::{Context, Error, Result};
use crate::sys;

/// Who a process is and what it may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Confinement {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Supplementary groups; all others are left, also as uid 0.
    pub groups: Vec<u32>,
    /// The bounding set, which for uid 0 is also what the process has.
    pub capabilities: CapSet,
    /// What the app has whatever its user and whatever it executes; a part of the bounding set.
    #[serde(default, skip_serializing_if = "CapSet::is_empty")]
    pub ambient: CapSet,
    /// No exec can gain privileges.
    pub no_new_privileges: bool,
    /// A user other than 0 can gain privileges in spite of a filter: that was asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub can_gain_privileges: bool,
    /// Limits of its processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<ResourceLimit>,
    /// System call filter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<Filter>,
}

impl Confinement {
    /// Computes an app's confinement, host side. Pure.
    ///
    /// # Errors
    /// A name that is not known, or sets that exclude each other.
    pub fn compute(isolators: &Isolators, insecure: InsecureOptions, ids: &Ids) -> Result<Self> {
        let capabilities = if insecure.disable_capabilities { CapSet::ALL } else { capabilities(isolators)? };
        let seccomp =
            if insecure.disable_seccomp { None } else { Filter::compute(isolators.seccomp.as_ref(), capabilities)? };
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
            seccomp,
        })
    }

    /// The same confinement for another user, as for a command that enters an app.
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

    /// Confines this process, pod side: [`Self::become_user`] and [`Self::seal`]. Exec next.
    ///
    /// # Errors
    /// As those two.
    pub fn apply(&self) -> Result<()> {
        self.become_user()?;
        self.seal()
    }

    /// First step of [`Self::apply`], pod side, by a process of one thread: all but the filter.
    ///
    /// # Errors
    /// The kernel refuses a step, for lack of a capability say. The process is confined in part then: it must end.
    pub fn become_user(&self) -> Result<()> {
        sys::process::not_dumpable()?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
        sys::signal::reset()?;
        sys::inherited::reset_securebits()?;
        sys::seccomp::new_session_keyring()?;
        // one above the hard limit that this process has takes CAP_SYS_RESOURCE
        self.limits.iter().try_for_each(ResourceLimit::set)?;
        sys::caps::limit_bounding_set(self.capabilities.bits())?;
        let for_filter = match self.seccomp.is_some() && !self.no_new_privileges {
            true => CapSet::SYS_ADMIN,
            false => CapSet::EMPTY,
        };
        let keep = if self.uid == 0 { self.capabilities } else { self.ambient }.or(for_filter);
        // Without this a change from uid 0 takes all. The exec takes it back.
        rustix::thread::set_keep_capabilities(!keep.is_empty()).context(|| "prctl(PR_SET_KEEPCAPS)")?;
        self.set_ids()?;
        // A change of ids may have set it back, as /proc/sys/fs/suid_dumpable says.
        sys::process::not_dumpable()?;
        sys::caps::lower_to(keep.bits())?;
        sys::caps::set_ambient(self.ambient.bits())
    }

    /// Second step of [`Self::apply`]: no-new-privileges, and the filter last.
    ///
    /// # Errors
    /// As [`Self::become_user`].
    pub fn seal(&self) -> Result<()> {
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).context(|| "prctl(PR_SET_NO_NEW_PRIVS)")?;
        }
        match &self.seccomp {
            None => Ok(()),
            Some(filter) => filter.load().context(|| match self.no_new_privileges {
                true => "seccomp filter",
                false => "seccomp filter (without no-new-privileges it needs CAP_SYS_ADMIN)",
            }),
        }
    }

    fn set_ids(&self) -> Result<()> {
        let gid = |id| Gid::from_raw(id);
        let groups: Vec<_> = self.groups.iter().copied().map(gid).collect();
        rustix::thread::set_thread_groups(&groups).context(|| format!("setgroups({:?})", self.groups))?;
        let (user, group) = (Uid::from_raw(self.uid), gid(self.gid));
        rustix::thread::set_thread_res_gid(group, group, group).context(|| format!("setresgid({})", self.gid))?;
        rustix::thread::set_thread_res_uid(user, user, user).context(|| format!("setresuid({})", self.uid))
    }
}

/// The default set; exactly a retain set; the default set without a remove set.
pub(crate) fn capabilities(isolators: &Isolators) -> Result<CapSet> {
    let Some(set) = &isolators.capabilities else { return Ok(CapSet::app_default()) };
    let named = CapSet::parse(set.names.iter().map(String::as_str))
        .map_err(|name| Error::new(format!("capability set: {name:?} is not a capability (such as CAP_NET_RAW)")))?;
    Ok(match set.mode {
        SetMode::Retain => named,
        SetMode::Remove => CapSet::app_default().without(named),
    })
}

/// The ambient set, which is a part of what the app may have.
fn ambient(isolators: &Isolators, may: CapSet) -> Result<CapSet> {
    let named = CapSet::parse(isolators.ambient.iter().map(String::as_str))
        .map_err(|name| Error::new(format!("ambient set: {name:?} is not a capability (such as CAP_NET_RAW)")))?;
    let beyond: Vec<String> = named.without(may).names().collect();
    if beyond.is_empty() {
        return Ok(named);
    }
    Err(Error::new(format!("ambient set: the app does not keep {}: retain it, too", beyond.join(", "))))
}

/// This process, and what it becomes, has at most these.
///
/// # Errors
/// It may not give up what it has.
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

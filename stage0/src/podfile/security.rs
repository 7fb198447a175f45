//! Translating a container's securityContext and resources to a user and isolators.

use k8s_openapi::api::core::v1::{Container, PodSecurityContext, SeccompProfile, SecurityContext};
use serde_json::{Map, Value, json};
use stage1::appc::Isolator;
use stage1::confine::caps::CapSet;
use stage1::error::{Error, Result};

use crate::app::options::AddOptions;

/// The defaults of a pod for all its containers.
#[derive(Debug, Default)]
pub struct Defaults {
    user: Option<i64>,
    group: Option<i64>,
    non_root: Option<bool>,
    seccomp: Option<SeccompProfile>,
    /// The GID of the group of its volumes.
    pub fs_group: Option<u32>,
    groups: Vec<u32>,
}

impl Defaults {
    /// Takes them from a pod's securityContext.
    ///
    /// # Errors
    /// A GID is out of range.
    pub fn take(context: &mut PodSecurityContext) -> Result<Self> {
        let groups = context.supplemental_groups.take().unwrap_or_default();
        let fs_group = context.fs_group.take().map(|id| number("fsGroup", id)).transpose()?;
        // only new volumes get the group, whatever the policy
        context.fs_group_change_policy = None;
        Ok(Self {
            user: context.run_as_user.take(),
            group: context.run_as_group.take(),
            non_root: context.run_as_non_root.take(),
            seccomp: context.seccomp_profile.take(),
            fs_group,
            groups: groups.into_iter().map(|id| number("supplementalGroups", id)).collect::<Result<_>>()?,
        })
    }
}

/// Sets the user, groups and isolators of a container. Returns whether to refuse to run it as root, and its
/// capabilities beyond the default set.
///
/// # Errors
/// The container is privileged, or has an invalid capability, id or seccompProfile.
pub fn apply(container: &mut Container, defaults: &Defaults, options: &mut AddOptions) -> Result<(bool, CapSet)> {
    let mut none = SecurityContext::default();
    let context = container.security_context.as_mut().unwrap_or(&mut none);
    if context.privileged.take() == Some(true) {
        return Err(Error::new(
            "securityContext.privileged is not supported; name what the container needs: capabilities.add, a hostPath of \
             type CharDevice, seccompProfile Unconfined",
        ));
    }
    let mut isolate = |name: &str, value: Value| {
        options.isolators.push(Isolator { name: name.to_owned(), value, other: Map::new() });
    };
    let mut extra = CapSet::EMPTY;
    if let Some(capabilities) = context.capabilities.take() {
        let set = capability_set(&capabilities.add.unwrap_or_default(), &capabilities.drop.unwrap_or_default())?;
        extra = set.without(CapSet::app_default());
        isolate("os/linux/capabilities-retain-set", json!({ "set": set.names().collect::<Vec<_>>() }));
    }
    if context.allow_privilege_escalation.take() == Some(false) {
        isolate("os/linux/no-new-privileges", json!(true));
    }
    if let Some(profile) = context.seccomp_profile.take().or_else(|| defaults.seccomp.clone()) {
        match profile.type_.as_str() {
            "RuntimeDefault" => {}
            "Unconfined" => isolate("os/linux/seccomp-retain-set", json!({ "set": ["@appc.io/all"] })),
            other => {
                return Err(Error::new(format!(
                    "unsupported seccompProfile type {other:?}: expected RuntimeDefault or Unconfined"
                )));
            }
        }
    }
    resources(container, &mut isolate)?;
    let context = container.security_context.as_mut().unwrap_or(&mut none);
    options.read_only_rootfs = context.read_only_root_filesystem.take().unwrap_or(false);
    let id = |name: &str, own: Option<i64>, pods: Option<i64>| {
        own.or(pods).map(|id| number(name, id).map(|id| id.to_string())).transpose()
    };
    options.user = id("runAsUser", context.run_as_user.take(), defaults.user)?;
    options.group = id("runAsGroup", context.run_as_group.take(), defaults.group)?;
    options.supplementary_gids = defaults.groups.iter().copied().chain(defaults.fs_group).collect();
    Ok((context.run_as_non_root.take().or(defaults.non_root).unwrap_or(false), extra))
}

fn number(name: &str, id: i64) -> Result<u32> {
    u32::try_from(id).map_err(|_| Error::new(format!("{name}: {id} is not an id")))
}

/// The default capabilities, without those in `drop`, with those in `add`.
fn capability_set(add: &[String], drop: &[String]) -> Result<CapSet> {
    let parse = |names: &[String]| -> Result<CapSet> {
        if names.iter().any(|name| name.eq_ignore_ascii_case("ALL")) {
            return Ok(CapSet::ALL);
        }
        let upper: Vec<String> = names.iter().map(|name| name.to_ascii_uppercase()).collect();
        CapSet::parse(upper.iter().map(String::as_str))
            .map_err(|name| Error::new(format!("securityContext.capabilities: {name:?} is not a capability")))
    };
    Ok(CapSet::app_default().without(parse(drop)?).or(parse(add)?))
}

/// Translates limits and requests of memory and CPU.
fn resources(container: &mut Container, isolate: &mut impl FnMut(&str, Value)) -> Result<()> {
    let Some(resources) = &mut container.resources else { return Ok(()) };
    for name in ["memory", "cpu"] {
        let mut value = Map::new();
        for (word, set) in [("limit", &mut resources.limits), ("request", &mut resources.requests)] {
            if let Some(quantity) = set.as_mut().and_then(|set| set.remove(name)) {
                value.insert(word.to_owned(), json!(quantity.0));
            }
        }
        if !value.is_empty() {
            isolate(&format!("resource/{name}"), Value::Object(value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_the_usual_ones_with_changes() {
        let set = |add: &[&str], drop: &[&str]| {
            let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
            capability_set(&owned(add), &owned(drop))
        };
        assert_eq!(set(&[], &[]).unwrap(), CapSet::app_default());
        let only = set(&["net_bind_service"], &["ALL"]).unwrap();
        assert_eq!(only.names().collect::<Vec<_>>(), ["CAP_NET_BIND_SERVICE"]);
        assert_eq!(set(&["CAP_CHOWN"], &["all"]).unwrap(), CapSet::parse(["CHOWN"]).unwrap());
        assert!(set(&["BANANA"], &[]).is_err());
    }
}

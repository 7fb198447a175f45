//! Warnings in the log of fields of a request that have no effect

use crate::api::ContainerConfig;

/// The fields of a container's configuration that are set and have no effect.
fn fields(config: &ContainerConfig) -> Vec<&'static str> {
    let linux = config.linux.as_ref();
    let context = linux.and_then(|linux| linux.security_context.as_ref());
    let resources = linux.and_then(|linux| linux.resources.as_ref());
    let all = [
        ("windows", config.windows.is_some()),
        // kubelets set 0 for every size that is not limited
        ("hugepage_limits", resources.is_some_and(|all| all.hugepage_limits.iter().any(|limit| limit.limit > 0))),
        ("selinux_options", context.is_some_and(|context| context.selinux_options.is_some())),
    ];
    all.into_iter().filter(|(_, is_set)| *is_set).map(|(name, _)| name).collect()
}

/// Warns of the fields that are set and have no effect.
pub(super) fn warn(called: &str, config: &ContainerConfig) {
    let found = fields(config);
    if !found.is_empty() {
        log::warn!("{called}: without effect: {}", found.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{HugepageLimit, LinuxContainerConfig};

    #[test]
    fn what_has_no_effect_is_named() {
        let with = |limit| {
            let resources = crate::api::LinuxContainerResources {
                hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit }],
                ..Default::default()
            };
            let linux = LinuxContainerConfig { resources: Some(resources), security_context: None };
            ContainerConfig { linux: Some(linux), ..ContainerConfig::default() }
        };
        assert!(fields(&with(0)).is_empty() && fields(&ContainerConfig::default()).is_empty());
        assert_eq!(fields(&with(1)), ["hugepage_limits"]);
    }
}

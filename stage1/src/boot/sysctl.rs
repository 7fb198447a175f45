//! Kernel parameters of a pod's own namespaces, from an annotation of its manifest: sysctl(8).

use std::collections::BTreeMap;
use std::path::Path;

use crate::appc::{self, PodManifest};
use crate::error::{Context, Error, Result};

/// Annotation of a pod: kernel parameters, as a JSON object of names and values: `{"net.core.somaxconn":"512"}`.
pub const SYSCTLS: &str = "podctl.io/sysctls";

/// The kernel parameters that a pod declares. Host side.
///
/// # Errors
/// The annotation is not valid, or names a parameter that does not belong to one of the pod's own namespaces.
pub(super) fn declared(pod: &PodManifest, own_network: bool, own_ipc: bool) -> Result<BTreeMap<String, String>> {
    let Some(text) = appc::find(&pod.annotations, SYSCTLS) else { return Ok(BTreeMap::new()) };
    let shown = || format!("the pod's annotation {SYSCTLS}");
    let sysctls: BTreeMap<String, String> = serde_json::from_str(text).context(shown)?;
    for name in sysctls.keys() {
        let is_path = name.contains('/') || name.split('.').any(str::is_empty);
        let is_own = if name.starts_with("net.") { own_network } else { own_ipc && is_of_ipc(name) };
        if is_path || !is_own {
            return Err(Error::new(format!("{}: {name:?} does not belong to a namespace of the pod", shown())));
        }
    }
    Ok(sysctls)
}

/// Whether a parameter belongs to an IPC namespace: ipc_namespaces(7).
fn is_of_ipc(name: &str) -> bool {
    let of_kernel = name.strip_prefix("kernel.");
    name.starts_with("fs.mqueue.")
        || of_kernel.is_some_and(|name| name == "sem" || name.starts_with("shm") || name.starts_with("msg"))
}

/// Sets kernel parameters of this process's namespaces, through /proc/sys. Pod side.
///
/// # Errors
/// The kernel does not know a parameter, or refuses its value.
pub(super) fn set(sysctls: &BTreeMap<String, String>) -> Result<()> {
    sysctls.iter().try_for_each(|(name, value)| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::write(&path, value).context(|| format!("set the kernel parameter {name} to {value:?}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::appc::NameValue;

    #[test]
    fn only_the_pods_own() {
        let with = |text: &str, net, ipc| {
            let annotations = vec![NameValue::new(SYSCTLS, text)];
            declared(&PodManifest { annotations, ..PodManifest::default() }, net, ipc)
        };
        let found =
            with(r#"{"net.core.somaxconn":"5","kernel.shmmax":"1","fs.mqueue.msg_max":"2"}"#, true, true).unwrap();
        assert_eq!(found.len(), 3);
        for (text, net, ipc) in [
            (r#"{"net.core.somaxconn":"5"}"#, false, true),
            (r#"{"kernel.sem":"5"}"#, true, false),
            (r#"{"kernel.panic":"5"}"#, true, true),
            (r#"{"net.../x":"5"}"#, true, true),
            ("[]", true, true),
        ] {
            assert!(with(text, net, ipc).is_err(), "{text}");
        }
        assert!(declared(&PodManifest::default(), false, false).unwrap().is_empty());
    }
}

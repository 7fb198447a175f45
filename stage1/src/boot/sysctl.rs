//! Kernel parameters of a pod's own namespaces: an annotation of its manifest.

use std::collections::BTreeMap;
use std::path::Path;

use crate::appc::{self, PodManifest};
use crate::error::{Context, Error, Result};

/// Annotation of a pod: kernel parameters, a JSON object of names and values, such as `{"net.core.somaxconn":"512"}`.
pub const SYSCTLS: &str = "podctl.io/sysctls";

/// Those that a pod declares. Host side.
///
/// # Errors
/// The annotation is damaged, or names one that would be the host's.
pub(super) fn declared(pod: &PodManifest, own_network: bool, own_ipc: bool) -> Result<BTreeMap<String, String>> {
    let Some(text) = appc::find(&pod.annotations, SYSCTLS) else { return Ok(BTreeMap::new()) };
    let shown = || format!("the pod's annotation {SYSCTLS}");
    let sysctls: BTreeMap<String, String> = serde_json::from_str(text).context(shown)?;
    for name in sysctls.keys() {
        let is_path = name.contains('/') || name.split('.').any(str::is_empty);
        let is_own = if name.starts_with("net.") { own_network } else { own_ipc && is_of_ipc(name) };
        if is_path || !is_own {
            return Err(Error::new(format!("{}: {name:?} is not the pod's own", shown())));
        }
    }
    Ok(sysctls)
}

/// What belongs to an IPC namespace: ipc_namespaces(7).
fn is_of_ipc(name: &str) -> bool {
    let of_kernel = name.strip_prefix("kernel.");
    name.starts_with("fs.mqueue.")
        || of_kernel.is_some_and(|name| name == "sem" || name.starts_with("shm") || name.starts_with("msg"))
}

/// Sets them: in the pod's namespaces, whose parameters /proc/sys shows to this process. Pod side.
///
/// # Errors
/// The kernel does not know one, or refuses its value.
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

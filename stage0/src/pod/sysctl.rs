//! Kernel parameters of a pod's own namespaces (sysctl(8)). An annotation of its manifest holds them as JSON.

use std::collections::BTreeMap;

use stage1::appc::{NameValue, PodManifest, find};
use stage1::boot::SYSCTLS;
use stage1::error::{Context, Error, Result};

/// The values of kernel parameters by name.
pub type Sysctls = BTreeMap<String, String>;

/// Fails unless the parameter belongs to a namespace of the pod.
///
/// # Errors
/// The name or the value is invalid, the parameter is the host's, or it is one of networking and the pod uses the
/// host's network.
pub fn check(name: &str, value: &str, network: Option<&str>) -> Result<()> {
    const OF_IPC: [&str; 8] = [
        "kernel.sem",
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let shown = || format!("{name:?}");
    if name.contains(['/', '\0']) || name.split('.').any(|part| matches!(part, "" | "..")) || value.contains('\n') {
        return Err(Error::new(format!("{} is not the name of a kernel parameter: net.ipv4.ip_forward=1", shown())));
    }
    match (name.starts_with("net."), network) {
        (true, Some("host")) => {
            Err(Error::new(format!("{}: the pod uses the host's network, whose parameters it can't set", shown())))
        }
        (true, _) => Ok(()),
        _ if OF_IPC.contains(&name) || name.starts_with("fs.mqueue.") => Ok(()),
        _ => Err(Error::new(format!(
            "{} is the host's: a pod has net.*, kernel.sem, kernel.msg*, kernel.shm* and fs.mqueue.* for itself",
            shown()
        ))),
    }
}

/// The annotation with these parameters; `None` if there are none.
///
/// # Errors
/// They can't be written as JSON.
pub fn annotation(sysctls: &Sysctls) -> Result<Option<NameValue>> {
    if sysctls.is_empty() {
        return Ok(None);
    }
    let text = serde_json::to_string(sysctls).context(|| "write the kernel parameters")?;
    Ok(Some(NameValue::new(SYSCTLS, text)))
}

/// The parameters in a pod's manifest.
///
/// # Errors
/// The annotation is damaged.
pub fn of(manifest: &PodManifest) -> Result<Sysctls> {
    let text = find(&manifest.annotations, SYSCTLS);
    text.map_or(Ok(Sysctls::new()), |text| serde_json::from_str(text).context(|| format!("annotation {SYSCTLS}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_pod_has_for_itself() {
        for good in ["net.ipv4.ip_unprivileged_port_start", "kernel.shmmax", "kernel.sem", "fs.mqueue.msg_max"] {
            check(good, "1", None).unwrap();
        }
        for bad in ["kernel.panic", "vm.swappiness", "", "net..x", "net/ipv4", "fs.file-max", "kernel.msg"] {
            assert!(check(bad, "1", None).is_err(), "{bad}");
        }
        assert!(check("net.core.somaxconn", "1", Some("host")).is_err());
        assert!(check("kernel.sem", "1\n2", None).is_err());
        let sysctls = Sysctls::from([("kernel.sem".into(), "1 2 3 4".into())]);
        let manifest =
            PodManifest { annotations: annotation(&sysctls).unwrap().into_iter().collect(), ..PodManifest::default() };
        assert_eq!(of(&manifest).unwrap(), sysctls);
    }
}

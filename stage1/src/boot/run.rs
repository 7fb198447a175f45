//! What the entrypoint `run` does with a prepared pod directory: CONTRACT section 3. Host side.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::apps::Apps;
use super::{IdShift, Monitor, Spec, launch};
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::pod::{self, Lock, Pod, RuntimeConfig, write_atomic};
use crate::sys::process;

/// The number of the descriptor that holds the pod's lock, in this variable.
const LOCK_FD: &str = "RKT_LOCK_FD";

/// What `run` is told: the settings that later entrypoints need too, and those that only it does.
#[derive(Debug)]
pub struct Run {
    /// The pod's UUID.
    pub uuid: String,
    /// Kept in the pod's `runtime-config`.
    pub config: RuntimeConfig,
}

impl Run {
    /// Runs the pod in the current directory until it ends. Returns the pod's exit code.
    pub fn run(mut self) -> Result<u8> {
        // Held until this process ends, which is after all the pod's processes have.
        let _lock = adopt_lock()?;
        self.uuid = pod::check_uuid(&self.uuid)?;
        let pod = Pod::load(Path::new("."))?;
        self.config.mutable |= pod.manifest.is_mutable()?;
        let spec = self.spec(&pod)?;
        check_interactive(&self.config, &pod)?;
        provide_name_files(&self.config)?;
        self.config.hostname.clone_from(&spec.hostname);
        if let Some(url) = metadata_url(&self.config.mds_token, spec.own_network)? {
            self.config.metadata_service_url = url;
        }
        self.config.save(Path::new("."))?;
        let apps = if self.config.mutable { None } else { Some(Apps::new(&pod, spec.private_users)?) };
        let mut monitor = launch(&spec).context(|| format!("start pod {}", self.uuid))?;
        if let Some(apps) = apps {
            monitor.supervise(apps);
        }
        match record(&monitor).and_then(|()| monitor.bound_output()) {
            Ok(()) => monitor.watch(),
            Err(error) => {
                monitor.abort()?;
                Err(error)
            }
        }
    }

    fn spec(&self, pod: &Pod) -> Result<Spec> {
        let hostname = match self.config.hostname.as_str() {
            "" => format!("rkt-{}", self.uuid),
            name => name.to_owned(),
        };
        check_hostname(&hostname)?;
        let own_ipc = match self.config.ipc_mode.as_str() {
            "" | "auto" | "private" => true,
            "parent" => false,
            other => return Err(Error::new(format!("--ipc={other}: use auto, private or parent"))),
        };
        let private_users: Option<IdShift> =
            Some(self.config.private_users.as_str()).filter(|ids| !ids.is_empty()).map(str::parse).transpose()?;
        let own_network = own_network(&self.config.net_list)?;
        Ok(Spec {
            uuid: self.uuid.clone(),
            hostname,
            own_network,
            own_ipc,
            private_users,
            debug: self.config.debug,
            interactive: self.config.interactive,
            journal_max_size: super::journal::max_size(&pod.manifest)?,
        })
    }
}

/// There is one terminal, and it is an app's from its start to its end.
fn check_interactive(config: &RuntimeConfig, pod: &Pod) -> Result<()> {
    let apps = pod.manifest.apps.len();
    match config.interactive {
        true if config.mutable => Err(Error::new("--interactive does not go with --mutable")),
        true if apps != 1 => Err(Error::new(format!("--interactive is for pods with one app: this one has {apps}"))),
        _ => Ok(()),
    }
}

/// Takes the pod's lock over from the host manager.
fn adopt_lock() -> Result<Lock> {
    let text =
        std::env::var(LOCK_FD).context(|| format!("{LOCK_FD} is not set: `run` is executed by a host manager"))?;
    let number = text.parse().context(|| format!("{LOCK_FD}={text:?} is not a descriptor number"))?;
    let fd: OwnedFd = process::adopt_fd(number).context(|| format!("{LOCK_FD}={text}"))?;
    Lock::adopt(fd, Path::new("."))
}

/// Whether the pod has a network of its own: `none` gives it one with the loopback interface alone.
fn own_network(networks: &[String]) -> Result<bool> {
    match networks {
        [] => Ok(true),
        [one] if one == "none" => Ok(true),
        [one] if one == "host" => Ok(false),
        other => Err(Error::new(format!("--net={}: use host or none", other.join(",")))),
    }
}

/// Where an app finds the host's metadata service: on the host's own network on its loopback address, at the port
/// that all host managers of the family use. Without a way to the host there is none.
fn metadata_url(token: &str, own_network: bool) -> Result<Option<String>> {
    if !token.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
        return Err(Error::new(format!("--mds-token={token:?}: not a token")));
    }
    Ok((!token.is_empty() && !own_network).then(|| format!("http://127.0.0.1:18112/{token}")))
}

/// A host name that the kernel takes and that means the same everywhere: hostname(7).
fn check_hostname(name: &str) -> Result<()> {
    let fits = name.len() <= 64
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        });
    if fits {
        Ok(())
    } else {
        Err(Error::new(format!("{name:?} is not a host name: letters, digits, dashes and dots, 64 at most")))
    }
}

/// Puts the host's resolv.conf and hosts file where the apps get them from, as the modes say.
fn provide_name_files(config: &RuntimeConfig) -> Result<()> {
    let host_network = !own_network(&config.net_list)?;
    let resolv = layout::resolv_conf();
    match config.resolv_conf_mode.as_str() {
        "host" => copy("/etc/resolv.conf", &resolv)?,
        "" | "default" if host_network && !resolv.exists() => copy("/etc/resolv.conf", &resolv)?,
        "" | "default" | "stage0" | "none" => {}
        other => return Err(Error::new(format!("--dns-conf-mode=resolv={other}: use host, stage0, none or default"))),
    }
    match config.etc_hosts_mode.as_str() {
        "host" => copy("/etc/hosts", &layout::hosts()),
        "" | "default" | "stage0" => Ok(()),
        other => Err(Error::new(format!("--dns-conf-mode=hosts={other}: use host, stage0 or default"))),
    }
}

fn copy(from: &str, to: &Path) -> Result<()> {
    let text = match pod::read_bounded(Path::new(from), pod::MAX_MANIFEST) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        text => text?,
    };
    let (dir, name) = crate::sys::dir::split(to)?;
    write_atomic(dir, &name.to_string_lossy(), &text, 0o644)
}

/// Tells the host where the pod is: first its cgroup, then its PID.
fn record(monitor: &Monitor) -> Result<()> {
    let here = Path::new(".");
    let cgroup = monitor.cgroup().path().to_string_lossy();
    write_atomic(here, layout::SUBCGROUP, cgroup.as_bytes(), 0o644)?;
    write_atomic(here, layout::PID, format!("{}\n", monitor.pid()).as_bytes(), 0o644)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        for good in ["rkt-0123abcd-0000-4000-8000-0123456789ab", "a.b", "X1"] {
            check_hostname(good).unwrap();
        }
        for bad in ["", "a b", "-a", "a-", "a..b", "a\n", "ä", &"x".repeat(65)] {
            assert!(check_hostname(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn metadata_service() {
        assert_eq!(metadata_url("a1", false).unwrap().as_deref(), Some("http://127.0.0.1:18112/a1"));
        assert_eq!((metadata_url("a1", true).unwrap(), metadata_url("", false).unwrap()), (None, None));
        assert!(metadata_url("a\nb", false).is_err() && metadata_url("a/b", false).is_err());
    }

    #[test]
    fn networks() {
        let own = |list: &[&str]| own_network(&list.iter().map(|&s| s.to_owned()).collect::<Vec<_>>());
        assert!(own(&[]).unwrap() && own(&["none"]).unwrap() && !own(&["host"]).unwrap());
        assert!(own(&["default"]).is_err() && own(&["host", "none"]).is_err());
    }
}

//! The work of the entrypoint `run`: running a prepared pod. CONTRACT section 3. Host side.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use super::apps::Apps;
use super::{Monitor, PodSpec, launch, sysctl};
use crate::appc::{self, Isolators};
use crate::cgroup::CGROUP_PARENT;
use crate::confine::{self, caps::CapSet};
use crate::error::{Context, Error, Result};
use crate::layout;
use crate::mux;
use crate::net::{self, Dns, NetworkRequest, PlannedNetworks};
use crate::pod::events::Event;
use crate::pod::{self, Directory, Lock, Pod, RuntimeConfig, write_atomic};
use crate::rootfs::volumes;
use crate::sys::process;
use crate::uid_range::UidRange;

/// Environment variable with the number of the descriptor that holds the pod's lock.
const LOCK_FD: &str = "RKT_LOCK_FD";

/// Text that host managers look for when a network could not be set up.
const NETWORK_FAILED: &str = "stage1: failed to setup network";

/// Port of the host's metadata service.
const METADATA_PORT: u16 = 18112;

/// The settings of `run`.
#[derive(Debug)]
pub struct Run {
    /// The pod's UUID.
    pub uuid: String,
    /// The settings that later entrypoints need too, kept in the pod's `runtime-config`.
    pub config: RuntimeConfig,
    /// The host manager's configuration directory; `None` means [`net::LOCAL_CONFIG`].
    pub local_config: Option<PathBuf>,
}

impl Run {
    /// Runs the pod in the current directory until it has ended. Returns the pod's exit code.
    ///
    /// # Errors
    /// The pod can't be started, or its monitor fails. The pod's processes end with this process at the latest.
    pub fn run(mut self) -> Result<u8> {
        // Held until this process ends, which is after all processes of the pod have ended.
        let _lock = adopt_lock()?;
        self.uuid = pod::check_uuid(&self.uuid)?;
        let pod = Pod::load(Path::new("."))?;
        self.config.mutable |= pod.manifest.is_mutable()?;
        let request = NetworkRequest::parse(&self.config.net_list)?;
        let spec = self.spec(&pod, &request)?;
        volumes::check_sources(&pod.manifest.volumes)?;
        check_interactive(&self.config, &pod)?;
        check_modes(&self.config)?;
        self.config.hostname.clone_from(&spec.hostname);
        check_token(&self.config.mds_token)?;
        let plan = self.plan(&request, &pod).context(|| NETWORK_FAILED)?;
        provide_name_files(&self.config)?;
        self.save_config(&request, None)?;
        let apps = if self.config.mutable { None } else { Some(Apps::new(&pod, spec.private_users)?) };
        let joins = plan.is_some();
        if joins {
            // An earlier `run` of this pod may have been killed while its networks were joined.
            net::leave(Path::new("."), &self.uuid, self.local_config()).context(|| NETWORK_FAILED)?;
        }
        let launched = launch(&spec, |pid, signals| match plan {
            Some(plan) => {
                let joined = plan.join(&self.uuid, pid, signals).context(|| NETWORK_FAILED)?;
                provide_names(&self.config, &joined.dns)?;
                self.save_config(&request, joined.host.as_deref())
            }
            None => Ok(()),
        });
        let launched = launched.context(|| format!("start pod {}", self.uuid));
        // The records of a pod that ran stay: `gc` leaves its networks once more.
        let end = if launched.is_ok() { net::release } else { net::leave };
        let ended = launched.and_then(|monitor| {
            let tell = |what: &str, exit_code| {
                Event { exit_code, ..Event::now(what, None) }.note(Path::new("."), layout::EVENTS);
            };
            tell("pod-started", None);
            let ended = watch(monitor, apps);
            tell("pod-ended", ended.as_ref().ok().copied());
            ended
        });
        if joins { leave(ended, || end(Path::new("."), &self.uuid, self.local_config())) } else { ended }
    }

    fn local_config(&self) -> &Path {
        self.local_config.as_deref().unwrap_or(Path::new(net::LOCAL_CONFIG))
    }

    /// The networks to join; `None` if there are none.
    fn plan(&self, request: &NetworkRequest, pod: &Pod) -> Result<Option<PlannedNetworks>> {
        match request {
            NetworkRequest::Contained(selection) => PlannedNetworks::new(selection, pod, self.local_config()).map(Some),
            NetworkRequest::Host | NetworkRequest::None => {
                if !pod.manifest.ports.is_empty() {
                    log::warn!("the pod joins no network: no port of the host is forwarded to it");
                }
                Ok(None)
            }
        }
    }

    /// Writes `runtime-config` for later entrypoints. `host` is the address by which the pod reaches the host.
    fn save_config(&mut self, request: &NetworkRequest, host: Option<&str>) -> Result<()> {
        let host = if *request == NetworkRequest::Host { Some("127.0.0.1") } else { host };
        if let Some(url) = metadata_url(&self.config.mds_token, host) {
            self.config.metadata_service_url = url;
        }
        self.config.save(Path::new("."))
    }

    fn spec(&self, pod: &Pod, request: &NetworkRequest) -> Result<PodSpec> {
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
        let isolators = Isolators::parse(&pod.manifest.isolators).context(|| "the pod")?;
        let private_users: Option<UidRange> =
            Some(self.config.private_users.as_str()).filter(|ids| !ids.is_empty()).map(str::parse).transpose()?;
        Ok(PodSpec {
            uuid: self.uuid.clone(),
            hostname,
            own_network: request.is_own(),
            joins_networks: matches!(request, NetworkRequest::Contained(_)),
            own_ipc,
            private_users,
            debug: self.config.debug,
            interactive: self.config.interactive,
            logs: mux::Settings::of(&pod.manifest, !self.config.mutable && pod.manifest.apps.len() == 1)?,
            capabilities: self.capabilities(pod, &isolators)?,
            isolators,
            cgroup_parent: appc::find(&pod.manifest.annotations, CGROUP_PARENT).map(str::parse).transpose()?,
            sysctls: sysctl::declared(&pod.manifest, request.is_own(), own_ipc)?,
            any_device: self.config.insecure_options.disable_paths,
        })
    }
}

impl Run {
    /// The pod's bounding set: the capabilities that the supervisor needs, those that the apps retain, and those in the
    /// pod manifest's own isolators; for a mutable pod without such isolators also [`LATER_APPS`].
    fn capabilities(&self, pod: &Pod, declared: &Isolators) -> Result<CapSet> {
        if self.config.insecure_options.disable_capabilities {
            return Ok(CapSet::ALL);
        }
        let mut set = CapSet::supervisor();
        if declared.capabilities.is_some() {
            set = set.or(confine::capabilities(declared).context(|| "isolators of the pod")?);
        } else if self.config.mutable {
            set = set.or(CapSet::parse(LATER_APPS).unwrap_or_else(|_| unreachable!("a table of our own")));
        }
        for app in &pod.manifest.apps {
            let app = pod.app(&app.name)?;
            let isolators = Isolators::parse(&app.app()?.isolators).context(|| format!("app {}", app.runtime.name))?;
            set = set.or(confine::capabilities(&isolators)?);
        }
        Ok(set)
    }
}

/// Capabilities, beside those of the supervisor, that apps added to a running pod may retain by default. Together they
/// are the bounding set of a container of systemd-nspawn, which other host managers expect: capabilities that affect
/// the container only, so not CAP_NET_ADMIN nor those over the host's clock, modules, devices or security modules.
const LATER_APPS: [&str; 6] =
    ["AUDIT_CONTROL", "DAC_READ_SEARCH", "IPC_OWNER", "LEASE", "LINUX_IMMUTABLE", "NET_BROADCAST"];

/// Checks that an interactive pod is immutable and has exactly one app, which is attached to the caller's terminal.
fn check_interactive(config: &RuntimeConfig, pod: &Pod) -> Result<()> {
    let apps = pod.manifest.apps.len();
    match config.interactive {
        true if config.mutable => Err(Error::new("--interactive can't be combined with --mutable")),
        true if apps != 1 => Err(Error::new(format!("--interactive needs a pod with one app: this one has {apps}"))),
        _ => Ok(()),
    }
}

/// Takes over the pod's lock from the host manager.
fn adopt_lock() -> Result<Lock> {
    let text =
        std::env::var(LOCK_FD).context(|| format!("{LOCK_FD} is not set: `run` is executed by a host manager"))?;
    let number = text.parse().context(|| format!("{LOCK_FD}={text:?} is not a descriptor number"))?;
    let fd: OwnedFd = process::adopt_fd(number).context(|| format!("{LOCK_FD}={text}"))?;
    Lock::adopt(fd, Path::new("."))
}

/// Checks that a token can be a part of a URL.
fn check_token(token: &str) -> Result<()> {
    if token.bytes().all(|b| b.is_ascii_graphic() && b != b'/') {
        Ok(())
    } else {
        Err(Error::new(format!("--mds-token={token:?}: use visible ASCII characters without /")))
    }
}

/// URL of the host's metadata service: `host` is the address by which the pod reaches the host, the port is the one
/// that all host managers of the rkt family use. `None` without a token or an address.
fn metadata_url(token: &str, host: Option<&str>) -> Option<String> {
    let host = host.filter(|_| !token.is_empty())?;
    let (before, after) = if host.contains(':') { ("[", "]") } else { ("", "") };
    Some(format!("http://{before}{host}{after}:{METADATA_PORT}/{token}"))
}

/// Checks that the kernel accepts a host name, and that it is one word in /etc/hosts and /etc/hostname. Other rules of
/// hostname(7) are not enforced.
///
/// # Errors
/// The name is empty, longer than 64 bytes, or has a character that is `#` or not visible ASCII.
pub fn check_hostname(name: &str) -> Result<()> {
    let is_word = !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    if is_word && name.len() <= MAX_HOSTNAME {
        Ok(())
    } else {
        Err(Error::new(format!("{name:?} is not a host name: 1 to {MAX_HOSTNAME} visible ASCII characters, but no #")))
    }
}

/// Maximum length of a host name, in bytes: sethostname(2).
const MAX_HOSTNAME: usize = 64;

fn check_modes(config: &RuntimeConfig) -> Result<()> {
    match config.resolv_conf_mode.as_str() {
        "" | "default" | "host" | "stage0" | "none" => {}
        other => return Err(Error::new(format!("--dns-conf-mode=resolv={other}: use host, stage0, none or default"))),
    }
    match config.etc_hosts_mode.as_str() {
        "" | "default" | "host" | "stage0" => Ok(()),
        other => Err(Error::new(format!("--dns-conf-mode=hosts={other}: use host, stage0 or default"))),
    }
}

/// Writes the pod's resolv.conf and hosts file from the host's files, if the modes say so.
fn provide_name_files(config: &RuntimeConfig) -> Result<()> {
    if config.resolv_conf_mode == "host" {
        copy("/etc/resolv.conf", &layout::resolv_conf())?;
    }
    match config.etc_hosts_mode.as_str() {
        "host" => copy("/etc/hosts", &layout::hosts()),
        "stage0" => add_own_name(Path::new("."), &layout::hosts(), &config.hostname),
        _ => Ok(()),
    }
}

/// Adds a line with the pod's own name to the hosts file that stage0 has written, unless it has that line.
fn add_own_name(pod: &Path, hosts: &Path, hostname: &str) -> Result<()> {
    let mut text = match pod::read_bounded(&pod.join(hosts), pod::MAX_MANIFEST) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        text => text?,
    };
    let line = layout::own_hosts_line(hostname);
    if text.split_inclusive(|&byte| byte == b'\n').any(|known| known == line.as_bytes()) {
        return Ok(());
    }
    if text.last().is_some_and(|&byte| byte != b'\n') {
        text.push(b'\n');
    }
    text.extend(line.bytes());
    replace(pod, hosts, &text)
}

/// Writes the pod's resolv.conf from the DNS results of its networks, if the mode is the default and stage0 has not
/// written one.
fn provide_names(config: &RuntimeConfig, dns: &Dns) -> Result<()> {
    let resolv = layout::resolv_conf();
    match dns.to_file() {
        Some(text) if matches!(&*config.resolv_conf_mode, "" | "default") && !resolv.exists() => {
            replace(Path::new("."), &resolv, text.as_bytes())
        }
        _ => Ok(()),
    }
}

fn copy(from: &str, to: &Path) -> Result<()> {
    let text = match pod::read_bounded(Path::new(from), pod::MAX_MANIFEST) {
        Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(()),
        text => text?,
    };
    replace(Path::new("."), to, &text)
}

fn replace(pod: &Path, file: &Path, text: &[u8]) -> Result<()> {
    let (dir, name) = Directory::of_pod_file(pod, file)?;
    write_atomic(dir, name, text, 0o644)
}

/// Waits until the pod has ended. Returns its exit code.
fn watch(mut monitor: Monitor, apps: Option<Apps>) -> Result<u8> {
    if let Some(apps) = apps {
        monitor.supervise(apps);
    }
    monitor.watch()
}

/// Leaves the networks of the ended pod. A failure of that does not change the pod's exit code: `gc` tries again.
fn leave(ended: Result<u8>, leave: impl FnOnce() -> Result<()>) -> Result<u8> {
    match (leave(), ended) {
        (Ok(()), ended) => ended,
        (Err(left), Err(error)) => Err(Error::new(format!("{}; then: {}", error.one_line(), left.one_line()))),
        (Err(left), Ok(code)) => {
            log::warn!("{} (gc tries again)", left.one_line());
            Ok(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names() {
        let longest = "x".repeat(64);
        for good in ["rkt-0123abcd-0000-4000-8000-0123456789ab", "a.b", "X1", "custom_hostname_setting", &longest] {
            check_hostname(good).unwrap();
        }
        for bad in ["", "a b", "a#b", "a\n", "ä", &"x".repeat(65)] {
            assert!(check_hostname(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_pods_name_is_added_once() {
        let tmp = tempfile::tempdir().unwrap();
        let hosts = tmp.path().join("hosts");
        add_own_name(tmp.path(), Path::new("hosts"), "box").unwrap();
        assert!(!hosts.exists());
        std::fs::write(&hosts, "10.0.0.1 box").unwrap();
        for _ in 0..2 {
            add_own_name(tmp.path(), Path::new("hosts"), "box").unwrap();
            assert_eq!(std::fs::read_to_string(&hosts).unwrap(), "10.0.0.1 box\n127.0.0.1 box\n");
        }
    }

    #[test]
    fn metadata_service() {
        let url = |token, host| metadata_url(token, Some(host));
        assert_eq!(url("a1", "127.0.0.1").unwrap(), "http://127.0.0.1:18112/a1");
        assert_eq!(url("a1", "fd00::1").unwrap(), "http://[fd00::1]:18112/a1");
        assert_eq!((metadata_url("a1", None), url("", "127.0.0.1")), (None, None));
        assert!(check_token("a\nb").is_err() && check_token("a/b").is_err() && check_token("").is_ok());
    }
}

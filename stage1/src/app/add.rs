//! Adding an app to a running pod: everything that makes it startable. Host side, in the pod directory.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::declared::DeclaredSettings;
use super::{bounding_set, control, deadline};
use crate::appc::{self, AcName, Isolators, OnFailure, PidNamespace};
use crate::cgroup::PodCgroup;
use crate::cgroup::devices::{DeviceKind, DeviceRule};
use crate::confine::Confinement;
use crate::confine::caps::CapSet;
use crate::confine::ids::{self, Ids};
use crate::confine::insecure::InsecureOptions;
use crate::confine::rlimits::{ResourceLimit, ULIMITS};
use crate::cross::Target;
use crate::error::{Context, Error, Result};
use crate::launch::{LaunchRecord, env};
use crate::layout;
use crate::net::NetworkRequest;
use crate::pod::{self, Directory, Durable, Pod, PodApp};
use crate::rootfs::volumes::{self, Opener};
use crate::rootfs::{self, Device, EtcFile, EtcSource, Hosts, RootfsPlan, Volume};
use crate::streams::{self, DeclaredStreams, LogFile, StreamModes};
use crate::sys::dir;
use crate::sys::mount::{DetachedMount, Scope};
use crate::uid_range::UidRange;
use crate::unit::{self, AppUnit, CgroupLimits, HealthUnits};

/// Makes the app APP, which the pod manifest lists and whose rootfs is in place, startable.
#[derive(argh::FromArgs, Debug)]
pub struct Flags {
    /// the app's name
    #[argh(option)]
    app: AcName,
    /// the pod's UUID
    #[argh(option)]
    uuid: Option<String>,
    /// only bring its limits to what the pod manifest says by now, also while it runs
    #[argh(switch)]
    pub update: bool,
    /// print debug messages
    #[argh(switch)]
    pub debug: bool,
    /// keep all capabilities
    #[argh(switch)]
    disable_capabilities_restriction: bool,
    /// neither hide kernel paths nor make them read-only
    #[argh(switch)]
    disable_paths: bool,
    /// no system call filter
    #[argh(switch)]
    disable_seccomp: bool,
    /// user namespace, SHIFT:COUNT
    #[argh(option)]
    private_users: Option<UidRange>,
}

impl Flags {
    /// The options without a value.
    pub const SWITCHES: &'static [&'static str] =
        &["debug", "disable-capabilities-restriction", "disable-paths", "disable-seccomp", "update"];

    /// The request that the options make, and the pod in the current directory.
    ///
    /// # Errors
    /// The UUID is not one, or no pod runs in the current directory.
    pub fn addition(self) -> Result<(Addition, Target)> {
        self.uuid.as_deref().map(pod::check_uuid).transpose()?;
        let insecure = InsecureOptions {
            disable_paths: self.disable_paths,
            disable_capabilities: self.disable_capabilities_restriction,
            disable_seccomp: self.disable_seccomp,
        };
        Ok((Addition { app: self.app, insecure, private_users: self.private_users }, Target::of_current_dir()?))
    }
}

/// The arguments of app-add.
#[derive(Debug)]
pub struct Addition {
    /// The app's name in the pod manifest.
    pub app: AcName,
    /// The restrictions that are lifted, besides those that the whole pod lifts.
    pub insecure: InsecureOptions,
    /// The pod's user namespace, if it has one of its own.
    pub private_users: Option<UidRange>,
}

/// What an app's unit is made from, once its namespace and its records exist.
#[derive(Debug)]
pub struct Prepared {
    isolators: Isolators,
    devices: Vec<DeviceRule>,
    any_device: bool,
    declared: DeclaredSettings,
    /// Whether there are handlers to run before its start, and after its end.
    handlers: (bool, bool),
}

impl Prepared {
    fn unit<'a>(&'a self, app: &'a AcName, limits: CgroupLimits, unified: bool) -> AppUnit<'a> {
        let declared = &self.declared;
        let plain = AppUnit::new(app, unified);
        AppUnit {
            limits,
            devices: &self.devices,
            any_device: self.any_device,
            accounting: self.isolators.accounting,
            notify: declared.notify,
            pre_start: self.handlers.0,
            post_stop: self.handlers.1,
            post_start: !declared.post_start.is_empty(),
            pre_stop: !declared.pre_stop.is_empty(),
            stop_signal: declared.stop_signal.unwrap_or(plain.stop_signal),
            stop_timeout: declared.stop_timeout.unwrap_or(plain.stop_timeout),
            restart: declared.restart.restart,
            restart_limit: declared.restart.limit,
            sockets: &declared.sockets,
            waits: !declared.after.is_empty(),
            health: declared.health.as_ref().map(|check| HealthUnits {
                interval: Duration::from_millis(check.interval_ms),
                timeout: Duration::from_millis(check.timeout_ms),
                restarts: check.on_failure == OnFailure::Restart,
            }),
            ..plain
        }
    }
}

impl Addition {
    /// Makes the app startable: namespace, launch record, environment file, and the unit last.
    /// May be repeated; does nothing if the app runs.
    ///
    /// # Errors
    /// A manifest declares something invalid or unavailable. The app is then not startable, unless it was before.
    pub fn add(&self, target: &Target) -> Result<()> {
        if unit::exists(&self.app)? && control::is_running(target, &self.app)? {
            log::info!("app {} runs: it is left as it is", self.app);
            return Ok(());
        }
        let prepared = self.prepare(target)?;
        self.unit(&prepared)?.install()
    }

    /// The same without the unit: rebuilds the namespace and the records of an app. Returns what its unit is made from.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn prepare(&self, target: &Target) -> Result<Prepared> {
        control::forget_stale_names(&self.app)?;
        let pod = Pod::load(Path::new("."))?;
        let app = pod.app(&self.app)?;
        let isolators = Isolators::parse(&app.app()?.isolators)?;
        if !isolators.unknown.is_empty() {
            log::warn!("app {}: nothing here enforces the isolators {}", self.app, isolators.unknown.join(", "));
        }
        let insecure = self.insecure.or(pod.config.insecure_options);
        let root = dir::open_dir(layout::app_rootfs(&self.app))?;
        let ids = self.ids(&app, &root)?;
        let mut confinement = Confinement::compute(&isolators, insecure, &ids)?;
        let lost = lost_capabilities(target, confinement.capabilities)?;
        if lost != CapSet::EMPTY && insecure.disable_capabilities {
            log::warn!("app {}: it has the capabilities of its pod, without {}", self.app, names(lost));
            confinement.capabilities = confinement.capabilities.without(lost);
        } else if lost != CapSet::EMPTY {
            return Err(Error::new(format!(
                "the pod has no {0}, and a pod that runs gets none: make one with the option --pod-caps-retain={0} \
                 (in its manifest the isolator os/linux/capabilities-retain-set)",
                names(lost)
            )));
        }
        let metadata = Some(pod.config.metadata_service_url.as_str()).filter(|url| !url.is_empty());
        let mut record = LaunchRecord::compute(&self.app, app.app()?, metadata, &ids, confinement)?;
        if let Some(limits) = appc::find(&app.runtime.annotations, ULIMITS) {
            record.confinement.limits = ResourceLimit::parse_all(limits)?;
        }
        let mut declared = DeclaredSettings::by(&app)?;
        record.sockets = std::mem::take(&mut declared.socket_names);
        record.stop_timeout = declared.stop_timeout.unwrap_or(unit::STOP_TIMEOUT);
        record.health.clone_from(&declared.health);
        record.after.clone_from(&declared.after);
        record.pid_namespace.clone_from(&isolators.pid_namespace);
        if record.pid_namespace == PidNamespace::Host {
            self.check_on_host(&record, declared.notify)?;
        }
        record.post_start.clone_from(&declared.post_start);
        record.pre_stop.clone_from(&declared.pre_stop);
        let modes = StreamModes::of(&app, pod.config.interactive && !pod.config.mutable)?;
        record.streams = modes;
        if modes.have_terminal() && env::get(&record.environment, "TERM").is_none() {
            env::set(&mut record.environment, "TERM", &env::callers_term());
        }
        let log = LogFile::declared(&pod.manifest, &app)?;
        let environment = env::to_file(&record.environment)?;
        let mut plan = self.plan(target, &pod, &app, &root, insecure)?;
        plan.notify = declared.notify;
        plan.masked_paths.clone_from(&isolators.masked_paths);
        plan.read_only_paths.clone_from(&isolators.read_only_paths);

        rootfs::build(target, &self.app, &plan, deadline())?;
        streams::prepare(&self.app, &DeclaredStreams { modes, log }, self.private_users.map(|ids| ids.first))?;
        record.store(&dir::open_dir(layout::app_dir(&self.app))?, layout::LAUNCH)?;
        if let Some(ids) = self.private_users {
            // The root of the pod's user namespace, which has another UID here, reads it.
            let record = layout::launch_record(&self.app);
            std::os::unix::fs::chown(&record, Some(ids.first), Some(ids.first))
                .context(|| format!("chown {record:?}"))?;
        }
        let env_file = layout::env_file(&self.app);
        let (env_dir, name) = Directory::of_pod_file(Path::new("."), &env_file)?;
        // Like the launch record, it is of no use after a power failure.
        let write = || pod::replace(&env_dir.open()?, name, environment.as_bytes(), 0o644, Durable::No);
        write().context(|| format!("write {env_file:?}"))?;
        let handlers = (!record.pre_start.is_empty(), !record.post_stop.is_empty());
        let devices = plan.volumes.iter().filter_map(Volume::device).map(device_rule).collect();
        let any_device = insecure.disable_paths;
        Ok(Prepared { isolators, devices, any_device, declared, handlers })
    }

    fn unit<'a>(&'a self, prepared: &'a Prepared) -> Result<AppUnit<'a>> {
        let cgroup = PodCgroup::recorded(Path::new("."))?;
        let unified = cgroup.is_unified();
        if prepared.any_device || !prepared.devices.is_empty() {
            cgroup.allow_devices((!prepared.any_device).then_some(&prepared.devices))?;
        }
        let limits = CgroupLimits::from(&prepared.isolators);
        let lost = limits.without_effect(unified, |file| cgroup.has_limit(file));
        if !lost.is_empty() {
            log::warn!("app {}: this host can't enforce the limits on {}", self.app, lost.join(", "));
        }
        Ok(prepared.unit(&self.app, limits, unified))
    }

    /// Fails if an app with the host's PID namespace asks for what it can have in the pod's only.
    fn check_on_host(&self, record: &LaunchRecord, notifies: bool) -> Result<()> {
        let why = match record {
            _ if self.private_users.is_some() => "the pod has a user namespace of its own",
            _ if notifies => "the supervisor accepts no report of readiness (sd_notify) from there",
            LaunchRecord { health: Some(_), .. } => "no health checks are made there",
            LaunchRecord { sockets, .. } if !sockets.is_empty() => "no sockets are handed over there",
            _ => return Ok(()),
        };
        Err(Error::new(format!("app {}: it can't have the host's PID namespace: {why}", self.app)))
    }

    fn ids(&self, app: &PodApp, root: &OwnedFd) -> Result<Ids> {
        use std::os::fd::AsFd;
        let declared = app.app()?;
        let request = ids::UserRequest {
            user: &declared.user,
            group: &declared.group,
            supplementary: &declared.supplementary_gids,
            converted_image: app.image.is_converted(),
            shift: self.private_users,
        };
        ids::resolve(root.as_fd(), &request)
    }

    fn plan(
        &self,
        target: &Target,
        pod: &Pod,
        app: &PodApp,
        root: &OwnedFd,
        insecure: InsecureOptions,
    ) -> Result<RootfsPlan> {
        let mut plan = RootfsPlan::new(&layout::app_rootfs(&self.app))?;
        plan.read_only_root = app.runtime.read_only_root_fs;
        plan.restrict_paths = !insecure.disable_paths;
        plan.own_network = NetworkRequest::parse(&pod.config.net_list)?.is_own();
        plan.etc = etc_files(&pod.config.resolv_conf_mode)?;
        plan.hosts = Hosts::of(&pod.config, root)?;
        let opener = Opener {
            root_id: self.private_users.map_or(0, |ids| ids.first),
            user_namespace: target.user_namespace()?,
            image: root,
            converted: app.image.is_converted(),
        };
        let place = |path: &Path| dir::canonical_in(root, path);
        plan.volumes = volumes::resolve(&app.runtime, app.app()?, &pod.manifest.volumes, place)?
            .iter()
            .map(|mapping| opener.open(mapping))
            .collect::<Result<_>>()?;
        Ok(plan)
    }
}

/// The capabilities of `wanted` that the pod gave up at its start and can't get back. Capabilities that this process
/// lacks too do not count.
fn lost_capabilities(target: &Target, wanted: CapSet) -> Result<CapSet> {
    let (ours, pods) = (CapSet::bounding_of("self")?, bounding_set(target)?);
    Ok(wanted.and(ours).without(pods))
}

fn names(set: CapSet) -> String {
    set.names().collect::<Vec<_>>().join(",")
}

fn device_rule(device: Device) -> DeviceRule {
    let kind = if device.block { DeviceKind::Block } else { DeviceKind::Character };
    DeviceRule { kind, major: device.major, minor: Some(device.minor), write: !device.read_only, make: false }
}

/// The files of /etc that an app gets from the pod, except hosts. stage0 or `run` may have put resolv.conf into the
/// stage1 root.
fn etc_files(resolv_conf_mode: &str) -> Result<Vec<EtcFile>> {
    let mut files =
        vec![EtcFile { path: "/etc/hostname", source: EtcSource::Pod(layout::HOSTNAME_FILE), only_if_missing: false }];
    files.push(EtcFile { path: "/etc/machine-id", source: EtcSource::Pod("/etc/machine-id"), only_if_missing: false });
    let host = |path: &Path| -> Result<Option<EtcSource>> {
        match path.try_exists().context(|| format!("stat {path:?}"))? {
            true => Ok(Some(EtcSource::Host(DetachedMount::clone_path(path, Scope::One)?))),
            false => Ok(None),
        }
    };
    if resolv_conf_mode != "none"
        && let Some(source) = host(&layout::resolv_conf())?
    {
        files.push(EtcFile { path: "/etc/resolv.conf", source, only_if_missing: false });
    }
    if let Some(source) = host(Path::new("/etc/localtime"))? {
        files.push(EtcFile { path: "/etc/localtime", source, only_if_missing: true });
    }
    Ok(files)
}

#[cfg(test)]
mod tests;

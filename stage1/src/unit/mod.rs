//! The units of an app: text made of our own words, numbers, and the app's validated name.
//!
//! Nothing else from an image or a manifest gets into a unit: it is in the app's launch record. So nothing needs
//! quoting or escaping here.
//!
//! Reasons for the directives of a unit:
//! - `Type=notify`: the start job ends when `app-exec` reports that it is ready, right before it executes the app, or
//!   when the app itself does; a command that can't be executed is a failed start. With `Type=exec` the job would end
//!   at the exec of `app-exec`; and systemd 252 may notice the end of an app that ends at once before it notices the
//!   exec, and then reports a failed start (in 87 of 200 tries). Messages of sd_notify(3) are read before ended
//!   processes are reaped.
//! - The reaper comes before the handlers of `post-stop`: if a handler hangs, systemd does not run those that follow.
//! - `DefaultDependencies=no` with `Conflicts=` and `Before=shutdown.target`: a start pulls in no other unit, the
//!   shutdown of the pod stops the app first, and no app starts during the shutdown.
//! - `OnFailure=` of an app with a limit of memory: the reaper runs in the app's cgroup. If the memory of that cgroup
//!   is used up without a process, for example by files in /dev/shm, the reaper is killed too, and another one runs
//!   outside.
//! - `CollectMode=inactive-or-failed`: systemd unloads the unit of an app that has ended, so a unit that is removed and
//!   written again under the same name is read again without a reload.
//! - `KillMode=mixed`: the stop signal goes to the app's main process; when that has ended, or the timeout has passed,
//!   all other processes in the app's cgroup are killed.
//! - `OOMPolicy=continue`: an OOM kill of a command that has entered the app does not stop the app.
//! - `StandardError=tty`, the pod's console: only errors of `app-exec` before it has passed the app's streams to the
//!   monitor go there; they do not belong in the app's log.
//! - `IgnoreSIGPIPE=no`: systemd ignores SIGPIPE by default, which programs do not expect.

mod cgroup_limits;
mod health;
mod installed_limits;
mod section;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use crate::appc::AcName;
use crate::cgroup::devices::{CLOSED as DEVICES, DeviceRule};
use crate::error::{Context, Error, Result};
use crate::pod::{Directory, remove_if_there};
use crate::systemd::Value;
use crate::{layout, pod};

use cgroup_limits::limit_property;
pub use cgroup_limits::{CgroupLimits, LEAST_POD_CPU};
pub use health::HealthUnits;
pub use installed_limits::{put_back, with_limits};
use section::{Section, milliseconds};

/// Default time between an app's stop signal and the kill.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of an app's start, with its handlers of `pre-start`.
pub const START_TIMEOUT: Duration = Duration::from_secs(90);
/// Minimum of `TimeoutStopSec=`, which applies to the reaper too.
const STOP_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Maximum time that the reaper waits until the monitor has read the app's output.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum of `TimeoutStopSec=`: systemd does not accept every longer time.
const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// Default stop signal: SIGTERM.
pub const STOP_SIGNAL: u8 = 15;
const SIGKILL: u8 = 9;

/// Time between an app's end and its first restart: `RestartSec=`.
pub const RESTART_DELAY: Duration = Duration::from_secs(1);
/// Maximum time before a restart. The time doubles with each restart in a row.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5 * 60);
/// When an app has run for this long, the count of restarts in a row begins again.
pub const RESTART_RESET: Duration = Duration::from_secs(10 * 60);

/// The time between an app's end and its `nth` restart in a row, counted from 1.
pub fn restart_delay(nth: u32) -> Duration {
    let doubled = 1_u32.checked_shl(nth.saturating_sub(1)).unwrap_or(u32::MAX);
    RESTART_DELAY.saturating_mul(doubled).min(RESTART_DELAY_MAX)
}

/// The restart policy of an app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// It is never restarted.
    #[default]
    No,
    /// It is restarted, after [`restart_delay`], when it exits with another status than 0 or a signal ends it.
    OnFailure,
    /// It is restarted, after [`restart_delay`], whenever it ends without being stopped.
    Always,
}

/// Everything that determines an app's units.
#[derive(Clone, Debug)]
pub struct AppUnit<'a> {
    /// The app.
    pub app: &'a AcName,
    /// Whether the pod's systemd uses cgroup v2 only.
    pub unified: bool,
    /// Limits of its cgroup.
    pub limits: CgroupLimits,
    /// Whether its cgroup counts what the app uses even where nothing limits it.
    pub accounting: bool,
    /// Whether the app itself reports that it is ready; its start waits for that, at most [`START_TIMEOUT`].
    pub notify: bool,
    /// Whether it has commands to run before its start.
    pub pre_start: bool,
    /// Whether it has commands to run after its end.
    pub post_stop: bool,
    /// Whether the app has a command to run after its start.
    pub post_start: bool,
    /// Whether the app has a command to run before its stop signal.
    pub pre_stop: bool,
    /// Time between the stop signal and the kill, limited to between a second, which the reaper needs, and a year. With
    /// zero a stop kills the app at once.
    pub stop_timeout: Duration,
    /// Number of the stop signal, 1 to 64.
    pub stop_signal: u8,
    /// Its restart policy.
    pub restart: Restart,
    /// Maximum number of restarts in a row; `None` means no limit.
    pub restart_limit: Option<u32>,
    /// Whether it waits for other apps before it starts.
    pub waits: bool,
    /// Its health checks, if it has any.
    pub health: Option<HealthUnits>,
    /// Devices that it may use beside [`DEVICES`].
    pub devices: &'a [DeviceRule],
    /// Whether it may use and make any device.
    pub any_device: bool,
    /// Ports on which systemd listens for it, in a unit of [`socket_text`]. If there are any, that unit is started
    /// first, and the app with the first connection.
    pub sockets: &'a [SocketPorts],
}

impl<'a> AppUnit<'a> {
    /// A unit with the default settings.
    pub fn new(app: &'a AcName, unified: bool) -> Self {
        Self {
            app,
            unified,
            limits: CgroupLimits::default(),
            accounting: false,
            notify: false,
            pre_start: false,
            post_stop: false,
            post_start: false,
            pre_stop: false,
            stop_timeout: STOP_TIMEOUT,
            stop_signal: STOP_SIGNAL,
            restart: Restart::default(),
            restart_limit: None,
            waits: false,
            health: None,
            devices: &[],
            any_device: false,
            sockets: &[],
        }
    }

    /// The text of the service unit.
    ///
    /// # Errors
    /// A number is out of range: systemd would ignore the directive and start the app without it.
    pub fn text(&self) -> Result<String> {
        self.check().context(|| format!("unit of app {}", self.app))?;
        let app = self.app;
        let bin = layout::BIN;
        let mut unit = Section::new("Unit");
        unit.push("Description", format_args!("App {app}"));
        unit.push("DefaultDependencies", "no");
        unit.push("Conflicts", "shutdown.target");
        unit.push("Before", "shutdown.target");
        unit.push("CollectMode", "inactive-or-failed");
        unit.push("StartLimitIntervalSec", 0);
        if self.limits.memory_max.is_some() {
            unit.push("OnFailure", layout::late_reaper_unit(app));
        }
        if !self.sockets.is_empty() {
            unit.push("Requires", layout::app_socket(app));
            unit.push("After", layout::app_socket(app));
        }
        if self.health.is_some() {
            unit.push("Wants", layout::health_timer(app));
        }

        let mut service = Section::new("Service");
        service.push("Type", "notify");
        // `all`, so that a child of a wrapper script may report readiness. It can do no more with that than the main
        // process can.
        let backs_off = self.restart != Restart::No || self.health.is_some_and(|health| health.restarts);
        let notify_access = match self.notify {
            true => "all",
            // An app that waits for its next start, for other apps or for a hook extends its timeouts.
            false if backs_off || self.waits || self.pre_stop => "exec",
            false => "main",
        };
        service.push("NotifyAccess", notify_access);
        service.push("TimeoutStartSec", format_args!("{}s", START_TIMEOUT.as_secs()));
        if backs_off {
            service.push("ExecStartPre", format_args!("{bin}/app-exec --back-off {app}"));
        }
        if self.waits {
            service.push("ExecStartPre", format_args!("{bin}/app-exec --await {app}"));
        }
        if self.pre_start {
            service.push("ExecStartPre", format_args!("{bin}/app-exec --event=pre-start {app}"));
        }
        let told = if self.notify { "--notify " } else { "" };
        service.push("ExecStart", format_args!("{bin}/app-exec {told}{app}"));
        if self.post_start {
            service.push("ExecStartPost", format_args!("{bin}/app-exec --event=post-start {app}"));
        }
        if self.pre_stop {
            // `-`: a failure of the hook is not a failure of the app.
            service.push("ExecStop", format_args!("-{bin}/app-exec --event=pre-stop {app}"));
        }
        let restart = match self.restart {
            Restart::No => "",
            Restart::OnFailure => "--restart=on-failure ",
            Restart::Always => "--restart=always ",
        };
        let limit = self.restart_limit.map(|limit| format!("--limit {limit} ")).unwrap_or_default();
        let checked = if self.health.is_some_and(|health| health.restarts) { "--checked " } else { "" };
        let sockets = if self.sockets.is_empty() { "" } else { "--sockets " };
        let signal = if self.stop_timeout.is_zero() { SIGKILL } else { self.stop_signal };
        let timeout = allowed_stop_time(self.stop_timeout);
        // The rest of the time is for writing the exit status.
        let wait = milliseconds((timeout * 3 / 4).min(OUTPUT_TIMEOUT));
        service
            .push("ExecStopPost", format_args!("{bin}/reaper --wait {wait} {restart}{limit}{checked}{sockets}{app}"));
        if self.post_stop {
            // `-`: a failure of the handler does not make the unit fail.
            service.push("ExecStopPost", format_args!("-{bin}/app-exec --event=post-stop {app}"));
        }
        service.push("KillMode", "mixed");
        service.push("SendSIGKILL", "yes");
        service.push("KillSignal", signal);
        service.push("TimeoutStopSec", format_args!("{}ms", milliseconds(timeout)));
        match self.restart {
            Restart::No => service.push("Restart", "no"),
            Restart::OnFailure => service.push("Restart", "on-failure"),
            Restart::Always => service.push("Restart", "always"),
        }
        if self.restart != Restart::No {
            service.push("RestartSec", format_args!("{}s", RESTART_DELAY.as_secs()));
        }
        service.push("StandardInput", "null");
        service.push("StandardOutput", "null");
        service.push("StandardError", "tty");
        service.push("IgnoreSIGPIPE", "no");
        service.push("OOMPolicy", "continue");
        if !self.sockets.is_empty() {
            service.push("Sockets", layout::app_socket(app));
        }
        // `strict`, because systemd's own list for `closed` has more devices than ours.
        service.push("DevicePolicy", "strict");
        if self.any_device {
            service.push("DeviceAllow", "char-* rwm");
            service.push("DeviceAllow", "block-* rwm");
        }
        for device in DEVICES.iter().chain(self.devices).filter(|_| !self.any_device) {
            service.push("DeviceAllow", device.directive());
        }
        if self.accounting {
            for name in ["CPUAccounting", "MemoryAccounting", "TasksAccounting", "IOAccounting"] {
                service.push(name, "yes");
            }
        }
        for (name, value) in self.limits.directives(self.unified) {
            service.push(name, value);
        }
        Ok(unit.0 + "\n" + &service.0)
    }

    fn check(&self) -> Result<()> {
        if !(1..=64).contains(&self.stop_signal) {
            return Err(Error::new(format!("stop signal {} is not in the range 1 to 64", self.stop_signal)));
        }
        self.limits.check()
    }

    /// Writes the units, each atomically, the service unit last: with that the app exists for systemd, so it is the
    /// last step of adding an app. Host side, in the pod directory.
    ///
    /// # Errors
    /// A number is out of range, or a unit can't be written.
    pub fn install(&self) -> Result<()> {
        let units = layout::units_dir();
        let dir = Directory::InPod { pod: Path::new("."), below: &units };
        let socket = layout::app_socket(self.app);
        if self.sockets.is_empty() {
            remove_if_there(&units.join(socket))?;
        } else {
            let text = socket_text(self.app, self.sockets)?;
            pod::write_atomic(dir, &socket, text.as_bytes(), 0o644)?;
        }
        health::install(self.app, self.health)?;
        pod::write_atomic(dir, &layout::app_unit(self.app), self.text()?.as_bytes(), 0o644)
    }
}

/// `TimeoutStopSec=` of an app with the stop timeout `declared`.
pub fn allowed_stop_time(declared: Duration) -> Duration {
    match declared {
        // The app is killed at once: this is the time for the reaper and the handlers.
        Duration::ZERO => STOP_TIMEOUT,
        timeout => timeout.clamp(STOP_TIMEOUT_MIN, STOP_TIMEOUT_MAX),
    }
}

/// Whether the app has a service unit. Host side, in the pod directory.
///
/// # Errors
/// The units' directory can't be reached.
pub fn exists(app: &AcName) -> Result<bool> {
    is_there(&layout::unit_file(app))
}

/// Whether the app has a socket unit. Host side, in the pod directory.
///
/// # Errors
/// The units' directory can't be reached.
pub fn has_sockets(app: &AcName) -> Result<bool> {
    is_there(&layout::socket_unit_file(app))
}

fn is_there(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).context(|| format!("stat {path:?}")),
    }
}

/// The limits and the device policy in the app's installed unit, as properties for another unit. Host side, in the pod
/// directory.
///
/// # Errors
/// The unit does not exist or can't be read, or a directive has another form than this module writes.
pub fn installed_limits(app: &AcName) -> Result<Vec<(&'static str, Value)>> {
    let path = layout::unit_file(app);
    let text = installed_limits::installed(app)?;
    let mut properties = Vec::new();
    let mut devices = Vec::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        match name {
            "DevicePolicy" => properties.push(("DevicePolicy", Value::Text(value.to_owned()))),
            "DeviceAllow" => {
                let (device, access) = value.split_once(' ').context(|| format!("{path:?}: {name}={value}"))?;
                devices.push((device.to_owned(), access.to_owned()));
            }
            _ => properties.extend(limit_property(name, value).context(|| path.display().to_string())?),
        }
    }
    if !devices.is_empty() {
        properties.push(("DeviceAllow", Value::Pairs(devices)));
    }
    Ok(properties)
}

/// Text of a drop-in for an app's unit that sets its stop timeout.
pub fn stop_timeout_text(timeout: Duration) -> String {
    let mut service = Section::new("Service");
    service.push("TimeoutStopSec", format_args!("{}ms", milliseconds(timeout.min(STOP_TIMEOUT_MAX))));
    service.0
}

/// Removes the app's units, if it has any. Host side, in the pod directory.
///
/// # Errors
/// A unit exists and can't be removed.
pub fn remove(app: &AcName) -> Result<()> {
    for path in [layout::unit_file(app), layout::socket_unit_file(app)] {
        remove_if_there(&path)?;
    }
    health::remove(app)
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP: `ListenStream=`.
    Tcp,
    /// UDP: `ListenDatagram=`.
    Udp,
}

/// A range of ports on which systemd listens for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPorts {
    /// Protocol.
    pub protocol: Protocol,
    /// The first port.
    pub port: u16,
    /// Number of ports.
    pub count: u16,
}

/// The text of the socket unit of an app: systemd.socket(5). The sockets are closed when the app is stopped.
///
/// # Errors
/// A port is 0 or above 65535.
pub fn socket_text(app: &AcName, ports: &[SocketPorts]) -> Result<String> {
    let mut unit = Section::new("Unit");
    unit.push("Description", format_args!("Sockets of app {app}"));
    unit.push("DefaultDependencies", "no");
    unit.push("Conflicts", "shutdown.target");
    unit.push("Before", "shutdown.target");
    unit.push("CollectMode", "inactive-or-failed");
    unit.push("PartOf", layout::app_unit(app));
    let mut socket = Section::new("Socket");
    socket.push("Service", layout::app_unit(app));
    socket.push("BindIPv6Only", "both");
    for range in ports {
        let name = match range.protocol {
            Protocol::Tcp => "ListenStream",
            Protocol::Udp => "ListenDatagram",
        };
        let last = u32::from(range.port) + u32::from(range.count);
        if range.port == 0 || last > 0x1_0000 {
            return Err(Error::new(format!("app {app}: {} to {} are not port numbers", range.port, last - 1)));
        }
        for port in u32::from(range.port)..last {
            socket.push(name, port);
        }
    }
    Ok(unit.0 + "\n" + &socket.0)
}

#[cfg(test)]
mod tests;

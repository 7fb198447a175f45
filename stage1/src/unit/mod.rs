//! The units of an app: our own words, numbers, and the app's validated name.
//!
//! Nothing else from an image or a manifest ever gets into a unit: what the app is made of is in its
//! launch record. So there is nothing to quote or escape here.
//!
//! Why a unit reads as it does:
//! - `Type=notify`: the start job ends when `app-exec` says so, right before it becomes the app, or when
//!   an app says so itself that can; a command that can't be executed is a failed start. `Type=exec` would
//!   end it with the exec of `app-exec`; and systemd 252 may see an app that ends at once as ended before
//!   it sees that exec, and calls the start failed (in 87 of 200 tries). What is told by sd_notify(3) it
//!   reads before it looks for ended processes.
//! - The reaper comes before the handlers of `post-stop`: these may hang, and then systemd gives up on all that follow.
//! - `DefaultDependencies=no` with `Conflicts=` and `Before=shutdown.target`: a start pulls in nothing,
//!   the end of the pod stops the app first, and no app starts once the pod is ending.
//! - `OnFailure=` of an app with a memory limit: the reaper runs in the app's cgroup. When that is full of what no
//!   process holds any more, such as files in /dev/shm, the reaper is killed too, and another one outside must do.
//! - `CollectMode=inactive-or-failed`: systemd forgets an app that has ended, so a unit that is
//!   removed and written again under the same name is read again, without a reload.
//! - `KillMode=mixed`: the stop signal goes to the app's main process; when it has ended, or the time
//!   is up, all that is left in the app's cgroup is killed.
//! - `OOMPolicy=continue`: a command that was entered and grew too big must not stop the app.
//! - `StandardError=tty`, the pod's console: `app-exec` hands the app's streams to the monitor before anything else can
//!   fail that is about the app, and what it has to say before that is not for the app's log.
//! - `IgnoreSIGPIPE=no`: systemd's other default is not what programs expect.

mod cgroup_limits;
mod health;
mod limits;
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

pub use cgroup_limits::CgroupLimits;
pub use health::HealthUnits;
pub use limits::{put_back, with_limits};
use section::{Section, milliseconds};

/// How long an app may take to end after its stop signal, unless it says otherwise.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How long an app may take to start, its handlers of `pre-start` too.
pub const START_TIMEOUT: Duration = Duration::from_secs(90);
/// The shortest time that a unit allows for a stop: the reaper, too, has to be done in it.
const STOP_TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// How long the reaper waits at most until the monitor has taken what the app has written.
const OUTPUT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest: systemd would not understand some that are longer.
const STOP_TIMEOUT_MAX: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// SIGTERM, which ends an app unless it says otherwise.
pub const STOP_SIGNAL: u8 = 15;
const SIGKILL: u8 = 9;

/// The time between an app's end and its first restart; systemd waits that long.
pub const RESTART_DELAY: Duration = Duration::from_secs(1);
/// The longest: each further one in a row takes twice as long as the one before.
const RESTART_DELAY_MAX: Duration = Duration::from_secs(5 * 60);
/// An app that has run for so long begins anew with the first.
pub const RESTART_RESET: Duration = Duration::from_secs(10 * 60);

/// How long after its end an app is started again, the `nth` time in a row, which is counted from 1.
pub fn restart_delay(nth: u32) -> Duration {
    let doubled = 1_u32.checked_shl(nth.saturating_sub(1)).unwrap_or(u32::MAX);
    RESTART_DELAY.saturating_mul(doubled).min(RESTART_DELAY_MAX)
}

/// Whether an app that ends is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Never.
    #[default]
    No,
    /// When it ends with a status other than 0 or by a signal: see [`restart_delay`].
    OnFailure,
    /// Whenever it ends by itself, likewise.
    Always,
}

/// All that an app's unit depends on.
#[derive(Clone, Debug)]
pub struct AppUnit<'a> {
    /// The app.
    pub app: &'a AcName,
    /// Whether the pod's systemd has the unified cgroup hierarchy (v2).
    pub unified: bool,
    /// Limits of its cgroup.
    pub limits: CgroupLimits,
    /// The app itself tells systemd when it is ready: a start waits for that, at most [`START_TIMEOUT`].
    pub notify: bool,
    /// There are commands to run before its start.
    pub pre_start: bool,
    /// There are commands to run after its end.
    pub post_stop: bool,
    /// Time between the stop signal and the kill; at least one second is allowed, as the reaper needs
    /// it too, and at most a year. Zero: a stop is a kill.
    pub stop_timeout: Duration,
    /// Number of the stop signal, 1 to 64.
    pub stop_signal: u8,
    /// Whether it is started again when it ends.
    pub restart: Restart,
    /// How often in a row.
    pub restart_limit: Option<u32>,
    /// It waits for other apps before it starts.
    pub waits: bool,
    /// When it is checked whether it is well.
    pub health: Option<HealthUnits>,
    /// Devices that it may use besides those that every app may.
    pub devices: &'a [DeviceRule],
    /// It may use and make any device.
    pub any_device: bool,
    /// Ports that systemd listens on for it, in a unit of their own, of [`socket_text`]: that unit is started
    /// then, and the app with the first connection.
    pub sockets: &'a [SocketPorts],
}

impl<'a> AppUnit<'a> {
    /// A unit with nothing declared.
    pub fn new(app: &'a AcName, unified: bool) -> Self {
        Self {
            app,
            unified,
            limits: CgroupLimits::default(),
            notify: false,
            pre_start: false,
            post_stop: false,
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

    /// The text of the unit.
    ///
    /// # Errors
    /// When a number is out of its range: systemd would ignore that line and start the app without it.
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
        // Also a child of a wrapper script may say it. None of them can do with it what the main
        // process could not.
        let backs_off = self.restart != Restart::No || self.health.is_some_and(|health| health.restarts);
        let notify_access = match self.notify {
            true => "all",
            // What waits for the next try, or for other apps, asks for time to do so.
            false if backs_off || self.waits => "exec",
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
        // What is left of the time is for the status itself.
        let wait = milliseconds((timeout * 3 / 4).min(OUTPUT_TIMEOUT));
        service
            .push("ExecStopPost", format_args!("{bin}/reaper --wait {wait} {restart}{limit}{checked}{sockets}{app}"));
        if self.post_stop {
            // Its failure is the handler's own.
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
        // Not systemd's own closed list, which has more than ours.
        service.push("DevicePolicy", "strict");
        if self.any_device {
            service.push("DeviceAllow", "char-* rwm");
            service.push("DeviceAllow", "block-* rwm");
        }
        for device in DEVICES.iter().chain(self.devices).filter(|_| !self.any_device) {
            service.push("DeviceAllow", device.directive());
        }
        for (name, value) in self.limits.directives(self.unified) {
            service.push(name, value);
        }
        Ok(unit.0 + "\n" + &service.0)
    }

    fn check(&self) -> Result<()> {
        if !(1..=64).contains(&self.stop_signal) {
            return Err(Error::new(format!("stop signal {} is not from 1 to 64", self.stop_signal)));
        }
        self.limits.check()
    }

    /// Writes the unit, and before it that of its sockets if it has any, each whole or not at all, host side, in the pod
    /// directory. This makes the app known to systemd, so it comes last.
    ///
    /// # Errors
    /// A number is out of its range, or a unit can't be written.
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

/// How long the unit of an app lets it take to end that declares `declared`: [`AppUnit::stop_timeout`].
pub fn allowed_stop_time(declared: Duration) -> Duration {
    match declared {
        // Of a kill, what follows it may take that long.
        Duration::ZERO => STOP_TIMEOUT,
        timeout => timeout.clamp(STOP_TIMEOUT_MIN, STOP_TIMEOUT_MAX),
    }
}

/// Whether the app has a unit: host side, in the pod directory.
///
/// # Errors
/// The units' directory can't be reached.
pub fn exists(app: &AcName) -> Result<bool> {
    is_there(&layout::unit_file(app))
}

/// Whether systemd listens on ports for the app: host side, in the pod directory.
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

/// What the app's installed unit says of its limits and its devices, as properties for another unit: host side, in the
/// pod directory.
///
/// # Errors
/// The unit does not exist, or a line of it is not as this module writes it.
pub fn installed_limits(app: &AcName) -> Result<Vec<(&'static str, Value)>> {
    let path = layout::unit_file(app);
    let text = limits::installed(app)?;
    let mut properties = Vec::new();
    let mut devices = Vec::new();
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let number = || value.parse().context(|| format!("{path:?}: {name}={value}"));
        match name {
            "DevicePolicy" => properties.push(("DevicePolicy", Value::Text(value.to_owned()))),
            "DeviceAllow" => {
                let (device, access) = value.split_once(' ').context(|| format!("{path:?}: {name}={value}"))?;
                devices.push((device.to_owned(), access.to_owned()));
            }
            "CPUQuota" => {
                let milli = value.trim_end_matches('%').replace('.', "").parse::<u64>();
                let milli = milli.context(|| format!("{path:?}: {name}={value}"))?;
                // Microseconds in each second.
                properties.push(("CPUQuotaPerSecUSec", Value::U64(milli * 1000)));
            }
            _ => {
                if let Some(known) = NUMBERS.iter().find(|known| **known == name) {
                    properties.push((known, Value::U64(number()?)));
                }
            }
        }
    }
    if !devices.is_empty() {
        properties.push(("DeviceAllow", Value::Pairs(devices)));
    }
    Ok(properties)
}

/// The limits of a unit that are plain numbers.
const NUMBERS: [&str; 8] =
    ["MemoryMax", "MemoryHigh", "MemorySwapMax", "TasksMax", "CPUWeight", "CPUShares", "IOWeight", "BlockIOWeight"];

/// Text of a drop-in for an app's unit that lets it take `timeout` to end.
pub fn stop_timeout_text(timeout: Duration) -> String {
    let mut service = Section::new("Service");
    service.push("TimeoutStopSec", format_args!("{}ms", milliseconds(timeout.min(STOP_TIMEOUT_MAX))));
    service.0
}

/// Removes the app's units, if it has any: host side, in the pod directory.
///
/// # Errors
/// One is there and can't be removed.
pub fn remove(app: &AcName) -> Result<()> {
    for path in [layout::unit_file(app), layout::socket_unit_file(app)] {
        remove_if_there(&path)?;
    }
    health::remove(app)
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

/// A range of ports that systemd listens on for an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketPorts {
    /// Protocol.
    pub protocol: Protocol,
    /// The first port.
    pub port: u16,
    /// How many.
    pub count: u16,
}

/// The text of the unit of an app's sockets: open as long as the app runs.
///
/// # Errors
/// When a port is 0 or above 65535.
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
            return Err(Error::new(format!("ports {} to {} of app {app} do not exist", range.port, last - 1)));
        }
        for port in u32::from(range.port)..last {
            socket.push(name, port);
        }
    }
    Ok(unit.0 + "\n" + &socket.0)
}

#[cfg(test)]
mod tests;

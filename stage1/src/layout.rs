//! Every path of a pod, once: CONTRACT section 1 and our own additions to it.
//!
//! Paths without a leading `/` are relative to the pod directory, which is every entrypoint's
//! current directory on the host side. Absolute ones are in the pod's own root.

use std::path::{Path, PathBuf};

use crate::appc::AcName;

/// Pod manifest.
pub const MANIFEST: &str = "pod";
/// Lock held around adding and removing apps.
pub const LOCK: &str = "pod.lck";
/// Empty; its modification time is the pod's creation time.
pub const CREATED: &str = "pod-created";
/// What `run` was told.
pub const RUNTIME_CONFIG: &str = "runtime-config";
/// PID of the pod's PID 1 in the host's view.
pub const PID: &str = "pid";
/// PID of the parent of the pod's PID 1, which has no other child.
pub const PPID: &str = "ppid";
/// cgroup path of the pod.
pub const SUBCGROUP: &str = "subcgroup";
/// Id of the rendered stage1 tree.
pub const STAGE1_TREE: &str = "stage1TreeStoreID";
/// Present when the pod uses overlayfs.
pub const OVERLAY_PREPARED: &str = "overlay-prepared";
/// Present when the pod's overlays are mounted `volatile`: they are removed with the pod at its end.
pub const OVERLAY_VOLATILE: &str = "overlay-volatile";
/// `shift:count` when the pod has a user namespace of its own.
pub const PRIVATE_USERS: &str = "private-users-prepared";
/// Link that names the stage1 flavor.
pub const FLAVOR: &str = "flavor";
/// Manifest of the stage1 image.
pub const STAGE1_MANIFEST: &str = "stage1/manifest";
/// Root file system of the stage1 image: the pod's root.
pub const STAGE1_ROOTFS: &str = "stage1/rootfs";

/// What the pod's console says, and the output of `run` where the host manager keeps it; `run` sees to it that it does
/// not grow without end.
pub const CONSOLE: &str = "console";
/// Where the pod's monitor listens for what the host asks.
pub const MONITOR_SOCKET: &str = "monitor";
/// The logs of the pod's apps: see [`app_logs`].
pub const LOGS: &str = "logs";

/// Directory of the log files of an app, which may be removed long since: see [`log_file`].
pub fn app_logs(app: &AcName) -> PathBuf {
    Path::new(LOGS).join(app.as_ref())
}

/// Name of an app's log file: the first has the number 1, the next one 2.
pub fn log_file(number: u64) -> String {
    format!("{number}.log")
}

/// The number in the name of a log file; `None` if it is not one's.
pub fn log_file_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".log")?.parse().ok()?;
    (log_file(number) == name).then_some(number)
}

/// The upper and work directories of the pod's overlays, by tree: see [`overlay_upper`].
pub const OVERLAY: &str = "overlay";
/// Backing directories of `empty` volumes.
pub const SHARED_VOLUMES: &str = "sharedVolumes";

/// What is known of the pod's networks.
pub const NETWORK_INFO: &str = "net-info.json";

/// The configurations of the pod's networks, and what is needed to leave them.
pub fn network_dir() -> PathBuf {
    PathBuf::from("net")
}

/// Where the host has named network namespaces, as ip-netns(8) has it.
pub const NETWORK_NAMESPACES: &str = "/var/run/netns";

/// The pod's network namespace: not in the pod's directory, which moves.
pub fn network_namespace(uuid: &str) -> PathBuf {
    Path::new(NETWORK_NAMESPACES).join(format!("cni-{uuid}"))
}

/// A directory that only root opens: who makes something that all pods of the host share locks it.
pub const HOST_LOCK: &str = "/run/stage1";

pub use crate::appc::MAX_APP_NAME;

fn in_rootfs(path: &str) -> PathBuf {
    PathBuf::from(STAGE1_ROOTFS).join(path)
}

/// What is kept about an app beside its root.
pub fn app_info(app: &AcName) -> PathBuf {
    PathBuf::from(format!("appsinfo/{app}"))
}

/// The app's image manifest.
pub fn app_image_manifest(app: &AcName) -> PathBuf {
    app_info(app).join("manifest")
}

/// What the pod's monitor is told about the app's streams.
pub fn app_streams(app: &AcName) -> PathBuf {
    app_info(app).join("streams")
}

/// Id of the app's rendered tree.
pub fn app_tree(app: &AcName) -> PathBuf {
    app_info(app).join("treeStoreID")
}

/// Backing directory of an `empty` volume.
pub fn shared_volume(volume: &AcName) -> PathBuf {
    Path::new(SHARED_VOLUMES).join(volume.as_ref())
}

/// Where an `empty` volume is filled before it appears: no volume's own name begins or ends like that.
pub fn unfinished_volume(volume: &AcName) -> PathBuf {
    Path::new(SHARED_VOLUMES).join(format!(".{volume}{UNFINISHED_VOLUME}"))
}

/// How the names of [`unfinished_volume`] end.
pub const UNFINISHED_VOLUME: &str = ".new";

/// Upper layer of a rendered tree's overlay: of an app's root or, for `None`, of the stage1 root.
pub fn overlay_upper(tree: &str, app: Option<&AcName>) -> PathBuf {
    overlay(tree, "upper", app)
}

/// Work directory that goes with [`overlay_upper`].
pub fn overlay_work(tree: &str, app: Option<&AcName>) -> PathBuf {
    overlay(tree, "work", app)
}

fn overlay(tree: &str, kind: &str, app: Option<&AcName>) -> PathBuf {
    let path = Path::new(OVERLAY).join(tree).join(kind);
    app.map_or_else(|| path.clone(), |app| path.join(app.as_ref()))
}

/// The app's part of the stage1 root.
pub fn app_dir(app: &AcName) -> PathBuf {
    in_rootfs(&format!("opt/stage2/{app}"))
}

/// The app's root file system, host side.
pub fn app_rootfs(app: &AcName) -> PathBuf {
    app_dir(app).join("rootfs")
}

/// Name of the launch record in [`app_dir`].
pub const LAUNCH: &str = "launch";

/// The app's launch record, host side.
pub fn launch_record(app: &AcName) -> PathBuf {
    app_dir(app).join(LAUNCH)
}

/// The app's environment, one `NAME=value` a line.
pub fn env_file(app: &AcName) -> PathBuf {
    in_rootfs(&format!("rkt/env/{app}"))
}

/// Directory of the apps' status files and markers, host side.
pub fn status_dir() -> PathBuf {
    in_rootfs("rkt/status")
}

/// Name, in [`status_dir`], of the marker whose time is when the app was added.
pub fn created_marker(app: &AcName) -> String {
    format!("{app}-created")
}

/// Name, in [`status_dir`], of the marker whose time is when the app was started last.
pub fn started_marker(app: &AcName) -> String {
    format!("{app}-started")
}

/// Name, in [`status_dir`], of what is known about the app's end besides its status. No app's name has a dot.
pub fn exit_details(app: &AcName) -> String {
    format!("{app}.exit")
}

/// Name, in [`status_dir`], of what the app's health checks say. No app's name has a dot.
pub fn health(app: &AcName) -> String {
    format!("{app}.health")
}

/// Name, beside the file `name`, of the room that is kept for it on the disk. No app's name has a dot.
pub fn room(name: &str) -> String {
    format!("{name}.room")
}

/// Names, in [`status_dir`], of all that may be there of an app. The first is gone first: an app without it is known
/// to be half removed.
pub fn status_files(app: &AcName) -> [String; 7] {
    let (status, details) = (app.to_string(), exit_details(app));
    let rooms = (room(&status), room(&details));
    [created_marker(app), started_marker(app), details, status, rooms.0, rooms.1, health(app)]
}

/// Endpoints of the app's streams, host side.
pub fn iottymux(app: &AcName) -> PathBuf {
    in_rootfs(&format!("rkt/iottymux/{app}"))
}

/// Directory of the apps' endpoints, pod side.
pub const IN_POD_IOTTYMUX: &str = "/rkt/iottymux";
/// Link that is `ready` once the pod's supervisor is, host side.
pub fn supervisor_status() -> PathBuf {
    in_rootfs("rkt/supervisor-status")
}

/// Directory of the units that are written from the host side.
pub fn units_dir() -> PathBuf {
    in_rootfs("etc/systemd/system")
}

/// The file of an app's unit.
pub fn unit_file(app: &AcName) -> PathBuf {
    units_dir().join(app_unit(app))
}

/// The file of the unit of an app's sockets.
pub fn socket_unit_file(app: &AcName) -> PathBuf {
    units_dir().join(app_socket(app))
}

/// Name of the unit of an app's sockets.
pub fn app_socket(app: &AcName) -> String {
    format!("app-{app}.socket")
}

/// Name of the timer of an app's health checks.
pub fn health_timer(app: &AcName) -> String {
    format!("health-{app}.timer")
}

/// Name of the unit of an app's health check.
pub fn health_service(app: &AcName) -> String {
    format!("health-{app}.service")
}

/// Name of an app's unit. The prefix keeps an app called `shutdown` apart from systemd's own.
pub fn app_unit(app: &AcName) -> String {
    format!("app-{app}.service")
}

/// Name of the unit, an instance of the image's, that writes down an app's end in place of a reaper that was killed.
pub fn late_reaper_unit(app: &AcName) -> String {
    format!("app-ended@{app}.service")
}

/// Where an app's processes are, below the pod's cgroup.
pub fn app_cgroup(app: &AcName) -> PathBuf {
    PathBuf::from(format!("system.slice/{}", app_unit(app)))
}

/// Where what writes down an app's end in place of its reaper runs, below the pod's cgroup.
pub fn late_reaper_cgroup(app: &AcName) -> PathBuf {
    Path::new(r"system.slice/system-app\x2dended.slice").join(late_reaper_unit(app))
}

/// resolv.conf of the pod, as stage0 or `run` put it, host side.
pub fn resolv_conf() -> PathBuf {
    in_rootfs("etc/rkt-resolv.conf")
}

/// hosts file of the pod, as stage0 put it, host side.
pub fn hosts() -> PathBuf {
    in_rootfs("etc/rkt-hosts")
}

/// The hosts file of a pod that nothing else is said for.
pub fn standard_hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4 {hostname}\n\
         ::1 localhost localhost6 localhost6.localdomain6 ip6-localhost ip6-loopback\n"
    )
}

/// The line of a hosts file by which a pod finds its own name.
pub fn own_hosts_line(hostname: &str) -> String {
    format!("127.0.0.1 {hostname}\n")
}

/// The in-pod supervisor.
pub const SUPERVISOR: &str = "/usr/lib/systemd/systemd";
/// Search path of the supervisor and its helpers.
pub const POD_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where our binaries are in the pod.
pub const BIN: &str = "/opt/stage1/bin";
/// The apps' environment files, pod side.
pub const IN_POD_ENV: &str = "/rkt/env";
/// Where a pod and each of its apps has a devpts of its own.
pub const DEVPTS: &str = "/dev/pts";
/// The apps' status files, pod side.
pub const IN_POD_STATUS: &str = "/rkt/status";
/// Link that is `ready` once the pod's supervisor is, pod side.
pub const IN_POD_SUPERVISOR_STATUS: &str = "/rkt/supervisor-status";
/// Directory of the pins of the apps' mount namespaces.
pub const PINS: &str = "/run/stage1/ns";
/// Directory of the units, and parts of units, of this run of the pod.
pub const RUNTIME_UNITS: &str = "/run/systemd/system";
/// Where the supervisor keeps what it was told to set of an app's unit while it runs, pod side.
pub fn control_drop_ins(app: &AcName) -> PathBuf {
    PathBuf::from(format!("/run/systemd/system.control/{}.d", app_unit(app)))
}

/// Where volumes in memory are mounted that all apps of the pod share, in the pod's mount namespace.
pub const MEMORY: &str = "/run/stage1/memory";
/// Directory of the notes on why apps could not be started.
pub const NOTES: &str = "/run/stage1/notes";
/// Where the pod's supervisor takes what services tell it: sd_notify(3).
pub const NOTIFY_SOCKET: &str = "/run/systemd/notify";
/// Where an app that tells the supervisor when it is ready finds [`NOTIFY_SOCKET`]: beside the devices, as that is
/// no part of its image, and no volume of /run can hide it.
pub const IN_APP_NOTIFY_SOCKET: &str = "/dev/notify";
/// A directory of the pod's root that is mounted over while an app's root is assembled.
pub const PLACEHOLDER: &str = "/opt/stage2";
/// /etc/hostname of every app.
pub const HOSTNAME_FILE: &str = "/run/stage1/hostname";
/// What a hidden file is covered with: empty, mode 0.
pub const MASK_FILE: &str = "/run/stage1/mask-file";
/// What a hidden directory is covered with: empty, mode 0.
pub const MASK_DIR: &str = "/run/stage1/mask-dir";
/// Where the pod's monitor listens for what the pod tells it, pod side.
pub const MONITOR: &str = "/run/stage1/monitor";
/// How much an app's /dev holds, in bytes: nodes, links, a socket. By this it is told from any other.
pub const DEV_SIZE: &str = "65536";
/// syslog(3)'s socket in an app.
pub const DEV_LOG: &str = "/dev/log";

/// The note on why an app could not be started, pod side.
pub fn note(app: &AcName) -> PathBuf {
    Path::new(NOTES).join(app.as_ref())
}

/// An app's exit status, pod side.
pub fn in_pod_status(app: &AcName) -> PathBuf {
    Path::new(IN_POD_STATUS).join(app.as_ref())
}

/// What else is known of an app's end, pod side.
pub fn in_pod_exit_details(app: &AcName) -> PathBuf {
    Path::new(IN_POD_STATUS).join(exit_details(app))
}

/// Directory of the drop-in that gives one stop of an app more time, pod side.
pub fn stop_drop_in(app: &AcName) -> PathBuf {
    Path::new(RUNTIME_UNITS).join(format!("{}.d", app_unit(app)))
}

/// Pin of an app's mount namespace.
pub fn pin(app: &AcName) -> PathBuf {
    PathBuf::from(PINS).join(app.as_ref())
}

/// The directory and name of the app's launch record, pod side.
pub fn in_pod_launch_record(app: &AcName) -> (PathBuf, &'static str) {
    (PathBuf::from(format!("/opt/stage2/{app}")), LAUNCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_app_name_fits_wherever_it_goes() {
        let app: AcName = "x".repeat(MAX_APP_NAME).parse().unwrap();
        let longest =
            [app_unit(&app), created_marker(&app), started_marker(&app), format!("{}.socket", app_unit(&app))];
        assert!(MAX_APP_NAME >= 200 && longest.iter().all(|name| name.len() < 255), "{longest:?}");
    }

    #[test]
    fn names_stay_apart_from_systemds_own() {
        for name in ["shutdown", "dbus", "systemd-journald", "default"] {
            assert_eq!(app_unit(&name.parse().unwrap()), format!("app-{name}.service"));
        }
    }

    #[test]
    fn paths_of_the_contract() {
        let app: AcName = "a".parse().unwrap();
        for (path, expected) in [
            (app_image_manifest(&app), "appsinfo/a/manifest"),
            (app_tree(&app), "appsinfo/a/treeStoreID"),
            (overlay_upper("t", Some(&app)), "overlay/t/upper/a"),
            (overlay_upper("t", None), "overlay/t/upper"),
            (overlay_work("t", Some(&app)), "overlay/t/work/a"),
            (shared_volume(&app), "sharedVolumes/a"),
            (app_rootfs(&app), "stage1/rootfs/opt/stage2/a/rootfs"),
            (env_file(&app), "stage1/rootfs/rkt/env/a"),
            (status_dir().join(created_marker(&app)), "stage1/rootfs/rkt/status/a-created"),
            (status_dir().join(started_marker(&app)), "stage1/rootfs/rkt/status/a-started"),
            (supervisor_status(), "stage1/rootfs/rkt/supervisor-status"),
            (iottymux(&app), "stage1/rootfs/rkt/iottymux/a"),
            (pin(&app), "/run/stage1/ns/a"),
        ] {
            assert_eq!(path, Path::new(expected));
        }
    }
}

//! Every path of a pod, once: those of CONTRACT section 1 and those that this stage1 adds.
//!
//! Paths without a leading `/` are relative to the pod directory, which is every entrypoint's current directory on the
//! host side. Absolute paths are in the pod's own root, unless their comment says that they are the host's.

use std::path::{Path, PathBuf};

use crate::appc::AcName;

/// Pod manifest.
pub const MANIFEST: &str = "pod";
/// Lock held around adding and removing apps.
pub const LOCK: &str = "pod.lck";
/// Empty; its modification time is the pod's creation time.
pub const CREATED: &str = "pod-created";
/// How `run` was called, JSON: CONTRACT section 6.
pub const RUNTIME_CONFIG: &str = "runtime-config";
/// PID of the pod's PID 1 in the host's view.
pub const PID: &str = "pid";
/// PID of the parent of the pod's PID 1, which has no other child.
pub const PPID: &str = "ppid";
/// Path of the pod's cgroup, without the mount point of a hierarchy.
pub const SUBCGROUP: &str = "subcgroup";
/// Id of the rendered stage1 tree.
pub const STAGE1_TREE: &str = "stage1TreeStoreID";
/// Present when the pod uses overlayfs.
pub const OVERLAY_PREPARED: &str = "overlay-prepared";
/// Present when the pod's overlays are mounted `volatile`: they are removed with the pod at its end.
pub const OVERLAY_VOLATILE: &str = "overlay-volatile";
/// `shift:count` when the pod has a user namespace of its own.
pub const PRIVATE_USERS: &str = "private-users-prepared";
/// Symbolic link whose target names the stage1 flavor.
pub const FLAVOR: &str = "flavor";
/// Manifest of the stage1 image.
pub const STAGE1_MANIFEST: &str = "stage1/manifest";
/// Root file system of the stage1 image: the pod's root.
pub const STAGE1_ROOTFS: &str = "stage1/rootfs";

/// Messages of PID 1, and the output of `run` if the host manager has directed it here. `run` bounds the file's size.
pub const CONSOLE: &str = "console";
/// Socket on which the pod's monitor takes requests of the host.
pub const MONITOR_SOCKET: &str = "monitor";
/// The logs of the pod's apps: see [`app_logs`].
pub const LOGS: &str = "logs";

/// What the host knows to have happened to the pod: [`crate::pod::events`].
pub const EVENTS: &str = "events";

/// Directory of the log files of an app, see [`log_file`]. It stays when the app is removed.
pub fn app_logs(app: &AcName) -> PathBuf {
    Path::new(LOGS).join(app.as_ref())
}

/// Name of an app's log file: the first has the number 1, the next one 2.
pub fn log_file(number: u64) -> String {
    format!("{number}.log")
}

/// The number in the name of a log file; `None` for any other name.
pub fn log_file_number(name: &str) -> Option<u64> {
    let number = name.strip_suffix(".log")?.parse().ok()?;
    (log_file(number) == name).then_some(number)
}

/// The upper and work directories of the pod's overlays, by tree: see [`overlay_upper`].
pub const OVERLAY: &str = "overlay";
/// Backing directories of `empty` volumes.
pub const SHARED_VOLUMES: &str = "sharedVolumes";

/// The pod's networks and their addresses, JSON.
pub const NETWORK_INFO: &str = "net-info.json";

/// Directory of the configurations of the pod's networks, and of the records that are needed to leave them.
pub fn network_dir() -> PathBuf {
    PathBuf::from("net")
}

/// Directory of named network namespaces on the host: ip-netns(8).
pub const NETWORK_NAMESPACES: &str = "/var/run/netns";

/// Pin of the pod's network namespace on the host: not in the pod directory, which is renamed with every phase.
pub fn network_namespace(uuid: &str) -> PathBuf {
    Path::new(NETWORK_NAMESPACES).join(format!("cni-{uuid}"))
}

/// Directory of the host, mode 0700. Whoever makes something that all pods of the host share holds a flock(2) on it.
pub const HOST_LOCK: &str = "/run/stage1";

pub use crate::appc::MAX_APP_NAME;

fn in_rootfs(path: &str) -> PathBuf {
    PathBuf::from(STAGE1_ROOTFS).join(path)
}

/// Directory of the app's files on the host side: image manifest, tree id, streams.
pub fn app_info(app: &AcName) -> PathBuf {
    PathBuf::from(format!("appsinfo/{app}"))
}

/// The app's image manifest.
pub fn app_image_manifest(app: &AcName) -> PathBuf {
    app_info(app).join("manifest")
}

/// The settings of the app's streams, which the pod's monitor reads.
pub fn app_streams(app: &AcName) -> PathBuf {
    app_info(app).join("streams")
}

/// Id of the app's rendered tree.
pub fn app_tree(app: &AcName) -> PathBuf {
    app_info(app).join("treeStoreID")
}

/// File in [`app_info`]: the ids of the trees of images that the app has mounted, one a line.
pub const IMAGE_VOLUMES: &str = "imageVolumes";

/// The file [`IMAGE_VOLUMES`] of an app.
pub fn app_image_volumes(app: &AcName) -> PathBuf {
    app_info(app).join(IMAGE_VOLUMES)
}

/// Backing directory of an `empty` volume.
pub fn shared_volume(volume: &AcName) -> PathBuf {
    Path::new(SHARED_VOLUMES).join(volume.as_ref())
}

/// Directory in which an `empty` volume is filled before it is renamed to [`shared_volume`]. No volume's name begins
/// with a dot.
pub fn unfinished_volume(volume: &AcName) -> PathBuf {
    Path::new(SHARED_VOLUMES).join(format!(".{volume}{UNFINISHED_VOLUME}"))
}

/// Suffix of the names of [`unfinished_volume`].
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

/// The app's directory in the stage1 root, host side.
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

/// The app's environment, one `NAME=value` per line, host side.
pub fn env_file(app: &AcName) -> PathBuf {
    in_rootfs(&format!("rkt/env/{app}"))
}

/// Directory of the apps' status files and markers, host side.
pub fn status_dir() -> PathBuf {
    in_rootfs("rkt/status")
}

/// Name, in [`status_dir`], of the marker whose mtime is the time at which the app was added.
pub fn created_marker(app: &AcName) -> String {
    format!("{app}-created")
}

/// Name, in [`status_dir`], of the marker whose mtime is the time of the app's last start.
pub fn started_marker(app: &AcName) -> String {
    format!("{app}-started")
}

/// Name, in [`status_dir`], of the file with details of the app's end besides its exit status. No app's name has a dot.
pub fn exit_details(app: &AcName) -> String {
    format!("{app}.exit")
}

/// Name, in [`status_dir`], of the file with the results of the app's health checks. No app's name has a dot.
pub fn health(app: &AcName) -> String {
    format!("{app}.health")
}

/// Name of the file that reserves disk space for the file `name` in the same directory. No app's name has a dot.
pub fn room(name: &str) -> String {
    format!("{name}.room")
}

/// Names, in [`status_dir`], of all files of an app, in the order of their removal: an app without the first is known
/// to be half removed.
pub fn status_files(app: &AcName) -> [String; 7] {
    let (status, details) = (app.to_string(), exit_details(app));
    let rooms = (room(&status), room(&details));
    [created_marker(app), started_marker(app), details, status, rooms.0, rooms.1, health(app)]
}

/// Directory of the sockets of the app's streams, host side.
pub fn iottymux(app: &AcName) -> PathBuf {
    in_rootfs(&format!("rkt/iottymux/{app}"))
}

/// Directory of the sockets of the apps' streams, pod side.
pub const IN_POD_IOTTYMUX: &str = "/rkt/iottymux";

/// Directory of the pod's own [`EVENTS`], host side: what has happened to the apps, as the pod notes it.
pub fn pod_events_dir() -> PathBuf {
    in_rootfs("rkt")
}

/// [`pod_events_dir`], pod side.
pub const IN_POD_EVENTS_DIR: &str = "/rkt";

/// Symbolic link to `ready` from the moment at which the pod takes apps, host side.
pub fn supervisor_status() -> PathBuf {
    in_rootfs("rkt/supervisor-status")
}

/// Directory of the units that entrypoints write from the host side.
pub fn units_dir() -> PathBuf {
    in_rootfs("etc/systemd/system")
}

/// The file of an app's service unit, host side.
pub fn unit_file(app: &AcName) -> PathBuf {
    units_dir().join(app_unit(app))
}

/// The file of the unit of an app's sockets, host side.
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

/// Name of an app's service unit. The prefix keeps an app called `shutdown` apart from systemd's own unit.
pub fn app_unit(app: &AcName) -> String {
    format!("app-{app}.service")
}

/// Name of the unit that records an app's end if the app's reaper was killed: an instance of a template in the image.
pub fn late_reaper_unit(app: &AcName) -> String {
    format!("app-ended@{app}.service")
}

/// cgroup of an app's processes, relative to the pod's cgroup.
pub fn app_cgroup(app: &AcName) -> PathBuf {
    PathBuf::from(format!("system.slice/{}", app_unit(app)))
}

/// cgroup of [`late_reaper_unit`], relative to the pod's cgroup.
pub fn late_reaper_cgroup(app: &AcName) -> PathBuf {
    Path::new(r"system.slice/system-app\x2dended.slice").join(late_reaper_unit(app))
}

/// resolv.conf of the pod, written by stage0 or `run`, host side.
pub fn resolv_conf() -> PathBuf {
    in_rootfs("etc/rkt-resolv.conf")
}

/// hosts file of the pod, written by stage0, host side.
pub fn hosts() -> PathBuf {
    in_rootfs("etc/rkt-hosts")
}

/// The content of a pod's hosts file, unless the user or stage0 brings another one: hosts(5).
pub fn standard_hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1 localhost localhost.domain localhost4 localhost4.localdomain4 {hostname}\n\
         ::1 localhost localhost6 localhost6.localdomain6 ip6-localhost ip6-loopback\n"
    )
}

/// The line of a hosts file that resolves the pod's own host name.
pub fn own_hosts_line(hostname: &str) -> String {
    format!("127.0.0.1 {hostname}\n")
}

/// PID 1 of the pod, which supervises the apps, pod side.
pub const SUPERVISOR: &str = "/usr/lib/systemd/systemd";
/// `PATH` of the supervisor and its helpers.
pub const POD_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Directory of our binaries, pod side.
pub const BIN: &str = "/opt/stage1/bin";
/// The apps' environment files, pod side.
pub const IN_POD_ENV: &str = "/rkt/env";
/// Mount point of the devpts that the pod and each of its apps has.
pub const DEVPTS: &str = "/dev/pts";
/// The apps' status files, pod side.
pub const IN_POD_STATUS: &str = "/rkt/status";
/// [`supervisor_status`], pod side.
pub const IN_POD_SUPERVISOR_STATUS: &str = "/rkt/supervisor-status";
/// Directory of the pins of the apps' mount namespaces.
pub const PINS: &str = "/run/stage1/ns";
/// Directory of the units and drop-ins that last until the pod ends: systemd.unit(5), pod side.
pub const RUNTIME_UNITS: &str = "/run/systemd/system";

/// Directory of the drop-ins in which the supervisor keeps the properties that were set on an app's running unit, pod
/// side.
pub fn control_drop_ins(app: &AcName) -> PathBuf {
    PathBuf::from(format!("/run/systemd/system.control/{}.d", app_unit(app)))
}

/// Directory of the mounts of volumes in memory, which all apps of the pod share, in the pod's mount namespace.
pub const MEMORY: &str = "/run/stage1/memory";
/// Directory of the notes that the reaper reads, pod side: see [`note`] and [`stop_note`].
pub const NOTES: &str = "/run/stage1/notes";
/// Socket on which the pod's supervisor takes the messages of services: sd_notify(3).
pub const NOTIFY_SOCKET: &str = "/run/systemd/notify";
/// [`NOTIFY_SOCKET`] in an app whose start waits for its `READY=1`. It is in /dev, which is never part of the image and
/// which a volume at /run does not hide.
pub const IN_APP_NOTIFY_SOCKET: &str = "/dev/notify";
/// Directory of the pod's root over which an app's root is mounted while it is assembled.
pub const PLACEHOLDER: &str = "/opt/stage2";
/// /etc/hostname of every app.
pub const HOSTNAME_FILE: &str = "/run/stage1/hostname";
/// Empty file of mode 0, mounted over each hidden file.
pub const MASK_FILE: &str = "/run/stage1/mask-file";
/// Empty directory of mode 0, mounted over each hidden directory.
pub const MASK_DIR: &str = "/run/stage1/mask-dir";
/// Socket on which the pod's monitor takes requests of the pod's processes, pod side.
pub const MONITOR: &str = "/run/stage1/monitor";
/// Size of the tmpfs on an app's /dev, in bytes: enough for nodes, links and a socket. By this size the app's own /dev
/// is recognised.
pub const DEV_SIZE: &str = "65536";
/// syslog(3)'s socket in an app.
pub const DEV_LOG: &str = "/dev/log";

/// File with the error of an app that could not be started, pod side.
pub fn note(app: &AcName) -> PathBuf {
    Path::new(NOTES).join(app.as_ref())
}

/// File that exists while `app-stop` stops an app, pod side. No app's name has a dot.
pub fn stop_note(app: &AcName) -> PathBuf {
    Path::new(NOTES).join(format!("{app}.stop"))
}

/// An app's exit status, pod side.
pub fn in_pod_status(app: &AcName) -> PathBuf {
    Path::new(IN_POD_STATUS).join(app.as_ref())
}

/// [`exit_details`] of an app, pod side.
pub fn in_pod_exit_details(app: &AcName) -> PathBuf {
    Path::new(IN_POD_STATUS).join(exit_details(app))
}

/// Directory of the drop-in that changes the timeout of one stop of an app, pod side.
pub fn stop_drop_in(app: &AcName) -> PathBuf {
    Path::new(RUNTIME_UNITS).join(format!("{}.d", app_unit(app)))
}

/// Pin of an app's mount namespace, pod side.
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

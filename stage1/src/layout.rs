//! Every path of a pod, once: CONTRACT section 1 and our own additions to it.
//!
//! Paths without a leading `/` are relative to the pod directory, which is every entrypoint's
//! current directory on the host side. Absolute ones are in the pod's own root.

use std::path::PathBuf;

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
/// `shift:count` when the pod has a user namespace of its own.
pub const PRIVATE_USERS: &str = "private-users-prepared";
/// Link that names the stage1 flavor.
pub const FLAVOR: &str = "flavor";
/// Manifest of the stage1 image.
pub const STAGE1_MANIFEST: &str = "stage1/manifest";
/// Root file system of the stage1 image: the pod's root.
pub const STAGE1_ROOTFS: &str = "stage1/rootfs";

/// Longest app name: with prefix, suffix and a temporary file's mark it still fits a file name.
pub const MAX_APP_NAME: usize = 220;

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

/// Id of the app's rendered tree.
pub fn app_tree(app: &AcName) -> PathBuf {
    app_info(app).join("treeStoreID")
}

/// Backing directory of an `empty` volume.
pub fn shared_volume(volume: &AcName) -> PathBuf {
    PathBuf::from(format!("sharedVolumes/{volume}"))
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

/// Link that is `ready` once the pod's supervisor is, host side.
pub fn supervisor_status() -> PathBuf {
    in_rootfs("rkt/supervisor-status")
}

/// Directory of the units that are written from the host side.
pub fn units_dir() -> PathBuf {
    in_rootfs("etc/systemd/system")
}

/// Name of an app's unit. The prefix keeps an app called `shutdown` apart from systemd's own.
pub fn app_unit(app: &AcName) -> String {
    format!("app-{app}.service")
}

/// Where an app's processes are, below the pod's cgroup.
pub fn app_cgroup(app: &AcName) -> PathBuf {
    PathBuf::from(format!("system.slice/{}", app_unit(app)))
}

/// resolv.conf of the pod, as stage0 or `run` put it, host side.
pub fn resolv_conf() -> PathBuf {
    in_rootfs("etc/rkt-resolv.conf")
}

/// hosts file of the pod, as stage0 put it, host side.
pub fn hosts() -> PathBuf {
    in_rootfs("etc/rkt-hosts")
}

/// The in-pod supervisor.
pub const SUPERVISOR: &str = "/usr/lib/systemd/systemd";
/// Search path of the supervisor and its helpers.
pub const POD_PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin";
/// Where our binaries are in the pod.
pub const BIN: &str = "/opt/stage1/bin";
/// The apps' status files, pod side.
pub const IN_POD_STATUS: &str = "/rkt/status";
/// Link that is `ready` once the pod's supervisor is, pod side.
pub const IN_POD_SUPERVISOR_STATUS: &str = "/rkt/supervisor-status";
/// Directory of the pins of the apps' mount namespaces.
pub const PINS: &str = "/run/stage1/ns";
/// A directory of the pod's root that is mounted over while an app's root is assembled.
pub const PLACEHOLDER: &str = "/opt/stage2";
/// /etc/hostname of every app.
pub const HOSTNAME_FILE: &str = "/run/stage1/hostname";
/// /etc/hosts of an app whose image and pod have none.
pub const HOSTS_FALLBACK: &str = "/run/stage1/hosts";
/// What a hidden file is covered with: empty, mode 0.
pub const MASK_FILE: &str = "/run/stage1/mask-file";
/// What a hidden directory is covered with: empty, mode 0.
pub const MASK_DIR: &str = "/run/stage1/mask-dir";
/// syslog(3)'s socket in the pod.
pub const JOURNAL_SOCKET: &str = "/run/systemd/journal/dev-log";

/// Pin of an app's mount namespace.
pub fn pin(app: &AcName) -> PathBuf {
    PathBuf::from(PINS).join(app.as_ref())
}

/// The directory and name of the app's launch record, pod side.
pub fn in_pod_launch_record(app: &AcName) -> (PathBuf, &'static str) {
    (PathBuf::from(format!("/opt/stage2/{app}")), LAUNCH)
}

//! A second host manager, written from docs/contract.md only: it shares no code with ours, and unpacks the stage1 image
//! as it was built. What works with it works with any host manager of the rkt family.

mod files;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::mount::{MntFlags, umount2};
use serde_json::{Value, json};

use self::files::{json_file, lock, make, overlay, remove, rename, replace, shift_owners, touch, write};
use crate::image;
use crate::process::{Output, run, wait_for};

/// Id of the rendered stage1 tree.
const STAGE1_TREE: &str = "deps-sha512-stage1";
/// Id of the rendered tree of the probe image.
const APP_TREE: &str = "deps-sha512-probe";

/// The kind of a pod.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    /// Whether its roots are overlays; otherwise they are copies of the trees.
    pub overlay: bool,
    /// Whether apps can be added and removed while it runs; otherwise it has the declared ones.
    pub mutable: bool,
    /// Whether every entrypoint is given `--debug`.
    pub debug: bool,
    /// The first of 65536 host ids of its user namespace; `None` if it has none.
    pub shift: Option<u32>,
}

impl Default for Kind {
    fn default() -> Self {
        Self { overlay: true, mutable: true, debug: false, shift: None }
    }
}

/// The manager: a data directory with a rendered stage1 and a rendered probe image.
#[derive(Debug)]
pub struct MiniHost {
    data: PathBuf,
}

impl MiniHost {
    /// Renders the images into a new data directory.
    pub fn new(data: &Path, stage1: &Path) -> Self {
        let tree = data.join("trees").join(STAGE1_TREE);
        make(&tree);
        run(Command::new("tar")
            .arg("-xzf")
            .arg(stage1)
            .arg("-C")
            .arg(&tree)
            .args(["--numeric-owner", "--same-permissions"]))
        .ok();
        image::rootfs(&data.join("trees").join(APP_TREE).join("rootfs"));
        for phase in ["embryo", "prepare", "prepared", "run", "exited-garbage", "garbage"] {
            make(&data.join("pods").join(phase));
        }
        Self { data: data.to_owned() }
    }

    /// The stage1 image's manifest.
    #[track_caller]
    pub fn stage1_manifest(&self) -> Value {
        json_file(&self.data.join("trees").join(STAGE1_TREE).join("manifest"))
    }

    fn tree(&self, id: &str) -> PathBuf {
        self.data.join("trees").join(id).join("rootfs")
    }

    /// Prepares a mutable pod (phase `prepared`) with these volumes.
    #[track_caller]
    pub fn prepare(&self, volumes: &Value) -> MiniPod<'_> {
        self.prepare_as(Kind::default(), volumes)
    }

    /// Prepares a pod of this kind.
    #[track_caller]
    pub fn prepare_as(&self, kind: Kind, volumes: &Value) -> MiniPod<'_> {
        let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid").expect("a random uuid").trim().to_owned();
        let phase = |name: &str| self.data.join("pods").join(name).join(&uuid);
        fs::DirBuilder::new().mode(0o750).create(phase("embryo")).expect("mkdir embryo");
        let lock = lock(&phase("embryo"));
        rename(&phase("embryo"), &phase("prepare"));
        let dir = phase("prepare");

        let manifest = json!({
            "acKind": "PodManifest", "acVersion": "0.8.11", "apps": [], "volumes": volumes, "isolators": null,
            "annotations": [{"name": "coreos.com/rkt/stage1/mutable", "value": kind.mutable.to_string()}], "ports": [],
        });
        write(&dir.join("pod"), &manifest.to_string(), 0o640);
        write(&dir.join("pod-created"), "", 0o640);
        write(&dir.join("pod.lck"), "", 0o600);
        write(&dir.join("stage1TreeStoreID"), STAGE1_TREE, 0o600);
        if kind.overlay {
            write(&dir.join("overlay-prepared"), "", 0o600);
        }
        if let Some(shift) = kind.shift {
            write(&dir.join("private-users-prepared"), &format!("{shift}:65536"), 0o644);
        }
        make(&dir.join("appsinfo"));
        make(&dir.join("stage1/rootfs"));
        let stage1 = self.data.join("trees").join(STAGE1_TREE).join("manifest");
        fs::copy(stage1, dir.join("stage1/manifest")).expect("copy the stage1 manifest");
        drop(lock);
        rename(&dir, &phase("prepared"));
        MiniPod { host: self, uuid, apps: Vec::new(), kind }
    }

    /// Prepares and boots a mutable pod, and waits until it is ready.
    #[track_caller]
    pub fn boot(&self, volumes: &Value, flags: &[&str]) -> (MiniPod<'_>, Child) {
        self.boot_as(Kind::default(), volumes, flags)
    }

    /// Prepares and boots a mutable pod of this kind, and waits until it is ready.
    #[track_caller]
    pub fn boot_as(&self, kind: Kind, volumes: &Value, flags: &[&str]) -> (MiniPod<'_>, Child) {
        let pod = self.prepare_as(kind, volumes);
        let ids = pod.ids();
        let child = pod.start(&[flags, &ids.iter().map(String::as_str).collect::<Vec<_>>()].concat());
        pod.wait_ready();
        (pod, child)
    }
}

/// A pod made by this manager.
#[derive(Debug)]
pub struct MiniPod<'a> {
    host: &'a MiniHost,
    /// Its UUID.
    pub uuid: String,
    apps: Vec<String>,
    kind: Kind,
}

impl<'a> MiniPod<'a> {
    /// Gives it a user namespace with 65536 host ids from `shift` on. Its roots are shifted copies of the trees in
    /// place of overlays.
    #[must_use]
    pub fn with_ids(self, shift: u32) -> Self {
        let dir = self.in_phase("prepared");
        fs::remove_file(dir.join("overlay-prepared")).expect("rm overlay-prepared");
        write(&dir.join("private-users-prepared"), &format!("{shift}:65536"), 0o644);
        Self { kind: Kind { overlay: false, shift: Some(shift), ..self.kind }, ..self }
    }

    /// Mounts or copies a tree at `at`, as the pod's kind says.
    fn render(&self, tree: &str, app: &str, at: &Path) {
        if self.kind.overlay {
            return overlay(&self.host.tree(tree), &self.dir().join("overlay").join(tree), app, at);
        }
        run(Command::new("cp").arg("-aT").arg(self.host.tree(tree)).arg(at)).ok();
        if let Some(shift) = self.kind.shift {
            shift_owners(at, shift);
        }
    }

    fn unmount(&self, root: &Path) {
        if self.kind.overlay {
            // Without MNT_DETACH: this fails if anything still uses it.
            umount2(root, MntFlags::empty()).unwrap_or_else(|e| panic!("unmount {}: {e}", root.display()));
        }
    }

    /// Its directory in a phase.
    pub fn in_phase(&self, phase: &str) -> PathBuf {
        self.host.data.join("pods").join(phase).join(&self.uuid)
    }

    /// Its directory while it runs.
    pub fn dir(&self) -> PathBuf {
        self.in_phase("run")
    }

    /// The directory with the files that are written to its stage1 root.
    pub fn upper(&self) -> PathBuf {
        if !self.kind.overlay {
            return self.dir().join("stage1/rootfs");
        }
        self.dir().join("overlay").join(STAGE1_TREE).join("upper")
    }

    /// The entrypoint that an annotation of the stage1 manifest names, in the pod's stage1 root.
    #[track_caller]
    pub fn entrypoint(&self, annotation: &str) -> PathBuf {
        let name = format!("coreos.com/rkt/stage1/{annotation}");
        let manifest = self.host.stage1_manifest();
        let all = manifest["annotations"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|a| a["name"] == name.as_str()).unwrap_or_else(|| panic!("no annotation {name}"));
        let path = found["value"].as_str().unwrap_or_default();
        PathBuf::from("stage1/rootfs").join(path.trim_start_matches('/'))
    }

    fn debug(&self) -> String {
        format!("--debug={}", self.kind.debug)
    }

    /// The option `--private-users`, if it has a user namespace.
    fn ids(&self) -> Option<String> {
        self.kind.shift.map(|shift| format!("--private-users={shift}:65536"))
    }

    /// Mounts all roots. Returns the command of `run`, and the pod's lock, which must be open until the command has
    /// inherited it.
    #[track_caller]
    pub fn run_command(&self, flags: &[&str]) -> (Command, File) {
        let lock = lock(&self.in_phase("prepared"));
        rename(&self.in_phase("prepared"), &self.dir());
        let dir = self.dir();
        self.render(STAGE1_TREE, "", &dir.join("stage1/rootfs"));
        touch(&dir.join("stage1/rootfs/rkt/status"));
        for app in &self.apps {
            self.render_app(app);
        }
        // The one descriptor that the entrypoint inherits.
        fcntl(&lock, FcntlArg::F_SETFD(FdFlag::empty())).expect("fcntl(F_SETFD)");
        let mut command = Command::new(dir.join(self.entrypoint("run")));
        command
            .arg(self.debug())
            .args(flags)
            .args(self.kind.mutable.then_some("--mutable"))
            .arg(&self.uuid)
            .current_dir(&dir)
            .env("RKT_LOCK_FD", lock.as_raw_fd().to_string())
            .env("RKT_SELINUX_CONTEXT", "")
            .env("RKT_SELINUX_MOUNT_CONTEXT", "")
            .stdin(Stdio::null());
        (command, lock)
    }

    /// Executes `run`.
    #[track_caller]
    pub fn start(&self, flags: &[&str]) -> Child {
        let (mut command, _lock) = self.run_command(flags);
        command.spawn().expect("run")
    }

    /// Executes `run` with its standard error in the returned file.
    #[track_caller]
    pub fn start_with_output(&self, flags: &[&str]) -> (Child, PathBuf) {
        let path = self.host.data.join(format!("{}.said", self.uuid));
        let (mut command, _lock) = self.run_command(flags);
        let child = command.stderr(File::create(&path).expect("create")).spawn().expect("run");
        (child, path)
    }

    /// Executes `run` and waits for its end.
    #[track_caller]
    pub fn run_to_end(&self, flags: &[&str]) -> Output {
        let (mut command, _lock) = self.run_command(flags);
        run(&mut command)
    }

    /// Waits until the pod is ready.
    #[track_caller]
    pub fn wait_ready(&self) {
        let link = self.upper().join("rkt/supervisor-status");
        wait_for("the supervisor to be ready", 30, || fs::read_link(&link).ok().filter(|to| to == Path::new("ready")));
    }

    /// Whether the pod's lock is held: then the pod runs.
    pub fn is_locked(&self) -> bool {
        File::open(self.dir()).expect("open the pod").try_lock().is_err()
    }

    /// PID of the pod's PID 1, from the file `pid` or `ppid`.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        wait_for("pid or ppid", 10, || {
            if let Ok(text) = fs::read_to_string(self.dir().join("pid")) {
                return text.trim().parse().ok();
            }
            let parent = fs::read_to_string(self.dir().join("ppid")).ok()?;
            let parent = parent.trim();
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
            children.split_whitespace().next()?.parse().ok()
        })
    }

    /// Executes a crossing entrypoint with the environment of the contract only.
    #[track_caller]
    pub fn cross(&self, annotation: &str, args: &[&str]) -> Output {
        run(&mut self.crossing(annotation, args))
    }

    /// The command of [`MiniPod::cross`].
    #[track_caller]
    pub fn crossing(&self, annotation: &str, args: &[&str]) -> Command {
        let mut command = Command::new(self.dir().join(self.entrypoint(annotation)));
        command
            .args(args)
            .current_dir(self.dir())
            .env_clear()
            .env("RKT_STAGE1_ENTERCMD", self.dir().join(self.entrypoint("enter")))
            .env("RKT_STAGE1_ENTERPID", self.pid().to_string())
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin:/bin")));
        command
    }

    /// Writes the app's files to the pod directory `dir`, and its entry to the pod's manifest. `more` has further
    /// fields of the app, and the entry's annotations.
    #[track_caller]
    fn list_app(&mut self, dir: &Path, app: &str, exec: &[&str], mounts: &Value, more: &Value) {
        let mut section = json!({ "exec": exec, "user": "0", "group": "0" });
        if let (Some(into), Some(from)) = (section.as_object_mut(), more.as_object()) {
            into.extend(from.iter().filter(|(k, _)| *k != "annotations").map(|(k, v)| (k.clone(), v.clone())));
        }
        let image = image::manifest("example.com/probe", &section);
        make(&dir.join("appsinfo").join(app));
        write(&dir.join("appsinfo").join(app).join("manifest"), &image.to_string(), 0o600);
        write(&dir.join("appsinfo").join(app).join("treeStoreID"), APP_TREE, 0o600);
        let mut manifest = json_file(&dir.join("pod"));
        let entry = json!({
            "name": app,
            "image": { "name": "example.com/probe", "id": format!("sha512-{}", "0".repeat(128)) },
            "app": section,
            "mounts": mounts,
            "annotations": more["annotations"],
        });
        manifest["apps"].as_array_mut().expect("apps").push(entry);
        replace(&dir.join("pod"), &manifest.to_string());
        self.apps.push(app.to_owned());
    }

    /// Makes the app's root.
    #[track_caller]
    fn render_app(&self, app: &str) {
        let stage2 = self.dir().join("stage1/rootfs/opt/stage2").join(app);
        make(&stage2.join("rootfs"));
        fs::copy(self.dir().join("appsinfo").join(app).join("manifest"), stage2.join("manifest")).expect("copy");
        self.render(APP_TREE, app, &stage2.join("rootfs"));
    }

    /// Adds an app to a pod that is not started yet.
    #[track_caller]
    pub fn declare(&mut self, app: &str, exec: &[&str], mounts: &Value, more: &Value) {
        self.list_app(&self.in_phase("prepared"), app, exec, mounts, more);
    }

    /// Does what stage0 does before `app-add`: trees, overlay, manifest, environment, marker.
    #[track_caller]
    pub fn stage(&mut self, app: &str, exec: &[&str], mounts: &Value, more: &Value) {
        let dir = self.dir();
        let _guard = lock(&dir.join("pod.lck"));
        self.list_app(&dir, app, exec, mounts, more);
        self.render_app(app);
        make(&dir.join("stage1/rootfs/rkt/env"));
        write(&dir.join("stage1/rootfs/rkt/env").join(app), &format!("AC_APP_NAME={app}\n"), 0o644);
        write(&dir.join("stage1/rootfs/rkt/status").join(format!("{app}-created")), "", 0o644);
    }

    /// Adds an app of the probe image.
    #[track_caller]
    pub fn add(&mut self, app: &str, exec: &[&str], mounts: &Value) {
        self.add_with(app, exec, mounts, &json!({})).ok();
    }

    /// Adds an app of the probe image with these further fields.
    #[track_caller]
    pub fn add_with(&mut self, app: &str, exec: &[&str], mounts: &Value, more: &Value) -> Output {
        self.stage(app, exec, mounts, more);
        let mut args = vec![self.debug(), format!("--app={app}"), format!("--uuid={}", self.uuid)];
        args.extend(self.ids());
        self.cross("app/add", &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Starts an app, a new one or one that has exited.
    #[track_caller]
    pub fn start_app(&self, app: &str) -> Output {
        let status = self.dir().join("stage1/rootfs/rkt/status");
        for old in [status.join(format!("{app}-started")), status.join(app)] {
            if old.exists() {
                fs::remove_file(&old).unwrap_or_else(|e| panic!("{}: {e}", old.display()));
            }
        }
        write(&status.join(format!("{app}-started")), "", 0o644);
        self.cross("app/start", &[&self.debug(), &format!("--app={app}")])
    }

    /// The state of an app as the contract derives it, with its exit code.
    pub fn state(&self, app: &str) -> (&'static str, Option<i32>) {
        let status = self.upper().join("rkt/status");
        if !status.join(format!("{app}-created")).exists() {
            ("unknown", None)
        } else if status.join(app).exists() {
            let code = fs::read_to_string(status.join(app)).ok().and_then(|t| t.trim_end_matches('\n').parse().ok());
            ("exited", Some(code.unwrap_or(1)))
        } else if status.join(format!("{app}-started")).exists() {
            ("running", None)
        } else {
            ("created", None)
        }
    }

    /// Names of the apps in the pod manifest.
    pub fn list(&self) -> Vec<String> {
        let manifest = json_file(&self.dir().join("pod"));
        let apps = manifest["apps"].as_array().cloned().unwrap_or_default();
        apps.iter().map(|a| a["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Removes an app: runs `app-stop` and `app-rm`, then removes mount, files and manifest entry.
    #[track_caller]
    pub fn rm(&mut self, app: &str) {
        self.rm_below(app, &self.dir().join("stage1/rootfs"));
    }

    /// As [`Self::rm`], but removes the app's status files in the overlay's upper directory, behind the mounted
    /// overlay, as rkt does.
    #[track_caller]
    pub fn rm_in_upper(&mut self, app: &str) {
        self.rm_below(app, &self.upper());
    }

    #[track_caller]
    fn rm_below(&mut self, app: &str, root: &Path) {
        let dir = self.dir();
        let _guard = lock(&dir.join("pod.lck"));
        let stopped = self.cross("app/stop", &[&self.debug(), &format!("--app={app}")]);
        assert!(matches!(stopped.code, Some(0 | 5)), "{stopped}");
        self.cross("app/rm", &[&self.debug(), &format!("--app={app}")]).ok();
        let stage2 = dir.join("stage1/rootfs/opt/stage2").join(app);
        self.unmount(&stage2.join("rootfs"));
        remove(&stage2);
        remove(&dir.join("appsinfo").join(app));
        for part in ["upper", "work"].iter().filter(|_| self.kind.overlay) {
            remove(&dir.join("overlay").join(APP_TREE).join(part).join(app));
        }
        let markers = [app.to_owned(), format!("{app}-created"), format!("{app}-started")];
        let status = markers.iter().map(|marker| root.join("rkt/status").join(marker));
        for path in status.chain([root.join("rkt/env").join(app)]).filter(|path| path.exists()) {
            fs::remove_file(&path).unwrap_or_else(|e| panic!("rm {}: {e}", path.display()));
        }
        let mut manifest = json_file(&dir.join("pod"));
        manifest["apps"].as_array_mut().expect("apps").retain(|a| a["name"] != app);
        replace(&dir.join("pod"), &manifest.to_string());
        self.apps.retain(|a| a != app);
    }

    /// The command that runs `words` in an app, or in stage1's root.
    #[track_caller]
    pub fn enter(&self, app: Option<&str>, words: &[&str]) -> Command {
        let mut command = Command::new(self.dir().join(self.entrypoint("enter")));
        command.arg(format!("--pid={}", self.pid()));
        command.args(app.map(|a| format!("--appname={a}")));
        command.arg("--").args(words).current_dir(self.dir());
        command
    }

    /// Executes `stop`.
    #[track_caller]
    pub fn ask_to_stop(&self, force: bool) -> Output {
        let mut command = Command::new(self.dir().join(self.entrypoint("stop")));
        command.args(force.then_some("--force")).arg(&self.uuid).current_dir(self.dir());
        run(&mut command)
    }

    /// Ends the pod by the `stop` entrypoint and waits for `run` to end.
    #[track_caller]
    pub fn stop(&self, force: bool, mut monitor: Child) -> std::process::ExitStatus {
        self.ask_to_stop(force).ok();
        wait_for("the end of run", 30, || monitor.try_wait().expect("wait for run"))
    }

    /// Marks the ended pod and unmounts its overlays, runs `gc` `times` times, each time with the stage1 root mounted
    /// anew as after a reboot, and removes the pod directory.
    #[track_caller]
    pub fn collect(self, times: usize) {
        let garbage = self.mark();
        for _ in 0..times {
            garbage.gc(&[]).ok();
        }
        garbage.remove();
    }

    /// Marks the ended pod and unmounts its overlays.
    #[track_caller]
    pub fn mark(mut self) -> Garbage<'a> {
        assert!(!self.is_locked(), "the ended pod is still locked");
        let held = lock(&self.dir());
        for app in std::mem::take(&mut self.apps) {
            self.unmount(&self.dir().join("stage1/rootfs/opt/stage2").join(app).join("rootfs"));
        }
        self.unmount(&self.dir().join("stage1/rootfs"));
        let dir = self.in_phase("exited-garbage");
        rename(&self.dir(), &dir);
        Garbage { pod: self, dir, _held: held }
    }
}

/// A pod that has ended and is being deleted.
#[derive(Debug)]
pub struct Garbage<'a> {
    pod: MiniPod<'a>,
    dir: PathBuf,
    _held: File,
}

impl Garbage<'_> {
    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Executes `gc` with the stage1 root mounted anew.
    #[track_caller]
    pub fn gc(&self, flags: &[&str]) -> Output {
        let root = self.dir.join("stage1/rootfs");
        if self.pod.kind.overlay {
            overlay(&self.pod.host.tree(STAGE1_TREE), &self.dir.join("overlay").join(STAGE1_TREE), "", &root);
        }
        let mut command = Command::new(self.dir.join(self.pod.entrypoint("gc")));
        command.arg(self.pod.debug()).args(flags).arg(&self.pod.uuid).current_dir(&self.dir);
        let out = run(&mut command);
        self.pod.unmount(&root);
        out
    }

    /// Removes the directory.
    #[track_caller]
    pub fn remove(self) {
        remove(&self.dir);
    }
}

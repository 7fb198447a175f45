//! Running `podctl`, as a user does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::image;
use crate::process::{Output, run, wait_for};

/// Our host manager with a data directory.
#[derive(Debug, Clone)]
pub struct Podctl {
    binary: PathBuf,
    /// Its data directory.
    pub data: PathBuf,
    scratch: PathBuf,
    caller: String,
}

impl Podctl {
    /// `binary` is the program, `data` its data directory, and `scratch` a directory for image sources.
    pub fn new(binary: &Path, data: &Path, scratch: &Path) -> Self {
        let caller = std::env::var(crate::harness::CALLER).unwrap_or_default();
        Self { binary: binary.to_owned(), data: data.to_owned(), scratch: scratch.to_owned(), caller }
    }

    /// The pod with this name.
    #[track_caller]
    pub fn pod_named(&self, name: &str) -> Pod<'_> {
        let uuid = self.json(&["inspect", name])["name"].as_str().expect("a UUID").to_owned();
        Pod { podctl: self, uuid }
    }

    /// The same, called by a shell that has run these commands before.
    #[must_use]
    pub fn called_after(&self, commands: &str) -> Self {
        Self { caller: commands.to_owned(), ..self.clone() }
    }

    /// A command with these arguments.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.caller.as_str() {
            "" => Command::new(&self.binary),
            commands => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("{commands}; exec \"$@\""), "sh"]).arg(&self.binary);
                shell
            }
        };
        command.arg(format!("--dir={}", self.data.display())).args(args);
        command
    }

    /// Runs a command until it has ended.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        run(&mut self.command(args))
    }

    /// Runs a command that must succeed; its trimmed standard output.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// Runs a command that must fail with one line on stderr; that line.
    #[track_caller]
    pub fn fails(&self, args: &[&str]) -> String {
        self.run(args).complaint()
    }

    /// Runs a command that must succeed and print JSON.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let text = self.ok(args);
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{args:?}: {e} in: {text}"))
    }

    /// Imports the probe's root file system, a directory, under the name `probe`, unless that was done before.
    #[track_caller]
    pub fn import_probe(&self) {
        let root = self.scratch.join("probe-root");
        if root.exists() {
            return;
        }
        image::rootfs(&root);
        self.ok(&["image", "import", &root.display().to_string(), "--name", "probe", "--exec", "/probe"]);
    }

    /// Imports a probe image, as a file, with these further fields in its app section.
    #[track_caller]
    pub fn import_with(&self, name: &str, app: &Value) {
        self.import_manifest(name, &image::manifest(name, app));
    }

    /// Imports a probe image, as a file, with this manifest.
    #[track_caller]
    pub fn import_manifest(&self, name: &str, manifest: &Value) {
        let file = image::aci(&self.scratch, name, manifest);
        self.ok(&["image", "import", &file.display().to_string(), "--name", name]);
    }

    /// Boots an empty pod, on the host's network unless the options have another one.
    #[track_caller]
    pub fn sandbox(&self, options: &[&str]) -> Pod<'_> {
        let net: &[&str] = if options.iter().any(|option| option.starts_with("--net")) { &[] } else { &["--net=host"] };
        let uuid = self.ok(&[&["sandbox"], net, options].concat());
        assert!(uuid.len() == 36 && !uuid.contains('\n'), "sandbox should print a UUID alone: {uuid:?}");
        Pod { podctl: self, uuid }
    }

    /// Imports the probe image and boots an empty pod with a host directory as the volume `out`.
    #[track_caller]
    pub fn pod(&self, options: &[&str]) -> Pod<'_> {
        self.import_probe();
        let out = self.out();
        fs::create_dir_all(&out).unwrap_or_else(|e| panic!("{}: {e}", out.display()));
        fs::set_permissions(&out, std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .unwrap_or_else(|e| panic!("{e}"));
        let volume = format!("--volume=out,kind=host,source={}", out.display());
        self.sandbox(&[&[volume.as_str()], options].concat())
    }

    /// The directory that [`Podctl::pod`] shares with its apps.
    pub fn out(&self) -> PathBuf {
        self.scratch.join("out")
    }
}

/// A pod file of the pod `name`, on the host's network, with these lines in its spec.
pub fn pod_file(name: &str, spec: &str) -> String {
    format!("---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  hostNetwork: true\n{spec}")
}

/// A pod of podctl.
#[derive(Debug, Clone)]
pub struct Pod<'a> {
    /// The host manager.
    pub podctl: &'a Podctl,
    /// Its UUID.
    pub uuid: String,
}

impl Pod<'_> {
    /// Its directory while it runs.
    pub fn dir(&self) -> PathBuf {
        self.podctl.data.join("pods/run").join(&self.uuid)
    }

    /// PID of the pod's PID 1, as the host counts.
    #[track_caller]
    pub fn pid(&self) -> i32 {
        let path = self.dir().join("pid");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.trim().parse().unwrap_or_else(|e| panic!("{text:?}: {e}"))
    }

    /// Adds an app of the probe image, with the volume `out` at /out, that does `actions`.
    #[track_caller]
    pub fn add(&self, app: &str, options: &[&str], actions: &[&str]) {
        self.try_add("probe", app, options, actions).ok();
    }

    /// Adds an app of any image; this may fail.
    #[track_caller]
    pub fn try_add(&self, image: &str, app: &str, options: &[&str], actions: &[&str]) -> Output {
        let mut args = vec!["app", "add", &self.uuid, image, "--name", app, "--mount=volume=out,target=/out"];
        args.extend(options);
        if !actions.is_empty() {
            args.extend(["--exec", "/probe", "--"]);
            args.extend(actions);
        }
        self.podctl.run(&args)
    }

    /// `podctl app VERB UUID --app APP …`
    #[track_caller]
    pub fn app(&self, verb: &str, app: &str, more: &[&str]) -> Output {
        self.podctl.run(&[&["app", verb, self.uuid.as_str(), "--app", app], more].concat())
    }

    /// The app's status, as an object.
    #[track_caller]
    pub fn status(&self, app: &str) -> Value {
        let text = self.app("status", app, &["--format", "json"]).ok();
        let value: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("status of {app}: {e} in {text}"));
        match value {
            Value::Array(mut many) if many.len() == 1 => many.remove(0),
            other => other,
        }
    }

    /// The app's state.
    #[track_caller]
    pub fn state(&self, app: &str) -> String {
        self.status(app)["state"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until the app has exited; its exit code.
    #[track_caller]
    pub fn exit_code(&self, app: &str) -> i64 {
        wait_for(&format!("the end of {app}"), 20, || {
            let status = self.status(app);
            (status["state"] == "exited").then(|| status["exit_code"].as_i64())
        })
        .unwrap_or_else(|| panic!("no exit code in {}", self.status(app)))
    }

    /// Adds and starts an app, waits for its end, checks that it exited 0, and removes it.
    #[track_caller]
    pub fn run_app(&self, app: &str, options: &[&str], actions: &[&str]) {
        self.add(app, options, actions);
        self.app("start", app, &[]).ok();
        let code = self.exit_code(app);
        assert_eq!(code, 0, "{app} {actions:?}");
        self.app("rm", app, &[]).ok();
    }

    /// Runs an app with these options, and returns what the probe reports from inside.
    #[track_caller]
    pub fn report(&self, app: &str, options: &[&str]) -> Value {
        self.run_app(app, options, &["report", &format!("/out/{app}.json")]);
        self.read(app)
    }

    /// The report that an app has written to the volume `out`.
    #[track_caller]
    pub fn read(&self, app: &str) -> Value {
        let path = self.podctl.out().join(format!("{app}.json"));
        let text = wait_for(&format!("{}", path.display()), 10, || fs::read_to_string(&path).ok());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{app}: {e} in {text}"))
    }

    /// Names of the apps in the pod manifest.
    #[track_caller]
    pub fn manifest_apps(&self) -> Vec<String> {
        let path = self.dir().join("pod");
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let manifest: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let apps = manifest["apps"].as_array().cloned().unwrap_or_default();
        apps.iter().map(|a| a["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Runs a command in an app.
    #[track_caller]
    pub fn enter(&self, app: &str, words: &[&str]) -> Output {
        self.podctl.run(&[&["enter", self.uuid.as_str(), "--app", app, "--"], words].concat())
    }

    /// Stops and removes the pod.
    #[track_caller]
    pub fn end(self) {
        self.podctl.ok(&["stop", &self.uuid]);
        self.podctl.ok(&["rm", &self.uuid]);
        let left = self.podctl.data.join("pods");
        let left: Vec<String> = ["run", "exited-garbage", "garbage", "prepared", "prepare", "embryo"]
            .iter()
            .filter(|phase| left.join(phase).join(&self.uuid).exists())
            .map(|phase| (*phase).to_owned())
            .collect();
        assert!(left.is_empty(), "the removed pod is still in {left:?}");
    }
}

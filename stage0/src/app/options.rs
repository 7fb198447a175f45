//! The options of a new app, and the app of the pod manifest (appc) that results from them and the image.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use stage1::appc::{AFTER, AcName, After, App, Isolator, Mount, NameValue, RuntimeApp, RuntimeImage};
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Context, Error, Result};
use stage1::launch::env;
use stage1::streams::{self, Format, LogFile};

use super::groups::{GroupRequest, ImageGroups};
use super::health::HealthOptions;
use super::image_volumes::ImageMount;
use super::mounts::Bind;
use crate::image::store::Image;
use crate::volume::content::Content;

/// The directory in the app that holds its secrets.
pub const SECRETS: &str = "/run/secrets";
/// Mode of a secret's file: any user may read it, because only the app, which may run as any user, sees the directory.
const SECRET_MODE: u32 = 0o444;

/// The options of a new app. podctl keeps them with the app, so that `app replace` can make it again.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(default)]
pub struct AddOptions {
    /// The image's name, id, or the start of its id.
    pub image: String,
    /// The id of the image, recorded when the app is added.
    pub image_id: Option<String>,
    /// The app's name; made from the image's name if `None`.
    pub name: Option<String>,
    /// The program, in place of the image's whole command.
    pub exec: Option<String>,
    /// The arguments, in place of those of the image's command.
    pub args: Vec<String>,
    /// The whole command; takes precedence over the image's command, `exec` and `args`.
    pub command: Vec<String>,
    /// Environment variables.
    pub env: Vec<NameValue>,
    /// The user: a name, a number, or a path in the image whose owner it is.
    pub user: Option<String>,
    /// The group: a name, a number, or a path in the image whose group it is.
    pub group: Option<String>,
    /// Supplementary groups.
    pub supplementary_gids: Vec<u32>,
    /// The groups to take from the image's `/etc/passwd` and `/etc/group`. If `None`: all of them for a user without a
    /// group, else none.
    pub image_groups: Option<ImageGroups>,
    /// The working directory, an absolute path in the app.
    pub working_dir: Option<String>,
    /// Isolators (appc).
    pub isolators: Vec<Isolator>,
    /// Whether its root file system is read-only.
    pub read_only_rootfs: bool,
    /// Mounts of the pod's volumes.
    pub mounts: Vec<Mount>,
    /// Mounts of volumes by name: the pod's, or else named volumes of the data directory.
    pub binds: Vec<Bind>,
    /// Mounts of images.
    pub image_mounts: Vec<ImageMount>,
    /// The restrictions to lift for this app, in addition to those lifted for the pod.
    pub insecure: InsecureOptions,
    /// The signal that asks it to end, for example `SIGTERM`.
    pub stop_signal: Option<String>,
    /// How long it may take to end before it is killed, in whole seconds.
    pub stop_timeout: Option<Duration>,
    /// The restart policy: `no`, `on-failure`, `on-failure:N`, `always` or `unless-stopped`.
    pub restart: Option<String>,
    /// The most restarts in a row.
    pub restart_limit: Option<u32>,
    /// The options of its health check.
    pub health: HealthOptions,
    /// The apps, and their conditions, that it waits for before it starts.
    pub after: Vec<After>,
    /// The modes of standard input, output and error.
    pub streams: [Option<String>; 3],
    /// The path of its log file, below the pod's log directory of the kubelet.
    pub k8s_log_path: Option<String>,
    /// The names and contents of the files in [`SECRETS`].
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// Further annotations of the app in the pod manifest.
    pub annotations: Vec<NameValue>,
    /// The user's labels.
    pub user_labels: BTreeMap<String, String>,
    /// The user's annotations.
    pub user_annotations: BTreeMap<String, String>,
    /// Whether entrypoints log debug messages.
    #[serde(skip)]
    pub debug: bool,
}

impl AddOptions {
    /// These options, each replaced by that of `changes` if it is set there; variables, mounts, isolators, annotations,
    /// labels and secrets one by one.
    #[must_use]
    pub fn changed_by(self, changes: Self) -> Self {
        let Self { mut env, mut mounts, mut binds, mut image_mounts, mut isolators, mut annotations, .. } = self;
        for new in changes.annotations {
            annotations.retain(|old| old.name != new.name);
            annotations.push(new);
        }
        let is_other = changes.exec.is_some() || !changes.args.is_empty() || !changes.command.is_empty();
        let command = if is_other { changes.command } else { self.command };
        for new in changes.env {
            env.retain(|old| old.name != new.name);
            env.push(new);
        }
        for new in changes.mounts {
            mounts.retain(|old| old.path != new.path);
            mounts.push(new);
        }
        for new in changes.binds {
            binds.retain(|old| old.path != new.path);
            binds.push(new);
        }
        for new in changes.image_mounts {
            image_mounts.retain(|old| old.path != new.path);
            image_mounts.push(new);
        }
        replace_isolators(&mut isolators, &changes.isolators);
        let or = |new: Vec<String>, old| if new.is_empty() { old } else { new };
        let [stdin, stdout, stderr] = self.streams;
        let [new_stdin, new_stdout, new_stderr] = changes.streams;
        Self {
            image: if changes.image.is_empty() { self.image_id.unwrap_or(self.image) } else { changes.image },
            image_id: None,
            name: changes.name.or(self.name),
            exec: changes.exec.or(self.exec),
            args: or(changes.args, self.args),
            env,
            // another user does not get the old one's group
            group: changes.group.or(if changes.user.is_none() { self.group } else { None }),
            user: changes.user.or(self.user),
            supplementary_gids: match changes.supplementary_gids {
                none if none.is_empty() => self.supplementary_gids,
                new => new,
            },
            image_groups: changes.image_groups.or(self.image_groups),
            working_dir: changes.working_dir.or(self.working_dir),
            isolators,
            read_only_rootfs: changes.read_only_rootfs || self.read_only_rootfs,
            mounts,
            binds,
            image_mounts,
            insecure: self.insecure.or(changes.insecure),
            stop_signal: changes.stop_signal.or(self.stop_signal),
            stop_timeout: changes.stop_timeout.or(self.stop_timeout),
            restart: changes.restart.or(self.restart),
            restart_limit: changes.restart_limit.or(self.restart_limit),
            health: self.health.changed_by(changes.health),
            after: if changes.after.is_empty() { self.after } else { changes.after },
            streams: [new_stdin.or(stdin), new_stdout.or(stdout), new_stderr.or(stderr)],
            k8s_log_path: changes.k8s_log_path.or(self.k8s_log_path),
            command,
            secrets: self.secrets.into_iter().chain(changes.secrets).collect(),
            annotations,
            user_labels: self.user_labels.into_iter().chain(changes.user_labels).collect(),
            user_annotations: self.user_annotations.into_iter().chain(changes.user_annotations).collect(),
            debug: changes.debug,
        }
    }

    /// The app of the pod manifest: the `app` section of the image's manifest, changed by these options.
    ///
    /// # Errors
    /// An option is invalid, or neither the image nor the options have a command.
    pub fn runtime_app(&self, image: &Image) -> Result<RuntimeApp> {
        let name = self.app_name(image)?;
        let own = self.exec.as_ref().or(self.command.first());
        let mut app = match (&image.parsed.app, own) {
            (Some(app), _) => app.clone(),
            (None, Some(_)) => App { user: "0".into(), group: "0".into(), ..App::default() },
            (None, None) => {
                return Err(Error::new(format!("image {} does not say what to run; use --exec", image.id.short())));
            }
        };
        self.set_command(&mut app)?;
        self.set_identity(&mut app)?;
        self.set_environment(&mut app)?;
        self.set_isolators(&mut app)?;
        let texts = |map: &BTreeMap<String, String>| {
            map.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect::<Vec<(String, Value)>>()
        };
        app.user_labels.extend(texts(&self.user_labels));
        app.user_annotations.extend(texts(&self.user_annotations));
        let mut mounts = self.mounts.clone();
        if let Some(content) = self.secrets() {
            mounts.push(content.mount(SECRETS)?);
        }
        Ok(RuntimeApp {
            name,
            image: RuntimeImage {
                name: Some(image.parsed.name.clone()),
                id: image.appc_id().to_owned(),
                labels: image.parsed.labels.clone(),
                other: Map::new(),
            },
            app: Some(app),
            read_only_root_fs: self.read_only_rootfs,
            mounts,
            annotations: self.annotations()?,
            other: Map::new(),
        })
    }

    fn annotations(&self) -> Result<Vec<NameValue>> {
        if let Some(signal) = &self.stop_signal {
            stage1::app::parse_stop_signal(signal)?;
        }
        if let Some(timeout) = self.stop_timeout {
            stage1::app::parse_stop_timeout(&timeout.as_secs().to_string())?;
        }
        if let Some(restart) = &self.restart {
            stage1::app::parse_restart(restart)?;
        }
        for (number, mode) in self.streams.iter().enumerate() {
            mode.as_ref().map(|mode| streams::parse_mode(number, mode)).transpose()?;
        }
        if let Some(path) = &self.k8s_log_path {
            LogFile::new(Format::Cri, path)?;
        }
        let declared = [
            (stage1::app::STOP_SIGNAL, self.stop_signal.clone()),
            (stage1::app::STOP_TIMEOUT, self.stop_timeout.map(|time| time.as_secs().to_string())),
            (stage1::app::RESTART, self.restart.clone()),
            (stage1::app::RESTART_LIMIT, self.restart_limit.map(|limit| limit.to_string())),
            (streams::LOG_PATH, self.k8s_log_path.clone()),
            (
                AFTER,
                (!self.after.is_empty()).then(|| self.after.iter().map(After::to_string).collect::<Vec<_>>().join(" ")),
            ),
        ];
        let declared = declared.into_iter().chain(streams::ANNOTATIONS.into_iter().zip(self.streams.clone()));
        let declared = declared.filter_map(|(name, value)| Some(NameValue::new(name, value?)));
        Ok(declared.chain(self.annotations.iter().cloned()).collect())
    }

    /// The content of the volume with its secrets; `None` if it has no secrets.
    pub fn secrets(&self) -> Option<Content> {
        let file = |(name, text): (&String, &Vec<u8>)| (name.clone(), (text.clone(), SECRET_MODE));
        let files: BTreeMap<_, _> = self.secrets.iter().map(file).collect();
        (!files.is_empty()).then_some(Content { files, group: 0 })
    }

    /// The request for groups of the image's files; `None` if none of them are wanted.
    pub fn group_request(&self) -> Option<GroupRequest<'_>> {
        let usual = (self.user.is_some() && self.group.is_none()).then_some(ImageGroups::All);
        self.image_groups.or(usual).map(|which| GroupRequest {
            which,
            // the image's group is for the image's user only
            has_group: self.group.is_some() || self.user.is_none(),
            further: &self.supplementary_gids,
        })
    }

    fn app_name(&self, image: &Image) -> Result<AcName> {
        let name: AcName = match &self.name {
            Some(name) => name.parse().context(|| "app name")?,
            None => AcName::from_image_name(image.parsed.name.as_ref())
                .context(|| "app name, made of the image's (choose one with --name)")?,
        };
        let longest = stage1::layout::MAX_APP_NAME;
        if name.as_ref().len() > longest {
            return Err(Error::new(format!("app name: longer than {longest} characters")));
        }
        Ok(name)
    }

    fn set_command(&self, app: &mut App) -> Result<()> {
        if !self.command.is_empty() {
            app.exec.clone_from(&self.command);
            return Ok(());
        }
        if let Some(program) = &self.exec {
            app.exec = vec![program.clone()];
        }
        if app.exec.first().is_none_or(String::is_empty) {
            return Err(Error::new("the image does not say what to run; use --exec"));
        }
        if !self.args.is_empty() {
            app.exec.truncate(1);
            app.exec.extend(self.args.iter().cloned());
        }
        Ok(())
    }

    fn set_identity(&self, app: &mut App) -> Result<()> {
        for (option, to) in [(&self.user, &mut app.user), (&self.group, &mut app.group)] {
            if let Some(who) = option {
                if who.is_empty() || who.contains(['\n', ':']) {
                    return Err(Error::new(format!(
                        "user or group {who:?}: expected a name, a number or a path in the image"
                    )));
                }
                to.clone_from(who);
            }
        }
        if !self.supplementary_gids.is_empty() {
            app.supplementary_gids.clone_from(&self.supplementary_gids);
        }
        if let Some(dir) = &self.working_dir {
            if !dir.starts_with('/') || dir.contains('\n') {
                return Err(Error::new(format!("working directory {dir:?}: expected an absolute path")));
            }
            app.working_directory.clone_from(dir);
        }
        Ok(())
    }

    /// Replaces and adds variables. The image's own are checked as well.
    fn set_environment(&self, app: &mut App) -> Result<()> {
        // of several with one name the last one counts, at its own place
        let names: HashMap<&str, usize> =
            self.env.iter().enumerate().map(|(place, variable)| (variable.name.as_str(), place)).collect();
        app.environment.retain(|other| !names.contains_key(other.name.as_str()));
        let given = self.env.iter().enumerate();
        let last = given.filter(|(place, variable)| names.get(variable.name.as_str()) == Some(place));
        app.environment.extend(last.map(|(_, variable)| variable.clone()));
        app.environment.iter().try_for_each(|variable| env::check(&variable.name, &variable.value))
    }

    /// Replaces and adds isolators. All of them are checked, the image's as well.
    fn set_isolators(&self, app: &mut App) -> Result<()> {
        replace_isolators(&mut app.isolators, &self.isolators);
        stage1::appc::Isolators::parse(&app.isolators).context(|| "the image").map(drop)
    }
}

/// Adds the isolators `new` to `list`, in place of those of the same kind. The retain set and the remove set of
/// capabilities, or of system calls, are of one kind.
pub(crate) fn replace_isolators(list: &mut Vec<Isolator>, new: &[Isolator]) {
    let kind = |name: &str| {
        let end = ["-retain-set", "-remove-set", "-program"].into_iter().find_map(|end| name.strip_suffix(end));
        end.unwrap_or(name).to_owned()
    };
    for isolator in new {
        list.retain(|other| kind(&other.name) != kind(&isolator.name));
        list.push(isolator.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::archive::ImageId;
    use crate::image::store::ImageRecord;
    use serde_json::json;
    use stage1::appc::ImageManifest;

    fn image(app: &str) -> Image {
        let json = format!(r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/Web"{app}}}"#);
        let json = json.replace("Web", "web");
        Image {
            id: ImageId::new(&format!("sha512-{}", "a".repeat(128))).unwrap(),
            parsed: ImageManifest::parse(json.as_bytes()).unwrap(),
            manifest: json.into_bytes(),
            info: ImageRecord {
                import_time: 0,
                size: 0,
                manifest: String::new(),
                dependencies: Vec::new(),
                kept: Vec::new(),
                appc_id: None,
                layers: None,
            },
        }
    }

    fn isolator(name: &str, value: Value) -> Isolator {
        Isolator { name: name.into(), value, other: Map::new() }
    }

    const APP: &str = r#","app":{"exec":["/bin/web","-v","-x"],"user":"www","group":"www","later":1,
        "environment":[{"name":"A","value":"1"},{"name":"B","value":"2"}],
        "isolators":[{"name":"resource/memory","value":{"limit":"1G"}},
            {"name":"os/linux/capabilities-remove-set","value":{"set":["CAP_KILL"]}}]}"#;

    #[test]
    fn options_replace_what_the_image_says() {
        let options = AddOptions {
            args: vec!["-y".into()],
            env: vec![NameValue::new("A", "3")],
            user: Some("7".into()),
            isolators: vec![
                isolator("resource/memory", json!({ "limit": "64M" })),
                isolator("os/linux/capabilities-retain-set", json!({ "set": ["CAP_CHOWN"] })),
            ],
            ..AddOptions::default()
        };
        let made = options.runtime_app(&image(APP)).unwrap();
        assert_eq!(made.name.as_ref(), "web");
        let app = made.app.unwrap();
        assert_eq!(app.exec, ["/bin/web", "-y"]);
        assert_eq!((app.user.as_str(), app.group.as_str()), ("7", "www"));
        assert_eq!(app.other["later"], 1);
        let names: Vec<&str> = app.isolators.iter().map(|isolator| isolator.name.as_str()).collect();
        assert_eq!(names, ["resource/memory", "os/linux/capabilities-retain-set"]);
        let environment: Vec<_> = app.environment.iter().map(|v| (v.name.as_str(), v.value.as_str())).collect();
        assert_eq!(environment, [("B", "2"), ("A", "3")]);
    }

    #[test]
    fn only_options_that_are_set_change() {
        let old = AddOptions {
            image: "first".into(),
            image_id: Some("sha512-1".into()),
            env: vec![NameValue::new("A", "1"), NameValue::new("B", "2")],
            user: Some("7".into()),
            isolators: vec![isolator("resource/memory", json!({ "limit": "64M" }))],
            args: vec!["-v".into()],
            ..AddOptions::default()
        };
        let same = old.clone().changed_by(AddOptions::default());
        assert_eq!(same, AddOptions { image: "sha512-1".into(), image_id: None, ..old.clone() });
        let changes = AddOptions {
            image: "second".into(),
            env: vec![NameValue::new("A", "3")],
            isolators: vec![isolator("resource/pids", json!({ "limit": 9 }))],
            ..AddOptions::default()
        };
        let new = old.changed_by(changes);
        assert_eq!((new.image.as_str(), new.user.as_deref(), new.args.len()), ("second", Some("7"), 1));
        let env: Vec<_> = new.env.iter().map(|v| format!("{}={}", v.name, v.value)).collect();
        assert_eq!((env.join(" ").as_str(), new.isolators.len()), ("B=2 A=3", 2));
    }

    #[test]
    fn modes_of_streams_are_annotations() {
        let annotations = |options: AddOptions| {
            let made = options.runtime_app(&image(APP)).unwrap();
            made.annotations.iter().map(|a| format!("{}={}", a.name, a.value)).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(annotations(AddOptions::default()), "");
        let stream = || Some("stream".to_owned());
        assert_eq!(
            annotations(AddOptions { streams: [stream(), None, Some("null".into())], ..AddOptions::default() }),
            "coreos.com/rkt/stage2/stdin=stream coreos.com/rkt/stage2/stderr=null"
        );
        assert_eq!(
            annotations(AddOptions {
                streams: [None, None, Some("tty".into())],
                k8s_log_path: Some("web/0.log".into()),
                ..AddOptions::default()
            }),
            "coreos.com/rkt/experiment/kubernetes-log-path=web/0.log coreos.com/rkt/stage2/stderr=tty"
        );
    }

    #[test]
    fn invalid_options_are_refused_in_one_line() {
        let long = "a".repeat(300);
        let broken = r#","app":{"exec":["/x"],"environment":[{"name":"A","value":"1\u0000"}]}"#;
        let with = |change: fn(&mut AddOptions)| {
            let mut options = AddOptions::default();
            change(&mut options);
            options
        };
        let cases = [
            (with(|o| o.name = Some("../x".into())), APP, "not a valid name"),
            (with(|o| o.name = Some("a\nb".into())), APP, "not a valid name"),
            (AddOptions { name: Some(long), ..AddOptions::default() }, APP, "longer than"),
            (AddOptions::default(), "", "use --exec"),
            (AddOptions::default(), r#","app":{"exec":[]}"#, "use --exec"),
            (AddOptions::default(), broken, "NUL byte"),
            (with(|o| o.isolators = vec![isolator("resource/memory", json!({ "limit": "banana" }))]), APP, "memory"),
            (with(|o| o.working_dir = Some("tmp".into())), APP, "absolute"),
            (with(|o| o.stop_signal = Some("SIGBANANA".into())), APP, "no such signal"),
            (with(|o| o.restart = Some("maybe".into())), APP, "on-failure"),
            (with(|o| o.stop_timeout = Some(Duration::from_secs(1 << 30))), APP, "stop timeout"),
            (with(|o| o.user = Some(String::new())), APP, "user or group"),
            (with(|o| o.streams[0] = Some("log".into())), APP, "stdin mode"),
            (with(|o| o.streams[2] = Some("strem".into())), APP, "stderr mode"),
            (with(|o| o.k8s_log_path = Some("../x.log".into())), APP, "log file"),
        ];
        for (options, app, why) in cases {
            let error = options.runtime_app(&image(app)).unwrap_err().one_line();
            assert!(error.contains(why) && !error.contains('\n'), "{why}: {error}");
        }
        let run = with(|o| o.exec = Some("/bin/sh".into()));
        assert_eq!(run.runtime_app(&image("")).unwrap().app.unwrap().exec, ["/bin/sh"]);
    }
}

//! What a pod has and its file can't say: all isolators, annotations and settings but those that [`super::generate`]
//! writes. So whatever is new is told until it is written.

use serde_json::Value;
use stage1::appc::{self, App, HealthCheck, Isolator, Isolators, OnFailure, PodManifest, RuntimeApp, SetMode};
use stage1::cgroup::CGROUP_PARENT;
use stage1::confine::caps::CapSet;
use stage1::confine::insecure::InsecureOptions;
use stage1::confine::rlimits::ULIMITS;
use stage1::error::{Context, Result};
use stage1::{app, boot, mux, streams};

use super::apply::is_init;
use super::origin::{ORIGIN, is_sidecar};
use super::pod::{INIT, NETWORK};
use crate::pod::name_files::Source;
use crate::pod::settings::Settings;
use crate::volume::content;

/// The fields of the whole pod that decide over its apps, as the file has them.
pub struct Common<'a> {
    /// `restartPolicy`.
    pub restart: &'static str,
    /// The apps' stop timeout, if the file has one.
    pub grace: Option<&'a str>,
}

/// The isolators that are written, or because of which no file is written.
const WRITTEN: [&str; 11] = [
    "resource/memory",
    "resource/cpu",
    "os/linux/capabilities-retain-set",
    "os/linux/capabilities-remove-set",
    "os/linux/capabilities-ambient-set",
    "os/linux/no-new-privileges",
    "os/linux/seccomp-retain-set",
    "os/linux/seccomp-remove-set",
    "os/linux/seccomp-program",
    "os/linux/masked-paths",
    "os/linux/read-only-paths",
];
/// The isolator that is written only if it has its usual value, and else no file is written.
const PID_NAMESPACE: &str = "os/linux/pid-namespace";

/// The options of isolators and annotations that are not called after them.
const OPTIONS: [(&str, &str); 12] = [
    (ULIMITS, "--ulimit"),
    (app::RESTART_LIMIT, "--restart-limit"),
    (appc::AFTER, "--after"),
    (streams::ANNOTATIONS[0], "--stdin"),
    (streams::ANNOTATIONS[1], "--stdout"),
    (streams::ANNOTATIONS[2], "--stderr"),
    (streams::LOG_PATH, "--k8s-log-path"),
    (streams::LOG_DIR, "--k8s-log-dir"),
    (streams::LOG_MODE, "--k8s-log-mode"),
    (CGROUP_PARENT, "--cgroup-parent"),
    (mux::DRIVER, "--log-driver"),
    (mux::MAX_SIZE, "--log-max-size"),
];

/// The word of the command line for an isolator or annotation; `start` begins those of isolators.
fn option(name: &str, start: &str) -> String {
    if let Some((_, option)) = OPTIONS.iter().find(|(known, _)| *known == name) {
        return (*option).to_owned();
    }
    match name.strip_prefix("resource/").or(name.strip_prefix("os/linux/")) {
        Some(limit) => format!("{start}{limit}"),
        None => name.strip_prefix("podctl.io/").map_or_else(|| format!("annotation {name}"), |own| format!("--{own}")),
    }
}

/// The `restartPolicy` of an app by its annotation.
pub fn restart_policy(annotation: Option<&str>) -> &'static str {
    match annotation {
        None | Some("no") => "Never",
        Some(policy) if policy.split(':').next() == Some("on-failure") => "OnFailure",
        Some(_) => "Always",
    }
}

/// Warns of what the file does not say of an app, whose image has `of_image`; `options` are the restrictions that are
/// lifted for it.
///
/// # Errors
/// An annotation or isolator is malformed.
pub fn warn_of_app(
    manifest: &PodManifest,
    runtime: &RuntimeApp,
    of_image: &App,
    common: &Common<'_>,
    lifted: InsecureOptions,
) -> Result<()> {
    warn(&format!("app {}", runtime.name), &of_app(manifest, runtime, of_image, common, lifted)?);
    Ok(())
}

/// Warns of what the file does not say of the pod itself.
///
/// # Errors
/// An isolator is malformed.
pub fn warn_of_pod(manifest: &PodManifest, settings: &Settings) -> Result<()> {
    warn("the pod", &of_pod(manifest, settings)?);
    Ok(())
}

fn warn(whose: &str, lost: &[String]) {
    if let Some(line) = line(whose, lost) {
        log::warn!("{line}");
    }
}

fn line(whose: &str, lost: &[String]) -> Option<String> {
    let are = if lost.len() == 1 { "it is" } else { "they are" };
    (!lost.is_empty()).then(|| format!("{whose}: a pod file has no words for {}: {are} left out", lost.join(", ")))
}

fn of_app(
    manifest: &PodManifest,
    runtime: &RuntimeApp,
    of_image: &App,
    common: &Common<'_>,
    lifted: InsecureOptions,
) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    let nothing = App::default();
    let own = runtime.app.as_ref().unwrap_or(&nothing);
    let is_left_out = |isolator: &&Isolator| {
        let is_text = |key: &str| isolator.value.get(key).is_none_or(Value::is_string);
        let is_written = match isolator.name.as_str() {
            PID_NAMESPACE => true,
            "resource/memory" | "resource/cpu" => is_text("limit") && is_text("request"),
            name => WRITTEN.contains(&name),
        };
        !is_written && !of_image.isolators.contains(isolator)
    };
    lost.extend(own.isolators.iter().filter(is_left_out).map(|isolator| option(&isolator.name, "--")));
    for annotation in &runtime.annotations {
        let (name, value) = (annotation.name.as_ref(), annotation.value.as_str());
        lost.extend(match name {
            ORIGIN | INIT | app::STOP_SIGNAL | app::POST_START | app::PRE_STOP => None,
            app::STOP_TIMEOUT => (common.grace != Some(value)).then(|| "--stop-timeout of its own".to_owned()),
            app::RESTART => restart(runtime, value, common.restart)?,
            appc::HEALTH_CHECK => health(value)?,
            appc::AFTER if value == after_by_file(manifest, runtime) => None,
            stream if streams::ANNOTATIONS.contains(&stream) => {
                let stdin = appc::find(&runtime.annotations, streams::ANNOTATIONS[0]);
                let is_written = stdin == Some("tty") || (name == streams::ANNOTATIONS[0] && stdin == Some("stream"));
                (!is_written).then(|| option(name, "--"))
            }
            other => Some(option(other, "--")),
        });
    }
    if common.restart != "Never" && !is_init(runtime) && appc::find(&runtime.annotations, app::RESTART).is_none() {
        lost.push("--restart no".to_owned());
    }
    if common.grace.is_some() && appc::find(&runtime.annotations, app::STOP_TIMEOUT).is_none() {
        lost.push("--stop-timeout of its own".to_owned());
    }
    for (own, of_image, word) in [
        (&own.user_labels, &of_image.user_labels, "--label"),
        (&own.user_annotations, &of_image.user_annotations, "--annotation"),
    ] {
        let names = own.iter().filter(|(name, value)| of_image.get(name.as_str()) != Some(value));
        lost.extend(names.map(|(name, _)| format!("{word} {name}")));
    }
    lost.extend(lifted.flags());
    for mount in &runtime.mounts {
        let of_pod = || manifest.volumes.iter().find(|volume| volume.name == mount.volume);
        let Some(volume) = mount.app_volume.as_ref().or_else(of_pod) else { continue };
        if content::is_content(&volume.name) {
            continue;
        }
        let is_written = |name: &str, value: &Value| {
            [appc::SIZE, appc::SUB_PATH].contains(&name) || (name == appc::MEDIUM && value == "memory")
        };
        let further = volume.other.iter().chain(&mount.other).filter(|(name, value)| !is_written(name, value));
        let mut words: Vec<&str> = further.map(|(name, _)| name.strip_prefix("podctl.io/").unwrap_or(name)).collect();
        words.extend(volume.recursive.map(|_| "recursive"));
        lost.extend(words.into_iter().map(|word| format!("{word} of volume {}", volume.name)));
    }
    lost.extend(runtime.other.keys().map(|name| format!("field {name}")));
    lost.sort();
    lost.dedup();
    Ok(lost)
}

/// The restart policy of an app, if the file says another one.
fn restart(runtime: &RuntimeApp, value: &str, of_file: &str) -> Result<Option<String>> {
    let is_sidecar = is_sidecar(runtime)?;
    let is_written = match value {
        "always" => is_sidecar || of_file == "Always",
        "on-failure" => of_file == "OnFailure",
        "no" => of_file == "Never",
        _ => false,
    };
    Ok(match value.strip_prefix("on-failure:") {
        Some(times) if of_file == "OnFailure" => Some(format!("the limit of --restart on-failure:{times}")),
        _ if is_written && !(is_init(runtime) && value != "no") => None,
        _ => Some(format!("--restart {value}")),
    })
}

/// What a probe can't say of a health check.
fn health(text: &str) -> Result<Option<String>> {
    let check = HealthCheck::parse(text)?;
    if check.on_failure == OnFailure::Stop {
        return Ok(Some("--health-on-failure stop".to_owned()));
    }
    let times = [check.interval_ms, check.timeout_ms, check.start_period_ms];
    Ok(times.iter().any(|time| time % 1000 != 0).then(|| "parts of a second of its health check".to_owned()))
}

/// The annotation with the apps that an app waits for, as `up` sets it: the init containers before it.
fn after_by_file(manifest: &PodManifest, runtime: &RuntimeApp) -> String {
    let is_of_init = |app: &&RuntimeApp| is_init(app) || is_sidecar(app).unwrap_or(false);
    let before = manifest.apps.iter().take_while(|app| !is_of_init(&runtime) || app.name != runtime.name);
    let names: Vec<String> = before.filter(|app| is_init(app)).map(|app| format!("{}:exited", app.name)).collect();
    names.join(" ")
}

fn of_pod(manifest: &PodManifest, settings: &Settings) -> Result<Vec<String>> {
    let mut lost = Vec::new();
    let is_set = |isolator: &&Isolator| isolator.name.starts_with("os/linux/capabilities-");
    lost.extend(manifest.isolators.iter().filter(|one| !is_set(one)).map(|one| option(&one.name, "--pod-")));
    let of_apps = manifest.apps.iter().try_fold(CapSet::EMPTY, |all, runtime| {
        let isolators = runtime.app.as_ref().map_or(&[][..], |app| &app.isolators);
        Ok::<_, stage1::Error>(all.or(beyond_default(isolators).context(|| format!("app {}", runtime.name))?))
    })?;
    if beyond_default(&manifest.isolators)? != of_apps {
        lost.push("--pod-caps-retain".to_owned());
    }
    let annotations = manifest.annotations.iter().map(|annotation| annotation.name.as_ref());
    let annotations = annotations.filter(|name| ![appc::MUTABLE, boot::SYSCTLS].contains(name));
    lost.extend(annotations.map(|name| option(name, "--")));
    if manifest.user_annotations.contains_key(NETWORK) {
        lost.push(format!("--annotation {NETWORK}"));
    }
    // each field is named, so that a new one is thought of
    let Settings { hostname: _, network: _, local_config, ipc: _, dns_conf_mode, names, interactive, insecure } =
        settings;
    lost.extend(local_config.as_ref().map(|dir| format!("--local-config {dir}")));
    lost.extend(dns_conf_mode.as_ref().map(|modes| format!("--dns-conf-mode {modes}")));
    if names.resolv == Some(Source::None) {
        lost.push("--dns none".to_owned());
    }
    if matches!(names.hosts, Some(Source::Host | Source::None)) {
        lost.push("--hosts-entry".to_owned());
    }
    if *interactive {
        lost.push("--interactive".to_owned());
    }
    lost.extend(insecure.flags());
    lost.extend(manifest.other.keys().map(|name| format!("field {name}")));
    lost.sort();
    lost.dedup();
    Ok(lost)
}

/// The capabilities that a list of isolators gives beyond the default set.
fn beyond_default(isolators: &[Isolator]) -> Result<CapSet> {
    Ok(match Isolators::parse(isolators)?.capabilities {
        Some(set) if set.mode == SetMode::Retain => {
            let names = CapSet::parse(set.names.iter().map(String::as_str));
            let named = names.map_err(|name| stage1::Error::new(format!("{name:?} is not a capability")))?;
            named.without(CapSet::app_default())
        }
        _ => CapSet::EMPTY,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn told(app: &Value, annotations: &[(&str, &str)], restart: &'static str) -> Vec<String> {
        let annotations: Vec<_> =
            annotations.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let runtime = json!({"name": "a", "image": {"id": "sha512-0"}, "app": app, "annotations": annotations});
        let runtime: RuntimeApp = serde_json::from_value(runtime).unwrap();
        let manifest = PodManifest { apps: vec![runtime.clone()], ..PodManifest::default() };
        let common = Common { restart, grace: None };
        of_app(&manifest, &runtime, &App::default(), &common, InsecureOptions::default()).unwrap()
    }

    fn app(isolators: &Value) -> Value {
        json!({"exec": ["/x"], "user": "0", "group": "0", "isolators": isolators})
    }

    #[test]
    fn all_that_is_not_written_is_told() {
        let limits = json!([
            {"name": "resource/pids", "value": {"limit": 50}},
            {"name": "resource/memory", "value": {"limit": "64Mi"}},
            {"name": "os/linux/cpu-shares", "value": 5},
            {"name": "os/linux/oom-score-adj", "value": 7},
            {"name": "example.com/later", "value": 7},
        ]);
        assert_eq!(
            told(&app(&limits), &[], "Never"),
            ["--cpu-shares", "--oom-score-adj", "--pids", "annotation example.com/later"]
        );
        let with = [
            (ULIMITS, "x"),
            (app::RESTART_LIMIT, "3"),
            ("podctl.io/later", "x"),
            (appc::HEALTH_CHECK, r#"{"command":["/x"],"on_failure":"stop"}"#),
            (app::STOP_SIGNAL, "SIGINT"),
            (streams::ANNOTATIONS[0], "stream"),
            (streams::ANNOTATIONS[1], "null"),
        ];
        assert_eq!(
            told(&app(&json!([])), &with, "Never"),
            ["--health-on-failure stop", "--later", "--restart-limit", "--stdout", "--ulimit"]
        );
        let mut labelled = app(&json!([]));
        labelled["userLabels"] = json!({"team": "shop"});
        assert_eq!(told(&labelled, &[], "Never"), ["--label team"]);
        assert_eq!(line("app a", &[]), None);
        let one = line("app a", &["--pids".to_owned()]).unwrap();
        assert_eq!(one, "app a: a pod file has no words for --pids: it is left out");
    }

    #[test]
    fn restart_policies_are_the_pods() {
        for (value, file, lost) in [
            ("on-failure:3", "OnFailure", Some("the limit of --restart on-failure:3")),
            ("on-failure:3", "Always", Some("--restart on-failure:3")),
            ("on-failure", "OnFailure", None),
            ("always", "Always", None),
            ("always", "Never", Some("--restart always")),
            ("unless-stopped", "Always", Some("--restart unless-stopped")),
        ] {
            let found = told(&app(&json!([])), &[(app::RESTART, value)], file);
            assert_eq!(found, lost.iter().map(ToString::to_string).collect::<Vec<_>>(), "{value} {file}");
        }
        assert_eq!(told(&app(&json!([])), &[], "Always"), ["--restart no"]);
        for (value, policy) in
            [("on-failure:3", "OnFailure"), ("on-failure", "OnFailure"), ("unless-stopped", "Always")]
        {
            assert_eq!(restart_policy(Some(value)), policy);
        }
        assert_eq!((restart_policy(None), restart_policy(Some("no"))), ("Never", "Never"));
    }

    #[test]
    fn the_pods_own_settings_are_told() {
        let pids = json!([{"name": "resource/pids", "value": {"limit": 500}}]);
        let parent = json!([{"name": CGROUP_PARENT, "value": "/x"}, {"name": appc::MUTABLE, "value": "true"}]);
        let manifest = PodManifest {
            isolators: serde_json::from_value(pids).unwrap(),
            annotations: serde_json::from_value(parent).unwrap(),
            ..PodManifest::default()
        };
        let settings =
            Settings { local_config: Some("/n".to_owned()), network: Some("x".to_owned()), ..Settings::default() };
        assert_eq!(of_pod(&manifest, &settings).unwrap(), ["--cgroup-parent", "--local-config /n", "--pod-pids"]);
        assert_eq!(of_pod(&PodManifest::default(), &Settings::default()).unwrap(), [""; 0]);
    }
}

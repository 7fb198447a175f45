//! Translating a Kubernetes pod to a [`PodPlan`].

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::{Map, Value, json};
use stage1::appc::{Isolator, NameValue};
use stage1::confine::caps::CapSet;
use stage1::error::{Context, Error, Result};

use super::container::{self, Surroundings};
use super::env::Facts;
use super::plan::PodPlan;
use super::quantities;
use super::security::Defaults;
use super::sources::Sources;
use super::unused::Unused;
use super::volumes::{self, Volumes};
use crate::pod::name_files::{NameFiles, Source};
use crate::pod::network;
use crate::pod::settings::{Ipc, Settings};
use crate::store::Store;

/// Translates a pod. `asked` has the networks given on the command line. Fields that are not honoured are added to
/// `unused`.
///
/// # Errors
/// A field is missing, invalid or not supported; the message has its path.
pub fn translate(
    store: &Store,
    mut pod: Pod,
    sources: &Sources,
    asked: &Settings,
    unused: &mut Unused,
) -> Result<PodPlan> {
    let mut spec = pod.spec.take().context(|| "spec is missing")?;
    let name = pod.metadata.name.clone().context(|| "metadata.name is missing")?;
    let annotated = pod.metadata.annotations.as_mut().and_then(|annotations| annotations.remove(NETWORK));
    let annotated = annotated.map_or(Ok(None), |text| network::request(&[text]));
    let annotated = annotated.context(|| format!("metadata.annotations {NETWORK}"))?;
    let settings = settings(&mut spec, &name, annotated, asked)?;
    let mut plan = PodPlan {
        settings,
        private_users: spec.host_users.take() == Some(false),
        labels: texts(&pod.metadata.labels),
        annotations: texts(&pod.metadata.annotations),
        ..PodPlan::named(name.parse().context(|| "metadata.name")?)
    };
    let restart = match spec.restart_policy.take().as_deref() {
        None | Some("Always") => "always",
        Some("OnFailure") => "on-failure",
        Some("Never") => "no",
        Some(other) => {
            return Err(Error::new(format!(
                "unknown spec.restartPolicy {other:?}: expected Always, OnFailure or Never"
            )));
        }
    };
    let grace = spec.termination_grace_period_seconds.take();
    let grace = grace.map(|seconds| {
        let most = stage1::app::MAX_STOP_TIMEOUT;
        let given = u64::try_from(seconds).ok().filter(|seconds| *seconds <= most).map(Duration::from_secs);
        given.context(|| format!("spec.terminationGracePeriodSeconds {seconds}: expected 0 to {most} seconds, a year"))
    });
    let mut context = spec.security_context.take().unwrap_or_default();
    let defaults = Defaults::take(&mut context).context(|| "spec.securityContext")?;
    if let Some(sysctls) = context.sysctls.take() {
        for sysctl in sysctls {
            crate::pod::sysctl::check(&sysctl.name, &sysctl.value, plan.settings.network.as_deref())
                .context(|| "spec.securityContext.sysctls")?;
            plan.sysctls.insert(sysctl.name, sysctl.value);
        }
    }
    plan.fs_group = defaults.fs_group;
    unused.left("spec.securityContext", &context)?;
    let of_file = spec.volumes.clone().unwrap_or_default();
    let volumes = declared(store, &mut spec, sources, &defaults, &mut plan, unused)?;
    let around = Surroundings {
        facts: Facts { sources, meta: &pod.metadata },
        security: defaults,
        volumes,
        of_file,
        restart,
        grace: grace.transpose()?,
        network: plan.settings.network.clone(),
    };
    let init = spec.init_containers.take().unwrap_or_default();
    let mut extra = CapSet::EMPTY;
    for (list, containers, is_init) in
        [("initContainers", init, true), ("containers", std::mem::take(&mut spec.containers), false)]
    {
        for (number, one) in containers.into_iter().enumerate() {
            let path = format!("spec.{list}[{number}]");
            quantities::check(&one, &path)?;
            let shown = format!("{path} ({})", one.name);
            add(&mut plan, one, is_init, &around, &path, unused, &mut extra).context(|| shown)?;
        }
    }
    if plan.apps.iter().all(|app| app.init) {
        return Err(Error::new("spec.containers: at least one container is needed"));
    }
    if extra != CapSet::EMPTY {
        let value = json!({ "set": extra.names().collect::<Vec<_>>() });
        let name = "os/linux/capabilities-retain-set".to_owned();
        plan.isolators.push(Isolator { name, value, other: Map::new() });
    }
    unused.left("spec", &spec)?;
    Ok(plan)
}

fn add(
    plan: &mut PodPlan,
    one: Container,
    is_init: bool,
    around: &Surroundings<'_>,
    path: &str,
    unused: &mut Unused,
    extra: &mut CapSet,
) -> Result<()> {
    let name = one.name.clone();
    if plan.apps.iter().any(|app| app.options.name.as_ref() == Some(&name)) {
        return Err(Error::new("two containers have this name"));
    }
    let mut given = container::translate(one, is_init, around, path, unused)?;
    // keeps the order when the pod is started again
    let before = plan.apps.iter().filter(|app| app.init).filter_map(|app| app.options.name.as_ref());
    let before: Vec<String> = before.map(|name| format!("{name}:exited")).collect();
    if !before.is_empty() {
        given.app.options.annotations.push(NameValue::new(AFTER, before.join(" ")));
    }
    plan.apps.push(given.app);
    plan.ports.extend(given.ports);
    *extra = extra.or(given.capabilities);
    Ok(())
}

fn declared(
    store: &Store,
    spec: &mut PodSpec,
    sources: &Sources,
    security: &Defaults,
    plan: &mut PodPlan,
    unused: &mut Unused,
) -> Result<Volumes> {
    let mut volumes = Volumes::new();
    for (number, mut one) in spec.volumes.take().unwrap_or_default().into_iter().enumerate() {
        let path = format!("spec.volumes[{number}]");
        let name = one.name.clone();
        let shown = || format!("{path} ({name})");
        if let Some(limit) = one.empty_dir.as_ref().and_then(|empty| empty.size_limit.as_ref()) {
            quantities::bytes(&limit.0).context(|| format!("{path}.emptyDir.sizeLimit"))?;
        }
        let volume = volumes::declare(store, &mut one, sources, security.fs_group, plan).context(shown)?;
        one.name.clear();
        unused.left(&path, &one)?;
        if volumes.insert(name.clone(), volume).is_some() {
            return Err(Error::new(format!("{path}: two volumes are called {name:?}")));
        }
    }
    Ok(volumes)
}

/// The settings of the pod; `annotated` are the networks of its annotation.
fn settings(spec: &mut PodSpec, name: &str, annotated: Option<String>, asked: &Settings) -> Result<Settings> {
    if spec.host_pid.take() == Some(true) {
        return Err(Error::new("spec.hostPID: a pod's processes are never among the host's"));
    }
    // all apps of a pod share its PID namespace in any case
    if spec.share_process_namespace.take() == Some(false) {
        log::debug!("shareProcessNamespace: false is how Kubernetes has it; here apps see the processes of their pod");
    }
    let on_host = spec.host_network.take() == Some(true);
    if let (true, Some(networks)) = (on_host, &annotated) {
        return Err(Error::new(format!(
            "spec.hostNetwork and the annotation {NETWORK} ({networks}) exclude each other"
        )));
    }
    let network = asked.network.clone().or(annotated).or_else(|| on_host.then(|| "host".to_owned()));
    let hostname = spec.hostname.take().filter(|name| !name.is_empty()).unwrap_or_else(|| name.to_owned());
    Ok(Settings {
        hostname: Some(hostname),
        network,
        local_config: asked.local_config.clone(),
        ipc: (spec.host_ipc.take() == Some(true)).then_some(Ipc::Parent),
        names: NameFiles { resolv: resolv(spec)?, hosts: hosts(spec)? },
        ..Settings::default()
    })
}

/// The resolv.conf, if `dnsPolicy` or `dnsConfig` set it.
fn resolv(spec: &mut PodSpec) -> Result<Option<Source>> {
    let policy = spec.dns_policy.take();
    let config = spec.dns_config.take().unwrap_or_default();
    let mut text = String::from("# Made by podctl\n");
    let before = text.len();
    let word = |word: &str| match word.is_empty() || word.contains(char::is_whitespace) {
        true => Err(Error::new(format!("spec.dnsConfig: {word:?} is not a word"))),
        false => Ok(word.to_owned()),
    };
    let searches: Vec<String> =
        config.searches.unwrap_or_default().iter().map(|name| word(name)).collect::<Result<_>>()?;
    if !searches.is_empty() {
        text += &format!("search {}\n", searches.join(" "));
    }
    for server in config.nameservers.unwrap_or_default() {
        server.parse::<std::net::IpAddr>().context(|| format!("spec.dnsConfig.nameservers: {server:?}"))?;
        text += &format!("nameserver {server}\n");
    }
    let mut options = Vec::new();
    for option in config.options.unwrap_or_default() {
        let name = word(&option.name.unwrap_or_default())?;
        options.push(option.value.map_or(Ok(name.clone()), |value| word(&value).map(|v| format!("{name}:{v}")))?);
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    match policy.as_deref() {
        _ if text.len() > before => Ok(Some(Source::Text(text))),
        Some("Default") => Ok(Some(Source::Host)),
        Some("None") => Err(Error::new("spec.dnsPolicy None needs dnsConfig.nameservers")),
        None | Some("ClusterFirst" | "ClusterFirstWithHostNet") => Ok(None),
        Some(other) => Err(Error::new(format!(
            "unknown spec.dnsPolicy {other:?}: expected Default, None, ClusterFirst or ClusterFirstWithHostNet"
        ))),
    }
}

/// The lines that `hostAliases` adds to the hosts file.
fn hosts(spec: &mut PodSpec) -> Result<Option<Source>> {
    let mut text = String::new();
    for alias in spec.host_aliases.take().unwrap_or_default() {
        alias.ip.parse::<std::net::IpAddr>().context(|| format!("spec.hostAliases: {:?}", alias.ip))?;
        let names = alias.hostnames.unwrap_or_default();
        if names.is_empty() || names.iter().any(|name| name.is_empty() || name.contains(char::is_whitespace)) {
            return Err(Error::new(format!("spec.hostAliases {}: it needs hostnames", alias.ip)));
        }
        text += &format!("{}\t{}\n", alias.ip, names.join(" "));
    }
    Ok((!text.is_empty()).then_some(Source::Text(text)))
}

fn texts(map: &Option<BTreeMap<String, String>>) -> Map<String, Value> {
    map.iter().flatten().map(|(name, value)| (name.clone(), value.as_str().into())).collect()
}

/// The annotation of a pod of the file with its networks, as `--net` of `up` says them, which takes precedence.
pub const NETWORK: &str = "podctl.io/net";
/// The annotation of an app with the conditions that it waits for before it starts.
const AFTER: &str = "podctl.io/after";
/// The annotation that marks an app of `initContainers`.
pub const INIT: &str = "podctl.io/init";

/// The annotation for an app of `initContainers`.
pub fn init_mark() -> NameValue {
    NameValue::new(INIT, "true")
}

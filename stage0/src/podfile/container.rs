//! Translates a container of Kubernetes to the options of an app.

use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use stage1::appc::{AcName, ExposedPort, Mount, NameValue};
use stage1::confine::caps::CapSet;
use stage1::error::{Context, Error, Result};

use super::env::{self, Facts};
use super::origin::{ContentOrigin, Origin};
use super::plan::{AppPlan, Pull};
use super::security::{self, Defaults};
use super::unused::Unused;
use super::volumes::{self, Volumes};
use super::{hooks, probes};
use crate::app::options::AddOptions;
use crate::pod::network;

/// The pod's fields that apply to all its containers.
pub struct Surroundings<'a> {
    /// The values that env, args and the downward API may refer to.
    pub facts: Facts<'a>,
    /// The pod's securityContext: users, groups and the like.
    pub security: Defaults,
    /// The pod's volumes.
    pub volumes: Volumes,
    /// Its volumes as the file says them.
    pub of_file: Vec<k8s_openapi::api::core::v1::Volume>,
    /// The restart policy of its apps: `no`, `on-failure` or `always`.
    pub restart: &'static str,
    /// terminationGracePeriodSeconds: the apps' stop timeout.
    pub grace: Option<Duration>,
    /// The value of `--net`; `None` for the default network.
    pub network: Option<String>,
}

/// A container of the file as an app, with the settings it adds to the pod.
#[derive(Debug)]
pub struct ContainerPlan {
    /// The app.
    pub app: AppPlan,
    /// Published ports of the host.
    pub ports: Vec<ExposedPort>,
    /// Capabilities beyond the default set.
    pub capabilities: CapSet,
}

/// Translates a container; with `init`, one of `initContainers`. Adds the fields of it that have no effect to `unused`.
///
/// # Errors
/// A field is invalid, or its value is not supported.
pub fn translate(
    mut container: Container,
    init: bool,
    around: &Surroundings<'_>,
    path: &str,
    unused: &mut Unused,
) -> Result<ContainerPlan> {
    let mut options = AddOptions::default();
    let name = std::mem::take(&mut container.name);
    name.parse::<AcName>().context(|| "name")?;
    options.image = container.image.take().filter(|image| !image.is_empty()).context(|| "it has no image")?;
    options.name = Some(name);
    let policy = container.image_pull_policy.take();
    let pull = match policy.as_deref() {
        None | Some("IfNotPresent") => Pull::IfNotPresent,
        Some("Always") => Pull::Always,
        Some("Never") => Pull::Never,
        Some(other) => {
            return Err(Error::new(format!("imagePullPolicy {other:?}: expected Always, IfNotPresent or Never")));
        }
    };
    // before its fields are taken: variables may refer to its resources
    let ports_of_file = container.ports.clone().unwrap_or_default();
    let mut origin = Origin { ports: ports_of_file, pull: policy, ..Origin::default() };
    (options.env, origin.env) = env::variables(&mut container, &around.facts)?;
    let variables = env::Variables::of(&options.env);
    let expanded = |words: Option<Vec<String>>| -> Vec<String> {
        words.unwrap_or_default().iter().map(|word| env::expand(word, &variables)).collect()
    };
    let (command, args) = (expanded(container.command.take()), expanded(container.args.take()));
    options.working_dir = container.working_dir.take().filter(|dir| !dir.is_empty());
    let (non_root, capabilities) = security::apply(&mut container, &around.security, &mut options)?;
    if let Some(mounts) = &mut container.volume_mounts {
        options.mounts = volumes::mounts(mounts, &around.volumes, &variables)?;
    }
    volume_origins(&mut origin, &options.mounts, around);
    // a sidecar container (an init container with restartPolicy Always) is an app that is started first
    let stays = match container.restart_policy.take().as_deref() {
        Some("Always") if init => true,
        Some(other) => {
            return Err(Error::new(format!(
                "restartPolicy {other:?} of a container: only Always, of an init container"
            )));
        }
        None => false,
    };
    origin.sidecar = stays;
    options.annotations.extend(origin.annotation()?);
    let restart = match (init && !stays, stays) {
        (true, _) => "no",
        (_, true) => "always",
        _ => around.restart,
    };
    let retried = init && !stays && around.restart != "no";
    options.restart = Some(restart.to_owned()).filter(|restart| restart != "no");
    options.stop_timeout = around.grace;
    options.stop_signal = container.lifecycle.as_mut().and_then(|lifecycle| lifecycle.stop_signal.take());
    options.annotations.extend(hooks::take(&mut container)?);
    let (stdin, tty) = (container.stdin.take() == Some(true), container.tty.take() == Some(true));
    let stream = |mode: &str| Some(mode.to_owned());
    options.streams = match (stdin, tty) {
        (_, true) => [stream("tty"), stream("tty"), stream("tty")],
        (true, false) => [stream("stream"), None, None],
        (false, false) => [None, None, None],
    };
    options.annotations.extend(probes::take(&mut container, path)?);
    let ports = ports(&mut container, around.network.as_deref())?;
    unused.left(path, &container)?;
    Ok(ContainerPlan {
        app: AppPlan { options, pull, command, args, init: init && !stays, retried, non_root },
        ports,
        capabilities,
    })
}

/// Notes what the file says of the volumes that the app mounts.
fn volume_origins(origin: &mut Origin, mounts: &[Mount], around: &Surroundings<'_>) {
    for of_file in &around.of_file {
        let Some(volume) = around.volumes.get(&of_file.name) else { continue };
        if !mounts.iter().any(|mount| mount.volume == volume.name) {
            continue;
        }
        let name = volume.name.to_string();
        let kind = of_file.host_path.as_ref().and_then(|host| host.type_.clone()).filter(|kind| !kind.is_empty());
        origin.host_path_types.extend(kind.map(|kind| (name.clone(), kind)));
        origin.contents.extend(ContentOrigin::of(of_file).map(|content| (name, content)));
        if let Some(claim) = &of_file.persistent_volume_claim {
            let spec = around.facts.sources.claims.get(&claim.claim_name);
            origin.claims.extend(spec.map(|spec| (claim.claim_name.clone(), spec.clone())));
        }
    }
}

/// The published ports of a container.
fn ports(container: &mut Container, network: Option<&str>) -> Result<Vec<ExposedPort>> {
    let mut texts = Vec::new();
    for port in container.ports.take().unwrap_or_default() {
        let Some(host) = port.host_port else { continue };
        if network == Some("host") {
            // the container's ports are the host's
            if host != port.container_port {
                return Err(Error::new(format!(
                    "hostPort {host}: with hostNetwork it must be containerPort {}",
                    port.container_port
                )));
            }
            continue;
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP").to_ascii_lowercase();
        let ip = port.host_ip.unwrap_or_default();
        texts.push(format!("{protocol}-{host}:{protocol}:{}:{ip}:{host}", port.container_port));
    }
    network::ports(&texts, network)
}

/// The command line of a container: its `command` and `args`, or those of its image, as Kubernetes combines them.
///
/// # Errors
/// Neither has a command, or an annotation of the image is malformed.
pub fn words(plan: &AppPlan, annotations: &[NameValue], exec: &[String]) -> Result<Vec<String>> {
    let of_image = |name: &str| -> Result<Vec<String>> {
        let text = stage1::appc::find(annotations, name);
        text.map_or(Ok(Vec::new()), |text| serde_json::from_str(text).context(|| format!("image annotation {name}")))
    };
    let is_oci = stage1::appc::find(annotations, "appc.io/docker/entrypoint").is_some()
        || stage1::appc::find(annotations, "appc.io/docker/cmd").is_some();
    let words = match (plan.command.is_empty(), plan.args.is_empty()) {
        (true, true) => exec.to_vec(),
        (false, _) => [plan.command.clone(), plan.args.clone()].concat(),
        (true, false) if is_oci => [of_image("appc.io/docker/entrypoint")?, plan.args.clone()].concat(),
        // an image without the two annotations: the first word of its command counts as the entrypoint
        (true, false) => [exec.iter().take(1).cloned().collect(), plan.args.clone()].concat(),
    };
    match words.first() {
        Some(first) if !first.is_empty() => Ok(words),
        _ => Err(Error::new("neither the file nor the image says what to run: command")),
    }
}

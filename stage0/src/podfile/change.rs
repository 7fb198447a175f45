//! Compares a pod with a file: its apps, and its properties that can't be changed while it runs.

use stage1::appc::{AcName, Isolator, PodManifest, RuntimeApp};

use super::origin::ORIGIN;
use super::plan::PodPlan;
use crate::pod::settings::{Ipc, Settings};
use crate::pod::sysctl;
use crate::poddir::find::Pod;

/// The word of [`of_pod`] for the published ports, which can be changed while the pod runs.
pub const PORTS: &str = "ports";

/// What `up` does to an app of a running pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppChange {
    /// The pod has no app of that name.
    Add,
    /// The app differs from the file.
    Replace,
    /// The app is as in the file.
    Keep,
}

/// What `up` does so that the pod has the app `wanted`.
pub fn of(manifest: &PodManifest, wanted: &RuntimeApp) -> AppChange {
    match manifest.app(&wanted.name) {
        None => AppChange::Add,
        Some(there) if in_order(there) == in_order(wanted) => AppChange::Keep,
        Some(_) => AppChange::Replace,
    }
}

/// The apps of the pod that are not in the file.
pub fn gone<'a>(manifest: &'a PodManifest, wanted: &[AcName]) -> Vec<&'a RuntimeApp> {
    manifest.apps.iter().filter(|app| !wanted.contains(&app.name)).collect()
}

/// The app with the lists whose order means nothing sorted, and without the image's name and labels.
fn in_order(app: &RuntimeApp) -> RuntimeApp {
    let mut app = app.clone();
    // it has no effect on the app
    app.annotations.retain(|one| one.name != ORIGIN);
    app.annotations.sort_by(|a, b| a.name.cmp(&b.name));
    app.mounts.sort_by(|a, b| a.path.cmp(&b.path));
    // the image's id alone identifies the image
    app.image.labels.clear();
    app.image.name = None;
    if let Some(own) = &mut app.app {
        own.environment.sort_by(|a, b| a.name.cmp(&b.name));
        own.isolators.sort_by(|a, b| a.name.cmp(&b.name));
    }
    app
}

/// The properties of a pod, other than its apps, in which it differs from the plan, as words for messages.
pub fn of_pod(
    plan: &PodPlan,
    pod: &Pod,
    settings: &Settings,
    manifest: &PodManifest,
    private_users: bool,
) -> Vec<&'static str> {
    let wanted = &plan.settings;
    // the default network can be named or not
    let network = |settings: &Settings| settings.network.clone().filter(|network| network != "default");
    let is_hosts_ipc = |settings: &Settings| settings.ipc == Some(Ipc::Parent);
    let mut ports = [plan.ports.clone(), manifest.ports.clone()];
    ports.iter_mut().for_each(|ports| ports.sort_by(|a, b| a.name.cmp(&b.name)));
    let [wanted_ports, ports] = ports;
    let all = [
        ("the host name", wanted.hostname_of(pod.uuid()) != settings.hostname_of(pod.uuid())),
        ("the network", (network(wanted), &wanted.local_config) != (network(settings), &settings.local_config)),
        ("the IPC namespace", is_hosts_ipc(wanted) != is_hosts_ipc(settings)),
        ("resolv.conf", wanted.names.resolv != settings.names.resolv),
        ("hosts", wanted.names.hosts != settings.names.hosts),
        ("sysctls", sysctl::of(manifest).ok().as_ref() != Some(&plan.sysctls)),
        (PORTS, wanted_ports != ports),
        ("the capabilities of the pod", capabilities(&plan.isolators) != capabilities(&manifest.isolators)),
        ("the user namespace", plan.private_users != private_users),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
}

/// The isolators of a pod that a file decides. Its limits are those of `podctl update POD`, and stay.
fn capabilities(isolators: &[Isolator]) -> Vec<&Isolator> {
    isolators.iter().filter(|isolator| isolator.name.starts_with("os/linux/capabilities-")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn app(name: &str, env: &[(&str, &str)]) -> RuntimeApp {
        let env: Vec<_> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let app = json!({"exec": ["/x"], "user": "0", "group": "0", "environment": env});
        serde_json::from_value(json!({"name": name, "image": {"id": "sha512-0"}, "app": app})).unwrap()
    }

    #[test]
    fn apps_are_compared_without_what_has_no_order() {
        let manifest =
            PodManifest { apps: vec![app("a", &[("A", "1"), ("B", "2")]), app("old", &[])], ..PodManifest::default() };
        assert_eq!(of(&manifest, &app("a", &[("B", "2"), ("A", "1")])), AppChange::Keep);
        assert_eq!(of(&manifest, &app("a", &[("A", "1")])), AppChange::Replace);
        assert_eq!(of(&manifest, &app("b", &[])), AppChange::Add);
        let gone = gone(&manifest, &["a".parse().unwrap(), "b".parse().unwrap()]);
        assert_eq!(gone.iter().map(|app| app.name.as_ref()).collect::<Vec<_>>(), ["old"]);
    }
}

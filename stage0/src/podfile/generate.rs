//! Writes a pod as a file of Kubernetes. `up` of that file changes nothing in the pod, but for apps whose user or group was
//! given by name: a pod file takes only its number. Variables of ConfigMaps and Secrets refer to these as the pod's own
//! file did; both are documents of the file, with the keys that the pod uses.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use stage1::appc::{
    self, AcName, App, Isolators, NameValue, PidNamespace, PodManifest, RuntimeApp, SetMode, Volume, VolumeKind,
};
use stage1::confine::caps::CapSet;
use stage1::error::{Context, Error, Result};
use stage1::layout;

use super::apply::is_init;
use super::env::{self, Variables};
use super::left_out::{self, Common};
use super::origin::{Origin, Variable, is_sidecar};
use super::pod::NETWORK;
use super::sources::SourceKind;
use super::{hooks, probes};
use crate::app::host_record::AppRecord;
use crate::app::record::record;
use crate::image::store::find as images;
use crate::image::store::names::names_of;
use crate::pod::name_files::Source;
use crate::pod::settings::{Ipc, Settings};
use crate::pod::sysctl;
use crate::poddir::find::Pod;
use crate::poddir::{manifest, uid_range};
use crate::store::Store;
use crate::volume::content::{self, Content};
use crate::volume::name::VolumeName;
use crate::volume::named;

/// Writes the file of a pod: the Pod, the ConfigMaps and Secrets that it uses, and its claims of named volumes.
///
/// # Errors
/// The pod's records can't be read, or the pod has a property that such a file can't express.
pub fn kube(store: &Store, pod: &Pod) -> Result<String> {
    let manifest = manifest::read(pod.dir())?;
    let settings = Settings::load(pod.dir())?;
    let mut made = Made {
        store,
        pod,
        manifest: &manifest,
        volumes: BTreeMap::new(),
        origin: Origin::default(),
        objects: BTreeMap::new(),
    };
    for app in &manifest.apps {
        let of_app = Origin::of(&app.annotations).context(|| format!("app {}", app.name))?;
        made.origin.host_path_types.extend(of_app.host_path_types);
        made.origin.claims.extend(of_app.claims);
        made.origin.contents.extend(of_app.contents);
    }
    let (mut init, mut containers) = (Vec::new(), Vec::new());
    for app in &manifest.apps {
        let mut container = made.container(app).context(|| format!("app {}", app.name))?;
        if is_sidecar(app)? {
            container["restartPolicy"] = "Always".into();
            init.push(container);
        } else if is_init(app) {
            init.push(container);
        } else {
            containers.push(container);
        }
    }
    let published = manifest.ports.iter().map(port).collect::<Result<Vec<_>>>()?;
    let first = init.len();
    let on_host = settings.network.as_deref() == Some("host");
    ports(published, on_host, &manifest, init.iter_mut().chain(&mut containers).collect(), first)?;
    let mut spec = Map::new();
    let mut set = |name: &str, value: Value| {
        let is_nothing = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
        if !is_nothing {
            spec.insert(name.to_owned(), value);
        }
    };
    let name = pod.name()?.map_or_else(|| format!("pod-{}", pod.digits()), |name| name.to_string());
    let hostname = settings.hostname_of(pod.uuid());
    set("hostname", Some(hostname).filter(|host| *host != name).into());
    set("hostNetwork", (settings.network.as_deref() == Some("host")).then_some(true).into());
    set("hostIPC", (settings.ipc == Some(Ipc::Parent)).then_some(true).into());
    set("hostUsers", uid_range::of_pod(pod.dir())?.map(|_| false).into());
    names(&settings, &mut set);
    let is_container = |app: &&RuntimeApp| !is_init(app) && !is_sidecar(app).unwrap_or(false);
    let of_one = manifest.apps.iter().find(is_container).or(manifest.apps.first());
    let annotation = |name: &str| of_one.and_then(|app| appc::find(&app.annotations, name));
    let restart = left_out::restart_policy(annotation(stage1::app::RESTART));
    set("restartPolicy", restart.into());
    let grace = annotation(stage1::app::STOP_TIMEOUT).map(|text| text.parse::<u64>().context(|| "stop timeout"));
    set("terminationGracePeriodSeconds", grace.transpose()?.into());
    set("securityContext", made.security(of_one)?);
    set("initContainers", init.into());
    set("containers", containers.into());
    set("volumes", made.volumes.values().cloned().collect::<Vec<_>>().into());
    let mut meta = Map::from_iter([("name".to_owned(), Value::from(name))]);
    let mut annotations = manifest.user_annotations.clone();
    if let Some(network) = settings.network.as_deref().filter(|network| *network != "host") {
        annotations.insert(NETWORK.to_owned(), network.into());
    }
    for (word, map) in [("labels", manifest.user_labels.clone()), ("annotations", annotations)] {
        if !map.is_empty() {
            meta.insert(word.to_owned(), map.into());
        }
    }
    left_out::warn_of_pod(&manifest, &settings)?;
    let common = Common { restart, grace: annotation(stage1::app::STOP_TIMEOUT) };
    for app in &manifest.apps {
        let of_image = images::find(store, &app.image.id)?.parsed.app.unwrap_or_default();
        let options = AppRecord::new(pod.dir(), &app.name).options()?;
        let lifted = options.map(|options| options.insecure).unwrap_or_default();
        left_out::warn_of_app(&manifest, app, &of_image, &common, lifted).context(|| format!("app {}", app.name))?;
    }
    let mut text = format!("# Made by podctl of pod {}\n", pod.uuid());
    let secrets: Vec<&str> =
        made.objects.keys().filter(|(kind, _)| *kind == "Secret").map(|(_, name)| name.as_str()).collect();
    if !secrets.is_empty() {
        log::warn!("the file has the values of Secrets ({}): let no one else read it", secrets.join(", "));
    }
    let mut documents: Vec<Value> = made.objects.into_values().collect();
    documents.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}));
    for document in documents {
        let yaml = serde_yaml_ng::to_string(&document).context(|| "write YAML")?;
        write!(text, "---\n{yaml}").context(|| "write YAML")?;
    }
    Ok(text)
}

struct Made<'a> {
    store: &'a Store,
    pod: &'a Pod,
    manifest: &'a PodManifest,
    volumes: BTreeMap<String, Value>,
    /// Where the volumes of all apps are from.
    origin: Origin,
    /// The other documents, by kind and name.
    objects: BTreeMap<(&'static str, String), Value>,
}

impl Made<'_> {
    fn container(&mut self, runtime: &RuntimeApp) -> Result<Value> {
        let app = runtime.app.as_ref().context(|| "the manifest does not say what it runs")?;
        let image = images::find(self.store, &runtime.image.id)?;
        let nothing = App::default();
        let of_image = image.parsed.app.as_ref().unwrap_or(&nothing);
        let name = names_of(self.store, &image.id)?.into_iter().next();
        let mut out = Map::new();
        out.insert("name".into(), runtime.name.as_ref().into());
        // an image without a name can't be pulled
        let policy = if name.is_some() { Origin::of(&runtime.annotations)?.pull } else { None };
        out.insert("image".into(), name.unwrap_or_else(|| image.id.to_string()).into());
        out.insert("imagePullPolicy".into(), policy.unwrap_or_else(|| "IfNotPresent".to_owned()).into());
        if app.exec != of_image.exec {
            out.insert("command".into(), app.exec.iter().map(|word| escaped(word)).collect::<Vec<_>>().into());
        }
        if app.working_directory != of_image.working_directory {
            out.insert("workingDir".into(), app.working_directory.as_str().into());
        }
        let env = self.env(runtime, app, of_image)?;
        if !env.is_empty() {
            out.insert("env".into(), env.into());
        }
        let mut mounts = Vec::new();
        for mount in &runtime.mounts {
            let of_pod = || self.manifest.volumes.iter().find(|volume| volume.name == mount.volume);
            let volume = mount.app_volume.as_ref().or_else(of_pod);
            let volume = volume.context(|| format!("the pod has no volume {}", mount.volume))?.clone();
            let name = self.volume(&volume)?;
            let mut one = json!({"name": name, "mountPath": mount.path});
            if volume.read_only == Some(true) && !content::is_content(&volume.name) {
                one["readOnly"] = true.into();
            }
            if let Some(part) = mount.sub_path()? {
                one["subPath"] = part.to_string_lossy().into();
            }
            mounts.push(one);
        }
        if !mounts.is_empty() {
            out.insert("volumeMounts".into(), mounts.into());
        }
        let (context, resources) = restrictions(self.pod, runtime, app, of_image)?;
        for (name, value) in [("securityContext", context), ("resources", resources)] {
            if !value.is_empty() {
                out.insert(name.into(), value.into());
            }
        }
        let annotation = |name: &str| appc::find(&runtime.annotations, name);
        let mut lifecycle = hooks::lifecycle(&runtime.annotations)?;
        if let Some(signal) = annotation(stage1::app::STOP_SIGNAL) {
            lifecycle.insert("stopSignal".into(), signal.into());
        }
        if !lifecycle.is_empty() {
            out.insert("lifecycle".into(), lifecycle.into());
        }
        if let Some((name, probe)) = probes::probe(probes::annotation(&runtime.annotations))? {
            out.insert(name.into(), probe);
        }
        let stdin = annotation(stage1::streams::ANNOTATIONS[0]);
        for (name, is) in [("stdin", stdin == Some("stream")), ("tty", stdin == Some("tty"))] {
            if is {
                out.insert(name.into(), true.into());
            }
        }
        Ok(out.into())
    }

    /// The variables of an app that are not its image's.
    fn env(&mut self, runtime: &RuntimeApp, app: &App, of_image: &App) -> Result<Vec<Value>> {
        let origins = Origin::of(&runtime.annotations)?.env;
        let mut before = Variables::default();
        let mut found = Vec::new();
        for variable in &app.environment {
            let NameValue { name, value, .. } = variable;
            let origin = origins.get(name);
            if origin.is_none() && of_image.environment.contains(variable) {
                continue;
            }
            found.push(match origin {
                Some(Variable::Key { kind, name: object, key }) => {
                    let object = self.value(*kind, object, key, value, &runtime.name);
                    let field = if *kind == SourceKind::Secret { "secretKeyRef" } else { "configMapKeyRef" };
                    json!({"name": name, "valueFrom": { field: {"name": object, "key": key} }})
                }
                // unless it was changed since
                Some(Variable::Text(text)) if env::expand(text, &before) == *value => {
                    json!({"name": name, "value": text})
                }
                _ => json!({"name": name, "value": escaped(value)}),
            });
            before.set(variable.clone());
        }
        Ok(found)
    }

    /// Adds a variable's value to the document of a ConfigMap or Secret; returns the object's name.
    fn value(&mut self, kind: SourceKind, object: &str, key: &str, value: &str, app: &AcName) -> String {
        self.values(kind, object, &[(key, value.as_bytes())], app.as_ref())
    }

    /// Adds values by key to the document of a ConfigMap or Secret; returns the object's name. It is another one, with
    /// `other` in its name, if that has another value of a key, because it was changed in one place only.
    fn values(&mut self, kind: SourceKind, object: &str, values: &[(&str, &[u8])], other: &str) -> String {
        let shown = |value: &[u8]| -> (&'static str, Value) {
            match (kind, std::str::from_utf8(value)) {
                (SourceKind::Secret, _) => ("data", STANDARD.encode(value).into()),
                (SourceKind::Config, Ok(text)) => ("data", text.into()),
                (SourceKind::Config, Err(_)) => ("binaryData", STANDARD.encode(value).into()),
            }
        };
        let values: Vec<_> = values.iter().map(|(key, value)| (*key, shown(value))).collect();
        let mut object = object.to_owned();
        loop {
            let of_kind = (kind.word(), object.clone());
            let document = self.objects.entry(of_kind).or_insert_with(
                || json!({"apiVersion": "v1", "kind": kind.word(), "metadata": { "name": object }, "data": {}}),
            );
            let fits = values.iter().all(|(key, (field, value))| {
                ["data", "binaryData"].iter().all(|place| match &document[*place][*key] {
                    Value::Null => true,
                    there => place == field && there == value,
                })
            });
            if fits {
                for (key, (field, value)) in values {
                    document[field][key] = value;
                }
                return object;
            }
            object = format!("{object}-{other}");
        }
    }

    /// The source of a volume with the files of a ConfigMap or Secret: of the one that the pod's file names, else of a
    /// Secret that has the volume's name.
    fn content(&mut self, volume: &AcName) -> Result<Value> {
        let found = Content::of_pod(self.pod.dir(), volume)?;
        let origin = self.origin.contents.get(volume.as_ref()).cloned();
        let numbered = |number: usize| format!("file-{number}");
        let key = |number: usize, path: &String| match &origin {
            Some(origin) => origin.keys.get(path).unwrap_or(path).clone(),
            None => numbered(number),
        };
        let files = found.files.iter().enumerate();
        let files: Vec<_> = files.map(|(number, (path, file))| (key(number, path), path, file)).collect();
        let items: Vec<Value> =
            files.iter().map(|(key, path, (_, mode))| json!({"key": key, "path": path, "mode": mode})).collect();
        let values: Vec<(&str, &[u8])> =
            files.iter().map(|(key, _, (text, _))| (key.as_str(), text.as_slice())).collect();
        let (kind, name) = match &origin {
            Some(origin) => (origin.kind, origin.name.as_str()),
            None => (SourceKind::Secret, volume.as_ref()),
        };
        let name = self.values(kind, name, &values, volume.as_ref());
        Ok(match kind {
            SourceKind::Config => json!({"configMap": { "name": name, "items": items }}),
            SourceKind::Secret => json!({"secret": { "secretName": name, "items": items }}),
        })
    }

    /// Declares a volume; returns its name.
    fn volume(&mut self, volume: &Volume) -> Result<String> {
        let name = volume.name.to_string();
        let source = match (volume.kind, &volume.source) {
            (VolumeKind::Host, Some(source)) => match named::of_source(self.store, source) {
                Some(claim) => self.claim(&claim)?,
                None => match self.origin.host_path_types.get(&name) {
                    Some(kind) => json!({"hostPath": { "path": source, "type": kind }}),
                    None => json!({"hostPath": { "path": source }}),
                },
            },
            (VolumeKind::Host, None) => return Err(Error::new(format!("volume {name} has no source"))),
            (VolumeKind::Empty, _) if content::is_content(&volume.name) => self.content(&volume.name)?,
            (VolumeKind::Empty, _) => {
                let mut empty = Map::new();
                if volume.other.get(appc::MEDIUM).is_some() {
                    empty.insert("medium".into(), "Memory".into());
                }
                if let Some(size) = volume.other.get(appc::SIZE).and_then(Value::as_u64) {
                    empty.insert("sizeLimit".into(), size.to_string().into());
                }
                json!({ "emptyDir": empty })
            }
        };
        let mut declared = json!({ "name": name });
        if let (Some(into), Value::Object(from)) = (declared.as_object_mut(), source) {
            into.extend(from);
        }
        match self.volumes.get(&name) {
            Some(other) if *other != declared => Err(Error::new(format!("two volumes are called {name}"))),
            _ => {
                self.volumes.insert(name.clone(), declared);
                Ok(name)
            }
        }
    }

    /// The source of a named volume, whose claim becomes a document. What the pod's file does not say of it is what tools
    /// demand; podctl does not limit a volume.
    fn claim(&mut self, name: &VolumeName) -> Result<Value> {
        const KIND: &str = "PersistentVolumeClaim";
        let labels = named::find(self.store, name)?.map(|volume| volume.info.labels).unwrap_or_default();
        let mut meta = json!({ "name": name.as_str() });
        if !labels.is_empty() {
            meta["labels"] = json!(labels);
        }
        let spec = match self.origin.claims.get(name.as_str()) {
            Some(spec) => serde_json::to_value(spec).context(|| "write a claim")?,
            None => json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}),
        };
        let document = json!({"apiVersion": "v1", "kind": KIND, "metadata": meta, "spec": spec});
        self.objects.insert((KIND, name.to_string()), document);
        Ok(json!({"persistentVolumeClaim": { "claimName": name.as_str() }}))
    }

    /// The pod's securityContext: groups and sysctls.
    fn security(&self, of_one: Option<&RuntimeApp>) -> Result<Value> {
        let mut context = Map::new();
        let mounts = self.manifest.apps.iter().flat_map(|app| &app.mounts);
        let mut groups = mounts.filter_map(|mount| mount.app_volume.as_ref()).filter(|v| v.kind == VolumeKind::Empty);
        let mut fs_group = groups.find_map(|volume| volume.gid);
        if fs_group.is_none() {
            for mount in self.manifest.apps.iter().flat_map(|app| &app.mounts) {
                if content::is_content(&mount.volume)
                    && self.pod.dir().join(layout::shared_volume(&mount.volume)).exists()
                {
                    let group = Content::of_pod(self.pod.dir(), &mount.volume)?.group;
                    fs_group = fs_group.or((group != 0).then_some(group));
                }
            }
        }
        if let Some(app) = of_one.and_then(|app| app.app.as_ref()) {
            let runtime = of_one.map(|app| app.image.id.as_str()).unwrap_or_default();
            let image = images::find(self.store, runtime)?;
            let of_image = image.parsed.app.map(|app| app.supplementary_gids).unwrap_or_default();
            let options = of_one.map(|app| AppRecord::new(self.pod.dir(), &app.name).options()).transpose()?.flatten();
            // the groups of the user by the image's files are not in a pod file
            let mut own = options.map_or_else(|| app.supplementary_gids.clone(), |options| options.supplementary_gids);
            if own != of_image {
                if fs_group.is_some() && own.last() == fs_group.as_ref() {
                    own.pop();
                }
                if !own.is_empty() {
                    context.insert("supplementalGroups".into(), own.into());
                }
            }
        }
        if let Some(group) = fs_group {
            context.insert("fsGroup".into(), group.into());
        }
        let sysctls = sysctl::of(self.manifest)?;
        if !sysctls.is_empty() {
            let list: Vec<Value> = sysctls.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            context.insert("sysctls".into(), list.into());
        }
        Ok(if context.is_empty() { Value::Null } else { context.into() })
    }
}

/// A container's securityContext and its resources.
fn restrictions(
    pod: &Pod,
    runtime: &RuntimeApp,
    app: &App,
    of_image: &App,
) -> Result<(Map<String, Value>, Map<String, Value>)> {
    let mut context = Map::new();
    let numbers = [("runAsUser", &app.user, &of_image.user), ("runAsGroup", &app.group, &of_image.group)];
    let differs = numbers.iter().any(|(_, own, image)| own != image);
    let options = AppRecord::new(pod.dir(), &runtime.name).options()?;
    // the group is the user's by the image's files then
    let of_user = options.is_some_and(|options| options.user.is_some() && options.group.is_none());
    for (name, own, _) in numbers {
        if differs && !(of_user && name == "runAsGroup") {
            let number: u32 = match (own.parse(), record(pod, &runtime.name)?) {
                (Ok(number), _) => number,
                // what the name means in the app's image was found out when the app was added
                (Err(_), Some(record)) if name == "runAsUser" => record.confinement.uid,
                (Err(_), Some(record)) => record.confinement.gid,
                (Err(_), None) => {
                    return Err(Error::new(format!(
                        "{name}: a pod file takes only a number, not {own:?}: start the pod, then its apps' ids are known"
                    )));
                }
            };
            context.insert(name.into(), number.into());
        }
    }
    if runtime.read_only_root_fs {
        context.insert("readOnlyRootFilesystem".into(), true.into());
    }
    let isolators = Isolators::parse(&app.isolators)?;
    if let Some(set) = &isolators.capabilities {
        let parse = CapSet::parse(set.names.iter().map(String::as_str));
        let named = parse.map_err(|name| Error::new(format!("{name:?} is not a capability")))?;
        let all = match set.mode {
            SetMode::Retain => named,
            SetMode::Remove => CapSet::app_default().without(named),
        };
        let plain = |name: String| name.trim_start_matches("CAP_").to_owned();
        let add: Vec<String> = all.names().map(plain).collect();
        context.insert("capabilities".into(), json!({"drop": ["ALL"], "add": add}));
    }
    if let Some(none) = isolators.no_new_privileges {
        context.insert("allowPrivilegeEscalation".into(), (!none).into());
    }
    if isolators.seccomp_program.is_some() {
        return Err(Error::new("a file can't say its filter of system calls"));
    }
    if isolators.pid_namespace != PidNamespace::Pod {
        return Err(Error::new("a pod file can't express an app's PID namespace"));
    }
    let beyond = [&isolators.ambient, &isolators.masked_paths, &isolators.read_only_paths];
    if beyond.iter().any(|set| !set.is_empty()) {
        return Err(Error::new("a pod file can't express ambient capabilities, or masked or read-only paths"));
    }
    if let Some(filter) = &isolators.seccomp {
        match (filter.mode, filter.names.as_slice()) {
            (SetMode::Retain, [all]) if all == "@appc.io/all" => {
                context.insert("seccompProfile".into(), json!({ "type": "Unconfined" }));
            }
            _ => return Err(Error::new("a file can't say its filter of system calls")),
        }
    }
    let mut resources = Map::new();
    for (word, key) in [("limits", "limit"), ("requests", "request")] {
        let mut set = Map::new();
        for name in ["memory", "cpu"] {
            let isolator = app.isolators.iter().find(|isolator| isolator.name == format!("resource/{name}"));
            if let Some(quantity) = isolator.and_then(|isolator| isolator.value.get(key)).and_then(Value::as_str) {
                set.insert(name.into(), quantity.into());
            }
        }
        if !set.is_empty() {
            resources.insert(word.into(), set.into());
        }
    }
    Ok((context, resources))
}

/// Gives the containers their ports: those of their file, if they are not published or still are; and the one at `first`
/// all other published ports.
fn ports(
    mut published: Vec<Value>,
    on_host: bool,
    manifest: &PodManifest,
    mut containers: Vec<&mut Value>,
    first: usize,
) -> Result<()> {
    let mut all: Vec<Vec<Value>> = vec![Vec::new(); containers.len()];
    for (container, ports) in containers.iter().zip(&mut all) {
        let app = manifest.apps.iter().find(|app| container["name"] == app.name.as_ref());
        for port in app.map(|app| Origin::of(&app.annotations)).transpose()?.unwrap_or_default().ports {
            let value = serde_json::to_value(&port).context(|| "write a port")?;
            let is_it = |other: &Value| {
                ["containerPort", "hostPort"].iter().all(|key| other[key] == value[key])
                    && other["protocol"] == value["protocol"].as_str().unwrap_or("TCP").to_ascii_uppercase()
                    && other["hostIP"] == *value.get("hostIP").unwrap_or(&Value::Null)
            };
            match published.iter().position(is_it) {
                Some(place) => drop(published.remove(place)),
                None if port.host_port.is_some() && !on_host => continue,
                None => {}
            }
            ports.push(value);
        }
    }
    // those that were published since
    if let Some(ports) = all.get_mut(first) {
        ports.extend(published);
    }
    for (container, ports) in containers.iter_mut().zip(all) {
        if !ports.is_empty() {
            container["ports"] = ports.into();
        }
    }
    Ok(())
}

fn port(exposed: &appc::ExposedPort) -> Result<Value> {
    let port = exposed.pod_port.as_ref();
    let port =
        port.context(|| format!("port {:?}: a pod file can't express a port that an app declares", exposed.name))?;
    let protocol = port["protocol"].as_str().unwrap_or("tcp").to_ascii_uppercase();
    let mut out = json!({"containerPort": port["port"], "hostPort": exposed.host_port, "protocol": protocol});
    if let Some(ip) = &exposed.host_ip {
        out["hostIP"] = ip.as_str().into();
    }
    Ok(out)
}

/// Converts the pod's resolv.conf and hosts to fields of the Pod.
fn names(settings: &Settings, set: &mut impl FnMut(&str, Value)) {
    match &settings.names.resolv {
        Some(Source::Host) => set("dnsPolicy", "Default".into()),
        Some(Source::Text(text)) => {
            let words = |name: &str| -> Vec<Value> {
                let lines = text.lines().filter_map(|line| line.strip_prefix(name));
                lines.flat_map(str::split_whitespace).map(Value::from).collect()
            };
            let options = words("options ").into_iter().map(|option| {
                let option = option.as_str().unwrap_or_default().to_owned();
                match option.split_once(':') {
                    Some((name, value)) => json!({"name": name, "value": value}),
                    None => json!({ "name": option }),
                }
            });
            let mut config = Map::new();
            for (name, list) in
                [("nameservers", words("nameserver ")), ("searches", words("search ")), ("options", options.collect())]
            {
                if !list.is_empty() {
                    config.insert(name.into(), list.into());
                }
            }
            set("dnsConfig", config.into());
        }
        _ => {}
    }
    if let Some(Source::Text(text)) = &settings.names.hosts {
        let alias = |line: &str| {
            let (ip, names) = line.split_once('\t')?;
            Some(json!({"ip": ip, "hostnames": names.split(' ').collect::<Vec<_>>()}))
        };
        set("hostAliases", text.lines().filter_map(alias).collect::<Vec<_>>().into());
    }
}

/// Escapes `$`, so that `up` expands nothing in the text.
fn escaped(text: &str) -> String {
    text.replace('$', "$$")
}

//! Reading a file of YAML documents, each of which is a Kubernetes object.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret};
use serde::de::DeserializeOwned;
use serde_yaml_ng::Value;
use stage1::error::{Context, Error, Result};

use super::names;
use super::plan::PodPlan;
use super::pod;
use super::sources::Sources;
use super::unused::Unused;
use super::yaml;
use crate::pod::settings::Settings;
use crate::store::Store;
use crate::volume::name::VolumeName;

/// The size limit of a file, in bytes.
pub const LONGEST: u64 = 8 << 20;

/// The content of a file.
#[derive(Debug)]
pub struct File {
    /// Its pods.
    pub pods: Vec<PodPlan>,
    /// The fields that are not honoured: object, then path.
    pub unused: Vec<String>,
}

/// Reads a file. `asked` has the networks, and the directory of their configurations, given on the command line.
///
/// # Errors
/// The text is not YAML, an object has an unsupported kind or value, two objects have the same name, or there is no
/// pod.
pub fn file(store: &Store, text: &str, asked: &Settings) -> Result<File> {
    let mut objects = Objects::default();
    for (number, value) in yaml::objects(text)? {
        objects.add(value).context(|| format!("document {number}"))?;
    }
    let Objects { pods, sources, claims, mut unused } = objects;
    if pods.is_empty() {
        return Err(Error::new("it has no Pod or Deployment"));
    }
    let mut plans: Vec<PodPlan> = Vec::new();
    for pod in pods {
        let name = pod.metadata.name.clone().unwrap_or_default();
        let mut of_pod = Unused::default();
        let mut plan = pod::translate(store, pod, &sources, asked, &mut of_pod).context(|| format!("Pod {name:?}"))?;
        for (claim, labels) in &mut plan.claims {
            labels.extend(claims.get(claim).into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        }
        if plans.iter().any(|other| other.name == plan.name) {
            return Err(Error::new(format!("two pods are called {name:?}")));
        }
        plans.push(plan);
        unused.extend(of_pod.0.iter().map(|path| format!("Pod {name}: {path}")));
    }
    unused.sort();
    unused.dedup();
    Ok(File { pods: plans, unused })
}

#[derive(Default)]
struct Objects {
    pods: Vec<Pod>,
    sources: Sources,
    claims: BTreeMap<VolumeName, BTreeMap<String, String>>,
    unused: Vec<String>,
}

impl Objects {
    fn add(&mut self, mut value: Value) -> Result<()> {
        let kind = value.get("kind").and_then(Value::as_str).context(|| "it has no kind")?.to_owned();
        if matches!(kind.as_str(), "Pod" | "Deployment" | "PersistentVolumeClaim") {
            as_types_want(&mut value, false);
        }
        match kind.as_str() {
            "Pod" => {
                let pod: Pod = self.object(&kind, value)?;
                self.pods.push(pod);
            }
            "Deployment" => {
                let deployment: Deployment = self.object(&kind, value)?;
                self.pods.push(pod_of(deployment)?);
            }
            "ConfigMap" => {
                let map: ConfigMap = self.object(&kind, value)?;
                self.sources.add_config(map)?;
            }
            "Secret" => {
                let secret: Secret = self.object(&kind, value)?;
                self.sources.add_secret(secret)?;
            }
            "PersistentVolumeClaim" => {
                let claim: PersistentVolumeClaim = self.object(&kind, value)?;
                let name = claim.metadata.name.context(|| "PersistentVolumeClaim: metadata.name is missing")?;
                self.sources.claims.extend(claim.spec.map(|spec| (name.clone(), spec)));
                let name: VolumeName = name.parse().context(|| "PersistentVolumeClaim: metadata.name")?;
                self.claims.insert(name, claim.metadata.labels.unwrap_or_default());
            }
            other => {
                return Err(Error::new(format!(
                    "unsupported kind {other:?}: expected Pod, Deployment, ConfigMap, Secret or PersistentVolumeClaim"
                )));
            }
        }
        Ok(())
    }

    /// Reads an object of one kind; adds unknown fields to `unused`.
    fn object<T: DeserializeOwned>(&mut self, kind: &str, value: Value) -> Result<T> {
        let name = value.get("metadata").and_then(|meta| meta.get("name")).and_then(Value::as_str);
        let shown = format!("{kind} {}", name.unwrap_or("without a name"));
        let unused = &mut self.unused;
        let mut note = |path: serde_ignored::Path<'_>| {
            // serde_ignored adds a step "?" for each optional value
            let path = path.to_string().replace(".?", "").trim_start_matches("?.").to_owned();
            unused.push(format!("{shown}: {}", in_brackets(&path)));
        };
        let mut track = serde_path_to_error::Track::new();
        let value =
            serde_ignored::Deserializer::new(serde_path_to_error::Deserializer::new(value, &mut track), &mut note);
        let read = T::deserialize(value);
        read.map_err(|error| {
            let path = track.path().to_string();
            let at = if path == "." { String::new() } else { format!(" {path}") };
            Error::new(format!("{shown}:{at}: {}", error.to_string().replace('\n', " ")))
        })
    }
}

/// Writes the path `a.0.b` as `a[0].b`.
fn in_brackets(path: &str) -> String {
    let mut out = String::new();
    for part in path.split('.') {
        match part.parse::<usize>() {
            Ok(number) => out += &format!("[{number}]"),
            Err(_) if out.is_empty() => out += part,
            Err(_) => out += &format!(".{part}"),
        }
    }
    out
}

/// The pod of a deployment, which must have one replica.
fn pod_of(deployment: Deployment) -> Result<Pod> {
    let name = deployment.metadata.name.context(|| "Deployment: metadata.name is missing")?;
    let spec = deployment.spec.context(|| format!("Deployment {name:?}: spec is missing"))?;
    let replicas = spec.replicas.unwrap_or(1);
    if replicas != 1 {
        return Err(Error::new(format!("Deployment {name:?}: replicas {replicas}: only 1 is supported")));
    }
    let mut metadata = spec.template.metadata.unwrap_or_default();
    metadata.name = Some(names::of_deployment(&name));
    Ok(Pod { metadata, spec: spec.template.spec, status: None })
}

/// Converts values that the Kubernetes types expect in another form: quantities that are numbers to strings, and octal
/// modes with a leading 0 (YAML 1.1) to numbers.
fn as_types_want(value: &mut Value, in_volumes: bool) {
    const MAPS: [&str; 3] = ["limits", "requests", "capacity"];
    let as_text = |value: &mut Value| {
        if let Value::Number(number) = value {
            *value = Value::String(number.to_string());
        }
    };
    let as_number = |value: &mut Value| {
        let octal = value.as_str().and_then(|text| text.strip_prefix('0'));
        if let Some(number) = octal.and_then(|digits| u32::from_str_radix(digits, 8).ok()) {
            *value = Value::Number(number.into());
        }
    };
    match value {
        Value::Mapping(fields) => {
            for (name, value) in fields.iter_mut() {
                match (name.as_str(), &mut *value) {
                    (Some(name), Value::Mapping(inner)) if MAPS.contains(&name) => {
                        inner.values_mut().for_each(as_text);
                    }
                    (Some("sizeLimit"), value) => as_text(value),
                    (Some("mode" | "defaultMode"), value @ Value::String(_)) if in_volumes => as_number(value),
                    (name, value) => as_types_want(value, in_volumes || name == Some("volumes")),
                }
            }
        }
        Value::Sequence(items) => items.iter_mut().for_each(|item| as_types_want(item, in_volumes)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<File> {
        let base = tempfile::tempdir().unwrap();
        file(&Store::open(base.path()).unwrap(), text, &Settings::default())
    }

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: [{name: a, image: i}]\n";

    #[test]
    fn numbers_are_read_as_people_write_them() {
        let volumes = "  volumes: [{name: v, secret: {secretName: s, defaultMode: 0440}}]\n";
        let secret = "---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: v}\n";
        let pod = POD.replace("image: i", "image: i, resources: {limits: {cpu: 1, memory: 64Mi}}");
        let found = read(&format!("{pod}{volumes}{secret}")).unwrap();
        let plan = &found.pods[0];
        assert_eq!(plan.contents[0].files["k"], (b"v".to_vec(), 0o440));
        assert_eq!(plan.apps[0].options.isolators[1].value["limit"], "1");
        assert!(found.unused.is_empty(), "{:?}", found.unused);
    }

    #[test]
    fn what_is_not_honoured_is_named_by_its_path() {
        let pod = POD.replace("image: i", "image: i, banana: 1, volumeDevices: [{name: v, devicePath: /x}]");
        let pod = format!("{pod}  nodeName: here\n  later: {{a: 1}}\n");
        let expected = [
            "Pod web: spec.containers[0].banana",
            "Pod web: spec.containers[0].volumeDevices[0].devicePath",
            "Pod web: spec.containers[0].volumeDevices[0].name",
            "Pod web: spec.later",
            "Pod web: spec.nodeName",
        ];
        assert_eq!(read(&pod).unwrap().unused, expected);
    }

    #[test]
    fn what_is_no_pod_is_refused_with_its_place() {
        for (text, why) in [
            ("a: [", "not YAML"),
            ("", "no Pod"),
            ("a: 1", "document 1: it has no kind"),
            ("kind: Banana", "kind \"Banana\""),
            (&POD.replace("name: web", "name: 7"), "metadata.name: invalid type"),
            (&POD.replace("image: i", "image: i, env: [{name: A, value: 1}]"), "spec.containers[0].env[0].value"),
            (&format!("{POD}---\n{POD}"), "two pods are called \"web\""),
            (&POD.replace("name: a", "name: A b"), "spec.containers[0]"),
        ] {
            let line = read(text).map(|_| String::new()).unwrap_or_else(|error| error.one_line());
            assert!(line.contains(why) && !line.contains('\n'), "{why}: {line}");
        }
        let list = format!("kind: List\nitems:\n- {}", POD.trim_end().replace('\n', "\n  "));
        assert_eq!(read(&list).unwrap().pods.len(), 1);
    }
}

//! The names in a file, which are all that `down` needs of it. So a file that was edited into something that `up` refuses
//! still takes its pods down.

use std::collections::BTreeSet;

use serde_yaml_ng::Value;
use stage1::error::{Context, Error, Result};

use super::yaml;
use crate::poddir::name::PodName;
use crate::volume::name::VolumeName;

/// The names of a pod of the file.
#[derive(Debug, PartialEq, Eq)]
pub struct PodNames {
    /// Its own.
    pub pod: PodName,
    /// Those of the named volumes that it claims.
    pub claims: BTreeSet<VolumeName>,
}

/// The names of the pods of a file, in order. Everything else in the file is ignored.
///
/// # Errors
/// The text is not YAML, a pod has no valid name, or there is no pod.
pub fn of_file(text: &str) -> Result<Vec<PodNames>> {
    let mut found = Vec::new();
    for (number, object) in yaml::objects(text)? {
        let kind = object.get("kind").and_then(Value::as_str).unwrap_or_default();
        if matches!(kind, "Pod" | "Deployment") {
            found.push(of_object(kind, &object).context(|| format!("document {number}: {kind}"))?);
        }
    }
    if found.is_empty() { Err(Error::new("it has no Pod or Deployment")) } else { Ok(found) }
}

/// The name of the pod of a deployment.
pub fn of_deployment(name: &str) -> String {
    format!("{name}-pod")
}

fn of_object(kind: &str, object: &Value) -> Result<PodNames> {
    let name = at(object, &["metadata", "name"]).and_then(Value::as_str);
    let name = name.context(|| "metadata.name is missing, or is not a text")?;
    let (name, spec) = match kind {
        "Deployment" => (of_deployment(name), at(object, &["spec", "template", "spec"])),
        _ => (name.to_owned(), object.get("spec")),
    };
    let volumes = spec.and_then(|spec| spec.get("volumes")).and_then(Value::as_sequence);
    let claims = volumes.into_iter().flatten().filter_map(|volume| {
        let claim = at(volume, &["persistentVolumeClaim", "claimName"])?.as_str()?;
        // without a valid name there is no such volume
        claim.parse().ok()
    });
    Ok(PodNames { pod: name.parse().context(|| "metadata.name")?, claims: claims.collect() })
}

fn at<'a>(value: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(value, |value, step| value.get(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_file_that_up_refuses() {
        let text = "kind: Pod\nmetadata: {name: web}\nspec: {containers: 7, volumes: [7, {persistentVolumeClaim: \
                    {claimName: data}}, {persistentVolumeClaim: {claimName: ../x}}]}\n---\nkind: Banana\n---\n\
                    kind: List\nitems: [{kind: Deployment, metadata: {name: shop}, spec: {template: {spec: {volumes: \
                    [{persistentVolumeClaim: {claimName: kept}}]}}}}]\n";
        let found = of_file(text).unwrap();
        let claims = |names: &PodNames| names.claims.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found.iter().map(|names| names.pod.as_str()).collect::<Vec<_>>(), ["web", "shop-pod"]);
        assert_eq!((claims(&found[0]), claims(&found[1])), (vec!["data".to_owned()], vec!["kept".to_owned()]));
        for (text, why) in [
            ("kind: Pod\nmetadata: {name: 7}", "document 1: Pod: metadata.name is missing"),
            ("kind: Pod\nmetadata: {name: ../x}", "metadata.name: \"../x\" is not a name"),
            ("kind: Banana", "no Pod"),
            ("# nothing\n---\n", "no Pod"),
        ] {
            let line = of_file(text).unwrap_err().one_line();
            assert!(line.contains(why), "{why}: {line}");
        }
    }
}

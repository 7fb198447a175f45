//! Lifecycle hooks: annotations of an app with the commands that run in it after its start and before its stop.

use k8s_openapi::api::core::v1::{Container, ContainerPort, LifecycleHandler};
use serde_json::{Map, Value, json};
use stage1::app::{POST_START, PRE_STOP, parse_hook};
use stage1::appc::{self, NameValue};
use stage1::error::{Context, Error, Result};

use super::probes::http_get;

/// The hooks: their fields in Kubernetes' `lifecycle`, and the names of their annotations.
const HOOKS: [(&str, &str); 2] = [("postStart", POST_START), ("preStop", PRE_STOP)];

/// Takes the hooks out of a container, as annotations of its app.
///
/// # Errors
/// A hook is neither `exec` nor `httpGet`, or has no command.
pub fn take(container: &mut Container) -> Result<Vec<NameValue>> {
    let ports = container.ports.clone().unwrap_or_default();
    let Some(lifecycle) = &mut container.lifecycle else { return Ok(Vec::new()) };
    let given = [lifecycle.post_start.take(), lifecycle.pre_stop.take()];
    let given = given.into_iter().zip(HOOKS).filter_map(|(hook, names)| Some((hook?, names)));
    given
        .map(|(hook, (name, annotation))| {
            let words = words(hook, &ports).context(|| format!("lifecycle.{name}"))?;
            let text = Value::from(words).to_string();
            parse_hook(annotation, &text).context(|| format!("lifecycle.{name}"))?;
            Ok(NameValue::new(annotation, text))
        })
        .collect()
}

fn words(hook: LifecycleHandler, ports: &[ContainerPort]) -> Result<Vec<String>> {
    match (hook.exec, hook.http_get) {
        (Some(exec), None) => Ok(exec.command.unwrap_or_default()),
        (None, Some(get)) => http_get(&get, ports),
        _ => Err(Error::new("unsupported handler: expected exec or httpGet")),
    }
}

/// The hooks of an app as Kubernetes' `lifecycle`.
///
/// # Errors
/// The annotation of a hook is malformed.
pub fn lifecycle(annotations: &[NameValue]) -> Result<Map<String, Value>> {
    let mut found = Map::new();
    for (name, annotation) in HOOKS {
        if let Some(text) = appc::find(annotations, annotation) {
            let words = parse_hook(annotation, text)?;
            found.insert(name.to_owned(), json!({"exec": { "command": words }}));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_annotations_and_come_back() {
        let of = |yaml: &str| take(&mut serde_yaml_ng::from_str(&format!("{{name: a, lifecycle: {yaml}}}")).unwrap());
        let exec = "{postStart: {exec: {command: [x, a b]}}, preStop: {exec: {command: [y]}}}";
        let found = of(exec).unwrap();
        let again = Value::from(lifecycle(&found).unwrap());
        assert_eq!(of(&again.to_string()).unwrap(), found);
        let get = of("{preStop: {httpGet: {port: 80, path: /bye}}}").unwrap();
        assert!(get[0].value.contains("http://localhost:80/bye"), "{get:?}");
        for bad in ["{postStart: {exec: {}}}", "{preStop: {tcpSocket: {port: 1}}}", "{preStop: {sleep: {seconds: 1}}}"]
        {
            assert!(of(bad).unwrap_err().one_line().starts_with("lifecycle.p"), "{bad}");
        }
        assert!(of("{}").unwrap().is_empty());
    }
}

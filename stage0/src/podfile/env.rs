//! A container's environment, and `$(NAME)` in its command, arguments and variables.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::api::core::v1::{Container, EnvVarSource, ObjectFieldSelector};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use stage1::appc::NameValue;
use stage1::error::{Context, Error, Result};

use super::origin::Variable;
use super::sources::{SourceKind, Sources, as_text};

/// The sources of a container's variables.
pub struct Facts<'a> {
    /// The file's ConfigMaps and Secrets.
    pub sources: &'a Sources,
    /// The pod's name, labels and annotations.
    pub meta: &'a ObjectMeta,
}

/// The variables of a container, in order; a later one replaces an earlier one of its name. And where those come from
/// that the file does not say literally.
///
/// # Errors
/// A source is missing and not optional, a value is not UTF-8, or a reference is not supported.
pub fn variables(container: &mut Container, facts: &Facts<'_>) -> Result<(Vec<NameValue>, BTreeMap<String, Variable>)> {
    let mut found = Variables::default();
    let mut origins = BTreeMap::new();
    for from in container.env_from.take().unwrap_or_default() {
        let prefix = from.prefix.unwrap_or_default();
        let config = from.config_map_ref.map(|map| (SourceKind::Config, map.name, map.optional));
        let secret = from.secret_ref.map(|secret| (SourceKind::Secret, secret.name, secret.optional));
        for (kind, name, optional) in config.into_iter().chain(secret) {
            let values = facts.sources.all(kind, &name, optional.unwrap_or(false)).context(|| "envFrom")?;
            for (key, value) in values.into_iter().flatten() {
                let value = as_text(kind, &name, key, value)?;
                let origin = Variable::Key { kind, name: name.clone(), key: key.clone() };
                set(&mut found, &mut origins, format!("{prefix}{key}"), value, Some(origin));
            }
        }
    }
    let given = container.env.take().unwrap_or_default();
    for variable in given {
        let shown = || format!("env {:?}", variable.name);
        let (value, origin) = match (variable.value, variable.value_from) {
            (Some(text), _) => {
                let is_secret = names_in(&text).any(|name| origins.get(name).is_some_and(Variable::is_secret));
                (Some(expand(&text, &found)), is_secret.then_some(Variable::Text(text)))
            }
            // what is not literal is not expanded, like by a kubelet
            (None, Some(from)) => (value_from(&from, container, facts).context(shown)?, key_of(&from)),
            (None, None) => (Some(String::new()), None),
        };
        if let Some(value) = value {
            set(&mut found, &mut origins, variable.name, value, origin);
        }
    }
    Ok((found.in_order(), origins))
}

/// Variables that are found by name.
#[derive(Default)]
pub struct Variables {
    /// `None` for one that a later one has replaced.
    list: Vec<Option<NameValue>>,
    /// The places in the list.
    places: HashMap<String, usize>,
}

impl Variables {
    /// These variables, the later ones in place of the earlier ones of their name.
    pub fn of(variables: &[NameValue]) -> Self {
        let mut all = Self::default();
        variables.iter().cloned().for_each(|variable| all.set(variable));
        all
    }

    /// Adds a variable, in place of an earlier one of its name.
    pub fn set(&mut self, variable: NameValue) {
        if let Some(before) = self.places.insert(variable.name.clone(), self.list.len()) {
            self.list[before] = None;
        }
        self.list.push(Some(variable));
    }

    fn value(&self, name: &str) -> Option<&str> {
        Some(self.list.get(*self.places.get(name)?)?.as_ref()?.value.as_str())
    }

    fn in_order(self) -> Vec<NameValue> {
        self.list.into_iter().flatten().collect()
    }
}

fn set(
    found: &mut Variables,
    origins: &mut BTreeMap<String, Variable>,
    name: String,
    value: String,
    origin: Option<Variable>,
) {
    match origin {
        Some(origin) => drop(origins.insert(name.clone(), origin)),
        None => drop(origins.remove(&name)),
    }
    found.set(NameValue::new(name, value));
}

/// The key of a ConfigMap or Secret that a variable names.
fn key_of(from: &EnvVarSource) -> Option<Variable> {
    let config = from.config_map_key_ref.as_ref().map(|from| (SourceKind::Config, &from.name, &from.key));
    let secret = from.secret_key_ref.as_ref().map(|from| (SourceKind::Secret, &from.name, &from.key));
    let (kind, name, key) = config.or(secret)?;
    Some(Variable::Key { kind, name: name.clone(), key: key.clone() })
}

/// The names in the text that [`expand`] would replace, and perhaps some more.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split("$(").skip(1).filter_map(|rest| rest.split(')').next())
}

fn value_from(from: &EnvVarSource, container: &Container, facts: &Facts<'_>) -> Result<Option<String>> {
    if let Some(key) = &from.config_map_key_ref {
        return facts.sources.text(SourceKind::Config, &key.name, &key.key, key.optional.unwrap_or(false));
    }
    if let Some(key) = &from.secret_key_ref {
        return facts.sources.text(SourceKind::Secret, &key.name, &key.key, key.optional.unwrap_or(false));
    }
    if let Some(field) = &from.field_ref {
        return field_of(field, facts.meta).map(Some);
    }
    if let Some(selector) = &from.resource_field_ref {
        let resources = container.resources.as_ref();
        let (which, name) = selector.resource.split_once('.').unwrap_or(("", ""));
        let set = match which {
            "limits" => resources.and_then(|all| all.limits.as_ref()),
            "requests" => resources.and_then(|all| all.requests.as_ref()),
            _ => None,
        };
        let quantity = set.and_then(|set| set.get(name));
        let quantity = quantity.with_path("resourceFieldRef", &selector.resource)?;
        return Ok(Some(quantity.0.clone()));
    }
    Err(Error::new("valueFrom: expected configMapKeyRef, secretKeyRef, fieldRef or resourceFieldRef"))
}

trait Named<T> {
    fn with_path(self, what: &str, path: &str) -> Result<T>;
}

impl<T> Named<T> for Option<T> {
    fn with_path(self, what: &str, path: &str) -> Result<T> {
        self.context(|| format!("{what} {path:?}: the file does not set it"))
    }
}

/// The value of a field that is known before the pod is made.
fn field_of(field: &ObjectFieldSelector, meta: &ObjectMeta) -> Result<String> {
    let path = field.field_path.as_str();
    let keyed = |of: &str| path.strip_prefix(of)?.strip_prefix("['")?.strip_suffix("']");
    let from = |map: &Option<BTreeMap<String, String>>, key: &str| {
        map.as_ref().and_then(|map| map.get(key)).cloned().unwrap_or_default()
    };
    match path {
        "metadata.name" => Ok(meta.name.clone().unwrap_or_default()),
        "metadata.namespace" => Ok(meta.namespace.clone().unwrap_or_else(|| "default".into())),
        _ => match (keyed("metadata.labels"), keyed("metadata.annotations")) {
            (Some(key), _) => Ok(from(&meta.labels, key)),
            (_, Some(key)) => Ok(from(&meta.annotations, key)),
            _ => Err(Error::new(format!(
                "unsupported fieldRef {path:?}: expected metadata.name, metadata.namespace, metadata.labels['KEY'] or \
                 metadata.annotations['KEY']"
            ))),
        },
    }
}

/// Replaces `$(NAME)` by the variable's value. `$$` becomes `$`; a reference to an unknown variable stays unchanged.
pub fn expand(text: &str, variables: &Variables) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$$") {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix("$(").and_then(|rest| rest.split_once(')'));
        match name.and_then(|(name, after)| Some((variables.value(name)?, after))) {
            Some((value, after)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_the_file_says_literally_is_expanded() {
        let mut sources = Sources::default();
        let secret = json!({"metadata": {"name": "s"}, "stringData": {"p": "a$$b$(W)", "W": "w"}});
        sources.add_secret(serde_json::from_value(secret).unwrap()).unwrap();
        let env = json!([
            {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
            {"name": "T", "value": "$(P)!"},
            {"name": "U", "value": "$(T)$(NONE)"},
            {"name": "W", "value": "literal"},
            {"name": "X", "value": "$(W)"},
        ]);
        let from = json!({"name": "a", "env": env, "envFrom": [{"secretRef": {"name": "s"}, "prefix": "S_"},
            {"secretRef": {"name": "s"}}]});
        let facts = Facts { sources: &sources, meta: &ObjectMeta::default() };
        let (found, origins) = variables(&mut serde_json::from_value(from).unwrap(), &facts).unwrap();
        let value = |name: &str| found.iter().find(|one| one.name == name).unwrap().value.clone();
        for (name, expected) in [
            ("P", "a$$b$(W)"),
            ("S_p", "a$$b$(W)"),
            ("T", "a$$b$(W)!"),
            ("U", "a$$b$(W)!$(NONE)"),
            ("W", "literal"),
            ("X", "literal"),
        ] {
            assert_eq!(value(name), expected, "{name}");
        }
        let key = |key: &str| Variable::Key { kind: SourceKind::Secret, name: "s".into(), key: key.into() };
        let text = |text: &str| Variable::Text(text.into());
        let expected = [
            ("P", key("p")),
            ("S_W", key("W")),
            ("S_p", key("p")),
            ("T", text("$(P)!")),
            ("U", text("$(T)$(NONE)")),
            ("p", key("p")),
        ];
        assert_eq!(origins, expected.map(|(name, origin)| (name.to_owned(), origin)).into());
    }

    #[test]
    fn names_in_parentheses_are_values() {
        let variables =
            Variables::of(&[NameValue::new("A", "0"), NameValue::new("A", "1"), NameValue::new("B", "$(A)")]);
        for (text, expected) in
            [("x$(A)y", "x1y"), ("$(B)", "$(A)"), ("$$(A)", "$(A)"), ("$(C) $", "$(C) $"), ("$(A", "$(A"), ("", "")]
        {
            assert_eq!(expand(text, &variables), expected, "{text}");
        }
    }
}

//! Filters of `podctl list`: `--filter KEY=VALUE`

use std::collections::BTreeMap;
use std::str::FromStr;

use stage1::error::{Context, Error, Result};

use super::status::PodStatus;

/// A condition for pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// The pod's name contains this.
    Name(String),
    /// The pod's UUID starts with this.
    Id(String),
    /// The pod is in this state; `paused` counts as one.
    State(String),
    /// The pod has an app of this name.
    App(String),
    /// The pod, or one of its apps, has this label, with this value if one is given.
    Label(String, Option<String>),
}

impl FromStr for Filter {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (key, value) = text.split_once('=').context(|| "expected KEY=VALUE")?;
        let own = value.to_owned();
        Ok(match key {
            "name" => Self::Name(own),
            "id" => Self::Id(own),
            "state" | "status" => Self::State(own),
            "app" => Self::App(own),
            "label" => match value.split_once('=') {
                Some((name, value)) => Self::Label(name.to_owned(), Some(value.to_owned())),
                None => Self::Label(own, None),
            },
            _ => return Err(Error::new(format!("unknown key {key:?}: expected name, id, state, app or label"))),
        })
    }
}

impl Filter {
    /// Whether a pod meets the condition.
    pub(super) fn fits(&self, pod: &PodStatus) -> bool {
        match self {
            Self::Name(part) => pod.pod_name.as_ref().is_some_and(|name| name.contains(part)),
            Self::Id(start) => {
                let plain: String = pod.name.chars().filter(|c| *c != '-').collect();
                pod.name.starts_with(start) || plain.starts_with(start)
            }
            Self::State(state) => (if pod.paused { "paused" } else { &pod.state }) == state,
            Self::App(app) => pod.app_names.contains(app),
            Self::Label(name, value) => {
                let has = |labels: &BTreeMap<String, String>| {
                    labels.get(name).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
                };
                has(&pod.user_labels) || pod.apps.iter().any(|app| has(&app.user_labels))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        assert_eq!("label=a=b".parse::<Filter>().unwrap(), Filter::Label("a".into(), Some("b".into())));
        assert_eq!("label=a".parse::<Filter>().unwrap(), Filter::Label("a".into(), None));
        assert_eq!("status=running".parse::<Filter>().unwrap(), Filter::State("running".into()));
        for bad in ["", "name", "banana=1"] {
            assert!(bad.parse::<Filter>().is_err(), "{bad}");
        }
    }
}

//! The restrictions that the operator switches off for a pod or an app.

use serde::{Deserialize, Deserializer, Serialize};

/// Which restrictions are switched off. In JSON as in `runtime-config`: CONTRACT section 6.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct InsecureOptions {
    /// Whether kernel paths stay visible and writable, and every device may be used: `--disable-paths`.
    #[serde(alias = "disable_paths", deserialize_with = "null_as_false")]
    pub disable_paths: bool,
    /// Whether apps have every capability of their pod: `--disable-capabilities-restriction`.
    #[serde(alias = "disable_capabilities_restriction", deserialize_with = "null_as_false")]
    pub disable_capabilities: bool,
    /// Whether apps have no system call filter: `--disable-seccomp`.
    #[serde(alias = "disable_seccomp", deserialize_with = "null_as_false")]
    pub disable_seccomp: bool,
}

impl InsecureOptions {
    /// The restrictions that `self` or `other` switches off.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            disable_paths: self.disable_paths || other.disable_paths,
            disable_capabilities: self.disable_capabilities || other.disable_capabilities,
            disable_seccomp: self.disable_seccomp || other.disable_seccomp,
        }
    }

    /// The flags for `run` and `app-add`.
    pub fn flags(self) -> impl Iterator<Item = String> {
        let flags = [
            (self.disable_paths, "--disable-paths"),
            (self.disable_capabilities, "--disable-capabilities-restriction"),
            (self.disable_seccomp, "--disable-seccomp"),
        ];
        flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned())
    }
}

fn null_as_false<'de, D: Deserializer<'de>>(from: D) -> Result<bool, D::Error> {
    Option::<bool>::deserialize(from).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The second form is in the files of pods that older versions of podctl made.
    #[test]
    fn both_ways_of_writing_are_read() {
        let all = InsecureOptions { disable_paths: true, disable_capabilities: true, disable_seccomp: false };
        for json in [
            r#"{"DisablePaths":true,"DisableCapabilities":true,"DisableSeccomp":null}"#,
            r#"{"disable_paths":true,"disable_capabilities_restriction":true,"disable_seccomp":false}"#,
        ] {
            assert_eq!(serde_json::from_str::<InsecureOptions>(json).unwrap(), all, "{json}");
        }
    }
}

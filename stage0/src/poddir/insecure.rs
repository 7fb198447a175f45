//! What of a pod or an app is not restricted.

/// What is not restricted, at the operator's own risk.
#[derive(clap::Args, serde::Serialize, serde::Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Insecure {
    /// Leave kernel paths visible and writable
    #[arg(long)]
    pub disable_paths: bool,
    /// Keep all capabilities
    #[arg(long)]
    pub disable_capabilities_restriction: bool,
    /// Run without a system call filter
    #[arg(long)]
    pub disable_seccomp: bool,
}

impl Insecure {
    /// As flags of an entrypoint.
    pub fn flags(self) -> Vec<String> {
        let flags = [
            (self.disable_paths, "--disable-paths"),
            (self.disable_capabilities_restriction, "--disable-capabilities-restriction"),
            (self.disable_seccomp, "--disable-seccomp"),
        ];
        flags.into_iter().filter(|(on, _)| *on).map(|(_, flag)| flag.to_owned()).collect()
    }

    /// What either leaves unrestricted.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            disable_paths: self.disable_paths || other.disable_paths,
            disable_capabilities_restriction: self.disable_capabilities_restriction
                || other.disable_capabilities_restriction,
            disable_seccomp: self.disable_seccomp || other.disable_seccomp,
        }
    }
}

//! Settings of a pod that its manifest has no place for: flags of the run entrypoint.

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Context, Error, Result};
use stage1::uid_range::UidRange;
use uuid::Uuid;

use crate::fsutil::atomic::write;
use crate::pod::name_files::NameFiles;

/// Where a pod keeps its settings, in its directory.
const FILE: &str = "settings";

/// The IPC namespace of a pod.
#[derive(clap::ValueEnum, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Ipc {
    /// As the stage1 decides: one of its own.
    Auto,
    /// One of its own.
    Private,
    /// The host's.
    Parent,
}

/// What of a pod is decided when it is run, as far as it was asked for.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Settings {
    /// Its host name, if not the default one.
    pub hostname: Option<String>,
    /// Its networks, as `--net` of the run entrypoint takes them; if not set, the stage1 decides.
    pub network: Option<String>,
    /// The directory that has the configurations of networks.
    pub local_config: Option<String>,
    /// Its IPC namespace.
    pub ipc: Option<Ipc>,
    /// Where resolv.conf and hosts come from: `resolv=MODE,hosts=MODE`.
    pub dns_conf_mode: Option<String>,
    /// What they hold, as far as they come from here.
    pub names: NameFiles,
    /// Its only app has the caller's terminal.
    pub interactive: bool,
    /// What of its apps is not restricted.
    pub insecure: InsecureOptions,
}

impl Settings {
    /// Keeps them for [`Self::load`].
    ///
    /// # Errors
    /// They can't be written.
    pub fn save(&self, pod: &Path) -> Result<()> {
        write(&pod.join(FILE), &serde_json::to_vec(self).context(|| "write the pod's settings")?, 0o640)
    }

    /// Those that the pod was prepared with; none if another host manager did that.
    ///
    /// # Errors
    /// They can't be read.
    pub fn load(pod: &Path) -> Result<Self> {
        Ok(Self::find(pod)?.unwrap_or_default())
    }

    /// Those that were saved, if any were.
    ///
    /// # Errors
    /// They can't be read.
    pub fn find(pod: &Path) -> Result<Option<Self>> {
        let path = pod.join(FILE);
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).context(|| format!("{path:?}")).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::caused_by(format!("read {path:?}"), error)),
        }
    }

    /// These, and those of `other` that are not set here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            hostname: self.hostname.or(other.hostname),
            network: self.network.or(other.network),
            local_config: self.local_config.or(other.local_config),
            ipc: self.ipc.or(other.ipc),
            dns_conf_mode: self.dns_conf_mode.or(other.dns_conf_mode),
            names: self.names.or(other.names),
            interactive: self.interactive || other.interactive,
            insecure: self.insecure.or(other.insecure),
        }
    }
}

/// Everything that becomes an argument of the run entrypoint.
#[derive(Clone, Debug)]
pub struct Launch {
    /// What was asked for.
    pub settings: Settings,
    /// The pod takes apps while it runs.
    pub mutable: bool,
    /// Its process says more.
    pub debug: bool,
}

impl Launch {
    /// The arguments of the run entrypoint. What was not asked for is not mentioned: another stage1 may not know it.
    pub fn arguments(&self, uuid: Uuid, private_users: Option<UidRange>) -> Vec<OsString> {
        let Settings { hostname, network, local_config, ipc, dns_conf_mode, names, interactive, insecure } =
            &self.settings;
        let dns_conf_mode = names.mode(dns_conf_mode.as_deref(), network.as_deref() == Some("host"));
        let ipc = ipc.map(|ipc| match ipc {
            Ipc::Auto => "--ipc=auto",
            Ipc::Private => "--ipc=private",
            Ipc::Parent => "--ipc=parent",
        });
        let switch = |on: bool, flag: &str| on.then(|| flag.to_owned());
        let option = |name: &str, value: &Option<String>| value.as_ref().map(|value| format!("--{name}={value}"));
        let args = [
            switch(self.debug, "--debug"),
            option("net", network),
            option("local-config", local_config),
            switch(self.mutable, "--mutable"),
            switch(*interactive, "--interactive"),
            option("hostname", hostname),
            ipc.map(str::to_owned),
            option("dns-conf-mode", &dns_conf_mode),
            private_users.map(|ids| format!("--private-users={ids}")),
        ];
        let args = args.into_iter().flatten().chain(insecure.flags()).chain([uuid.to_string()]);
        args.map(OsString::from).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_last_counts() {
        let base = tempfile::tempdir().unwrap();
        assert_eq!(Settings::load(base.path()).unwrap(), Settings::default());
        let before = Settings {
            hostname: Some("h1".into()),
            network: Some("none".into()),
            ipc: Some(Ipc::Parent),
            ..Settings::default()
        };
        before.save(base.path()).unwrap();
        let now = Settings { hostname: Some("h2".into()), interactive: true, ..Settings::default() };
        let settings = now.or(Settings::load(base.path()).unwrap());
        let launch = Launch { settings, mutable: false, debug: true };
        let args = launch.arguments(Uuid::nil(), Some(UidRange { first: 1, count: 2 }));
        let expected =
            ["--debug", "--net=none", "--interactive", "--hostname=h2", "--ipc=parent", "--private-users=1:2"]
                .map(OsString::from);
        assert_eq!(args[..6], expected);
        assert_eq!(args[6], OsString::from("00000000-0000-0000-0000-000000000000"));
    }
}

//! Settings of a pod that its manifest can't hold: flags of the run entrypoint.

use std::ffi::OsString;
use std::path::Path;

use serde::{Deserialize, Serialize};
use stage1::confine::insecure::InsecureOptions;
use stage1::error::{Context, Error, Result};
use stage1::uid_range::UidRange;
use uuid::Uuid;

use crate::fsutil::atomic::write;
use crate::pod::name_files::NameFiles;

/// The file in a pod's directory that holds its settings, as JSON.
const FILE: &str = "settings";

/// The IPC namespace of a pod.
#[derive(clap::ValueEnum, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Ipc {
    /// The stage1's choice: the pod's own
    Auto,
    /// The pod's own
    Private,
    /// The host's
    Parent,
}

/// The settings of a pod that apply when it is run; the stage1 decides on unset ones.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct Settings {
    /// The host name; `rkt-UUID` if `None`.
    pub hostname: Option<String>,
    /// The networks, as in `--net` of the run entrypoint.
    pub network: Option<String>,
    /// The directory whose `net.d` has the network configurations.
    pub local_config: Option<String>,
    /// The IPC namespace.
    pub ipc: Option<Ipc>,
    /// The modes of resolv.conf and hosts: `resolv=MODE,hosts=MODE`.
    pub dns_conf_mode: Option<String>,
    /// The sources of resolv.conf and hosts.
    pub names: NameFiles,
    /// Whether the pod's only app has the caller's terminal.
    pub interactive: bool,
    /// The restrictions to lift for all apps.
    pub insecure: InsecureOptions,
}

impl Settings {
    /// Writes the settings to the pod's directory `pod`.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn save(&self, pod: &Path) -> Result<()> {
        write(&pod.join(FILE), &serde_json::to_vec(self).context(|| "write the pod's settings")?, 0o640)
    }

    /// The settings in the pod's directory `pod`; the defaults if there are none, as in a pod of another host manager.
    ///
    /// # Errors
    /// The file can't be read or is damaged.
    pub fn load(pod: &Path) -> Result<Self> {
        Ok(Self::find(pod)?.unwrap_or_default())
    }

    /// The settings in the pod's directory `pod`; `None` if there are none.
    ///
    /// # Errors
    /// The file can't be read or is damaged.
    pub fn find(pod: &Path) -> Result<Option<Self>> {
        let path = pod.join(FILE);
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).context(|| format!("{path:?}")).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::caused_by(format!("read {path:?}"), error)),
        }
    }

    /// The host name of the pod `uuid` with these settings.
    pub fn hostname_of(&self, uuid: Uuid) -> String {
        self.hostname.clone().unwrap_or_else(|| format!("rkt-{uuid}"))
    }

    /// These settings; unset ones are those of `other`.
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

/// All that becomes arguments of the run entrypoint.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The pod's settings.
    pub settings: Settings,
    /// Whether the pod is mutable.
    pub mutable: bool,
    /// Whether the entrypoint logs debug messages.
    pub debug: bool,
}

impl Launch {
    /// The arguments of the run entrypoint. Unset options are left out: another stage1 may not know their flags.
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

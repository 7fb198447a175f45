//! The resolv.conf and hosts of a pod's apps, as far as the host manager decides on them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use stage1::cli::DnsConfMode;
use stage1::error::Result;
use stage1::layout;

use crate::fsutil::atomic::write;

/// What the two files hold.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct NameFiles {
    /// `--dns`, or what else decides on resolv.conf.
    pub resolv: Option<Source>,
    /// `--hosts-entry`.
    pub hosts: Option<Source>,
}

/// Where a file comes from.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The host.
    Host,
    /// Nowhere: the image has its own.
    None,
    /// This is it.
    Text(String),
}

impl NameFiles {
    /// These, and those of `other` that are not decided here.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { resolv: self.resolv.or(other.resolv), hosts: self.hosts.or(other.hosts) }
    }

    /// The modes that go with them; what was asked for expressly comes first. On the host's network name servers are
    /// the host's, if nothing else is said.
    pub fn mode(&self, asked: Option<&str>, host_network: bool) -> Option<String> {
        let word = |source: &Source| match source {
            Source::Host => "host",
            Source::None => "none",
            Source::Text(_) => "stage0",
        };
        let mut modes: DnsConfMode = asked.unwrap_or_default().parse().unwrap_or_default();
        for (mode, source) in [(&mut modes.resolv, &self.resolv), (&mut modes.hosts, &self.hosts)] {
            if let (true, Some(source)) = (mode.is_empty(), source) {
                word(source).clone_into(mode);
            }
        }
        if modes.resolv.is_empty() && host_network {
            word(&Source::Host).clone_into(&mut modes.resolv);
        }
        let parts = [("resolv", modes.resolv), ("hosts", modes.hosts)];
        let parts: Vec<_> =
            parts.iter().filter(|(_, mode)| !mode.is_empty()).map(|(name, mode)| format!("{name}={mode}")).collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// Puts them into the root of the pod in `dir`, which does not run yet.
    ///
    /// # Errors
    /// They can't be written.
    pub fn put_in_place(&self, dir: &Path, hostname: &str) -> Result<()> {
        if let Some(Source::Text(text)) = &self.resolv {
            write(&dir.join(layout::resolv_conf()), text.as_bytes(), 0o644)?;
        }
        if let Some(Source::Text(text)) = &self.hosts {
            let text = format!("{}{text}", layout::standard_hosts(hostname));
            write(&dir.join(layout::hosts()), text.as_bytes(), 0o644)?;
        }
        Ok(())
    }
}

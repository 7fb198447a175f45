//! The resolv.conf(5) and hosts(5) of a pod's apps, if the host manager provides them.

use std::path::Path;

use serde::{Deserialize, Serialize};
use stage1::cli::DnsConfMode;
use stage1::error::Result;
use stage1::layout;

use crate::fsutil::atomic::write;

/// The sources of the two files; `None` leaves a file to the stage1.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct NameFiles {
    /// The resolv.conf, from `--dns` and the like.
    pub resolv: Option<Source>,
    /// The hosts file, from `--hosts-entry`.
    pub hosts: Option<Source>,
}

/// The source of a file.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The host's file.
    Host,
    /// No file is provided: the image's own stays.
    None,
    /// This text; for the hosts file, lines to add to the standard ones.
    Text(String),
}

impl NameFiles {
    /// These sources; unset ones are those of `other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self { resolv: self.resolv.or(other.resolv), hosts: self.hosts.or(other.hosts) }
    }

    /// The value of the run entrypoint's `--dns-conf-mode`, `None` if it is not needed. The modes in `asked` take
    /// precedence. On the host's network resolv.conf is the host's by default.
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

    /// Writes the files with text into the root of the pod in `dir`, before it runs.
    ///
    /// # Errors
    /// A file can't be written.
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

//! Isolators on the command line.

use serde_json::{Map, Value, json};
use stage1::appc::{Isolator, Isolators};
use stage1::error::{Context, Error, Result};

/// The isolators that an app is given on the command line.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Limits {
    /// How much memory it may use: 64M, 1Gi
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Above how much memory it is slowed down (cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory_high: Option<String>,
    /// How much swap it may use (cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// How much of the processors it may use: 500m, 1.5
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub cpu: Option<String>,
    /// Its share of the processors, against that of others
    #[arg(long, value_name = "NUMBER")]
    pub cpu_shares: Option<u64>,
    /// How many processes and threads it may have
    #[arg(long, value_name = "NUMBER")]
    pub pids: Option<u64>,
    /// Its share of the disks, against that of others: 1 to 10000
    #[arg(long, value_name = "NUMBER")]
    pub io_weight: Option<u64>,
    /// How soon the kernel ends it when memory runs out: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    /// The only capabilities it keeps: CAP_CHOWN,CAP_KILL
    #[arg(long, value_name = "CAPS", value_delimiter = ',')]
    pub caps_retain: Vec<String>,
    /// Capabilities it does not get
    #[arg(long, value_name = "CAPS", value_delimiter = ',', conflicts_with = "caps_retain")]
    pub caps_remove: Vec<String>,
    /// System calls it may or may not make: mode=retain|remove[,errno=NAME],CALL,…
    #[arg(long, value_name = "FILTER")]
    pub seccomp: Option<String>,
    /// It can't gain privileges, by setuid programs for example
    #[arg(long)]
    pub no_new_privileges: bool,
}

/// `mode=retain|remove[,errno=NAME],CALL,…` as an isolator's name and value, as rkt's `--seccomp` has it.
fn seccomp(text: &str) -> Result<(&'static str, Value)> {
    let (mut name, mut errno, mut calls) = (None, None, Vec::new());
    for word in text.split(',') {
        match word.split_once('=') {
            Some(("mode", "retain")) => name = Some("os/linux/seccomp-retain-set"),
            Some(("mode", "remove")) => name = Some("os/linux/seccomp-remove-set"),
            Some(("errno", value)) => errno = Some(value),
            None if !word.is_empty() => calls.push(word),
            _ => {
                return Err(Error::new(format!("{word:?} is neither mode=retain, mode=remove, errno=NAME nor a call")));
            }
        }
    }
    let name = name.context(|| "mode=retain or mode=remove is missing")?;
    let mut value = json!({ "set": calls });
    if let Some(errno) = errno {
        value["errno"] = json!(errno);
    }
    Ok((name, value))
}

impl Limits {
    /// As isolators of a manifest.
    ///
    /// # Errors
    /// The first with a value that makes no sense.
    pub fn isolators(&self) -> Result<Vec<Isolator>> {
        let mut found = Vec::new();
        let mut add = |option: &str, name: &str, value: Value| -> Result<()> {
            let isolator = Isolator { name: name.into(), value, other: Map::new() };
            Isolators::parse(std::slice::from_ref(&isolator)).context(|| option.to_owned())?;
            found.push(isolator);
            Ok(())
        };
        if let Some(memory) = &self.memory {
            add("--memory", "resource/memory", json!({ "limit": memory }))?;
        }
        for (option, name, limit) in [
            ("--memory-high", "resource/memory-high", &self.memory_high),
            ("--memory-swap", "resource/memory-swap", &self.memory_swap),
        ] {
            if let Some(limit) = limit {
                add(option, name, json!({ "limit": limit }))?;
            }
        }
        if let Some(pids) = self.pids {
            add("--pids", "resource/pids", json!({ "limit": pids }))?;
        }
        if let Some(weight) = self.io_weight {
            add("--io-weight", "resource/io-weight", json!({ "weight": weight }))?;
        }
        if let Some(text) = &self.seccomp {
            let (name, value) = seccomp(text).context(|| format!("--seccomp {text:?}"))?;
            add("--seccomp", name, value)?;
        }
        if let Some(cpu) = &self.cpu {
            add("--cpu", "resource/cpu", json!({ "limit": cpu }))?;
        }
        if let Some(shares) = self.cpu_shares {
            add("--cpu-shares", "os/linux/cpu-shares", json!(shares))?;
        }
        if let Some(adjustment) = self.oom_score_adj {
            add("--oom-score-adj", "os/linux/oom-score-adj", json!(adjustment))?;
        }
        if !self.caps_retain.is_empty() {
            add("--caps-retain", "os/linux/capabilities-retain-set", json!({ "set": self.caps_retain }))?;
        }
        if !self.caps_remove.is_empty() {
            add("--caps-remove", "os/linux/capabilities-remove-set", json!({ "set": self.caps_remove }))?;
        }
        if self.no_new_privileges {
            add("--no-new-privileges", "os/linux/no-new-privileges", json!(true))?;
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seccomp_filters_are_read_as_rkt_writes_them() {
        let (name, value) = seccomp("mode=remove,errno=EACCES,chroot,@docker/default-blacklist").unwrap();
        assert_eq!(name, "os/linux/seccomp-remove-set");
        assert_eq!(value, json!({ "set": ["chroot", "@docker/default-blacklist"], "errno": "EACCES" }));
        for bad in ["", "chroot", "mode=banana,chroot", "mode=retain,,x", "mode=retain,what=x"] {
            assert!(seccomp(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn limits_are_isolators() {
        let limits = Limits { memory: Some("banana".into()), ..Limits::default() };
        assert!(limits.isolators().unwrap_err().one_line().starts_with("--memory"));
        let limits = Limits { memory: Some("64M".into()), no_new_privileges: true, ..Limits::default() };
        assert_eq!(limits.isolators().unwrap().len(), 2);
    }
}

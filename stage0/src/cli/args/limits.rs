//! Isolators on the command line.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use stage1::appc::{Isolator, Isolators};
use stage1::error::{Context, Error, Result};

use crate::fsutil::dir::in_words;

/// The options for an app's isolators.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LimitOptions {
    /// Limit its memory to this much, in powers of 1024: 64m, 64MiB, 1g
    #[arg(short, long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory: Option<String>,
    /// Throttle the app above this much memory (memory.high; cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory_high: Option<String>,
    /// Limit its swap to this much (memory.swap.max; cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Limit it to this much processor time, in processors: 500m, 1.5
    #[arg(long, alias = "cpus", value_name = "QUANTITY", allow_hyphen_values = true)]
    pub cpu: Option<String>,
    /// Weigh it against other apps by this much when processors are busy
    #[arg(long, value_name = "NUMBER")]
    pub cpu_shares: Option<u64>,
    /// Limit it to this many processes and threads
    #[arg(long, alias = "pids-limit", value_name = "NUMBER")]
    pub pids: Option<u64>,
    /// Weigh it against other apps by this much when disks are busy: 1 to 10000
    #[arg(long, value_name = "NUMBER")]
    pub io_weight: Option<u64>,
    /// Have the kernel kill it sooner (1000) or later (-1000) when memory runs out
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i32>,
    /// Keep only these capabilities: CAP_CHOWN,CAP_KILL
    #[arg(long, value_name = "CAPS", value_delimiter = ',')]
    pub caps_retain: Vec<String>,
    /// Drop these of the default capabilities
    #[arg(long, value_name = "CAPS", value_delimiter = ',', conflicts_with = "caps_retain")]
    pub caps_remove: Vec<String>,
    /// Allow only (retain) or deny (remove) system calls: mode=retain|remove[,errno=NAME],CALL,…
    #[arg(long, value_name = "FILTER")]
    pub seccomp: Option<String>,
    /// Filter its system calls by this seccomp profile (JSON of the OCI runtime spec), or by none:
    /// /etc/podctl/web.json, unconfined
    #[arg(long, value_name = "FILE", conflicts_with = "seccomp")]
    pub seccomp_profile: Option<PathBuf>,
    /// Keep these capabilities for any user and over every execve (the ambient set): CAP_NET_BIND_SERVICE
    #[arg(long, value_name = "CAPS", value_delimiter = ',')]
    pub caps_ambient: Vec<String>,
    /// Keep it from gaining privileges, for example by setuid programs; =false allows that (default: allow it if the
    /// user is 0 or system calls are not filtered)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_new_privileges: Option<bool>,
    /// Run it in the pod's PID namespace (pod), in its own as PID 1 (private), in that of another running app (app:NAME),
    /// or in the host's (host), where it sees and can signal the host's processes (default: pod)
    #[arg(long, value_name = "NAMESPACE")]
    pub pid: Option<String>,
    /// Hide this path: to the app it is empty and can't be opened: /proc/cmdline
    #[arg(long = "mask", value_name = "PATH")]
    pub masked_paths: Vec<String>,
    /// Make this path and everything below it read-only for the app: /proc/sys/net
    #[arg(long = "readonly-path", value_name = "PATH")]
    pub readonly_paths: Vec<String>,
}

/// Limits that can be changed while the app runs.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct LiveLimits {
    /// Limit its memory to this much, in powers of 1024: 64m, 64MiB, 1g
    #[arg(short, long, value_name = "QUANTITY", allow_hyphen_values = true)]
    memory: Option<String>,
    /// Throttle the app above this much memory (memory.high; cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    memory_high: Option<String>,
    /// Limit its swap to this much (memory.swap.max; cgroup v2)
    #[arg(long, value_name = "QUANTITY", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Limit it to this much processor time, in processors: 500m, 1.5
    #[arg(long, alias = "cpus", value_name = "QUANTITY", allow_hyphen_values = true)]
    cpu: Option<String>,
    /// Weigh it against other apps by this much when processors are busy
    #[arg(long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// Limit it to this many processes and threads
    #[arg(long, alias = "pids-limit", value_name = "NUMBER")]
    pids: Option<u64>,
    /// Weigh it against other apps by this much when disks are busy: 1 to 10000
    #[arg(long, value_name = "NUMBER")]
    io_weight: Option<u64>,
}

impl LiveLimits {
    /// Converts the options to isolators of a manifest.
    ///
    /// # Errors
    /// A value is invalid.
    pub fn isolators(self) -> Result<Vec<Isolator>> {
        let Self { memory, memory_high, memory_swap, cpu, cpu_shares, pids, io_weight } = self;
        let rest = LimitOptions::default();
        LimitOptions { memory, memory_high, memory_swap, cpu, cpu_shares, pids, io_weight, ..rest }.isolators()
    }
}

/// Parses `mode=retain|remove[,errno=NAME],CALL,…`, as rkt's `--seccomp`, to an isolator's name and value.
fn seccomp(text: &str) -> Result<(&'static str, Value)> {
    let (mut name, mut errno, mut calls) = (None, None, Vec::new());
    for word in text.split(',') {
        match word.split_once('=') {
            Some(("mode", "retain")) => name = Some("os/linux/seccomp-retain-set"),
            Some(("mode", "remove")) => name = Some("os/linux/seccomp-remove-set"),
            Some(("errno", value)) => errno = Some(value),
            None if !word.is_empty() => calls.push(word),
            _ => {
                return Err(Error::new(format!(
                    "unknown word {word:?}: expected mode=retain, mode=remove, errno=NAME or a system call"
                )));
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

/// The least memory limit in bytes: no app runs with less.
const LEAST_MEMORY: u64 = 1 << 20;

/// Parses an amount of memory as docker does: every unit, also `kb` and `mb`, is a power of 1024. Returns bytes.
pub(super) fn memory(text: &str) -> Result<u64> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number = &text[..text.len() - unit.len()];
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "ki" | "kib" => 10,
        "m" | "mb" | "mi" | "mib" => 20,
        "g" | "gb" | "gi" | "gib" => 30,
        "t" | "tb" | "ti" | "tib" => 40,
        _ => return Err(Error::new(format!("{text:?} is not an amount of memory, such as 64m, 512MiB or 1.5g"))),
    };
    let shown = || format!("{text:?} is not an amount of memory, such as 64m, 512MiB or 1.5g");
    let (whole, rest) = number.split_once('.').unwrap_or((number, ""));
    let whole: u64 = whole.parse().context(shown)?;
    // 18 digits are more precise than a byte
    let digits = &rest[..rest.len().min(18)];
    let rest: u128 = if digits.is_empty() { 0 } else { digits.parse().context(shown)? };
    let bytes =
        (u128::from(whole) << shift) + ((rest << shift) / 10_u128.pow(u32::try_from(digits.len()).unwrap_or(0)));
    u64::try_from(bytes).context(shown)
}

impl LimitOptions {
    /// Converts the options to isolators of a manifest.
    ///
    /// # Errors
    /// A value is invalid.
    pub fn isolators(&self) -> Result<Vec<Isolator>> {
        self.isolators_of("--")
    }

    /// As [`Self::isolators`]; messages name options that begin with `start`.
    pub(super) fn isolators_of(&self, start: &str) -> Result<Vec<Isolator>> {
        let mut found = Vec::new();
        let mut add = |option: &str, name: &str, value: Value| -> Result<()> {
            let isolator = Isolator { name: name.into(), value, other: Map::new() };
            Isolators::parse(std::slice::from_ref(&isolator)).context(|| option.replacen("--", start, 1))?;
            found.push(isolator);
            Ok(())
        };
        for (option, name, limit) in [
            ("--memory", "resource/memory", &self.memory),
            ("--memory-high", "resource/memory-high", &self.memory_high),
            ("--memory-swap", "resource/memory-swap", &self.memory_swap),
        ] {
            if let Some(text) = limit {
                let shown = option.replacen("--", start, 1);
                let bytes = memory(text).context(|| shown.clone())?;
                if bytes < LEAST_MEMORY && (option, bytes) != ("--memory-swap", 0) {
                    let is_bare = bytes > 0 && text.bytes().all(|byte| byte.is_ascii_digit());
                    let remedy = if is_bare {
                        format!("; a number without a unit is bytes, write {text}m")
                    } else {
                        String::new()
                    };
                    let least = if option == "--memory-swap" { "0, or 1m" } else { "1m" };
                    return Err(Error::new(format!(
                        "{shown} {text}: {bytes} bytes are less than 1 MiB, the smallest limit is {least}{remedy}"
                    )));
                }
                add(option, name, json!({ "limit": bytes.to_string() }))?;
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
        if let Some(file) = &self.seccomp_profile {
            let isolator = crate::app::profile::isolator(file).map_err(in_words(file));
            let isolator = isolator.context(|| "--seccomp-profile")?;
            add("--seccomp-profile", &isolator.name, isolator.value)?;
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
        if let Some(none) = self.no_new_privileges {
            add("--no-new-privileges", "os/linux/no-new-privileges", json!(none))?;
        }
        if let Some(namespace) = &self.pid {
            add("--pid", "os/linux/pid-namespace", json!(namespace))?;
        }
        for (option, name, set) in [
            ("--caps-ambient", "os/linux/capabilities-ambient-set", &self.caps_ambient),
            ("--mask", "os/linux/masked-paths", &self.masked_paths),
            ("--readonly-path", "os/linux/read-only-paths", &self.readonly_paths),
        ] {
            if !set.is_empty() {
                add(option, name, json!({ "set": set }))?;
            }
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
        let limits = LimitOptions { memory: Some("banana".into()), ..LimitOptions::default() };
        assert!(limits.isolators().unwrap_err().one_line().starts_with("--memory"));
        let limits =
            LimitOptions { memory: Some("64M".into()), no_new_privileges: Some(true), ..LimitOptions::default() };
        assert_eq!(limits.isolators().unwrap().len(), 2);
    }

    #[test]
    fn what_can_not_be_kept_is_refused() {
        let cpu = |text: &str| LimitOptions { cpu: Some(text.into()), ..LimitOptions::default() }.isolators();
        for text in ["0.0000001", "0", "0m", "999u", "0.0009"] {
            let line = cpu(text).unwrap_err().one_line();
            assert!(line.starts_with("--cpu: ") && line.contains("1m (0.001 processors)"), "{text}: {line}");
        }
        assert!(cpu("1001").unwrap_err().one_line().contains("1000 processors"));
        for text in ["1m", "0.001", "1000", "1.0005"] {
            cpu(text).unwrap();
        }
    }

    #[test]
    fn memory_is_read_as_docker_reads_it() {
        let mib = 1 << 20;
        for text in ["64m", "64M", "64MB", "64mb", "64Mi", "64MiB", "67108864", "67108864b", "65536k", "0.0625g"] {
            assert_eq!(memory(text).unwrap(), 64 * mib, "{text}");
        }
        assert_eq!((memory("1g").unwrap(), memory("1.5G").unwrap()), (1024 * mib, 1536 * mib));
        for bad in ["", "m", "banana", "-1", "1x", "1.2.3m", "1,5g", "64 m", "99999999999t", "."] {
            assert!(memory(bad).is_err(), "{bad}");
        }
        let with = |text: &str| LimitOptions { memory: Some(text.into()), ..LimitOptions::default() }.isolators();
        let error = with("64").unwrap_err().one_line();
        assert!(error.contains("less than 1 MiB") && error.contains("write 64m"), "{error}");
        for (text, end) in [("512k", "the smallest limit is 1m"), ("0", "the smallest limit is 1m"), ("0m", "is 1m")] {
            assert!(with(text).unwrap_err().one_line().ends_with(end), "{text}");
        }
        assert_eq!(with("64m").unwrap()[0].value, json!({ "limit": "67108864" }));
        let none = LimitOptions { memory_swap: Some("0".into()), ..LimitOptions::default() };
        assert_eq!(none.isolators().unwrap()[0].value, json!({ "limit": "0" }));
    }
}

//! Isolators, parsed into numbers and sets: those of appc 0.8.11, and `resource/pids {limit}`,
//! `resource/io-weight {weight}`, `resource/memory-high {limit}`, `resource/memory-swap {limit}`,
//! `os/linux/capabilities-ambient-set {set}`, and `os/linux/masked-paths {set}` and
//! `os/linux/read-only-paths {set}`, absolute paths in the app's root; `os/linux/pid-namespace`, a [`PidNamespace`];
//! `os/linux/seccomp-program`, a [`SeccompProgram`]; `os/linux/accounting`, a boolean.

use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use super::quantity;
use super::{AcName, Isolator};
use crate::error::{Context, Error, Result};
use crate::json::{self, or_default};

/// Maximum number of processes and threads: the kernel's maximum of /proc/sys/kernel/pid_max.
const MAX_PIDS: u64 = 1 << 22;

/// Which PID namespace an app's processes are in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PidNamespace {
    /// That of the pod, whose PID 1 is the supervisor: the apps in it see each other's processes.
    #[default]
    Pod,
    /// Its own, made at each start of the app: the app's main process is PID 1.
    Private,
    /// That of the host: the app sees and can signal the host's processes.
    Host,
    /// That of another app of the pod, which must have its own and run when this app starts.
    Of(AcName),
}

impl FromStr for PidNamespace {
    type Err = Error;

    /// Reads `pod`, `private`, `host` or `app:NAME`.
    fn from_str(text: &str) -> Result<Self> {
        match (text, text.strip_prefix("app:")) {
            ("pod", _) => Ok(Self::Pod),
            ("private", _) => Ok(Self::Private),
            ("host", _) => Ok(Self::Host),
            (_, Some(app)) => app.parse().map(Self::Of).context(|| format!("PID namespace {text:?}")),
            _ => Err(Error::new(format!("PID namespace {text:?}: there are pod, private, host, and app:NAME"))),
        }
    }
}

/// How a set is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetMode {
    /// The app has the members of the set only.
    Retain,
    /// The app has all but the members of the set.
    Remove,
}

/// A set of capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CapabilitySet {
    /// How it is applied.
    pub mode: SetMode,
    /// Names of capabilities, as they were written.
    pub names: Vec<String>,
}

/// A set of system calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeccompSet {
    /// How it is applied.
    pub mode: SetMode,
    /// Names of system calls and wildcards (`@…`), as they were written.
    pub names: Vec<String>,
    /// Name of the error that a refused call returns; `None` means EPERM.
    pub errno: Option<String>,
}

/// A seccomp filter that the host manager has compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SeccompProgram {
    /// The BPF program, as 16 hexadecimal digits for each instruction.
    pub filter: Value,
    /// Flags of seccomp(2).
    #[serde(default)]
    pub flags: u32,
}

/// A request and a limit of a resource; the field that has it says in which unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resource {
    /// The guaranteed amount.
    pub request: Option<u64>,
    /// The maximum.
    pub limit: Option<u64>,
}

/// All isolators of an app. If one is given twice, the last one counts, as in rkt; a second set of the same kind is an
/// error.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Isolators {
    /// Memory, in bytes.
    pub memory: Resource,
    /// Memory above which the kernel throttles the app, in bytes: memory.high.
    pub memory_high: Option<u64>,
    /// Limit of swap, in bytes.
    pub memory_swap: Option<u64>,
    /// Processor time, in thousandths of a processor.
    pub cpu: Resource,
    /// Relative weight of processor time, 2 to 262144: cpu.shares of cgroup v1.
    pub cpu_shares: Option<u64>,
    /// OOM score adjustment, -1000 to 1000: proc_pid_oom_score_adj(5).
    pub oom_score_adj: Option<i32>,
    /// Maximum number of processes and threads.
    pub pids: Option<u64>,
    /// Relative weight of I/O, 1 to 10000: io.weight of cgroup v2.
    pub io_weight: Option<u64>,
    /// Capabilities.
    pub capabilities: Option<CapabilitySet>,
    /// System calls.
    pub seccomp: Option<SeccompSet>,
    /// Compiled seccomp filter; it replaces `seccomp`.
    pub seccomp_program: Option<SeccompProgram>,
    /// Names, as written, of the ambient capabilities: the app has them as any user, and execve(2) keeps them.
    pub ambient: Vec<String>,
    /// Whether execve(2) can't give the app privileges: prctl(2), PR_SET_NO_NEW_PRIVS. `None` if there is no such
    /// isolator.
    pub no_new_privileges: Option<bool>,
    /// Masked paths: hidden from the app, in addition to those of /proc and /sys that are hidden from every app.
    pub masked_paths: Vec<String>,
    /// Paths that the app can't write to.
    pub read_only_paths: Vec<String>,
    /// Which PID namespace its processes are in.
    pub pid_namespace: PidNamespace,
    /// Whether its cgroup counts processor time, memory, I/O and processes even where nothing limits them.
    pub accounting: bool,
    /// Names of isolators without effect: those of appc that are not enforced here, and those outside of `os/linux/`
    /// and `resource/`.
    pub unknown: Vec<String>,
}

/// A quantity, which manifests write as a string or as a bare number.
#[derive(Deserialize)]
#[serde(untagged)]
enum Amount {
    Text(String),
    Number(Number),
}

impl Amount {
    fn in_unit(&self, unit: fn(&str) -> Result<u64>) -> Result<u64> {
        match self {
            Self::Text(text) => unit(text),
            Self::Number(number) => unit(&number.to_string()),
        }
    }
}

/// The value of a resource isolator.
#[derive(Deserialize)]
struct AmountsValue {
    request: Option<Amount>,
    limit: Option<Amount>,
}

/// The value of a set isolator.
#[derive(Deserialize)]
struct SetValue {
    set: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    errno: String,
}

impl Isolators {
    /// Parses the isolators of an app.
    ///
    /// ```
    /// use serde_json::json;
    /// use stage1::appc::{Isolator, Isolators};
    ///
    /// let isolator = |name: &str, value| Isolator { name: name.into(), value, other: Default::default() };
    /// let isolators = Isolators::parse(&[
    ///     isolator("resource/memory", json!({"limit": "64Mi"})),
    ///     isolator("resource/cpu", json!({"limit": "500m"})),
    /// ])?;
    /// assert_eq!(isolators.memory.limit, Some(64 << 20)); // bytes
    /// assert_eq!(isolators.cpu.limit, Some(500)); // thousandths of a processor
    /// # Ok::<(), stage1::Error>(())
    /// ```
    ///
    /// # Errors
    /// A name in `os/linux/` or `resource/` is unknown, a value is malformed or out of range, a set is given twice, or
    /// `resource/memory-high` is above the memory limit. The message names the isolator.
    pub fn parse(list: &[Isolator]) -> Result<Self> {
        let mut out = Self::default();
        for isolator in list {
            out.add(isolator).context(|| format!("isolator {:?}", isolator.name))?;
        }
        if let (Some(high), Some(max)) = (out.memory_high, out.memory.limit)
            && high > max
        {
            return Err(Error::new(format!("resource/memory-high ({high}) is above the memory limit ({max})")));
        }
        Ok(out)
    }

    fn add(&mut self, isolator: &Isolator) -> Result<()> {
        let value = &isolator.value;
        match isolator.name.as_str() {
            "resource/memory" => self.memory = resource(value, quantity::whole)?,
            "resource/cpu" => self.cpu = cpu(value)?,
            "resource/memory-high" => self.memory_high = Some(limit(value, 1..=u64::MAX)?),
            "resource/memory-swap" => self.memory_swap = Some(limit(value, 0..=u64::MAX)?),
            "resource/pids" => self.pids = Some(limit(value, 1..=MAX_PIDS)?),
            "resource/io-weight" => {
                self.io_weight = Some(number(value.get("weight").unwrap_or(value), 1, 10_000)?.unsigned_abs());
            }
            "os/linux/cpu-shares" => self.cpu_shares = Some(number(value, 2, 262_144)?.unsigned_abs()),
            "os/linux/oom-score-adj" => {
                self.oom_score_adj = Some(i32::try_from(number(value, -1000, 1000)?).context(|| "out of range")?);
            }
            "os/linux/no-new-privileges" => {
                self.no_new_privileges = Some(value.as_bool().context(|| format!("{value} is not true or false"))?);
            }
            "os/linux/capabilities-retain-set" => self.set_capabilities(SetMode::Retain, value)?,
            "os/linux/capabilities-remove-set" => self.set_capabilities(SetMode::Remove, value)?,
            "os/linux/capabilities-ambient-set" => self.ambient = read::<SetValue>(value)?.set,
            "os/linux/masked-paths" => self.masked_paths = paths(value)?,
            "os/linux/read-only-paths" => self.read_only_paths = paths(value)?,
            "os/linux/pid-namespace" => {
                self.pid_namespace = value.as_str().context(|| format!("{value} is not a string"))?.parse()?;
            }
            "os/linux/accounting" => {
                self.accounting = value.as_bool().context(|| format!("{value} is not true or false"))?;
            }
            "os/linux/seccomp-retain-set" => self.set_seccomp(SetMode::Retain, value)?,
            "os/linux/seccomp-program" => self.seccomp_program = Some(json::from_value(value.clone())?),
            "os/linux/seccomp-remove-set" => self.set_seccomp(SetMode::Remove, value)?,
            name if NOT_ENFORCED.contains(&name) => self.unknown.push(name.to_owned()),
            name if FAMILIES.iter().any(|family| name.starts_with(family)) => return Err(unknown(name)),
            name => self.unknown.push(name.to_owned()),
        }
        Ok(())
    }

    fn set_capabilities(&mut self, mode: SetMode, value: &Value) -> Result<()> {
        let SetValue { set: names, .. } = read(value)?;
        if self.capabilities.replace(CapabilitySet { mode, names }).is_some() {
            return Err(Error::new("an app takes one capabilities set: retain or remove, once"));
        }
        Ok(())
    }

    fn set_seccomp(&mut self, mode: SetMode, value: &Value) -> Result<()> {
        let SetValue { set: names, errno } = read(value)?;
        let errno = Some(errno).filter(|errno| !errno.is_empty());
        if self.seccomp.replace(SeccompSet { mode, names, errno }).is_some() {
            return Err(Error::new("an app takes one seccomp set: retain or remove, once"));
        }
        Ok(())
    }
}

/// Prefixes of isolators whose names are all known: any other name with such a prefix is refused.
const FAMILIES: [&str; 2] = ["os/linux/", "resource/"];

/// Isolators of appc with these prefixes that are not enforced here.
const NOT_ENFORCED: [&str; 5] = [
    "resource/block-bandwidth",
    "resource/block-iops",
    "resource/network-bandwidth",
    "os/linux/selinux-context",
    "os/linux/apparmor-profile",
];

/// Isolators with these prefixes that are enforced.
const NAMES: [&str; 19] = [
    "resource/memory",
    "resource/cpu",
    "resource/memory-high",
    "resource/memory-swap",
    "resource/pids",
    "resource/io-weight",
    "os/linux/cpu-shares",
    "os/linux/oom-score-adj",
    "os/linux/no-new-privileges",
    "os/linux/capabilities-retain-set",
    "os/linux/capabilities-remove-set",
    "os/linux/capabilities-ambient-set",
    "os/linux/masked-paths",
    "os/linux/read-only-paths",
    "os/linux/pid-namespace",
    "os/linux/accounting",
    "os/linux/seccomp-retain-set",
    "os/linux/seccomp-remove-set",
    "os/linux/seccomp-program",
];

fn unknown(name: &str) -> Error {
    let near = NAMES.iter().map(|known| (distance(name, known), known)).min();
    Error::new(match near {
        Some((distance, known)) if distance <= 4 => format!("unknown isolator: did you mean {known:?}?"),
        _ => format!("unknown isolator: expected one of {}", NAMES.join(", ")),
    })
}

/// The Levenshtein distance of two words.
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (nth, a) in from.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], nth + 1);
        for (column, b) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[to.len()]
}

/// Reads the value of an isolator, which must be an object.
fn read<T: DeserializeOwned>(value: &Value) -> Result<T> {
    json::from_value(Value::Object(json::from_value(value.clone())?))
}

fn resource(value: &Value, unit: fn(&str) -> Result<u64>) -> Result<Resource> {
    let AmountsValue { request, limit } = read(value)?;
    let amount = |amount: Option<Amount>| amount.map(|amount| amount.in_unit(unit)).transpose();
    let (request, limit) = (amount(request)?, amount(limit)?);
    if limit == Some(0) {
        return Err(Error::new("a limit of 0 leaves the app nothing to run with"));
    }
    Ok(Resource { request, limit })
}

/// Processor time in thousandths of a processor. A limit that would have to be rounded up is refused if it is below the
/// smallest that systemd keeps.
fn cpu(value: &Value) -> Result<Resource> {
    let AmountsValue { limit, .. } = read(value)?;
    let limit = limit.map(|limit| limit.in_unit(quantity::micro)).transpose()?;
    match limit {
        Some(..1000) => Err(Error::new("the smallest limit is 1m (0.001 processors)")),
        Some(1_000_000_001..) => Err(Error::new("the largest limit is 1000 processors")),
        _ => resource(value, quantity::milli),
    }
}

fn limit(value: &Value, bounds: RangeInclusive<u64>) -> Result<u64> {
    let AmountsValue { limit, .. } = read(value)?;
    let limit = limit.map(|limit| limit.in_unit(quantity::whole)).transpose()?;
    let limit = limit.context(|| format!("the value {value} has no limit"))?;
    if !bounds.contains(&limit) {
        return Err(Error::new(format!(
            "the limit {limit} is not in the range {} to {}",
            bounds.start(),
            bounds.end()
        )));
    }
    Ok(limit)
}

/// The value of an isolator with absolute paths, none of which is the root.
fn paths(value: &Value) -> Result<Vec<String>> {
    let SetValue { set, .. } = read(value)?;
    let is_path = |path: &str| path.starts_with('/') && path.bytes().any(|byte| byte != b'/') && !path.contains('\0');
    match set.iter().find(|path| !is_path(path)) {
        Some(other) => Err(Error::new(format!("{other:?} is not an absolute path below the root"))),
        None => Ok(set),
    }
}

/// A number from `low` to `high`, written as a JSON number or as a string.
fn number(value: &Value, low: i64, high: i64) -> Result<i64> {
    value
        .as_i64()
        .or_else(|| value.as_str()?.parse().ok())
        .filter(|n| (low..=high).contains(n))
        .context(|| format!("{value} is not a number from {low} to {high}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(list: &[(&str, Value)]) -> Result<Isolators> {
        let list: Vec<_> = list
            .iter()
            .map(|(name, value)| Isolator { name: (*name).into(), value: value.clone(), other: serde_json::Map::new() })
            .collect();
        Isolators::parse(&list)
    }

    #[test]
    fn all_kinds() {
        let all = read(&[
            ("resource/memory", json!({"request": "32M", "limit": "64Mi"})),
            ("resource/cpu", json!({"limit": "1.5"})),
            ("os/linux/cpu-shares", json!(512)),
            ("os/linux/oom-score-adj", json!("-10")),
            ("os/linux/no-new-privileges", json!(true)),
            ("os/linux/capabilities-retain-set", json!({"set": ["CAP_KILL"]})),
            ("os/linux/seccomp-remove-set", json!({"set": ["@docker/default-blacklist"], "errno": "ENOSYS"})),
            ("resource/pids", json!({"limit": 10})),
            ("resource/io-weight", json!({"weight": 100})),
            ("example.com/new", json!(null)),
            ("resource/block-iops", json!({"limit": 5})),
        ])
        .unwrap();
        assert_eq!(all.memory, Resource { request: Some(32_000_000), limit: Some(64 << 20) });
        assert_eq!(all.cpu.limit, Some(1500));
        assert_eq!(
            (all.cpu_shares, all.oom_score_adj, all.pids, all.io_weight),
            (Some(512), Some(-10), Some(10), Some(100))
        );
        assert_eq!(all.seccomp.unwrap().errno.as_deref(), Some("ENOSYS"));
        assert_eq!(all.unknown, ["example.com/new", "resource/block-iops"]);
    }

    #[test]
    fn misspelt_names_are_refused() {
        for (name, words) in [
            ("resource/memmory", "did you mean \"resource/memory\"?"),
            ("resource/CPU", "did you mean \"resource/cpu\"?"),
            ("os/linux/seccomp-retain", "did you mean \"os/linux/seccomp-retain-set\"?"),
            ("os/linux/capabilites-remove-set", "did you mean \"os/linux/capabilities-remove-set\"?"),
            ("os/linux/", "expected one of resource/memory, "),
            ("resource/anything-at-all", "expected one of resource/memory, "),
        ] {
            let error = read(&[(name, json!({"limit": "1M"}))]).unwrap_err().one_line();
            assert!(error.contains(words) && error.contains(name), "{error}");
        }
        let known = NAMES.iter().chain(&NOT_ENFORCED).map(|name| (*name, json!(null)));
        for (name, value) in known {
            let outcome = read(&[(name, value)]);
            assert!(outcome.is_ok() || !outcome.unwrap_err().one_line().contains("unknown isolator"), "{name}");
        }
        assert_eq!((distance("", "abc"), distance("kitten", "sitting"), distance("a", "a")), (3, 3, 0));
    }

    #[test]
    fn last_number_counts_and_numbers_need_no_quotes() {
        let all = read(&[
            ("resource/memory", json!({"limit": "1M"})),
            ("resource/memory", json!({"limit": 2_000_000, "request": null})),
            ("resource/memory-swap", json!({"limit": 0})),
            ("resource/cpu", json!({"request": 0, "limit": 0.5})),
            ("resource/io-weight", json!(10_000)),
        ])
        .unwrap();
        assert_eq!(all.memory, Resource { request: None, limit: Some(2_000_000) });
        assert_eq!(all.cpu, Resource { request: Some(0), limit: Some(500) });
        assert_eq!((all.memory_swap, all.io_weight), (Some(0), Some(10_000)));
    }

    #[test]
    fn bad_ones_are_named() {
        for (name, value) in [
            ("resource/memory", json!({"limit": "banana"})),
            ("resource/memory", json!("64M")),
            ("os/linux/cpu-shares", json!(1)),
            ("os/linux/oom-score-adj", json!(1001)),
            ("os/linux/no-new-privileges", json!("yes")),
            ("os/linux/capabilities-retain-set", json!({"set": "CAP_KILL"})),
            ("resource/pids", json!({})),
            ("resource/pids", json!({"limit": 0})),
            ("resource/pids", json!({"limit": "5M"})),
            ("resource/memory", json!({"limit": "0"})),
            ("resource/memory", json!({"limit": "-1"})),
            ("resource/cpu", json!({"limit": 0})),
            ("resource/memory-high", json!({"limit": "0"})),
            ("resource/io-weight", json!({"weight": 0})),
            ("resource/io-weight", json!({"weight": 10_001})),
            ("resource/io-weight", json!({})),
            ("os/linux/cpu-shares", json!(262_145)),
            ("os/linux/cpu-shares", json!(2.5)),
            ("os/linux/oom-score-adj", json!(null)),
            ("os/linux/seccomp-retain-set", json!({"errno": "EPERM"})),
            ("os/linux/masked-paths", json!({"set": ["proc/kcore"]})),
            ("os/linux/read-only-paths", json!({"set": ["//"]})),
            ("os/linux/capabilities-ambient-set", json!({})),
            ("os/linux/pid-namespace", json!("hosts")),
            ("os/linux/pid-namespace", json!("app:A b")),
            ("os/linux/pid-namespace", json!(1)),
            ("os/linux/seccomp-program", json!({"flags": 0})),
        ] {
            assert!(read(&[(name, value)]).unwrap_err().one_line().contains(name));
        }
        let two = json!({"set": []});
        assert!(
            read(&[("os/linux/capabilities-retain-set", two.clone()), ("os/linux/capabilities-remove-set", two)])
                .is_err()
        );
        assert!(
            read(&[("resource/memory", json!({"limit": "1M"})), ("resource/memory-high", json!({"limit": "2M"}))])
                .is_err()
        );
    }
}

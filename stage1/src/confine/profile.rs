//! Seccomp profiles of the OCI runtime specification (config-linux.md, `seccomp`), as runc reads them: a JSON object
//! with a default action and lists of system calls. Compiled on the host side.
//!
//! - The name of a system call that this architecture does not have is ignored.
//! - The first rule without conditions decides; if there is none, the first rule whose conditions are all met. Two
//!   conditions on the same argument make two rules, as in runc.
//! - Unless the default action lets calls pass, calls with higher numbers than all calls in the profile fail with
//!   ENOSYS, so that programs fall back to older calls.
//! - Calls of other ABIs than the native one are refused; `architectures` and `archMap` are ignored.

use serde::Deserialize;

use super::bpf::{Action, Clause, Condition, Operator, Policy, Rule, Rules, compile};
use super::seccomp::Filter;
use super::tables::{Syscall, Syscalls};
use crate::error::{Context, Error, Result};
use crate::json;

/// Number of arguments of a system call.
const ARGUMENTS: u32 = 6;

/// A profile.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "json::or_default")]
    flags: Vec<String>,
    listener_path: Option<String>,
    #[serde(default, deserialize_with = "json::or_default")]
    syscalls: Vec<Calls>,
}

/// The action for some system calls.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    #[serde(default, deserialize_with = "json::or_default")]
    names: Vec<String>,
    /// The single name in old profiles of docker.
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default, deserialize_with = "json::or_default")]
    args: Vec<Argument>,
    /// With `excludes`: of docker's own format, and refused unless empty.
    includes: Option<serde_json::Map<String, serde_json::Value>>,
    excludes: Option<serde_json::Map<String, serde_json::Value>>,
}

/// A condition on an argument.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

/// Compiles a profile to a filter and its flags for seccomp(2). Host side. Pure.
///
/// # Errors
/// It is not a valid profile, has an action, operator or flag that is unknown or not supported, or forbids execve,
/// without which no app can start.
pub fn compile_profile(text: &[u8]) -> Result<(Filter, u32)> {
    let profile: Profile = json::parse(text).context(|| "not a valid seccomp profile")?;
    let flags = profile.flags.iter().try_fold(0, |flags, name| Ok(flags | flag(name)?))?;
    let policy = policy(&profile)?;
    Ok((Filter::of_program(compile(&policy))?, flags))
}

fn flag(name: &str) -> Result<u32> {
    let bits = match name {
        // The process has one thread.
        "SECCOMP_FILTER_FLAG_TSYNC" | "" => 0,
        "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        _ => return Err(Error::new(format!("seccomp profile: the flag {name:?} is not supported"))),
    };
    Ok(bits as u32)
}

fn action(name: &str, errno: Option<u32>) -> Result<Action> {
    let number = || {
        let number = errno.unwrap_or(libc::EPERM.cast_unsigned());
        u16::try_from(number).ok().filter(|number| *number < 4096).context(|| format!("errnoRet {number} is too large"))
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(number()?),
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::Kill,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_TRACE" => Action::Trace(number()?),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_NOTIFY" => {
            return Err(Error::new("seccomp profile: SCMP_ACT_NOTIFY needs an agent, which is not supported"));
        }
        _ => return Err(Error::new(format!("seccomp profile: {name:?} is not an action (such as SCMP_ACT_ERRNO)"))),
    })
}

fn condition(argument: &Argument) -> Result<Condition> {
    let Argument { index, value, value_two, op } = argument;
    if *index >= ARGUMENTS {
        return Err(Error::new(format!("seccomp profile: argument {index} is not in the range 0 to 5")));
    }
    let (operator, value) = match op.as_str() {
        "SCMP_CMP_NE" => (Operator::NotEqual, *value),
        "SCMP_CMP_LT" => (Operator::Less, *value),
        "SCMP_CMP_LE" => (Operator::LessOrEqual, *value),
        "SCMP_CMP_EQ" => (Operator::Equal, *value),
        "SCMP_CMP_GE" => (Operator::GreaterOrEqual, *value),
        "SCMP_CMP_GT" => (Operator::Greater, *value),
        "SCMP_CMP_MASKED_EQ" => (Operator::MaskedEqual(*value), *value_two),
        _ => return Err(Error::new(format!("seccomp profile: {op:?} is not an operator (such as SCMP_CMP_EQ)"))),
    };
    Ok(Condition { arg: index.to_le_bytes()[0], operator, value })
}

fn policy(profile: &Profile) -> Result<Policy> {
    if profile.listener_path.as_ref().is_some_and(|path| !path.is_empty()) {
        return Err(Error::new("seccomp profile: listenerPath: agents are not supported"));
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let syscalls = Syscalls::new();
    let mut rules = Rules::default();
    for calls in &profile.syscalls {
        let of_docker = [&calls.includes, &calls.excludes].into_iter().flatten().any(|rules| !rules.is_empty());
        if of_docker {
            return Err(Error::new(
                "seccomp profile: includes and excludes are of docker's own format; expected that of runc (OCI)",
            ));
        }
        let then = action(&calls.action, calls.errno_ret)?;
        let conditions = calls.args.iter().map(condition).collect::<Result<Vec<_>>>()?;
        let twice = |of: &Condition| conditions.iter().filter(|other| other.arg == of.arg).count() > 1;
        let clauses: Vec<Clause> = if conditions.iter().any(twice) {
            conditions.iter().map(|condition| Clause { all: vec![*condition], then }).collect()
        } else {
            vec![Clause { all: conditions, then }]
        };
        for name in calls.names.iter().chain(&calls.name) {
            let Syscall::Number(number) = syscalls.look_up(name) else {
                log::debug!("seccomp profile: this architecture does not have the system call {name:?}");
                continue;
            };
            let rule = match rules.get(number).cloned() {
                None => Rule::First { clauses: clauses.clone(), otherwise: default },
                Some(Rule::First { clauses: mut known, otherwise }) => {
                    known.extend(clauses.iter().cloned());
                    Rule::First { clauses: known, otherwise }
                }
                Some(other) => other,
            };
            rules.set(number, rule);
        }
    }
    let all = rules.iter().map(|(number, rule)| (number, simplified(rule))).collect::<Vec<_>>();
    let newest = all.last().map(|(number, _)| *number);
    let passes = matches!(default, Action::Allow | Action::Log | Action::Trace(_));
    let mut rules = Rules::default();
    if !passes {
        for number in syscalls.numbers().filter(|number| newest.is_none_or(|newest| *number <= newest)) {
            rules.set(number, Rule::Do(default));
        }
    }
    all.into_iter().for_each(|(number, rule)| rules.set(number, rule));
    let execve = syscalls.number("execve").and_then(|number| rules.get(number).cloned()).unwrap_or(Rule::Do(default));
    if let Rule::Do(Action::Errno(_) | Action::Kill | Action::KillThread | Action::Trap) = execve {
        return Err(Error::new("seccomp profile: without execve the app can't be started"));
    }
    let newer = if passes || newest.is_none() { default } else { Action::Errno(libc::ENOSYS as u16) };
    Ok(Policy { rules, otherwise: newer })
}

/// The first clause without conditions alone, if there is one: it outweighs those with conditions.
fn simplified(rule: &Rule) -> Rule {
    let Rule::First { clauses, .. } = rule else { return rule.clone() };
    let plain = clauses.iter().find(|clause| clause.all.is_empty());
    plain.map_or_else(|| rule.clone(), |clause| Rule::Do(clause.then))
}

#[cfg(test)]
mod tests {
    use super::super::bpf::NATIVE;
    use super::super::bpf::tests::run;
    use super::*;

    fn call(text: &str, name: &str, args: [u64; 6]) -> u32 {
        let (filter, _) = compile_profile(text.as_bytes()).unwrap();
        let number = Syscalls::new().number(name).unwrap();
        run(filter.program(), NATIVE, u32::from(number), args)
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number as u32
    }

    #[test]
    fn actions_and_conditions() {
        let text = r#"{
            "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["execve", "read", "no_such_call", "socketcall"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["chmod"], "action": "SCMP_ACT_ERRNO"},
                {"names": ["chown"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
                {"names": ["kill"], "action": "SCMP_ACT_KILL"}, {"names": ["tkill"], "action": "SCMP_ACT_KILL_PROCESS"},
                {"names": ["sync"], "action": "SCMP_ACT_LOG"}, {"names": ["acct"], "action": "SCMP_ACT_TRAP"},
                {"names": ["ptrace"], "action": "SCMP_ACT_TRACE", "errnoRet": 5},
                {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
                 "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}]},
                {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
                {"names": ["lseek"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 1, "value": 4294967296, "op": "SCMP_CMP_GT"}, {"index": 2, "value": 1, "op": "SCMP_CMP_LE"}]},
                {"names": ["ioctl"], "action": "SCMP_ACT_ALLOW", "args": [
                    {"index": 1, "value": 5, "op": "SCMP_CMP_LT"}, {"index": 1, "value": 9, "op": "SCMP_CMP_GE"}]},
                {"names": ["pause"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 1, "op": "SCMP_CMP_NE"}]},
                {"names": ["pause"], "action": "SCMP_ACT_ALLOW"}
            ]}"#;
        let first = |value| [value, 0, 0, 0, 0, 0];
        for (name, args, outcome) in [
            ("read", first(0), ALLOW),
            ("chmod", first(0), errno(libc::EPERM)),
            ("chown", first(0), errno(libc::EACCES)),
            ("write", first(0), errno(libc::ENOSYS)),
            ("kill", first(0), libc::SECCOMP_RET_KILL_THREAD),
            ("tkill", first(0), libc::SECCOMP_RET_KILL_PROCESS),
            ("sync", first(0), libc::SECCOMP_RET_LOG),
            ("acct", first(0), libc::SECCOMP_RET_TRAP),
            ("ptrace", first(0), libc::SECCOMP_RET_TRACE | 5),
            ("clone", first(libc::CLONE_NEWNS as u64), errno(libc::ENOSYS)),
            ("clone", first(libc::CLONE_VM as u64), ALLOW),
            ("personality", first(8), ALLOW),
            ("personality", first(9), errno(libc::ENOSYS)),
            ("personality", first(1 << 32 | 8), errno(libc::ENOSYS)),
            ("lseek", [0, (1 << 32) + 1, 1, 0, 0, 0], ALLOW),
            ("lseek", [0, 1 << 32, 1, 0, 0, 0], errno(libc::ENOSYS)),
            ("lseek", [0, 1 << 33, 2, 0, 0, 0], errno(libc::ENOSYS)),
            ("ioctl", [0, 4, 0, 0, 0, 0], ALLOW),
            ("ioctl", [0, 7, 0, 0, 0, 0], errno(libc::ENOSYS)),
            ("ioctl", [0, 9, 0, 0, 0, 0], ALLOW),
            ("pause", first(0), ALLOW),
        ] {
            assert_eq!(call(text, name, args), outcome, "{name} {args:?}");
        }
        assert_eq!(compile_profile(text.as_bytes()).unwrap().1, libc::SECCOMP_FILTER_FLAG_LOG as u32);
        let open = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"chmod","action":"SCMP_ACT_ERRNO"}]}"#;
        assert_eq!(call(open, "chmod", first(0)), errno(libc::EPERM));
        let (filter, flags) = compile_profile(open.as_bytes()).unwrap();
        assert_eq!((run(filter.program(), NATIVE, 1000, [0; 6]), flags), (ALLOW, 0));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        let with = |calls: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{calls}]}}"#);
        let args = |args: &str| with(&format!(r#"{{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{args}]}}"#));
        for (text, why) in [
            ("[]".to_owned(), "not a valid seccomp profile"),
            ("{}".to_owned(), "defaultAction"),
            (r#"{"defaultAction":"ALLOW"}"#.to_owned(), "\"ALLOW\" is not an action"),
            (r#"{"defaultAction":"SCMP_ACT_ERRNO"}"#.to_owned(), "without execve"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","flags":["X"]}"#.to_owned(), "the flag \"X\""),
            (with(r#"{"names":["read"],"action":"SCMP_ACT_NOTIFY"}"#), "agent"),
            (with(r#"{"names":["read"],"action":"SCMP_ACT_ERRNO","errnoRet":70000}"#), "70000"),
            (with(r#"{"names":["execve"],"action":"SCMP_ACT_KILL"}"#), "without execve"),
            (with(r#"{"names":["bpf"],"action":"SCMP_ACT_ALLOW","includes":{"caps":["CAP_BPF"]}}"#), "docker's own"),
            (args(r#"{"index":6,"value":0,"op":"SCMP_CMP_EQ"}"#), "argument 6"),
            (args(r#"{"index":0,"value":0,"op":"EQ"}"#), "\"EQ\" is not an operator"),
        ] {
            let error = compile_profile(text.as_bytes()).unwrap_err().one_line();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}

//! Seccomp filters: computing a program from the sets of a manifest, and loading it. seccomp(2).

use std::fmt::Write as _;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::bpf::{Action, Policy, Rule, Rules, Test, compile};
use super::caps::CapSet;
use super::tables::{self, Syscall, Syscalls};
use crate::appc::{SeccompSet, SetMode};
use crate::error::{Context, Error, Result};
use crate::sys::seccomp::{self, Instruction};

/// The namespace flags of clone(2): all CLONE_NEW* that clone takes.
const CLONE_NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// Allowed values of personality(2): PER_LINUX, PER_LINUX32, both with UNAME26, and the query 0xffffffff.
const PERSONALITIES: &[u32] = &[0, 8, 0x2_0000, 0x2_0008, u32::MAX];

/// Socket families that give access to the host and that containers do not need: AF_ALG, AF_VSOCK.
const REFUSED_FAMILIES: &[u32] = &[38, 40];

const EPERM: Action = Action::Errno(libc::EPERM as u16);
const ENOSYS: Action = Action::Errno(libc::ENOSYS as u16);

/// A compiled filter. In JSON it is one string, with 16 hexadecimal digits per instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Vec<Instruction>);

impl Filter {
    /// The filter for an app with these capabilities and this set; `None` if calls are not to be filtered. Host side.
    /// Pure.
    ///
    /// Without a set it is our default list, and a call that is not in it fails with EPERM. With a set that names no
    /// error, a refused call kills the process by SIGSYS, as appc demands. A call that our tables do not have fails
    /// with ENOSYS, except with a remove set, which allows it.
    ///
    /// # Errors
    /// A system call, wildcard or error name is unknown, or no app could be started with the set. The message names it.
    pub fn compute(set: Option<&SeccompSet>, capabilities: CapSet) -> Result<Option<Self>> {
        Ok(policy(set, capabilities)?.map(|policy| Self(compile(&policy))))
    }

    /// The filter with this program.
    ///
    /// # Errors
    /// The program has more instructions than the kernel accepts.
    pub(super) fn of_program(program: Vec<Instruction>) -> Result<Self> {
        if program.len() > libc::BPF_MAXINSNS as usize {
            return Err(Error::new(format!("seccomp filter: {} instructions are too many", program.len())));
        }
        Ok(Self(program))
    }

    /// Installs the filter for this thread, which must have no-new-privileges or CAP_SYS_ADMIN. Pod side.
    ///
    /// # Errors
    /// As [`seccomp::load`].
    pub fn load(&self, flags: u32) -> Result<()> {
        seccomp::load(&self.0, flags)
    }

    /// The program.
    pub fn program(&self) -> &[Instruction] {
        &self.0
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(16 * self.0.len());
        for i in &self.0 {
            let bits = u64::from(i.code) << 48 | u64::from(i.jt) << 40 | u64::from(i.jf) << 32 | u64::from(i.k);
            write!(text, "{bits:016x}").map_err(serde::ser::Error::custom)?;
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        let instruction = |digits: &[u8]| {
            let all = std::str::from_utf8(digits).ok().filter(|d| d.len() == 16 && !d.starts_with('+'))?;
            let bits = u64::from_str_radix(all, 16).ok()?;
            let [jt, jf] = [(bits >> 40) as u8, (bits >> 32) as u8];
            Some(Instruction { code: (bits >> 48) as u16, jt, jf, k: bits as u32 })
        };
        let program: Option<Vec<_>> = text.as_bytes().chunks(16).map(instruction).collect();
        match program {
            Some(program) if (1..=libc::BPF_MAXINSNS as usize).contains(&program.len()) => Ok(Self(program)),
            _ => Err(D::Error::custom("not a seccomp program")),
        }
    }
}

/// The system calls that a set of names stands for.
struct Names {
    syscalls: Syscalls,
    rules: Rules,
    /// Whether `@appc.io/all` is among the names.
    all: bool,
    /// Whether `@appc.io/empty` is among the names.
    empty: bool,
    /// Names of system calls of other architectures.
    ignored: Vec<String>,
}

impl Names {
    fn new() -> Self {
        Self { syscalls: Syscalls::new(), rules: Rules::default(), all: false, empty: false, ignored: Vec::new() }
    }

    /// Adds a call. A rule that allows it takes precedence over one that depends on an argument.
    fn add(&mut self, number: u16, rule: Rule) {
        if self.rules.get(number) != Some(&Rule::Do(Action::Allow)) {
            self.rules.set(number, rule);
        }
    }

    /// Adds the names of one of our tables. Those that only other architectures have are left out.
    fn add_table(&mut self, names: impl Iterator<Item = &'static str>) {
        for name in names {
            if let Some(number) = self.syscalls.number(name) {
                self.add(number, Rule::Do(Action::Allow));
            }
        }
    }

    fn add_systemd(&mut self, group: &str) -> Result<()> {
        let names = tables::section(tables::SYSTEMD, group).context(|| {
            let known: Vec<_> = tables::sections(tables::SYSTEMD).collect();
            format!("seccomp wildcard \"@systemd/{group}\" is not known: the groups are {}", known.join(", "))
        })?;
        for name in names {
            match name.strip_prefix('@') {
                Some(inner) => self.add_systemd(inner)?,
                None => self.add_table(std::iter::once(name)),
            }
        }
        Ok(())
    }

    fn add_name(&mut self, name: &str, mode: SetMode, capabilities: CapSet, refused: Action) -> Result<()> {
        let Some(wildcard) = name.strip_prefix('@') else {
            match self.syscalls.look_up(name) {
                Syscall::Number(number) => self.add(number, Rule::Do(Action::Allow)),
                Syscall::Elsewhere => self.ignored.push(name.to_owned()),
                Syscall::Unknown => {
                    return Err(Error::new(format!("seccomp set: {name:?} is not a system call of Linux up to 6.19")));
                }
            }
            return Ok(());
        };
        match wildcard.split_once('/') {
            Some(("appc.io", "all")) => self.all = true,
            Some(("appc.io", "empty")) => self.empty = true,
            Some(("rkt" | "docker", "default-whitelist")) if mode == SetMode::Retain => {
                self.add_default(capabilities, refused);
            }
            // An app can't be started without the default list: `remove` refuses that set.
            Some(("rkt" | "docker", "default-whitelist")) => self.add_table(default_section("always")),
            Some(("rkt" | "docker", "default-blacklist")) => self.add_table(default_section("never")),
            Some(("systemd", "default-whitelist")) => self.add_systemd("default")?,
            Some(("systemd", "known")) => {
                let known: Vec<_> = self.syscalls.numbers().collect();
                known.into_iter().for_each(|number| self.add(number, Rule::Do(Action::Allow)));
            }
            Some(("systemd", group)) => self.add_systemd(group)?,
            _ => return Err(Error::new(format!("seccomp set: wildcard {name:?} is not known"))),
        }
        Ok(())
    }

    /// Adds the default list: the calls that every app may make, those that belong to its capabilities, and those that
    /// depend on an argument.
    fn add_default(&mut self, capabilities: CapSet, refused: Action) {
        let admin = capabilities.contains(CapSet::SYS_ADMIN);
        let arguments = [
            // Without CAP_SYS_ADMIN no namespaces, in particular no user namespace: in one, code of the kernel can be
            // reached that otherwise only root can reach.
            ("clone", 0, Test::AnyBit(CLONE_NAMESPACES), refused, Action::Allow, !admin),
            ("personality", 0, Test::OneOf(PERSONALITIES), Action::Allow, refused, true),
            ("socket", 0, Test::OneOf(REFUSED_FAMILIES), refused, Action::Allow, true),
        ];
        for (name, arg, test, then, otherwise, wanted) in arguments {
            if let (true, Some(number)) = (wanted, self.syscalls.number(name)) {
                self.add(number, Rule::If { arg, test, then, otherwise });
            }
        }
        // clone3 has its flags in memory, which a filter can't read: with ENOSYS C libraries fall back to clone.
        let handled = |name| matches!(name, "personality" | "socket") || (!admin && matches!(name, "clone" | "clone3"));
        let is_allowed = |section| match section {
            "always" => true,
            _ => CapSet::parse([section]).is_ok_and(|needed| capabilities.contains(needed)),
        };
        let mut judged = ("", false);
        let allowed = tables::words(tables::DEFAULT).filter(|(section, name)| {
            if judged.0 != *section {
                judged = (*section, is_allowed(*section));
            }
            judged.1 && !(*section == "always" && handled(*name))
        });
        self.add_table(allowed.map(|(_, name)| name));
    }
}

fn default_section(name: &str) -> impl Iterator<Item = &'static str> + use<> {
    tables::section(tables::DEFAULT, name).into_iter().flatten()
}

fn policy(set: Option<&SeccompSet>, capabilities: CapSet) -> Result<Option<Policy>> {
    let Some(set) = set else { return Ok(Some(default_policy(capabilities, EPERM))) };
    let asked = match set.errno.as_deref().filter(|name| !name.is_empty()) {
        None => None,
        Some(name) => {
            let known = tables::errno(name).map(Action::Errno);
            Some(known.context(|| format!("seccomp set: errno {name:?} is not an error of Linux (such as EPERM)"))?)
        }
    };
    let refused = asked.unwrap_or(Action::Kill);
    if set.names.is_empty() {
        return Err(Error::new("seccomp set: it is empty (\"@appc.io/empty\" asks for the default filter)"));
    }
    let mut names = Names::new();
    for name in &set.names {
        names.add_name(name, set.mode, capabilities, refused)?;
    }
    if !names.ignored.is_empty() {
        log::warn!(
            "seccomp set: this architecture does not have the system calls {}, they are ignored",
            names.ignored.join(" ")
        );
    }
    match set.mode {
        SetMode::Retain if names.all => Ok(None),
        // In a remove set `@appc.io/empty` overrides all other names and means the default filter. In a retain set appc
        // does not define it; here it means the same if it is the only name.
        SetMode::Remove if names.empty => Ok(Some(default_policy(capabilities, asked.unwrap_or(EPERM)))),
        SetMode::Retain if names.empty && names.rules == Rules::default() => {
            Ok(Some(default_policy(capabilities, asked.unwrap_or(EPERM))))
        }
        SetMode::Retain => {
            // What every process needs to start and to end is always allowed, as in systemd.
            names.add_systemd("default")?;
            Ok(Some(allow_only(&names, refused)))
        }
        SetMode::Remove => remove(&names, refused).map(Some),
    }
}

fn default_policy(capabilities: CapSet, refused: Action) -> Policy {
    let mut names = Names::new();
    names.add_default(capabilities, refused);
    allow_only(&names, refused)
}

/// A policy that allows `allowed` and refuses all other known calls. Unknown calls fail with ENOSYS as on an older
/// kernel, so that programs fall back.
fn allow_only(allowed: &Names, refused: Action) -> Policy {
    let mut rules = Rules::default();
    for number in allowed.syscalls.numbers() {
        rules.set(number, Rule::Do(refused));
    }
    let number = |name| allowed.syscalls.number(name);
    let falls_back = number("clone").is_some_and(|clone| allowed.rules.get(clone).is_some());
    if let (Some(clone3), true) = (number("clone3"), falls_back) {
        rules.set(clone3, Rule::Do(ENOSYS));
    }
    for (number, rule) in allowed.rules.iter() {
        rules.set(number, rule.clone());
    }
    Policy { rules, otherwise: ENOSYS }
}

fn remove(names: &Names, refused: Action) -> Result<Policy> {
    let execve = names.syscalls.number("execve").and_then(|number| names.rules.get(number));
    if names.all || execve.is_some() {
        return Err(Error::new("seccomp set: without execve the app can't be started"));
    }
    let mut rules = Rules::default();
    for (number, _) in names.rules.iter() {
        rules.set(number, Rule::Do(refused));
    }
    Ok(Policy { rules, otherwise: Action::Allow })
}

#[cfg(test)]
mod tests {
    use super::super::bpf::tests::run;
    use super::super::bpf::{NATIVE, X32_BIT};
    use super::*;

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
    const fn errno(number: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | number as u32
    }

    fn call(filter: &Filter, name: &str, first: u64) -> u32 {
        let number = Syscalls::new().number(name).unwrap_or_else(|| panic!("{name}"));
        run(filter.program(), NATIVE, u32::from(number), [first, 0, 0, 0, 0, 0])
    }

    fn filter(mode: SetMode, names: &[&str], errno: Option<&str>) -> Result<Option<Filter>> {
        let names = names.iter().map(|&name| name.to_owned()).collect();
        let set = SeccompSet { mode, names, errno: errno.map(str::to_owned) };
        Filter::compute(Some(&set), CapSet::app_default())
    }

    #[test]
    fn the_default_list() {
        let filter = Filter::compute(None, CapSet::app_default()).unwrap().unwrap();
        for name in [
            "read",
            "execve",
            "rseq",
            "statx",
            "faccessat2",
            "openat2",
            "close_range",
            "futex_waitv",
            "pidfd_open",
            "landlock_create_ruleset",
            "clone",
            "socket",
            "chroot",
            "seccomp",
            "memfd_create",
            "getrandom",
            "mseal",
        ] {
            assert_eq!(call(&filter, name, 0), ALLOW, "{name}");
        }
        for name in [
            "mount",
            "umount2",
            "fsopen",
            "move_mount",
            "open_tree",
            "mount_setattr",
            "pivot_root",
            "setns",
            "unshare",
            "bpf",
            "perf_event_open",
            "keyctl",
            "io_uring_setup",
            "kexec_load",
            "init_module",
            "reboot",
            "swapon",
            "open_by_handle_at",
            "clock_settime",
            "userfaultfd",
            "ioperm",
            "settimeofday",
            "syslog",
            "quotactl",
        ] {
            assert_eq!(call(&filter, name, 0), errno(libc::EPERM), "{name}");
        }
        assert_eq!(call(&filter, "clone3", 0), errno(libc::ENOSYS));
        assert_eq!(call(&filter, "clone", libc::CLONE_NEWUSER as u64), errno(libc::EPERM));
        assert_eq!(call(&filter, "clone", (libc::CLONE_VM | libc::CLONE_THREAD) as u64), ALLOW);
        assert_eq!(call(&filter, "socket", libc::AF_INET6 as u64), ALLOW);
        assert_eq!(call(&filter, "socket", libc::AF_VSOCK as u64), errno(libc::EPERM));
        // The kernel takes the family as an int: higher bits do not hide it.
        assert_eq!(call(&filter, "socket", 0x1_0000_0000 | libc::AF_VSOCK as u64), errno(libc::EPERM));
        assert_eq!(call(&filter, "personality", 0xffff_ffff), ALLOW);
        assert_eq!(call(&filter, "personality", 0x0040_0000), errno(libc::EPERM));
        for number in [471, 1000, 400, 0x3fff_ffff] {
            assert_eq!(run(filter.program(), NATIVE, number, [0; 6]), errno(libc::ENOSYS));
        }
        assert_eq!(run(filter.program(), NATIVE, X32_BIT | 39, [0; 6]), errno(libc::ENOSYS));
        assert_eq!(run(filter.program(), 0x4000_0003, 20, [0; 6]), KILL);
        assert!(filter.program().len() < 400, "{}", filter.program().len());
    }

    #[test]
    fn capabilities_open_what_they_are_for() {
        let with = |name| Filter::compute(None, CapSet::parse([name]).unwrap()).unwrap().unwrap();
        let admin = with("CAP_SYS_ADMIN");
        for name in ["mount", "fsopen", "unshare", "setns", "clone3", "bpf"] {
            assert_eq!(call(&admin, name, 0), ALLOW, "{name}");
        }
        assert_eq!(call(&admin, "clone", libc::CLONE_NEWUSER as u64), ALLOW);
        assert_eq!(call(&admin, "chroot", 0), errno(libc::EPERM));
        assert_eq!(call(&with("CAP_SYS_TIME"), "clock_settime", 0), ALLOW);
        assert_eq!(call(&with("CAP_SYS_TIME"), "mount", 0), errno(libc::EPERM));
    }

    #[test]
    fn retain_sets() {
        let only = filter(SetMode::Retain, &["accept", "write"], None).unwrap().unwrap();
        assert_eq!(call(&only, "write", 0), ALLOW);
        assert_eq!(call(&only, "read", 0), KILL);
        // The calls that starting and ending need are always allowed.
        for name in ["execve", "exit_group", "rt_sigreturn", "mmap", "brk"] {
            assert_eq!(call(&only, name, 0), ALLOW, "{name}");
        }
        let more =
            filter(SetMode::Retain, &["@rkt/default-whitelist", "mbind", "clone3"], Some("ENOTSUP")).unwrap().unwrap();
        assert_eq!(call(&more, "mbind", 0), ALLOW);
        assert_eq!(call(&more, "clone3", 0), ALLOW);
        assert_eq!(call(&more, "mount", 0), errno(libc::ENOTSUP));
        assert_eq!(call(&more, "clone", libc::CLONE_NEWNS as u64), errno(libc::ENOTSUP));
        // Named on its own, a call is allowed whatever its arguments, in either order.
        for names in [["@docker/default-whitelist", "clone"], ["clone", "@docker/default-whitelist"]] {
            let plain = filter(SetMode::Retain, &names, Some("EPERM")).unwrap().unwrap();
            assert_eq!(call(&plain, "clone", libc::CLONE_NEWNS as u64), ALLOW);
            assert_eq!(call(&plain, "clone3", 0), errno(libc::ENOSYS));
        }
        let service = filter(SetMode::Retain, &["@systemd/system-service"], Some("EPERM")).unwrap().unwrap();
        assert_eq!(call(&service, "fchownat", 0), ALLOW, "a group inside a group");
        assert_eq!(call(&service, "mount", 0), errno(libc::EPERM));
        assert_eq!(filter(SetMode::Retain, &["read", "@appc.io/all"], None).unwrap(), None);
    }

    #[test]
    fn remove_sets() {
        let without = filter(SetMode::Remove, &["@systemd/clock", "reboot"], Some("ENOSYS")).unwrap().unwrap();
        assert_eq!(call(&without, "reboot", 0), errno(libc::ENOSYS));
        assert_eq!(call(&without, "adjtimex", 0), errno(libc::ENOSYS));
        assert_eq!(call(&without, "mount", 0), ALLOW);
        assert_eq!(run(without.program(), NATIVE, 1000, [0; 6]), ALLOW, "for the kernel to answer");
        assert_eq!(run(without.program(), 0x4000_0003, 88, [0; 6]), KILL, "no way around by the 32-bit ABI");
        let black = filter(SetMode::Remove, &["@docker/default-blacklist"], None).unwrap().unwrap();
        assert_eq!(call(&black, "mount", 0), KILL);
        let default = Filter::compute(None, CapSet::app_default()).unwrap();
        assert_eq!(filter(SetMode::Remove, &["reboot", "@appc.io/empty"], None).unwrap(), default);
        assert_eq!(filter(SetMode::Retain, &["@appc.io/empty"], Some("")).unwrap(), default);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (mode, names, errno, word) in [
            (SetMode::Retain, vec!["raed"], None, "\"raed\""),
            (SetMode::Retain, vec!["read\nwrite"], None, "read\\nwrite"),
            (SetMode::Retain, vec![""], None, "\"\""),
            (SetMode::Retain, vec!["@systemd/nothing"], None, "@systemd/nothing"),
            (SetMode::Retain, vec!["@rkt"], None, "@rkt"),
            (SetMode::Retain, vec!["read"], Some("EBANANA"), "EBANANA"),
            (SetMode::Retain, vec![], None, "empty"),
            (SetMode::Remove, vec!["execve"], None, "execve"),
            (SetMode::Remove, vec!["@appc.io/all"], None, "execve"),
            (SetMode::Remove, vec!["@rkt/default-whitelist"], None, "execve"),
        ] {
            let error = filter(mode, &names, errno).unwrap_err().one_line();
            assert!(error.contains(word), "{error}");
        }
        filter(SetMode::Retain, &["read", "socketcall"], None).unwrap().unwrap();
    }

    #[test]
    fn json_is_one_string() {
        let filter = Filter::compute(None, CapSet::app_default()).unwrap().unwrap();
        let text = serde_json::to_string(&filter).unwrap();
        assert!(text.starts_with("\"0020000000000004"), "{}", &text[..40]);
        assert_eq!(serde_json::from_str::<Filter>(&text).unwrap(), filter);
        let long = format!("\"{}\"", "0006000000000000".repeat(4097));
        for bad in ["\"\"", "\"00\"", "\"000600000000000g\"", "\"+006000000000000\"", "[6]", long.as_str()] {
            assert!(serde_json::from_str::<Filter>(bad).is_err(), "{bad:.40}");
        }
    }
}

//! What a process inherits from its parent apart from descriptors: limits, scheduling, personality, capabilities.

use rustix::thread::CapabilitiesSecureBits;

use crate::error::{Context, Error, Result};

/// Soft and hard resource limits, indexed by the number of the resource: getrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceLimits(Vec<(u64, u64)>);

impl ResourceLimits {
    /// The limits of process `pid`: proc_pid_limits(5). `None` if the process does not exist.
    ///
    /// # Errors
    /// The file can't be read, or is not in the format of the manual page.
    pub fn of(pid: i32) -> Result<Option<Self>> {
        let file = format!("/proc/{pid}/limits");
        match super::procfs::read(&file) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
            text => Self::parse(&text.context(|| format!("read {file}"))?).context(|| file).map(Some),
        }
    }

    /// Parses one line per resource, in the order of their numbers: a name of 26 characters, then the limits.
    fn parse(text: &str) -> Result<Self> {
        let value = |word: &str| match word {
            "unlimited" => Ok(libc::RLIM_INFINITY),
            number => number.parse().context(|| format!("limit {number:?}")),
        };
        let limits = text.lines().skip(1).map(|line| {
            let mut words = line.get(26..).unwrap_or_default().split_whitespace();
            match (words.next(), words.next()) {
                (Some(soft), Some(hard)) => Ok((value(soft)?, value(hard)?)),
                _ => Err(Error::new(format!("line {line:?} has no limits"))),
            }
        });
        limits.collect::<Result<_>>().map(Self)
    }

    /// Sets them for this process: setrlimit(2). A hard limit that this process may not raise, for lack of
    /// CAP_SYS_RESOURCE, stays as it is, and the soft limit is at most as high.
    ///
    /// # Errors
    /// The kernel refuses a limit for another reason than a missing privilege.
    pub fn take(&self) -> Result<()> {
        for ((soft, hard), resource) in self.0.iter().zip(0..) {
            let mut ours = libc::rlimit { rlim_cur: *soft, rlim_max: *hard };
            // SAFETY: the new limit is a rlimit that outlives the call; no old one is asked for.
            let done = unsafe { libc::prlimit(0, resource, &raw const ours, std::ptr::null_mut()) };
            if nix::errno::Errno::result(done) != Err(nix::errno::Errno::EPERM) {
                nix::errno::Errno::result(done).context(|| format!("setrlimit({resource}, {soft}, {hard})"))?;
                continue;
            }
            ours = current(resource)?;
            let hard = ours.rlim_max.min(*hard);
            let new = libc::rlimit { rlim_cur: hard.min(*soft), rlim_max: hard };
            // SAFETY: the new limit is a rlimit that outlives the call; no old one is asked for.
            let done = unsafe { libc::prlimit(0, resource, &raw const new, std::ptr::null_mut()) };
            nix::errno::Errno::result(done).context(|| format!("setrlimit({resource}, {hard})"))?;
        }
        Ok(())
    }

    /// The limits of a service on a freshly booted machine. RLIMIT_NPROC and RLIMIT_SIGPENDING, which depend on the
    /// machine's memory, are this process's hard limits.
    ///
    /// # Errors
    /// This process's own limits can't be read.
    pub fn standard() -> Result<Self> {
        const ALL: u64 = libc::RLIM_INFINITY;
        const MIB: u64 = 1 << 20;
        let of_machine = |resource| current(resource).map(|limit| (limit.rlim_max, limit.rlim_max));
        let limit = |resource| {
            Ok(match resource {
                libc::RLIMIT_STACK => (8 * MIB, ALL),
                libc::RLIMIT_CORE => (0, ALL),
                libc::RLIMIT_NPROC | libc::RLIMIT_SIGPENDING => of_machine(resource)?,
                libc::RLIMIT_NOFILE => (1024, 524_288),
                libc::RLIMIT_MEMLOCK => (8 * MIB, 8 * MIB),
                libc::RLIMIT_MSGQUEUE => (819_200, 819_200),
                libc::RLIMIT_NICE | libc::RLIMIT_RTPRIO => (0, 0),
                _ => (ALL, ALL),
            })
        };
        (0..NAMES.len()).map(|number| limit(resource(number))).collect::<Result<_>>().map(Self)
    }

    /// The hard limits of this process that are lower than these soft limits, as `NAME VALUE` for a message.
    ///
    /// # Errors
    /// This process's own limits can't be read.
    pub fn shortfall(&self) -> Result<Vec<String>> {
        let mut short = Vec::new();
        for (number, (soft, _)) in self.0.iter().enumerate() {
            let hard = current(resource(number))?.rlim_max;
            if hard < *soft {
                short.push(format!("{} {hard}", NAMES[number]));
            }
        }
        Ok(short)
    }

    /// These limits, each raised to the current one of this process if that is higher.
    ///
    /// # Errors
    /// This process's own limits can't be read.
    pub fn or_current(mut self) -> Result<Self> {
        for (number, (soft, hard)) in self.0.iter_mut().enumerate() {
            let now = current(resource(number))?;
            (*soft, *hard) = ((*soft).max(now.rlim_cur), (*hard).max(now.rlim_max));
        }
        Ok(self)
    }
}

/// Names of the resources in messages, by number.
const NAMES: [&str; 16] = [
    "CPU time (s)",
    "file size",
    "data",
    "stack",
    "core file",
    "resident set",
    "processes",
    "open files",
    "locked memory",
    "address space",
    "file locks",
    "pending signals",
    "message queues",
    "nice",
    "real-time priority",
    "real-time (us)",
];

#[cfg(target_env = "musl")]
type Resource = libc::c_int;
#[cfg(not(target_env = "musl"))]
type Resource = libc::__rlimit_resource_t;

fn resource(number: usize) -> Resource {
    Resource::try_from(number).unwrap_or_default()
}

fn current(resource: Resource) -> Result<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: no new limit is given, and the old one is written to a rlimit that outlives the call.
    let done = unsafe { libc::prlimit(0, resource, std::ptr::null(), &raw mut limit) };
    nix::errno::Errno::result(done).context(|| format!("getrlimit({resource})"))?;
    Ok(limit)
}

/// Sets the default scheduling: class SCHED_OTHER, nice value 0, I/O priority derived from it, every processor that the
/// cgroup allows. Returns, for a message, what this process may not change for lack of CAP_SYS_NICE.
///
/// # Errors
/// A call fails for another reason than a missing privilege.
pub fn ordinary_scheduling() -> Result<Vec<String>> {
    use nix::errno::Errno;
    // The kernel's struct sched_param has one member, the priority.
    let param: libc::c_int = 0;
    let mut kept = Vec::new();
    let mut see = |done: libc::c_long, what: &str| match Errno::result(done) {
        Err(Errno::EPERM | Errno::EACCES) => {
            kept.push(what.to_owned());
            Ok(())
        }
        done => done.map(drop).context(|| what.to_owned()),
    };
    // SAFETY: the parameters are an int, all that the kernel's sched_param is, and outlive the call; 0 is this process.
    let done = unsafe { libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_OTHER, &raw const param) };
    see(done, "the scheduling class")?;
    // SAFETY: only numbers are passed; 0 is this process.
    see(unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, 0) }, "the nice value")?;
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    const IOPRIO_NONE: libc::c_int = 0;
    // SAFETY: only numbers are passed; 0 is this process.
    see(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_NONE) }, "the I/O priority")?;
    super::process::run_on_any_cpu()?;
    Ok(kept)
}

/// Sets the default execution domain without any flag: personality(2).
///
/// # Errors
/// The kernel refuses it.
pub fn ordinary_personality() -> Result<()> {
    nix::sys::personality::set(nix::sys::personality::Persona::empty()).map(drop).context(|| "personality(0)")
}

/// Clears the inheritable and ambient sets and the securebits: after that a program that this process executes gets
/// capabilities by its user id and by its file only.
///
/// # Errors
/// capset(2) fails; or securebits are set, and are locked or this process lacks CAP_SETPCAP.
pub fn hand_on_no_capabilities() -> Result<()> {
    super::caps::inherit_none()?;
    reset_securebits()
}

/// Clears the securebits, so that user id 0 and changes of the user id have their usual effect on capabilities:
/// capabilities(7).
///
/// # Errors
/// Securebits are set, and are locked or this process lacks CAP_SETPCAP.
pub fn reset_securebits() -> Result<()> {
    let bits = rustix::thread::capabilities_secure_bits().context(|| "prctl(PR_GET_SECUREBITS)")?;
    if bits.is_empty() {
        return Ok(());
    }
    rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::empty())
        .context(|| format!("prctl(PR_SET_SECUREBITS, 0), they were {:#x}", bits.bits()))
}

/// Drops every capability of this process, from its bounding set too: no exec gives one back, whatever its user id.
///
/// # Errors
/// The bounding set is not empty, and this process lacks CAP_SETPCAP.
pub fn drop_capabilities() -> Result<()> {
    super::caps::limit_bounding_set(0)?;
    super::caps::lower_to(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_limits_are_read_and_taken() {
        let ours = ResourceLimits::of(std::process::id().cast_signed()).unwrap().unwrap();
        assert_eq!(ours.0.len(), 16);
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        assert_eq!(ours.0[7].0, open_files.current.unwrap_or(libc::RLIM_INFINITY));
        ours.take().unwrap();
        assert!(ResourceLimits::parse("Limit\nMax cpu time              soon                 never").is_err());
        assert_eq!(ResourceLimits::of(i32::MAX).unwrap(), None);
    }

    #[test]
    fn standard_limits_are_never_below_what_this_process_has() {
        let ours = ResourceLimits::of(std::process::id().cast_signed()).unwrap().unwrap();
        let raised = ResourceLimits::standard().unwrap().or_current().unwrap();
        assert!(ours.0.iter().zip(&raised.0).all(|(have, new)| have.0 <= new.0 && have.1 <= new.1));
        let too_much = ResourceLimits(vec![(0, 0); 15].into_iter().chain([(0, 0)]).collect());
        assert_eq!(too_much.shortfall().unwrap(), Vec::<String>::new());
    }
}

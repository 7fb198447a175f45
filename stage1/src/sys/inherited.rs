//! What a process inherits from the one that started it, apart from descriptors: limits, scheduling, personality.

use rustix::thread::CapabilitiesSecureBits;

use crate::error::{Context, Error, Result};

/// Resource limits, soft and hard, by their numbers: getrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceLimits(Vec<(u64, u64)>);

impl ResourceLimits {
    /// Those of any process `pid`; `None` if it does not exist: proc_pid_limits(5).
    /// `None` if it has ended.
    ///
    /// # Errors
    /// The file is not as the manual page has it.
    pub fn of(pid: i32) -> Result<Option<Self>> {
        let file = format!("/proc/{pid}/limits");
        match std::fs::read_to_string(&file) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
            text => Self::parse(&text.context(|| format!("read {file}"))?).context(|| file).map(Some),
        }
    }

    /// One line each, in the order of their numbers: a name of 26 characters, then the limits.
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

    /// Makes them this process's own: setrlimit(2). Who may not raise a hard limit (CAP_SYS_RESOURCE) keeps his own.
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

    /// What a service of a freshly booted machine has; the number of processes and of pending signals, which go with
    /// the machine's memory, are those of this process.
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

    /// The hard limits of this process that are lower than these soft ones, in words.
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

    /// None of these is lower than what this process has now, soft and hard.
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

/// What the limits hold, by their numbers.
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

/// An ordinary process's scheduling: class SCHED_OTHER, nice 0, I/O priority by nice, every processor that the cgroup
/// allows. What this process may not lift (CAP_SYS_NICE) is returned, in words.
///
/// # Errors
/// When a call fails for another reason than that.
pub fn ordinary_scheduling() -> Result<Vec<String>> {
    use nix::errno::Errno;
    // struct sched_param has one member, the priority.
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

/// The kernel's usual behaviour towards this process: personality(2).
///
/// # Errors
/// The kernel refuses it.
pub fn ordinary_personality() -> Result<()> {
    nix::sys::personality::set(nix::sys::personality::Persona::empty()).map(drop).context(|| "personality(0)")
}

/// No exec of this process hands on capabilities but by its user id and the file: ambient and inheritable sets and
/// securebits are cleared.
///
/// # Errors
/// The kernel refuses it: securebits are locked.
pub fn hand_on_no_capabilities() -> Result<()> {
    super::caps::inherit_none()?;
    reset_securebits()
}

/// User id 0, and changes of the user id, mean for the capabilities of this process what they usually do.
///
/// # Errors
/// They don't, and this process has no CAP_SETPCAP.
pub fn reset_securebits() -> Result<()> {
    let bits = rustix::thread::capabilities_secure_bits().context(|| "prctl(PR_GET_SECUREBITS)")?;
    if bits.is_empty() {
        return Ok(());
    }
    rustix::thread::set_capabilities_secure_bits(CapabilitiesSecureBits::empty())
        .context(|| format!("prctl(PR_SET_SECUREBITS, 0), they were {:#x}", bits.bits()))
}

/// Drops every capability of this process for good: no exec gives one back, whatever its user id.
///
/// # Errors
/// This process has no CAP_SETPCAP, and something to drop.
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

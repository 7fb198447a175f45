//! Tables of system calls and error names, as text: a number sets the position, and each name takes the next number.
//!
//! Each table is one string in place of an array of pairs, which has no relocations and a fifth of the size. `x86_64`
//! and `aarch64` are from the kernel's headers up to Linux 6.19; `elsewhere` has the names that only other
//! architectures have; `systemd` has the groups of `systemd-analyze syscall-filter` of systemd 252, with `@NAME` for a
//! group inside another one; `default` is our own list.

use std::collections::BTreeMap;

#[cfg(target_arch = "x86_64")]
const SYSCALLS: &str = include_str!("tables/x86_64.txt");
#[cfg(target_arch = "aarch64")]
const SYSCALLS: &str = include_str!("tables/aarch64.txt");

const ELSEWHERE: &str = include_str!("tables/elsewhere.txt");
const ERRNO: &str = include_str!("tables/errno.txt");

/// The groups of systemd.
pub(super) const SYSTEMD: &str = include_str!("tables/systemd.txt");

/// Our default list: the section `always`, a section for each capability that allows more calls, and `never`, the calls
/// of `@docker/default-blacklist`.
pub(super) const DEFAULT: &str = include_str!("tables/default.txt");

/// The names of a table with their numbers.
fn numbered(table: &'static str) -> impl Iterator<Item = (&'static str, u16)> {
    table
        .split_ascii_whitespace()
        .scan(0, |next, token| {
            Some(match token.parse::<u16>() {
                Ok(position) => {
                    *next = position;
                    None
                }
                Err(_) => {
                    *next += 1;
                    Some((token, *next - 1))
                }
            })
        })
        .flatten()
}

/// The meaning of a system call's name on this architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syscall {
    /// It has this number.
    Number(u16),
    /// Only another architecture has it.
    Elsewhere,
    /// No known architecture has it.
    Unknown,
}

/// The system calls of this architecture, by name.
pub(super) struct Syscalls(BTreeMap<&'static str, u16>);

impl Syscalls {
    pub(super) fn new() -> Self {
        Self(numbered(SYSCALLS).collect())
    }

    /// The number of a system call.
    pub(super) fn number(&self, name: &str) -> Option<u16> {
        self.0.get(name).copied()
    }

    /// The meaning of a system call's name.
    pub(super) fn look_up(&self, name: &str) -> Syscall {
        match self.number(name) {
            Some(number) => Syscall::Number(number),
            None if ELSEWHERE.split_ascii_whitespace().any(|known| known == name) => Syscall::Elsewhere,
            None => Syscall::Unknown,
        }
    }

    /// The numbers of all system calls, in no particular order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u16> {
        self.0.values().copied()
    }
}

/// The number of an error by its name, such as `EPERM`.
pub(super) fn errno(name: &str) -> Option<u16> {
    numbered(ERRNO).find(|(known, _)| *known == name).map(|(_, number)| number)
}

/// All names of a table, as pairs of section and name.
pub(super) fn words(table: &'static str) -> impl Iterator<Item = (&'static str, &'static str)> {
    let mut section = "";
    table.split_ascii_whitespace().filter_map(move |word| match word.strip_suffix(':') {
        Some(name) => {
            section = name;
            None
        }
        None => Some((section, word)),
    })
}

/// The names in a section of a table; `None` if there is no such section.
pub(super) fn section(table: &'static str, name: &str) -> Option<impl Iterator<Item = &'static str> + use<>> {
    let mut words = table.split_ascii_whitespace();
    words.find(|word| word.strip_suffix(':') == Some(name))?;
    Some(words.take_while(|word| !word.ends_with(':')))
}

/// The names of all sections of a table.
pub(super) fn sections(table: &'static str) -> impl Iterator<Item = &'static str> {
    table.split_ascii_whitespace().filter_map(|word| word.strip_suffix(':'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    macro_rules! agree {
        ($($name:ident = $constant:ident),* $(,)?) => {
            let syscalls = Syscalls::new();
            $(assert_eq!(
                syscalls.look_up(stringify!($name)), Syscall::Number(u16::try_from(libc::$constant).unwrap()),
                stringify!($name)
            );)*
        };
    }

    #[test]
    fn numbers_agree_with_libc() {
        agree!(
            read = SYS_read,
            write = SYS_write,
            close = SYS_close,
            ioctl = SYS_ioctl,
            execve = SYS_execve,
            clone = SYS_clone,
            exit = SYS_exit,
            wait4 = SYS_wait4,
            ptrace = SYS_ptrace,
            getuid = SYS_getuid,
            setuid = SYS_setuid,
            capset = SYS_capset,
            chroot = SYS_chroot,
            mount = SYS_mount,
            umount2 = SYS_umount2,
            reboot = SYS_reboot,
            gettid = SYS_gettid,
            futex = SYS_futex,
            openat = SYS_openat,
            unshare = SYS_unshare,
            splice = SYS_splice,
            accept4 = SYS_accept4,
            prlimit64 = SYS_prlimit64,
            setns = SYS_setns,
            seccomp = SYS_seccomp,
            getrandom = SYS_getrandom,
            bpf = SYS_bpf,
            execveat = SYS_execveat,
            userfaultfd = SYS_userfaultfd,
            membarrier = SYS_membarrier,
            statx = SYS_statx,
            rseq = SYS_rseq,
            pidfd_send_signal = SYS_pidfd_send_signal,
            io_uring_setup = SYS_io_uring_setup,
            open_tree = SYS_open_tree,
            move_mount = SYS_move_mount,
            clone3 = SYS_clone3,
            close_range = SYS_close_range,
            openat2 = SYS_openat2,
            faccessat2 = SYS_faccessat2,
            mount_setattr = SYS_mount_setattr,
            landlock_create_ruleset = SYS_landlock_create_ruleset,
            futex_waitv = SYS_futex_waitv,
            fchmodat2 = SYS_fchmodat2,
            mseal = SYS_mseal,
            keyctl = SYS_keyctl,
            socket = SYS_socket,
            personality = SYS_personality,
            newfstatat = SYS_newfstatat,
            kexec_load = SYS_kexec_load,
            finit_module = SYS_finit_module,
            memfd_create = SYS_memfd_create,
            quotactl_fd = SYS_quotactl_fd,
        );
    }

    #[test]
    fn every_name_is_there_once_and_in_order() {
        for table in [include_str!("tables/x86_64.txt"), include_str!("tables/aarch64.txt")] {
            let all: Vec<_> = numbered(table).collect();
            assert!(all.windows(2).all(|w| w[0].1 < w[1].1));
            let names: HashSet<_> = all.iter().map(|(name, _)| name).collect();
            assert_eq!(names.len(), all.len());
            assert!(all.len() > 300);
            assert_eq!(all.last(), Some(&("listns", 470)));
        }
    }

    #[test]
    fn tables_name_only_known_system_calls() {
        let syscalls = Syscalls::new();
        for (name, number) in numbered(SYSCALLS) {
            assert_eq!(syscalls.number(name), Some(number), "{name}");
        }
        for table in [SYSTEMD, DEFAULT] {
            for section_name in sections(table) {
                for name in section(table, section_name).unwrap() {
                    match name.strip_prefix('@') {
                        Some(group) => assert!(section(table, group).is_some(), "{group}"),
                        None => assert_ne!(syscalls.look_up(name), Syscall::Unknown, "{section_name}: {name}"),
                    }
                }
            }
        }
        assert_eq!(syscalls.look_up("socketcall"), Syscall::Elsewhere);
        assert_eq!(syscalls.look_up("no_such_call"), Syscall::Unknown);
        assert_eq!(syscalls.look_up("0"), Syscall::Unknown);
    }

    #[test]
    fn error_names() {
        for (name, number) in [
            ("EPERM", libc::EPERM),
            ("EAGAIN", libc::EAGAIN),
            ("EWOULDBLOCK", libc::EWOULDBLOCK),
            ("EDEADLK", libc::EDEADLK),
            ("ENOSYS", libc::ENOSYS),
            ("ENOMSG", libc::ENOMSG),
            ("EBFONT", libc::EBFONT),
            ("ENOTSUP", libc::ENOTSUP),
            ("EOPNOTSUPP", libc::EOPNOTSUPP),
            ("ETIMEDOUT", libc::ETIMEDOUT),
            ("EHWPOISON", libc::EHWPOISON),
        ] {
            assert_eq!(errno(name).map(i32::from), Some(number), "{name}");
        }
        assert_eq!(errno("EBANANA"), None);
        assert_eq!(errno("11"), None);
    }
}

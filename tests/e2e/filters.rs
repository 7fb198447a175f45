//! System call filters in real apps: every group, errors, other ABIs. Machine-code programs make the calls.

use std::fs;

use tests::Verdict;
use tests::harness::Context;
use tests::machine::{self, EXFULL, program};
use tests::podctl::{Pod, Podctl};
use tests::process::{Output, run};

tests::cases! {
    native every_wildcard_in_a_retain_set 120;
    native every_wildcard_in_a_remove_set 120;
    native errors_and_kills;
    both the_other_abis;
    native what_makes_no_sense_is_refused;
    both profiles_of_the_host_hold;
}

fn profiles_of_the_host_hold(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    let file = |name: &str, text: &str| {
        let path = t.dir.join(name);
        fs::write(&path, text).unwrap_or_else(|e| panic!("{name}: {e}"));
        format!("--seccomp-profile={}", path.display())
    };
    // CLONE_NEWNS is 0x20000, CLONE_NEWUSER 0x10000000
    let open = file(
        "open.json",
        r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"], "syscalls": [
            {"names": ["sethostname", "no_such_call"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["chroot"], "action": "SCMP_ACT_ERRNO", "errnoRet": 95},
            {"names": ["unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
             "args": [{"index": 0, "value": 131072, "valueTwo": 131072, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["acct"], "action": "SCMP_ACT_KILL_PROCESS"}
        ]}"#,
    );
    let options = [&*open, "--caps-retain=CAP_SYS_ADMIN,CAP_SYS_CHROOT", "--user=0"];
    pod.add("one", &options, &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    for (call, outcome) in [
        ("sethostname", "EPERM"),
        ("chroot", "EOPNOTSUPP"),
        ("unshare-mount", "EACCES"),
        ("unshare-user", "ok"),
        ("mount", "ok"),
    ] {
        assert_eq!(pod.enter("one", &["/probe", "syscall", call]).ok(), outcome, "{call}");
    }
    assert_eq!(pod.enter("one", &["/probe", "syscall", "acct"]).signal, Some(31), "SIGSYS");
    // the image's own sets and the usual filter give way, and nothing is left of it without one
    let seen = pod.report("free", &["--seccomp-profile=unconfined"]);
    assert_eq!(seen["seccomp"], "0");
    // a list of what is allowed
    let allowed = r#"["read","write","open","openat","close","execve","exit","exit_group","mmap","munmap","mprotect","brk",
        "rt_sigaction","rt_sigprocmask","rt_sigreturn","sigaltstack","arch_prctl","set_tid_address","set_robust_list",
        "poll","ioctl","fcntl","getrandom","sched_getaffinity","futex","writev","readv","lseek","prctl","rseq","pipe2",
        "fstat","newfstatat","statx","nanosleep","clock_nanosleep","gettid","getpid","tkill","prlimit64","madvise"]"#;
    let strict = format!(
        r#"{{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 5,
            "syscalls": [{{"names": {allowed}, "action": "SCMP_ACT_ALLOW"}}]}}"#
    );
    let strict = file("strict.json", &strict);
    pod.add("two", &[&strict, "--user=1001"], &["sleep", "inf"]);
    pod.app("start", "two", &[]).ok();
    assert_eq!(pod.enter("two", &["/probe", "syscall", "chown"]).ok(), "EIO");
    for (text, why) in [
        ("{}", "defaultAction"),
        (r#"{"defaultAction":"SCMP_ACT_KILL"}"#, "without execve"),
        (r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#, "agent"),
    ] {
        let complaint = pod.try_add("probe", "three", &[&file("bad.json", text)], &["sleep", "inf"]).complaint();
        assert!(complaint.contains("bad.json") && complaint.contains(why), "{complaint}");
    }
    let complaint = pod.try_add("probe", "three", &["--seccomp-profile=/no/such"], &["sleep", "inf"]).complaint();
    assert!(complaint.contains("/no/such"), "{complaint}");
    pod.end();
    Ok(())
}

/// System call numbers on x86_64.
mod nr {
    pub const LSEEK: u32 = 8;
    pub const MKDIR: u32 = 83;
    pub const CHOWN: u32 = 92;
    pub const MOUNT: u32 = 165;
    pub const MBIND: u32 = 237;
    pub const BPF: u32 = 321;
}

/// A group of systemd's, a call that is in it, and one that is not.
const GROUPS: &[(&str, u32, u32)] = &[
    ("default", 39, nr::BPF), // getpid
    ("aio", 206, nr::BPF),    // io_setup
    ("basic-io", nr::LSEEK, nr::BPF),
    ("chown", nr::CHOWN, nr::BPF),
    ("clock", 159, nr::BPF),         // adjtimex
    ("cpu-emulation", 154, nr::BPF), // modify_ldt
    ("debug", 101, nr::BPF),         // ptrace
    ("file-system", nr::MKDIR, nr::BPF),
    ("io-event", 213, nr::BPF), // epoll_create
    ("ipc", 68, nr::BPF),       // msgget
    ("keyring", 250, nr::BPF),  // keyctl
    ("memlock", 149, nr::BPF),  // mlock
    ("module", 176, nr::BPF),   // delete_module
    ("mount", nr::MOUNT, nr::BPF),
    ("network-io", 41, nr::BPF), // socket
    ("obsolete", 134, nr::BPF),  // uselib
    ("pkey", 331, nr::BPF),      // pkey_free
    ("privileged", nr::BPF, nr::MKDIR),
    ("process", 61, nr::BPF), // wait4
    ("raw-io", 173, nr::BPF), // ioperm
    ("reboot", 169, nr::BPF),
    ("resources", nr::MBIND, nr::BPF),
    ("setuid", 105, nr::BPF),
    ("signal", 131, nr::BPF), // sigaltstack
    ("swap", 168, nr::BPF),   // swapoff
    ("sync", 74, nr::BPF),    // fsync
    ("system-service", nr::MKDIR, nr::BPF),
    ("timer", 226, nr::BPF), // timer_delete
];

/// An image of only these programs.
fn image(t: &Context, programs: &[(String, Vec<u8>)]) -> Podctl {
    let root = t.dir.join("calls-root");
    fs::create_dir(&root).expect("mkdir");
    for (name, code) in programs {
        program(&root.join(name), code);
    }
    let podctl = t.podctl();
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "calls", "--exec", "/none"]);
    podctl
}

fn add(pod: &Pod<'_>, options: &[&str], file: &str) -> Output {
    let exec = format!("--exec=/{file}");
    let words = ["app", "add", &pod.uuid, "calls", "--name=one", &exec];
    pod.podctl.run(&[&words, options].concat())
}

/// The exit status of one of the programs under a filter.
#[track_caller]
fn status(pod: &Pod<'_>, options: &[&str], file: &str) -> i64 {
    add(pod, options, file).ok();
    pod.app("start", "one", &[]).ok();
    let code = pod.exit_code("one");
    pod.app("rm", "one", &[]).ok();
    code
}

fn pair(first: u32, second: u32) -> (String, Vec<u8>) {
    (format!("{first}-{second}"), machine::two(first, second))
}

fn every_wildcard_in_a_retain_set(t: &Context) -> Verdict {
    let mut pairs: Vec<_> = GROUPS.iter().map(|(_, inside, outside)| pair(*inside, *outside)).collect();
    pairs.push(pair(nr::MKDIR, nr::MOUNT));
    let podctl = image(t, &pairs);
    let pod = podctl.sandbox(&["--net=none"]);
    for (group, inside, outside) in GROUPS {
        let filter = format!("--seccomp=mode=retain,errno=EXFULL,@systemd/{group}");
        assert_eq!(status(&pod, &[&filter], &pair(*inside, *outside).0), 2, "@systemd/{group}");
    }
    // Allowed or not: mkdir, mount.
    for (names, expected) in [
        ("@systemd/known", 0),
        ("@systemd/default-whitelist", 3),
        ("@systemd/chown,@systemd/file-system", 2),
        ("@rkt/default-whitelist", 2),
        ("@docker/default-whitelist", 2),
        ("@docker/default-whitelist,@systemd/mount", 0),
        ("@rkt/default-blacklist", 1),
        ("@docker/default-blacklist", 1),
        ("@appc.io/all", 0),
        ("@appc.io/empty", 2),
        ("mount", 1),
    ] {
        let filter = format!("--seccomp=mode=retain,errno=EXFULL,{names}");
        assert_eq!(status(&pod, &[&filter], &pair(nr::MKDIR, nr::MOUNT).0), expected, "{names}");
    }
    pod.end();
    Ok(())
}

fn every_wildcard_in_a_remove_set(t: &Context) -> Verdict {
    let mut pairs: Vec<_> = GROUPS.iter().map(|(_, inside, outside)| pair(*inside, *outside)).collect();
    pairs.push(pair(nr::MKDIR, nr::MOUNT));
    let podctl = image(t, &pairs);
    let pod = podctl.sandbox(&["--net=none"]);
    for (group, inside, outside) in GROUPS {
        let filter = format!("--seccomp=mode=remove,errno=EXFULL,@systemd/{group}");
        let file = pair(*inside, *outside).0;
        if ["default", "system-service"].contains(group) {
            let complaint = add(&pod, &[&filter], &file).complaint();
            assert!(complaint.contains("without execve"), "@systemd/{group}: {complaint}");
        } else {
            assert_eq!(status(&pod, &[&filter], &file), 1, "@systemd/{group}");
        }
    }
    for (names, expected) in [
        ("@rkt/default-blacklist", 2),
        ("@docker/default-blacklist", 2),
        ("@docker/default-blacklist,mkdir", 3),
        // It also masks other filters, and replaces the default one.
        ("mkdir,@appc.io/empty", 2),
        ("mkdir", 1),
    ] {
        let filter = format!("--seccomp=mode=remove,errno=EXFULL,{names}");
        assert_eq!(status(&pod, &[&filter], &pair(nr::MKDIR, nr::MOUNT).0), expected, "{names}");
    }
    for names in ["@appc.io/all", "@systemd/known", "@rkt/default-whitelist", "execve"] {
        let complaint = add(&pod, &[&format!("--seccomp=mode=remove,errno=EXFULL,{names}")], "none").complaint();
        assert!(complaint.contains("without execve"), "{names}: {complaint}");
    }
    pod.end();
    Ok(())
}

fn errors_and_kills(t: &Context) -> Verdict {
    let programs = [("mkdir", nr::MKDIR), ("mount", nr::MOUNT), ("later", 999)];
    let podctl = image(t, &programs.map(|(name, number)| (name.to_owned(), machine::one(number))));
    let pod = podctl.sandbox(&["--net=none"]);
    let (eperm, efault, enosys, sigsys) = (1, 14, 38, 128 + 31);
    for (options, file, expected) in [
        // The default: EPERM for calls that are not allowed, ENOSYS for unknown ones.
        (&[][..], "mkdir", efault),
        (&[], "mount", eperm),
        (&[], "later", enosys),
        (&["--disable-seccomp"], "mount", efault),
        // A set without an error kills, as in appc.
        (&["--seccomp=mode=retain,@systemd/basic-io"], "mkdir", sigsys),
        (&["--seccomp=mode=remove,mkdir"], "mkdir", sigsys),
        (&["--seccomp=mode=remove,errno=EXFULL,mkdir"], "mkdir", i64::from(EXFULL)),
        (&["--seccomp=mode=remove,errno=ENOTSUP,mkdir"], "mkdir", 95),
        (&["--seccomp=mode=retain,errno=EHWPOISON,mount"], "mkdir", 133),
        // As another user than root, without capabilities.
        (&["--user=1001", "--group=1001"], "mount", eperm),
        (&["--user=1001", "--group=1001", "--seccomp=mode=remove,errno=EXFULL,mkdir"], "mkdir", i64::from(EXFULL)),
    ] {
        // Without the filter the kernel would refuse mount for lack of CAP_SYS_ADMIN.
        let options = [options, if options == ["--disable-seccomp"] { &["--caps-retain=CAP_SYS_ADMIN"] } else { &[] }];
        assert_eq!(status(&pod, &options.concat(), file), expected, "{file} {options:?}");
    }
    pod.end();
    Ok(())
}

/// The calls of the 32-bit ABIs have other numbers: no way around a filter.
fn the_other_abis(t: &Context) -> Verdict {
    // On a kernel without the 32-bit ABI the instruction itself is fatal.
    let alone = t.dir.join("alone");
    program(&alone, &machine::i386(20));
    let natively = run(&mut std::process::Command::new(&alone));
    let without = match (natively.code, natively.signal) {
        (Some(0), _) => 0,
        (_, Some(11)) => 128 + 11,
        _ => panic!("getpid by int 0x80: {natively}"),
    };
    let killed = if without == 0 { 128 + 31 } else { without };
    let programs = [
        ("i386-getpid", machine::i386(20)),
        ("i386-reboot", machine::i386(88)),
        ("x32-getpid", machine::x32(39)),
        ("x32-mount", machine::x32(nr::MOUNT)),
    ];
    let podctl = image(t, &programs.map(|(name, code)| (name.to_owned(), code)));
    let pod = podctl.sandbox(&["--net=none"]);
    let enosys = 38;
    for (options, file, expected) in [
        (&["--disable-seccomp"][..], "i386-getpid", without),
        (&["--seccomp=mode=retain,@appc.io/all"], "i386-getpid", without),
        (&[], "i386-getpid", killed),
        (&["--seccomp=mode=retain,errno=EPERM,@systemd/system-service"], "i386-getpid", killed),
        (&["--seccomp=mode=remove,errno=EPERM,reboot"], "i386-getpid", killed),
        (&["--seccomp=mode=remove,errno=EPERM,reboot"], "i386-reboot", killed),
        (&["--user=1001", "--group=1001"], "i386-reboot", killed),
        (&[], "x32-getpid", enosys),
        (&[], "x32-mount", enosys),
        (&["--seccomp=mode=remove,errno=EPERM,mount"], "x32-mount", enosys),
        (&["--seccomp=mode=remove,errno=EPERM,mount"], "x32-getpid", enosys),
    ] {
        assert_eq!(status(&pod, options, file), expected, "{file} {options:?}");
    }
    // The same for entered commands.
    add(&pod, &[], "i386-getpid").ok();
    let entered = pod.enter("one", &["/i386-getpid"]);
    assert_eq!(entered.signal.map(|signal| 128 + i64::from(signal)), Some(killed), "{entered}");
    assert_eq!(pod.enter("one", &["/x32-mount"]).code, Some(enosys as i32));
    pod.end();
    Ok(())
}

fn what_makes_no_sense_is_refused(t: &Context) -> Verdict {
    let podctl = image(t, &[pair(nr::MKDIR, nr::MOUNT)]);
    let pod = podctl.sandbox(&["--net=none"]);
    for (filter, why) in [
        ("mode=retain,raed", "raed"),
        ("mode=retain,@systemd/banana", "banana"),
        ("mode=retain,@banana/all", "@banana/all"),
        ("mode=retain,errno=EBANANA,read", "EBANANA"),
        ("mode=retain,errno=EPERM", "empty"),
        ("mode=perhaps,read", "mode=perhaps"),
    ] {
        let complaint = add(&pod, &[&format!("--seccomp={filter}")], "none").complaint();
        assert!(complaint.contains(why), "{complaint}");
    }
    pod.end();
    Ok(())
}

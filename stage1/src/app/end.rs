//! How an app ended: from systemd's words to the status file. Pod side.

use std::path::Path;

use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;

/// What systemd tells an ExecStopPost= command of the main process: systemd.exec(5), `$EXIT_CODE`.
#[derive(Debug)]
struct Ending<'a> {
    result: &'a str,
    code: &'a str,
    status: &'a str,
}

/// Writes the exit status of `app`, decimal and newline, to its status file: its own exit status,
/// or 128 + signal if it was killed.
///
/// # Errors
/// When the environment is not that of an ExecStopPost= command, or the file can't be written.
pub fn record_exit(app: &AcName) -> Result<()> {
    let get = |name: &str| std::env::var(name).unwrap_or_default();
    let (result, code, status) = (get("SERVICE_RESULT"), get("EXIT_CODE"), get("EXIT_STATUS"));
    let ending = Ending { result: &result, code: &code, status: &status };
    let number = exit_status(&ending)?;
    crate::pod::write_atomic(Path::new(layout::IN_POD_STATUS), app.as_ref(), format!("{number}\n").as_bytes(), 0o644)
        .context(|| format!("write the exit status of {app}"))
}

/// An app whose process could not even be started by systemd: systemd.exec(5), "Process Exit Codes".
const NOT_STARTED: u8 = 254;

fn exit_status(ending: &Ending<'_>) -> Result<u8> {
    match ending.code {
        "exited" => ending.status.parse().context(|| format!("exit status {:?} of systemd", ending.status)),
        "killed" | "dumped" => {
            let signal = signal_number(ending.status)
                .ok_or_else(|| Error::new(format!("unknown signal {:?} in systemd's words", ending.status)))?;
            Ok(128 + signal)
        }
        "" if !ending.result.is_empty() => Ok(NOT_STARTED),
        _ => Err(Error::new(format!("{ending:?} is not what systemd tells an ExecStopPost= command"))),
    }
}

/// The number of a signal that systemd names without its prefix (`KILL`, `RTMIN+3`), or of one it has no name for.
fn signal_number(name: &str) -> Option<u8> {
    // glibc's SIGRTMIN, which is systemd's.
    const SIGRTMIN: u8 = 34;
    if let Ok(number) = name.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    if let Some(offset) = name.strip_prefix("RTMIN") {
        let offset: u8 = offset.strip_prefix('+').map_or(Some(0), |o| o.parse().ok())?;
        return SIGRTMIN.checked_add(offset).filter(|n| *n <= 64);
    }
    let signal: nix::sys::signal::Signal = format!("SIG{name}").parse().ok()?;
    u8::try_from(signal as i32).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(result: &str, code: &str, status: &str) -> Option<u8> {
        exit_status(&Ending { result, code, status }).ok()
    }

    #[test]
    fn every_way_to_end() {
        assert_eq!(status("success", "exited", "0"), Some(0));
        assert_eq!(status("exit-code", "exited", "255"), Some(255));
        assert_eq!(status("signal", "killed", "KILL"), Some(137));
        assert_eq!(status("core-dump", "dumped", "SEGV"), Some(139));
        assert_eq!(status("signal", "killed", "RTMIN+3"), Some(128 + 37));
        assert_eq!(status("signal", "killed", "RTMIN"), Some(128 + 34));
        assert_eq!(status("signal", "killed", "32"), Some(160));
        assert_eq!(status("resources", "", ""), Some(254));
        assert_eq!(status("", "", ""), None);
        assert_eq!(status("signal", "killed", "BANANA"), None);
        assert_eq!(status("exit-code", "exited", "256"), None);
    }

    #[test]
    fn all_classic_signals_have_their_number() {
        for signal in nix::sys::signal::Signal::iterator() {
            let name = signal.as_str().strip_prefix("SIG").unwrap();
            assert_eq!(signal_number(name), Some(signal as u8), "{name}");
        }
    }
}

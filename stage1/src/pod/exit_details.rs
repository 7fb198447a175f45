//! Details of an app's end besides its exit status, written by the reaper in the pod and read by the host.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::Durable;
use super::reserved_space::write_kept;
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;

/// Maximum size of the file, in bytes.
pub(super) const MAX_DETAILS: u64 = 16 << 10;
/// Maximum length of each text in it, in bytes.
const MAX_TEXT: usize = 4096;

/// How an app ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitDetails {
    /// The app's exit status, or 128 + signal, as in its status file.
    pub exit_code: u8,
    /// systemd's service result: `success`, `exit-code`, `signal`, `timeout`, `protocol`… ($SERVICE_RESULT of
    /// systemd.exec(5)).
    pub result: String,
    /// Name of the signal that killed it: `SIGKILL`, `SIGRTMIN+3`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether it dumped core.
    #[serde(default, skip_serializing_if = "is_false")]
    pub core_dumped: bool,
    /// Whether the kernel has killed a process of the app since its start because the app reached its memory limit.
    #[serde(default, skip_serializing_if = "is_false")]
    pub oom_killed: bool,
    /// Whether the app's health check ended it, because it was unhealthy.
    #[serde(default, skip_serializing_if = "is_false")]
    pub unhealthy: bool,
    /// The start error; `None` if the app was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_failure: Option<String>,
    /// Number of restarts by its restart policy since it was last started by hand, including one that is about to
    /// happen.
    #[serde(default, skip_serializing_if = "is_none")]
    pub restarts: u32,
    /// Number of restarts in a row, counted anew after [`crate::unit::RESTART_RESET`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub in_a_row: u32,
    /// Whether its restart policy is about to start it again.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restarting: bool,
    /// Whether its restart policy does not start it again because it has failed too often.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gave_up: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_none(number: &u32) -> bool {
    *number == 0
}

/// Whether a lack of memory can have ended an app of which it has killed a process: the kernel ends processes by SIGKILL,
/// and parents of these fail. An exit status of 128 and the number of another signal is the answer to that signal.
pub fn is_of_oom(exit_code: u8, signal: Option<&str>) -> bool {
    match (exit_code, signal) {
        (_, Some(signal)) => signal == "SIGKILL",
        (137, None) => true,
        (code, None) => (1..=128).contains(&code),
    }
}

impl ExitDetails {
    /// Whether a lack of memory has ended the app, and not only one of its processes at some time before.
    pub fn is_end_by_oom(&self) -> bool {
        self.oom_killed && is_of_oom(self.exit_code, self.signal.as_deref())
    }

    /// Whether there is nothing to report beyond the exit status.
    pub fn is_plain(&self) -> bool {
        self.signal.is_none()
            && !self.core_dumped
            && !self.oom_killed
            && !self.unhealthy
            && self.start_failure.is_none()
            && self.restarts == 0
            && !self.gave_up
    }

    /// Parses JSON that the less trusted pod has written.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let details: Self = serde_json::from_slice(text).context(|| "not valid exit details")?;
        let texts = [Some(&details.result), details.signal.as_ref(), details.start_failure.as_ref()];
        if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT) {
            return Err(Error::new(format!("exit details with a text of more than {MAX_TEXT} bytes")));
        }
        Ok(details)
    }

    /// Reads the details of `app`, pod side; `None` if the file does not exist.
    ///
    /// # Errors
    /// The file exists, and can't be read or is not valid.
    pub fn load_in_pod(app: &AcName) -> Result<Option<Self>> {
        let path = layout::in_pod_exit_details(app);
        match super::read_bounded(&path, MAX_DETAILS) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            text => Self::parse(&text?).context(|| format!("{path:?}")).map(Some),
        }
    }

    /// Writes the details of `app`, pod side. The file is not synced; that of the exit status is.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn store_in_pod(&self, app: &AcName) -> Result<()> {
        let name = layout::exit_details(app);
        let mut details = self.clone();
        if let Some(why) = &mut details.start_failure {
            why.truncate(why.floor_char_boundary(MAX_TEXT));
        }
        let text = serde_json::to_vec(&details).context(|| format!("write {name:?}"))?;
        write_kept(Path::new(layout::IN_POD_STATUS), &name, &text, 0o644, Durable::No)
    }

    /// Removes the details of `app`, pod side; a missing file is not an error.
    ///
    /// # Errors
    /// The file can't be removed.
    pub fn remove_in_pod(app: &AcName) -> Result<()> {
        let path = layout::in_pod_exit_details(app);
        super::remove_if_there(&path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let details = ExitDetails {
            exit_code: 137,
            result: "signal".into(),
            signal: Some("SIGKILL".into()),
            oom_killed: true,
            ..ExitDetails::default()
        };
        let text = serde_json::to_string(&details).unwrap();
        assert_eq!(text, r#"{"exit_code":137,"result":"signal","signal":"SIGKILL","oom_killed":true}"#);
        assert_eq!(ExitDetails::parse(text.as_bytes()).unwrap(), details);
        assert!(!details.is_plain() && ExitDetails::default().is_plain());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let long = format!(r#"{{"exit_code":1,"result":"{}"}}"#, "x".repeat(MAX_TEXT + 1));
        for bad in ["", "[]", "{", r#"{"exit_code":256}"#, r#"{"exit_code":"1"}"#, &long] {
            assert!(ExitDetails::parse(bad.as_bytes()).is_err(), "{bad:.40}");
        }
    }
}

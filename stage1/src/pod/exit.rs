//! What is known about an app's end besides its exit status: written by the reaper, read by the host.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::files::Durable;
use super::room::write_kept;
use crate::appc::AcName;
use crate::error::{Context, Error, Result};
use crate::layout;

/// Most that is read of such a file, in bytes.
pub(super) const MAX_DETAILS: u64 = 16 << 10;
/// Longest text in it, in bytes.
const MAX_TEXT: usize = 4096;

/// How an app ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitDetails {
    /// What the status file says: its exit status, or 128 + signal.
    pub exit_code: u8,
    /// systemd's word for it: `success`, `exit-code`, `signal`, `timeout`, `protocol`…
    pub result: String,
    /// Name of the signal that killed it: `SIGKILL`, `SIGRTMIN+3`, or a number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Whether it left a core dump.
    #[serde(default, skip_serializing_if = "is_false")]
    pub core_dumped: bool,
    /// Whether the kernel has killed a process of the app since its start because the memory that the app
    /// may have was used up.
    #[serde(default, skip_serializing_if = "is_false")]
    pub oom_killed: bool,
    /// Why it could not be started; absent if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_failure: Option<String>,
    /// How often its restart policy has started it again since somebody started it, this time included if it is about to.
    #[serde(default, skip_serializing_if = "is_none")]
    pub restarts: u32,
    /// How often in a row: [`crate::unit::RESTART_RESET`].
    #[serde(default, skip_serializing_if = "is_none")]
    pub in_a_row: u32,
    /// It is about to be started again, and does not run until then.
    #[serde(default, skip_serializing_if = "is_false")]
    pub restarting: bool,
    /// Its restart policy has given up on it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub gave_up: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

fn is_none(number: &u32) -> bool {
    *number == 0
}

impl ExitDetails {
    /// Whether the exit status alone says it all.
    pub fn is_plain(&self) -> bool {
        self.signal.is_none()
            && !self.core_dumped
            && !self.oom_killed
            && self.start_failure.is_none()
            && self.restarts == 0
            && !self.gave_up
    }

    /// Parses JSON that something less trusted has written.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let details: Self = serde_json::from_slice(text).context(|| "it does not parse")?;
        let texts = [Some(&details.result), details.signal.as_ref(), details.start_failure.as_ref()];
        if texts.into_iter().flatten().any(|text| text.len() > MAX_TEXT) {
            return Err(Error::new(format!("a text in it has more than {MAX_TEXT} bytes")));
        }
        Ok(details)
    }

    /// Reads what was written for `app`, pod side; `None` if nothing was.
    ///
    /// # Errors
    /// It is there, and can't be read or is not valid.
    pub fn load_in_pod(app: &AcName) -> Result<Option<Self>> {
        let path = layout::in_pod_exit_details(app);
        match super::read_bounded(&path, MAX_DETAILS) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            text => Self::parse(&text?).context(|| format!("{path:?}")).map(Some),
        }
    }

    /// Replaces what was written for `app`, pod side. Not synced: these are words beside the status, which is.
    ///
    /// # Errors
    /// It can't be written.
    pub fn store_in_pod(&self, app: &AcName) -> Result<()> {
        let name = layout::exit_details(app);
        let mut details = self.clone();
        if let Some(why) = &mut details.start_failure {
            why.truncate(why.floor_char_boundary(MAX_TEXT));
        }
        let text = serde_json::to_vec(&details).context(|| format!("write {name:?}"))?;
        write_kept(Path::new(layout::IN_POD_STATUS), &name, &text, 0o644, Durable::No)
    }

    /// Removes what was written for `app`, pod side; a missing file is not an error.
    ///
    /// # Errors
    /// It can't be removed.
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

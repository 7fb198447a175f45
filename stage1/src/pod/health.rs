//! The results of an app's health checks, written in the pod and read by the host.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::files::{Directory, read_bounded, write_atomic};
use crate::appc::{AcName, HealthCheck};
use crate::error::{Context, Error, Result};
use crate::layout;

/// Maximum size of the file, in bytes.
pub(super) const MAX_HEALTH: u64 = 64 << 10;
/// Maximum length of the output of a check that is kept, in bytes: its end.
pub const MAX_OUTPUT: usize = 4096;

/// Whether an app is healthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wellness {
    /// No check has succeeded since the app's start, and too few have failed to make it unhealthy.
    #[default]
    Starting,
    /// A check has succeeded, and fewer than [`HealthCheck::retries`] have failed in a row since.
    Healthy,
    /// [`HealthCheck::retries`] checks or more have failed in a row.
    Unhealthy,
}

impl Wellness {
    /// Its name in files and output.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// The health of an app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it is healthy.
    pub status: Wellness,
    /// Number of checks that have failed in a row.
    #[serde(default)]
    pub failures: u32,
    /// Time of the app's start, in milliseconds since the epoch.
    #[serde(default)]
    pub since_ms: u64,
    /// Whether the app is being ended because it has become unhealthy.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ends_app: bool,
    /// The last check, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Check>,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The command's exit status, or 128 + signal; `None` if it timed out.
    pub exit_code: Option<u8>,
    /// The end of the command's output, or the reason why it could not be run.
    #[serde(default)]
    pub output: String,
}

impl Health {
    /// The health of an app that is started now.
    pub fn starting() -> Self {
        Self { since_ms: now_ms(), ..Self::default() }
    }

    /// Takes the result of a check into account. Returns whether the app has become unhealthy by it.
    #[must_use]
    pub fn note(&mut self, check: Check, by: &HealthCheck) -> bool {
        self.note_at(check, by, now_ms())
    }

    fn note_at(&mut self, check: Check, by: &HealthCheck, now_ms: u64) -> bool {
        let was = self.status;
        let is_young = now_ms.saturating_sub(self.since_ms) < by.start_period_ms;
        if check.exit_code == Some(0) {
            (self.status, self.failures) = (Wellness::Healthy, 0);
        } else if was != Wellness::Starting || !is_young {
            self.failures = self.failures.saturating_add(1);
            if self.failures >= by.retries {
                self.status = Wellness::Unhealthy;
            }
        }
        self.last = Some(check);
        self.status == Wellness::Unhealthy && was != Wellness::Unhealthy
    }

    /// Parses JSON that the less trusted pod has written.
    pub(super) fn parse(text: &[u8]) -> Result<Self> {
        let health: Self = serde_json::from_slice(text).context(|| "not a valid result of health checks")?;
        match &health.last {
            Some(check) if check.output.len() > MAX_OUTPUT => {
                Err(Error::new(format!("the output of the last health check has more than {MAX_OUTPUT} bytes")))
            }
            _ => Ok(health),
        }
    }

    /// Reads the health of `app`, pod side; `None` if the file does not exist.
    ///
    /// # Errors
    /// The file exists, and can't be read or is not valid.
    pub fn load_in_pod(app: &AcName) -> Result<Option<Self>> {
        let path = Path::new(layout::IN_POD_STATUS).join(layout::health(app));
        match read_bounded(&path, MAX_HEALTH) {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(None),
            text => Self::parse(&text?).context(|| format!("{path:?}")).map(Some),
        }
    }

    /// Writes the health of `app`, pod side, replacing the file atomically.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn store_in_pod(&self, app: &AcName) -> Result<()> {
        let name = layout::health(app);
        let text = serde_json::to_vec(self).context(|| format!("write {name:?}"))?;
        write_atomic(Directory::Trusted(Path::new(layout::IN_POD_STATUS)), &name, &text, 0o644)
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_app_is_unhealthy_after_some_failures_and_well_after_one_success() {
        let by = HealthCheck { retries: 2, start_period_ms: 1000, ..HealthCheck::new(vec!["x".into()]) };
        let check = |exit_code| Check { exit_code, output: String::new() };
        let mut health = Health { since_ms: 5000, ..Health::default() };
        let mut see = |code, at| {
            let became = health.note_at(check(code), &by, at);
            (health.status, health.failures, became)
        };
        use Wellness::{Healthy, Starting, Unhealthy};
        assert_eq!(see(Some(1), 5500), (Starting, 0, false), "it does not count yet");
        assert_eq!(see(None, 6000), (Starting, 1, false));
        assert_eq!(see(Some(1), 6001), (Unhealthy, 2, true));
        assert_eq!(see(Some(1), 6002), (Unhealthy, 3, false), "it is told once");
        assert_eq!(see(Some(0), 6003), (Healthy, 0, false));
        assert_eq!(see(Some(1), 6004), (Healthy, 1, false));
        let mut early = Health { since_ms: 5000, ..Health::default() };
        assert!(!early.note_at(check(Some(0)), &by, 5001) && !early.note_at(check(Some(1)), &by, 5002));
        assert_eq!((early.status, early.failures), (Healthy, 1), "it was well: from then on all counts");
        let text = serde_json::to_vec(&early).unwrap();
        assert_eq!(Health::parse(&text).unwrap(), early);
        let long =
            format!(r#"{{"status":"healthy","last":{{"exit_code":0,"output":"{}"}}}}"#, "x".repeat(MAX_OUTPUT + 1));
        for bad in ["", "{}", r#"{"status":"fine"}"#, &long] {
            assert!(Health::parse(bad.as_bytes()).is_err(), "{bad:.30}");
        }
    }
}

//! The options of an app's health check

use std::time::Duration;

use clap::Args;
use stage1::appc::OnFailure;
use stage1::error::{Context, Error, Result};

use super::duration::duration;
use crate::app::health::{self, HealthOptions};

/// The options of an app's health check.
#[derive(Args, Debug, Default)]
pub struct HealthArgs {
    /// Check the app's health with this command, run in the app: a line for its /bin/sh, or words as ["/bin/x", "y"];
    /// none disables the check (default: the image's)
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Check it this often (default: 30s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_interval: Option<Duration>,
    /// Count a check that takes longer as failed (default: 30s)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_timeout: Option<Duration>,
    /// Consider it unhealthy after this many failures in a row (default: 3)
    #[arg(long, value_name = "TIMES")]
    health_retries: Option<u32>,
    /// Do not count failures for this long after its start, until the first success (default: 0)
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    health_start_period: Option<Duration>,
    /// Do this when it is unhealthy: none, restart, stop (default: none)
    #[arg(long, value_name = "WHAT")]
    health_on_failure: Option<String>,
}

impl HealthArgs {
    /// The options of the app.
    ///
    /// # Errors
    /// The command or the action is invalid.
    pub fn options(&self) -> Result<HealthOptions> {
        let ms = |time: Option<Duration>| time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        Ok(HealthOptions {
            command: self.health_cmd.as_deref().map(command).transpose().context(|| "--health-cmd")?,
            interval_ms: ms(self.health_interval),
            timeout_ms: ms(self.health_timeout),
            retries: self.health_retries,
            start_period_ms: ms(self.health_start_period),
            on_failure: self.health_on_failure.as_deref().map(on_failure).transpose()?,
        })
    }
}

fn command(text: &str) -> Result<Vec<String>> {
    match text {
        "" => Err(Error::new("no command")),
        "none" => Ok(Vec::new()),
        words if words.trim_start().starts_with('[') => {
            serde_json::from_str(words).context(|| format!("{words:?}: not a list of words"))
        }
        line => Ok(health::shell(line)),
    }
}

fn on_failure(text: &str) -> Result<OnFailure> {
    match text {
        "none" => Ok(OnFailure::None),
        "restart" => Ok(OnFailure::Restart),
        "stop" => Ok(OnFailure::Stop),
        _ => Err(Error::new(format!("--health-on-failure {text:?}: use none, restart or stop"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_lines_or_words() {
        assert_eq!(command("curl -f x || exit 1").unwrap(), ["/bin/sh", "-c", "curl -f x || exit 1"]);
        assert_eq!(command(r#"["/probe", "exit", "0"]"#).unwrap(), ["/probe", "exit", "0"]);
        assert!(command("none").unwrap().is_empty());
        assert!(command("").is_err() && command("[").is_err() && on_failure("kill").is_err());
    }
}

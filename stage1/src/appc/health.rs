//! How it is found out whether an app is well, and what it waits for before it starts: annotations of an app in the pod
//! manifest, written by host managers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::AcName;
use crate::error::{Context, Error, Result};

/// Annotation: a [`HealthCheck`] as JSON.
pub const HEALTH_CHECK: &str = "podctl.io/health-check";
/// Annotation: what the app waits for, separated by blanks: see [`After`].
pub const AFTER: &str = "podctl.io/after";

/// The shortest time between two checks.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// The longest that anything of it may take.
const MAX_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A command that is run in an app to find out whether it is well; times in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The command and its arguments: the app is well if it ends with 0.
    pub command: Vec<String>,
    /// Between the end of a check and the next one.
    #[serde(default = "usual_time")]
    pub interval_ms: u64,
    /// A check that takes longer has failed.
    #[serde(default = "usual_time")]
    pub timeout_ms: u64,
    /// After so many failures in a row the app is unhealthy.
    #[serde(default = "usual_retries")]
    pub retries: u32,
    /// For so long after the app's start a failure does not count, unless it has been well since.
    #[serde(default)]
    pub start_period_ms: u64,
    /// What is done about an unhealthy app.
    #[serde(default)]
    pub on_failure: OnFailure,
}

fn usual_time() -> u64 {
    30_000
}

fn usual_retries() -> u32 {
    3
}

/// What is done about an unhealthy app.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is told.
    #[default]
    None,
    /// It is started again.
    Restart,
    /// It is stopped.
    Stop,
}

impl HealthCheck {
    /// A check by this command, all else as usual: every 30 s, 30 s long at most, 3 failures.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            interval_ms: usual_time(),
            timeout_ms: usual_time(),
            retries: usual_retries(),
            start_period_ms: 0,
            on_failure: OnFailure::None,
        }
    }

    /// Reads the annotation's text.
    ///
    /// # Errors
    /// It is not one, or what it says makes no sense.
    pub fn parse(text: &str) -> Result<Self> {
        let check: Self = serde_json::from_str(text).context(|| format!("{HEALTH_CHECK}: not a health check"))?;
        check.check()?;
        Ok(check)
    }

    /// # Errors
    /// There is no command, or a number is out of its range.
    pub fn check(&self) -> Result<()> {
        if self.command.first().is_none_or(String::is_empty) {
            return Err(Error::new("health check: no command"));
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return Err(Error::new("health check: the command has a NUL byte"));
        }
        if self.retries == 0 {
            return Err(Error::new("health check: 0 retries: at least one failure makes an app unhealthy"));
        }
        let time = |name: &str, ms: u64, least: Duration| match Duration::from_millis(ms) {
            time if time < least => Err(Error::new(format!("health check: {name} is below {} ms", least.as_millis()))),
            time if time > MAX_TIME => Err(Error::new(format!("health check: {name} is above a week"))),
            _ => Ok(()),
        };
        time("interval", self.interval_ms, MIN_INTERVAL)?;
        time("timeout", self.timeout_ms, MIN_INTERVAL)?;
        time("start period", self.start_period_ms, Duration::ZERO)
    }
}

/// What an app waits for of another one of its pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// That it has started.
    #[default]
    Started,
    /// That its health check says that it is well.
    Healthy,
    /// That it has ended with 0.
    Exited,
}

impl Condition {
    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Healthy => "healthy",
            Self::Exited => "exited",
        }
    }
}

/// An app that another one waits for: `APP`, `APP:started`, `APP:healthy`, `APP:exited`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct After {
    /// The app that is waited for.
    pub app: AcName,
    /// Until when.
    #[serde(default)]
    pub until: Condition,
}

impl std::str::FromStr for After {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (app, word) = text.split_once(':').unwrap_or((text, "started"));
        let known = [Condition::Started, Condition::Healthy, Condition::Exited];
        let until = known.into_iter().find(|condition| condition.word() == word);
        let until = until.context(|| format!("{text:?}: write APP, APP:started, APP:healthy or APP:exited"))?;
        Ok(Self { app: app.parse().context(|| format!("{text:?}"))?, until })
    }
}

impl std::fmt::Display for After {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.app, self.until.word())
    }
}

impl After {
    /// Reads the annotation's text.
    ///
    /// # Errors
    /// A word of it is not one.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        text.split_whitespace().map(str::parse).collect::<Result<_>>().context(|| AFTER)
    }
}

/// The apps in an order in which each comes after those it waits for, as far as these are among them; else as they are.
///
/// # Errors
/// Some wait for each other.
pub fn in_order(apps: &[(AcName, Vec<After>)]) -> Result<Vec<AcName>> {
    let mut ordered: Vec<AcName> = Vec::new();
    while ordered.len() < apps.len() {
        let is_open = |name: &AcName| !ordered.contains(name) && apps.iter().any(|(app, _)| app == name);
        let next = apps.iter().find(|(app, after)| is_open(app) && !after.iter().any(|other| is_open(&other.app)));
        match next {
            Some((app, _)) => ordered.push(app.clone()),
            None => {
                let left: Vec<_> =
                    apps.iter().map(|(app, _)| app).filter(|app| is_open(app)).map(AcName::as_ref).collect();
                return Err(Error::new(format!("the apps {} wait for each other", left.join(", "))));
            }
        }
    }
    Ok(ordered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_are_read_and_checked() {
        let check = HealthCheck::parse(r#"{"command":["/x","y"]}"#).unwrap();
        assert_eq!(check, HealthCheck::new(vec!["/x".into(), "y".into()]));
        let check = HealthCheck::parse(r#"{"command":["/x"],"interval_ms":500,"on_failure":"restart"}"#).unwrap();
        assert_eq!((check.interval_ms, check.on_failure), (500, OnFailure::Restart));
        for bad in [
            "",
            "{}",
            r#"{"command":[]}"#,
            r#"{"command":[""]}"#,
            r#"{"command":["a\u0000"]}"#,
            r#"{"command":["a"],"retries":0}"#,
            r#"{"command":["a"],"interval_ms":1}"#,
            r#"{"command":["a"],"timeout_ms":18446744073709551615}"#,
            r#"{"command":["a"],"on_failure":"explode"}"#,
        ] {
            assert!(HealthCheck::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn who_waits_comes_later() {
        let app = |name: &str, after: &str| (name.parse().unwrap(), After::parse_all(after).unwrap());
        let order = |apps: &[(AcName, Vec<After>)]| {
            in_order(apps).map(|names| names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(
            order(&[app("web", "db:healthy init:exited"), app("db", ""), app("init", "db")]).unwrap(),
            "db init web"
        );
        assert_eq!(order(&[app("a", "gone"), app("b", "")]).unwrap(), "a b");
        let error = order(&[app("a", "b"), app("b", "a"), app("c", "")]).unwrap_err().one_line();
        assert!(error.contains("a, b"), "{error}");
        assert!(order(&[app("a", "a")]).is_err());
        assert!(After::parse_all("db:ready").unwrap_err().one_line().contains("APP:healthy"));
        assert_eq!("db".parse::<After>().unwrap().to_string(), "db:started");
    }
}

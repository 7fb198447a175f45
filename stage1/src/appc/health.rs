//! Health checks of an app, and the apps that it waits for at its start: annotations of an app in the pod manifest,
//! written by host managers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::AcName;
use crate::error::{Context, Error, Result};

/// Annotation of an app: a [`HealthCheck`] as JSON.
pub const HEALTH_CHECK: &str = "podctl.io/health-check";
/// Annotation of an app: the apps that it waits for, each an [`After`], separated by blanks.
pub const AFTER: &str = "podctl.io/after";

/// Minimum of interval and timeout.
const MIN_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum of all times of a check.
const MAX_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A health check: a command that is run in an app, or a request to it, to find out whether it is healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The command and its arguments; empty if there is a request. The check succeeds if it exits with 0.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub command: Vec<String>,
    /// The request to make in place of a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Request>,
    /// Time between the end of a check and the next one, in milliseconds.
    #[serde(default = "default_time")]
    pub interval_ms: u64,
    /// Time in milliseconds after which a check has failed.
    #[serde(default = "default_time")]
    pub timeout_ms: u64,
    /// Number of failures in a row after which the app is unhealthy.
    #[serde(default = "default_retries")]
    pub retries: u32,
    /// Time after the app's start, in milliseconds, during which failures do not count until a check has succeeded.
    #[serde(default)]
    pub start_period_ms: u64,
    /// What happens when the app becomes unhealthy.
    #[serde(default)]
    pub on_failure: OnFailure,
}

fn default_time() -> u64 {
    30_000
}

fn default_retries() -> u32 {
    3
}

/// A request of a health check, made in the pod's network but outside of its apps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `localhost` or an IP address.
    pub host: String,
    /// The TCP port, not 0.
    pub port: u16,
    /// The path and query of an HTTP GET; if `None`, the port must only take a connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_path: Option<String>,
    /// Further headers of the GET: names and values.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The addresses of the host, in the order in which to try them.
    ///
    /// # Errors
    /// The host is neither `localhost` nor an IP address.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        match self.host.as_str() {
            "localhost" => Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]),
            text => match text.parse() {
                Ok(address) => Ok(vec![address]),
                Err(_) => Err(Error::new(format!("host {text:?}: expected localhost or an IP address"))),
            },
        }
    }

    fn check(&self) -> Result<()> {
        self.addresses()?;
        if self.port == 0 {
            return Err(Error::new("port 0 takes no connection"));
        }
        let is_plain = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(path) = self.http_path.as_ref().filter(|path| !path.starts_with('/') || !is_plain(path)) {
            return Err(Error::new(format!("path {path:?}: expected / and printable ASCII without blanks")));
        }
        let is_name = |name: &str| !name.is_empty() && is_plain(name) && !name.contains(':');
        let is_value = |value: &str| !value.chars().any(char::is_control);
        match self.headers.iter().find(|(name, value)| !is_name(name) || !is_value(value)) {
            Some((name, _)) => Err(Error::new(format!("header {name:?} is not valid"))),
            None => Ok(()),
        }
    }
}

/// What happens when an app becomes unhealthy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// Nothing: its status says that it is unhealthy.
    #[default]
    None,
    /// The app is restarted.
    Restart,
    /// The app is stopped.
    Stop,
}

impl HealthCheck {
    /// A check by this command with the default settings: an interval and a timeout of 30 s, 3 retries.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            request: None,
            interval_ms: default_time(),
            timeout_ms: default_time(),
            retries: default_retries(),
            start_period_ms: 0,
            on_failure: OnFailure::None,
        }
    }

    /// Parses the value of the annotation [`HEALTH_CHECK`].
    ///
    /// # Errors
    /// `text` is not JSON of a health check, or as [`Self::check`].
    pub fn parse(text: &str) -> Result<Self> {
        let check: Self = serde_json::from_str(text).context(|| format!("{HEALTH_CHECK}: not a health check"))?;
        check.check()?;
        Ok(check)
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// There is neither a command nor a request, or both; one of them is not valid, or a number is out of its range.
    pub fn check(&self) -> Result<()> {
        match (&self.request, self.command.first().is_none_or(String::is_empty)) {
            (Some(request), true) if self.command.is_empty() => request.check().context(|| "health check")?,
            (None, false) => {}
            (None, true) => return Err(Error::new("health check: no command")),
            (Some(_), _) => return Err(Error::new("health check: it has both a command and a request")),
        }
        if self.command.iter().any(|word| word.contains('\0')) {
            return Err(Error::new("health check: the command has a NUL byte"));
        }
        if self.retries == 0 {
            return Err(Error::new("health check: retries is 0, and must be at least 1"));
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

/// The state of another app of the pod that an app waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Condition {
    /// It has started.
    #[default]
    Started,
    /// Its health check has succeeded.
    Healthy,
    /// It has exited with 0.
    Exited,
}

impl Condition {
    /// Its name in annotations and options.
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
    /// Name of the app to wait for.
    pub app: AcName,
    /// The state to wait for.
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
    /// Parses the value of the annotation [`AFTER`].
    ///
    /// # Errors
    /// A word of it has another form.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        text.split_whitespace().map(str::parse).collect::<Result<_>>().context(|| AFTER)
    }
}

/// Sorts apps so that each comes after those of them that it waits for, and otherwise keeps their order.
///
/// # Errors
/// Apps wait for each other.
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
        let text = r#"{"request":{"host":"::1","port":80,"http_path":"/ok","headers":[["A","b c"]]}}"#;
        let request = HealthCheck::parse(text).unwrap().request.unwrap();
        assert_eq!((request.addresses().unwrap().len(), request.port), (1, 80));
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
            r#"{"command":["a"],"request":{"host":"localhost","port":80}}"#,
            r#"{"command":[""],"request":{"host":"localhost","port":80}}"#,
            r#"{"request":{"host":"localhost","port":0}}"#,
            r#"{"request":{"host":"localhost","port":65536}}"#,
            r#"{"request":{"host":"shop.example","port":80}}"#,
            r#"{"request":{"host":"localhost","port":80,"http_path":"ok"}}"#,
            r#"{"request":{"host":"localhost","port":80,"http_path":"/a b"}}"#,
            r#"{"request":{"host":"localhost","port":80,"http_path":"/","headers":[["A\r\nB","x"]]}}"#,
            r#"{"request":{"host":"localhost","port":80,"http_path":"/","headers":[["A","x\r\nB: y"]]}}"#,
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

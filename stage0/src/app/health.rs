//! The health check of an app: the one of its image, changed by options.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use stage1::appc::{HEALTH_CHECK, HealthCheck, NameValue, OnFailure, RuntimeApp};
use stage1::error::{Context, Result};

use crate::image::store as images;
use crate::image::store::Image;
use crate::store::Store;

/// Options of a health check. An unset one has the image's value, or else the default.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(default)]
pub struct HealthOptions {
    /// The command, run in the app. An empty one disables the health check, also the image's.
    pub command: Option<Vec<String>>,
    /// The time between two checks, in milliseconds.
    pub interval_ms: Option<u64>,
    /// How long a check may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// How many failures in a row make the app unhealthy.
    pub retries: Option<u32>,
    /// How long after the app's start failures do not count, in milliseconds.
    pub start_period_ms: Option<u64>,
    /// What to do with an unhealthy app.
    pub on_failure: Option<OnFailure>,
}

impl HealthOptions {
    /// These options, each replaced by that of `changes` if it is set there.
    #[must_use]
    pub fn changed_by(self, changes: Self) -> Self {
        Self {
            command: changes.command.or(self.command),
            interval_ms: changes.interval_ms.or(self.interval_ms),
            timeout_ms: changes.timeout_ms.or(self.timeout_ms),
            retries: changes.retries.or(self.retries),
            start_period_ms: changes.start_period_ms.or(self.start_period_ms),
            on_failure: changes.on_failure.or(self.on_failure),
        }
    }

    /// The image's check with these options applied; `None` if there is no check.
    ///
    /// # Errors
    /// The resulting check is invalid, or options are set but neither they nor the image have a command.
    pub fn over(&self, image: Option<HealthCheck>) -> Result<Option<HealthCheck>> {
        let base = match &self.command {
            Some(command) if command.is_empty() => return Ok(None),
            Some(command) => {
                let new = || HealthCheck::new(command.clone());
                HealthCheck { command: command.clone(), request: None, ..image.unwrap_or_else(new) }
            }
            None if image.is_none() && *self == Self::default() => return Ok(None),
            None => image.context(|| "the image has no health check: give one by --health-cmd")?,
        };
        let check = HealthCheck {
            interval_ms: self.interval_ms.unwrap_or(base.interval_ms),
            timeout_ms: self.timeout_ms.unwrap_or(base.timeout_ms),
            retries: self.retries.unwrap_or(base.retries),
            start_period_ms: self.start_period_ms.unwrap_or(base.start_period_ms),
            on_failure: self.on_failure.unwrap_or(base.on_failure),
            command: base.command,
            request: base.request,
        };
        check.check()?;
        Ok(Some(check))
    }
}

/// Adds the health check that results from the image and the options to the app, as an annotation.
///
/// # Errors
/// The image's configuration can't be read, or [`HealthOptions::over`] fails.
pub fn give(store: &Store, image: &Image, options: &HealthOptions, app: &mut RuntimeApp) -> Result<()> {
    let of_image = images::config(store, &image.id)?.and_then(|config| of_config(&config["config"]["Healthcheck"]));
    if let Some(check) = options.over(of_image)? {
        let text = serde_json::to_string(&check).context(|| "write the health check")?;
        app.annotations.push(NameValue::new(HEALTH_CHECK, text));
    }
    Ok(())
}

/// Reads `Healthcheck` of an image's configuration (a Docker extension of the OCI image-spec), whose times are in
/// nanoseconds. Logs a warning and returns `None` if it is not valid.
fn of_config(value: &Value) -> Option<HealthCheck> {
    let words: Vec<String> =
        value["Test"].as_array()?.iter().filter_map(|word| Some(word.as_str()?.to_owned())).collect();
    let command = match words.split_first()? {
        (kind, rest) if kind == "CMD" && !rest.is_empty() => rest.to_vec(),
        (kind, [line]) if kind == "CMD-SHELL" => shell(line),
        (kind, _) if kind == "NONE" => return None,
        _ => {
            log::warn!("the image's health check is not understood and left out: {}", value["Test"]);
            return None;
        }
    };
    let usual = HealthCheck::new(command);
    let ms =
        |name: &str, usual: u64| value[name].as_u64().map(|ns| ns / 1_000_000).filter(|ms| *ms > 0).unwrap_or(usual);
    let check = HealthCheck {
        interval_ms: ms("Interval", usual.interval_ms),
        timeout_ms: ms("Timeout", usual.timeout_ms),
        start_period_ms: ms("StartPeriod", 0),
        retries: value["Retries"]
            .as_u64()
            .and_then(|n| u32::try_from(n).ok())
            .filter(|n| *n > 0)
            .unwrap_or(usual.retries),
        ..usual
    };
    match check.check() {
        Ok(()) => Some(check),
        Err(error) => {
            log::warn!("the image's health check is left out: {}", error.one_line());
            None
        }
    }
}

/// The command that runs a line in the shell of the app's root: `/bin/sh -c LINE`.
pub fn shell(line: &str) -> Vec<String> {
    ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_images_check_is_read() {
        let check =
            of_config(&json!({"Test": ["CMD", "/x", "y"], "Interval": 5_000_000_000u64, "Retries": 0})).unwrap();
        assert_eq!((check.command.join(" ").as_str(), check.interval_ms, check.retries), ("/x y", 5000, 3));
        let check =
            of_config(&json!({"Test": ["CMD-SHELL", "curl -f x || exit 1"], "StartPeriod": 1_500_000_000})).unwrap();
        assert_eq!((check.command.len(), check.start_period_ms), (3, 1500));
        for none in
            [json!(null), json!({}), json!({"Test": []}), json!({"Test": ["NONE"]}), json!({"Test": ["NEW", "x"]})]
        {
            assert_eq!(of_config(&none), None, "{none}");
        }
    }

    #[test]
    fn options_come_before_the_image() {
        let image = || Some(HealthCheck { retries: 7, ..HealthCheck::new(vec!["/image".into()]) });
        let options = HealthOptions { interval_ms: Some(500), ..HealthOptions::default() };
        let check = options.over(image()).unwrap().unwrap();
        assert_eq!((check.command[0].as_str(), check.interval_ms, check.retries), ("/image", 500, 7));
        assert!(options.over(None).unwrap_err().one_line().contains("--health-cmd"));
        let own = HealthOptions { command: Some(vec!["/own".into()]), ..options };
        assert_eq!(own.over(image()).unwrap().unwrap().command, ["/own"]);
        let none = HealthOptions { command: Some(Vec::new()), ..HealthOptions::default() };
        assert_eq!((none.over(image()).unwrap(), HealthOptions::default().over(None).unwrap()), (None, None));
        assert!(HealthOptions { retries: Some(0), ..HealthOptions::default() }.over(image()).is_err());
    }
}

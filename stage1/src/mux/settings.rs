//! The settings of a pod's logs, which are annotations of the pod.

use super::console::Show;
use super::file::Bounds;
use crate::appc::{PodManifest, find, quantity};
use crate::error::{Context, Error, Result};

/// Annotation of a pod: where its apps' logs go.
pub const DRIVER: &str = "podctl.io/log-driver";
/// Annotation of a pod: the size at which an app's next log file begins, as a quantity such as `64M`.
pub const MAX_SIZE: &str = "podctl.io/log-max-size";
/// Annotation of a pod: how many log files of each app are kept.
pub const MAX_FILES: &str = "podctl.io/log-max-files";

/// The defaults.
const USUAL: Bounds = Bounds { size: 64 << 20, files: 5 };
/// The smallest and the largest allowed file size, in bytes.
const SIZES: (u64, u64) = (64 << 10, 1 << 40);
/// The most files.
const MOST_FILES: u64 = 1000;

/// Where the apps' logs go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Driver {
    /// Into files of the pod's directory, and to the output of `run`.
    #[default]
    File,
    /// Into the host's journal, and to the output of `run`.
    Journald,
    /// To the output of `run` only.
    None,
    /// To the output of `run` only, unchanged also if there are several apps.
    Passthrough,
}

impl std::str::FromStr for Driver {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "file" => Ok(Self::File),
            "journald" => Ok(Self::Journald),
            "none" => Ok(Self::None),
            "passthrough" => Ok(Self::Passthrough),
            _ => Err(Error::new(format!("log driver {text:?}: use file, journald, none or passthrough"))),
        }
    }
}

/// Parses the value of [`MAX_SIZE`], in bytes.
///
/// # Errors
/// It is not a size, or it is out of range.
pub fn parse_max_size(text: &str) -> Result<u64> {
    match quantity::whole(text)? {
        size if (SIZES.0..=SIZES.1).contains(&size) => Ok(size),
        size => Err(Error::new(format!("log file size of {size} bytes: use from {} to {}", SIZES.0, SIZES.1))),
    }
}

/// Parses the value of [`MAX_FILES`].
///
/// # Errors
/// It is not a number from 1 to 1000.
pub fn parse_max_files(text: &str) -> Result<u64> {
    let number = text.parse().ok().filter(|number| (1..=MOST_FILES).contains(number));
    number.context(|| format!("number of log files {text:?}: use from 1 to {MOST_FILES}"))
}

/// The settings of a pod's logs.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub(super) driver: Driver,
    pub(super) bounds: Bounds,
    /// How the apps' output is shown.
    pub show: Show,
}

impl Settings {
    /// Reads the annotations of a pod; `alone` says that it has one app and never gets another.
    ///
    /// # Errors
    /// An annotation has an invalid value.
    pub fn of(pod: &PodManifest, alone: bool) -> Result<Self> {
        let get = |name| find(&pod.annotations, name);
        let what = |name: &str, text: &str| format!("pod annotation {name}={text:?}");
        let mut settings =
            Self { driver: Driver::File, bounds: USUAL, show: if alone { Show::Raw } else { Show::Named } };
        if let Some(text) = get(DRIVER) {
            settings.driver = text.parse().context(|| what(DRIVER, text))?;
        }
        if let Some(text) = get(MAX_SIZE) {
            settings.bounds.size = parse_max_size(text).context(|| what(MAX_SIZE, text))?;
        }
        if let Some(text) = get(MAX_FILES) {
            settings.bounds.files = parse_max_files(text).context(|| what(MAX_FILES, text))?;
        }
        if settings.driver == Driver::Passthrough {
            settings.show = Show::Raw;
        }
        Ok(settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers() {
        assert_eq!(parse_max_size("64Ki").unwrap(), 64 << 10);
        assert_eq!(parse_max_size("64M").unwrap(), 64_000_000);
        for bad in ["", "0", "63Ki", "2Ti", "-1", "x"] {
            assert!(parse_max_size(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_max_files("1").unwrap(), 1);
        for bad in ["", "0", "1001", "-1", "x"] {
            assert!(parse_max_files(bad).is_err(), "{bad:?}");
        }
        assert!("syslog".parse::<Driver>().is_err());
    }
}

//! Where the logs of a pod's apps go, as annotations of the pod say.

use super::console::Show;
use super::file::Bounds;
use crate::appc::{PodManifest, find, quantity};
use crate::error::{Context, Error, Result};

/// Annotation of a pod: where its apps' logs go.
pub const DRIVER: &str = "podctl.io/log-driver";
/// Annotation of a pod: at which size a log file of an app is followed by the next one, as a quantity such as `64M`.
pub const MAX_SIZE: &str = "podctl.io/log-max-size";
/// Annotation of a pod: how many log files of each app are kept.
pub const MAX_FILES: &str = "podctl.io/log-max-files";

/// The usual size of a log file, and how many there are.
const USUAL: Bounds = Bounds { size: 64 << 20, files: 5 };
/// The smallest file, and the largest.
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
    /// To the output of `run` only, as it is also where there are several apps.
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

/// The size that a text says, in bytes; see [`MAX_SIZE`].
///
/// # Errors
/// It is not a size, or too small or too large.
pub fn parse_max_size(text: &str) -> Result<u64> {
    match quantity::whole(text)? {
        size if (SIZES.0..=SIZES.1).contains(&size) => Ok(size),
        size => Err(Error::new(format!("a log file of {size} bytes: it may have from {} to {}", SIZES.0, SIZES.1))),
    }
}

/// The number that a text says; see [`MAX_FILES`].
///
/// # Errors
/// It is not a number from 1 to 1000.
pub fn parse_max_files(text: &str) -> Result<u64> {
    let number = text.parse().ok().filter(|number| (1..=MOST_FILES).contains(number));
    number.context(|| format!("{text:?} log files: it may be from 1 to {MOST_FILES}"))
}

/// All of it.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub(super) driver: Driver,
    pub(super) bounds: Bounds,
    /// How the apps' output is shown.
    pub show: Show,
}

impl Settings {
    /// As the annotations of a pod say, which has one app only if it is not mutable and `alone`.
    ///
    /// # Errors
    /// An annotation makes no sense.
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

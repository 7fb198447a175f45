//! Records of an app that only the host reads: the options it was added with, and whether the user wants it to run.
//!
//! They are in the pod's directory, beside the app's image manifest, out of the pod's reach. An app added by an older
//! version has neither.

use std::path::{Path, PathBuf};

use stage1::appc::AcName;
use stage1::error::{Context, Error, Result};
use stage1::layout;
use stage1::pod::remove_if_there;

use super::options::AddOptions;
use crate::fsutil::atomic::write;
use crate::image::store::Image;

/// The file with the options, as JSON.
const OPTIONS: &str = "options";
/// This file exists from `app start` until `app stop`: the app runs, or runs again when its pod does. `app stop`
/// removes a file rather than making one, because it must work on a full disk.
const WANTED: &str = "wanted";

/// The record of one app of one pod.
#[derive(Debug)]
pub struct AppRecord(PathBuf);

impl AppRecord {
    /// The record of `app` in the pod directory `pod`.
    pub fn new(pod: &Path, app: &AcName) -> Self {
        Self(pod.join(layout::app_info(app)))
    }

    /// Writes the options that the app was added with, and the id of its image.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep_of(&self, image: &Image, options: &AddOptions) -> Result<()> {
        self.keep(&AddOptions { image_id: Some(image.id.to_string()), ..options.clone() })
    }

    /// Writes the options.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn keep(&self, options: &AddOptions) -> Result<()> {
        write(&self.0.join(OPTIONS), &serde_json::to_vec(options).context(|| "write the app's options")?, 0o640)
    }

    /// Whether there is a record: podctl added the app.
    pub fn exists(&self) -> bool {
        self.0.join(OPTIONS).exists()
    }

    /// The recorded options; `None` for an app that an older version or another host manager added.
    ///
    /// # Errors
    /// The file can't be read, or is not valid JSON.
    pub fn options(&self) -> Result<Option<AddOptions>> {
        let path = self.0.join(OPTIONS);
        match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).context(|| format!("{path:?}")).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::caused_by(format!("read {path:?}"), error)),
        }
    }

    /// Records whether the user wants the app to run.
    ///
    /// # Errors
    /// The file can't be made or removed.
    pub fn set_wanted(&self, wanted: bool) -> Result<()> {
        let note = self.0.join(WANTED);
        match wanted {
            true => std::fs::write(&note, b"").context(|| format!("write {note:?}")),
            false => remove_if_there(&note),
        }
    }

    /// Whether the user wants the app to run.
    pub fn is_wanted(&self) -> bool {
        self.0.join(WANTED).exists()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn options_are_read_as_written_and_older_apps_have_none() {
        let base = tempfile::tempdir().unwrap();
        let record = AppRecord::new(base.path(), &"web".parse().unwrap());
        assert!(record.options().unwrap().is_none() && !record.is_wanted());
        std::fs::create_dir_all(base.path().join("appsinfo/web")).unwrap();
        let options = AddOptions {
            image: "nginx".into(),
            restart: Some("always".into()),
            stop_timeout: Some(Duration::from_secs(3)),
            streams: [None, Some("stream".into()), None],
            ..AddOptions::default()
        };
        record.keep(&options).unwrap();
        assert_eq!(record.options().unwrap().unwrap(), options);
        record.set_wanted(true).unwrap();
        record.set_wanted(true).unwrap();
        assert!(record.is_wanted());
        record.set_wanted(false).unwrap();
        record.set_wanted(false).unwrap();
        assert!(!record.is_wanted());
        std::fs::write(base.path().join("appsinfo/web/options"), r#"{"image":"x","later":1}"#).unwrap();
        assert_eq!(record.options().unwrap().unwrap().image, "x");
    }
}

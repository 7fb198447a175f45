//! A path of the host or of an app on the command line: `PATH`, `POD:PATH` or `POD/APP:PATH`

use std::path::{Path, PathBuf};

use stage1::appc::AcName;
use stage1::error::{Error, Result};

use super::one_app::app_name;
use crate::cli::session::Session;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::manifest::{must_have, only_one};

/// A path of the host or of an app.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppPath {
    /// A path of the host; `-` is standard input or output.
    Host(PathBuf),
    /// A path of an app.
    App {
        /// The pod, as the user typed it.
        pod: String,
        /// The app, if the user named one.
        app: Option<String>,
        /// The path, absolute in the app's root.
        path: PathBuf,
    },
}

impl AppPath {
    /// Parses a word. A word that begins with `/` or `.` is always a path of the host.
    ///
    /// # Errors
    /// An app's path is missing or is not absolute.
    pub fn parse(text: &str) -> Result<Self> {
        let Some((whose, path)) = text.split_once(':').filter(|_| !text.starts_with(['/', '.'])) else {
            return Ok(Self::Host(text.into()));
        };
        if !path.starts_with('/') {
            return Err(Error::new(format!("{text:?}: the path of an app begins with /, as in POD/APP:/etc/hosts")));
        }
        let (pod, app) = whose.split_once('/').map_or((whose, None), |(pod, app)| (pod, Some(app.to_owned())));
        Ok(Self::App { pod: pod.to_owned(), app, path: path.into() })
    }
}

/// The pod and its app; the pod's only app if `app` is `None`.
///
/// # Errors
/// The pod or the app does not exist, or `app` is `None` and the pod has several apps.
pub fn find(session: &Session, pod: &str, app: Option<&str>) -> Result<(Pod, AcName)> {
    let pod = pods::find(&session.store, pod)?;
    let app = app.map_or_else(|| only_one(&pod), app_name)?;
    must_have(&pod, &app)?;
    Ok((pod, app))
}

/// Whether a path of the host means standard input or output.
pub fn is_stream(path: &Path) -> bool {
    path.as_os_str() == "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_apps_are_told_from_the_hosts() {
        let app = |pod: &str, app: Option<&str>, path: &str| AppPath::App {
            pod: pod.into(),
            app: app.map(Into::into),
            path: path.into(),
        };
        for (text, expected) in [
            ("web:/etc", app("web", None, "/etc")),
            ("web/db:/a:b", app("web", Some("db"), "/a:b")),
            ("/etc/a:b", AppPath::Host("/etc/a:b".into())),
            ("./web:/etc", AppPath::Host("./web:/etc".into())),
            ("-", AppPath::Host("-".into())),
            ("file", AppPath::Host("file".into())),
        ] {
            assert_eq!(AppPath::parse(text).unwrap(), expected, "{text}");
        }
        assert!(AppPath::parse("web:etc").is_err() && AppPath::parse("web:").is_err());
    }
}

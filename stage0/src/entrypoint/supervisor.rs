//! Asking a pod's systemd: systemctl(1), run in the pod by the `enter` entrypoint.

use std::ffi::OsString;
use std::time::Duration;

use stage1::appc::AcName;
use stage1::error::Result;
use stage1::layout;

use super::spawn::{Entrypoint, Stage1};
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, running_pid};
use crate::store::Store;

/// The program, in the stage1 image.
const SYSTEMCTL: &str = "/usr/bin/systemctl";
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// Whether the systemd of a running pod, which must not be paused, shuts down, or has ended.
///
/// # Errors
/// The pod does not run, or its stage1 can't be used.
pub fn is_ending(store: &Store, pod: &Pod) -> Result<bool> {
    Ok(!pods::has_process(pod)?
        || says(store, pod, &["is-system-running"], "stopping")?
        // it may have ended before it could answer
        || !pods::has_process(pod)?)
}

/// Whether the pod's systemd is stopping an app. The pod must not be paused.
///
/// # Errors
/// The pod does not run, or its stage1 can't be used.
pub fn is_stopping(store: &Store, pod: &Pod, app: &AcName) -> Result<bool> {
    says(store, pod, &["is-active", &layout::app_unit(app)], "deactivating")
}

/// Whether a line of systemctl's answer is `word`; `false` if there is no answer: another stage1 may lack systemctl.
fn says(store: &Store, pod: &Pod, words: &[&str], word: &str) -> Result<bool> {
    let pid = format!("--pid={}", running_pid(pod)?);
    let args = [pid.as_str(), "--", SYSTEMCTL].iter().chain(words).map(OsString::from).collect::<Vec<_>>();
    match Stage1::of(store, pod.dir())?.ask(Entrypoint::Enter, &args, ANSWER) {
        Ok(answer) => Ok(answer.lines().any(|line| line.trim() == word)),
        Err(error) => {
            log::debug!("pod {}: systemctl {}: {}", pod.short(), words.join(" "), error.one_line());
            Ok(false)
        }
    }
}

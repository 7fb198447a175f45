//! `podctl pause` and `podctl unpause`

use stage1::error::{Context, Result};

use super::args::one_app::{OneApp, doing};
use super::session::Session;
use crate::poddir::pause;

/// Freezes a pod, or one of its apps.
pub fn pause(one: &OneApp, session: &Session) -> Result<()> {
    let (pod, app) = one.find_named(session)?;
    let what = || app.as_ref().map_or_else(|| format!("pause pod {}", pod.short()), |app| doing("pause", app));
    pause::pause(&pod, app.as_ref()).context(what)
}

/// Lets a paused pod, or one of its apps, go on.
pub fn unpause(one: &OneApp, session: &Session) -> Result<()> {
    let (pod, app) = one.find_named(session)?;
    let what = || app.as_ref().map_or_else(|| format!("unpause pod {}", pod.short()), |app| doing("unpause", app));
    pause::unpause(&pod, app.as_ref()).context(what)
}

//! `podctl pause` and `podctl unpause`

use stage1::appc::AcName;
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::events::Event;

use super::args::one_app::{OneApp, doing};
use super::session::Session;
use crate::poddir::find::Pod;
use crate::poddir::pause;

/// Freezes a pod, or one of its apps.
pub fn pause(one: &OneApp, session: &Session) -> Result<()> {
    let (pod, app) = one.find_named(session)?;
    let what = || app.as_ref().map_or_else(|| format!("pause pod {}", pod.short()), |app| doing("pause", app));
    let was = pause::is_paused(&pod, app.as_ref()).context(what)?;
    pause::pause(&pod, app.as_ref()).context(what)?;
    note("paused", !was, &pod, app.as_ref());
    Ok(())
}

/// Lets a paused pod, or one of its apps, go on.
pub fn unpause(one: &OneApp, session: &Session) -> Result<()> {
    let (pod, app) = one.find_named(session)?;
    let what = || app.as_ref().map_or_else(|| format!("unpause pod {}", pod.short()), |app| doing("unpause", app));
    let was = pause::is_paused(&pod, app.as_ref()).context(what)?;
    pause::unpause(&pod, app.as_ref()).context(what)?;
    note("unpaused", was, &pod, app.as_ref());
    Ok(())
}

/// Records the event, of the app or of the whole pod, if there was a change.
fn note(event: &str, changed: bool, pod: &Pod, app: Option<&AcName>) {
    if changed {
        let event = app.map_or_else(|| format!("pod-{event}"), |_| event.to_owned());
        Event::now(&event, app).note(pod.dir(), layout::EVENTS);
    }
}

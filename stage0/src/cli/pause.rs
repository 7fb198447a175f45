//! `podctl pause` and `podctl unpause`

use stage1::appc::AcName;
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::events::Event;

use super::args::one_app::{OneApp, doing};
use super::session::Session;
use crate::app::snapshot;
use crate::poddir::find::Pod;
use crate::poddir::pause;

/// Freezes a pod, or one of its apps.
pub fn pause(one: &OneApp, session: &Session) -> Result<()> {
    let (was, pod, app) = change(one, session, "pause", pause::pause)?;
    note("paused", !was, &pod, app.as_ref());
    Ok(())
}

/// Lets a paused pod, or one of its apps, go on.
pub fn unpause(one: &OneApp, session: &Session) -> Result<()> {
    let (was, pod, app) = change(one, session, "unpause", pause::unpause)?;
    note("unpaused", was, &pod, app.as_ref());
    Ok(())
}

/// Does `work`; returns whether the pod or the app was paused before. Waits for a snapshot of the app that is being made.
fn change(
    one: &OneApp,
    session: &Session,
    verb: &str,
    work: fn(&Pod, Option<&AcName>) -> Result<()>,
) -> Result<(bool, Pod, Option<AcName>)> {
    let (pod, app) = one.find_named(session)?;
    let now = || {
        let was = pause::is_paused(&pod, app.as_ref())?;
        work(&pod, app.as_ref()).map(|()| was)
    };
    let was = match &app {
        Some(app) => snapshot::while_none(&pod, app, now).context(|| doing(verb, app)),
        None => now().context(|| format!("{verb} pod {}", pod.short())),
    }?;
    Ok((was, pod, app))
}

/// Records the event, of the app or of the whole pod, if there was a change.
fn note(event: &str, changed: bool, pod: &Pod, app: Option<&AcName>) {
    if changed {
        let event = app.map_or_else(|| format!("pod-{event}"), |_| event.to_owned());
        Event::now(&event, app).note(pod.dir(), layout::EVENTS);
    }
}

//! When an app that its restart policy has started again last began and ended: from the pod's own record of events, as
//! the host's marker of the start has the time of the start by hand.

use std::io::Read;
use std::path::PathBuf;

use stage1::appc::AcName;
use stage1::error::{Context, Result};
use stage1::layout;
use stage1::pod::events::{self, Event, MAX_EVENTS, put_aside};
use stage1::pod::open_regular_beneath;
use stage1::sys::dir;

use crate::poddir::find::Pod;

/// Times in nanoseconds since 1970; `None` if the record does not have them any more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// When the app was last started, by its policy too.
    pub(super) started: Option<i64>,
    /// When it last ended.
    pub(super) ended: Option<i64>,
}

/// The past of an app. A record that can't be read counts as empty: the pod may have replaced it.
pub(super) fn of_app(pod: &Pod, app: &AcName) -> Past {
    read(pod, app).unwrap_or_else(|error| {
        log::debug!("pod {}: events: {}", pod.short(), error.one_line());
        Past::default()
    })
}

fn read(pod: &Pod, app: &AcName) -> Result<Past> {
    let own = layout::pod_events_dir();
    let mut found = Vec::new();
    for file in [put_aside(layout::EVENTS), layout::EVENTS.to_owned()] {
        let path: PathBuf = own.join(file);
        let Some(file) = open_regular_beneath(dir::open_dir(pod.dir())?, &path)? else { continue };
        let mut text = Vec::new();
        file.take(MAX_EVENTS).read_to_end(&mut text).context(|| format!("read {path:?}"))?;
        found.extend(events::parse::<Event>(&text));
    }
    Ok(last(&found, app))
}

fn last(events: &[Event], app: &AcName) -> Past {
    let last = |kind: &str| {
        let of_app = |event: &&Event| event.event == kind && event.app.as_deref() == Some(app.as_ref());
        events.iter().rfind(of_app).map(|event| event.time)
    };
    Past { started: last("started"), ended: last("exited") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_start_and_end_of_an_app() {
        let event = |time, event: &str, app: &str| Event {
            time,
            event: event.to_owned(),
            app: Some(app.to_owned()),
            ..Event::default()
        };
        let all = [
            event(1, "started", "a"),
            event(2, "exited", "a"),
            event(3, "restarting", "a"),
            event(4, "started", "a"),
            event(5, "started", "b"),
        ];
        let of = |app: &str| last(&all, &app.parse().unwrap());
        assert_eq!(of("a"), Past { started: Some(4), ended: Some(2) });
        assert_eq!(of("b"), Past { started: Some(5), ended: None });
        assert_eq!(of("c"), Past::default());
    }
}

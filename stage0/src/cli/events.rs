//! `podctl events`

use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use serde::Serialize;
use stage1::error::{Context, Result, escape_control};

use super::args::candidates::{a_pod, an_app};
use super::args::time as when;
use super::output::{self, Format};
use super::session::Session;
use crate::pod::events::{self, PodEvent, Seen};

/// How often `--follow` reads the events.
const FOLLOW: Duration = Duration::from_millis(250);

/// Number of printed events that `--follow` remembers. Beyond it, it forgets those that no file has any longer.
const MANY: usize = 1 << 16;

/// Prints the events of pods and apps, also of removed pods: starts and ends, out-of-memory kills, restarts, changes of
/// health, apps that were added and removed. podctl keeps the newest events of each pod.
#[derive(Args, Debug)]
pub struct Events {
    /// Print only this pod's events: its name, its UUID, or the start of that. If several pods had the name, it means
    /// the one that has it, else the last that had it
    #[arg(value_name = "POD", add = a_pod())]
    pod: Option<String>,
    /// Print only these apps' events
    #[arg(value_name = "APP", add = an_app())]
    apps: Vec<String>,
    /// Wait for new events and print them, until interrupted
    #[arg(short, long)]
    follow: bool,
    /// Print only events of this time or later: 2026-11-24T20:30:00Z, "2026-11-24 20:30:00", 10m, today
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    since: Option<Timestamp>,
    /// Print it as; json prints one line for each event
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

/// An event, for programs.
#[derive(Serialize)]
struct Shown<'a> {
    /// The time as in RFC 3339, in UTC.
    time: String,
    pod: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app: Option<&'a str>,
    event: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<&'a str>,
}

impl Events {
    pub fn run(self, session: &Session) -> Result<()> {
        let mut seen = Seen::default();
        let mut printed = BTreeSet::new();
        let mut chosen = BTreeSet::new();
        loop {
            let all = events::all(&session.store, &mut seen)?;
            if let Some(text) = &self.pod {
                // each time anew: the name may go to another pod
                chosen.extend(events::pod_of(&session.store, &all, text)?);
            }
            for event in all.iter().filter(|event| self.wants(event, &chosen)) {
                if printed.insert(events::identity(event)) {
                    self.print(event)?;
                }
            }
            if !self.follow {
                return Ok(());
            }
            // not always: the events of a pod that is being moved are missing for a moment, and would be printed again
            if printed.len() > MANY {
                printed.retain(|known| all.iter().any(|event| events::identity(event) == *known));
            }
            std::thread::sleep(FOLLOW);
        }
    }

    /// Whether to print an event; `chosen` has the UUIDs of the chosen pods, if `POD` was given.
    fn wants(&self, event: &PodEvent, chosen: &BTreeSet<String>) -> bool {
        let is_app = || event.event.app.as_ref().is_some_and(|app| self.apps.contains(app));
        (self.pod.is_none() || chosen.contains(&event.pod))
            && (self.apps.is_empty() || is_app())
            && self.since.is_none_or(|since| i128::from(event.event.time) >= since.as_nanosecond())
    }

    fn print(&self, event: &PodEvent) -> Result<()> {
        let time = Timestamp::from_nanosecond(event.event.time.into()).context(|| "the time of an event")?;
        match self.format {
            Format::Json => {
                let shown = shown(event, time);
                output::say(serde_json::to_string(&shown).context(|| "write as JSON")?)
            }
            Format::Text => output::say(line(event, &output::time(Some(event.event.time)))),
        }
    }
}

fn shown(event: &PodEvent, time: Timestamp) -> Shown<'_> {
    let PodEvent { pod, pod_name, event } = event;
    Shown {
        time: format!("{time:.9}"),
        pod,
        pod_name: pod_name.as_deref(),
        app: event.app.as_deref(),
        event: &event.event,
        exit_code: event.exit_code,
        signal: event.signal.as_deref(),
        why: event.why.as_deref(),
    }
}

fn line(event: &PodEvent, time: &str) -> String {
    let PodEvent { pod, pod_name, event } = event;
    let pod = pod_name.clone().unwrap_or_else(|| pod.chars().filter(|c| *c != '-').take(12).collect());
    let who = event.app.as_ref().map_or(pod.clone(), |app| format!("{pod}/{app}"));
    // the exit status of a successful check says nothing
    let code = event.exit_code.filter(|_| event.event != "healthy").map(|code| format!("exit {code}"));
    let details: Vec<String> = [event.signal.clone().or(code), event.why.clone()].into_iter().flatten().collect();
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(": ")) };
    escape_control(&format!("{time}  {who}  {}{details}", event.event)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use stage1::pod::events::Event;

    #[test]
    fn lines_read_well() {
        let event = Event {
            exit_code: Some(137),
            signal: Some("SIGKILL".into()),
            app: Some("db".into()),
            event: "exited".into(),
            ..Event::default()
        };
        let of = |event: Event| PodEvent { pod: "01234567-89ab-cdef-0123-456789abcdef".into(), pod_name: None, event };
        let line = |event| line(&event, "1970-01-01 00:00:00");
        assert_eq!(line(of(event.clone())), "1970-01-01 00:00:00  0123456789ab/db  exited (SIGKILL)");
        let named =
            PodEvent { pod_name: Some("shop".into()), ..of(Event { app: None, signal: None, ..event.clone() }) };
        assert_eq!(line(named), "1970-01-01 00:00:00  shop  exited (exit 137)");
        let ill = Event { event: "unhealthy".into(), why: Some("no\nanswer".into()), exit_code: Some(1), ..event };
        assert!(line(of(Event { signal: None, ..ill })).ends_with("unhealthy (exit 1: no\\nanswer)"));
    }
}

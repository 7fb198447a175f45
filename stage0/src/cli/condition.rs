//! An app's state in words for lists, with crash loops, out-of-memory kills and failed health checks.

use stage1::pod::is_of_oom;

use super::screen::Tone;
use super::table::Cell;
use crate::app::oom::processes_of;
use crate::app::status::{AppStatus, HealthStatus};
use crate::fsutil::time::ago;

/// The state of an app as a cell of a table.
pub fn of(app: &AppStatus) -> Cell {
    let (text, tone) = words(app, ago);
    Cell::toned(text, tone)
}

/// The state of an app as text, with its tone.
pub fn words_of(app: &AppStatus) -> (String, Option<Tone>) {
    words(app, ago)
}

/// Whether the state needs attention: the app failed, is half removed, unhealthy or restarts again and again.
pub fn is_bad(app: &AppStatus) -> bool {
    words(app, ago).1 == Some(Tone::Bad)
}

fn words(app: &AppStatus, ago: impl Fn(i64) -> String) -> (String, Option<Tone>) {
    if app.half_removed {
        return ("half removed".into(), Some(Tone::Bad));
    }
    let last = app.last_end.as_ref().map(|last| {
        let end = End {
            code: last.exit_code,
            signal: last.exit_signal.as_deref(),
            oom_killed: last.oom_killed,
            unhealthy: last.unhealthy,
            not_started: last.start_failure.is_some(),
        };
        (end.how().unwrap_or_else(|| "exit 0".into()), ago(last.at))
    });
    match (app.state.as_str(), last) {
        ("running", Some((how, when))) if app.restarting => {
            (format!("restarting ({}x, {how}, {when})", app.restarts), Some(Tone::Bad))
        }
        ("running", _) if app.paused => ("paused".into(), Some(Tone::Held)),
        ("running", last) => {
            let restarted = last.map(|(how, when)| format!("restarted {}x, last: {how}, {when}", app.restarts));
            let health = app.health.as_ref().map(health);
            let killed = (app.oom_kills > 0).then(|| format!("{} killed: out of memory", processes_of(app.oom_kills)));
            let is_bad = killed.is_some() || app.health.as_ref().is_some_and(|health| health.status == "unhealthy");
            let more: Vec<String> = [health, killed, restarted].into_iter().flatten().collect();
            let tone = if is_bad { Tone::Bad } else { Tone::Good };
            let text = if more.is_empty() { "running".into() } else { format!("running ({})", more.join("; ")) };
            (text, Some(tone))
        }
        ("exited", _) => {
            let code = app.exit_code.unwrap_or_default();
            let end = End {
                code,
                signal: app.exit_signal.as_deref(),
                oom_killed: app.oom_killed,
                unhealthy: app.unhealthy,
                not_started: app.start_failure.is_some(),
            };
            let how = end.how();
            let gave_up = app.gave_up.then(|| match app.restarts {
                1 => "gave up after 1 restart".to_owned(),
                restarts => format!("gave up after {restarts} restarts"),
            });
            let tone = if how.is_some() && !app.stopped { Tone::Bad } else { Tone::Faint };
            let stopped = app.stopped.then(|| "stopped".to_owned());
            let why: Vec<String> = [stopped, how, gave_up].into_iter().flatten().collect();
            let text = if why.is_empty() { "exited".into() } else { format!("exited ({})", why.join(", ")) };
            (text, Some(tone))
        }
        (state, _) => (state.to_owned(), None),
    }
}

/// The most characters of a check's output that a table shows.
const SHOWN: usize = 40;

fn health(health: &HealthStatus) -> String {
    if health.status != "unhealthy" {
        return health.status.clone();
    }
    let line = health.output.lines().next_back().unwrap_or_default().trim();
    let mut shown: String = line.chars().take(SHOWN).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    let why = match health.exit_code {
        _ if health.timed_out => "check timed out".to_owned(),
        _ if !shown.is_empty() => shown,
        code => format!("check exit {}", code.unwrap_or_default()),
    };
    format!("unhealthy {}x: {why}", health.failures)
}

/// The end of a run of an app.
struct End<'a> {
    code: u8,
    signal: Option<&'a str>,
    oom_killed: bool,
    unhealthy: bool,
    not_started: bool,
}

impl End<'_> {
    /// How the app failed; `None` for exit status 0 if it was not its health check that ended it.
    fn how(&self) -> Option<String> {
        match (self.code, self.signal) {
            _ if self.unhealthy => Some("health check failed".into()),
            (0, _) => None,
            (code, signal) if self.oom_killed && is_of_oom(code, signal) => Some("out of memory".into()),
            _ if self.not_started => Some("could not start".into()),
            (_, Some(signal)) => Some(signal.to_owned()),
            (code, None) => Some(format!("exit {code}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::status::LastEnd;

    fn app(state: &str) -> AppStatus {
        AppStatus { state: state.into(), ..AppStatus::default() }
    }

    fn shown(app: &AppStatus) -> String {
        words(app, |_| "2 s ago".into()).0
    }

    fn sick_once() -> AppStatus {
        let health = HealthStatus { status: "healthy".into(), ..HealthStatus::default() };
        AppStatus {
            restarts: 1,
            health: Some(health),
            last_end: Some(LastEnd { exit_code: 1, ..LastEnd::default() }),
            ..app("running")
        }
    }

    #[test]
    fn what_the_user_stopped_is_not_a_failure() {
        let term = AppStatus { exit_code: Some(143), exit_signal: Some("SIGTERM".into()), ..app("exited") };
        assert!(is_bad(&term) && !is_bad(&AppStatus { stopped: true, ..term.clone() }));
        assert_eq!(shown(&AppStatus { stopped: true, ..term }), "exited (stopped, SIGTERM)");
        let clean = AppStatus { exit_code: Some(0), ..app("exited") };
        assert_eq!(
            [shown(&AppStatus { stopped: true, ..clean.clone() }), shown(&clean)],
            ["exited (stopped)", "exited"]
        );
        assert!(!is_bad(&app("created")) && !is_bad(&AppStatus { exit_code: Some(0), ..app("exited") }));
    }

    #[test]
    fn what_is_the_matter_is_told_apart() {
        assert_eq!([shown(&app("running")), shown(&app("created"))], ["running", "created"]);
        assert_eq!(shown(&AppStatus { exit_code: Some(0), ..app("exited") }), "exited");
        assert_eq!(shown(&AppStatus { exit_code: Some(3), ..app("exited") }), "exited (exit 3)");
        let oom =
            AppStatus { exit_code: Some(137), oom_killed: true, exit_signal: Some("SIGKILL".into()), ..app("exited") };
        assert_eq!(shown(&oom), "exited (out of memory)");
        assert_eq!(shown(&AppStatus { oom_killed: false, ..oom.clone() }), "exited (SIGKILL)");
        let later = AppStatus { exit_code: Some(143), exit_signal: Some("SIGTERM".into()), ..oom };
        assert_eq!(shown(&later), "exited (SIGTERM)");
        let answered = AppStatus { exit_signal: None, ..later };
        assert_eq!(shown(&answered), "exited (exit 143)");
        assert_eq!(shown(&AppStatus { exit_code: Some(1), ..answered }), "exited (out of memory)");
        let none = AppStatus { exit_code: Some(127), start_failure: Some("exec".into()), ..app("exited") };
        assert_eq!(shown(&none), "exited (could not start)");
        let gave_up = AppStatus { exit_code: Some(1), restarts: 3, gave_up: true, ..app("exited") };
        assert_eq!(shown(&gave_up), "exited (exit 1, gave up after 3 restarts)");
        let last = LastEnd {
            exit_code: 1,
            exit_signal: None,
            oom_killed: false,
            unhealthy: false,
            start_failure: None,
            at: 0,
            finished: String::new(),
        };
        let looping = AppStatus { restarts: 7, restarting: true, last_end: Some(last.clone()), ..app("running") };
        assert_eq!(shown(&looping), "restarting (7x, exit 1, 2 s ago)");
        let again = AppStatus { restarting: false, ..looping };
        assert_eq!(shown(&again), "running (restarted 7x, last: exit 1, 2 s ago)");
        assert!(!is_bad(&again) && is_bad(&gave_up));
        let sick = LastEnd { exit_code: 0, unhealthy: true, ..last };
        let sick = AppStatus { restarts: 3, restarting: true, last_end: Some(sick), ..app("running") };
        assert_eq!(shown(&sick), "restarting (3x, health check failed, 2 s ago)");
        let sick = AppStatus { restarting: false, ..sick };
        assert_eq!(shown(&sick), "running (restarted 3x, last: health check failed, 2 s ago)");
        let sick = AppStatus { exit_code: Some(0), unhealthy: true, ..app("exited") };
        assert!(shown(&sick) == "exited (health check failed)" && is_bad(&sick));
        let paused = AppStatus { paused: true, ..app("running") };
        assert_eq!(words_of(&paused), ("paused".into(), Some(Tone::Held)));
        let oom = AppStatus { oom_kills: 1, ..app("running") };
        assert!(is_bad(&oom) && shown(&oom) == "running (1 process killed: out of memory)", "{}", shown(&oom));
        let oom = AppStatus { oom_kills: 2, ..sick_once() };
        assert_eq!(
            shown(&oom),
            "running (healthy; 2 processes killed: out of memory; restarted 1x, last: exit 1, 2 s ago)"
        );
        let check =
            HealthStatus { status: "unhealthy".into(), failures: 3, exit_code: Some(1), ..HealthStatus::default() };
        let ill = |health| AppStatus { health: Some(health), ..app("running") };
        assert_eq!(shown(&ill(HealthStatus { status: "healthy".into(), ..check.clone() })), "running (healthy)");
        assert_eq!(shown(&ill(check.clone())), "running (unhealthy 3x: check exit 1)");
        let said = HealthStatus { output: "first\nno answer from 127.0.0.1\n".into(), ..check.clone() };
        assert_eq!(shown(&ill(said)), "running (unhealthy 3x: no answer from 127.0.0.1)");
        let slow = ill(HealthStatus { exit_code: None, timed_out: true, ..check });
        assert!(!is_bad(&AppStatus { paused: true, ..slow.clone() }));
        assert!(is_bad(&slow) && shown(&slow).contains("check timed out"));
    }
}

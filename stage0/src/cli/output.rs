//! Output for people, as tables and times, and for programs, as JSON.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use serde_json::Value;
use stage1::error::{Context, Result, escape_control};

pub use super::screen::say;
use super::table::{self, Cell};

use super::args::listing::{ListFormat, Listing};
use super::condition;
use crate::app::status::AppStatus;
use crate::fsutil::time::age;

/// The format of lists and states.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Prints rows below a heading, columns aligned.
pub fn table<const N: usize>(heading: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Result<()> {
    table::show(heading, rows.into_iter().map(|row| row.map(Cell::from)).collect(), false)
}

/// Prints a value as indented JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    say(serde_json::to_string_pretty(value).context(|| "write as JSON")?)
}

/// Prints a value as indented JSON, or as text with a line for each value in it: `limits.memory=67108864`.
pub fn values(value: &impl Serialize, format: Format) -> Result<()> {
    if format == Format::Json {
        return json(value);
    }
    let mut lines = Vec::new();
    flatten("", &serde_json::to_value(value).context(|| "write as text")?, &mut lines);
    lines.iter().try_for_each(say)
}

fn flatten(name: &str, value: &Value, lines: &mut Vec<String>) {
    let below = |part: &str| if name.is_empty() { part.to_owned() } else { format!("{name}.{part}") };
    match value {
        Value::Null => {}
        Value::Object(fields) => fields.iter().for_each(|(part, value)| flatten(&below(part), value, lines)),
        Value::Array(all) => {
            all.iter().enumerate().for_each(|(at, value)| flatten(&below(&at.to_string()), value, lines))
        }
        Value::String(text) => lines.push(format!("{name}={}", escape_control(text))),
        other => lines.push(format!("{name}={other}")),
    }
}

/// A time in nanoseconds since 1970 as `YYYY-MM-DD HH:MM:SS` in this machine's time zone, or `-`.
pub fn time(nanoseconds: Option<i64>) -> String {
    time_in(&TimeZone::system(), nanoseconds)
}

fn time_in(zone: &TimeZone, nanoseconds: Option<i64>) -> String {
    let time = nanoseconds.and_then(|nanoseconds| Timestamp::from_nanosecond(nanoseconds.into()).ok());
    let shown = |time: Timestamp| time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    time.map_or_else(|| "-".into(), shown)
}

/// The age of a time in nanoseconds since 1970, for a table, or `-`.
pub fn age_or_dash(nanoseconds: Option<i64>) -> String {
    nanoseconds.map_or_else(|| "-".into(), age)
}

/// A size in decimal units: `12.3 MB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// An amount of memory in binary units, as limits have them: `64.0 MiB`.
pub fn memory(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// Prints the apps of a pod.
pub fn print_apps(apps: &[AppStatus], how: &Listing) -> Result<()> {
    match how {
        Listing { quiet: true, .. } => apps.iter().try_for_each(|app| say(&app.name)),
        Listing { format: ListFormat::Json, .. } => json(&apps),
        Listing { format, no_trunc, .. } => table::show_states(
            ["NAME", "STATE", "EXIT", "CREATED", "STARTED", "FINISHED"],
            apps.iter()
                .inspect(|app| say_what_helps(app))
                .map(|app| {
                    [
                        app.name.clone().into(),
                        condition::of(app),
                        app.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string()).into(),
                        age_or_dash(app.created_at).into(),
                        age_or_dash(app.started_at).into(),
                        age_or_dash(app.finished_at).into(),
                    ]
                })
                .collect(),
            *no_trunc,
            format.columns(),
            &["CREATED", "FINISHED", "EXIT"],
        ),
    }
}

/// Warns of an app whose removal was interrupted.
pub fn say_what_helps(app: &AppStatus) {
    if app.half_removed {
        let name = &app.name;
        log::warn!("app {name} is being removed, or its removal was interrupted: \"podctl app rm\" finishes it");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_a_line_each() {
        let value =
            serde_json::json!({"name": "a\nb", "limits": {"memory": 7, "pids": null}, "exec": ["/x", "y"], "ok": true});
        let mut lines = Vec::new();
        flatten("", &value, &mut lines);
        lines.sort();
        assert_eq!(lines, ["exec.0=/x", "exec.1=y", "limits.memory=7", "name=a\\nb", "ok=true"]);
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1_234_567), "1.2 MB");
        assert_eq!(size(999_999), "1.0 MB");
        assert_eq!([1023, 64 << 20, (1 << 20) - 1].map(memory), ["1023 B", "64.0 MiB", "1.0 MiB"]);
        assert_eq!(time_in(&TimeZone::UTC, Some(1_000_000_000)), "1970-01-01 00:00:01");
        let east = TimeZone::fixed(jiff::tz::offset(5));
        assert_eq!(time_in(&east, Some(0)), "1970-01-01 05:00:00");
        assert_eq!((time(None).as_str(), age_or_dash(None).as_str()), ("-", "-"));
    }
}

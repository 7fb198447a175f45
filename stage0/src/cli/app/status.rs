//! `podctl app status`

use clap::Args;
use stage1::error::{Result, escape_control};

use crate::app::status::{self, AppStatus, list};
use crate::cli::args::listing::Listing;
use crate::cli::args::one_app::OneApp;
use crate::cli::output::{self, Format, print_apps};
use crate::cli::session::Session;
use crate::poddir::find as pods;

/// Without an app, shows all apps of the pod.
#[derive(Args, Debug)]
pub struct Status {
    #[command(flatten)]
    one: OneApp,
    /// Print it as
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Status {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find_named(session)?;
        let Some(app) = app else {
            let apps = pods::look(&session.store, &pod, list)?;
            return match self.format {
                Format::Json => output::json(&apps),
                Format::Text => print_apps(&apps, &Listing::table()),
            };
        };
        let status = pods::look(&session.store, &pod, |pod| status::status(pod, &app))?;
        match self.format {
            Format::Json => output::json(&status),
            Format::Text => print_details(&status),
        }
    }
}

fn print_details(app: &AppStatus) -> Result<()> {
    output::say_what_helps(app);
    let state = if app.paused { "paused" } else { &app.state };
    let mut text = format!("name={}\nstate={state}\nimage_id={}", app.name, app.image_id);
    let times = [("created_at", app.created_at), ("started_at", app.started_at), ("finished_at", app.finished_at)];
    for (name, time) in times.into_iter().filter(|(_, time)| time.is_some()) {
        text.push_str(&format!("\n{name}={}", output::time(time)));
    }
    if let Some(code) = app.exit_code {
        text.push_str(&format!("\nexit_code={code}"));
    }
    if app.restarts > 0 {
        text.push_str(&format!("\nrestarts={}", app.restarts));
    }
    if app.oom_kills > 0 {
        text.push_str(&format!("\noom_kills={}", app.oom_kills));
    }
    if let Some(last) = &app.last_end {
        text.push_str(&format!(
            "\nlast_exit_code={}\nlast_finished_at={}",
            last.exit_code,
            output::time(Some(last.at))
        ));
        for (name, value) in [("exit_signal", &last.exit_signal), ("start_failure", &last.start_failure)] {
            if let Some(value) = value {
                text.push_str(&format!("\nlast_{name}={}", escape_control(value)));
            }
        }
        for (name, is) in [("oom_killed", last.oom_killed), ("unhealthy", last.unhealthy)] {
            if is {
                text.push_str(&format!("\nlast_{name}=true"));
            }
        }
    }
    if let Some(health) = &app.health {
        text.push_str(&format!("\nhealth={}", health.status));
        if !health.output.is_empty() {
            text.push_str(&format!("\nhealth_output={}", escape_control(&health.output)));
        }
    }
    for (name, value) in [("exit_signal", &app.exit_signal), ("start_failure", &app.start_failure)] {
        if let Some(value) = value {
            text.push_str(&format!("\n{name}={}", escape_control(value)));
        }
    }
    for (name, _) in [
        ("core_dumped", app.core_dumped),
        ("oom_killed", app.oom_killed),
        ("unhealthy", app.unhealthy),
        ("stopped", app.stopped),
        ("half_removed", app.half_removed),
        ("restarting", app.restarting),
        ("gave_up", app.gave_up),
    ]
    .iter()
    .filter(|(_, is)| *is)
    {
        text.push_str(&format!("\n{name}=true"));
    }
    for mount in &app.mounts {
        let access = if mount.read_only { "ro" } else { "rw" };
        text.push_str(&format!("\nmount={}:{}:{}:{access}", mount.name, mount.host_path, mount.container_path));
    }
    output::say(text)
}

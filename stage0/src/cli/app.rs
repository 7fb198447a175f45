//! `podctl app …`

use std::time::Duration;

use clap::{Args, Subcommand};
use stage1::appc::AcName;
use stage1::error::{Context, Result, escape_control};

use super::{Format, Session, format};
use crate::apps::{self, AddOptions, AppStatus};
use crate::attach;
use crate::pods::{self, Pod};
use crate::spec::{Insecure, Limits};

#[derive(Subcommand, Debug)]
pub enum Command {
    /// Add an app to a running pod
    Add(Box<Add>),
    /// Start an app
    Start(One),
    /// Stop an app
    Stop(Stop),
    /// Stop an app if it runs, and start it
    Restart(Stop),
    /// Stop an app if it runs, and remove it from its pod
    Rm(One),
    /// List the apps of a pod
    List(List),
    /// Show one app, or all apps of a pod
    Status(Status),
    /// Run a command in an app
    Exec(Exec),
    /// Open an app's log file anew, after it was renamed
    ReopenLog(One),
}

impl Command {
    pub fn run(self, session: &Session) -> Result<()> {
        match self {
            Self::Add(add) => add.run(session),
            Self::Start(one) => {
                let (pod, app) = one.find(session)?;
                apps::start(&session.store, &pod, &app, session.debug).context(|| one.doing("start"))
            }
            Self::Stop(stop) => stop.run(session),
            Self::Restart(stop) => stop.restart(session),
            Self::Rm(one) => {
                let (pod, app) = one.find(session)?;
                apps::rm(&session.store, &pod, &app, session.debug).context(|| one.doing("remove"))
            }
            Self::List(list) => list.run(session),
            Self::Status(status) => status.run(session),
            Self::Exec(exec) => exec.run(session),
            Self::ReopenLog(one) => {
                let (pod, app) = one.find(session)?;
                attach::reopen_log(&session.store, &pod, &app, session.debug)
                    .context(|| one.doing("reopen the log file of"))
            }
        }
    }
}

#[derive(Args, Debug)]
pub struct Add {
    /// The pod's UUID, or the start of it
    uuid: String,
    #[command(flatten)]
    pub app: NewApp,
    #[command(flatten)]
    insecure: Insecure,
}

/// An app that is to be.
#[derive(Args, Debug)]
pub struct NewApp {
    /// An image of the store: its name, its id, or the start of it
    pub image: String,
    /// What to call the app (else as the image is called)
    #[arg(long)]
    pub name: Option<String>,
    /// The program to run, instead of the image's
    #[arg(long, value_name = "PROGRAM")]
    exec: Option<String>,
    /// A variable of the app's environment
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// The user it runs as: a name, a number, or a path in the image whose owner is meant
    #[arg(long, allow_hyphen_values = true)]
    user: Option<String>,
    /// The group it runs as
    #[arg(long, allow_hyphen_values = true)]
    group: Option<String>,
    /// A further group, by number
    #[arg(long = "supplementary-gid", value_name = "GID")]
    supplementary_gids: Vec<u32>,
    /// The directory it starts in
    #[arg(long, value_name = "DIR")]
    working_dir: Option<String>,
    #[command(flatten)]
    limits: Limits,
    /// Its root file system can't be written to
    #[arg(long)]
    readonly_rootfs: bool,
    /// The signal that asks it to end: SIGINT, RTMIN+3, 10 (else SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds that it then has to end before it is killed; 0 to kill it at once (else 10)
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
    /// Whether to start it again when it has ended: no, on-failure, always
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Its standard input: null, stream, tty, interactive (else null)
    #[arg(long, value_name = "MODE")]
    stdin: Option<String>,
    /// Its standard output: log, null, stream, tty, interactive (else log)
    #[arg(long, value_name = "MODE")]
    stdout: Option<String>,
    /// Its standard error, likewise
    #[arg(long, value_name = "MODE")]
    stderr: Option<String>,
    /// Its log file, below the pod's --k8s-log-dir, for all that it writes
    #[arg(long, value_name = "PATH")]
    k8s_log_path: Option<String>,
    /// Mount a volume of the pod: volume=NAME,target=PATH
    #[arg(long = "mount", value_name = "MOUNT")]
    mounts: Vec<String>,
    /// Arguments, instead of the image's
    #[arg(last = true, value_name = "ARG")]
    pub args: Vec<String>,
}

impl Add {
    fn run(self, session: &Session) -> Result<()> {
        let pod = pods::find(&session.store, &self.uuid)?;
        let options = AddOptions { insecure: self.insecure, ..self.app.options(session.debug) };
        apps::add(&session.store, &pod, &options).context(|| format!("add an app to pod {}", pod.short()))
    }
}

impl NewApp {
    /// What it is to be.
    pub fn options(self, debug: bool) -> AddOptions {
        AddOptions {
            image: self.image,
            name: self.name,
            exec: self.exec,
            args: self.args,
            env: self.env,
            user: self.user,
            group: self.group,
            supplementary_gids: self.supplementary_gids,
            working_dir: self.working_dir,
            limits: self.limits,
            read_only_rootfs: self.readonly_rootfs,
            mounts: self.mounts,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            restart: self.restart,
            streams: [self.stdin, self.stdout, self.stderr],
            k8s_log_path: self.k8s_log_path,
            insecure: Insecure::default(),
            debug,
        }
    }
}

/// One app of a pod.
#[derive(Args, Debug)]
pub struct One {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app
    #[arg(value_name = "APP", required_unless_present = "app", conflicts_with = "app")]
    name: Option<String>,
    /// The app
    #[arg(long)]
    app: Option<String>,
}

impl One {
    fn find(&self, session: &Session) -> Result<(Pod, AcName)> {
        let name = app_name(self.name.as_ref().or(self.app.as_ref()))?;
        let name = name.context(|| "no app was named")?;
        Ok((pods::find(&session.store, &self.uuid)?, name))
    }

    fn doing(&self, what: &str) -> String {
        format!("{what} app {:?}", self.name.as_ref().or(self.app.as_ref()).map_or("", String::as_str))
    }
}

#[derive(Args, Debug)]
pub struct Exec {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app (else the only one of the pod)
    #[arg(long)]
    app: Option<String>,
    #[command(flatten)]
    how: super::pod::How,
}

impl Exec {
    fn run(self, session: &Session) -> Result<()> {
        let app = app_name(self.app.as_ref())?;
        let pod = pods::find(&session.store, &self.uuid)?;
        let app = app.map_or_else(|| apps::only_one(&pod), Ok)?;
        self.how.enter(session, &pod, Some(&app))
    }
}

fn app_name(text: Option<&String>) -> Result<Option<AcName>> {
    text.map(|text| text.parse().context(|| "app name")).transpose()
}

#[derive(Args, Debug)]
pub struct Stop {
    #[command(flatten)]
    one: One,
    /// Seconds until everything the app has started is killed; 0 for at once
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u32>,
}

impl Stop {
    fn run(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        apps::stop(&session.store, &pod, &app, self.timeout(), session.debug).context(|| self.one.doing("stop"))
    }

    fn restart(self, session: &Session) -> Result<()> {
        let (pod, app) = self.one.find(session)?;
        apps::restart(&session.store, &pod, &app, self.timeout(), session.debug).context(|| self.one.doing("restart"))
    }

    fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

#[derive(Args, Debug)]
pub struct List {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl List {
    fn run(self, session: &Session) -> Result<()> {
        let pod = pods::find(&session.store, &self.uuid)?;
        print_apps(&pods::look(&session.store, &pod, apps::list)?, self.format)
    }
}

/// Prints the apps of a pod.
pub fn print_apps(apps: &[AppStatus], how: Format) -> Result<()> {
    match how {
        Format::Json => format::json(&apps),
        Format::Text => format::table(
            ["NAME", "STATE", "EXIT", "CREATED", "STARTED", "FINISHED"],
            apps.iter().map(|app| {
                [
                    app.name.clone(),
                    app.state.clone(),
                    app.exit_code.map_or_else(|| "-".to_owned(), |code| code.to_string()),
                    format::time(app.created_at),
                    format::time(app.started_at),
                    format::time(app.finished_at),
                ]
            }),
        ),
    }
}

#[derive(Args, Debug)]
pub struct Status {
    /// The pod's UUID, or the start of it
    uuid: String,
    /// The app (else all of the pod)
    #[arg(value_name = "APP", conflicts_with = "app")]
    name: Option<String>,
    /// The app (else all of the pod)
    #[arg(long)]
    app: Option<String>,
    /// How to print it
    #[arg(long, value_enum, default_value = "text")]
    format: Format,
}

impl Status {
    fn run(self, session: &Session) -> Result<()> {
        let app = app_name(self.name.as_ref().or(self.app.as_ref()))?;
        let pod = pods::find(&session.store, &self.uuid)?;
        let Some(app) = app else {
            return print_apps(&pods::look(&session.store, &pod, apps::list)?, self.format);
        };
        let status = pods::look(&session.store, &pod, |pod| apps::status(pod, &app))?;
        match self.format {
            Format::Json => format::json(&status),
            Format::Text => print_details(&status),
        }
    }
}

fn print_details(app: &AppStatus) -> Result<()> {
    let mut text = format!("name={}\nstate={}\nimage_id={}", app.name, app.state, app.image_id);
    let times = [("created_at", app.created_at), ("started_at", app.started_at), ("finished_at", app.finished_at)];
    for (name, time) in times.into_iter().filter(|(_, time)| time.is_some()) {
        text.push_str(&format!("\n{name}={}", format::time(time)));
    }
    if let Some(code) = app.exit_code {
        text.push_str(&format!("\nexit_code={code}"));
    }
    for (name, value) in [("exit_signal", &app.exit_signal), ("start_failure", &app.start_failure)] {
        if let Some(value) = value {
            text.push_str(&format!("\n{name}={}", escape_control(value)));
        }
    }
    for (name, _) in [("core_dumped", app.core_dumped), ("oom_killed", app.oom_killed)].iter().filter(|(_, is)| *is) {
        text.push_str(&format!("\n{name}=true"));
    }
    for mount in &app.mounts {
        let access = if mount.read_only { "ro" } else { "rw" };
        text.push_str(&format!("\nmount={}:{}:{}:{access}", mount.name, mount.host_path, mount.container_path));
    }
    super::say(text)
}

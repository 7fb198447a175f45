//! The command `podctl`: the parser of its command line, and a module for each verb.

// The doc comments of the options are the help text, where brackets mark what can be left out.
#![allow(rustdoc::broken_intra_doc_links)]

mod app;
mod args;
mod attach;
mod complete;
mod condition;
mod cp;
mod cri;
mod diff;
mod doctor;
mod down;
mod enable;
mod enter;
mod events;
mod examples;
mod export;
mod gc;
mod generate;
mod hints;
mod image;
mod info;
mod inspect;
mod kill;
mod list;
mod login;
mod logout;
mod logs;
mod manual;
mod output;
mod pause;
mod pod_filter;
mod port;
mod prepare;
mod rm;
mod run;
mod run_prepared;
mod sandbox;
mod screen;
mod session;
mod start;
mod stats;
mod status;
mod stop;
mod table;
mod top;
mod tree;
mod up;
mod update;
mod volume;
mod wait;

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use stage1::error::{Result, escape_control, exit};
use stage1::inherited;
use stage1::sys::signal::die_by;

use self::args::lazy::Lazy;
use self::args::new_pod::split_apps;
use self::args::one_app::OneApp;
use self::args::pod::OnePod;
pub use self::cri::{CriService, Serve};
use self::inspect::Inspect;
use self::session::Session;

use crate::podfile::service;
use crate::store::{self, Store};

/// Exit code for failures; [`exit::COMMAND`] for the verbs that exit with the code of the command they run.
const FAILURE: u8 = exit::FAILURE;
/// Exit code for a wrong command line; [`exit::COMMAND`] for the same verbs.
const USAGE: u8 = exit::USAGE;

/// The heading in help pages of the options that every verb has.
const GLOBAL: &str = "Global options";

/// Run pods: add apps to them, start, stop and remove these while the pod runs
#[derive(Parser, Debug)]
#[command(name = "podctl", version, max_term_width = 120)]
struct Podctl {
    /// Keep images and pods in this directory
    #[arg(long, global = true, help_heading = GLOBAL, value_name = "DIR", default_value = store::USUAL)]
    dir: PathBuf,
    /// Print debugging messages on standard error
    #[arg(long, global = true, help_heading = GLOBAL)]
    debug: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Pull, import, list, check and remove images
    #[command(subcommand)]
    Image(image::Command),
    /// List the images
    Images(Lazy<image::List>),
    /// Make, list and remove volumes that outlive pods
    #[command(subcommand)]
    Volume(volume::Command),
    /// Check credentials with a registry and save them
    Login(Lazy<login::Login>),
    /// Remove saved credentials for a registry
    Logout(Lazy<logout::Logout>),
    /// Start a pod without apps and print its UUID
    Sandbox(Lazy<sandbox::Sandbox>),
    /// Run apps on this terminal, in a pod of their own that ends with them
    Run(Lazy<run::Run>),
    /// Make a pod with apps to run later, and print its UUID
    Prepare(Lazy<prepare::Prepare>),
    /// Run a prepared pod on this terminal
    RunPrepared(Lazy<run_prepared::RunPrepared>),
    /// Add apps to a pod; start, stop, remove and list them
    #[command(subcommand)]
    App(app::Command),
    /// Run a command in a pod, or in one of its apps
    Enter(Lazy<enter::Enter>),
    /// Show the output of a pod's apps, while it runs and after
    Logs(Lazy<logs::Logs>),
    /// Attach this terminal, or pipes, to the streams of an app
    Attach(Lazy<attach::Attach>),
    /// Run a command in an app
    Exec(Lazy<app::Exec>),
    /// List the pods
    #[command(visible_aliases = ["ls", "ps"])]
    List(Lazy<list::List>),
    /// Show one pod and its apps
    Status(Lazy<status::Status>),
    /// Print the configuration and state of a pod, or of one of its apps, as JSON
    Inspect(Lazy<Inspect>),
    /// Show the resource usage of pods and their apps
    Stats(Lazy<stats::Stats>),
    /// List the processes of a pod, or of one of its apps
    Top(Lazy<top::Top>),
    /// Show pods, their apps and the apps' processes as a tree
    Tree(Lazy<tree::Tree>),
    /// Print the events of pods and apps
    Events(Lazy<events::Events>),
    /// Copy files between the host and an app
    Cp(Lazy<cp::Cp>),
    /// List the files that an app has changed
    Diff(Lazy<diff::Diff>),
    /// Write the files of an app as a tar archive
    Export(Lazy<export::Export>),
    /// Make an image of the files of an app
    Commit(Lazy<export::Commit>),
    /// Change the limits of an app, now and for its later runs
    Update(Lazy<update::Update>),
    /// List the published ports of a pod; add and remove ports while it runs
    Port(port::Port),
    /// Freeze a pod, or one of its apps
    Pause(Lazy<OneApp>),
    /// Let a paused pod, or one of its apps, go on
    Unpause(Lazy<OneApp>),
    /// Send a signal to an app, or kill a pod
    ///
    /// With an app or a signal, the first process of the app gets the signal, and if the app ends its restart policy
    /// applies. With neither, the whole pod is killed, as by podctl stop --force.
    Kill(Lazy<kill::Kill>),
    /// Start the pods of a file (Kubernetes' Pod), or change running ones to match it
    Up(Lazy<up::Up>),
    /// Stop and remove pods, by name or of a file
    Down(Lazy<down::Down>),
    /// Print the Kubernetes file of a pod, or its systemd unit
    #[command(subcommand)]
    Generate(generate::Command),
    /// Have the host's systemd start a pod at boot
    Enable(Lazy<OnePod>),
    /// No longer start a pod at boot: undo podctl enable
    Disable(Lazy<OnePod>),
    /// Wait for a pod as its systemd unit does
    #[command(hide = true)]
    Keep(Lazy<OnePod>),
    /// Wait until pods have ended, or are healthy
    Wait(Lazy<wait::Wait>),
    /// End running pods
    Stop(Lazy<stop::Stop>),
    /// Start ended pods again, with their apps and files
    Start(Lazy<start::Start>),
    /// End running pods and start them again
    Restart(Lazy<start::Restart>),
    /// Remove pods that have ended
    Rm(Lazy<rm::Rm>),
    /// Check whether this machine has what pods need
    Doctor(Lazy<doctor::Doctor>),
    /// Print podctl's data directory, its content, and the kernel it runs on
    Info(Lazy<info::Info>),
    /// Serve as the container runtime of a Kubernetes node (CRI v1)
    Cri(Lazy<cri::Cri>),
    /// Print a script that completes words for a shell
    Completion(Lazy<complete::Completion>),
    /// Write the manual pages
    #[command(hide = true)]
    Manual(Lazy<manual::Manual>),
    /// Remove pods that ended some time ago, and the remains of failed starts
    Gc(Lazy<gc::Gc>),
}

/// Runs podctl with this process's arguments: the body of `main`. `serve` implements `podctl cri`. Returns the exit
/// code.
pub fn main(serve: Serve) -> ExitCode {
    match complete::answer(Podctl::command) {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) => {}
        Err(error) => return usage(&error),
    }
    let podctl = match Podctl::understand(std::env::args_os().collect()) {
        Ok(podctl) => podctl,
        Err(error) => return usage(&error),
    };
    log_to_stderr(podctl.debug, matches!(podctl.command, Command::Cri(_)));
    let failure = if podctl.command.ends_as_a_command() { exit::COMMAND } else { FAILURE };
    if !podctl.command.is_for_everybody() && !nix::unistd::geteuid().is_root() {
        eprintln!("{}", needs_root());
        return ExitCode::from(failure);
    }
    match podctl.run(serve) {
        Ok(code) => ExitCode::from(code),
        // as other programs end when their reader in a pipeline has ended
        Err(error) if error.errno() == Some(nix::libc::EPIPE) && has_no_reader() => die_by(Signal::SIGPIPE),
        Err(error) => {
            eprintln!("podctl: {}", error.one_line());
            crate::interrupt::end_by_signal();
            ExitCode::from(error.exit_code().unwrap_or(failure))
        }
    }
}

/// Prints help if it was asked for, otherwise the error as one line like every other failure.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // exits, with 0 after help that was asked for
        error.exit();
    }
    let text = error.render().to_string();
    let is_advice = |line: &str| line.starts_with("Usage:") || line.starts_with("For more information");
    // clap says of every unknown option how it would be a value, which is not what was meant
    let is_noise = |line: &&str| line.is_empty() || line.starts_with("tip: to pass '");
    let lines: Vec<&str> =
        text.lines().take_while(|line| !is_advice(line)).map(str::trim).filter(|line| !is_noise(line)).collect();
    let line = lines.join(" ").replace(" tip: ", "; ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let hint = match hints::hint(error, &words) {
        Some(hint) => {
            // our hint replaces clap's suggestion
            let said = match error.get(ContextKind::InvalidArg) {
                Some(ContextValue::Strings(missing)) if error.kind() == ErrorKind::MissingRequiredArgument => {
                    format!("{} is missing", missing.join(" and "))
                }
                _ => lines.first().map_or(line, |first| first.strip_prefix("error: ").unwrap_or(first)).to_owned(),
            };
            format!("{said}; {hint}")
        }
        None => line.to_owned(),
    };
    eprintln!("podctl: {} (--help tells more)", escape_control(&hint));
    ExitCode::from(if names_a_command(&words) { exit::COMMAND } else { USAGE })
}

/// Whether the verb on the command line exits with the code of the command that it runs. Its own failures have a
/// separate code, as in other container tools.
fn names_a_command(words: &[String]) -> bool {
    let mut verbs = words.iter().skip(1);
    let mut next = || loop {
        match verbs.next()?.as_str() {
            "--dir" => drop(verbs.next()),
            option if option.starts_with('-') => {}
            verb => return Some(verb.to_owned()),
        }
    };
    match next().as_deref() {
        Some("run" | "run-prepared" | "exec" | "enter") => true,
        Some("app") => next().as_deref() == Some("exec"),
        _ => false,
    }
}

impl Podctl {
    /// All verbs, with their help pages and examples.
    fn commands() -> clap::Command {
        examples::with_examples(Self::command())
    }

    /// Parses a command line. For `run` and `prepare`, `---` separates the options of several apps.
    fn understand(words: Vec<OsString>) -> std::result::Result<Self, clap::Error> {
        let (first, further) = split_apps(&words);
        if first != words
            && let Ok(mut podctl) = Self::parse(first)
            && let Command::Run(_) | Command::Prepare(_) = &podctl.command
        {
            match &mut podctl.command {
                Command::Run(run) => run.pod.understand(further)?,
                Command::Prepare(prepare) => prepare.pod.understand(further)?,
                _ => {}
            }
            return Ok(podctl);
        }
        Self::parse(words)
    }

    /// Parses the words of one command. Of `--name` options of `run` and `prepare`, those before the image name the
    /// pod.
    fn parse(words: Vec<OsString>) -> std::result::Result<Self, clap::Error> {
        let for_help = words.iter().any(|word| word == "--help" || word == "-h" || word == "help");
        let command = if for_help { Self::commands() } else { Self::command() };
        let mut matches = command.try_get_matches_from(words)?;
        let places = |id: &str| -> Vec<usize> {
            let verb = matches.subcommand().map(|(_, verb)| verb);
            let known = verb.filter(|verb| verb.try_contains_id(id).is_ok());
            known.and_then(|verb| verb.indices_of(id)).into_iter().flatten().collect()
        };
        let (names, images) = (places("name"), places("image"));
        let mut podctl = Self::from_arg_matches_mut(&mut matches)?;
        let pod = match &mut podctl.command {
            Command::Run(run) => Some(&mut run.pod),
            Command::Prepare(prepare) => Some(&mut prepare.pod),
            _ => None,
        };
        if let (Some(pod), Some(image)) = (pod, images.first()) {
            pod.place_names(names, *image);
        }
        Ok(podctl)
    }

    fn run(self, serve: Serve) -> Result<u8> {
        inherited::settle()?;
        let session = Session { store: Store::open(&self.dir)?, debug: self.debug };
        match self.command {
            Command::Image(command) => command.run(&session)?,
            Command::Images(command) => command.0.run(&session)?,
            Command::Volume(command) => command.run(&session)?,
            Command::Exec(command) => command.0.run(&session)?,
            Command::Cri(command) => command.0.run(session, serve)?,
            Command::Completion(command) => command.0.run()?,
            Command::Login(command) => command.0.run()?,
            Command::Logout(command) => command.0.run()?,
            Command::Sandbox(command) => command.0.run(&session)?,
            Command::Run(command) => return command.0.run(&session),
            Command::Prepare(command) => command.0.run(&session)?,
            Command::RunPrepared(command) => return command.0.run(&session),
            Command::App(command) => command.run(&session)?,
            Command::Enter(command) => command.0.run(&session)?,
            Command::Logs(command) => command.0.run(&session)?,
            Command::Attach(command) => command.0.run(&session)?,
            Command::List(command) => command.0.run(&session)?,
            Command::Status(command) => command.0.run(&session)?,
            Command::Inspect(inspect) => inspect.0.run(&session)?,
            Command::Stats(command) => command.0.run(&session)?,
            Command::Top(command) => command.0.run(&session)?,
            Command::Tree(command) => command.0.run(&session)?,
            Command::Events(command) => command.0.run(&session)?,
            Command::Update(command) => command.0.run(&session)?,
            Command::Port(command) => command.run(&session)?,
            Command::Pause(one) => pause::pause(&one, &session)?,
            Command::Unpause(one) => pause::unpause(&one, &session)?,
            Command::Kill(command) => command.0.run(&session)?,
            Command::Wait(command) => command.0.run(&session)?,
            Command::Stop(command) => command.0.run(&session)?,
            Command::Start(command) => command.0.run(&session)?,
            Command::Restart(command) => command.0.run(&session)?,
            Command::Rm(command) => command.0.run(&session)?,
            Command::Doctor(command) => command.0.run(&session)?,
            Command::Info(command) => command.0.run(&session)?,
            Command::Cp(command) => command.0.run(&session)?,
            Command::Diff(command) => command.0.run(&session)?,
            Command::Export(command) => command.0.run(&session)?,
            Command::Commit(command) => command.0.run(&session)?,
            Command::Manual(command) => command.0.run(Self::commands())?,
            Command::Gc(command) => command.0.run(&session)?,
            Command::Up(command) => command.0.run(&session)?,
            Command::Down(command) => command.0.run(&session)?,
            Command::Generate(command) => command.run(&session)?,
            Command::Enable(pod) => enable::enable(&pod, &session)?,
            Command::Disable(pod) => enable::disable(&pod, &session)?,
            Command::Keep(pod) => service::until_it_ends(&session.store, &pod.find(&session)?, session.debug)?,
        }
        Ok(0)
    }
}

impl Command {
    /// Whether the verb exits with the code of the command that it runs, as in [`names_a_command`].
    fn ends_as_a_command(&self) -> bool {
        matches!(
            self,
            Self::Run(_) | Self::RunPrepared(_) | Self::Exec(_) | Self::Enter(_) | Self::App(app::Command::Exec(_))
        )
    }

    /// Whether the verb works for users other than root: it reads no pods and images.
    fn is_for_everybody(&self) -> bool {
        matches!(self, Self::Login(_) | Self::Logout(_) | Self::Completion(_) | Self::Manual(_))
    }
}

/// The error for a user other than root.
fn needs_root() -> String {
    let words: Vec<String> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
    format!("podctl needs root: try sudo podctl {}", escape_control(&words.join(" ")))
}

/// Whether standard output is a pipe or a socket whose reader has closed it.
fn has_no_reader() -> bool {
    let stdout = io::stdout();
    // poll(2) reports POLLERR and POLLHUP without being asked for them
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    matches!(poll(&mut fds, PollTimeout::ZERO), Ok(1..))
}

/// A server says as much as RUST_LOG has it say.
fn log_to_stderr(debug: bool, serves: bool) {
    let mut builder = env_logger::Builder::new();
    builder.filter_level(if debug { log::LevelFilter::Debug } else { log::LevelFilter::Warn });
    if serves {
        builder.parse_env("RUST_LOG");
    }
    builder
        .format(|out, record| {
            let level = match record.level() {
                log::Level::Warn => "warning".to_owned(),
                other => other.as_str().to_ascii_lowercase(),
            };
            writeln!(out, "podctl: {level}: {}", escape_control(&record.args().to_string()))
        })
        .init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_together() {
        Podctl::command().debug_assert();
    }

    #[test]
    fn what_follows_the_dashes_is_the_apps() {
        let words = "podctl app add 1234 busybox --name web --env A=b=c --mount volume=v,target=/v -- sh --name x";
        let podctl = Podctl::try_parse_from(words.split(' ')).unwrap();
        let Command::App(app::Command::Add(add)) = podctl.command else { panic!() };
        assert_eq!(add.app.how.args, ["sh", "--name", "x"]);
        assert_eq!(add.app.name, ["web"]);
        assert_eq!(add.app.how.env, ["A=b=c"]);
    }

    fn understand(words: &str) -> std::result::Result<Podctl, clap::Error> {
        Podctl::understand(words.split(' ').map(OsString::from).collect())
    }

    #[test]
    fn names_of_pods_and_apps() {
        let names = |words: &str| {
            let podctl = understand(words).unwrap();
            let Command::Run(run) = podctl.command else { panic!() };
            let apps: Vec<_> = run.pod.apps().map(|app| app.name.join(" ")).collect();
            (run.pod.name().join(" "), apps.join(" "))
        };
        let both = |pod: &str, app: &str| (pod.to_owned(), app.to_owned());
        assert_eq!(names("podctl run --name web --net host nginx"), both("web", ""));
        assert_eq!(names("podctl run --net=host nginx --name web"), both("", "web"));
        assert_eq!(names("podctl run --rm --name=web nginx -m 64m --name app --- b --name c"), both("web", "app c"));
        assert_eq!(names("podctl run --name a --name b nginx"), both("a b", ""));
    }

    #[test]
    fn networks_with_and_without_equals_sign() {
        for words in ["--net host", "--net=host", "--network host", "--network=host"] {
            let podctl = understand(&format!("podctl run {words} nginx")).unwrap();
            let Command::Run(run) = podctl.command else { panic!() };
            assert_eq!(run.pod.apps().next().unwrap().image, "nginx", "{words}");
        }
        understand("podctl sandbox --net --name web").unwrap();
    }

    #[test]
    fn several_apps_on_one_line() {
        let podctl = understand("podctl run --net=none a --name x --rm -- -c --- b --name y -- z -- --- c").unwrap();
        let Command::Run(run) = podctl.command else { panic!() };
        let apps: Vec<_> = run
            .pod
            .apps()
            .map(|app| (app.image.as_str(), app.name.first().map(String::as_str), app.how.args.clone()))
            .collect();
        let args = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        assert_eq!(apps[0], ("a", Some("x"), args(&["-c"])));
        assert_eq!(apps[1], ("b", Some("y"), args(&["z", "--"])));
        assert_eq!((apps.len(), apps[2].0), (3, "c"));

        // as a word of its own, where it could be mistaken
        let podctl = understand(r"podctl run a -- echo \--- x \\--- --- b -- echo ---").unwrap();
        let Command::Run(run) = podctl.command else { panic!() };
        let apps: Vec<_> = run.pod.apps().map(|app| app.how.args.clone()).collect();
        assert_eq!(apps, [args(&["echo", "---", "x", r"\---"]), args(&["echo", "---"])]);
        let podctl = understand("podctl run a -- echo ---").unwrap();
        let Command::Run(run) = podctl.command else { panic!() };
        assert_eq!(run.pod.apps().next().unwrap().how.args, ["echo", "---"]);

        // elsewhere it is a word like others
        let podctl = understand("podctl enter 12 -- echo --- x").unwrap();
        let Command::Enter(_) = podctl.command else { panic!() };
        for bad in ["podctl run --- a", "podctl run a ---", "podctl run a --- --net=none b", "podctl run a --- b --no"]
        {
            assert!(understand(bad).is_err(), "{bad}");
        }
    }
}

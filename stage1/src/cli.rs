//! What every `main` has in common: flags, the one error line, the exit code.
//!
//! Host managers of the rkt family pass flags in the forms of Go's package `flag`; [`normalise`] turns them into the
//! forms that argh takes.

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use crate::appc::parse_bool;
use crate::error::{Context, Error, Result, escape_control, exit};
use crate::inherited;
use crate::sys::process;

/// A command-line tool: its flags are the implementing type's fields.
pub trait Tool: argh::FromArgs {
    /// Name of the program in its messages.
    const NAME: &'static str;
    /// The options that take no value.
    const SWITCHES: &'static [&'static str];
    /// The options whose values add up when they are given more than once; of any other the last one counts.
    const REPEATED: &'static [&'static str] = &[];
    /// Whether the first word that is not a flag, and all words after it, are a command to run.
    const TAKES_COMMAND: bool = false;
    /// Whether the pod's systemd executes the tool: then systemd has set what it inherits, and nothing is reset.
    const IN_POD: bool = false;

    /// Whether `--debug` was given.
    fn debug(&self) -> bool;

    /// Does the work and returns the exit code. `command` has the words of the command if [`Self::TAKES_COMMAND`].
    ///
    /// # Errors
    /// The process ends with the error's own exit code, or with that of [`own_failure`].
    fn run(self, command: Vec<OsString>) -> Result<u8>;
}

/// Runs a tool with this process's arguments: the body of every `main`. `log` sets up logging; its argument says
/// whether `--debug` was given.
pub fn run<T: Tool>(log: impl FnOnce(bool)) -> ExitCode {
    ExitCode::from(run_with::<T>(std::env::args_os().skip(1).collect(), log))
}

fn run_with<T: Tool>(args: Vec<OsString>, log: impl FnOnce(bool)) -> u8 {
    let (tool, command) = match parse::<T>(args) {
        Ok(parsed) => parsed,
        Err(Stop::Help(text)) => {
            // A reader that closes the pipe early, as head(1) does, is not a failure.
            drop(writeln!(std::io::stdout(), "{text}"));
            return 0;
        }
        Err(Stop::Usage(message)) => {
            if let Err(Stop::Help(text)) = parse::<T>(vec!["--help".into()]) {
                eprintln!("{text}\n");
            }
            // After the usage, so that it is the last line on the screen.
            eprintln!("{}: {}", T::NAME, escape_control(message.trim_end()));
            return exit::USAGE;
        }
    };
    log(tool.debug());
    match start::<T>().and_then(|()| tool.run(command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("{}: {}", T::NAME, error.one_line());
            error.exit_code().filter(|code| *code != exit::FAILURE).unwrap_or_else(own_failure)
        }
    }
}

/// Environment variable with the exit code, 1 to 255, for failures of an entrypoint itself, in place of
/// [`exit::FAILURE`]. A host manager sets it when it promises its users another code; entrypoints that do not know the
/// variable ignore it.
pub const FAILURE_CODE: &str = "STAGE1_FAILURE_CODE";

/// The exit code for a failure of this program itself: [`FAILURE_CODE`], or [`exit::FAILURE`].
pub fn own_failure() -> u8 {
    let asked = std::env::var(FAILURE_CODE).ok().and_then(|text| text.parse().ok());
    asked.filter(|code| *code != 0).unwrap_or(exit::FAILURE)
}

/// The first step of every tool: protects its file against being opened for writing by processes of a pod, and resets
/// what it inherited from its caller.
fn start<T: Tool>() -> Result<()> {
    process::hold_program_read_only()?;
    if T::IN_POD { Ok(()) } else { inherited::settle() }
}

enum Stop {
    Help(String),
    Usage(String),
}

fn parse<T: Tool>(args: Vec<OsString>) -> Result<(T, Vec<OsString>), Stop> {
    let (flags, command) =
        normalise(args, T::SWITCHES, T::REPEATED, T::TAKES_COMMAND).map_err(|error| Stop::Usage(error.one_line()))?;
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    match T::from_args(&[T::NAME], &flags) {
        Ok(tool) => Ok((tool, command)),
        Err(early) if early.status.is_ok() => Err(Stop::Help(early.output.trim_end().to_owned())),
        Err(early) => Err(Stop::Usage(early.output)),
    }
}

/// Turns Go-style flags into argh's. `--key=value`, `-key=value` and `-key value` become `--key value`;
/// `--switch=true` becomes `--switch`; `--switch=false` is dropped. Of an option that is given twice the last one
/// counts, unless it is in `repeated`. With `takes_command` the words after `--` are returned as they are; otherwise
/// they stay positional arguments.
///
/// ```
/// use stage1::cli::normalise;
///
/// let args = ["-app=web", "--debug=true", "--", "sh", "-c", "exit"].map(Into::into).to_vec();
/// let (flags, command) = normalise(args, &["debug"], &[], true)?;
/// assert_eq!(flags, ["--app", "web", "--debug"]);
/// assert_eq!(command, ["sh", "-c", "exit"]);
/// # Ok::<(), stage1::Error>(())
/// ```
///
/// # Errors
/// A switch has a value that is not a boolean, or an argument other than the command's is not UTF-8.
pub fn normalise(
    args: Vec<OsString>,
    switches: &[&str],
    repeated: &[&str],
    takes_command: bool,
) -> Result<(Vec<String>, Vec<OsString>)> {
    let mut options: Vec<(String, Option<String>)> = Vec::new();
    let mut words = Vec::new();
    let mut args = args.into_iter();
    let mut command = Vec::new();
    while let Some(arg) = args.next() {
        let flag = arg.to_str().and_then(|a| a.strip_prefix("--").or_else(|| a.strip_prefix('-')));
        match flag {
            Some("") if arg == "--" => {
                command.extend(args);
                break;
            }
            None | Some("") => {
                if takes_command {
                    command.push(arg);
                    command.extend(args);
                    break;
                }
                words.push(text(arg)?);
            }
            Some(flag) => {
                let (name, value) = match flag.split_once('=') {
                    Some((name, value)) => (name, Some(value.to_owned())),
                    None => (flag, None),
                };
                let name = if name == "h" { "help" } else { name };
                let keep = if switches.contains(&name) || name == "help" {
                    boolean(name, value.as_deref())?.then_some(None)
                } else {
                    let value = value.map_or_else(|| args.next().map(text).transpose(), |value| Ok(Some(value)))?;
                    Some(value)
                };
                if !repeated.contains(&name) {
                    options.retain(|(earlier, _)| earlier != name);
                }
                options.extend(keep.map(|value| (name.to_owned(), value)));
            }
        }
    }
    let mut out = Vec::new();
    for (name, value) in options {
        out.push(format!("--{name}"));
        out.extend(value);
    }
    if !takes_command {
        words.extend(command.drain(..).map(text).collect::<Result<Vec<_>>>()?);
    }
    if !words.is_empty() {
        out.push("--".to_owned());
        out.append(&mut words);
    }
    Ok((out, command))
}

fn text(arg: OsString) -> Result<String> {
    arg.into_string().map_err(|arg| Error::new(format!("the argument {arg:?} is not UTF-8")))
}

/// The value of a switch; without a value it is on.
fn boolean(name: &str, value: Option<&str>) -> Result<bool> {
    value.map_or(Ok(true), |value| {
        parse_bool(value).context(|| format!("--{name}={value}: not a boolean, use true or false"))
    })
}

/// Splits the values of an option at commas, and drops empty words.
pub fn list(values: &[String]) -> Vec<String> {
    values.iter().flat_map(|value| value.split(',')).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// The value of `--dns-conf-mode`: where the apps' resolver configuration and hosts file come from. An empty field
/// means `default`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsConfMode {
    /// Mode of /etc/resolv.conf: `host`, `stage0`, `none` or `default`.
    pub resolv: String,
    /// Mode of /etc/hosts: `host`, `stage0` or `default`.
    pub hosts: String,
}

impl std::str::FromStr for DnsConfMode {
    type Err = Error;

    /// Parses `resolv=MODE,hosts=MODE`; either may be left out.
    ///
    /// # Errors
    /// A part has an unknown key or mode.
    fn from_str(text: &str) -> Result<Self> {
        let mut modes = Self::default();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("resolv", mode @ ("host" | "stage0" | "none" | "default"))) => modes.resolv = mode.to_owned(),
                Some(("hosts", mode @ ("host" | "stage0" | "default"))) => modes.hosts = mode.to_owned(),
                _ => {
                    return Err(Error::new(format!(
                        "{part:?}: use resolv=(host|stage0|none|default),hosts=(host|stage0|default)"
                    )));
                }
            }
        }
        Ok(modes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(args: &[&str]) -> Vec<String> {
        normalise(args.iter().map(OsString::from).collect(), &["debug", "force"], &["env"], false).unwrap().0
    }

    #[test]
    fn all_forms_are_the_same() {
        for form in [&["--app=x"][..], &["--app", "x"], &["-app=x"], &["-app", "x"]] {
            assert_eq!(flags(form), ["--app", "x"]);
        }
        for on in ["--debug", "-debug", "--debug=true", "--debug=1", "-debug=t"] {
            assert_eq!(flags(&[on]), ["--debug"]);
        }
        for off in ["--debug=false", "--debug=0", "-debug=f"] {
            assert_eq!(flags(&[off]), [""; 0]);
        }
    }

    #[test]
    fn values_stay_values() {
        assert_eq!(flags(&["--app=help", "--uuid", "--debug"]), ["--app", "help", "--uuid", "--debug"]);
        assert_eq!(flags(&["--app=a=b", "--net="]), ["--app", "a=b", "--net", ""]);
        assert_eq!(flags(&["--app=1", "--app=2", "--env=a", "--env=b"]), ["--app", "2", "--env", "a", "--env", "b"]);
        assert_eq!(flags(&["--debug", "--debug=false"]), [""; 0]);
        assert_eq!(flags(&["--debug", "uuid", "--", "-x", "help"]), ["--debug", "--", "uuid", "-x", "help"]);
    }

    #[test]
    fn a_command_is_left_alone() {
        let args = ["--pid=1", "--", "--app", "x"].map(OsString::from).to_vec();
        assert_eq!(
            normalise(args, &[], &[], true).unwrap(),
            (vec!["--pid".into(), "1".into()], vec!["--app".into(), "x".into()])
        );
        let args = ["--pid=1", "sh", "-c", "--", "x"].map(OsString::from).to_vec();
        assert_eq!(normalise(args, &[], &[], true).unwrap().1, ["sh", "-c", "--", "x"].map(OsString::from));
    }

    #[test]
    fn dns_conf_modes() {
        let modes: DnsConfMode = "resolv=host,hosts=stage0".parse().unwrap();
        assert_eq!((modes.resolv.as_str(), modes.hosts.as_str()), ("host", "stage0"));
        assert_eq!("".parse::<DnsConfMode>().unwrap(), DnsConfMode::default());
        assert!("resolv=banana".parse::<DnsConfMode>().is_err() && "hosts=none".parse::<DnsConfMode>().is_err());
    }

    #[test]
    fn bad_booleans_are_refused() {
        assert!(normalise(vec!["--debug=maybe".into()], &["debug"], &[], false).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_value_survives_both_forms(value in "[^-\\PC][\\PC]{0,20}") {
            let joined = normalise(vec![format!("--app={value}").into()], &[], &[], false).unwrap();
            let split = normalise(vec!["--app".into(), value.clone().into()], &[], &[], false).unwrap();
            proptest::prop_assert_eq!(&joined, &split);
            proptest::prop_assert_eq!(joined.0, vec!["--app".to_owned(), value]);
        }
    }
}

//! Attaching to the streams of an app, and reopening its log file: the `attach` entrypoint.

use std::convert::Infallible;
use std::process::Command;

use stage1::appc::AcName;
use stage1::error::{Error, Result};
use stage1::terminal::DetachKeys;

use crate::entrypoint::spawn::{Entrypoint, Stage1};
use crate::poddir::find::{Pod, running_pid};
use crate::poddir::manifest::must_have;
use crate::store::Store;

/// The streams to attach to, as rkt's `--mode` says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttachMode {
    /// `auto`: all streams that the app has.
    Auto,
    /// `list`: list the streams, attach to none.
    List,
    /// These streams: `stdin`, `stdout`, `stderr`, `tty`, `tty-in`, `tty-out`.
    Custom(Vec<String>),
}

/// The names of streams, and the attach entrypoint's flags for each.
const STREAMS: [(&str, &[&str]); 6] = [
    ("stdin", &["--stdin=true"]),
    ("stdout", &["--stdout=true"]),
    ("stderr", &["--stderr=true"]),
    ("tty", &["--tty-in=true", "--tty-out=true"]),
    ("tty-in", &["--tty-in=true"]),
    ("tty-out", &["--tty-out=true"]),
];

impl std::str::FromStr for AttachMode {
    type Err = Error;

    /// Parses `auto`, `list`, or names of streams separated by commas.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "list" => Ok(Self::List),
            _ => {
                let known = |word: &str| STREAMS.iter().any(|(name, _)| *name == word);
                if !text.split(',').all(known) {
                    return Err(Error::new(format!(
                        "attach mode {text:?}: expected auto, list, or some of stdin, stdout, stderr, or of tty-in, tty-out, tty, \
                         separated by commas"
                    )));
                }
                Ok(Self::Custom(text.split(',').map(str::to_owned).collect()))
            }
        }
    }
}

/// Options of [`attach`].
#[derive(Clone, Debug)]
pub struct AttachOptions {
    /// The streams.
    pub mode: AttachMode,
    /// The key sequence that detaches, for example `ctrl-p,ctrl-q`; the entrypoint's default if `None`.
    pub keys: Option<String>,
    /// Whether the end of podctl's standard input closes the app's.
    pub pass_end: bool,
    /// Whether to leave out what the app wrote before. Another stage1 than podctl's own gives it as it does without.
    pub from_now: bool,
    /// Whether the entrypoint logs debug messages.
    pub debug: bool,
}

impl AttachOptions {
    /// The flags of the attach entrypoint. Unset options are left out: another stage1 may not know their flags.
    fn flags(&self, app: &AcName, ours: bool) -> Result<Vec<String>> {
        let mut flags = vec![format!("--app={app}"), format!("--debug={}", self.debug)];
        match &self.mode {
            AttachMode::List => flags.push("--action=list".to_owned()),
            AttachMode::Auto => flags.push("--action=auto-attach".to_owned()),
            AttachMode::Custom(streams) => {
                flags.push("--action=custom-attach".to_owned());
                let wanted = STREAMS.iter().filter(|(name, _)| streams.iter().any(|stream| stream == name));
                flags.extend(wanted.flat_map(|(_, switches)| switches.iter().map(|&switch| switch.to_owned())));
            }
        }
        if let Some(keys) = &self.keys {
            keys.parse::<DetachKeys>()?;
            flags.push(format!("--detach-keys={keys}"));
        }
        flags.extend(self.pass_end.then(|| "--eof".to_owned()));
        flags.extend((ours && self.from_now).then(|| "--from-now".to_owned()));
        Ok(flags)
    }
}

/// Replaces this process with the attach entrypoint.
///
/// # Errors
/// The pod does not run or has no such app, the detach keys are invalid, or the entrypoint can't be executed.
pub fn attach(store: &Store, pod: &Pod, app: &AcName, options: &AttachOptions) -> Result<Infallible> {
    let pid = running_pid(pod)?;
    must_have(pod, app)?;
    let stage1 = Stage1::of(store, pod.dir())?;
    let mut flags = options.flags(app, stage1.is_ours())?;
    flags.extend((stage1.is_ours() && options.mode != AttachMode::List).then(|| "--exit-code".to_owned()));
    stage1.cross_for_good(Entrypoint::Attach, pid, &flags)
}

/// The attach entrypoint as a program to be started.
///
/// # Errors
/// The pod does not run or has no such app, the options make no sense, or the stage1 has no such entrypoint.
pub fn program(store: &Store, pod: &Pod, app: &AcName, options: &AttachOptions) -> Result<Command> {
    let pid = running_pid(pod)?;
    must_have(pod, app)?;
    let stage1 = Stage1::of(store, pod.dir())?;
    let flags = options.flags(app, stage1.is_ours())?;
    stage1.crossing(Entrypoint::Attach, pid, &flags)
}

/// Makes the pod's monitor reopen the log file of an app, after the caller renamed it. The new file exists on return.
///
/// # Errors
/// The pod does not run or has no such app, the app has no log file, the monitor can't open the file, or the entrypoint
/// fails.
pub fn reopen_log(store: &Store, pod: &Pod, app: &AcName, debug: bool) -> Result<()> {
    let pid = running_pid(pod)?;
    must_have(pod, app)?;
    let flags = [format!("--app={app}"), format!("--debug={debug}"), "--action=reopen-log".to_owned()];
    Stage1::of(store, pod.dir())?.cross(Entrypoint::Attach, pid, &flags, None, None)?.success()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_those_of_rkt() {
        let flags = |mode: &str| {
            let mode = mode.parse().unwrap();
            let options = AttachOptions { mode, keys: None, pass_end: false, from_now: false, debug: false };
            options.flags(&"web".parse().unwrap(), false).unwrap()[2..].join(" ")
        };
        for (mode, expected) in [
            ("auto", "--action=auto-attach"),
            ("list", "--action=list"),
            ("stdin", "--action=custom-attach --stdin=true"),
            ("stderr,stdout", "--action=custom-attach --stdout=true --stderr=true"),
            ("tty", "--action=custom-attach --tty-in=true --tty-out=true"),
            ("tty-in", "--action=custom-attach --tty-in=true"),
            ("tty-out", "--action=custom-attach --tty-out=true"),
        ] {
            assert_eq!(flags(mode), expected);
        }
        for bad in ["", "stdin,", "all", "stdin,,stdout", "STDIN", "auto,stdin"] {
            assert!(bad.parse::<AttachMode>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn options_become_flags() {
        let app = "web".parse().unwrap();
        let mut options = AttachOptions {
            mode: AttachMode::Auto,
            keys: Some("ctrl-a,d".into()),
            pass_end: true,
            from_now: true,
            debug: true,
        };
        let expected = "--app=web --debug=true --action=auto-attach --detach-keys=ctrl-a,d --eof";
        assert_eq!(options.flags(&app, true).unwrap().join(" "), format!("{expected} --from-now"));
        assert_eq!(options.flags(&app, false).unwrap().join(" "), expected, "another stage1 does not know the flag");
        options.keys = Some("escape".into());
        assert!(options.flags(&app, true).is_err());
    }
}

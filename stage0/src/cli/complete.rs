//! Completing words in a shell: verbs and options by clap, pods, apps and images by `args::candidates`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::env::{EnvCompleter, Shells};
use stage1::error::{Context, Error, Result};

/// In the environment of a podctl that is to complete a word: the shell that asks.
const ASKED: &str = "PODCTL_COMPLETE";

/// Answers a shell that asks for candidates of a word of `command`. False if none does.
///
/// # Errors
/// What it asks can't be understood, or the answer not be written.
pub(super) fn answer(command: fn() -> clap::Command) -> std::result::Result<bool, clap::Error> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(command).var(ASKED).try_complete(std::env::args_os(), here.as_deref())
}

/// Shells that words are completed for.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Shell {
    /// source <(podctl completion bash)
    Bash,
    /// podctl completion fish | source
    Fish,
    /// source <(podctl completion zsh)
    Zsh,
}

/// The script asks podctl itself, so it knows the pods, apps and images there are.
#[derive(Args, Debug)]
pub struct Completion {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completion {
    pub fn run(self) -> Result<()> {
        let name = match self.shell {
            Shell::Bash => "bash",
            Shell::Fish => "fish",
            Shell::Zsh => "zsh",
        };
        let shells = Shells::builtins();
        let shell: &dyn EnvCompleter = shells.completer(name).context(|| format!("no completions for {name}"))?;
        let mut script = Vec::new();
        shell.write_registration(ASKED, "podctl", "podctl", "podctl", &mut script).map_err(failed)?;
        io::stdout().write_all(&script).map_err(failed)
    }
}

fn failed(error: io::Error) -> Error {
    Error::caused_by("write to standard output", error)
}

//! Completing words in a shell: verbs and options by clap, pods, apps and images by `args::candidates`.

use std::io::{self, Write};

use clap::{Args, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::env::{EnvCompleter, Shells};
use stage1::error::{Context, Error, Result};

/// The environment variable with the name of the shell that asks for completions.
const ASKED: &str = "PODCTL_COMPLETE";

/// Answers a shell that asks for completions of a word of `command`; `false` if none asks.
///
/// # Errors
/// The shell or its request is unknown, or the answer can't be written.
pub(super) fn answer(command: fn() -> clap::Command) -> std::result::Result<bool, clap::Error> {
    let here = std::env::current_dir().ok();
    CompleteEnv::with_factory(command).var(ASKED).try_complete(std::env::args_os(), here.as_deref())
}

/// The shells with completion scripts.
#[derive(ValueEnum, Clone, Copy, Debug)]
enum Shell {
    /// source <(podctl completion bash)
    Bash,
    /// podctl completion fish | source
    Fish,
    /// source <(podctl completion zsh)
    Zsh,
}

/// The script asks podctl for completions, so it knows the existing pods, apps and images.
#[derive(Args, Debug)]
pub struct Completion {
    /// The shell
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

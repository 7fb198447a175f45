//! `podctl login`

use std::io::{self, IsTerminal, Read, Write};
use std::os::fd::AsFd;

use clap::Args;
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};
use stage1::error::{Context, Error, Result};

use super::args::registry::{RegistryOptions, checked_registry};
use super::output::say;
use crate::interrupt::Watch;
use crate::registry::Credentials;

/// How much of a password is read, in bytes.
const MAX_SECRET: u64 = 64 << 10;

#[derive(Args, Debug)]
pub struct Login {
    /// The registry: HOST or HOST:PORT
    registry: String,
    /// Log in as this user (default: ask)
    #[arg(long, short)]
    username: Option<String>,
    /// Read the password from standard input instead of asking
    #[arg(long)]
    password_stdin: bool,
    #[command(flatten)]
    how: RegistryOptions,
}

impl Login {
    pub fn run(self) -> Result<()> {
        let registry = checked_registry(&self.registry)?;
        let user = match &self.username {
            Some(user) => user.clone(),
            None if self.password_stdin => return Err(Error::new("--password-stdin needs --username")),
            None => ask("Username: ", false)?,
        };
        let password = if self.password_stdin { line_of(io::stdin().lock())? } else { ask("Password: ", true)? };
        let credentials = Credentials::password(&user, &password)?;
        let watch = Watch::begin()?;
        let access = self.how.access(&watch)?;
        access.check(&registry, &credentials).context(|| format!("log in to {registry}"))?;
        let place = access.keyring.keep(&registry, &credentials)?;
        say(format!("saved the credentials for {registry} in {place}"))
    }
}

/// The first line of an input.
fn line_of(from: impl Read) -> Result<String> {
    let mut text = String::new();
    from.take(MAX_SECRET).read_to_string(&mut text).context(|| "read standard input")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// Prompts the user on the terminal; does not echo a secret.
fn ask(prompt: &str, is_secret: bool) -> Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::new("standard input is not a terminal: use --username and --password-stdin"));
    }
    eprint!("{prompt}");
    io::stderr().flush().context(|| "write to standard error")?;
    let before = tcgetattr(stdin.as_fd()).context(|| "tcgetattr")?;
    if is_secret {
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &hidden).context(|| "tcsetattr")?;
    }
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if is_secret {
        tcsetattr(stdin.as_fd(), SetArg::TCSAFLUSH, &before).context(|| "tcsetattr")?;
        eprintln!();
    }
    read.context(|| "read standard input")?;
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

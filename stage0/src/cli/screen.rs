//! Standard output as a terminal: its width, and whether to use colours.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use stage1::error::{Context, Result};

/// Tables are not made to fit a terminal with fewer columns than this.
const NARROWEST: usize = 20;

/// The width of the terminal on standard output, in columns; `None` if it is not a terminal, or has fewer than 20.
pub fn width() -> Option<usize> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten()?;
    Some(usize::from(size.ws_col)).filter(|width| *width >= NARROWEST)
}

/// Whether to print colours: on a terminal unless `NO_COLOR` or `CLICOLOR=0` is set; elsewhere only if `CLICOLOR_FORCE`
/// is set.
pub fn has_colours() -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let is = |name: &str, value: &str| set(name).is_some_and(|found| found == value);
    if set("NO_COLOR").is_some() {
        return false;
    }
    if set("CLICOLOR_FORCE").is_some() && !is("CLICOLOR_FORCE", "0") {
        return true;
    }
    io::stdout().is_terminal() && !is("CLICOLOR", "0") && !is("TERM", "dumb")
}

/// The meaning of a text, which a colour shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// All is well.
    Good,
    /// Something has failed.
    Bad,
    /// Paused.
    Held,
    /// Ended, or unimportant.
    Faint,
}

impl Tone {
    /// Its colour.
    pub fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Held => AnsiColor::Yellow.on_default(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

/// Prints one line on standard output.
pub fn say(text: impl std::fmt::Display) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").context(|| "write to standard output")
}

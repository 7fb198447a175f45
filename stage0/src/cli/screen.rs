//! The screen that standard output may be: its width, and whether it has colours.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use stage1::error::{Context, Result};

/// Narrower than this nothing is made to fit.
const NARROWEST: usize = 20;

/// How wide the terminal is that standard output is; `None` if it is none.
pub fn width() -> Option<usize> {
    let stdout = io::stdout();
    let size = stdout.is_terminal().then(|| rustix::termios::tcgetwinsize(&stdout).ok()).flatten()?;
    Some(usize::from(size.ws_col)).filter(|width| *width >= NARROWEST)
}

/// Whether what is printed has colours: on a terminal, unless `NO_COLOR` or `CLICOLOR=0` say otherwise; elsewhere only if
/// `CLICOLOR_FORCE` wants it.
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

/// What a text means, which a colour can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Something has failed.
    Bad,
    /// Over, or not worth a look.
    Faint,
}

impl Tone {
    /// Its colour.
    pub fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default(),
            Self::Faint => Style::new().dimmed(),
        }
    }
}

/// Prints one line on standard output.
pub fn say(text: impl std::fmt::Display) -> Result<()> {
    writeln!(io::stdout().lock(), "{text}").context(|| "write to standard output")
}

//! Progress of long operations, on standard error

use std::io::{IsTerminal, stdout};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use stage1::error::Result;

use crate::cli::output::say;
use crate::image::archive::ImageId;

/// Prints the id of an image that was pulled or imported: on a terminal its name and a short id.
pub fn say_what_came(id: &ImageId, name: &str) -> Result<()> {
    if stdout().is_terminal() { say(format!("{name}  {}", id.short())) } else { say(id) }
}

/// A progress bar for so many bytes on standard error, if that is a terminal.
pub fn progress(bytes: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {eta}") {
        bar.set_style(style);
    }
    bar.with_message(what)
}

/// A spinner on standard error, if that is a terminal.
pub fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

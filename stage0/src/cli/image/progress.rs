//! Progress of long operations, on standard error

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

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

//! Progress bars on standard error, one per blob, if it is a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// A transfer, in at most 80 columns, with sizes as "podctl images" has them.
const RUNNING: &str =
    "{msg:13} [{bar:20}] {decimal_bytes:>9}/{decimal_total_bytes:9} {decimal_bytes_per_sec:>11} {eta:>4}";
/// A transfer that is complete.
const DONE: &str = "{msg:13} [{bar:20}] {decimal_total_bytes:>9}";

/// A group of progress bars.
#[derive(Debug, Default)]
pub struct Bars(MultiProgress);

/// A progress bar; dropping it removes it, unless it is done.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bars {
    /// Adds a bar for a transfer of `bytes` bytes.
    pub fn add(&self, label: &str, bytes: u64) -> Bar {
        let bar = ProgressBar::new(bytes);
        set_style(&bar, RUNNING);
        Bar(self.0.add(bar.with_message(label.to_owned())))
    }
}

impl Bar {
    /// Sets the number of transferred bytes.
    pub fn set(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// Adds to the number of transferred bytes.
    pub fn more(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// Marks the transfer as complete; the bar stays visible.
    pub fn done(&self) {
        set_style(&self.0, DONE);
        self.0.finish();
    }
}

fn set_style(bar: &ProgressBar, template: &str) {
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.finish_and_clear();
        }
    }
}

//! Bars on standard error, one per blob, if that is a terminal.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Bars below each other.
#[derive(Debug, Default)]
pub struct Bars(MultiProgress);

/// One of them, which goes when it is dropped.
#[derive(Debug)]
pub struct Bar(ProgressBar);

impl Bars {
    /// Adds a bar of so many bytes.
    pub fn add(&self, label: &str, bytes: u64) -> Bar {
        let bar = ProgressBar::new(bytes);
        let template = "{msg:14} [{bar:24}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        Bar(self.0.add(bar.with_message(label.to_owned())))
    }
}

impl Bar {
    /// So many bytes are there.
    pub fn set(&self, bytes: u64) {
        self.0.set_position(bytes);
    }

    /// So many more bytes are there.
    pub fn more(&self, bytes: u64) {
        self.0.inc(bytes);
    }

    /// All is there; the bar stays until all others are.
    pub fn done(&self) {
        self.0.finish();
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if !self.0.is_finished() {
            self.0.finish_and_clear();
        }
    }
}

//! The sinks of apps' output, and what the streams of all apps share.

use std::cell::Cell;
use std::rc::Rc;

use super::console::Console;
use super::file::AppLog;
use super::journald::Journald;
use super::kube::KubeLog;
use super::lines;
use super::listener::Spare;
use super::poller::Poller;

/// Where an app's output goes.
pub(super) struct Sinks<'a> {
    pub(super) log: Option<&'a mut AppLog>,
    pub(super) kube: Option<&'a mut KubeLog>,
    pub(super) journald: Option<&'a mut Journald>,
    pub(super) console: &'a mut Console,
    /// The buffer for reads from apps.
    pub(super) scratch: &'a mut Vec<u8>,
    pub(super) spare: &'a mut Spare,
    /// Whole lines to be written to the log: empty between one source and the next.
    pub(super) gathered: &'a mut Vec<u8>,
    /// Lines for another sink: empty between one use and the next.
    pub(super) draft: &'a mut Vec<u8>,
}

impl Sinks<'_> {
    /// The current time in the format of log files.
    pub(super) fn time(&self) -> String {
        lines::rfc3339(lines::now())
    }

    /// Writes the gathered lines to the log.
    pub(super) fn write_log(&mut self) {
        if let Some(log) = self.log.as_deref_mut() {
            log.write(self.gathered);
        }
    }
}

/// What the streams of all apps share.
#[derive(Debug)]
pub(super) struct Tools {
    pub(super) poller: Rc<Poller>,
    pub(super) serial: Rc<Cell<u32>>,
    pub(super) console: Console,
    pub(super) scratch: Vec<u8>,
    pub(super) spare: Spare,
    pub(super) gathered: Vec<u8>,
    pub(super) draft: Vec<u8>,
}

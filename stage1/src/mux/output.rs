//! An app's output at one endpoint: its sources and its sinks. Host side.

use super::buffer::{GATHER, empty};
use super::console::{Show, Shown};
use super::journald::Entries;
use super::lines::Lines;
use super::poller::Watched;
use super::ring::Ring;
use super::sinks::Sinks;
use crate::error::Result;

/// An app's output at one endpoint.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) sources: Vec<OutputSource>,
    pub(super) ring: Ring,
    /// How many bytes are kept while no client is attached.
    pub(super) replay: usize,
    /// The last run of the app has ended, and no other has begun.
    pub(super) ended: bool,
    /// The position up to which some client has read: what is before it is not replayed.
    pub(super) delivered: u64,
    lines: Lines,
    kube: Option<Lines>,
    pub(super) shown: Option<Shown>,
    entries: Option<Entries>,
}

/// The pipe or terminal that one run of the app, or of a handler, writes to.
#[derive(Debug)]
pub(super) struct OutputSource {
    pub(super) fd: Watched,
    /// It is the app's own, not a handler's.
    pub(super) main: bool,
    pub(super) is_terminal: bool,
    /// After the app's end: how many bytes are still to be read of those that were there then.
    pub(super) left: Option<u64>,
}

impl Output {
    /// `replay` bytes are kept for a client that attaches later.
    pub(super) fn new(
        replay: usize,
        lines: Lines,
        kube: Option<Lines>,
        shown: Option<Shown>,
        entries: Option<Entries>,
    ) -> Self {
        let ring = Ring::new(replay);
        Self { sources: Vec::new(), ring, replay, ended: false, delivered: 0, lines, kube, shown, entries }
    }

    /// Whether the output goes to clients only.
    pub(super) fn is_for_clients_only(&self, sinks: &Sinks<'_>) -> bool {
        sinks.log.is_none()
            && sinks.kube.is_none()
            && sinks.journald.is_none()
            && (self.shown.is_none() || sinks.console.show == Show::Nothing)
    }

    /// Writes output to all sinks, except to the clients: these have got the first `sent` bytes of it.
    pub(super) fn take(&mut self, bytes: &[u8], sent: usize, sinks: &mut Sinks<'_>) -> Result<()> {
        if sent > 0 {
            self.ring.skip(sent);
        }
        self.ring.push(&bytes[sent..]);
        let time = sinks.time();
        if let Some(log) = sinks.log.as_deref_mut() {
            self.lines.take(bytes, &time, sinks.gathered);
            if sinks.gathered.len() >= GATHER {
                log.write(sinks.gathered);
            }
        }
        if let (Some(lines), Some(kube)) = (&mut self.kube, sinks.kube.as_deref_mut()) {
            lines.take(bytes, &time, sinks.draft);
            kube.write(sinks.draft);
            empty(sinks.draft);
        }
        if let (Some(entries), Some(journald)) = (&mut self.entries, sinks.journald.as_deref_mut()) {
            entries.take(bytes, journald);
        }
        self.shown.as_mut().map_or(Ok(()), |shown| shown.take(bytes, sinks.console, sinks.draft))
    }

    /// Writes the last line to all sinks, if it has no newline.
    pub(super) fn finish(&mut self, sinks: &mut Sinks<'_>) -> Result<()> {
        let time = sinks.time();
        if sinks.log.is_some() {
            self.lines.finish(&time, sinks.gathered);
        }
        if let (Some(lines), Some(kube)) = (&mut self.kube, sinks.kube.as_deref_mut()) {
            lines.finish(&time, sinks.draft);
            kube.write(sinks.draft);
            empty(sinks.draft);
        }
        if let (Some(entries), Some(journald)) = (&mut self.entries, sinks.journald.as_deref_mut()) {
            entries.finish(journald);
        }
        self.shown.as_mut().map_or(Ok(()), |shown| shown.finish(sinks.console, sinks.draft))
    }
}

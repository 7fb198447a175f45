//! `podctl run`, `prepare` and `run-prepared`: pods with all their apps

use std::ffi::OsString;

use clap::{Args, Parser};
use stage1::error::Result;

use super::app::NewApp;
use super::sandbox::{HowToRun, WhatToMake};
use super::{Session, say};
use crate::apps::AddOptions;
use crate::launch::{Launch, Settings};
use crate::pods::{self, HeldPod};
use crate::{immutable, sandbox};

/// Stands between the apps of one command line.
const SEPARATOR: &str = "---";

/// The words before the first separator, and those of each further app.
pub fn split_apps(words: Vec<OsString>) -> (Vec<OsString>, Vec<Vec<OsString>>) {
    let mut groups = words.split(|word| word == SEPARATOR).map(<[OsString]>::to_vec);
    let first = groups.next().unwrap_or_default();
    (first, groups.collect())
}

/// A further app: its words have to be understood by themselves.
#[derive(Parser, Debug)]
#[command(name = "podctl run … ---", disable_help_flag = true)]
struct Further {
    #[command(flatten)]
    app: NewApp,
}

/// A pod and its apps.
#[derive(Args, Debug)]
pub struct NewPod {
    #[command(flatten)]
    run: HowToRun,
    #[command(flatten)]
    make: WhatToMake,
    /// Give this terminal to the pod's only app
    #[arg(long)]
    interactive: bool,
    #[command(flatten)]
    first: NewApp,
    #[arg(skip)]
    further: Vec<NewApp>,
}

impl NewPod {
    /// Adds the apps that follow the first one.
    pub fn understand(&mut self, further: Vec<Vec<OsString>>) -> Result<(), clap::Error> {
        for words in further {
            let words = std::iter::once(OsString::from("podctl")).chain(words);
            self.further.push(Further::try_parse_from(words)?.app);
        }
        Ok(())
    }

    /// The apps, in order.
    #[cfg(test)]
    pub fn apps(&self) -> impl Iterator<Item = &NewApp> {
        std::iter::once(&self.first).chain(&self.further)
    }

    fn prepare(self, session: &Session) -> Result<(HeldPod, Settings)> {
        let settings = Settings { interactive: self.interactive, ..self.run.settings()? };
        let apps = std::iter::once(self.first).chain(self.further);
        let apps: Vec<AddOptions> = apps.map(|app| app.options(session.debug)).collect();
        let manifest = self.make.manifest(&settings)?;
        let stage1 = self.make.stage1(session)?;
        let pod = immutable::prepare(&session.store, &stage1, manifest, &apps, self.make.making(), &settings)?;
        Ok((pod, settings))
    }
}

#[derive(Args, Debug)]
#[command(after_help = "More apps follow after ---, each with its own image, options and arguments.")]
pub struct Run {
    #[command(flatten)]
    pub pod: NewPod,
    /// Remove the pod when it has ended
    #[arg(long)]
    rm: bool,
}

impl Run {
    pub fn run(self, session: &Session) -> Result<u8> {
        let (pod, settings) = self.pod.prepare(session)?;
        to_the_end(session, pod, settings, self.rm)
    }
}

#[derive(Args, Debug)]
#[command(after_help = "More apps follow after ---, each with its own image, options and arguments.")]
pub struct Prepare {
    #[command(flatten)]
    pub pod: NewPod,
}

impl Prepare {
    pub fn run(self, session: &Session) -> Result<()> {
        let (pod, _) = self.pod.prepare(session)?;
        say(pod.uuid())
    }
}

#[derive(Args, Debug)]
pub struct RunPrepared {
    /// The pod's UUID, or the start of it
    uuid: String,
    #[command(flatten)]
    run: HowToRun,
    /// Give this terminal to the pod's only app
    #[arg(long)]
    interactive: bool,
    /// Remove the pod when it has ended
    #[arg(long)]
    rm: bool,
}

impl RunPrepared {
    pub fn run(self, session: &Session) -> Result<u8> {
        let settings = Settings { interactive: self.interactive, ..self.run.settings()? };
        let pod = pods::find(&session.store, &self.uuid)?;
        let (pod, settings) = immutable::take_prepared(&session.store, &pod, settings)?;
        to_the_end(session, pod, settings, self.rm)
    }
}

/// Runs a prepared pod on this terminal. The result is the exit code of its process.
fn to_the_end(session: &Session, pod: HeldPod, settings: Settings, remove: bool) -> Result<u8> {
    let launch = Launch { settings, mutable: false, debug: session.debug };
    let pod = immutable::mount(&session.store, pod)?;
    if remove {
        return immutable::run_and_remove(&session.store, pod, &launch);
    }
    match sandbox::become_pod(&session.store, pod, &launch)? {}
}

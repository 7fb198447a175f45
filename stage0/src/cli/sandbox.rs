//! `podctl sandbox`

use clap::Args;
use stage1::error::Result;

use super::args::label;
use super::args::new_pod::{HowToRun, WhatToMake, pod_name};
use super::output::say;
use super::session::Session;
use crate::pod::create;
use crate::pod::ports;
use crate::pod::settings::Launch;
use crate::poddir::claim;

#[derive(Args, Debug)]
pub struct Sandbox {
    /// Name the pod; all commands accept the name in place of its UUID
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    run: HowToRun,
    #[command(flatten)]
    make: WhatToMake,
    /// Give the pod a label
    #[arg(short, long = "label", value_name = "NAME[=VALUE]")]
    labels: Vec<String>,
    /// Give the pod an annotation
    #[arg(long = "annotation", value_name = "NAME[=VALUE]")]
    annotations: Vec<String>,
    /// Stay in the foreground, with the pod's output on this terminal, until the pod ends
    #[arg(long)]
    foreground: bool,
}

impl Sandbox {
    pub fn run(self, session: &Session) -> Result<()> {
        let name = pod_name(self.name.as_deref(), session)?;
        let launch = Launch { settings: self.run.settings()?, mutable: true, debug: session.debug };
        let mut manifest = create::mutable(self.make.manifest(&launch.settings)?);
        ports::must_be_free_now(&session.store, None, &manifest)?;
        for (texts, map) in
            [(&self.labels, &mut manifest.user_labels), (&self.annotations, &mut manifest.user_annotations)]
        {
            map.extend(label::pairs(texts)?.into_iter().map(|(name, value)| (name, value.into())));
        }
        let stage1 = self.make.stage1(session)?;
        let pod = create::prepare(&session.store, &stage1, &manifest, self.make.making(), |dir| {
            name.map_or(Ok(()), |name| claim::give(&session.store, dir, &name))
        })?;
        let pod = create::mount(&session.store, pod)?;
        if self.foreground {
            match create::become_pod(&session.store, pod, &launch)? {}
        }
        // the pod outlives this process
        let (uuid, _) = create::start(&session.store, pod, &launch)?;
        say(uuid)
    }
}

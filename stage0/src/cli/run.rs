//! `podctl run`

use clap::Args;
use stage1::error::Result;

use super::args::new_pod::NewPod;
use super::session::Session;
use crate::pod::create;
use crate::pod::immutable;
use crate::pod::ports;
use crate::pod::settings::{Launch, Settings};
use crate::poddir::manifest;
use crate::poddir::phase::HeldPod;
use crate::rootfs::Roots;

#[derive(Args, Debug)]
#[command(
    after_help = "More apps follow after ---, each with its own image, options and arguments. As an argument, --- is written \\---; at the end of the line it needs no backslash."
)]
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

/// Runs a prepared pod on this terminal. With `remove` it returns the exit code of the pod's process and removes the
/// pod; otherwise this process becomes the pod's.
pub(super) fn to_the_end(session: &Session, pod: HeldPod, settings: Settings, remove: bool) -> Result<u8> {
    let free = manifest::read(pod.dir())
        .and_then(|manifest| ports::must_be_free_now(&session.store, Some(pod.uuid()), &manifest));
    if let Err(error) = free {
        return Err(create::given_up(&session.store, pod, error));
    }
    let launch = Launch { settings, mutable: false, debug: session.debug };
    if remove {
        Roots::throw_away(pod.dir())?;
    }
    let pod = immutable::mount(&session.store, pod)?;
    if remove {
        return immutable::run_and_remove(&session.store, pod, &launch);
    }
    match create::become_pod(&session.store, pod, &launch)? {}
}

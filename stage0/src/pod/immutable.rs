//! Immutable pods: their apps are listed before they run, and they end when their apps have ended.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use stage1::appc::PodManifest;
use stage1::error::{Context, Error, Result, exit};
use stage1::sys::process::{self, Fork};
use stage1::sys::signal;

use crate::app::add::check_addition;
use crate::app::files::AppFiles;
use crate::app::groups;
use crate::app::health;
use crate::app::host_record::AppRecord;
use crate::app::mounts;
use crate::app::options::AddOptions;
use crate::app::run_again;
use crate::image::store::Image;
use crate::image::store::find;
use crate::pod::create;
use crate::pod::create::Making;
use crate::pod::gc;
use crate::pod::settings::{Launch, Settings};
use crate::poddir::claim;
use crate::poddir::find as pods;
use crate::poddir::find::Pod;
use crate::poddir::manifest;
use crate::poddir::name::PodName;
use crate::poddir::phase::{HeldPod, Phase};
use crate::rootfs::Roots;
use crate::store::Store;

/// Makes a pod with this manifest, these apps and this name. The pod is prepared then, and held.
///
/// # Errors
/// The options of an app are invalid or conflict, an image does not exist, the name is taken, or a file can't be
/// written. The pod is removed then.
pub fn prepare(
    store: &Store,
    stage1: &Image,
    mut manifest: PodManifest,
    apps: &[AddOptions],
    making: Making,
    settings: &Settings,
    name: Option<&PodName>,
) -> Result<HeldPod> {
    let mut images = Vec::new();
    for options in apps {
        let image = find::find(store, &options.image)?;
        let mut app = options.runtime_app(&image)?;
        mounts::place(store, &manifest.volumes, &options.binds, &mut app)?;
        health::give(store, &image, &options.health, &mut app).context(|| format!("app {}", app.name))?;
        groups::give(store, &image, options.group_request(), &mut app).context(|| format!("app {}", app.name))?;
        check_addition(&manifest, &app).context(|| format!("app {}", app.name))?;
        manifest.apps.push(app);
        images.push(image);
    }
    check_terminal(&manifest, settings)?;
    run_again::in_order(&manifest)?;
    create::prepare(store, stage1, &manifest, making, |dir| {
        name.map_or(Ok(()), |name| claim::give(store, dir, name))?;
        for ((app, image), options) in manifest.apps.iter().zip(&images).zip(apps) {
            let files = AppFiles::new(dir, &app.name);
            files.write_info(store, image).context(|| format!("app {}", app.name))?;
            AppRecord::new(dir, &app.name).keep_of(image, options)?;
        }
        settings.save(dir)?;
        apps.iter().filter_map(AddOptions::secrets).try_for_each(|secrets| secrets.put_in_place(dir))?;
        if Roots::of(dir)?.are_overlays() { Ok(()) } else { make_apps(store, dir, &manifest) }
    })
}

/// Fails if the pod has the terminal and not exactly one app.
fn check_terminal(manifest: &PodManifest, settings: &Settings) -> Result<()> {
    match manifest.apps.len() {
        several if settings.interactive && several != 1 => {
            Err(Error::new(format!("--interactive needs a pod with one app: this one has {several}")))
        }
        _ => Ok(()),
    }
}

/// Locks a prepared pod. Returns it with `settings`, completed by those that it was prepared with.
///
/// # Errors
/// The pod is in another phase, another process runs it, or the settings don't fit it.
pub fn take_prepared(store: &Store, pod: &Pod, settings: Settings) -> Result<(HeldPod, Settings)> {
    let not_prepared = |pod: &Pod| Error::new(format!("pod {} is {}, not prepared", pod.short(), pod.state().word()));
    if pod.phase() != Phase::Prepared {
        return Err(not_prepared(pod));
    }
    let Some(held) = HeldPod::take(pod)? else {
        return Err(not_prepared(&pods::find_whole(store, pod.uuid())?));
    };
    let settings = settings.or(Settings::load(held.dir())?);
    check_terminal(&manifest::read(held.dir())?, &settings)?;
    Ok((held, settings))
}

/// Moves a prepared pod to phase run and mounts the roots of its stage1 and its apps, in this (the host's) mount
/// namespace. A pod without overlays has copied roots already.
///
/// # Errors
/// A port of the host that the pod publishes is taken, or a mount fails. The pod is removed then.
pub fn mount(store: &Store, pod: HeldPod) -> Result<HeldPod> {
    let has_all = !Roots::of(pod.dir())?.are_overlays();
    let pod = create::mount(store, pod)?;
    if has_all {
        return Ok(pod);
    }
    match manifest::read(pod.dir()).and_then(|manifest| make_apps(store, pod.dir(), &manifest)) {
        Ok(()) => Ok(pod),
        Err(error) => Err(create::given_up(store, pod, error)),
    }
}

fn make_apps(store: &Store, dir: &Path, manifest: &PodManifest) -> Result<()> {
    manifest.apps.iter().try_for_each(|app| {
        AppFiles::new(dir, &app.name).put_in_place(store, app, None).context(|| format!("app {}", app.name))
    })
}

/// The signals that `run --rm` passes on to stop the pod in order, and SIGCHLD, which reports the end of its process.
const SIGNALS: &[Signal] = &[Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];

/// Runs a mounted pod to its end and removes it. Returns the exit code of its process, 128 plus the number of a signal
/// that killed it.
///
/// # Errors
/// The pod can't be run or removed.
pub fn run_and_remove(store: &Store, pod: HeldPod, launch: &Launch) -> Result<u8> {
    let ended = match start(store, &pod, launch) {
        Ok((child, signals)) => accompany(child, &signals),
        Err(error) => Err(error),
    };
    let removed = gc::discard(store, pod, launch.debug).context(|| "remove the pod");
    ended.and_then(|code| removed.map(|()| code))
}

fn start(store: &Store, pod: &HeldPod, launch: &Launch) -> Result<(Pid, nix::sys::signalfd::SignalFd)> {
    let parent = process::pidfd_open(std::process::id().cast_signed())?;
    let signals = signal::block(SIGNALS)?;
    match process::fork()? {
        Fork::Parent(child) => Ok((child, signals)),
        Fork::Child => {
            let run = || -> Result<Infallible> {
                // the pod must not outlive the command that removes it
                process::die_with_parent()?;
                if process::pidfd_wait_end(&parent, Duration::ZERO)? {
                    return Err(Error::new("the command that runs the pod has ended"));
                }
                create::exec_run(store, pod, launch)
            };
            let Err(error) = run();
            eprintln!("podctl: {}", error.one_line());
            process::exit_now(exit::COMMAND.into())
        }
    }
}

/// Passes signals on to the pod's process until it ends; returns its exit code.
fn accompany(child: Pid, signals: &nix::sys::signalfd::SignalFd) -> Result<u8> {
    loop {
        let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).context(|| "poll"),
        }
        while let Some(info) = signals.read_signal().context(|| "read(signalfd)")? {
            let number = i32::try_from(info.ssi_signo).context(|| "signal number")?;
            // the terminal sends its signals to the whole process group, including the pod's process
            if number == Signal::SIGCHLD as i32 || info.ssi_code == SI_KERNEL {
                continue;
            }
            let signal = Signal::try_from(number).context(|| format!("signal {number}"))?;
            match nix::sys::signal::kill(child, signal) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(errno) => return Err(errno).context(|| format!("kill({child}, {signal})")),
            }
        }
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).context(|| format!("waitpid({child})"))? {
            WaitStatus::Exited(_, code) => return Ok(code.to_le_bytes()[0]),
            WaitStatus::Signaled(_, signal, _) => return Ok(128 + (signal as i32).to_le_bytes()[0]),
            _ => {}
        }
    }
}

/// `si_code` of a signal that the kernel sends by itself: sigaction(2).
const SI_KERNEL: i32 = 0x80;

//! Applies a pod file: makes a new pod, or changes the apps and ports of the running one.
//!
//! Errors in the file are found before anything is changed. If a later step fails, the steps before it are undone.

use std::cell::Cell;
use std::time::Duration;

use stage1::appc::{AcName, NameValue, PodManifest, RuntimeApp};
use stage1::error::{Context, Error, Result};
use stage1::pod::AppState;

use super::change::{self, AppChange};
use super::container;
use super::made_outside::Made;
use super::origin::ORIGIN;
use super::plan::{AppPlan, PodPlan, Pull};
use super::pod::{INIT, init_mark};
use super::up_lock::{self, UpLock};
use crate::app::host_record::AppRecord;
use crate::app::options::AddOptions;
use crate::app::{add, groups, interrupted, lifecycle, status};
use crate::image::store::Image;
use crate::image::store::find as images;
use crate::logs::{self, LineFilter};
use crate::pod::create::{self, Making};
use crate::pod::settings::{Launch, Settings};
use crate::pod::stop::{self, StopOptions};
use crate::pod::sysctl;
use crate::pod::{ending, gc, ports, start};
use crate::poddir::claim;
use crate::poddir::find as pods;
use crate::poddir::find::{Pod, State};
use crate::poddir::manifest::{self, Locked};
use crate::poddir::pause;
use crate::poddir::uid_range::{self, PrivateUsers};
use crate::store::Store;
use crate::volume::content::{self, Content};
use crate::volume::{implicit, named};

/// How often `up` checks whether an init container has ended.
const POLL: Duration = Duration::from_millis(20);

/// How often an init container that fails is tried again, after 1 s, 2 s, 4 s and so on.
const RETRIES: u32 = 5;

/// How many lines of the log of a failed init container to show.
const LAST_LINES: usize = 20;
/// How much of each of them, in bytes.
const LONGEST_LINE: usize = 500;

/// How to apply a file.
pub struct How<'a> {
    /// Pulls the image with this name as the policy says; returns the word by which the store finds it.
    pub obtain: &'a dyn Fn(&str, Pull) -> Result<String>,
    /// Returns the stage1 image for a new pod.
    pub stage1: &'a dyn Fn() -> Result<Image>,
    /// Called with a line for each change.
    pub say: &'a dyn Fn(&str) -> Result<()>,
    /// Replaces a running pod by a new one if it differs in what can't be changed while it runs.
    pub replace: bool,
    /// Changes nothing and only says what would be changed.
    pub dry: bool,
    /// Whether the entrypoints log debug messages.
    pub debug: bool,
}

/// Makes the pods of the plans, or changes the running ones with their names. Removes a pod with the name that has ended.
/// Whatever can be refused of any pod is refused before anything is made.
///
/// # Errors
/// A plan is invalid, a pod can't be changed as it runs and `replace` is not set, or a step failed: the error says
/// which, and whether the steps before it were undone.
pub fn up(store: &Store, plans: &[PodPlan], how: &How<'_>) -> Result<()> {
    let shown = |plan: &PodPlan| format!("pod {}", plan.name);
    let wanted = plans.iter().map(|plan| wanted(store, plan, how).context(|| shown(plan)));
    let wanted = wanted.collect::<Result<Vec<_>>>()?;
    plans.iter().zip(&wanted).try_for_each(|(plan, wanted)| up_one(store, plan, wanted, how).context(|| shown(plan)))
}

fn up_one(store: &Store, plan: &PodPlan, wanted: &[WantedApp], how: &How<'_>) -> Result<()> {
    let Some(pod) = pods::named(store, plan.name.as_str())? else {
        return make(store, plan, wanted, how);
    };
    let lock = if how.dry { None } else { Some(UpLock::take(pod.dir())?) };
    let Some(pod) = await_end(store, pod, how)? else {
        drop(lock);
        return make(store, plan, wanted, how);
    };
    match pod.state() {
        State::Running => {}
        State::Exited | State::ExitedGarbage | State::Garbage | State::PrepareFailed | State::Deleting => {
            let name = &plan.name;
            if how.dry {
                (how.say)(&format!(
                    "pod {name}: it has ended: it would be removed, with what its apps wrote (\"podctl start {name}\" keeps it)"
                ))?;
            } else {
                gc::rm(store, pod, how.debug).context(|| "remove the pod that has ended")?;
                (how.say)(&format!("pod {name}: it had ended and was removed"))?;
            }
            drop(lock);
            return make(store, plan, wanted, how);
        }
        State::Embryo | State::Preparing => return Err(up_lock::others_work()),
        other => return Err(Error::new(format!("it is {}: \"podctl rm {}\" frees the name", other.word(), plan.name))),
    }
    if !how.dry {
        pause::must_go_on(&pod, None)?;
        start::await_ready(store, &pod)?;
        interrupted::finish(store, &pod, how.debug)?;
    }
    let manifest = manifest::read(pod.dir())?;
    manifest::must_be_mutable(&manifest)?;
    let has_ids = uid_range::of_pod(pod.dir())?.is_some();
    let differs = change::of_pod(plan, &pod, &Settings::load(pod.dir())?, &manifest, has_ids);
    if differs == [change::PORTS] {
        change_with_ports(store, &pod, plan, wanted, &manifest, how)?;
        return must_still_run(store, &pod, how);
    }
    if !differs.is_empty() {
        if !how.replace {
            return Err(Error::new(format!(
                "{} can't be changed while the pod runs: --replace makes it anew",
                differs.join(", ")
            )));
        }
        (how.say)(&format!("pod {}: made anew, for {}", plan.name, differs.join(", ")))?;
        if how.dry {
            return Ok(());
        }
        stop::stop(store, &pod, StopOptions { debug: how.debug, ..StopOptions::default() })?;
        gc::rm(store, pods::find_whole(store, pod.uuid())?, how.debug)?;
        return make(store, plan, wanted, how);
    }
    let changed = change(store, &pod, plan, wanted, how)?;
    must_still_run(store, &pod, how)?;
    if changed {
        return Ok(());
    }
    let ended = ended(&pod, wanted)?.join(", ");
    let ended = if ended.is_empty() { ended } else { format!("; ended: {ended} (\"podctl app start\" starts them)") };
    (how.say)(&format!("pod {}: unchanged{ended}", plan.name))
}

/// The apps of the file that were stopped or have failed, init containers aside.
fn ended(pod: &Pod, wanted: &[WantedApp]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for one in wanted.iter().filter(|one| !one.init) {
        let now = status::status(pod, &one.app.name)?;
        if now.state == AppState::Exited.word() && (now.stopped || now.exit_code != Some(0)) {
            names.push(one.app.name.to_string());
        }
    }
    Ok(names)
}

/// Waits for the end of a pod that is ending, unless `how` says to change nothing. Returns the pod as it is then; `None`
/// if another process has removed it meanwhile, or if it is only to be said what would be done.
fn await_end(store: &Store, pod: Pod, how: &How<'_>) -> Result<Option<Pod>> {
    match pods::while_others_work(store, &pod, |pod| ending::of(store, pod))? {
        Some(None) => {}
        Some(Some(run)) => {
            (how.say)(&format!(
                "pod {}: it is ending{}",
                pod.short(),
                if how.dry { "" } else { ": waiting for its end" }
            ))?;
            if how.dry {
                return Ok(None);
            }
            ending::wait(store, &pod, run)?;
        }
        None => return Ok(None),
    }
    Ok(pods::find_whole(store, pod.uuid()).ok())
}

/// Fails if the pod has ended, or is ending, since it was changed: nothing of the file is in force then.
fn must_still_run(store: &Store, pod: &Pod, how: &How<'_>) -> Result<()> {
    let runs = |pod: &Pod| Ok(pod.state() == State::Running && ending::of(store, pod)?.is_none());
    if how.dry || pods::while_others_work(store, pod, runs)? == Some(true) {
        return Ok(());
    }
    Err(Error::new("another command ended it meanwhile: run \"podctl up\" again, which makes it anew"))
}

/// Changes the pod's published ports and then its apps; restores the ports if the apps can't be changed.
fn change_with_ports(
    store: &Store,
    pod: &Pod,
    plan: &PodPlan,
    wanted: &[WantedApp],
    before: &PodManifest,
    how: &How<'_>,
) -> Result<()> {
    if !how.dry {
        ports::set(store, pod, &plan.ports).context(|| "ports")?;
    }
    (how.say)(&format!("pod {}: ports {}changed", plan.name, if how.dry { "would be " } else { "" }))?;
    change(store, pod, plan, wanted, how).map(drop).map_err(|error| {
        if how.dry {
            return error;
        }
        match ports::set(store, pod, &before.ports) {
            Ok(()) => error,
            Err(also) => {
                Error::new(format!("{}; restoring the ports failed, too: {}", error.one_line(), also.one_line()))
            }
        }
    })
}

/// An app of the file, with its entry for the pod's manifest.
struct WantedApp {
    image: Image,
    app: RuntimeApp,
    options: AddOptions,
    init: bool,
    /// How often it is tried again if it fails.
    retries: u32,
}

/// Gets the images of a plan; returns its apps, checked. Makes nothing.
fn wanted(store: &Store, plan: &PodPlan, how: &How<'_>) -> Result<Vec<WantedApp>> {
    let mut manifest = PodManifest::default();
    let mut found = Vec::new();
    for app in &plan.apps {
        let name = app.options.name.as_deref().unwrap_or_default();
        let one = wanted_app(store, app, how).context(|| format!("container {name}"))?;
        add::check_addition(&manifest, &without_new_sources(store, plan, &one.app))?;
        manifest.apps.push(one.app.clone());
        found.push(one);
    }
    Ok(found)
}

/// The app without the mounts whose sources [`Made`] makes.
fn without_new_sources(store: &Store, plan: &PodPlan, app: &RuntimeApp) -> RuntimeApp {
    let is_new = |source: &str| {
        named::of_source(store, source).is_some()
            || plan.host_paths.iter().any(|new| new.path == std::path::Path::new(source))
    };
    let mut app = app.clone();
    app.mounts.retain(|mount| {
        let source = mount.app_volume.as_ref().and_then(|volume| volume.source.as_deref());
        !source.is_some_and(is_new)
    });
    app
}

fn wanted_app(store: &Store, plan: &AppPlan, how: &How<'_>) -> Result<WantedApp> {
    let image = images::find(store, &(how.obtain)(&plan.options.image, plan.pull)?)?;
    let exec: &[String] = image.parsed.app.as_ref().map_or(&[], |app| &app.exec);
    let command = container::words(plan, &image.parsed.annotations, exec)?;
    let options = AddOptions { command, debug: how.debug, image: image.id.to_string(), ..plan.options.clone() };
    let mut app = options.runtime_app(&image)?;
    groups::give(store, &image, options.group_request(), &mut app)?;
    if plan.init {
        app.annotations.push(init_mark());
    }
    let user = app.app.as_ref().map(|app| app.user.as_str()).unwrap_or_default();
    if plan.non_root && matches!(user, "" | "0" | "root") {
        return Err(Error::new("runAsNonRoot: its user is root; set runAsUser"));
    }
    let retries = if plan.retried { RETRIES } else { 0 };
    Ok(WantedApp { image, app, options, init: plan.init, retries })
}

/// Makes a new pod with all its apps; removes the pod again if one fails.
fn make(store: &Store, plan: &PodPlan, wanted: &[WantedApp], how: &How<'_>) -> Result<()> {
    if how.dry {
        (how.say)(&format!("pod {}: would be made, with {}", plan.name, names(wanted)))?;
        return Ok(());
    }
    let stage1 = (how.stage1)()?;
    let manifest = create::mutable(PodManifest {
        annotations: sysctl::annotation(&plan.sysctls)?.into_iter().collect(),
        ports: plan.ports.clone(),
        isolators: plan.isolators.clone(),
        user_labels: plan.labels.clone(),
        user_annotations: plan.annotations.clone(),
        ..PodManifest::default()
    });
    let launch = Launch { settings: plan.settings.clone(), mutable: true, debug: how.debug };
    let making = Making { no_overlay: false, private_users: plan.private_users.then_some(PrivateUsers::Auto) };
    let (mut made, mut lock) = (None, None);
    let held = create::prepare(store, &stage1, &manifest, making, |dir| {
        lock = Some(UpLock::take(dir)?);
        claim::give(store, dir, &plan.name).map_err(|error| match pods::named(store, plan.name.as_str()) {
            // it was not there when this process looked for it
            Ok(Some(_)) => up_lock::others_work(),
            _ => error,
        })?;
        made = Some(Made::of(store, plan)?);
        plan.settings.save(dir)?;
        plan.contents.iter().try_for_each(|content| content.put_in_place(dir))
    });
    let started = held.and_then(|held| create::start(store, create::mount(store, held)?, &launch));
    let Some(made) = made else { return started.map(drop) };
    let (uuid, _) = match started {
        Ok(started) => started,
        Err(error) => return Err(made.undo(error)),
    };
    let pod = pods::find_whole(store, uuid)?;
    let mut work = Work::new(store, &pod, plan, &made, how);
    let said = (how.say)(&format!("pod {}: started", plan.name));
    let Err(error) = said.and_then(|()| work.bring(wanted, &manifest)) else { return Ok(()) };
    let ended = stop::stop(store, &pod, StopOptions { force: true, debug: how.debug, ..StopOptions::default() })
        .and_then(|()| gc::rm(store, pods::find_whole(store, uuid)?, how.debug));
    Err(made.undo(match ended {
        Ok(()) => Error::new(format!("{}; the pod was removed again", error.one_line())),
        Err(also) => Error::new(format!("{}; removing the pod failed, too: {}", error.one_line(), also.one_line())),
    }))
}

fn names(wanted: &[WantedApp]) -> String {
    wanted.iter().map(|one| one.app.name.to_string()).collect::<Vec<_>>().join(", ")
}

/// Changes a running pod's apps, labels and annotations to those of the plan; undoes that if it fails. Returns whether
/// anything differed.
fn change(store: &Store, pod: &Pod, plan: &PodPlan, wanted: &[WantedApp], how: &How<'_>) -> Result<bool> {
    let manifest = manifest::read(pod.dir())?;
    let made = if how.dry { Made::nothing(store) } else { Made::of(store, plan)? };
    let mut work = Work::new(store, pod, plan, &made, how);
    let keep: Vec<AcName> = wanted.iter().map(|one| one.app.name.clone()).collect();
    let gone = change::gone(&manifest, &keep);
    let brought = work.remove(&gone).and_then(|()| work.bring(wanted, &manifest));
    if let Err(error) = brought {
        let mut undone = work.undo();
        if let Err(also) = manifest::read(pod.dir()).and_then(|manifest| content::sweep(pod.dir(), &manifest)) {
            undone += &format!("; {}", also.one_line());
        }
        return Err(made.undo(Error::new(format!("{}; {undone}", error.one_line()))));
    }
    let words = (&manifest.user_labels, &manifest.user_annotations) != (&plan.labels, &plan.annotations);
    if words {
        let would = if how.dry { "would be " } else { "" };
        (how.say)(&format!("pod {}: labels and annotations {would}changed", plan.name))?;
    }
    let changed = words || work.has_said.get();
    if how.dry {
        return Ok(changed);
    }
    for app in gone {
        implicit::remove(pod.dir(), &manifest::read(pod.dir())?, &app.name)?;
    }
    note(pod, plan, wanted)?;
    content::sweep(pod.dir(), &manifest::read(pod.dir())?)?;
    Ok(changed)
}

/// Writes to the pod's manifest what the file says that no app is replaced for: labels and annotations of the pod, and
/// the apps' [`ORIGIN`].
fn note(pod: &Pod, plan: &PodPlan, wanted: &[WantedApp]) -> Result<()> {
    let locked = Locked::new(pod.dir())?;
    let before = locked.read()?;
    let mut manifest = before.clone();
    manifest.user_labels.clone_from(&plan.labels);
    manifest.user_annotations.clone_from(&plan.annotations);
    for app in &mut manifest.apps {
        let Some(one) = wanted.iter().find(|one| one.app.name == app.name) else { continue };
        let record = AppRecord::new(pod.dir(), &app.name);
        let Some(mut options) = record.options()? else { continue };
        if origin(&app.annotations) != origin(&one.app.annotations) {
            set_origin(&mut app.annotations, &one.app.annotations);
            set_origin(&mut options.annotations, &one.app.annotations);
            record.keep(&options)?;
        }
    }
    if manifest == before { Ok(()) } else { locked.write(&manifest) }
}

fn origin(annotations: &[NameValue]) -> Option<&str> {
    stage1::appc::find(annotations, ORIGIN)
}

fn set_origin(annotations: &mut Vec<NameValue>, new: &[NameValue]) {
    annotations.retain(|one| one.name != ORIGIN);
    annotations.extend(origin(new).map(|text| NameValue::new(ORIGIN, text)));
}

/// A step that was done.
enum Done {
    /// An app was added.
    Added(AcName),
    /// An app was removed, with whether it ran and the options it was added with.
    Removed(Box<RuntimeApp>, bool, Option<Box<AddOptions>>),
}

struct Work<'a> {
    store: &'a Store,
    pod: &'a Pod,
    how: &'a How<'a>,
    contents: &'a [Content],
    made: &'a Made<'a>,
    done: Vec<Done>,
    /// Whether a line was said of an app.
    has_said: Cell<bool>,
}

impl<'a> Work<'a> {
    fn new(store: &'a Store, pod: &'a Pod, plan: &'a PodPlan, made: &'a Made<'a>, how: &'a How<'a>) -> Self {
        let has_said = Cell::new(false);
        Self { store, pod, how, contents: &plan.contents, made, done: Vec::new(), has_said }
    }

    fn say(&self, app: &AcName, what: &str) -> Result<()> {
        self.has_said.set(true);
        (self.how.say)(&format!("app {app}: {}{what}", if self.how.dry { "would be " } else { "" }))
    }

    fn remove(&mut self, gone: &[&RuntimeApp]) -> Result<()> {
        for app in gone {
            self.take_away(app).context(|| format!("remove app {}", app.name))?;
            self.say(&app.name, "removed")?;
        }
        Ok(())
    }

    /// Adds and starts the apps that the pod lacks, and replaces those that differ, in the order of the plan.
    fn bring(&mut self, wanted: &[WantedApp], manifest: &PodManifest) -> Result<()> {
        for one in wanted {
            let name = &one.app.name;
            // The `up` that added it may have been killed before it was done.
            let half_added = !self.how.dry && manifest::is_being_added(self.pod.dir(), name);
            let change = if half_added { AppChange::Add } else { change::of(manifest, &one.app) };
            let what = match change {
                AppChange::Add => "added",
                AppChange::Replace => "replaced",
                AppChange::Keep => {
                    self.keep(one).context(|| format!("app {name}"))?;
                    continue;
                }
            };
            if self.how.dry {
                self.say(name, what)?;
                continue;
            }
            if let (AppChange::Replace, Some(old)) = (change, manifest.app(name)) {
                self.take_away(old).context(|| format!("replace app {name}"))?;
            }
            self.put(one).context(|| format!("app {name}"))?;
            self.say(name, what)?;
        }
        Ok(())
    }

    /// Leaves an unchanged app alone, but starts one that was never started, as the `up` that added it was killed, and
    /// an init container that did not end with 0.
    fn keep(&self, one: &WantedApp) -> Result<()> {
        if self.how.dry {
            return Ok(());
        }
        let now = status::status(self.pod, &one.app.name)?;
        match (now.state.as_str(), now.exit_code) {
            ("created", _) => self.start(one)?,
            ("exited", Some(0)) => return Ok(()),
            _ if one.init => return self.start(one),
            _ => return Ok(()),
        }
        self.say(&one.app.name, "started")
    }

    /// Removes an app. Its volumes stay, for [`Work::undo`].
    fn take_away(&mut self, app: &RuntimeApp) -> Result<()> {
        if self.how.dry {
            return Ok(());
        }
        let ran = status::status(self.pod, &app.name)?.state == "running";
        let options = AppRecord::new(self.pod.dir(), &app.name).options()?.map(Box::new);
        self.done.push(Done::Removed(Box::new(app.clone()), ran, options));
        lifecycle::rm(self.store, self.pod, &app.name, true, self.how.debug)
    }

    fn put(&mut self, one: &WantedApp) -> Result<()> {
        self.done.push(Done::Added(one.app.name.clone()));
        self.contents.iter().try_for_each(|content| content.put_in_place(self.pod.dir()))?;
        add::add_app(self.store, self.pod, &one.image, one.app.clone(), &one.options)?;
        self.start(one)
    }

    fn start(&self, one: &WantedApp) -> Result<()> {
        if stage1::appc::find(&one.app.annotations, stage1::app::POST_START).is_some() {
            // the start may fail after the app has run
            self.made.has_run(&one.app);
        }
        lifecycle::start(self.store, self.pod, &one.app.name, self.how.debug)?;
        self.made.has_run(&one.app);
        if one.init { self.wait_for_end(one) } else { Ok(()) }
    }

    /// Waits without a timeout until an init container has ended, and starts it again if it failed and has tries left;
    /// fails unless it ended with 0.
    fn wait_for_end(&self, one: &WantedApp) -> Result<()> {
        let app = &one.app.name;
        let mut failed = 0;
        loop {
            let now = status::status(self.pod, app)?;
            match (now.state.as_str(), now.exit_code) {
                ("exited", Some(0)) => return Ok(()),
                ("exited", code) => {
                    let code = code.map_or_else(|| "without a status".to_owned(), |code| format!("with {code}"));
                    if failed < one.retries {
                        let pause = Duration::from_secs(1 << failed);
                        log::warn!("app {app}: it ended {code}, and is tried again in {} s", pause.as_secs());
                        std::thread::sleep(pause);
                        lifecycle::start(self.store, self.pod, app, self.how.debug)?;
                        failed += 1;
                        continue;
                    }
                    return Err(Error::new(format!("it ended {code}{}", self.show_end_of_log(app))));
                }
                _ if !pods::is_running(self.store, self.pod)? => return Err(Error::new("the pod has ended")),
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Prints the last lines of an app's log on standard error, because its log goes with it. Returns what the error says
    /// of that.
    fn show_end_of_log(&self, app: &AcName) -> String {
        let wanted = LineFilter { apps: vec![app.clone()], last: Some(LAST_LINES), ..LineFilter::default() };
        let mut lines = 0;
        let shown = logs::show(self.store, self.pod, &wanted, |line| {
            let text = &line.message[..line.message.len().min(LONGEST_LINE)];
            log::warn!("{app}: {}", String::from_utf8_lossy(text));
            lines += 1;
            Ok(true)
        });
        match (shown, lines) {
            (Err(error), _) => format!("; its output can't be shown: {}", error.one_line()),
            (Ok(()), 0) => ", and wrote nothing".to_owned(),
            (Ok(()), _) => ": the last lines of its output are above".to_owned(),
        }
    }

    /// Undoes the steps that were done, the last first. Returns the result, for the error message.
    fn undo(&mut self) -> String {
        let mut failed = Vec::new();
        let mut restored = Vec::new();
        while let Some(done) = self.done.pop() {
            let (name, undone) = match done {
                Done::Added(name) => {
                    let undone = match manifest::read(self.pod.dir()) {
                        Ok(manifest) if manifest.app(&name).is_none() => Ok(()),
                        _ => lifecycle::rm(self.store, self.pod, &name, true, self.how.debug),
                    };
                    (name, undone)
                }
                Done::Removed(app, ran, options) => {
                    restored.push(app.name.to_string());
                    (app.name.clone(), self.restore(*app, ran, options))
                }
            };
            if let Err(error) = undone {
                failed.push(format!("app {name}: {}", error.one_line()));
            }
        }
        match (failed.as_slice(), restored.as_slice()) {
            ([], []) => "the pod is as it was".to_owned(),
            ([], restored) => format!("the pod is as it was; restored: {}", restored.join(", ")),
            (failed, _) => format!("undoing it failed, too: {}", failed.join("; ")),
        }
    }

    fn restore(&self, app: RuntimeApp, ran: bool, before: Option<Box<AddOptions>>) -> Result<()> {
        let name = app.name.clone();
        if manifest::read(self.pod.dir())?.app(&name).is_none() {
            let image = images::find(self.store, &app.image.id)?;
            let options = AddOptions { debug: self.how.debug, ..AddOptions::default() };
            add::add_app(self.store, self.pod, &image, app, &options)?;
            if let Some(before) = before {
                AppRecord::new(self.pod.dir(), &name).keep(&before)?;
            }
        }
        if ran { lifecycle::start(self.store, self.pod, &name, self.how.debug) } else { Ok(()) }
    }
}

/// Whether an app is an init container, which runs to its end before the others start.
pub fn is_init(app: &RuntimeApp) -> bool {
    stage1::appc::find(&app.annotations, INIT).is_some()
}

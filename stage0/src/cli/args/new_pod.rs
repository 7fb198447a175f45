//! The options of new pods and their apps

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, Parser};
use serde_json::{Map, json};
use stage1::appc::{Isolator, Isolators, NameValue, PodManifest};
use stage1::cgroup::{CGROUP_PARENT, Parent};
use stage1::cli::DnsConfMode;
use stage1::confine::caps::CapSet;
use stage1::error::{Context, Error, Result};
use stage1::{mux, streams};

use super::dns::NameOptions;
use super::hostname::hostname;
use super::new_app::{NewApp, one_name};
use super::pod_limits::PodLimits;
use super::publish;
use super::volume;
use crate::app::options::AddOptions;
use crate::cli::args::insecure::InsecureArgs;
use crate::cli::session::Session;
use crate::entrypoint::bundled_image;
use crate::image::store::Image;
use crate::pod::create::Making;
use crate::pod::immutable;
use crate::pod::network;
use crate::pod::settings::{Ipc, Settings};
use crate::pod::sysctl::{self, Sysctls};
use crate::poddir::claim;
use crate::poddir::name::PodName;
use crate::poddir::phase::HeldPod;
use crate::poddir::uid_range::PrivateUsers;

/// The options of running a pod.
#[derive(Args, Debug)]
pub struct HowToRun {
    /// Set the pod's host name (default: rkt-UUID)
    #[arg(long)]
    hostname: Option<String>,
    /// Join networks: NAME[:K=V;…][,NAME…], all, none (only loopback) or host (the host's network) (default: default)
    #[arg(long, alias = "network", value_name = "NETWORKS", num_args = 0..=1, default_missing_value = "default")]
    net: Vec<String>,
    /// Read network configurations from net.d in this directory (default: /etc/rkt)
    #[arg(long, value_name = "DIR")]
    local_config: Option<PathBuf>,
    /// Use a private IPC namespace, or the host's (default: private)
    #[arg(long, value_enum)]
    ipc: Option<Ipc>,
    /// Take resolv.conf and hosts from: resolv=(host|stage0|none|default),hosts=(host|stage0|default)
    #[arg(long, value_name = "MODES")]
    dns_conf_mode: Option<String>,
    #[command(flatten)]
    names: NameOptions,
    #[command(flatten)]
    insecure: InsecureArgs,
}

impl HowToRun {
    /// Converts the options to settings of the pod.
    pub fn settings(self) -> Result<Settings> {
        if let Some(modes) = &self.dns_conf_mode {
            modes.parse::<DnsConfMode>().context(|| "--dns-conf-mode")?;
        }
        Ok(Settings {
            hostname: self.hostname.as_deref().map(hostname).transpose()?,
            network: network::request(&self.net)?,
            local_config: self.local_config.as_deref().map(network::local_config).transpose()?,
            ipc: self.ipc,
            dns_conf_mode: self.dns_conf_mode,
            names: self.names.understand()?,
            interactive: false,
            insecure: self.insecure.into(),
        })
    }
}

/// The options of making a pod.
#[derive(Args, Debug)]
pub struct WhatToMake {
    /// Add a volume: NAME,kind=empty[,mode=M,uid=U,gid=G] or NAME,kind=host,source=PATH[,readOnly=B][,recursive=B]
    /// [,propagation=private|slave|shared]
    #[arg(long = "volume", value_name = "VOLUME")]
    volumes: Vec<String>,
    /// Forward a port of the host to the pod: NAME:PROTOCOL:PODPORT:[HOSTIP:]HOSTPORT, or NAME:[HOSTIP:]HOSTPORT for a
    /// port that an app declares
    #[arg(long = "port", value_name = "PORT")]
    ports: Vec<String>,
    /// Forward a port of the host to the pod: [HOSTIP:]HOSTPORT:PODPORT[/PROTOCOL]
    #[arg(short = 'p', long = "publish", value_name = "PORT")]
    published: Vec<String>,
    /// Copy the images' files instead of mounting overlays (the default where overlays are impossible)
    #[arg(long)]
    no_overlay: bool,
    /// Use a user namespace with COUNT of the host's UIDs from SHIFT on; auto, or no value, takes a free range of 65536
    #[arg(
        long, value_name = "SHIFT:COUNT", num_args = 0..=1, require_equals = true, default_missing_value = "auto"
    )]
    private_users: Option<PrivateUsers>,
    /// Allow its apps these capabilities beyond the default set, or all: CAP_NET_ADMIN,CAP_SYS_TIME; apps added later
    /// can't have others (default for a sandbox: those that concern the pod alone)
    #[arg(long, value_name = "CAPS", value_delimiter = ',')]
    pod_caps_retain: Vec<String>,
    /// Set a kernel parameter of the pod's namespaces: net.*, kernel.sem, kernel.msg*, kernel.shm*, fs.mqueue.*
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    sysctls: Vec<String>,
    /// Make the pod's cgroup in this one, a path or the name of a slice: /batch, batch.slice
    #[arg(long, value_name = "CGROUP")]
    cgroup_parent: Option<Parent>,
    #[command(flatten)]
    limits: PodLimits,
    /// Send its apps' logs to: file (in the pod's directory), journald (the host's), none, or passthrough (none, and
    /// the output of run has no app names)
    #[arg(long, value_name = "DRIVER", value_parser = log_driver)]
    log_driver: Option<String>,
    /// Rotate an app's log file at this size (default: 64Mi)
    #[arg(long, value_name = "SIZE", value_parser = log_max_size)]
    log_max_size: Option<String>,
    /// Keep this many of the newest log files of each app (default: 5)
    #[arg(long, value_name = "NUMBER", value_parser = log_max_files)]
    log_max_files: Option<String>,
    /// Run the pod by this stage1 image instead of the built-in one
    #[arg(long, value_name = "FILE")]
    stage1: Option<PathBuf>,
    /// Keep the log files of apps with a --k8s-log-path in this directory
    #[arg(long, value_name = "DIR")]
    k8s_log_dir: Option<String>,
    /// Write those files as k8s-cri (TIME STREAM P|F LINE) or k8s-plain (TIME STREAM LINE)
    #[arg(long, value_name = "MODE", default_value = "k8s-cri", requires = "k8s_log_dir")]
    k8s_log_mode: String,
}

impl WhatToMake {
    /// The pod's manifest, still without apps.
    pub fn manifest(&self, settings: &Settings) -> Result<PodManifest> {
        let volumes = volume::volumes(&self.volumes)?;
        let mut ports = self.ports.clone();
        for text in &self.published {
            ports.push(publish::port(text).context(|| format!("-p {text:?}"))?);
        }
        let ports = network::ports(&ports, settings.network.as_deref())?;
        let logs = [
            (mux::DRIVER, &self.log_driver),
            (mux::MAX_SIZE, &self.log_max_size),
            (mux::MAX_FILES, &self.log_max_files),
        ];
        let given = logs.into_iter().filter_map(|(name, value)| Some(NameValue::new(name, value.as_deref()?)));
        let mut annotations: Vec<NameValue> = given.collect();
        if let Some(dir) = &self.k8s_log_dir {
            self.k8s_log_mode.parse::<streams::Format>()?;
            volume::directory(dir).context(|| "--k8s-log-dir")?;
            annotations.push(NameValue::new(streams::LOG_MODE, self.k8s_log_mode.as_str()));
            annotations.push(NameValue::new(streams::LOG_DIR, dir.as_str()));
        }
        annotations.extend(self.cgroup_parent.as_ref().map(|parent| NameValue::new(CGROUP_PARENT, parent.to_string())));
        annotations.extend(sysctl::annotation(&self.sysctls(settings)?)?);
        let isolators: Vec<Isolator> = self.capabilities()?.into_iter().chain(self.limits.isolators()?).collect();
        Isolators::parse(&isolators)?;
        Ok(PodManifest { volumes, ports, annotations, isolators, ..PodManifest::default() })
    }

    fn sysctls(&self, settings: &Settings) -> Result<Sysctls> {
        let read = |text: &String| {
            let shown = || format!("--sysctl {text:?}");
            let (name, value) = text.split_once('=').context(|| format!("{}: expected NAME=VALUE", shown()))?;
            sysctl::check(name, value, settings.network.as_deref()).context(shown)?;
            Ok((name.to_owned(), value.to_owned()))
        };
        self.sysctls.iter().map(read).collect()
    }

    /// The pod's isolator with the capabilities that its apps may have.
    fn capabilities(&self) -> Result<Option<Isolator>> {
        let names: Vec<&str> = self.pod_caps_retain.iter().map(String::as_str).collect();
        let set = match names[..] {
            [] => return Ok(None),
            ["all"] => CapSet::ALL,
            _ => CapSet::parse(names)
                .map_err(|name| Error::new(format!("--pod-caps-retain: {name:?} is not a capability")))?,
        };
        let value = json!({ "set": set.names().collect::<Vec<_>>() });
        Ok(Some(Isolator { name: "os/linux/capabilities-retain-set".into(), value, other: Map::new() }))
    }

    /// The options for making the pod's files.
    pub fn making(&self) -> Making {
        Making { no_overlay: self.no_overlay, private_users: self.private_users }
    }

    /// The stage1 image for the pod.
    pub fn stage1(&self, session: &Session) -> Result<Image> {
        bundled_image::get(&session.store, self.stage1.as_deref())
    }
}

/// Separates the apps of one command line.
const SEPARATOR: &str = "---";

/// Splits a command line into the words before the first separator, and those of each further app.
///
/// In an app's arguments, which follow `--`, a separator that is the last word of the line is an argument; and `\---`
/// means the argument `---` (`\\---` means `\---`, and so on).
pub fn split_apps(words: &[OsString]) -> (Vec<OsString>, Vec<Vec<OsString>>) {
    let mut groups = vec![Vec::new()];
    let mut in_arguments = false;
    for (number, word) in words.iter().enumerate() {
        let is_last = number + 1 == words.len();
        if word == SEPARATOR && !(in_arguments && is_last) {
            groups.push(Vec::new());
            in_arguments = false;
            continue;
        }
        let escaped = word.as_bytes().strip_suffix(SEPARATOR.as_bytes());
        let escaped = escaped.is_some_and(|start| !start.is_empty() && start.iter().all(|byte| *byte == b'\\'));
        let word = if in_arguments && escaped { OsStr::from_bytes(&word.as_bytes()[1..]) } else { word };
        in_arguments |= word == "--";
        if let Some(group) = groups.last_mut() {
            group.push(word.to_owned());
        }
    }
    let further = groups.split_off(1);
    (groups.swap_remove(0), further)
}

/// A parser for the words of a further app.
#[derive(Parser, Debug)]
#[command(name = "podctl run … ---", disable_help_flag = true)]
struct Further {
    #[command(flatten)]
    app: NewApp,
}

/// The options of a new pod and its apps.
#[derive(Args, Debug)]
pub struct NewPod {
    #[command(flatten)]
    run: HowToRun,
    #[command(flatten)]
    make: WhatToMake,
    /// Give this terminal to the pod's only app
    #[arg(short, long)]
    interactive: bool,
    /// Accepted for compatibility: -it
    #[arg(short, long, hide = true, requires = "interactive")]
    tty: bool,
    /// The pod's name: --name before IMAGE
    #[arg(skip)]
    name: Vec<String>,
    #[command(flatten)]
    first: NewApp,
    #[arg(skip)]
    further: Vec<NewApp>,
}

impl NewPod {
    /// Gives the pod the names before the image on the command line, and the first app those after it. `names` and
    /// `image` are the positions of these words.
    pub fn place_names(&mut self, names: impl IntoIterator<Item = usize>, image: usize) {
        let before = names.into_iter().filter(|place| *place < image).count();
        let of_app = self.first.name.split_off(before.min(self.first.name.len()));
        self.name = std::mem::replace(&mut self.first.name, of_app);
    }

    /// Parses the apps that follow the first one.
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

    /// The names for the pod.
    #[cfg(test)]
    pub fn name(&self) -> &[String] {
        &self.name
    }

    pub fn prepare(self, session: &Session) -> Result<(HeldPod, Settings)> {
        let name = pod_name(one_name(self.name)?.as_deref(), session)?;
        let settings = Settings { interactive: self.interactive, ..self.run.settings()? };
        let apps = std::iter::once(self.first).chain(self.further);
        let apps = apps.map(|app| app.options(session)).collect::<Result<Vec<AddOptions>>>()?;
        let manifest = self.make.manifest(&settings)?;
        let stage1 = self.make.stage1(session)?;
        let pod =
            immutable::prepare(&session.store, &stage1, manifest, &apps, self.make.making(), &settings, name.as_ref())?;
        Ok((pod, settings))
    }
}

/// A name for a new pod that no other pod has, as far as can be said yet.
///
/// # Errors
/// It is none, or is taken.
pub fn pod_name(text: Option<&str>, session: &Session) -> Result<Option<PodName>> {
    let name: Option<PodName> = text.map(str::parse).transpose().context(|| "--name")?;
    name.iter().try_for_each(|name| claim::must_be_free(&session.store, name))?;
    Ok(name)
}

fn log_driver(text: &str) -> std::result::Result<String, String> {
    text.parse::<mux::Driver>().map(|_| text.to_owned()).map_err(|error| error.one_line())
}

fn log_max_size(text: &str) -> std::result::Result<String, String> {
    mux::parse_max_size(text).map(|_| text.to_owned()).map_err(|error| error.one_line())
}

fn log_max_files(text: &str) -> std::result::Result<String, String> {
    mux::parse_max_files(text).map(|_| text.to_owned()).map_err(|error| error.one_line())
}

//! A network that a pod has joined or is about to join. A record of all that is needed to leave it is written before a
//! plugin is run, so that the network can be left after a crash or a reboot, and without its configuration. Host side.

use std::path::{Path, PathBuf};
use std::time::Instant;

use nix::sys::signalfd::SignalFd;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::answer::{self, Address, Answer};
use super::config::{self, Network};
use super::leaving::LeavingMark;
use super::plugin::{Call, Command, SearchPath};
use super::ports::Mapping;
use super::refusal::Manner;
use crate::error::{Context, Error, Result};
use crate::json;
use crate::layout;
use crate::pod::{Directory, MAX_MANIFEST, read_bounded, write_atomic};

/// The capability of plugins that forward ports.
const PORT_MAPPINGS: &str = "portMappings";
/// The plugin that forwards ports for networks without such a plugin.
const PORTMAP: &str = "portmap";
/// The version of its configuration if the network's own version is too old for it.
const PORTMAP_VERSION: &str = "0.4.0";

/// One plugin of a network.
#[derive(Clone, Deserialize, Serialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
struct Part {
    /// The program.
    program: PathBuf,
    /// Its configuration, without `prevResult`.
    config: Map<String, Value>,
    /// Content of the network's file, if the plugin is to read it unchanged.
    text: Option<String>,
    /// Whether it supports CHECK.
    check: bool,
}

/// A network of a pod, as it is recorded.
#[derive(Clone, Deserialize, Serialize)]
#[cfg_attr(test, derive(Debug, PartialEq))]
pub struct Member {
    /// The network's name.
    pub name: String,
    /// The name of its configuration file.
    pub file: String,
    /// Name of the interface in the pod.
    pub interface: String,
    /// The value of `CNI_ARGS`: `KEY=VALUE;…`
    pub arguments: String,
    /// Whether the pod's traffic is masqueraded behind the host's address.
    pub masquerades: bool,
    /// The value of `CNI_PATH`.
    search: String,
    #[serde(rename = "plugins")]
    parts: Vec<Part>,
    /// Number of plugins whose ADD was begun.
    begun: usize,
    /// Whether the ADD of one of them failed.
    failed: bool,
    /// The result of the last ADD.
    answer: Option<Value>,
}

/// The pod that plugins are run for.
#[derive(Clone, Copy)]
pub struct PluginContext<'a> {
    /// The pod directory.
    pub dir: &'a Path,
    /// The pod's UUID.
    pub uuid: &'a str,
    /// Path of its network namespace; empty if that does not exist any more.
    pub namespace: &'a str,
}

/// The circumstances of a call of a plugin: the pod, the value of `CNI_PATH`, the deadline, and signals that interrupt
/// it.
#[derive(Clone, Copy)]
struct Errand<'a> {
    place: PluginContext<'a>,
    path: &'a str,
    deadline: Instant,
    signals: Option<&'a SignalFd>,
}

impl Member {
    /// A network that is to be joined by the interface `ethNUMBER`. Runs no plugin.
    ///
    /// # Errors
    /// A plugin is not in `search`, or the configuration of a plugin names none.
    pub fn new(network: &Network, number: usize, arguments: &str, search: &SearchPath) -> Result<Self> {
        let (here, mut parts) = (Path::new("."), Vec::new());
        for plugin in &network.plugins {
            let program = search.find(here, &config::plugin_type(plugin)?)?;
            if let Some(ipam) = config::ipam_type(plugin)? {
                search.find(here, &ipam)?;
            }
            let mut config = plugin.clone();
            config.insert("name".into(), network.name.clone().into());
            if let Some(version) = &network.version {
                config.insert("cniVersion".into(), version.clone().into());
            }
            // CHECK of portmap, at least up to version 1.1.1, fails for every pod without an IPv6 address.
            let check = network.can_check && config::plugin_type(plugin)? != PORTMAP;
            let text = network.is_single.then(|| String::from_utf8_lossy(&network.text).into_owned());
            parts.push(Part { program, config, text, check });
        }
        Ok(Self {
            name: network.name.clone(),
            file: network.file.clone(),
            interface: format!("eth{number}"),
            arguments: arguments.to_owned(),
            masquerades: network.masquerades(),
            search: search.to_string(),
            parts,
            begun: 0,
            failed: false,
            answer: None,
        })
    }

    /// Whether one of its plugins forwards ports.
    pub fn forwards_ports(&self) -> bool {
        self.parts.iter().any(|part| config::is_capable(&part.config, PORT_MAPPINGS))
    }

    /// Configures its plugins to forward these ports, adding the plugin portmap if none of them can. Runs no plugin.
    ///
    /// # Errors
    /// The plugin portmap is needed and not in `search`.
    pub fn forward(&mut self, dir: &Path, mappings: &[Mapping], search: &SearchPath) -> Result<()> {
        if !self.forwards_ports() {
            let program = search.find(dir, PORTMAP)?;
            let version = self.parts.first().filter(|part| config::hands_results_on(&part.config));
            let version = version.and_then(|part| part.config.get("cniVersion")).cloned();
            let text = r#"{"type":"portmap","snat":true,"capabilities":{"portMappings":true}}"#;
            let mut config: Map<String, Value> = json::parse(text.as_bytes())?;
            config.insert("name".into(), self.name.clone().into());
            config.insert("cniVersion".into(), version.unwrap_or_else(|| PORTMAP_VERSION.into()));
            self.parts.push(Part { program, config, text: None, check: false });
        }
        let mappings: Vec<Value> = mappings.iter().map(Mapping::to_json).collect();
        for part in &mut self.parts {
            if config::is_capable(&part.config, PORT_MAPPINGS) {
                part.config.insert("runtimeConfig".into(), json!({PORT_MAPPINGS: mappings}));
                part.text = None;
            }
        }
        Ok(())
    }

    /// Replaces the forwarded ports of a joined network.
    ///
    /// # Errors
    /// The network was not joined, or the plugin that forwards ports is missing, fails or times out; then the earlier
    /// ports are forwarded again.
    pub fn forward_instead(
        &mut self,
        place: PluginContext<'_>,
        mappings: &[Mapping],
        search: &SearchPath,
        deadline: Instant,
    ) -> Result<()> {
        if self.answer.is_none() || self.failed {
            return Err(Error::new(format!("network {} was not joined", self.name)));
        }
        let before = self.clone();
        self.forward(place.dir, mappings, search)?;
        self.begun = self.parts.len();
        let result = before.stop_forwarding(place, search, deadline).and_then(|()| {
            // The record has to be written before the plugins are run.
            self.save(place.dir)?;
            self.begin_forwarding(place, deadline)
        });
        let Err(error) = result else { return Ok(()) };
        let back = || {
            self.stop_forwarding(place, search, deadline)?;
            before.begin_forwarding(place, deadline)?;
            before.save(place.dir)
        };
        let back = back();
        *self = before;
        match back {
            Ok(()) => Err(error),
            Err(also) => Err(Error::new(format!("{}; {}", error.one_line(), also.one_line()))),
        }
    }

    fn forwarders(&self) -> impl Iterator<Item = &Part> {
        self.parts.iter().take(self.begun).filter(|part| config::is_capable(&part.config, PORT_MAPPINGS))
    }

    fn stop_forwarding(&self, place: PluginContext<'_>, search: &SearchPath, deadline: Instant) -> Result<()> {
        self.forwarders().try_for_each(|part| self.leave_part(part, place, search, deadline))
    }

    fn begin_forwarding(&self, place: PluginContext<'_>, deadline: Instant) -> Result<()> {
        for part in self.forwarders() {
            let answer = self.answer.as_ref().map(Answer::of).transpose()?;
            let before = match answer {
                Some(answer) if !config::hands_results_on(&self.parts[0].config) => Some(answer.as_newer()),
                _ => self.answer.clone(),
            };
            let errand = Errand { place, path: &self.search, deadline, signals: None };
            self.call(Command::Add, part, before, errand)?;
        }
        Ok(())
    }

    /// Joins the network by the ADD of each plugin, and returns the result of the last one.
    ///
    /// # Errors
    /// A plugin fails, times out or is interrupted by a signal. [`Self::leave`] undoes what the plugins did.
    pub fn join(&mut self, place: PluginContext<'_>, deadline: Instant, signals: Option<&SignalFd>) -> Result<Answer> {
        let mut last = Answer::default();
        for (number, part) in self.parts.clone().iter().enumerate() {
            self.begun = number + 1;
            self.save(place.dir)?;
            let before = match &self.answer {
                Some(_) if !config::hands_results_on(&self.parts[0].config) => Some(last.as_newer()),
                answer => answer.clone(),
            };
            let errand = Errand { place, path: &self.search, deadline, signals };
            let joined = self
                .call(Command::Add, part, before, errand)
                .and_then(|text| answer::parse(&text).context(|| format!("plugin {}", part.name())));
            match joined {
                Ok((value, answer)) => (self.answer, last) = (Some(value), answer),
                Err(error) => {
                    self.answer = None;
                    self.failed = true;
                    self.save(place.dir).map_err(|also| Error::new(format!("{error}; {}", also.one_line())))?;
                    return Err(error).context(|| format!("network {}", self.name));
                }
            }
        }
        self.save(place.dir)?;
        Ok(last)
    }

    /// Leaves the network by the DEL of each plugin whose ADD was begun, in reverse order. It may be called again. If
    /// an earlier call did not get to its end, a success is not certain, and a warning says so.
    ///
    /// # Errors
    /// A DEL fails, after all were run. If an ADD of this network had failed, that is only a warning.
    pub fn leave(&self, place: PluginContext<'_>, now: &SearchPath, deadline: Instant) -> Result<()> {
        let search = now.after(&self.search);
        let mark = LeavingMark::make(place.dir, &self.interface);
        let mut failed = Vec::new();
        for part in self.parts.iter().take(self.begun).rev() {
            if let Err(error) = self.leave_part(part, place, &search, deadline) {
                failed.push(error.one_line());
            }
        }
        if !failed.is_empty() {
            let error = Error::new(format!("leave network {}: {}", self.name, failed.join("; ")));
            if !self.failed {
                return Err(error);
            }
            log::warn!("{}", error.one_line());
        }
        if mark.is_old {
            log::warn!(
                "network {}: an earlier DEL failed or was interrupted, so firewall rules of the pod may be left: \
                 \"iptables-save | grep {}\" and \"ip6tables-save\" show them",
                self.name,
                place.uuid
            );
        }
        mark.remove()
    }

    fn leave_part(&self, part: &Part, place: PluginContext<'_>, search: &SearchPath, deadline: Instant) -> Result<()> {
        if Instant::now() >= deadline {
            return Err(Error::new(format!("plugin {} DEL: the time for leaving all networks is over", part.name())));
        }
        let moved;
        let part = if place.dir.join(&part.program).exists() {
            part
        } else {
            moved = Part { program: search.find(place.dir, &part.name())?, ..part.clone() };
            &moved
        };
        let path = search.to_string();
        let errand = Errand { place, path: &path, deadline, signals: None };
        self.call(Command::Del, part, self.answer_for(part)?, errand).map(drop)
    }

    /// Whether a plugin supports CHECK.
    pub fn can_check(&self) -> bool {
        self.parts.iter().any(|part| part.check)
    }

    /// Runs the CHECK of every plugin that supports it.
    ///
    /// # Errors
    /// The network was not joined, or a CHECK fails.
    pub fn check(&self, place: PluginContext<'_>, deadline: Instant) -> Result<()> {
        if self.answer.is_none() || self.failed {
            return Err(Error::new("the network was not joined"));
        }
        for part in self.parts.iter().filter(|part| part.check) {
            let errand = Errand { place, path: &self.search, deadline, signals: None };
            self.call(Command::Check, part, self.answer_for(part)?, errand)?;
        }
        Ok(())
    }

    /// Runs a plugin, for at most the timeout of its command. If it refuses a part of its input that older plugins
    /// accept, it is run again without that, after a DEL that removes what a refused ADD has made.
    fn call(&self, command: Command, part: &Part, before: Option<Value>, errand: Errand<'_>) -> Result<Vec<u8>> {
        let errand = Errand { deadline: errand.deadline.min(Instant::now() + command.timeout()), ..errand };
        self.call_with_retries(command, part, part.input(command, before), Manner::default(), errand)
    }

    fn call_with_retries(
        &self,
        command: Command,
        part: &Part,
        text: Vec<u8>,
        mut manner: Manner,
        errand: Errand<'_>,
    ) -> Result<Vec<u8>> {
        loop {
            let error = match self.call_once(command, part, text.clone(), manner, errand) {
                Err(error) => error,
                answer => return answer,
            };
            match manner.give_way(&error.one_line(), &text) {
                Some(refused) => log::warn!("network {}: {}; {refused}", self.name, error.one_line()),
                None => return Err(error),
            }
            if command == Command::Add {
                self.call_with_retries(Command::Del, part, text.clone(), manner, errand)?;
            }
        }
    }

    fn call_once(
        &self,
        command: Command,
        part: &Part,
        text: Vec<u8>,
        manner: Manner,
        errand: Errand<'_>,
    ) -> Result<Vec<u8>> {
        let call = Call {
            command,
            dir: errand.place.dir,
            program: &part.program,
            container: errand.place.uuid,
            namespace: errand.place.namespace,
            interface: &self.interface,
            arguments: &manner.arguments(&self.arguments),
            path: errand.path,
            input: &manner.input(text)?,
        };
        call.run(errand.deadline, errand.signals)
    }

    /// The result of ADD as `prevResult` for this plugin; `None` if its version does not take one.
    fn answer_for(&self, part: &Part) -> Result<Option<Value>> {
        match &self.answer {
            Some(answer) if config::is_reminded(&part.config) => {
                let old = !config::hands_results_on(&self.parts[0].config);
                Ok(Some(if old { Answer::of(answer)?.as_newer() } else { answer.clone() }))
            }
            _ => Ok(None),
        }
    }

    /// The pod's addresses in this network; empty if it was not joined.
    ///
    /// # Errors
    /// The recorded result is not valid.
    pub fn addresses(&self) -> Result<Vec<Address>> {
        self.answer.as_ref().map_or(Ok(Vec::new()), |answer| Ok(Answer::of(answer)?.addresses))
    }

    /// The network's object in `net-info.json`, which host managers read.
    ///
    /// # Errors
    /// As [`Self::addresses`].
    pub fn info(&self) -> Result<Value> {
        let addresses = self.addresses()?;
        let first = addresses.iter().find(|address| !address.is_v6()).or(addresses.first());
        let text = |value: Option<String>| value.unwrap_or_default();
        let program = self.parts.first().map(|part| part.program.display().to_string());
        let all: Vec<Value> = addresses.iter().map(|address| address.to_string().into()).collect();
        Ok(json!({
            "netName": self.name.clone(),
            "netConf": layout::network_dir().join(&self.file).display().to_string(),
            "pluginPath": text(program),
            "ifName": self.interface.clone(),
            "ip": text(first.map(|address| address.ip.clone())),
            "args": self.arguments.clone(),
            "mask": text(first.map(Address::mask)),
            "addresses": all,
        }))
    }

    fn record(&self) -> String {
        format!("{}.json", self.interface)
    }

    fn save(&self, dir: &Path) -> Result<()> {
        let text = serde_json::to_vec(self).context(|| format!("write the record of network {}", self.name))?;
        let records = Directory::InPod { pod: dir, below: &layout::network_dir() };
        write_atomic(records, &self.record(), &text, 0o640)
    }

    /// Removes the record of a network that was left.
    ///
    /// # Errors
    /// The record can't be removed.
    pub fn forget(&self, dir: &Path) -> Result<()> {
        let path = dir.join(layout::network_dir()).join(self.record());
        std::fs::remove_file(&path).context(|| format!("remove {path:?}"))
    }

    fn read(path: &Path) -> Result<Self> {
        let record = read_bounded(path, MAX_MANIFEST).and_then(|text| json::parse(&text));
        record.context(|| format!("network record {path:?}"))
    }

    /// The recorded networks of the pod in the directory `dir`, in the order of its interfaces; for a record that can't
    /// be read, the name of its interface and the error.
    ///
    /// # Errors
    /// The directory of the records can't be read.
    pub fn all_of(dir: &Path) -> Result<Vec<Result<Self, (String, Error)>>> {
        let path = dir.join(layout::network_dir());
        let shown = || format!("read directory {path:?}");
        let entries = match std::fs::read_dir(&path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
            entries => entries.context(shown)?,
        };
        let mut interfaces: Vec<String> = Vec::new();
        for entry in entries {
            let name = entry.context(shown)?.file_name();
            let record =
                name.to_str().filter(|name| !name.starts_with('.')).and_then(|name| name.strip_suffix(".json"));
            interfaces.extend(record.map(str::to_owned));
        }
        interfaces.sort_by_key(|interface| (interface.len(), interface.clone()));
        let read =
            |interface: String| Self::read(&path.join(format!("{interface}.json"))).map_err(|error| (interface, error));
        Ok(interfaces.into_iter().map(read).collect())
    }
}

impl Part {
    fn name(&self) -> String {
        self.program.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The plugin's input. CHECK needs `prevResult`, so for it the file is not passed on unchanged.
    fn input(&self, command: Command, before: Option<Value>) -> Vec<u8> {
        match &self.text {
            Some(text) if command != Command::Check => text.clone().into_bytes(),
            _ => {
                let mut config = self.config.clone();
                config.extend(before.map(|before| ("prevResult".to_owned(), before)));
                Value::Object(config).to_string().into_bytes()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    use crate::net::{Selection, config, ports};
    use std::os::unix::fs::PermissionsExt;

    fn plugins(dir: &Path, names: &[&str]) -> SearchPath {
        for name in names {
            std::fs::write(dir.join(name), "").unwrap();
            std::fs::set_permissions(dir.join(name), PermissionsExt::from_mode(0o755)).unwrap();
        }
        SearchPath::of(dir)
    }

    fn network(dir: &Path, text: &str) -> Network {
        std::fs::create_dir_all(dir.join("net.d")).unwrap();
        std::fs::write(dir.join("net.d/10-x.conf"), text).unwrap();
        let selection = Selection { named: vec![("x".into(), String::new())], ..Selection::default() };
        config::select([dir.join("net.d")], &selection).unwrap().remove(0)
    }

    fn mappings(dir: &Path) -> Vec<Mapping> {
        let pod = r#"{"acKind":"PodManifest","acVersion":"0.8.11","ports":[{"name":"p","hostPort":8080,
            "podPort":{"name":"p","protocol":"tcp","port":80}}]}"#;
        std::fs::write(dir.join("pod"), pod).unwrap();
        ports::of(&crate::pod::Pod::load(dir).unwrap()).unwrap()
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let tmp = tempfile::tempdir().unwrap();
        let search = plugins(tmp.path(), &["ptp", "host-local", "portmap"]);
        let network = network(tmp.path(), r#"{"name":"x","type":"ptp","ipMasq":true,"ipam":{"type":"host-local"}}"#);
        let mut member = Member::new(&network, 1, "IP=10.0.0.9", &search).unwrap();
        member.forward(Path::new("."), &mappings(tmp.path()), &search).unwrap();
        std::fs::create_dir(tmp.path().join("net")).unwrap();
        member.begun = 2;
        member.answer = Some(json!({"cniVersion": "0.1.0", "ip4": {"ip": "10.0.0.9/24"}}));
        member.save(tmp.path()).unwrap();
        std::fs::write(tmp.path().join("net/10-x.conf"), "not a record").unwrap();
        let all = || Member::all_of(tmp.path()).unwrap();
        assert_eq!(all().into_iter().map(Result::unwrap).collect::<Vec<_>>(), [member.clone()]);
        let info = member.info().unwrap();
        let keys = ["netName", "netConf", "ifName", "ip", "mask", "args"].map(|key| info[key].as_str().unwrap());
        assert_eq!(keys, ["x", "net/10-x.conf", "eth1", "10.0.0.9", "255.255.255.0", "IP=10.0.0.9"]);
        assert_eq!(info["addresses"], json!(["10.0.0.9/24"]));
        std::fs::write(tmp.path().join("net/eth10.json"), "{").unwrap();
        let [Ok(_), Err((interface, error))] = &all()[..] else { panic!("one that can be read, and one that can't") };
        assert!(interface == "eth10" && error.one_line().contains("eth10.json\": not JSON"), "{error}");
        std::fs::remove_file(tmp.path().join("net/eth10.json")).unwrap();
        member.forget(tmp.path()).unwrap();
        assert!(all().is_empty());
    }

    #[test]
    fn ports_are_forwarded_by_the_plugin_that_is_there_or_by_one_more() {
        let tmp = tempfile::tempdir().unwrap();
        let search = plugins(tmp.path(), &["bridge", "portmap", "own"]);
        let told = json!({"portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]});
        let forward = |text: &str| {
            let mut member = Member::new(&network(tmp.path(), text), 0, "", &search).unwrap();
            member.forward(Path::new("."), &mappings(tmp.path()), &search).unwrap();
            member.parts
        };
        let list = r#"{"cniVersion":"1.0.0","name":"x","plugins":[{"type":"bridge"},
            {"type":"own","capabilities":{"portMappings":true}}]}"#;
        let parts = forward(list);
        assert_eq!((parts.len(), &parts[1].config["runtimeConfig"], parts[1].check), (2, &told, true));
        assert_eq!(parts[0].config.get("runtimeConfig"), None);
        for (version, expected) in [(r#","cniVersion":"1.0.0""#, "1.0.0"), ("", "0.4.0")] {
            let parts = forward(&format!(r#"{{"name":"x","type":"bridge"{version}}}"#));
            assert_eq!((parts.len(), &parts[1].config["runtimeConfig"], parts[1].check), (2, &told, false));
            assert_eq!(parts[1].config["cniVersion"], expected);
        }
    }

    #[test]
    fn a_plugin_reads_the_file_as_it_is() {
        let tmp = tempfile::tempdir().unwrap();
        let search = plugins(tmp.path(), &["ptp", "portmap"]);
        let text = "{ \"cniVersion\":\"0.4.0\", \"Name\" : \"x\",\n\"Type\":\"ptp\", \"args\":[\"A=1\"]}\n";
        let mut member = Member::new(&network(tmp.path(), text), 0, "", &search).unwrap();
        let before = || Some(json!({"ips": []}));
        for command in [Command::Add, Command::Del] {
            assert_eq!(member.parts[0].input(command, before()), text.as_bytes());
        }
        let reminded: Value = json::parse(&member.parts[0].input(Command::Check, before())).unwrap();
        assert_eq!((&reminded["prevResult"], &reminded["args"]), (&json!({"ips": []}), &json!(["A=1"])));
        member.forward(Path::new("."), &mappings(tmp.path()), &search).unwrap();
        assert_eq!(member.parts[0].input(Command::Add, None), text.as_bytes());
        assert_eq!(member.parts[1].text, None);
    }

    #[test]
    fn the_plugin_that_is_missing_is_named_before_anything_is_done() {
        let tmp = tempfile::tempdir().unwrap();
        let search = plugins(tmp.path(), &["ptp"]);
        let network = network(tmp.path(), r#"{"name":"x","type":"ptp","ipam":{"type":"host-local"}}"#);
        let line = Member::new(&network, 0, "", &search).unwrap_err().one_line();
        assert!(line.starts_with("the network plugin \"host-local\" is missing"), "{line}");
    }
}

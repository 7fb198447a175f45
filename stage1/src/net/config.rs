//! Network configurations: one plugin (`conf`) or a chain of them (`conflist`), of files and built in. Host side.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::request::{DEFAULT, RESTRICTED, Selection, is_name};
use crate::error::{Context, Error, Result};
use crate::json::{self, FromJson, Object};
use crate::pod::read_bounded;

/// Longest configuration, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Where every runtime that uses CNI finds networks.
const SYSTEM: &str = "/etc/cni/net.d";
/// Where the host manager's own configuration is, if it does not say so.
pub const LOCAL_CONFIG: &str = "/etc/rkt";
/// The first version with chains, and with results that say what they are about.
const CHAINS: Version = (0, 3);
/// The first version that can be checked.
const CHECKS: Version = (0, 4);

/// A version of the CNI specification, without its third number.
type Version = (u32, u32);

/// A network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Name.
    pub name: String,
    /// The name of its file.
    pub file: String,
    /// What is in the file.
    pub text: Vec<u8>,
    /// The version of the specification as it is written, if it is.
    pub version: Option<String>,
    /// Whether it can be asked if all is well.
    pub can_check: bool,
    /// The configurations of its plugins, in order, without what is added for each call.
    pub plugins: Vec<Map<String, Value>>,
}

/// The networks that a pod joins, in the order of their interfaces: the files' by name, then the one built in.
///
/// # Errors
/// Any file that is not a configuration, wanted or not: it may be the one that is looked for. A network that nobody
/// has configured.
pub fn load(local_config: &Path, selection: &Selection) -> Result<Vec<Network>> {
    select([local_config.join("net.d"), SYSTEM.into()], selection)
}

pub(super) fn select<const N: usize>(directories: [PathBuf; N], selection: &Selection) -> Result<Vec<Network>> {
    let mut networks: Vec<Network> = Vec::new();
    let mut others: Vec<Network> = Vec::new();
    for directory in &directories {
        for path in files(directory)? {
            let network = Network::read(&path)?;
            if has(&networks, &network.name) || has(&others, &network.name) {
                log::warn!("{path:?}: a network {} is there already; this one is ignored", network.name);
            } else if selection.all || selection.arguments(&network.name).is_some() {
                networks.push(network);
            } else {
                others.push(network);
            }
        }
    }
    let asked = |name| selection.arguments(name).is_some();
    let restricted = !selection.all && !asked(DEFAULT);
    for (name, wanted) in [(DEFAULT, !restricted), (RESTRICTED, restricted || asked(RESTRICTED))] {
        if wanted && !has(&networks, name) {
            let own = others.iter().position(|network| network.name == name);
            networks.push(own.map_or_else(|| Network::built_in(name), |index| Ok(others.remove(index)))?);
        }
    }
    let missing: Vec<&str> =
        selection.named.iter().map(|(name, _)| name.as_str()).filter(|name| !has(&networks, name)).collect();
    if missing.is_empty() {
        return Ok(networks);
    }
    let places = directories.iter().map(|directory| directory.display().to_string()).collect::<Vec<_>>().join(", ");
    Err(Error::new(format!(
        "no network is called {}: neither {places} nor what is built in has it",
        missing.join(", ")
    )))
}

fn has(networks: &[Network], name: &str) -> bool {
    networks.iter().any(|network| network.name == name)
}

/// The configuration files of a directory, by name; none if there is no such directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let shown = || format!("read directory {directory:?}");
    let entries = match std::fs::read_dir(directory) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => return Ok(Vec::new()),
        entries => entries.context(shown)?,
    };
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in entries {
        let path = entry.context(shown)?.path();
        if path.extension().is_some_and(|extension| extension == "conf" || extension == "conflist") {
            found.insert(found.partition_point(|other| *other < path), path);
        }
    }
    Ok(found)
}

impl Network {
    fn read(path: &Path) -> Result<Self> {
        let text = read_bounded(path, MAX_CONFIG)?;
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::parse(file, text).context(|| format!("network configuration {path:?}"))
    }

    fn parse(file: String, text: Vec<u8>) -> Result<Self> {
        let mut object = Object::new(json::parse(&text)?)?;
        let name: String = object.required("name")?;
        if !is_name(&name) {
            return Err(Error::new(format!("\"name\": {name:?} is no name of a network")));
        }
        let version: Option<String> = object.optional("cniVersion")?;
        let number = version_number(version.as_deref())?;
        let disabled: bool = object.optional("disableCheck")?;
        let plugins: Vec<Map<String, Value>> = match object.optional::<Option<Value>>("plugins")? {
            Some(list) => FromJson::from_json(list).context(|| "\"plugins\"")?,
            None => vec![object.rest()],
        };
        if plugins.is_empty() {
            return Err(Error::new("\"plugins\" is empty"));
        }
        if plugins.len() > 1 && number < CHAINS {
            return Err(Error::new("several plugins need \"cniVersion\": \"0.3.0\" or newer"));
        }
        plugins.iter().try_for_each(|plugin| plugin_type(plugin).map(drop))?;
        Ok(Self { name, file, text, version, can_check: number >= CHECKS && !disabled, plugins })
    }

    /// One that is there without a file. The oldest plugins in use know this version.
    ///
    /// Addresses are reserved by network: two networks that hand out the same would hand them out twice.
    fn built_in(name: &str) -> Result<Self> {
        let out = name == DEFAULT;
        let (subnet, routes) = if out { ("172.16.28.0/24", r#"{"dst":"0.0.0.0/0"}"#) } else { ("172.16.29.0/24", "") };
        let text = format!(
            r#"{{"cniVersion":"0.4.0","name":"{name}","type":"ptp","ipMasq":{out},"ipam":{{"type":"host-local","subnet":"{subnet}","routes":[{routes}]}}}}"#
        );
        Self::parse(format!("99-{name}.conf"), text.into_bytes())
    }

    /// Whether what it sends out appears to come from the host.
    pub fn masquerades(&self) -> bool {
        self.plugins.iter().any(|plugin| plugin.get("ipMasq").and_then(Value::as_bool) == Some(true))
    }
}

/// Whether a plugin of this configuration's version gives results that another one can be handed.
pub fn hands_results_on(plugin: &Map<String, Value>) -> bool {
    version_of(plugin) >= CHAINS
}

/// Whether a plugin of this configuration's version may be reminded of what was answered when the pod joined.
pub fn is_reminded(plugin: &Map<String, Value>) -> bool {
    version_of(plugin) >= CHECKS
}

fn version_of(plugin: &Map<String, Value>) -> Version {
    version_number(plugin.get("cniVersion").and_then(Value::as_str)).unwrap_or_default()
}

/// The program that a plugin's configuration names.
///
/// # Errors
/// It names none, or one that is elsewhere than where plugins are.
pub fn plugin_type(plugin: &Map<String, Value>) -> Result<&str> {
    program(plugin).context(|| "a plugin without \"type\"")?
}

/// The program that gives a plugin its addresses, if it uses one.
///
/// # Errors
/// As [`plugin_type`].
pub fn ipam_type(plugin: &Map<String, Value>) -> Result<Option<&str>> {
    plugin.get("ipam").and_then(Value::as_object).and_then(program).transpose()
}

fn program(object: &Map<String, Value>) -> Option<Result<&str>> {
    let name = object.get("type")?.as_str()?;
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    Some(if plain { Ok(name) } else { Err(Error::new(format!("\"type\": {name:?} is no name of a plugin"))) })
}

/// Whether a plugin takes part in a capability.
pub fn is_capable(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin.get("capabilities").and_then(|all| all.get(capability)).and_then(Value::as_bool) == Some(true)
}

fn version_number(version: Option<&str>) -> Result<Version> {
    let Some(text) = version.filter(|text| !text.is_empty()) else { return Ok((0, 1)) };
    let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[major @ (0 | 1), minor, _]) if (major, minor) >= (0, 1) => Ok((major, minor)),
        _ => Err(Error::new(format!("\"cniVersion\": {text:?} is none from 0.1.0 to 1.x"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join(name), text).unwrap();
    }

    fn names(directories: [PathBuf; 2], all: bool, named: &[&str]) -> Result<Vec<String>> {
        let named = named.iter().map(|&name| (name.to_owned(), String::new())).collect();
        Ok(select(directories, &Selection { all, named })?.into_iter().map(|network| network.name).collect())
    }

    #[test]
    fn files_in_order_and_what_is_built_in() {
        let tmp = tempfile::tempdir().unwrap();
        let dirs = [tmp.path().join("a"), tmp.path().join("b")];
        let names = |all, named: &[&str]| names(dirs.clone(), all, named).unwrap();
        assert_eq!(names(false, &["default"]), ["default"]);
        assert_eq!(names(false, &["default-restricted"]), ["default-restricted"]);
        assert_eq!(names(false, &["default", "default-restricted"]), ["default", "default-restricted"]);
        write(&dirs[0], "20-x.conf", r#"{"name":"x","type":"bridge"}"#);
        write(&dirs[0], "10-y.conflist", r#"{"cniVersion":"1.0.0","name":"y","plugins":[{"type":"a"},{"type":"b"}]}"#);
        write(&dirs[0], "ignored.json", "{");
        write(&dirs[1], "00-x.conf", r#"{"name":"x","type":"macvlan"}"#);
        write(&dirs[1], "z.conf", r#"{"name":"z","type":"ptp"}"#);
        assert_eq!(names(false, &["x"]), ["x", "default-restricted"]);
        assert_eq!(names(false, &["default", "z", "x"]), ["x", "z", "default"]);
        assert_eq!(names(true, &[]), ["y", "x", "z", "default"]);
        write(&dirs[1], "d.conf", r#"{"name":"default","type":"bridge"}"#);
        assert_eq!(names(true, &[]), ["y", "x", "default", "z"]);
        assert_eq!(names(false, &["z"]), ["z", "default-restricted"]);
        write(&dirs[0], "00-r.conf", r#"{"name":"default-restricted","type":"bridge"}"#);
        let selection = Selection { all: false, named: vec![("z".into(), String::new())] };
        let restricted = select(dirs.clone(), &selection).unwrap().remove(1);
        assert_eq!((&*restricted.name, &*restricted.file), ("default-restricted", "00-r.conf"));
        let lost = super::tests::names(dirs.clone(), false, &["z", "nowhere"]).unwrap_err().one_line();
        assert!(lost.starts_with("no network is called nowhere: neither "), "{lost}");
        write(&dirs[1], "broken.conf", r#"{"name":"#);
        let broken = super::tests::names(dirs.clone(), false, &["default"]).unwrap_err().one_line();
        assert!(broken.contains("broken.conf\": not JSON: "), "{broken}");
    }

    #[test]
    fn what_is_built_in() {
        let default = Network::built_in(DEFAULT).unwrap();
        assert!(default.masquerades() && default.can_check);
        assert_eq!(ipam_type(&default.plugins[0]).unwrap(), Some("host-local"));
        let restricted = Network::built_in(RESTRICTED).unwrap();
        assert!(!restricted.masquerades());
        assert_eq!(restricted.plugins[0]["ipam"]["routes"], serde_json::json!([]));
    }

    #[test]
    fn broken_configurations_are_named() {
        for (text, why) in [
            ("[]", "[] is not an object"),
            (r#"{"type":"x"}"#, "\"name\" is missing"),
            (r#"{"name":"x y","type":"x"}"#, "\"x y\" is no name of a network"),
            (r#"{"name":"x"}"#, "a plugin without \"type\""),
            (r#"{"name":"x","type":"../x"}"#, "\"../x\" is no name of a plugin"),
            (r#"{"name":"x","plugins":[]}"#, "\"plugins\" is empty"),
            (r#"{"name":"x","plugins":{}}"#, "\"plugins\": {} is not a list"),
            (r#"{"name":"x","plugins":[{"type":"a"},{"type":"b"}]}"#, "several plugins need"),
            (r#"{"name":"x","type":"a","cniVersion":"2.0.0"}"#, "\"2.0.0\" is none"),
            (r#"{"name":"x","type":"a","cniVersion":"1"}"#, "\"1\" is none"),
            (r#"{"name":"x","type":"a","cniVersion":1}"#, "1 is not a string"),
        ] {
            let line = Network::parse("f".into(), text.into()).unwrap_err().one_line();
            assert!(line.contains(why), "{line}");
        }
        let checked = |more: &str| {
            let text = format!(r#"{{"name":"x","type":"a"{more}}}"#);
            Network::parse("f".into(), text.into()).unwrap().can_check
        };
        assert!(checked(r#","cniVersion":"0.4.0""#) && checked(r#","cniVersion":"1.1.0""#));
        assert!(!checked("") && !checked(r#","cniVersion":"0.3.1""#));
        assert!(!checked(r#","cniVersion":"1.0.0","disableCheck":true"#));
    }

    proptest::proptest! {
        #[test]
        fn no_input_makes_it_panic(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..80)) {
            drop(Network::parse("f".into(), text));
        }
    }
}

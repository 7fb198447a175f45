//! CNI network configurations of one plugin (`conf`) or a chain of them (`conflist`), from files or built in. Host
//! side.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::request::{DEFAULT, RESTRICTED, Selection, is_name};
use crate::error::{Context, Error, Result};
use crate::json::{self, or_default};
use crate::pod::read_bounded;

/// The members of a configuration that are read or written here, as the CNI specification spells them.
const MEMBERS: [&str; 11] = [
    "name",
    "cniVersion",
    "disableCheck",
    "plugins",
    "type",
    "ipam",
    "ipMasq",
    "capabilities",
    "runtimeConfig",
    "prevResult",
    "args",
];
/// Maximum size of a configuration, in bytes.
const MAX_CONFIG: u64 = 1 << 20;
/// Directory of the network configurations that all runtimes with CNI use.
const SYSTEM: &str = "/etc/cni/net.d";
/// The host manager's configuration directory, unless it names another one.
pub const LOCAL_CONFIG: &str = "/etc/rkt";
/// The first version with chains of plugins, whose results can be passed to the next plugin.
const CHAINS: Version = (0, 3);
/// The first version with CHECK.
const CHECKS: Version = (0, 4);

/// A version of the CNI specification: major and minor number.
type Version = (u32, u32);

/// A network.
#[derive(Clone, Debug)]
pub struct Network {
    /// Name.
    pub name: String,
    /// Name of its configuration file.
    pub file: String,
    /// Content of the file.
    pub text: Vec<u8>,
    /// The member `cniVersion`, if there is one.
    pub version: Option<String>,
    /// Whether its plugins support CHECK.
    pub can_check: bool,
    /// The configurations of its plugins, in order, without the members that are added for each call.
    pub plugins: Vec<Map<String, Value>>,
    /// Whether the file is the configuration of one plugin, not a list.
    pub is_single: bool,
}

/// The members of a configuration that apply to the network as a whole.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    name: String,
    cni_version: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    disable_check: bool,
    plugins: Option<Vec<Map<String, Value>>>,
}

/// The configuration of a network's only plugin: the members that do not apply to the network as a whole.
fn plugin_alone(mut members: Map<String, Value>) -> Map<String, Value> {
    members.retain(|name, _| !matches!(name.as_str(), "name" | "cniVersion" | "disableCheck" | "plugins"));
    members
}

/// A file that is not a valid configuration.
struct Broken {
    /// The name of the network in it, if one was found.
    name: Option<String>,
    error: Error,
}

/// The networks that a pod joins, in the order of their interfaces: those of files in the order of the file names, then
/// those built in. Files in `local_config` come before those in /etc/cni/net.d.
///
/// # Errors
/// A selected network has no configuration, or its file is not valid. With all networks selected, any file that is not
/// valid.
pub fn load(local_config: &Path, selection: &Selection) -> Result<Vec<Network>> {
    select([local_config.join("net.d"), SYSTEM.into()], selection)
}

/// The name of the network in the first configuration file: those in `local_config` come before those in
/// /etc/cni/net.d. `None` if there is no file.
///
/// # Errors
/// A directory can't be read, or that file is not a valid configuration.
pub fn first_configured(local_config: &Path) -> Result<Option<String>> {
    for directory in [local_config.join("net.d"), SYSTEM.into()] {
        if let Some(path) = files(&directory)?.first() {
            return Network::read(path).map(|network| Some(network.name)).map_err(|broken| broken.error);
        }
    }
    Ok(None)
}

pub(super) fn select<const N: usize>(directories: [PathBuf; N], selection: &Selection) -> Result<Vec<Network>> {
    let asked = |name: &str| selection.arguments(name).is_some();
    let restricted = !selection.all && !asked(DEFAULT) && !selection.only;
    let is_wanted = |name: &str| selection.all || asked(name) || (restricted && name == RESTRICTED);
    let mut networks: Vec<Network> = Vec::new();
    let mut others: Vec<Network> = Vec::new();
    let mut nameless: Vec<Error> = Vec::new();
    for directory in &directories {
        for path in files(directory)? {
            let read = Network::read(&path);
            let name = read.as_ref().map_or_else(|broken| broken.name.clone(), |network| Some(network.name.clone()));
            if let Some(name) = name.filter(|name| has(&networks, name) || has(&others, name)) {
                log::warn!("{path:?} is ignored: an earlier file configures a network {name}");
                continue;
            }
            match read {
                Ok(network) if selection.all || asked(&network.name) => networks.push(network),
                Ok(network) => others.push(network),
                Err(Broken { name: Some(name), error }) if is_wanted(&name) => return Err(error),
                Err(Broken { error, .. }) if selection.all => return Err(error),
                Err(Broken { name, error }) => {
                    log::warn!("{} (ignored)", error.one_line());
                    nameless.extend(name.is_none().then_some(error));
                }
            }
        }
    }
    for (name, wanted) in [(DEFAULT, selection.all || asked(DEFAULT)), (RESTRICTED, restricted || asked(RESTRICTED))] {
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
    let perhaps: String = nameless.iter().map(|error| format!("; {}", error.one_line())).collect();
    Err(Error::new(format!(
        "no network is called {}: it is not configured in {places}, and not built in{perhaps}",
        missing.join(", ")
    )))
}

fn has(networks: &[Network], name: &str) -> bool {
    networks.iter().any(|network| network.name == name)
}

/// The configuration files in a directory, sorted by name; empty if the directory does not exist.
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
    fn read(path: &Path) -> Result<Self, Broken> {
        let text = read_bounded(path, MAX_CONFIG).map_err(|error| Broken { name: None, error })?;
        let name = name_in(&text);
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let network = Self::parse(file, text).context(|| format!("network configuration {path:?}"));
        network.map_err(|error| Broken { name, error })
    }

    fn parse(file: String, text: Vec<u8>) -> Result<Self> {
        let members_found = members(json::parse(&text)?);
        let File { name, cni_version: version, disable_check: disabled, plugins: list } =
            json::from_value(Value::Object(members_found.clone()))?;
        if !is_name(&name) {
            return Err(Error::new(format!("\"name\": {name:?} is not a network name")));
        }
        let number = version_number(version.as_deref())?;
        let is_single = list.is_none();
        let plugins: Vec<Map<String, Value>> = match list {
            Some(list) => list,
            None => vec![plugin_alone(members_found)],
        };
        let plugins: Vec<Map<String, Value>> = plugins.into_iter().map(members).collect();
        if plugins.is_empty() {
            return Err(Error::new("\"plugins\" is empty"));
        }
        if plugins.len() > 1 && number < CHAINS {
            return Err(Error::new("several plugins need \"cniVersion\": \"0.3.0\" or newer"));
        }
        plugins.iter().try_for_each(|plugin| plugin_type(plugin).map(drop))?;
        Ok(Self { name, file, text, version, can_check: number >= CHECKS && !disabled, plugins, is_single })
    }

    /// A built-in network, of a version that the oldest plugins in use know.
    ///
    /// The two have different subnets, because host-local reserves addresses per network and would assign an address of
    /// a shared subnet twice.
    fn built_in(name: &str) -> Result<Self> {
        let out = name == DEFAULT;
        let (subnet, routes) = if out { ("172.16.28.0/24", r#"{"dst":"0.0.0.0/0"}"#) } else { ("172.31.0.0/16", "") };
        let text = format!(
            r#"{{"cniVersion":"0.4.0","name":"{name}","type":"ptp","ipMasq":{out},"ipam":{{"type":"host-local","subnet":"{subnet}","routes":[{routes}]}}}}"#
        );
        Self::parse(format!("99-{name}.conf"), text.into_bytes())
    }

    /// Whether a plugin masquerades the pod's traffic behind the host's address (`ipMasq`).
    pub fn masquerades(&self) -> bool {
        self.plugins.iter().any(|plugin| plugin.get("ipMasq").and_then(Value::as_bool) == Some(true))
    }
}

/// The same members, with those in [`MEMBERS`] spelled as in the specification. Plugins in Go accept their names in any
/// case. If a member occurs in several spellings, the exact one counts.
pub fn members(found: Map<String, Value>) -> Map<String, Value> {
    let spelling = |name: &str| MEMBERS.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    let (exact, other): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(name, _)| spelling(name).is_none_or(|known| known == name));
    let mut members: Map<String, Value> = exact.into_iter().collect();
    for (name, value) in other {
        let name = spelling(&name).map_or(name.clone(), str::to_owned);
        if !members.contains_key(&name) {
            members.insert(name, value);
        }
    }
    members
}

/// The name of the network in a configuration that is perhaps not valid JSON.
fn name_in(text: &[u8]) -> Option<String> {
    const KEY: &str = "\"name\"";
    if let Ok(found) = json::parse::<Map<String, Value>>(text) {
        return members(found).get("name")?.as_str().map(str::to_owned);
    }
    let text = String::from_utf8_lossy(text);
    let at = text.to_ascii_lowercase().find(KEY)?;
    let value = text[at + KEY.len()..].trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    value.split_once('"').map(|(name, _)| name.to_owned())
}

/// Whether the result of a plugin with this configuration's version can be passed to the next plugin as it is.
pub fn hands_results_on(plugin: &Map<String, Value>) -> bool {
    version_of(plugin) >= CHAINS
}

/// Whether a plugin with this configuration's version takes the result of ADD as `prevResult` of CHECK and DEL.
pub fn is_reminded(plugin: &Map<String, Value>) -> bool {
    version_of(plugin) >= CHECKS
}

fn version_of(plugin: &Map<String, Value>) -> Version {
    version_number(plugin.get("cniVersion").and_then(Value::as_str)).unwrap_or_default()
}

/// The name of a plugin's program: the member `type`.
///
/// # Errors
/// The member is missing, or is a path.
pub fn plugin_type(plugin: &Map<String, Value>) -> Result<String> {
    program(plugin).context(|| "a plugin without \"type\"")?
}

/// The name of the program that assigns a plugin's addresses: the member `type` of `ipam`, if there is one.
///
/// # Errors
/// As [`plugin_type`].
pub fn ipam_type(plugin: &Map<String, Value>) -> Result<Option<String>> {
    plugin.get("ipam").and_then(Value::as_object).cloned().map(members).as_ref().and_then(program).transpose()
}

fn program(object: &Map<String, Value>) -> Option<Result<String>> {
    let name = object.get("type")?.as_str()?;
    let plain = !name.is_empty() && !name.starts_with('.') && !name.contains(['/', '\0']);
    Some(if plain { Ok(name.to_owned()) } else { Err(Error::new(format!("\"type\": {name:?} is not a plugin name"))) })
}

/// Whether a plugin's configuration enables a capability.
pub fn is_capable(plugin: &Map<String, Value>, capability: &str) -> bool {
    plugin.get("capabilities").and_then(|all| all.get(capability)).and_then(Value::as_bool) == Some(true)
}

fn version_number(version: Option<&str>) -> Result<Version> {
    let Some(text) = version.filter(|text| !text.is_empty()) else { return Ok((0, 1)) };
    let numbers: Option<Vec<u32>> = text.split('.').map(|part| part.parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[major @ (0 | 1), minor, _]) if (major, minor) >= (0, 1) => Ok((major, minor)),
        _ => Err(Error::new(format!("\"cniVersion\": {text:?} is not a version from 0.1.0 to 1.x"))),
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
        Ok(select(directories, &Selection { all, named, ..Selection::default() })?
            .into_iter()
            .map(|network| network.name)
            .collect())
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
        let selection = Selection { named: vec![("z".into(), String::new())], ..Selection::default() };
        let restricted = select(dirs.clone(), &selection).unwrap().remove(1);
        assert_eq!((&*restricted.name, &*restricted.file), ("default-restricted", "00-r.conf"));
        let lost = super::tests::names(dirs.clone(), false, &["z", "nowhere"]).unwrap_err().one_line();
        assert!(lost.starts_with("no network is called nowhere: it is not configured in "), "{lost}");
    }

    #[test]
    fn a_broken_file_concerns_the_network_that_it_names() {
        let tmp = tempfile::tempdir().unwrap();
        let dirs = [tmp.path().join("a"), tmp.path().join("b")];
        write(&dirs[0], "10-good.conf", r#"{"name":"good","type":"ptp"}"#);
        write(&dirs[1], "20-cut.conf", "{\"type\": \"ptp\",\n \"Name\" : \"cut\", \"ipam\": {");
        write(&dirs[1], "30-odd.conf", r#"{"name":"odd"}"#);
        write(&dirs[1], "40-good.conf", r#"{"name":"good"}"#);
        write(&dirs[1], "50-nothing.conf", "");
        std::fs::create_dir(dirs[1].join("60-directory.conf")).unwrap();
        let names = |all, named: &[&str]| names(dirs.clone(), all, named).map_err(|error| error.one_line());
        assert_eq!(names(false, &["good"]).unwrap(), ["good", "default-restricted"]);
        assert_eq!(names(false, &["default"]).unwrap(), ["default"]);
        for (all, named, why) in [
            (false, "cut", "20-cut.conf\": not JSON: "),
            (false, "odd", "30-odd.conf\": a plugin without \"type\""),
            (false, "nowhere", "no network is called nowhere: it is not configured in "),
            (false, "nowhere", "50-nothing.conf\": not JSON: "),
            (false, "nowhere", "60-directory.conf"),
            (true, "good", "20-cut.conf\": not JSON: "),
        ] {
            let line = names(all, &[named]).unwrap_err();
            assert!(line.contains(why), "{named}: {line}");
        }
        write(&dirs[0], "00-restricted.conf", r#"{"name":"default-restricted","type":"#);
        assert!(names(false, &["good"]).unwrap_err().contains("00-restricted.conf"), "it is wanted beside others");
        assert_eq!(names(false, &["default", "good"]).unwrap(), ["good", "default"]);
    }

    #[test]
    fn the_case_of_keys_does_not_matter() {
        let text = br#"{"NAME":"x","CniVersion":"0.4.0","Plugins":[{"Type":"bridge","IpMasq":true,"Ipam":{"Type":"a"},"Mine":1}]}"#;
        let network = Network::parse("f".into(), text.to_vec()).unwrap();
        let plugin = &network.plugins[0];
        assert_eq!((&*network.name, network.version.as_deref()), ("x", Some("0.4.0")));
        assert_eq!((plugin_type(plugin).unwrap(), ipam_type(plugin).unwrap()), ("bridge".into(), Some("a".into())));
        assert!(network.masquerades() && network.can_check && !network.is_single && plugin.contains_key("Mine"));
        let single = Network::parse("f".into(), br#"{"Name":"x","name":"y","Type":"ptp"}"#.to_vec()).unwrap();
        assert!(single.is_single && single.name == "y", "the exact one is the one that counts");
    }

    #[test]
    fn what_is_built_in() {
        let default = Network::built_in(DEFAULT).unwrap();
        assert!(default.masquerades() && default.can_check);
        assert_eq!(ipam_type(&default.plugins[0]).unwrap().as_deref(), Some("host-local"));
        assert_eq!(default.plugins[0]["ipam"]["subnet"], "172.16.28.0/24");
        let restricted = Network::built_in(RESTRICTED).unwrap();
        assert_eq!(restricted.plugins[0]["ipam"]["subnet"], "172.31.0.0/16");
        assert!(!restricted.masquerades());
        assert_eq!(restricted.plugins[0]["ipam"]["routes"], serde_json::json!([]));
    }

    #[test]
    fn broken_configurations_are_named() {
        for (text, why) in [
            ("[]", "not as expected: invalid type: sequence, expected a map"),
            (r#"{"type":"x"}"#, "missing field `name`"),
            (r#"{"name":"x y","type":"x"}"#, "\"x y\" is not a network name"),
            (r#"{"name":"x"}"#, "a plugin without \"type\""),
            (r#"{"name":"x","type":"../x"}"#, "\"../x\" is not a plugin name"),
            (r#"{"name":"x","plugins":[]}"#, "\"plugins\" is empty"),
            (r#"{"name":"x","plugins":{}}"#, "plugins: invalid type: map, expected a sequence"),
            (r#"{"name":"x","plugins":[{"type":"a"},{"type":"b"}]}"#, "several plugins need"),
            (r#"{"name":"x","type":"a","cniVersion":"2.0.0"}"#, "\"2.0.0\" is not a version"),
            (r#"{"name":"x","type":"a","cniVersion":"1"}"#, "\"1\" is not a version"),
            (r#"{"name":"x","type":"a","cniVersion":1}"#, "cniVersion: invalid type: integer `1`, expected a string"),
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

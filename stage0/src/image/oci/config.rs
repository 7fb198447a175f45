//! An OCI image's configuration, and the manifest that it becomes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use stage1::appc::{self, AcIdentifier, App, ImageManifest, MountPoint, NameValue, Port};
use stage1::error::{Context, Error, Result};

use super::Found;
use crate::fsutil::digest::Digest;
use crate::image::options::Options;
use crate::image::overlay_lookup::Merged;
use crate::image::platform::Platform;

/// `/etc/passwd` and `/etc/group` of an image are read up to here.
const ACCOUNT_BYTES: u64 = 4 << 20;
/// Annotations that only a conversion makes: a label of the image can't.
const OURS: &str = "appc.io/docker/";
/// Annotation that keeps the signal that ends an app.
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// The part of an image's configuration that matters here.
#[derive(Debug, Deserialize)]
pub(crate) struct Config {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
    #[serde(default)]
    author: Option<String>,
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    config: Option<Execution>,
    rootfs: Layers,
}

#[derive(Debug, Deserialize)]
struct Layers {
    #[serde(default)]
    diff_ids: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Execution {
    user: Option<String>,
    exposed_ports: Option<BTreeMap<String, Value>>,
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    volumes: Option<BTreeMap<String, Value>>,
    working_dir: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
}

impl Config {
    /// What the image is for, in the format's own words. Fails unless that is the platform.
    pub(super) fn must_fit(&self, wanted: &Platform) -> Result<Platform> {
        let its =
            Platform { os: self.os.clone(), architecture: self.architecture.clone(), variant: self.variant.clone() };
        // not every image says a variant
        let asked = Platform { variant: wanted.variant.clone().filter(|_| its.variant.is_some()), ..wanted.clone() };
        if its.fits(&asked) {
            let (plain, taken) = its.plain(&asked);
            taken.iter().for_each(|taken| log::warn!("{taken}"));
            return Ok(plain);
        }
        Err(Error::new(format!("the image is for {its}, not for {wanted}; --platform chooses")))
    }

    /// The digests of the layers, uncompressed.
    pub(super) fn layers(&self) -> Result<Vec<Digest>> {
        self.rootfs.diff_ids.iter().flatten().map(|text| Digest::new(text)).collect()
    }
}

/// The manifest of an image whose files these are.
pub(crate) fn manifest(image: &Found, files: &Merged, options: &Options) -> Result<ImageManifest> {
    let (repository, tag) = split_reference(image.reference.as_deref());
    let given = options.name.clone().or_else(|| options.manifest.as_ref().map(|manifest| manifest.name.to_string()));
    let name = match (&options.name, &repository, given) {
        (Some(name), ..) => name.clone(),
        (None, Some(repository), _) => identifier(repository),
        (None, None, Some(given)) => given,
        (None, None, None) => return Err(Error::new("the image has no name; give it one with --name")),
    };
    let mut manifest = ImageManifest::new(name.parse().context(|| "name of the image; give it one with --name")?);
    let tag = tag.unwrap_or_else(|| "latest".into());
    let config = &image.config;
    manifest.labels = vec![
        NameValue::new("version", &tag),
        NameValue::new("os", &image.platform.os),
        NameValue::new("arch", &image.platform.architecture),
    ];
    let nothing = Execution::default();
    let execution = config.config.as_ref().unwrap_or(&nothing);
    manifest.annotations = annotations(image, execution, &repository.unwrap_or(name), &tag)?;
    manifest.app = Some(app(execution, files)?);
    // what was made here is read like everything else that comes in
    let json = serde_json::to_vec(&manifest).context(|| "write the image manifest")?;
    ImageManifest::parse(&json)
}

/// `registry/repository:tag@digest` as repository and tag; a word alone is a tag.
fn split_reference(reference: Option<&str>) -> (Option<String>, Option<String>) {
    let Some(reference) = reference.map(|text| text.split('@').next().unwrap_or_default()) else {
        return (None, None);
    };
    match reference.rsplit_once(':') {
        // a colon before the last slash is that of a port
        Some((repository, tag)) if !tag.contains('/') => (Some(repository.into()), Some(tag.into())),
        _ if reference.contains('/') => (Some(reference.into()), None),
        _ => (None, Some(reference.into())),
    }
}

/// A text in the letters that an identifier can have.
fn identifier(text: &str) -> String {
    let mut out = String::new();
    for c in text.to_ascii_lowercase().chars() {
        let c = if c.is_ascii_lowercase() || c.is_ascii_digit() || "._~/".contains(c) { c } else { '-' };
        let is_separator = |c: char| "-._~/".contains(c);
        if is_separator(c) && out.chars().last().is_none_or(is_separator) {
            continue;
        }
        out.push(c);
    }
    out.trim_end_matches(['-', '.', '_', '~', '/']).to_owned()
}

fn annotations(image: &Found, execution: &Execution, repository: &str, tag: &str) -> Result<Vec<NameValue>> {
    let words = |words: &Option<Vec<String>>| {
        words.as_ref().map(|words| serde_json::to_string(words).context(|| "write words as JSON")).transpose()
    };
    let mut list = vec![NameValue::new(appc::CONVERTED, repository), NameValue::new("appc.io/docker/tag", tag)];
    let mut add = |name: &str, value: Option<String>| {
        list.extend(value.filter(|value| !value.is_empty()).map(|value| NameValue::new(name, value)));
    };
    add("appc.io/docker/imageid", image.config_digest.clone());
    add("appc.io/docker/entrypoint", words(&execution.entrypoint)?);
    add("appc.io/docker/cmd", words(&execution.cmd)?);
    add("created", image.config.created.clone());
    add("authors", image.config.author.clone());
    add(STOP_SIGNAL, execution.stop_signal.clone().filter(|signal| is_stop_signal(signal)));
    let mut names: BTreeSet<String> = list.iter().map(|one| one.name.clone()).collect();
    let all = execution.labels.iter().flatten().chain(&image.annotations);
    for (name, value) in all {
        let name = identifier(name);
        let is_name = name.parse::<AcIdentifier>().is_ok();
        if is_name && !name.starts_with(OURS) && names.insert(name.clone()) {
            list.push(NameValue::new(name, value));
        }
    }
    Ok(list)
}

/// Whether there is such a signal. An app of an image that names another one is stopped like most are.
fn is_stop_signal(text: &str) -> bool {
    let known = text.is_empty() || stage1::app::parse_stop_signal(text).is_ok();
    if !known {
        log::warn!("the stop signal {text:?} is not a signal: left out, SIGTERM stops the app");
    }
    known
}

fn app(execution: &Execution, files: &Merged) -> Result<App> {
    let ids = Account::of(execution.user.as_deref().unwrap_or_default(), files)?;
    let exec = [&execution.entrypoint, &execution.cmd].into_iter().flatten().flatten().cloned().collect();
    let working_directory = plain_path(execution.working_dir.as_deref().unwrap_or_default());
    let mut environment: Vec<NameValue> = Vec::new();
    for variable in execution.env.iter().flatten() {
        let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
        if name.is_empty() {
            log::warn!("the variable {variable:?} has no name: left out");
            continue;
        }
        // the last one counts
        environment.retain(|other| other.name != name);
        environment.push(NameValue::new(name, value));
    }
    Ok(App {
        exec,
        user: ids.user,
        group: ids.group,
        supplementary_gids: ids.others,
        working_directory,
        environment,
        mount_points: mount_points(execution.volumes.iter().flatten().map(|(path, _)| path.as_str()))?,
        ports: ports(execution.exposed_ports.iter().flatten().map(|(port, _)| port.as_str())),
        ..App::default()
    })
}

/// The directory that an image's app starts in, which has to be there.
pub(crate) fn working_directory(config: &Config) -> String {
    let text = config.config.as_ref().and_then(|execution| execution.working_dir.as_deref()).unwrap_or_default();
    let plain = plain_path(text);
    if text.split('/').any(|part| part == "..") {
        log::warn!("the working directory {text:?} is taken for {plain:?}");
    }
    plain
}

/// A path without `.` and `..`, which no runtime leaves to the kernel for a working directory.
fn plain_path(text: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/').filter(|part| !part.is_empty() && *part != ".") {
        if part == ".." {
            parts.pop();
        } else {
            parts.push(part);
        }
    }
    format!("/{}", parts.join("/"))
}

/// The ports that an image declares; what means none is left out.
fn ports<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<Port> {
    let mut found: Vec<Port> = Vec::new();
    for text in texts {
        match port(text) {
            Ok(port) if found.iter().any(|other| other.name == port.name) => {}
            Ok(port) => found.push(port),
            Err(error) => log::warn!("{}: left out", error.one_line()),
        }
    }
    found
}

fn mount_points<'a>(paths: impl Iterator<Item = &'a str>) -> Result<Vec<MountPoint>> {
    let mut found: Vec<MountPoint> = Vec::new();
    for path in paths {
        if !path.starts_with('/') {
            return Err(Error::new(format!("volume {path:?} is not an absolute path")));
        }
        let words: Vec<String> = path
            .to_ascii_lowercase()
            .split(|c: char| !c.is_ascii_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect();
        let plain = ["volume".to_owned()].into_iter().chain(words).collect::<Vec<_>>().join("-");
        let mut name = plain.clone();
        let mut number = 1;
        while found.iter().any(|other| other.name == name) {
            number += 1;
            name = format!("{plain}-{number}");
        }
        found.push(MountPoint { name, path: path.to_owned(), ..MountPoint::default() });
    }
    Ok(found)
}

/// `80`, `80/tcp` or `8000-8010/udp`.
fn port(text: &str) -> Result<Port> {
    let shown = || format!("exposed port {text:?} is not a number with a protocol, such as 80/tcp");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let number = |text: &str| text.parse::<u16>().ok().filter(|number| *number > 0).map(u32::from).context(shown);
    let (first, last) = (number(first)?, number(last)?);
    if last < first || !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(Error::new(shown()));
    }
    let count = Some(last - first + 1).filter(|count| *count > 1);
    Ok(Port { name: format!("{numbers}-{protocol}"), protocol, port: first, count, ..Port::default() })
}

/// Who runs an app.
#[derive(Debug, PartialEq)]
struct Account {
    user: String,
    group: String,
    others: Vec<u32>,
}

impl Account {
    /// `user`, `uid`, `user:group`, `uid:gid` and mixtures. Without a group it is that of `/etc/passwd`, with the
    /// others that `/etc/group` gives the user; a number that is not listed there is in group 0.
    fn of(text: &str, files: &Merged) -> Result<Self> {
        let (user, group) = text.split_once(':').unwrap_or((text, ""));
        let user = if user.is_empty() { "0" } else { user };
        if !group.is_empty() {
            return Ok(Self { user: user.into(), group: group.into(), others: Vec::new() });
        }
        let passwd = read(files, "etc/passwd")?;
        let fields = |line: &str| line.split(':').map(str::to_owned).collect::<Vec<_>>();
        let account = passwd
            .lines()
            .map(fields)
            .find(|entry| entry.len() >= 4 && (entry[0] == user || (entry[2] == user && user.parse::<u32>().is_ok())));
        let Some(account) = account else {
            let group = if user.parse::<u32>().is_ok() { "0" } else { user };
            return Ok(Self { user: user.into(), group: group.into(), others: Vec::new() });
        };
        let group = match account[3].parse::<u32>() {
            Ok(group) => group,
            Err(_) => {
                log::warn!("/etc/passwd of the image has the group {:?} for {user:?}: taken for 0", account[3]);
                0
            }
        };
        let file = read(files, "etc/group")?;
        let mut others: Vec<u32> = file
            .lines()
            .map(fields)
            .filter(|entry| entry.len() >= 4 && entry[3].split(',').any(|member| member == account[0]))
            .filter_map(|entry| entry[2].parse().ok())
            .filter(|gid| *gid != group)
            .collect();
        others.sort_unstable();
        others.dedup();
        Ok(Self { user: user.into(), group: group.to_string(), others })
    }
}

/// A file of the image as text; empty if there is none.
fn read(files: &Merged, path: &str) -> Result<String> {
    let file = match files.open_file(Path::new(path))? {
        Some(Ok(file)) => file,
        Some(Err(_)) => {
            log::warn!("/{path} of the image is not a regular file: nobody is in it");
            return Ok(String::new());
        }
        None => return Ok(String::new()),
    };
    let mut bytes = Vec::new();
    File::from(file).take(ACCOUNT_BYTES).read_to_end(&mut bytes).context(|| format!("read /{path} of the image"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let split = |text| {
            let (repository, tag) = split_reference(Some(text));
            (repository.unwrap_or_default(), tag.unwrap_or_default())
        };
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(split("docker.io/library/busybox:1.36"), pair("docker.io/library/busybox", "1.36"));
        assert_eq!(split("localhost:5000/a"), pair("localhost:5000/a", ""));
        assert_eq!(split("localhost:5000/a:b@sha256:00"), pair("localhost:5000/a", "b"));
        assert_eq!(split("latest"), pair("", "latest"));
        assert_eq!(split_reference(None), (None, None));
        assert_eq!(identifier("localhost:5000/My__App//x."), "localhost-5000/my_app/x");
    }

    #[test]
    fn ports_and_volumes() {
        let found = port("8000-8010/udp").unwrap();
        assert_eq!((found.port, found.count, found.protocol.as_str()), (8000, Some(11), "udp"));
        assert_eq!(port("80").unwrap().name, "80-tcp");
        let named: Vec<String> =
            ports(["443/TCP", "443", "8080,/tcp", "0/tcp", "/tcp", "${PORT}/tcp", "53/udp"].into_iter())
                .into_iter()
                .map(|port| port.name)
                .collect();
        assert_eq!(named, ["443-tcp", "53-udp"]);
        for bad in ["", "0", "80/", "80/icmp", "65536/tcp", "9-8/tcp", "-1", "80/tcp/x"] {
            assert!(port(bad).is_err(), "{bad}");
        }
        let found = mount_points(["/data", "/Data", "/var/lib/x"].into_iter()).unwrap();
        let names: Vec<&str> = found.iter().map(|one| one.name.as_str()).collect();
        assert_eq!(names, ["volume-data", "volume-data-2", "volume-var-lib-x"]);
        assert!(mount_points(["data"].into_iter()).is_err());
    }

    #[test]
    fn a_working_directory_is_a_plain_path() {
        for (text, plain) in
            [("", "/"), ("srv", "/srv"), ("/app/../tmp", "/tmp"), ("/../..", "/"), ("//a/./b/", "/a/b")]
        {
            assert_eq!(plain_path(text), plain, "{text}");
        }
    }

    #[test]
    fn users_in_all_forms() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("etc")).unwrap();
        std::fs::write(root.path().join("etc/passwd"), "root:x:0:0::/:/x\nweb:x:33:34::/:/x\nodd:x:7:::/:/x\n")
            .unwrap();
        std::fs::write(root.path().join("etc/group"), "www:x:34:web\nextra:x:50:root,web\nlog:x:40:web\n").unwrap();
        let files = Merged::open([root.path()]).unwrap();
        let account = |text| {
            let found = Account::of(text, &files).unwrap();
            (found.user, found.group, found.others)
        };
        let expect = |user: &str, group: &str, others: &[u32]| (user.to_owned(), group.to_owned(), others.to_vec());
        assert_eq!(account(""), expect("0", "0", &[50]));
        assert_eq!(account("web"), expect("web", "34", &[40, 50]));
        assert_eq!(account("33"), expect("33", "34", &[40, 50]));
        assert_eq!(account("1000"), expect("1000", "0", &[]));
        assert_eq!(account("1000:2000"), expect("1000", "2000", &[]));
        assert_eq!(account("web:log"), expect("web", "log", &[]));
        assert_eq!(account("nobody"), expect("nobody", "nobody", &[]));
        assert_eq!(account("odd"), expect("odd", "0", &[]));
        std::fs::remove_file(root.path().join("etc/passwd")).unwrap();
        std::fs::create_dir(root.path().join("etc/passwd")).unwrap();
        assert_eq!(account("web"), expect("web", "web", &[]));
    }
}

//! Converting an OCI image's configuration (OCI image-spec, config.md) to an appc image manifest.

use std::collections::BTreeSet;

use stage1::appc::{self, AcIdentifier, App, ImageManifest, MountPoint, NameValue, Port};
use stage1::error::{Context, Error, Result};

use super::Found;
use super::account::Account;
use super::config::{Execution, plain_path};
use crate::image::options::ImportOptions;
use crate::image::overlay_lookup::Merged;

/// The prefix of annotations that only the conversion writes; labels of the image with it are left out.
const OURS: &str = "appc.io/docker/";
/// The annotation with the signal that stops an app.
const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";

/// The appc manifest of an image; `files` are the files of its root.
///
/// # Errors
/// The image has no name, the name is invalid, a volume is not an absolute path, or /etc/passwd can't be read.
pub(crate) fn manifest(image: &Found, files: &Merged, options: &ImportOptions) -> Result<ImageManifest> {
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
    // parse the result, so that it passes the same checks as any manifest
    let json = serde_json::to_vec(&manifest).context(|| "write the image manifest")?;
    ImageManifest::parse(&json)
}

/// Splits `registry/repository:tag@digest` into repository and tag; a single word is a tag.
fn split_reference(reference: Option<&str>) -> (Option<String>, Option<String>) {
    let Some(reference) = reference.map(|text| text.split('@').next().unwrap_or_default()) else {
        return (None, None);
    };
    match reference.rsplit_once(':') {
        // a colon before the last slash belongs to a port
        Some((repository, tag)) if !tag.contains('/') => (Some(repository.into()), Some(tag.into())),
        _ if reference.contains('/') => (Some(reference.into()), None),
        _ => (None, Some(reference.into())),
    }
}

/// Turns a text into an AC identifier (appc): other characters become `-`.
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

/// Whether a text names a signal; warns if it does not.
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
        // the last value of a variable applies
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

/// The ports that an image declares; warns of invalid ones and leaves them out.
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

/// Parses `80`, `80/tcp` or `8000-8010/udp`.
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
}

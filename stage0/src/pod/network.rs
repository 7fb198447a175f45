//! The networks of a pod: parsing options, and the status of networks while the pod runs.

use std::net::IpAddr;
use std::path::Path;

use serde_json::{Map, Value, json};
use stage1::appc::ExposedPort;
use stage1::cli;
use stage1::error::{Context, Error, Result};
use stage1::net::{self, NetworkRequest};

use crate::fsutil::dir::in_words;
use crate::poddir::find::{Pod, State};

/// Joins the values of `--net` to one for the run entrypoint; `None` if there are none.
///
/// # Errors
/// A value is not a valid list of networks.
pub fn request(values: &[String]) -> Result<Option<String>> {
    let list = cli::list(values);
    NetworkRequest::parse(&list)?;
    Ok((!list.is_empty()).then(|| list.join(",")))
}

/// The absolute path of a directory with network configurations, without symbolic links.
///
/// # Errors
/// The directory does not exist, or its path is not UTF-8.
pub fn local_config(path: &Path) -> Result<String> {
    let shown = || format!("--local-config={}", path.display());
    let path = path.canonicalize().context(|| "resolve").map_err(in_words(path)).context(shown)?;
    path.into_os_string().into_string().map_err(|_| Error::new("the name is not UTF-8")).context(shown)
}

/// Parses values of `--port`: `NAME:PROTOCOL:PODPORT:[HOSTIP:]HOSTPORT`, or `NAME:[HOSTIP:]HOSTPORT` for a port that an
/// app declares.
///
/// # Errors
/// A value is invalid, or the pod joins no network (`network` is `none` or `host`).
pub fn ports(texts: &[String], network: Option<&str>) -> Result<Vec<ExposedPort>> {
    match (texts, network) {
        ([first, ..], Some(network @ ("none" | "host"))) => Err(Error::new(format!(
            "--port={first}: with --net={network} no port can be forwarded{}",
            if network == "host" { ", and none needs to be: the pod has the host's" } else { "" }
        ))),
        _ => texts.iter().map(|text| port(text).context(|| format!("--port={text}"))).collect(),
    }
}

fn port(text: &str) -> Result<ExposedPort> {
    const FORMS: &str = "expected NAME:PROTOCOL:PODPORT:[HOSTIP:]HOSTPORT or NAME:[HOSTIP:]HOSTPORT";
    let (name, rest) = text.split_once(':').context(|| FORMS)?;
    if name.is_empty() {
        return Err(Error::new(FORMS));
    }
    let mut words = rest.splitn(3, ':');
    let (pod_port, host) = match (words.next(), words.next(), words.next()) {
        (Some(protocol @ ("tcp" | "udp" | "sctp")), Some(number), Some(host)) => {
            (Some(json!({"name": name, "protocol": protocol, "port": port_number(number)?})), host)
        }
        _ => (None, rest),
    };
    let (host_ip, host_port) = host.rsplit_once(':').unwrap_or(("", host));
    let host_ip = host_ip.trim_start_matches('[').trim_end_matches(']');
    if !host_ip.is_empty() {
        host_ip.parse::<IpAddr>().context(|| format!("{host_ip:?} is not an IP address; {FORMS}"))?;
    }
    Ok(ExposedPort {
        name: name.to_owned(),
        host_port: port_number(host_port)?,
        host_ip: (!host_ip.is_empty()).then(|| host_ip.to_owned()),
        pod_port,
        other: Map::new(),
    })
}

fn port_number(text: &str) -> Result<u32> {
    let number = text.parse::<u16>().ok().filter(|number| *number > 0);
    number.map(u32::from).context(|| format!("{text:?} is not a port number"))
}

/// The networks of a running pod, with the fields of rkt's net-info.json and all addresses; empty if it does not run.
///
/// # Errors
/// The pod's records of its networks can't be read.
pub fn of(pod: &Pod) -> Result<Vec<Value>> {
    if pod.state() == State::Running { net::info(pod.dir()) } else { Ok(Vec::new()) }
}

/// Runs the plugins' CHECK (CNI spec) for the networks of a running pod; adds the result to each as `check`: `ok`, or
/// the error.
///
/// # Errors
/// The pod's records of its networks can't be read.
pub fn check(pod: &Pod, networks: &mut [Value]) -> Result<()> {
    if networks.is_empty() {
        return Ok(());
    }
    let checked = net::check(pod.dir(), &pod.uuid().to_string())?;
    for network in networks {
        let result = checked.iter().find(|(interface, _)| network["ifName"] == interface.as_str());
        if let (Some((_, result)), Some(network)) = (result, network.as_object_mut()) {
            let text = result.as_ref().map_or_else(Error::one_line, |()| "ok".to_owned());
            network.insert("check".into(), text.into());
        }
    }
    Ok(())
}

/// The networks as one line for people: `default:ip4=172.16.28.2, …`.
pub fn line(networks: &[Value]) -> String {
    let text = |network: &Value, key: &str| network[key].as_str().unwrap_or_default().to_owned();
    let shown = networks.iter().map(|network| {
        let (name, ip) = (text(network, "netName"), text(network, "ip"));
        match ip.as_str() {
            "" => name,
            ip if ip.contains(':') => format!("{name}:ip6={ip}"),
            ip => format!("{name}:ip4={ip}"),
        }
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Value {
        serde_json::to_value(port(text).unwrap()).unwrap()
    }

    #[test]
    fn ports_in_all_forms() {
        let web = json!({"name": "web", "protocol": "tcp", "port": 80});
        let expected = json!({"name": "web", "hostPort": 8080, "hostIP": "127.0.0.1", "podPort": web});
        assert_eq!(shown("web:tcp:80:127.0.0.1:8080"), expected);
        let anywhere = json!({"name": "web", "hostPort": 8080, "podPort": web});
        assert_eq!(shown("web:tcp:80::8080"), anywhere);
        assert_eq!(shown("web:tcp:80:8080"), anywhere);
        assert_eq!(shown("web:8080"), json!({"name": "web", "hostPort": 8080}));
        assert_eq!(shown("web:10.0.0.1:8080"), json!({"name": "web", "hostPort": 8080, "hostIP": "10.0.0.1"}));
        assert_eq!(shown("web:[fd00::1]:8080")["hostIP"], "fd00::1");
        assert_eq!(shown("web:tcp:80:fd00::1:8080")["hostIP"], "fd00::1");
        for bad in
            ["", "web", ":80", "web:", "web:0", "web:65536", "web:x:80", "web:icmp:1:2:3", "web:tcp:80:", "web:tcp:x:1"]
        {
            assert!(port(bad).is_err(), "{bad}");
        }
        let line = ports(&["web:80".into()], Some("none")).unwrap_err().one_line();
        assert!(line.contains("--port=web:80") && line.contains("--net=none"), "{line}");
        assert_eq!(ports(&[], Some("host")).unwrap(), []);
    }

    #[test]
    fn requests() {
        let ask = |values: &[&str]| request(&values.iter().map(|&value| value.to_owned()).collect::<Vec<_>>());
        assert_eq!(ask(&[]).unwrap(), None);
        assert_eq!(ask(&["default"]).unwrap().unwrap(), "default");
        assert_eq!(ask(&["a:IP=1.2.3.4", "b,c"]).unwrap().unwrap(), "a:IP=1.2.3.4,b,c");
        assert!(ask(&["host", "a"]).is_err());
    }

    #[test]
    fn for_people() {
        let networks = [json!({"netName": "a", "ip": "10.0.0.1"}), json!({"netName": "b", "ip": "fd00::1"})];
        assert_eq!(line(&networks), "a:ip4=10.0.0.1, b:ip6=fd00::1");
    }
}

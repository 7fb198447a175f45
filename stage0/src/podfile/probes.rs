//! Probes: translated to the app's health check, an annotation with a command or a request, its timing and the action on
//! failure.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, ContainerPort, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Map, Value, json};
use stage1::appc::{HealthCheck, NameValue};
use stage1::error::{Context, Error, Result};

/// The annotation of an app with its health check as JSON.
const HEALTH_CHECK: &str = "podctl.io/health-check";

/// Kubernetes' defaults: the period and the timeout in seconds, and the number of failures.
const PERIOD: i32 = 10;
const TIMEOUT: i32 = 1;
const FAILURES: i32 = 3;

/// Takes the probes out of a container, as the annotation of its health check: the livenessProbe, whose failure
/// restarts the app, or the readinessProbe. The longest time that the startupProbe allows is the check's start period,
/// in which failures don't count. `path` is the container's in the file.
///
/// # Errors
/// The probe has none of `exec`, `httpGet` and `tcpSocket`, a number is negative, or a port's name is unknown.
pub fn take(container: &mut Container, path: &str) -> Result<Option<NameValue>> {
    let ports = container.ports.clone().unwrap_or_default();
    let (live, ready, start) =
        (container.liveness_probe.take(), container.readiness_probe.take(), container.startup_probe.take());
    if let (Some(_), Some(_)) = (&live, &ready) {
        log::warn!("{path}: an app has one health check: the livenessProbe counts, the readinessProbe has no effect");
    }
    let grace = start.as_ref().map_or(Ok(0), |probe| {
        let periods = positive(probe.period_seconds, PERIOD, "periodSeconds")?;
        let failures = positive(probe.failure_threshold, FAILURES, "failureThreshold")?;
        Ok::<i64, Error>(periods * failures)
    });
    let restart = live.is_some() || (start.is_some() && ready.is_none());
    let Some(probe) = live.or(ready).or(start) else { return Ok(None) };
    let grace = grace.context(|| "startupProbe")?;
    let what = if restart { "livenessProbe" } else { "readinessProbe" };
    check(&probe, &ports, grace, restart).context(|| what).map(Some)
}

fn check(probe: &Probe, ports: &[ContainerPort], grace: i64, restart: bool) -> Result<NameValue> {
    let delay = i64::from(probe.initial_delay_seconds.unwrap_or(0));
    let mut check = json!({
        "interval_ms": positive(probe.period_seconds, PERIOD, "periodSeconds")? * 1000,
        "timeout_ms": positive(probe.timeout_seconds, TIMEOUT, "timeoutSeconds")? * 1000,
        "retries": positive(probe.failure_threshold, FAILURES, "failureThreshold")?,
        "start_period_ms": (grace + delay.max(0)) * 1000,
        "on_failure": if restart { "restart" } else { "none" },
    });
    let (name, action) = action(probe, ports)?;
    check[name] = action;
    let text = check.to_string();
    HealthCheck::parse(&text)?;
    Ok(NameValue::new(HEALTH_CHECK, text))
}

fn positive(given: Option<i32>, usual: i32, name: &str) -> Result<i64> {
    match given.unwrap_or(usual) {
        number if number > 0 => Ok(number.into()),
        // in Kubernetes, 0 means the default
        0 => Ok(usual.into()),
        number => Err(Error::new(format!("{name}: {number} is less than 1"))),
    }
}

/// What the check does: a field of the health check, and its value. The pod itself makes requests, without a program of
/// the app's image, but for HTTPS and for hosts by name: there the check runs `curl` or `nc` in the app.
fn action(probe: &Probe, ports: &[ContainerPort]) -> Result<(&'static str, Value)> {
    if let Some(exec) = &probe.exec {
        return Ok(("command", exec.command.clone().unwrap_or_default().into()));
    }
    if let Some(get) = &probe.http_get {
        let is_plain = get.scheme.as_deref().is_none_or(|scheme| scheme.eq_ignore_ascii_case("HTTP"));
        if !(is_plain && is_address(&get.host)) {
            log::warn!("httpGet by HTTPS, or of a host by its name, runs curl, which the app's image must have");
            return http_get(get, ports).map(|words| ("command", words.into()));
        }
        let path = get.path.as_deref().unwrap_or("/");
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let mut request = request(&get.host, &get.port, ports)?;
        request["http_path"] = path.into();
        let headers = get.http_headers.iter().flatten();
        let headers: Vec<Value> = headers.map(|header| json!([header.name, header.value])).collect();
        if !headers.is_empty() {
            request["headers"] = headers.into();
        }
        return Ok(("request", request));
    }
    if let Some(socket) = &probe.tcp_socket {
        if is_address(&socket.host) {
            return Ok(("request", request(&socket.host, &socket.port, ports)?));
        }
        log::warn!("tcpSocket of a host by its name runs nc, which the app's image must have");
        let port = port(&socket.port, ports)?.to_string();
        return Ok(("command", json!(["nc", "-z", host(&socket.host)?, port])));
    }
    Err(Error::new("unsupported probe: expected exec, httpGet or tcpSocket"))
}

/// Whether the pod itself can make a request to the host: by default to the pod.
fn is_address(host: &Option<String>) -> bool {
    host.as_deref().is_none_or(|host| host == "localhost" || host.parse::<IpAddr>().is_ok())
}

fn request(host: &Option<String>, to: &IntOrString, ports: &[ContainerPort]) -> Result<Value> {
    Ok(json!({ "host": host.as_deref().unwrap_or("localhost"), "port": port(to, ports)? }))
}

/// The `curl` command that makes the request.
pub(super) fn http_get(get: &HTTPGetAction, ports: &[ContainerPort]) -> Result<Vec<String>> {
    let scheme = get.scheme.as_deref().unwrap_or("HTTP").to_ascii_lowercase();
    let path = get.path.as_deref().unwrap_or("/");
    let url = format!("{scheme}://{}:{}{path}", host(&get.host)?, port(&get.port, ports)?);
    Ok(["curl", "-f", "-k", "-s", "-o", "/dev/null", &url].map(str::to_owned).to_vec())
}

fn port(port: &IntOrString, ports: &[ContainerPort]) -> Result<i32> {
    match port {
        IntOrString::Int(number) => Ok(*number),
        IntOrString::String(name) => {
            let found = ports.iter().find(|port| port.name.as_ref() == Some(name));
            found.map(|port| port.container_port).context(|| format!("the container has no port {name:?}"))
        }
    }
}

fn host(host: &Option<String>) -> Result<String> {
    let host = host.as_deref().unwrap_or("localhost");
    let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:".contains(&byte));
    if is_host { Ok(host.to_owned()) } else { Err(Error::new(format!("{host:?} is not a host"))) }
}

/// The probe for a health check: the probe's field name and value.
///
/// # Errors
/// The annotation is not JSON.
pub fn probe(annotation: Option<&str>) -> Result<Option<(&'static str, Value)>> {
    let Some(text) = annotation else { return Ok(None) };
    let check: Value = serde_json::from_str(text).context(|| HEALTH_CHECK)?;
    let seconds = |name: &str| check[name].as_u64().map(|ms| ms.div_ceil(1000));
    let (name, action) = match &check["request"] {
        Value::Null => ("exec", json!({ "command": check["command"] })),
        request => handler(request),
    };
    let mut probe = Map::from_iter([(name.to_owned(), action)]);
    let numbers = [
        ("periodSeconds", seconds("interval_ms")),
        ("timeoutSeconds", seconds("timeout_ms")),
        ("failureThreshold", check["retries"].as_u64()),
        ("initialDelaySeconds", seconds("start_period_ms")),
    ];
    probe.extend(numbers.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))));
    let name = if check["on_failure"] == "restart" { "livenessProbe" } else { "readinessProbe" };
    Ok(Some((name, probe.into())))
}

/// The field of a probe with its request, and its value.
fn handler(request: &Value) -> (&'static str, Value) {
    let mut action = json!({ "port": request["port"] });
    if request["host"] != "localhost" {
        action["host"] = request["host"].clone();
    }
    if request["http_path"].is_null() {
        return ("tcpSocket", action);
    }
    action["path"] = request["http_path"].clone();
    let headers = request["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
    let headers: Vec<Value> = headers.iter().map(|header| json!({"name": header[0], "value": header[1]})).collect();
    if !headers.is_empty() {
        action["httpHeaders"] = headers.into();
    }
    ("httpGet", action)
}

/// The annotation of an app's health check.
pub fn annotation(annotations: &[NameValue]) -> Option<&str> {
    stage1::appc::find(annotations, HEALTH_CHECK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(yaml: &str) -> Result<Option<NameValue>> {
        take(&mut serde_yaml_ng::from_str(yaml).unwrap(), "spec.containers[0]")
    }

    #[test]
    fn probes_are_checks_and_come_back() {
        let exec = of(
            "{name: a, livenessProbe: {exec: {command: [x, y]}, periodSeconds: 5}, startupProbe: {exec: {command: [z]}}}",
        );
        let found = exec.unwrap().unwrap();
        let check: Value = serde_json::from_str(&found.value).unwrap();
        let expected = json!({"command": ["x", "y"], "interval_ms": 5000, "timeout_ms": 1000, "retries": 3,
            "start_period_ms": 30000, "on_failure": "restart"});
        assert_eq!(check, expected);
        let (name, back) = probe(Some(&found.value)).unwrap().unwrap();
        let again = of(&json!({"name": "a", name: back}).to_string()).unwrap().unwrap();
        assert_eq!(again, found);

        let ports = "ports: [{name: web, containerPort: 8080}]";
        let get = of(&format!("{{name: a, {ports}, readinessProbe: {{httpGet: {{port: web, path: /ok}}}}}}"));
        let check = get.unwrap().unwrap().value;
        let request = r#""request":{"host":"localhost","http_path":"/ok","port":8080}"#;
        assert!(check.contains(request) && check.contains(r#""on_failure":"none""#), "{check}");
        let tcp = of("{name: a, livenessProbe: {tcpSocket: {port: 5432}}}").unwrap().unwrap().value;
        assert!(tcp.contains(r#""request":{"host":"localhost","port":5432}"#), "{tcp}");
        for handler in [
            "httpGet: {port: 1, path: /a}",
            "httpGet: {port: 1, host: '10.0.0.1', httpHeaders: [{name: A, value: b}]}",
            "tcpSocket: {port: 2, host: '::1'}",
        ] {
            let found = of(&format!("{{name: a, livenessProbe: {{{handler}}}}}")).unwrap().unwrap();
            let (name, back) = probe(Some(&found.value)).unwrap().unwrap();
            assert_eq!(of(&json!({"name": "a", name: back}).to_string()).unwrap().unwrap(), found, "{handler}");
        }
        for (handler, words) in [
            ("httpGet: {port: 1, scheme: HTTPS}", "https://localhost:1/"),
            ("httpGet: {port: 1, host: other.example}", "http://other.example:1/"),
            ("tcpSocket: {port: 1, host: other.example}", r#"["nc","-z","other.example","1"]"#),
        ] {
            let found = of(&format!("{{name: a, livenessProbe: {{{handler}}}}}")).unwrap().unwrap().value;
            assert!(found.contains(r#""command":["#) && found.contains(words), "{found}");
        }
        assert_eq!(of("{name: a}").unwrap(), None);
        for bad in [
            "{httpGet: {port: 0}}",
            "{httpGet: {port: 1, path: a b}}",
            "{grpc: {port: 1}}",
            "{tcpSocket: {port: none}}",
            "{exec: {}, periodSeconds: -1}",
        ] {
            assert!(of(&format!("{{name: a, livenessProbe: {bad}}}")).is_err(), "{bad}");
        }
    }
}

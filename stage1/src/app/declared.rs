//! What an app declares: how it becomes ready, its sockets, its stop signal and timeout, its restart policy and hooks.
//! Annotations of the app in the pod manifest, else of its image.

use std::time::Duration;

use super::exit_status::signal_number;
use crate::appc::{self, AFTER, AcName, After, App, HEALTH_CHECK, HealthCheck, Port, SUPPORTS_NOTIFY};
use crate::error::{Context, Error, Result};
use crate::pod::PodApp;
use crate::unit::{Protocol, Restart, SocketPorts};

/// Annotation: the signal that asks the app to end, by name or number: `SIGTERM`, `INT`, `RTMIN+3`, `9`.
pub const STOP_SIGNAL: &str = "podctl.io/stop-signal";
/// The same in images that were converted from OCI's format.
const OCI_STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";
/// Annotation: the stop timeout, whole seconds between the stop signal and SIGKILL; 0 kills it at once.
pub const STOP_TIMEOUT: &str = "podctl.io/stop-timeout";
/// Annotation: whether an app that has ended is started again: `no`, `on-failure`, `on-failure:N` (N times in a row),
/// `always`, or `unless-stopped`. The last two differ for host managers: when they start a pod again, an app that was
/// stopped by hand is started only with `always`.
pub const RESTART: &str = "podctl.io/restart";
/// Annotation: the most restarts in a row.
pub const RESTART_LIMIT: &str = "podctl.io/restart-limit";

/// Annotation: a command to run in the app after its start, as the app's user; a JSON array of its words. If it fails,
/// so does the start.
pub const POST_START: &str = "podctl.io/post-start";
/// Annotation: a command to run in the app before its stop signal, in the same form. The command and the app share the
/// stop timeout.
pub const PRE_STOP: &str = "podctl.io/pre-stop";

/// Longest stop timeout, in seconds: a year.
pub const MAX_STOP_TIMEOUT: u64 = 365 * 24 * 60 * 60;

/// What an app declares.
#[derive(Debug, Default)]
pub(super) struct DeclaredSettings {
    pub(super) notify: bool,
    pub(super) stop_signal: Option<u8>,
    pub(super) stop_timeout: Option<Duration>,
    pub(super) restart: RestartPolicy,
    pub(super) sockets: Vec<SocketPorts>,
    pub(super) health: Option<HealthCheck>,
    pub(super) after: Vec<After>,
    pub(super) post_start: Vec<String>,
    pub(super) pre_stop: Vec<String>,
    /// A name for each port of `sockets`, in their order.
    pub(super) socket_names: Vec<AcName>,
}

impl DeclaredSettings {
    /// # Errors
    /// An annotation has an invalid value, or a port can't be listened on.
    pub(super) fn by(app: &PodApp) -> Result<Self> {
        let find = |name| find(app, name);
        let notify = appc::find(&app.image.annotations, SUPPORTS_NOTIFY).map(|text| {
            appc::parse_bool(text).context(|| format!("image annotation {SUPPORTS_NOTIFY}={text:?}: not a boolean"))
        });
        let (sockets, socket_names) = sockets(app.app()?)?;
        let mut restart = find(RESTART).map(parse_restart).transpose()?.unwrap_or_default();
        if let Some(limit) = find(RESTART_LIMIT) {
            restart.limit = Some(parse_restart_limit(limit)?);
        }
        Ok(Self {
            notify: notify.transpose()?.unwrap_or(false),
            stop_signal: find(STOP_SIGNAL).or_else(|| find(OCI_STOP_SIGNAL)).map(parse_stop_signal).transpose()?,
            stop_timeout: stop_timeout(app)?,
            restart,
            sockets,
            socket_names,
            // Not from the image: it does not know the pod's other apps, and the host manager translates its check.
            health: appc::find(&app.runtime.annotations, HEALTH_CHECK).map(HealthCheck::parse).transpose()?,
            after: appc::find(&app.runtime.annotations, AFTER).map(After::parse_all).transpose()?.unwrap_or_default(),
            post_start: hook(app, POST_START)?,
            pre_stop: hook(app, PRE_STOP)?,
        })
    }
}

/// The stop timeout that an app declares.
///
/// # Errors
/// It is not a number of seconds.
pub fn stop_timeout(app: &PodApp) -> Result<Option<Duration>> {
    find(app, STOP_TIMEOUT).map(parse_stop_timeout).transpose()
}

/// The words of a hook; none if the app has none.
fn hook(app: &PodApp, name: &str) -> Result<Vec<String>> {
    appc::find(&app.runtime.annotations, name).map_or(Ok(Vec::new()), |text| parse_hook(name, text))
}

/// The words of a hook; see [`POST_START`]. `name` is the annotation's.
///
/// # Errors
/// It is not a JSON array of words, has no words, or a NUL byte in one.
pub fn parse_hook(name: &str, text: &str) -> Result<Vec<String>> {
    let words: Vec<String> =
        serde_json::from_str(text).context(|| format!("{name}={text:?}: not an array of words"))?;
    if words.first().is_none_or(String::is_empty) || words.iter().any(|word| word.contains('\0')) {
        return Err(Error::new(format!("{name}={text:?}: not a command")));
    }
    Ok(words)
}

/// The value of an annotation of the app, else of its image.
fn find<'a>(app: &'a PodApp, name: &str) -> Option<&'a str> {
    appc::find(&app.runtime.annotations, name).or_else(|| appc::find(&app.image.annotations, name))
}

/// Parses a stop signal, see [`STOP_SIGNAL`], to its number.
///
/// # Errors
/// The name is not a signal's.
pub fn parse_stop_signal(text: &str) -> Result<u8> {
    let upper = text.to_ascii_uppercase();
    signal_number(upper.strip_prefix("SIG").unwrap_or(&upper))
        .context(|| format!("stop signal {text:?}: no such signal (use a name such as SIGINT, or a number)"))
}

/// Parses a stop timeout; see [`STOP_TIMEOUT`].
///
/// # Errors
/// It is not a number of seconds, or more than [`MAX_STOP_TIMEOUT`].
pub fn parse_stop_timeout(text: &str) -> Result<Duration> {
    let seconds = text.parse().ok().filter(|seconds| *seconds <= MAX_STOP_TIMEOUT);
    seconds.map(Duration::from_secs).context(|| format!("stop timeout {text:?}: not a number of seconds"))
}

/// Whether an app is started again, and how often in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RestartPolicy {
    /// On which ends.
    pub restart: Restart,
    /// The most restarts in a row; no limit if `None`.
    pub limit: Option<u32>,
}

/// Parses a restart policy; see [`RESTART`].
///
/// # Errors
/// It is not one of the words, or what follows `on-failure:` is not a number.
pub fn parse_restart(text: &str) -> Result<RestartPolicy> {
    let always = |restart| Ok(RestartPolicy { restart, limit: None });
    match (text, text.strip_prefix("on-failure:")) {
        ("no", _) => always(Restart::No),
        ("on-failure", _) => always(Restart::OnFailure),
        ("always" | "unless-stopped", _) => always(Restart::Always),
        (_, Some(limit)) => Ok(RestartPolicy { restart: Restart::OnFailure, limit: Some(parse_restart_limit(limit)?) }),
        _ => Err(Error::new(format!(
            "restart policy {text:?}: use no, on-failure, on-failure:N, always or unless-stopped"
        ))),
    }
}

/// Parses a restart limit; see [`RESTART_LIMIT`].
///
/// # Errors
/// It is not a number.
pub fn parse_restart_limit(text: &str) -> Result<u32> {
    text.parse().context(|| format!("restart limit {text:?}: not a number"))
}

fn sockets(app: &App) -> Result<(Vec<SocketPorts>, Vec<AcName>)> {
    let mut sockets = Vec::new();
    let mut names = Vec::new();
    for port in app.ports.iter().filter(|port| port.socket_activated) {
        let ports = socket_ports(port).context(|| format!("port {:?}", port.name))?;
        let name: AcName = port.name.parse().context(|| format!("port {:?}", port.name))?;
        names.extend(std::iter::repeat_n(name, ports.count.into()));
        sockets.push(ports);
    }
    Ok((sockets, names))
}

fn socket_ports(port: &Port) -> Result<SocketPorts> {
    let protocol = match port.protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(Error::new(format!("protocol {other:?}: only tcp and udp can be socket-activated"))),
    };
    let number = |value: u32| u16::try_from(value).ok().filter(|value| *value > 0);
    let first = number(port.port).context(|| format!("{} is not a port: 1 to 65535", port.port))?;
    let count = port.count.unwrap_or(1).max(1);
    let count = number(count).context(|| format!("{count} ports are too many"))?;
    // systemd passes no more descriptors than this.
    if count > MAX_SOCKETS {
        return Err(Error::new(format!("{count} sockets are too many: {MAX_SOCKETS} at most")));
    }
    Ok(SocketPorts { protocol, port: first, count })
}

/// The most sockets of one declared port.
const MAX_SOCKETS: u16 = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for (text, number) in [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMIN", 34), ("64", 64)]
            .into_iter()
            .chain([("SIGRTMAX-1", 63), ("RTMAX", 64), ("SIGPOLL", 29), ("SIGIOT", 6), ("SIGCLD", 17)])
        {
            assert_eq!(parse_stop_signal(text).unwrap(), number, "{text}");
        }
        for bad in ["", "0", "65", "SIGBANANA", "-1", "RTMIN+31", "RTMINX", "RTMAX-31", "RTMAX+1", "15\nKillMode=none"]
        {
            assert!(parse_stop_signal(bad).is_err(), "{bad:?}");
        }
        assert_eq!(parse_stop_timeout("0").unwrap(), Duration::ZERO);
        for bad in ["", "-1", "1.5", "ten", "99999999999", "1\n2"] {
            assert!(parse_stop_timeout(bad).is_err(), "{bad:?}");
        }
        let policy = |restart, limit| RestartPolicy { restart, limit };
        assert_eq!(parse_restart("always").unwrap(), policy(Restart::Always, None));
        assert_eq!(parse_restart("unless-stopped").unwrap(), policy(Restart::Always, None));
        assert_eq!(parse_restart("on-failure:3").unwrap(), policy(Restart::OnFailure, Some(3)));
        for bad in ["on-failure:", "on-failure:x", "always:3", "on-failure:-1", ""] {
            parse_restart(bad).unwrap_err();
        }
        assert!(parse_restart("Always").is_err() && parse_restart("").is_err());
    }

    #[test]
    fn hooks() {
        assert_eq!(parse_hook(POST_START, r#"["/x", "a b"]"#).unwrap(), ["/x", "a b"]);
        for bad in ["", "x", "[]", r#"[""]"#, r#"["a\u0000"]"#, "[1]", r#"[["a"]]"#] {
            assert!(parse_hook(PRE_STOP, bad).unwrap_err().one_line().contains("podctl.io/pre-stop"), "{bad}");
        }
    }

    #[test]
    fn ports() {
        let app = |ports: &str| -> Result<App> {
            let image = format!(
                r#"{{"acKind":"ImageManifest","acVersion":"0.8.11","name":"a",
                "app":{{"exec":["/x"],"user":"0","group":"0","ports":[{ports}]}}}}"#
            );
            Ok(crate::appc::ImageManifest::parse(image.as_bytes())?.app.unwrap())
        };
        let declared = app(r#"{"name":"web","protocol":"tcp","port":80,"socketActivated":true},
            {"name":"plain","protocol":"tcp","port":81},
            {"name":"range","protocol":"udp","port":90,"count":2,"socketActivated":true}"#);
        let (sockets, names) = sockets(&declared.unwrap()).unwrap();
        assert_eq!(sockets.len(), 2);
        assert_eq!(names.iter().map(AcName::as_ref).collect::<Vec<_>>(), ["web", "range", "range"]);
        for bad in [
            r#"{"name":"web","protocol":"sctp","port":80,"socketActivated":true}"#,
            r#"{"name":"web","protocol":"tcp","port":0,"socketActivated":true}"#,
            r#"{"name":"web","protocol":"tcp","port":70000,"socketActivated":true}"#,
            r#"{"name":"web:1","protocol":"tcp","port":80,"socketActivated":true}"#,
            r#"{"name":"web","protocol":"tcp","port":80,"count":10000,"socketActivated":true}"#,
        ] {
            assert!(app(bad).and_then(|app| super::sockets(&app)).is_err(), "{bad}");
        }
    }
}

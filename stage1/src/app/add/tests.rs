//! Hostile manifests: each of their strings is refused, or the unit is the same without it.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::appc::{ImageManifest, PodManifest};
use crate::unit::socket_text;

/// A pod's and an image's manifest in which everything is declared.
fn manifests() -> Value {
    json!({
        "pod": {
            "acKind": "PodManifest", "acVersion": "0.8.11",
            "annotations": [{"name": "a", "value": "b"}], "userAnnotations": {"k": "v"},
            "volumes": [{"name": "v", "kind": "host", "source": "/srv"}],
            "apps": [{
                "name": "one",
                "image": {"id": "sha512-0", "name": "x/y", "labels": [{"name": "os", "value": "linux"}]},
                "mounts": [{"volume": "v", "path": "/m"}],
                "annotations": [
                    {"name": "podctl.io/stop-signal", "value": "SIGINT"},
                    {"name": "podctl.io/stop-timeout", "value": "7"},
                    {"name": "podctl.io/restart", "value": "always"},
                    {"name": "of/nobody", "value": "x"},
                ],
                "app": {
                    "exec": ["/bin/x", "y"], "user": "u", "group": "g", "workingDirectory": "/w",
                    "environment": [{"name": "N", "value": "V"}],
                    "eventHandlers": [{"name": "pre-start", "exec": ["/bin/before", "z"]}],
                    "mountPoints": [{"name": "p", "path": "/p"}],
                    "ports": [{"name": "web", "protocol": "tcp", "port": 80, "socketActivated": true}],
                    "isolators": [
                        {"name": "resource/memory", "value": {"limit": "64M"}},
                        {"name": "resource/cpu", "value": {"request": "1", "limit": "2"}},
                        {"name": "resource/pids", "value": {"limit": "10"}},
                        {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_KILL"]}},
                        {"name": "os/linux/seccomp-remove-set", "value": {"set": ["reboot"], "errno": "EPERM"}},
                        {"name": "os/linux/oom-score-adj", "value": "5"},
                        {"name": "of/nobody", "value": {"x": "y"}},
                    ],
                    "userAnnotations": {"k": "v"}, "userLabels": {"k": "v"}, "unheard": {"of": ["x"]},
                },
            }],
        },
        "image": {
            "acKind": "ImageManifest", "acVersion": "0.8.11", "name": "x/y",
            "labels": [{"name": "os", "value": "linux"}],
            "annotations": [
                {"name": "appc.io/executor/supports-systemd-notify", "value": "true"},
                {"name": "org.opencontainers.image.stopSignal", "value": "9"},
            ],
        },
    })
}

/// The units of the app.
fn units(manifests: &Value) -> Result<String> {
    let pod = PodManifest::parse(manifests["pod"].to_string().as_bytes())?;
    let image = ImageManifest::parse(manifests["image"].to_string().as_bytes())?;
    let app = PodApp { runtime: pod.apps.into_iter().next().context(|| "no app")?, image };
    let isolators = Isolators::parse(&app.app()?.isolators)?;
    let ids = Ids::default();
    Confinement::compute(&isolators, InsecureOptions::default(), &ids)?;
    let handlers = (!app.app()?.event_handlers.is_empty(), false);
    let prepared =
        Prepared { declared: DeclaredSettings::by(&app)?, devices: Vec::new(), any_device: false, handlers, isolators };
    let unit = prepared.unit(&app.runtime.name, CgroupLimits::from(&prepared.isolators), true);
    Ok(unit.text()? + &socket_text(unit.app, unit.sockets)?)
}

/// Where the strings of a manifest are, those that are keys left out.
fn strings(value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::String(_) => into.push(at.to_owned()),
        Value::Array(list) => list.iter().enumerate().for_each(|(n, v)| strings(v, &format!("{at}/{n}"), into)),
        Value::Object(map) => map.iter().for_each(|(key, v)| strings(v, &format!("{at}/{key}"), into)),
        _ => {}
    }
}

/// A string of the manifest has become a hostile one: what does that make of the units?
fn judge(at: &str, outcome: Result<String>, expected: &str) {
    let text = match outcome {
        Ok(text) => text,
        Err(error) => return assert!(!error.one_line().contains('\n'), "{at}"),
    };
    assert!(!text.contains("hostile"), "{at}: {text}");
    // What is not called by its name any more is not declared: there may be less then, or what is so by default.
    if at.ends_with("/name") && (at.contains("/annotations/") || at.contains("/isolators/")) {
        return assert!(text.lines().count() <= expected.lines().count(), "{at}: {text}");
    }
    assert_eq!(text, expected, "{at}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_string_of_a_manifest_gets_into_a_unit(
        before in "(|/|[a-z]{1,3}|[\\PC\n\r\0%$;=]{0,8})",
        after in "(|\nExecStartPost=/bin/sh|\n\\[Install\\]|%n|\\x0a|[\\PC\n\r\0%$;=]{0,20})",
    ) {
        let expected = units(&manifests()).unwrap();
        let mut all = Vec::new();
        strings(&manifests(), "", &mut all);
        assert!(all.len() > 50);
        // But for the app's own name, which may, if it is one at all.
        for at in all.iter().filter(|at| *at != "/pod/apps/0/name") {
            let mut hostile = manifests();
            *hostile.pointer_mut(at).unwrap() = json!(format!("{before}hostile{after}"));
            judge(at, units(&hostile), &expected);
        }
    }
}

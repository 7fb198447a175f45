//! Strings of a manifest that would be unit directives, in the place of every string in the manifests of a real app.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::minihost::MiniPod;

tests::cases! {
    native no_string_of_a_manifest_becomes_a_directive 120;
}

/// The texts to append to a string, or to replace it with. No unit contains any of them.
const DIRECTIVES: [&str; 2] =
    ["\nExecStartPost=/probe evil\n[Service]\nUser=%n", " %i\\x0aEnvironment=EVIL=$$ ; \"'${EVIL}"];

fn json_file(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The places of strings in a document.
fn strings(value: &Value, at: &str, into: &mut Vec<String>) {
    match value {
        Value::String(_) => into.push(at.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(n, item)| strings(item, &format!("{at}/{n}"), into));
        }
        Value::Object(fields) => {
            let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
            fields.iter().for_each(|(key, item)| strings(item, &format!("{at}/{}", escaped(key)), into));
        }
        _ => {}
    }
}

/// All unit files and drop-ins of apps, with their names.
fn units(pod: &MiniPod<'_>) -> String {
    let directory = pod.dir().join("stage1/rootfs/etc/systemd/system");
    let mut text = String::new();
    let mut entries: Vec<_> = fs::read_dir(&directory).expect("units").flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries.iter().filter(|path| path.display().to_string().contains("app-")) {
        text.push_str(&format!("{}\n{}\n", path.display(), fs::read_to_string(path).unwrap_or_default()));
    }
    text
}

fn no_string_of_a_manifest_becomes_a_directive(t: &Context) -> Verdict {
    let host = t.minihost();
    let volumes = json!([{"name": "data", "kind": "empty", "mode": "0755"}]);
    let (mut pod, monitor) = host.boot(&volumes, &["--net=host"]);
    let stage2 = "coreos.com/rkt/stage2";
    let app = json!({
        "workingDirectory": "/home",
        "environment": [{"name": "NAME", "value": "value"}],
        "eventHandlers": [{"name": "pre-start", "exec": ["/probe", "print", "x"]},
            {"name": "post-stop", "exec": ["/probe", "print", "x"]}],
        "isolators": [
            {"name": "resource/memory", "value": {"request": "32Mi", "limit": "64Mi"}},
            {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_CHOWN"]}},
            {"name": "os/linux/seccomp-remove-set", "value": {"set": ["@rkt/default-blacklist"], "errno": "ENOSYS"}}],
        "ports": [{"name": "web", "protocol": "tcp", "port": 18080, "count": 1, "socketActivated": true}],
        "userAnnotations": {"note": "text"}, "userLabels": {"label": "text"},
    });
    pod.stage("nasty", &["/probe", "exit", "0"], &json!([{"volume": "data", "path": "/data"}]), &app);
    let places = [pod.dir().join("pod"), pod.dir().join("appsinfo/nasty/manifest")];
    let mut documents = places.each_ref().map(|place| json_file(place));
    documents[0]["apps"][0]["annotations"] = json!([
        {"name": format!("{stage2}/stdin"), "value": "stream"}, {"name": format!("{stage2}/stdout"), "value": "stream"},
        {"name": format!("{stage2}/stderr"), "value": "log"}, {"name": "example.com/note", "value": "text"}]);
    documents[1]["annotations"] = json!([
        {"name": "appc.io/executor/supports-systemd-notify", "value": "false"}, {"name": "authors", "value": "text"}]);
    let uuid = format!("--uuid={}", pod.uuid);
    let words = ["--app=nasty", uuid.as_str()];
    let put = |number: usize, document: &Value| fs::write(&places[number], document.to_string());
    [0, 1].into_iter().try_for_each(|number| put(number, &documents[number]))?;
    pod.cross("app/add", &words).ok();
    let ordinary = units(&pod);
    pod.cross("app/rm", &words[..1]).ok();

    let (mut tried, mut added) = (0, 0);
    for (number, top) in [(0, "/apps/0"), (1, "")] {
        let mut found = Vec::new();
        strings(documents[number].pointer(top).expect("an app"), top, &mut found);
        for at in found.iter().filter(|at| *at != "/apps/0/name") {
            for directive in DIRECTIVES {
                for evil in [|text: &str, more: &str| format!("{text}{more}"), |_: &str, more: &str| more.to_owned()] {
                    let mut document = documents[number].clone();
                    let string = document.pointer_mut(at).expect("a string");
                    *string = evil(string.as_str().unwrap_or_default(), directive).into();
                    put(number, &document)?;
                    let out = pod.cross("app/add", &words);
                    tried += 1;
                    let units = units(&pod);
                    for word in ["evil", "EVIL", "%i", "%n", "ExecStartPost", "$$", "\\x0a"] {
                        let known = ordinary.matches(word).count();
                        assert_eq!(units.matches(word).count().max(known), known, "{at} {directive:?}: {units}");
                    }
                    if out.code == Some(0) {
                        added += 1;
                        pod.cross("app/rm", &words[..1]).ok();
                    } else {
                        assert!(!out.stderr.contains("panicked"), "{at}: {out}");
                        assert!(!units.contains("app-nasty"), "{at}: an app that was refused has a unit: {units}");
                    }
                }
            }
        }
        put(number, &documents[number])?;
    }
    assert!(tried > 100 && added > 20, "{tried} tried, {added} added");
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

//! The files in `target/dist`, without a pod.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tests::harness::Context;
use tests::process::{Output, run};
use tests::{Verdict, dist};

tests::cases! {
    native every_entrypoint_is_there_static_and_small;
    native every_entrypoint_prints_usage;
    native wrong_flags_are_refused_with_usage;
    native the_image_is_complete_and_fits;
}

/// The programs for the host, then those for the pod.
const HOST: &[&str] = &["run", "enter", "app-add", "app-start", "app-stop", "app-rm", "attach", "stop", "gc"];
const POD: &[&str] = &["app-exec", "reaper", "supervisor-ready", "prepare-app"];

fn entrypoints() -> impl Iterator<Item = (&'static str, PathBuf)> {
    HOST.iter().chain(POD).map(|name| (*name, dist().join("entrypoints").join(name)))
}

fn every_entrypoint_is_there_static_and_small(_: &Context) -> Verdict {
    for (name, path) in entrypoints() {
        let bytes = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        assert!(bytes.len() <= 1_000_000, "{name} has {} bytes", bytes.len());
        let headers = run(Command::new("readelf").arg("-lW").arg(&path)).ok();
        assert!(!headers.contains("INTERP"), "{name} wants an interpreter:\n{headers}");
        let needed = run(Command::new("readelf").arg("-dW").arg(&path)).ok();
        assert!(!needed.contains("NEEDED"), "{name} wants libraries:\n{needed}");
    }
    let podctl = dist().join("podctl");
    let headers = run(Command::new("readelf").arg("-lW").arg(&podctl)).ok();
    assert!(!headers.contains("INTERP"), "podctl wants an interpreter:\n{headers}");
    Ok(())
}

fn every_entrypoint_prints_usage(t: &Context) -> Verdict {
    for (name, path) in entrypoints() {
        for flag in ["--help", "-help"] {
            let out = run(Command::new(&path).arg(flag).env_clear().current_dir(&t.dir));
            assert_eq!(out.code, Some(0), "{out}");
            assert!(out.stdout.contains("Usage") && out.stdout.contains(name), "{out}");
        }
    }
    Ok(())
}

fn wrong_flags_are_refused_with_usage(t: &Context) -> Verdict {
    let refused = |out: &Output| matches!(out.code, Some(1 | 2)) && !out.stderr.trim().is_empty();
    for (_, path) in entrypoints() {
        let out = run(Command::new(&path).arg("--no-such-flag=x").env_clear().current_dir(&t.dir));
        assert!(refused(&out), "{out}");
        assert!(!out.stderr.contains("panicked"), "{out}");
    }
    for name in HOST {
        let out = run(Command::new(dist().join("entrypoints").join(name)).env_clear().current_dir(&t.dir));
        assert!(refused(&out), "without its arguments: {out}");
        if *name != "enter" && *name != "stop" {
            let out = run(Command::new(dist().join("entrypoints").join(name)).arg("--debug=perhaps").env_clear());
            assert!(refused(&out), "{out}");
        }
    }
    Ok(())
}

fn the_image_is_complete_and_fits(t: &Context) -> Verdict {
    let names = run(Command::new("tar").arg("-tzf").arg(dist().join("stage1.aci"))).ok();
    let names: Vec<&str> = names.lines().map(|n| n.trim_start_matches("./").trim_end_matches('/')).collect();
    let roots = names.iter().filter_map(|n| n.split('/').next()).filter(|n| !n.is_empty());
    let roots: std::collections::BTreeSet<&str> = roots.collect();
    assert_eq!(roots.into_iter().collect::<Vec<_>>(), ["manifest", "rootfs"]);
    let wanted =
        "rkt/status rkt/env rkt/iottymux opt/stage2 etc proc sys dev run tmp var/log/journal etc/os-release flavor";
    for path in wanted.split(' ') {
        assert!(names.contains(&format!("rootfs/{path}").as_str()), "the image lacks {path}");
    }

    let host = t.minihost();
    let manifest = host.stage1_manifest();
    assert_eq!(manifest["acKind"], "ImageManifest");
    assert_eq!(manifest["acVersion"], "0.8.11");
    assert_eq!(manifest["name"], "coreos.com/rkt/stage1-crossing");
    assert!(manifest.get("app").is_none_or(serde_json::Value::is_null), "{manifest}");
    for label in ["version", "os", "arch"] {
        let has = manifest["labels"].as_array().is_some_and(|l| l.iter().any(|l| l["name"] == label));
        assert!(has, "no label {label} in {manifest}");
    }
    let annotation = |name: &str| {
        let name = format!("coreos.com/rkt/stage1/{name}");
        let all = manifest["annotations"].as_array().cloned().unwrap_or_default();
        all.iter().find(|a| a["name"] == name.as_str()).map(|a| a["value"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(annotation("interface-version").as_deref(), Some("6"));
    for name in ["run", "enter", "gc", "stop", "app/add", "app/start", "app/stop", "app/rm", "attach"] {
        let path = annotation(name).unwrap_or_else(|| panic!("no annotation {name}"));
        let file = dist().join("stage1/rootfs").join(path.trim_start_matches('/'));
        assert!(file.is_file(), "{name} names {path}, which is not in the image");
    }
    let size = run(Command::new("du").arg("-sk").arg(dist().join("stage1"))).ok();
    let kilobytes: u64 = size.split_whitespace().next().unwrap_or("").parse()?;
    assert!(kilobytes <= 25 * 1024, "the image takes {kilobytes} KB");
    Ok(())
}

//! Pods that use copies of their images instead of overlays, by option or because there can be no overlays.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::podctl::{Pod, Podctl};
use tests::process::mountinfo;

tests::cases! {
    both an_app_sees_no_difference;
    native copied_where_there_can_be_no_overlay;
    native prepared_copies_are_run;
}

fn mounts(podctl: &Podctl) -> usize {
    let data = podctl.data.join("pods").display().to_string();
    mountinfo("self").iter().filter(|m| m[4].starts_with(&data)).count()
}

/// What an app sees that is the same in each pod.
#[track_caller]
fn sees(pod: &Pod<'_>) -> Value {
    let words = ["write", "/home/new", "x", "+", "append", "/data/kept", "more", "+", "report", "/out/one.json"];
    pod.add("one", &[], &[&words[..], &["+", "orderly", "7"]].concat());
    pod.app("start", "one", &[]).ok();
    let report = pod.read("one");
    fs::remove_file(pod.podctl.out().join("one.json")).unwrap_or_else(|e| panic!("{e}"));
    let names = ["argv", "env", "cwd", "ids", "capabilities", "seccomp", "no_new_privs", "limits", "root", "dev"];
    let mut seen: serde_json::Map<_, _> = names.iter().map(|n| ((*n).to_owned(), report[*n].clone())).collect();
    for path in ["/data/owned", "/data/kept", "/escape", "/probe", "/", "/tmp"] {
        let stat: Value = serde_json::from_str(&pod.enter("one", &["/probe", "stat", path]).ok()).expect("stat");
        let whose = json!([stat["kind"], stat["mode"], stat["uid"], stat["gid"], stat["link"]]);
        seen.insert(path.into(), whose);
    }
    seen.into()
}

fn an_app_sees_no_difference(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let mut seen = None;
    for making in [&[][..], &["--no-overlay"]] {
        let pod = podctl.pod(&[making, &["--net=none"]].concat());
        assert_eq!(pod.dir().join("overlay-prepared").exists(), making.is_empty());
        let now = sees(&pod);
        assert_eq!(&now, seen.get_or_insert(now.clone()));
        assert_eq!(mounts(&podctl), if making.is_empty() { 2 } else { 0 });
        pod.app("stop", "one", &[]).ok();
        assert_eq!(pod.status("one")["exit_code"], 7);
        pod.app("start", "one", &[]).ok();
        assert_eq!(pod.state("one"), "running");
        pod.add("two", &[], &["sleep", "inf"]);
        pod.app("rm", "two", &[]).ok();
        assert!(!pod.dir().join("stage1/rootfs/opt/stage2/two").exists());
        assert_eq!(pod.enter("one", &["/probe", "cat", "/data/kept"]).ok(), "from the image\nmore\nmore");
        // the shared tree is unchanged
        podctl.ok(&["image", "verify"]);
        podctl.ok(&["stop", &pod.uuid]);
        assert_eq!(pod.status("one")["exit_code"], 7, "read after the pod's end");
        podctl.ok(&["rm", &pod.uuid]);
        assert_eq!(mounts(&podctl), 0);
    }
    Ok(())
}

/// Overlays on overlays, as deep as the kernel allows.
struct Deep<'a>(&'a Path);

impl Deep<'_> {
    fn mount(&self) -> Verdict {
        for depth in ["a", "b"] {
            let at = |name: &str| self.0.join(depth).join(name);
            for name in ["lower", "upper", "work", "merged"] {
                fs::create_dir_all(at(name))?;
            }
            let lower = if depth == "a" { at("lower") } else { self.0.join("a/merged") };
            let (lower, upper, work) = (lower.display(), at("upper").display().to_string(), at("work"));
            let options = format!("lowerdir={lower},upperdir={upper},workdir={}", work.display());
            mount(Some("overlay"), &at("merged"), Some("overlay"), MsFlags::empty(), Some(options.as_str()))?;
        }
        Ok(())
    }

    fn unmount(&self) -> Verdict {
        for depth in ["b", "a"] {
            umount2(&self.0.join(depth).join("merged"), MntFlags::empty())?;
        }
        Ok(())
    }
}

fn copied_where_there_can_be_no_overlay(t: &Context) -> Verdict {
    let deep = Deep(&t.dir);
    deep.mount()?;
    let dir = t.dir.join("b/merged");
    let podctl = Podctl::new(&tests::dist().join("podctl"), &dir.join("data"), &t.dir);
    podctl.import_probe();
    for making in [&[][..], &["--private-users"]] {
        let out = podctl.run(&[&["sandbox", "--net=none"], making].concat());
        assert!(out.stderr.lines().count() == 1 && out.stderr.contains("are copied"), "{out}");
        let pod = Pod { podctl: &podctl, uuid: out.ok() };
        assert!(!pod.dir().join("overlay-prepared").exists() && !pod.dir().join("overlay").exists());
        podctl.ok(&["app", "add", &pod.uuid, "probe", "--name=one", "--", "sleep", "inf"]);
        pod.app("start", "one", &[]).ok();
        assert_eq!(pod.enter("one", &["/probe", "cat", "/data/kept"]).ok(), "from the image");
        let inside: Value = serde_json::from_str(&pod.enter("one", &["/probe", "stat", "/data/owned"]).ok())?;
        assert_eq!((inside["uid"].as_u64(), inside["gid"].as_u64()), (Some(1234), Some(2345)));
        assert_eq!(mounts(&podctl), 0);
        pod.end();
    }
    let out = podctl.run(&["run", "--rm", "--net=none", "probe", "--", "print", "said"]);
    assert!(out.code == Some(0) && out.stdout.contains("said"), "{out}");
    deep.unmount()?;
    Ok(())
}

fn prepared_copies_are_run(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let words = ["--", "write", "/data/kept", "changed", "+", "cat", "/data/kept"];
    let uuid = podctl.ok(&[&["prepare", "--no-overlay", "probe"], &words[..]].concat());
    let prepared = podctl.data.join("pods/prepared").join(&uuid);
    let copy = prepared.join("stage1/rootfs/opt/stage2/probe/rootfs");
    let stat = copy.join("data/owned").metadata()?;
    assert_eq!((stat.uid(), stat.gid()), (1234, 2345));
    // a prepared pod runs with the files it was prepared with, even if the tree changes
    fs::write(copy.join("home/readme"), "changed")?;
    let out = podctl.run(&["run-prepared", "--net=none", &uuid]);
    assert!(out.code == Some(0) && out.stdout.contains("changed"), "{out}");
    let ended = podctl.data.join("pods/run").join(&uuid).join("stage1/rootfs/opt/stage2/probe/rootfs");
    assert_eq!(fs::read_to_string(ended.join("home/readme"))?, "changed");
    podctl.ok(&["gc", "--grace-period=0s"]);
    assert!(!ended.exists());
    podctl.ok(&["image", "verify"]);
    Ok(())
}

//! Users, isolators and commands that a manifest declares, also if the image does not match them.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::image;

tests::cases! {
    native root_is_0_without_any_entry;
    native users_named_by_a_missing_path;
    native misspelt_isolators_are_refused;
    native isolators_of_others_are_named;
    native commands_and_interpreters_that_are_missing;
}

fn root_is_0_without_any_entry(t: &Context) -> Verdict {
    let podctl = t.podctl();
    for (name, passwd, group) in [
        ("none", None, None),
        ("lacking", Some("web:x:1:1::/:/x\n"), Some("web:x:1:\n")),
        ("other", Some("root:x:5:5::/:/x\n"), Some("root:x:5:\n")),
    ] {
        let root = t.dir.join(format!("{name}-root"));
        image::rootfs(&root);
        for (file, text) in [("etc/passwd", passwd), ("etc/group", group)] {
            match text {
                Some(text) => fs::write(root.join(file), text)?,
                None => fs::remove_file(root.join(file))?,
            }
        }
        podctl.ok(&["image", "import", &root.display().to_string(), "--name", name, "--exec", "/probe"]);
    }
    let pod = podctl.pod(&[]);
    for image in ["none", "lacking", "other"] {
        let file = format!("/out/{image}.json");
        pod.try_add(image, image, &["--user=root", "--group=root"], &["report", &file]).ok();
        pod.app("start", image, &[]).ok();
        assert_eq!(pod.exit_code(image), 0);
        let ids = &pod.read(image)["ids"];
        assert_eq!((&ids["uid"], &ids["gid"]), (&json!([0, 0, 0, 0]), &json!([0, 0, 0, 0])), "{image}");
    }
    pod.end();
    Ok(())
}

fn users_named_by_a_missing_path(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&[]);
    for option in ["--user=/no/such/file", "--group=/no/such/file"] {
        let complaint = pod.try_add("probe", "x", &[option], &["exit", "0"]).complaint();
        assert!(complaint.contains("no such file or directory") && complaint.contains("/no/such/file"), "{complaint}");
        assert!(pod.manifest_apps().is_empty());
    }
    pod.end();
    Ok(())
}

fn misspelt_isolators_are_refused(t: &Context) -> Verdict {
    let host = t.minihost();
    let (mut pod, monitor) = host.boot(&json!([]), &["--net=none"]);
    for (nth, (name, words)) in [
        ("resource/memmory", "did you mean \"resource/memory\"?"),
        ("os/linux/capabilities-retain", "did you mean \"os/linux/capabilities-retain-set\"?"),
        ("os/linux/entirely-made-up", "unknown isolator"),
    ]
    .into_iter()
    .enumerate()
    {
        let app = format!("app{nth}");
        let isolators = json!({"isolators": [{"name": name, "value": {"limit": "64M"}}]});
        pod.stage(&app, &["/probe", "sleep", "inf"], &json!([]), &isolators);
        let complaint = pod.cross("app/add", &[&format!("--app={app}")]).complaint();
        assert!(complaint.contains(name) && complaint.contains(words), "{complaint}");
        assert_ne!(pod.start_app(&app).code, Some(0), "an app was started without the limit it declares");
        pod.rm(&app);
    }
    pod.stop(true, monitor);
    pod.collect(1);
    // With podctl nothing is left of such an app.
    let podctl = t.podctl();
    podctl.import_with("misspelt", &json!({"isolators": [{"name": "resource/memmory", "value": {"limit": "64M"}}]}));
    let pod = podctl.pod(&[]);
    let complaint = pod.try_add("misspelt", "x", &[], &["exit", "0"]).complaint();
    assert!(complaint.contains("did you mean \"resource/memory\"?"), "{complaint}");
    assert!(pod.manifest_apps().is_empty());
    pod.end();
    Ok(())
}

fn isolators_of_others_are_named(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let isolators =
        json!([{"name": "example.com/new", "value": {}}, {"name": "resource/block-iops", "value": {"limit": 5}}]);
    podctl.import_with("others", &json!({ "isolators": isolators }));
    let pod = podctl.pod(&[]);
    let out = pod.try_add("others", "x", &[], &["exit", "0"]);
    assert_eq!(out.code, Some(0), "{out}");
    for name in ["example.com/new", "resource/block-iops"] {
        assert!(out.stderr.contains(name) && out.stderr.lines().count() == 1, "{out}");
    }
    pod.end();
    Ok(())
}

fn commands_and_interpreters_that_are_missing(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let root = t.dir.join("broken-root");
    image::rootfs(&root);
    let mut program = fs::read("/bin/true")?;
    // A real program, whose interpreter has another name.
    let name = b"/lib64/ld-linux";
    let at = program.windows(name.len()).position(|window| window == name).ok_or("/bin/true is not dynamic")?;
    program[at + 1..at + 4].copy_from_slice(b"not");
    fs::write(root.join("dynamic"), program)?;
    fs::write(root.join("script"), "#!/no/such/interpreter\n")?;
    for file in ["dynamic", "script"] {
        fs::set_permissions(root.join(file), fs::Permissions::from_mode(0o755))?;
    }
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "broken", "--exec", "/probe"]);
    for (command, missing) in [
        ("/no/such/file", "/no/such/file"),
        ("no-such-command", "no-such-command"),
        ("/dynamic", "/not64/ld-linux-x86-64.so.2"),
        ("/script", "/no/such/interpreter"),
    ] {
        // The pod's whole output, as an operator sees it.
        let out = podctl.run(&["run", "--rm", "--net=none", "broken", "--exec", command]);
        let words = format!("Error: Unable to open \"{missing}\": No such file or directory");
        assert!(out.stdout.contains(&words) || out.stderr.contains(&words), "{command}: {out}");
        assert_ne!(out.code, Some(0), "{command}: {out}");
    }
    Ok(())
}

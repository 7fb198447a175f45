//! Devices by the names that their vendors give them (CDI), for containers of the Kubernetes runtime and for apps.

use std::fs;

use serde_json::{Value, json};
use tests::Verdict;
use tests::cri::api::{CdiDevice, ContainerConfig, KeyValue, ListContainersRequest, RemovePodSandboxRequest};
use tests::cri::{Server, probe, sandbox};
use tests::harness::Context;
use tonic::Code;

tests::cases! {
    native devices_come_with_all_that_they_need 120;
}

fn devices_come_with_all_that_they_need(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let (specs, files) = (t.dir.join("cdi"), t.dir.join("files"));
    fs::create_dir_all(&specs)?;
    fs::create_dir_all(&files)?;
    fs::write(files.join("library"), "of the vendor")?;
    // /dev/kmsg is a device that an app can't use by itself; to write to it takes no capability
    let spec = format!(
        "cdiVersion: 0.7.0\nkind: example.com/log\ncontainerEdits:\n  env: [VENDOR=example.com, WORD=of-the-device]\n  \
         mounts: [{{hostPath: {files}, containerPath: /vendor, options: [ro, nodev, bind]}}]\n  additionalGids: [4711]\n\
         devices:\n- name: writer\n  containerEdits:\n    deviceNodes: [{{path: /dev/writer, hostPath: /dev/kmsg, type: c, \
         major: 1, minor: 11, permissions: w}}]\n- name: reader\n  containerEdits:\n    deviceNodes: [{{path: /dev/reader, \
         hostPath: /dev/kmsg, permissions: r}}]\n",
        files = files.display()
    );
    fs::write(specs.join("log.yaml"), spec)?;
    let hook =
        json!({ "hookName": "createContainer", "path": "/usr/bin/vendor-hook", "args": ["vendor-hook", "links"] });
    let hooked = json!({
        "cdiVersion": "0.5.0",
        "kind": "example.com/hooked",
        "devices": [{ "name": "0", "containerEdits": { "hooks": [hook] } }],
    });
    fs::write(specs.join("hooked.json"), hooked.to_string())?;
    fs::write(specs.join("damaged.json"), "{")?;
    // neither is ever read to its end
    nix::unistd::mkfifo(&specs.join("fifo.json"), nix::sys::stat::Mode::S_IRWXU)?;
    std::os::unix::fs::symlink("/dev/zero", specs.join("zero.json"))?;
    let option = format!("--cdi-spec-dir={}", specs.display());
    let server = Server::start(&podctl, &[&option]);
    let pod = server.sandbox(&sandbox("devices"));
    let with = |name: &str, fields: &[&str], annotations: &[(&str, &str)]| ContainerConfig {
        cdi_devices: fields.iter().map(|name| CdiDevice { name: (*name).to_owned() }).collect(),
        annotations: annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        envs: vec![KeyValue { key: "WORD".into(), value: b"of the container".to_vec() }],
        ..probe(name, &["sleep", "inf"])
    };
    let said = |id: &str, words: &[&str]| {
        let words: Vec<&str> = ["/probe"].iter().chain(words).copied().collect();
        let answer = server.exec(id, &words, 30).expect("an answer");
        String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
    };
    let (writer, reader) = ("example.com/log=writer", "example.com/log=reader");
    let by_field = with("field", &[writer, reader], &[]);
    let by_annotation = with("annotation", &[], &[("cdi.k8s.io/plugin", &format!("{writer},{reader}"))]);
    for config in [by_field, by_annotation] {
        let id = server.container(&pod, config);
        server.start_container(&id);
        for (how, path, outcome) in
            [("w", "/dev/writer", "ok"), ("w", "/vendor/library", "EROFS"), ("r", "/vendor/library", "ok")]
        {
            assert_eq!(said(&id, &["open", how, path]), outcome, "{how} {path}");
        }
        let report: Value = serde_json::from_str(&said(&id, &["report"]))?;
        let env = &report["env"];
        assert_eq!((&env["VENDOR"], &env["WORD"]), (&json!("example.com"), &json!("of-the-device")), "{report}");
        assert!(report["ids"]["groups"].as_array().is_some_and(|all| all.contains(&json!(4711))), "{report}");
    }
    // one device alone has its own access, and a container without one has nothing of it
    let alone = server.container(&pod, with("alone", &[reader], &[]));
    let none = server.container(&pod, with("none", &[], &[]));
    for id in [&alone, &none] {
        server.start_container(id);
        assert_eq!(said(id, &["open", "w", "/dev/writer"]), "ENOENT");
    }
    assert_eq!(said(&alone, &["open", "w", "/dev/reader"]), "EPERM", "it may be read only");
    assert_eq!(said(&none, &["open", "r", "/vendor/library"]), "ENOENT");

    // what can't be had is refused, by name, and nothing is made
    let count = || {
        let all =
            server.runtime(|mut client| async move { client.list_containers(ListContainersRequest::default()).await });
        all.expect("a list").containers.len()
    };
    let before = count();
    for (name, parts) in [
        ("example.com/hooked=0", &["example.com/hooked=0", "hooked.json", "vendor-hook", "createContainer hook"][..]),
        (
            "example.com/log=none",
            &[
                "example.com/log=none",
                "no file in",
                "damaged.json: not JSON",
                "fifo.json: it is not a regular file",
                "zero.json: it is not a regular file",
            ],
        ),
        ("example.com/log", &["expected VENDOR/CLASS=NAME"]),
    ] {
        let refused = server.try_container(&pod, with("refused", &[name], &[])).expect_err(name);
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        for part in parts {
            assert!(refused.message().contains(part), "{part}: {refused}");
        }
    }
    assert_eq!(count(), before);

    // the same for an app of a pod
    for name in ["damaged.json", "fifo.json", "zero.json"] {
        fs::remove_file(specs.join(name))?;
    }
    let app = podctl.pod(&[]);
    app.add("one", &[&option, "--device", writer, "--device", "/dev/kmsg:/dev/path:r"], &["sleep", "inf"]);
    app.app("start", "one", &[]).ok();
    assert_eq!(app.enter("one", &["/probe", "open", "w", "/dev/writer"]).ok(), "ok");
    assert_eq!(app.enter("one", &["/probe", "cat", "/vendor/library"]).ok(), "of the vendor");
    let refused = podctl.fails(&["app", "add", &app.uuid, "probe", &option, "--device=example.com/hooked=0"]);
    assert!(refused.contains("vendor-hook"), "{refused}");
    let usual = podctl.fails(&["app", "add", &app.uuid, "probe", "--device=example.com/none=0"]);
    assert!(usual.contains("no file in /etc/cdi or /var/run/cdi has it"), "{usual}");
    app.end();
    let request = RemovePodSandboxRequest { pod_sandbox_id: pod };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await })?;
    Ok(())
}

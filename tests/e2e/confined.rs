//! What an app may see and do beyond the usual: paths that are hidden or read-only, groups of the image, capabilities that
//! last, privileges that can be gained.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::image;

tests::cases! {
    native paths_are_hidden_and_read_only;
    native groups_of_the_image;
    both capabilities_last_and_privileges_are_gained;
}

fn paths_are_hidden_and_read_only(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let pod = podctl.pod(&["--volume=data,kind=empty"]);
    let options = [
        "--mask=/data/owned",
        "--mask=/over",
        // a link of the image leads to a place of the image
        "--mask=/escape/passwd",
        // as it is in any case, and what is not there
        "--mask=/proc/interrupts",
        "--mask=/no/such/path",
        "--readonly-path=/tmp",
        "--readonly-path=/vol/inner",
        "--readonly-path=/proc/sys",
        "--readonly-path=/none",
        "--mount=volume=data,target=/vol",
        "--mount=volume=data,target=/tmp/below",
    ];
    pod.add("one", &options, &["sleep", "inf"]);
    pod.app("start", "one", &[]).ok();
    let open = |how: &str, path: &str| pod.enter("one", &["/probe", "open", how, path]).ok();
    let as_user =
        |path: &str| podctl.run(&["enter", "--user=1001", &pod.uuid, "one", "--", "/probe", "open", "r", path]);
    for path in ["/data/owned", "/etc/passwd", "/proc/interrupts"] {
        assert_eq!(pod.enter("one", &["/probe", "cat", path]).ok(), "", "{path}");
        assert_eq!(as_user(path).ok(), "EACCES", "{path}");
        assert_eq!(open("w", path), "EROFS", "{path}");
    }
    assert_eq!(pod.enter("one", &["/probe", "ls", "/over"]).ok(), "");
    assert_eq!(pod.enter("one", &["/probe", "cat", "/data/kept"]).ok(), "from the image");
    for path in ["/tmp/new", "/tmp/below/new"] {
        assert_ne!(pod.enter("one", &["/probe", "write", path, "x"]).code, Some(0), "{path}");
    }
    pod.enter("one", &["/probe", "write", "/vol/new", "x"]).ok();
    // another app has all of it
    pod.add("two", &[], &["sleep", "inf"]);
    pod.app("start", "two", &[]).ok();
    assert_eq!(pod.enter("two", &["/probe", "cat", "/data/owned"]).ok(), "by 1234:2345");
    // what is no path
    for bad in ["--mask=proc/kcore", "--mask=/", "--readonly-path=x"] {
        let complaint = pod.try_add("probe", "three", &[bad], &["sleep", "inf"]).complaint();
        assert!(complaint.contains("is not an absolute path below the root"), "{complaint}");
    }
    pod.end();
    Ok(())
}

fn groups_of_the_image(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let pod = podctl.pod(&[]);
    for (number, (options, gid, groups)) in [
        (&["--user=web"][..], 2001, json!([2001, 3001])),
        (&["--user=web", "--group=5"], 5, json!([])),
        (&["--user=web", "--image-groups=primary"], 2001, json!([2001])),
        (&["--user=1001", "--image-groups=all", "--supplementary-gid=7"], 2001, json!([7, 2001, 3001])),
        (&["--user=web", "--group=5", "--image-groups=all"], 5, json!([5, 3001])),
        (&["--user=1234", "--image-groups=all"], 0, json!([0])),
    ]
    .into_iter()
    .enumerate()
    {
        let seen = pod.report(&format!("app-{number}"), options);
        let mut found: Vec<u64> =
            seen["ids"]["groups"].as_array().expect("groups").iter().filter_map(serde_json::Value::as_u64).collect();
        found.sort_unstable();
        assert_eq!((&seen["ids"]["gid"][0], json!(found)), (&json!(gid), groups), "{options:?}");
    }
    pod.end();
    Ok(())
}

fn capabilities_last_and_privileges_are_gained(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let root = t.dir.join("setuid-root");
    image::rootfs(&root);
    fs::set_permissions(root.join("probe"), fs::Permissions::from_mode(0o4755))?;
    podctl.import_probe();
    podctl.ok(&["image", "import", &root.display().to_string(), "--name", "su", "--exec", "/probe"]);
    let pod = podctl.pod(&[]);
    let report = |name: &str, options: &[&str]| {
        let out = format!("/out/{name}.json");
        pod.try_add("su", name, options, &["report", &out]).ok();
        pod.app("start", name, &[]).ok();
        pod.read(name)
    };
    // with the usual filter nobody gains privileges, unless that is said
    let seen = report("kept", &["--user=1001"]);
    assert_eq!(
        (&seen["no_new_privs"], &seen["seccomp"], &seen["ids"]["uid"][1]),
        (&"1".into(), &"2".into(), &json!(1001))
    );
    let seen = report("gained", &["--user=1001", "--no-new-privileges=false"]);
    assert_eq!(
        (&seen["no_new_privs"], &seen["seccomp"], &seen["ids"]["uid"][1]),
        (&"0".into(), &"2".into(), &json!(0))
    );
    // and what loading the filter took is gone
    assert_eq!(seen["capabilities"]["CapBnd"], "00000000a80425fb");
    assert_eq!(seen["capabilities"]["CapPrm"], "00000000a80425fb");

    let plain = |name: &str, options: &[&str]| pod.report(name, options)["capabilities"].clone();
    let none = plain("none", &["--user=1001", "--no-new-privileges=false"]);
    assert_eq!((&none["CapPrm"], &none["CapAmb"]), (&"0000000000000000".into(), &"0000000000000000".into()));
    // CAP_NET_BIND_SERVICE and CAP_CHOWN
    for (name, more) in [("lasting", "--no-new-privileges=false"), ("bound", "--no-new-privileges")] {
        let seen = plain(name, &["--user=1001", "--caps-ambient=CAP_NET_BIND_SERVICE,CHOWN", more]);
        for set in ["CapPrm", "CapEff", "CapInh", "CapAmb"] {
            assert_eq!(seen[set], "0000000000000401", "{name}: {set}: {seen}");
        }
    }
    let seen = plain("root", &["--caps-ambient=CAP_CHOWN"]);
    assert_eq!((&seen["CapAmb"], &seen["CapPrm"]), (&"0000000000000001".into(), &"00000000a80425fb".into()));
    let complaint = pod.try_add("probe", "beyond", &["--caps-ambient=CAP_SYS_TIME"], &["sleep", "inf"]).complaint();
    assert!(complaint.contains("the app does not keep CAP_SYS_TIME"), "{complaint}");
    pod.end();
    Ok(())
}

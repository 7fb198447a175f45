//! The user and the groups of an app that is given a user: by the account files of its image, as in other tools.

use std::fs;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::process::wait_for;

tests::cases! {
    native a_user_has_its_groups_of_the_image 120;
}

/// The probe's image has the user web (1001), in the groups www (2001) and extra (3001).
fn a_user_has_its_groups_of_the_image(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pod = podctl.pod(&["--net=none", "--name=web"]);
    let cases = [
        (&["--user=web"][..], (1001, 2001, json!([2001, 3001]))),
        (&["-u", "1001"], (1001, 2001, json!([2001, 3001]))),
        (&["-u", "root"], (0, 0, json!([0]))),
        (&["-u", "5555"], (5555, 0, json!([0]))),
        (&["-u", "web:extra"], (1001, 3001, json!([]))),
        (&["-u", "1001:7"], (1001, 7, json!([]))),
        (&["-u", "web", "--group=extra"], (1001, 3001, json!([]))),
        (&["-u", "web", "--supplementary-gid=9"], (1001, 2001, json!([2001, 9, 3001]))),
        (&["-u", "web", "--image-groups=primary"], (1001, 2001, json!([2001]))),
        (&["-u", "/data/owned"], (1234, 2345, json!([]))),
        (&[], (0, 0, json!([]))),
    ];
    for (number, (options, (user, group, groups))) in cases.into_iter().enumerate() {
        let app = format!("app-{number}");
        pod.add(&app, options, &["report", &format!("/out/{app}.json"), "+", "sleep", "inf"]);
        let told = podctl.json(&["inspect", "web", &app]);
        let found = (&told["user"], &told["group"], &told["supplementary_groups"]);
        assert_eq!(found, (&json!(user), &json!(group), &groups), "{options:?}");
    }
    // it is so for the process, and for the commands that enter the app
    let expected = |ids: &Value| ids["uid"][0] == 1001 && ids["gid"][0] == 2001 && ids["groups"] == json!([2001, 3001]);
    pod.app("start", "app-1", &[]).ok();
    let ids = &pod.read("app-1")["ids"];
    assert!(expected(ids), "{ids}");
    let entered: Value = serde_json::from_str(&podctl.ok(&["exec", "web", "app-1", "--", "/probe", "report"]))?;
    assert!(expected(&entered["ids"]), "{entered}");
    // another user has its own groups, not those of the one before
    podctl.ok(&["app", "replace", "web", "app-1", "--user=5555"]);
    let told = podctl.json(&["inspect", "web", "app-1"]);
    assert_eq!((&told["user"], &told["group"]), (&json!(5555), &json!(0)));
    for (words, why) in [
        (["--user=web:", "--group=7"], "expected USER, or USER:GROUP"),
        (["--user=web:www", "--group=7"], "both give a group"),
        (["--user=nobody-such", "--name=x"], "user \"nobody-such\" is not in the image's /etc/passwd"),
    ] {
        let line = podctl.fails(&[&["app", "add", "web", "probe"][..], &words].concat());
        assert!(line.contains(why), "{words:?}: {line}");
    }
    pod.end();

    // a pod that runs by itself, and a pod of a file
    let volume = format!("--volume=out,kind=host,source={}", podctl.out().display());
    let run = [
        "run",
        "--net=none",
        "--name=ran",
        &volume,
        "probe",
        "--exec=/probe",
        "--mount=volume=out,target=/out",
        "-u",
        "1001",
    ];
    podctl.ok(&[&run[..], &["--", "report", "/out/run.json"]].concat());
    podctl.ok(&["rm", "ran"]);
    let report = |name: &str| -> Value {
        let path = podctl.out().join(format!("{name}.json"));
        let text = wait_for(name, 20, || fs::read_to_string(&path).ok().filter(|text| text.trim_end().ends_with('}')));
        serde_json::from_str(&text).expect("a report")
    };
    assert!(expected(&report("run")["ids"]), "{}", report("run"));
    let path = t.dir.join("shop.yaml");
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: shop}}\nspec:\n  containers:\n  - name: one\n    image: probe\n    \
         command: [/probe, report, /out/up.json, +, sleep, inf]\n    securityContext: {{runAsUser: 1001}}\n    \
         volumeMounts: [{{name: out, mountPath: /out}}]\n  volumes:\n  - {{name: out, hostPath: {{path: {}}}}}\n",
        podctl.out().display()
    );
    fs::write(&path, text)?;
    let file = path.display().to_string();
    podctl.ok(&["up", "--net=none", "-f", &file]);
    assert!(expected(&report("up")["ids"]), "{}", report("up"));
    let made = podctl.ok(&["generate", "kube", "shop"]);
    assert!(
        made.contains("runAsUser: 1001") && !made.contains("runAsGroup") && !made.contains("supplemental"),
        "{made}"
    );
    fs::write(&path, &made)?;
    assert_eq!(podctl.ok(&["up", "--net=none", "-f", &file]), "pod shop: unchanged", "{made}");
    podctl.ok(&["down", "shop"]);
    Ok(())
}

//! Contained networks: real plugins, in a network namespace of the test that stands for the host's.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::nethost::{
    BRIDGE, Host, PLUGINS, ask, ask_from_here, host_resolves, host_serves, ip_of, namespace, networks, same, serve,
};
use tests::podctl::Pod;
use tests::process::{Process, run, wait_for};

tests::cases! {
    both pods_reach_each_other_and_the_host 120;
    native names_resolve_as_configured;
    native ports_of_an_app_that_declares_them;
    both nothing_is_left_after_a_kill 120;
    native run_is_killed_while_it_joins;
    native thirty_at_once 300;
    native what_fails_leaves_nothing 120;
    native a_plugin_that_hangs 120;
    native a_plugin_that_is_slow_at_the_end 120;
    native run_is_asked_to_end_while_it_joins;
    native plugins_get_nothing_of_the_pods_own;
    native arguments_and_all_networks;
    native a_check_finds_what_was_taken_away;
    native under_another_host_manager;
    native with_user_ids_of_its_own;
}

fn pods_reach_each_other_and_the_host(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    host_serves(7000, "host");
    let one = host.sandbox(&["--net=br"]);
    let two = host.sandbox(&["--net=br"]);
    let far = host.sandbox(&["--net=default", "--port=web:tcp:80::8080", "--port=talk:udp:99:127.0.0.1:9900"]);
    serve(&one, "one", "tcp", "80");
    serve(&two, "two", "tcp", "80");
    serve(&far, "far", "tcp", "80");
    serve(&far, "talk", "udp", "99");
    let at = |pod, network, port: &str| format!("{}:{port}", ip_of(pod, network));
    let (to_one, to_two, to_far) = (at(&one, "br", "80"), at(&two, "br", "80"), at(&far, "default", "80"));
    assert_eq!(ask(&one, "one", "tcp", &to_two), "two");
    assert_eq!(ask(&two, "two", "tcp", &to_far), "far");
    assert_eq!(ask(&far, "far", "tcp", &to_one), "one");
    assert_eq!(ask(&one, "one", "udp", &at(&far, "default", "99")), "talk");
    assert_eq!(ask(&one, "one", "tcp", "10.77.1.1:7000"), "host");
    assert_eq!(ask(&far, "far", "tcp", "10.77.2.1:7000"), "host");
    // Forwarded, to the host itself and to others.
    assert_eq!(ask_from_here("tcp", "127.0.0.1:8080"), "far");
    assert_eq!(ask_from_here("udp", "127.0.0.1:9900"), "talk");
    assert_eq!(ask(&one, "one", "tcp", "10.77.1.1:8080"), "far");
    assert!(one.enter("one", &["/probe", "ask", "udp", "10.77.1.1:9900"]).code != Some(0), "not at this address");

    // The pod's networks, as its status lists them.
    let status = networks(&one);
    let keys = |key: &str| status.iter().map(|one| one[key].as_str().unwrap_or("none")).collect::<Vec<_>>();
    assert_eq!(keys("netName"), ["br", "default-restricted"]);
    assert_eq!(keys("ifName"), ["eth0", "eth1"]);
    assert_eq!(keys("mask"), ["255.255.255.0", "255.255.255.0"]);
    assert_eq!(status[1]["check"], Value::Null, "a network of a version that knows no CHECK");
    assert_eq!(networks(&far)[0]["check"], "ok");
    assert_eq!(status[0]["pluginPath"], format!("{PLUGINS}/bridge"));
    let file: Value = serde_json::from_str(&fs::read_to_string(one.dir().join("net-info.json"))?)?;
    for key in ["netName", "netConf", "pluginPath", "ifName", "ip", "args", "mask"] {
        assert_eq!(file[0][key], status[0][key], "{key}");
        assert!(file[0][key].is_string(), "{key} in {file}");
    }
    assert!(one.dir().join(file[0]["netConf"].as_str().expect("a path")).exists());
    let listed = host.podctl.json(&["list", "--format=json"]);
    let mine = listed.as_array().and_then(|all| all.iter().find(|pod| pod["name"] == far.uuid.as_str()));
    assert_eq!(mine.expect("the pod")["networks"][0]["ip"], ip_of(&far, "default"));
    assert!(host.podctl.ok(&["list", "--no-trunc"]).contains(&ip_of(&far, "default")));
    assert_eq!(host.pinned(&one.uuid), 1);
    assert!(host.picture().len() > before.len() + 6, "the picture shows nothing");

    // A stop leaves only the name of the pod's network namespace; rm removes it.
    for pod in [&one, &two, &far] {
        host.podctl.ok(&["stop", &pod.uuid]);
        assert_eq!(host.pinned(&pod.uuid), 1);
    }
    same(&before, &host.picture(), "after stop");
    for pod in [&one, &two, &far] {
        host.podctl.ok(&["rm", &pod.uuid]);
        assert_eq!(host.pinned(&pod.uuid), 0);
    }
    same(&before, &host.picture(), "after rm");
    Ok(())
}

fn names_resolve_as_configured(t: &Context) -> Verdict {
    let host = Host::new(t);
    let asked = host_resolves();
    let resolve = |pod: &Pod<'_>, name: &str| pod.enter("x", &["/probe", "resolve", name]);
    let boot = |options: &[&str]| {
        let pod = host.sandbox(options);
        pod.add("x", &[], &["sleep", "inf"]);
        pod.app("start", "x", &[]).ok();
        pod
    };
    // From the network's configuration.
    let pod = boot(&["--net=br"]);
    assert_eq!(resolve(&pod, "web").ok(), "10.9.8.7");
    assert_eq!(asked.try_iter().last().as_deref(), Some("web.test.example"));
    assert_eq!(
        pod.enter("x", &["/probe", "cat", "/etc/resolv.conf"]).ok(),
        "search test.example\nnameserver 10.77.1.1"
    );
    pod.end();
    // From the user's options.
    let pod = boot(&[
        "--net=br",
        "--dns=10.77.1.1",
        "--dns-search=else.where",
        "--dns-opt=ndots:2",
        "--hosts-entry=10.1.2.3=near,10.1.2.4=far",
        "--hostname=box",
    ]);
    assert_eq!(resolve(&pod, "web").ok(), "10.9.8.7");
    assert_eq!(asked.try_iter().last().as_deref(), Some("web.else.where"));
    assert_eq!((resolve(&pod, "near").ok(), resolve(&pod, "far").ok()), ("10.1.2.3".into(), "10.1.2.4".into()));
    assert!(resolve(&pod, "box").ok().contains("127.0.0.1"));
    pod.end();
    // None; another host manager's word for it means the same.
    for options in [["--net=br", "--dns=none"], ["--net=br", "--dns-conf-mode=resolv=none"]] {
        let pod = boot(&options);
        assert!(pod.enter("x", &["/probe", "cat", "/etc/resolv.conf"]).code != Some(0));
        pod.end();
    }
    let pod = boot(&["--net=br", "--dns=host", "--hosts-entry=host"]);
    for file in ["/etc/resolv.conf", "/etc/hosts"] {
        assert_eq!(pod.enter("x", &["/probe", "cat", file]).ok(), fs::read_to_string(file)?.trim_end());
    }
    pod.end();
    assert!(host.podctl.fails(&["sandbox", "--net=br", "--dns=nowhere"]).contains("--dns=nowhere"));
    assert!(
        host.podctl.fails(&["sandbox", "--net=br", "--hosts-entry=x"]).contains("expected ADDRESS=NAME, found \"x\"")
    );
    Ok(())
}

fn ports_of_an_app_that_declares_them(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    // Without a version, as in rkt's documentation: too old to pass its result to another plugin.
    let old = json!({"name": "old", "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": true,
        "ipam": {"type": "host-local", "dataDir": host.reservations().display().to_string(), "subnet": "10.77.1.0/24"}});
    host.configure("05-old.conf", &old);
    let before = host.picture();
    host.podctl.import_with("web", &json!({"ports": [{"name": "http", "protocol": "tcp", "port": 80}]}));
    for net in ["--net=br", "--net=old"] {
        let args =
            ["run", &host.local, net, "--port=http:8080", "web", "--exec=/probe", "--", "answer", "tcp", "80", "it"];
        let mut child = host.podctl.command(&args).stdout(Stdio::null()).spawn()?;
        assert_eq!(ask_from_here("tcp", "127.0.0.1:8080"), "it", "{net}");
        kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
        wait_for("the end of run", 30, || child.try_wait().expect("wait"));
        same(&before, &host.picture(), net);
    }
    let refused = |words: &[&str]| host.podctl.fails(&[&["run", host.local.as_str()], words, &["web"]].concat());
    let line = refused(&["--net=br", "--port=nothing:80"]);
    assert!(line.contains("port \"nothing\" of the pod: no app has a port of this name"), "{line}");
    let line = refused(&["--net=none", "--port=http:80"]);
    assert!(line.contains("--net=none no port can be forwarded"), "{line}");
    let line = refused(&["--net=br", "--port=http:80", "--port=x:tcp:1::80"]);
    assert!(line.contains("the port 80/tcp of the host is forwarded twice"), "{line}");
    same(&before, &host.picture(), "after refusals");
    host.podctl.ok(&["gc", "--grace-period=0s"]);
    Ok(())
}

/// The pod's monitor.
fn monitor(pod: &Pod<'_>) -> Pid {
    Pid::from_raw(Process::look_up(pod.pid()).expect("PID 1").parent)
}

#[track_caller]
fn kill_run(pod: &Pod<'_>) {
    kill(monitor(pod), Signal::SIGKILL).expect("kill run");
    wait_for("the pod's end", 20, || {
        let status = pod.podctl.json(&["status", &pod.uuid, "--format=json"]);
        (status["state"] == "exited").then_some(())
    });
}

fn nothing_is_left_after_a_kill(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let options = ["--net=br,default", "--port=web:tcp:80::8080"];
    let killed = host.sandbox(&options);
    kill_run(&killed);
    assert_eq!(host.pinned(&killed.uuid), 1, "a namespace outlives its pod");
    assert_ne!(host.picture(), before);
    host.podctl.ok(&["rm", &killed.uuid]);
    assert_eq!(host.pinned(&killed.uuid), 0);
    same(&before, &host.picture(), "after rm");

    // As after a reboot: no namespace, and with it no interface and no rules; and the configurations were removed.
    let rebooted = host.sandbox(&options);
    kill_run(&rebooted);
    let namespace = namespace(&rebooted.uuid);
    run(Command::new("umount").arg(&namespace)).ok();
    fs::remove_file(&namespace)?;
    for change in ["-F", "-X"] {
        run(Command::new("iptables").args(["-t", "nat", change])).ok();
    }
    let etc = t.dir.join("etc");
    fs::rename(&etc, t.dir.join("gone"))?;
    let no_rules = |lines: Vec<String>| -> Vec<String> {
        lines.into_iter().filter(|line| !line.starts_with("-A") && !line.starts_with(':')).collect()
    };
    assert_ne!(no_rules(host.picture()), no_rules(before.clone()));
    host.podctl.ok(&["gc", "--grace-period=0s"]);
    assert_eq!(host.pods(), 0);
    same(&no_rules(before), &no_rules(host.picture()), "after gc");
    let rules = run(&mut Command::new("iptables-save")).ok();
    assert!(!rules.contains(&rebooted.uuid), "{rules}");
    Ok(())
}

/// `run` is killed after a plugin has done its work and before the result is recorded.
fn run_is_killed_while_it_joins(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let path = host.scripts(&[(
        "ptp",
        &format!(
            "{PLUGINS}/ptp || exit\n[ $CNI_COMMAND != ADD ] || {{ ls {}/*/10* >&2; ip -o link >&2; kill -9 $PPID; }}",
            host.reservations().display()
        ),
    )]);
    let line = run(&mut host.with_path(&path, &["sandbox", "--net=default"])).complaint();
    assert!(line.contains("the pod did not come up"), "{line}");
    assert_eq!(host.calls(), ["ADD ptp", "DEL ptp"]);
    assert_eq!(host.pods(), 0);
    same(&before, &host.picture(), "after the failed start");
    Ok(())
}

fn thirty_at_once(t: &Context) -> Verdict {
    const PODS: usize = 30;
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let all = |args: &dyn Fn(usize) -> Vec<String>| -> Vec<String> {
        let start = |number| {
            let args = args(number);
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            host.podctl.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("podctl")
        };
        let children: Vec<Child> = (0..PODS).map(start).collect();
        let end = |child: Child| {
            let out = child.wait_with_output().expect("wait");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            String::from_utf8_lossy(&out.stdout).trim().to_owned()
        };
        children.into_iter().map(end).collect()
    };
    let port = |number: usize| format!("--port=p:tcp:80::{}", 8000 + number);
    let net = |number: usize| if number.is_multiple_of(2) { "--net=br" } else { "--net=default" };
    let pods = all(&|number| vec!["sandbox".into(), host.local.clone(), net(number).into(), port(number)]);
    let listed = host.podctl.json(&["list", "--format=json"]);
    let addresses: Vec<String> = listed
        .as_array()
        .expect("pods")
        .iter()
        .flat_map(|pod| pod["networks"].as_array().cloned().unwrap_or_default())
        .map(|network| network["ip"].as_str().expect("an address").to_owned())
        .collect();
    // Pods on the bridge have the restricted network, too.
    assert_eq!(addresses.len(), PODS + PODS / 2);
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), addresses.len(), "an address twice: {addresses:?}");
    all(&|number| vec!["stop".into(), pods[number].clone()]);
    all(&|number| vec!["rm".into(), pods[number].clone()]);
    assert!(pods.iter().all(|uuid| host.pinned(uuid) == 0));
    assert_eq!(host.pods(), 0);
    same(&before, &host.picture(), "after all");
    Ok(())
}

fn what_fails_leaves_nothing(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let details = "why ".repeat(1000);
    let path = host.scripts(&[
        ("fails", &format!(r#"[ $CNI_COMMAND = ADD ] || exit 0; echo '{{"code":77,"msg":"no luck","details":"{details}end"}}'; exit 1"#)),
        ("never", "echo 'out of order' >&2; exit 3"),
        ("mumbles", "[ $CNI_COMMAND = ADD ] || exit 0; echo gibberish"),
        ("talks", "[ $CNI_COMMAND = ADD ] || exit 0; yes"),
        ("dies", "[ $CNI_COMMAND = ADD ] || exit 0; kill -9 $$"),
    ]);
    let bridge =
        json!({"type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": true, "ipam": host.ipam(1, true)});
    for (name, plugins) in [
        ("fails", json!([bridge, {"type": "fails"}])),
        ("never", json!([bridge, {"type": "never"}])),
        ("mumbles", json!([{"type": "mumbles"}])),
        ("talks", json!([{"type": "talks"}])),
        ("dies", json!([{"type": "dies"}])),
        ("missing", json!([bridge, {"type": "nowhere"}])),
        ("ipamless", json!([{"type": "bridge", "ipam": {"type": "nowhere"}}])),
    ] {
        host.configure(
            &format!("50-{name}.conflist"),
            &json!({"cniVersion": "1.0.0", "name": name, "plugins": plugins}),
        );
    }
    for (net, why, calls) in [
        (
            "fails",
            format!("network fails: plugin fails ADD: no luck; {details}end; CNI error 77 (it exited with 1)"),
            &["ADD fails", "DEL fails"][..],
        ),
        (
            "never",
            "network never: plugin never ADD: out of order (it exited with 3)".into(),
            &["ADD never", "DEL never"],
        ),
        (
            "mumbles",
            "plugin mumbles: its output is not a result as the CNI specification defines it: not JSON".into(),
            &["ADD mumbles", "DEL mumbles"],
        ),
        (
            "talks",
            "plugin talks ADD: its output is longer than 262144 bytes; it was killed".into(),
            &["ADD talks", "DEL talks"],
        ),
        ("dies", "plugin dies ADD: it was killed by SIGKILL without a message".into(), &["ADD dies", "DEL dies"]),
        ("missing", "network missing: the network plugin \"nowhere\" is missing: it is not in ".into(), &[]),
        ("ipamless", "network ipamless: the network plugin \"nowhere\" is missing".into(), &[]),
        ("unheard-of", "no network is called unheard-of".into(), &[]),
    ] {
        // The network that was joined before it is left again.
        let out = run(&mut host.with_path(&path, &["sandbox", &format!("--net=br,{net}")]));
        assert!(out.code.is_some_and(|code| code != 0) && out.stderr.contains(&why), "{out}");
        let lines: Vec<_> = out.stderr.lines().filter(|line| !line.starts_with("podctl: warning: ")).collect();
        assert_eq!(lines.len(), 1, "{out}");
        assert_eq!(host.calls(), calls, "{net}");
        assert_eq!(host.pods(), 0, "{net}");
        same(&before, &host.picture(), net);
    }
    let line = run(&mut host.with_path("/nowhere", &["sandbox"])).complaint();
    for word in ["\"ptp\" is missing", "containernetworking-plugins", "--net=none", "--net=host"] {
        assert!(line.contains(word), "{line}");
    }
    assert_eq!(host.pods(), 0);
    same(&before, &host.picture(), "after all");
    Ok(())
}

fn a_plugin_that_hangs(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let path = host.scripts(&[("hangs", "[ $CNI_COMMAND = ADD ] || exit 0; sleep 1000 & wait")]);
    host.configure("50-hangs.conf", &json!({"cniVersion": "1.0.0", "name": "hangs", "type": "hangs"}));
    let line = run(&mut host.with_path(&path, &["sandbox", "--net=br,hangs"])).complaint();
    assert!(line.contains("network hangs: plugin hangs ADD: it timed out after 30 s and was killed"), "{line}");
    assert_eq!(host.calls(), ["ADD hangs", "DEL hangs"]);
    let own = fs::read_link("/proc/self/ns/net")?;
    let is_ours = |p: &Process| fs::read_link(format!("/proc/{}/ns/net", p.pid)).is_ok_and(|net| net == own);
    let left: Vec<_> = tests::process::all().into_iter().filter(|p| p.words == "sleep 1000" && is_ours(p)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(host.pods(), 0);
    same(&before, &host.picture(), "after it was killed");
    Ok(())
}

/// It takes longer than a killed pod may take to end. `stop` and `rm` wait for it.
fn a_plugin_that_is_slow_at_the_end(t: &Context) -> Verdict {
    let host = Host::new(t);
    let left = t.dir.join("left");
    let slow = format!(
        r#"[ $CNI_COMMAND = ADD ] || [ -e {0} ] || {{ sleep 22; touch {0}; }}; echo '{{"cniVersion":"1.0.0"}}'"#,
        left.display()
    );
    let path = host.scripts(&[("slow", &slow)]);
    host.configure("50-slow.conf", &json!({"cniVersion": "1.0.0", "name": "slow", "type": "slow"}));
    let uuid = run(&mut host.with_path(&path, &["sandbox", "--net=slow"])).ok();
    let mut stop = host.podctl.command(&["stop", "--force", &uuid]).spawn()?;
    wait_for("the plugin", 20, || fs::read_to_string(host.log()).ok().filter(|text| text.contains("DEL slow")));
    host.podctl.ok(&["rm", &uuid]);
    assert!(stop.wait()?.success());
    assert!(left.exists(), "the plugin was killed");
    assert_eq!(host.calls(), ["ADD slow", "DEL slow", "DEL slow"]);
    Ok(())
}

fn run_is_asked_to_end_while_it_joins(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let path = host.scripts(&[("hangs", "[ $CNI_COMMAND = ADD ] || exit 0; sleep 1000")]);
    host.configure("50-hangs.conf", &json!({"cniVersion": "1.0.0", "name": "hangs", "type": "hangs"}));
    let mut command = host.with_path(&path, &["sandbox", "--foreground", "--net=br,hangs"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    wait_for("the plugin", 20, || fs::read_to_string(host.log()).ok().filter(|text| text.contains("ADD hangs")));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM)?;
    let out = child.wait_with_output()?;
    let words = String::from_utf8_lossy(&out.stderr);
    assert!(!out.status.success() && words.contains("plugin hangs ADD: interrupted"), "{words}");
    assert_eq!(host.calls(), ["ADD hangs", "DEL hangs"]);
    same(&before, &host.picture(), "after it was interrupted");
    host.podctl.ok(&["gc", "--grace-period=0s"]);
    assert_eq!(host.pods(), 0);
    Ok(())
}

fn plugins_get_nothing_of_the_pods_own(t: &Context) -> Verdict {
    let host = Host::new(t);
    let seen = t.dir.join("seen");
    let look = format!(
        "mkdir -p {0}/$CNI_COMMAND; env >{0}/$CNI_COMMAND/env; cat >{0}/$CNI_COMMAND/config; (ls -l /proc/$$/fd >{0}/$CNI_COMMAND/fds)
         readlink /proc/self/ns/mnt /proc/self/ns/net >{0}/$CNI_COMMAND/ns; echo '{{\"cniVersion\":\"1.0.0\"}}'",
        seen.display()
    );
    let path = host.scripts(&[("looks", &look)]);
    host.configure("50-looks.conf", &json!({"cniVersion": "1.0.0", "name": "looks", "type": "looks", "more": [1]}));
    let uuid = run(host.with_path(&path, &["sandbox", "--net=looks:A=1;B=2"]).env("LISTEN_FDS", "3")).ok();
    let pod = Pod { podctl: &host.podctl, uuid: uuid.clone() };
    assert_eq!(networks(&pod)[0]["check"], "ok");
    pod.end();
    for command in ["ADD", "CHECK", "DEL"] {
        let read =
            |file: &str| fs::read_to_string(seen.join(command).join(file)).unwrap_or_else(|e| panic!("{command}: {e}"));
        let env = read("env");
        for line in [
            format!("CNI_COMMAND={command}"),
            format!("CNI_CONTAINERID={uuid}"),
            "CNI_VERSION=0.1.0".into(),
            format!("CNI_NETNS={}", namespace(&uuid).display()),
            "CNI_IFNAME=eth0".into(),
            "CNI_ARGS=A=1;B=2".into(),
        ] {
            assert!(env.lines().any(|one| one == line), "{line} is not in {env}");
        }
        // The remover gives further directories with plugins.
        assert!(env.lines().any(|line| line.starts_with(&format!("CNI_PATH={path}"))), "{env}");
        for name in ["RKT_LOCK_FD", "LISTEN_FDS", "NOTIFY_SOCKET"] {
            assert!(!env.contains(name), "{env}");
        }
        let config: Value = serde_json::from_str(&read("config"))?;
        assert_eq!(
            (&config["name"], &config["cniVersion"], &config["more"]),
            (&json!("looks"), &json!("1.0.0"), &json!([1]))
        );
        assert_eq!(config["prevResult"].is_object(), command == "CHECK", "{config}");
        let fds = read("fds");
        // Its input, its output, its messages, and the script that the shell reads.
        let others: Vec<_> = fds
            .lines()
            .filter_map(|line| {
                line.rsplit_once(" -> ").map(|(before, to)| (before.rsplit(' ').next().unwrap_or(""), to))
            })
            .filter(|(fd, to)| !["0", "1", "2"].contains(fd) && !to.ends_with("/plugins/looks"))
            .collect();
        assert!(others.is_empty() && fds.contains("memfd:cni"), "{fds}");
        let own = |kind: &str| fs::read_link(format!("/proc/self/ns/{kind}")).map(|link| link.display().to_string());
        assert_eq!(read("ns"), format!("{}\n{}\n", own("mnt")?, own("net")?), "{command}");
    }
    Ok(())
}

fn arguments_and_all_networks(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let pod = host.sandbox(&["--net=br:IP=10.77.1.77", "--net=default"]);
    assert_eq!((ip_of(&pod, "br"), networks(&pod).len()), ("10.77.1.77".into(), 2));
    assert_eq!(networks(&pod)[0]["args"], "IP=10.77.1.77");
    let config: Value = serde_json::from_str(&fs::read_to_string(pod.dir().join("runtime-config"))?)?;
    assert_eq!(config["NetList"], json!({"br": "IP=10.77.1.77", "default": ""}));
    let refused = run(&mut host.podctl.command(&["sandbox", &host.local, "--net=br:IP=10.77.1.77"])).complaint();
    assert!(refused.contains("10.77.1.77"), "{refused}");
    pod.end();
    let pod = host.sandbox(&["--net=all"]);
    let names: Vec<_> = networks(&pod).iter().map(|one| one["netName"].as_str().unwrap_or("").to_owned()).collect();
    assert_eq!(names, ["br", "default", "default-restricted"]);
    pod.end();
    for (flag, why) in [
        ("--net=host,br", "host can't be combined with other networks"),
        ("--net=br:IP", "\"IP\" of br is not NAME=VALUE"),
        ("--net=br,br", "br is given twice"),
    ] {
        let line = host.podctl.fails(&["sandbox", flag]);
        assert!(line.contains(why), "{line}");
    }
    same(&before, &host.picture(), "after all");
    Ok(())
}

fn a_check_finds_what_was_taken_away(t: &Context) -> Verdict {
    let host = Host::new(t);
    let pod = host.sandbox(&["--net=default"]);
    assert_eq!(networks(&pod)[0]["check"], "ok");
    let namespace = format!("--net={}", namespace(&pod.uuid).display());
    run(Command::new("nsenter").args([&namespace, "ip", "address", "flush", "dev", "eth0"])).ok();
    let check = networks(&pod)[0]["check"].clone();
    assert!(check.as_str().is_some_and(|text| text.starts_with("plugin ptp CHECK: ")), "{check}");
    let out = host.podctl.run(&["status", &pod.uuid]);
    assert!(out.code == Some(0) && out.stderr.contains("network default: plugin ptp CHECK: "), "{out}");
    pod.end();
    Ok(())
}

/// The flags of another host manager: its own default network, and the address of the metadata service.
fn under_another_host_manager(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let other = t.minihost();
    for (net, address) in [
        ("--net=default", "10.77.2.1"),
        ("--net=br", "10.77.1.1"),
        ("--net=", "10.77.2.1"),
        ("--net=host", "127.0.0.1"),
    ] {
        let (mut pod, monitor) = other.boot(&json!([]), &[net, &host.local, "--mds-token=t0ken"]);
        pod.add("x", &["/probe", "sleep", "inf"], &json!([]));
        pod.start_app("x").ok();
        let url = format!("http://{address}:18112/t0ken");
        let report: Value = serde_json::from_str(&run(&mut pod.enter(Some("x"), &["/probe", "report"])).ok())?;
        assert_eq!(report["env"]["AC_METADATA_URL"], url, "{net}");
        let config: Value = serde_json::from_str(&fs::read_to_string(pod.dir().join("runtime-config"))?)?;
        assert_eq!((&config["MetadataServiceURL"], &config["MDSToken"]), (&json!(url), &json!("t0ken")));
        pod.stop(false, monitor);
        same(&before, &host.picture(), net);
        pod.collect(2);
    }
    // Its gc, from another directory of the pod, twice, and after a kill.
    let (pod, mut monitor) = other.boot(&json!([]), &["--net=br,default", &host.local]);
    monitor.kill()?;
    monitor.wait()?;
    wait_for("the end of PID 1", 10, || (!Process::lives(pod.pid())).then_some(()));
    assert_ne!(host.picture(), before);
    let uuid = pod.uuid.clone();
    pod.collect(2);
    assert_eq!(host.pinned(&uuid), 0);
    same(&before, &host.picture(), "after gc");
    Ok(())
}

/// The network namespace belongs to the pod's user namespace: the pod's root can administer it.
fn with_user_ids_of_its_own(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let pod = host.sandbox(&["--net=br", "--private-users"]);
    let pid = pod.pid().to_string();
    let inside = |words: &[&str]| {
        let mut command = Command::new("nsenter");
        run(command.args(["--target", &pid, "--user", "--net", "--setuid=0", "--setgid=0", "--"]).args(words))
    };
    let shown = inside(&["ip", "-o", "-4", "address", "show", "eth0"]).ok();
    assert!(shown.contains(&ip_of(&pod, "br")), "{shown}");
    inside(&["ip", "link", "set", "eth0", "mtu", "1400"]).ok();
    pod.end();
    same(&before, &host.picture(), "after rm");
    Ok(())
}

//! Section 10 of the contract: the network configurations of host managers, and what plugins are told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::minihost::{Kind, MiniHost, MiniPod};
use tests::nethost::{PLUGINS, namespace};
use tests::process::{cgroups_named_after, run, wait_for};

tests::cases! {
    both a_plugin_reads_the_file_in_an_environment_of_its_age;
    both del_is_the_work_of_gc 120;
    both newer_plugins_are_told_less_only_when_they_refuse 120;
    both networks_that_are_built_in;
    both names_as_lists_in_one_text;
    both one_broken_file_concerns_its_own_network 120;
    both set_up_that_fails_says_so;
    both teardown_goes_on;
    both names_of_namespaces_are_shared_with_others;
}

/// A host manager's configuration directory, with plugins that are scripts.
pub struct Networks {
    dir: PathBuf,
    seen: PathBuf,
    /// The flag that names the directory.
    pub flag: String,
}

/// One call of a plugin.
#[derive(Debug, PartialEq)]
struct Call {
    command: String,
    plugin: String,
    input: String,
    env: Vec<String>,
}

impl Networks {
    /// An empty directory.
    pub fn new(t: &Context) -> Self {
        let (dir, seen) = (t.dir.join("etc/net.d"), t.dir.join("seen"));
        fs::create_dir_all(&dir).expect("mkdir net.d");
        fs::create_dir(&seen).expect("mkdir seen");
        let flag = format!("--local-config={}", t.dir.join("etc").display());
        Self { dir, seen, flag }
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.dir.join(file), text).expect("write a configuration");
    }

    /// A plugin that records its input and then runs `script`, with the input in `$input`.
    fn plugin(&self, name: &str, script: &str) {
        let text = format!(
            "#!/bin/sh\nn=$(ls {seen} | wc -l); d={seen}/$(printf %03d $n); mkdir $d; input=$d/input\n\
             cat >$input; env | grep ^CNI_ | sort >$d/env; echo {name} >$d/plugin; echo $CNI_COMMAND >$d/command\n{script}\n",
            seen = self.seen.display()
        );
        fs::write(self.dir.join(name), text).expect("write a plugin");
        fs::set_permissions(self.dir.join(name), fs::Permissions::from_mode(0o755)).expect("chmod");
    }

    /// A network whose plugin gives this answer.
    pub fn network(&self, name: &str, answer: &Value) {
        self.write(&format!("10-{name}.conf"), &json!({"cniVersion": "0.4.0", "name": name, "type": name}).to_string());
        self.plugin(name, &format!("echo '{answer}'"));
    }

    /// All calls so far.
    fn calls(&self) -> Vec<Call> {
        let mut dirs: Vec<PathBuf> = fs::read_dir(&self.seen).expect("seen").flatten().map(|e| e.path()).collect();
        dirs.sort();
        let read = |dir: &PathBuf, file: &str| fs::read_to_string(dir.join(file)).expect("what a plugin was told");
        dirs.iter()
            .map(|dir| Call {
                command: read(dir, "command").trim().into(),
                plugin: read(dir, "plugin").trim().into(),
                input: read(dir, "input"),
                env: read(dir, "env").lines().map(str::to_owned).collect(),
            })
            .collect()
    }

    fn count(&self, command: &str, plugin: &str) -> usize {
        self.calls().iter().filter(|call| call.command == command && call.plugin == plugin).count()
    }
}

fn empty_answer() -> Value {
    json!({"cniVersion": "0.4.0"})
}

/// The interfaces and addresses of the pod.
fn addresses(pod: &MiniPod<'_>) -> Vec<(String, String)> {
    let net = format!("--net=/proc/{}/ns/net", pod.pid());
    let shown = run(Command::new("nsenter").args([&net, "ip", "-o", "-4", "address"])).ok();
    let word = |line: &str, nth| line.split_whitespace().nth(nth).unwrap_or_default().to_owned();
    let lines = shown.lines().map(|line| (word(line, 1), word(line, 3)));
    lines.filter(|(interface, _)| interface != "lo").collect()
}

fn a_plugin_reads_the_file_in_an_environment_of_its_age(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    let text = "{\n  \"Name\": \"odd\",\t\"Type\": \"looks\", \"args\": [\"A=1\", \"B=2\"],\n\
                \"IpMasq\" : false, \"Ipam\": { }, \"cniVersion\": \"0.4.0\", \"mine\": 1.50 }\n\n";
    nets.write("10-odd.conf", text);
    nets.plugin("looks", &format!("echo '{}'", empty_answer()));
    let (pod, monitor) = host.boot(&json!([]), &["--net=odd:IP=10.1.2.3;X=y", &nets.flag]);
    let uuid = pod.uuid.clone();
    pod.stop(false, monitor);
    let garbage = pod.mark();
    garbage.gc(&[&nets.flag]).ok();
    garbage.remove();
    let calls = nets.calls();
    assert_eq!(calls.first().map(|call| &*call.command), Some("ADD"));
    assert_eq!(calls.last().map(|call| &*call.command), Some("DEL"));
    for call in calls {
        assert_eq!(call.input, text, "{}", call.command);
        for line in [
            "CNI_VERSION=0.1.0".to_owned(),
            format!("CNI_NETNS={}", namespace(&uuid).display()),
            "CNI_IFNAME=eth0".into(),
            "CNI_ARGS=IP=10.1.2.3;X=y".into(),
            format!("CNI_CONTAINERID={uuid}"),
        ] {
            assert!(call.env.contains(&line), "{line} is not in {call:?}");
        }
        let family = "/usr/lib/rkt/plugins/net:stage1/rootfs/usr/lib/rkt/plugins/net";
        let path = format!("CNI_PATH={}:{family}:", nets.dir.display());
        let found = call.env.iter().find(|line| line.starts_with(&path)).unwrap_or_else(|| panic!("{path}: {call:?}"));
        assert!(found.contains(":/opt/cni/bin:/usr/lib/cni:/usr/libexec/cni"), "{found}");
    }
    assert!(!namespace(&uuid).exists());
    Ok(())
}

fn del_is_the_work_of_gc(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    nets.network("looks", &empty_answer());
    let kind = Kind { debug: true, ..Kind::default() };
    for killed in [false, true] {
        let (pod, mut monitor) = host.boot_as(kind, &json!([]), &["--net=looks", &nets.flag]);
        let netns = namespace(&pod.uuid);
        if killed {
            monitor.kill()?;
            monitor.wait()?;
            wait_for("the pod's end", 20, || (!pod.is_locked()).then_some(()));
        } else {
            pod.stop(false, monitor);
        }
        assert!(netns.exists(), "gc is to name it");
        let (garbage, before) = (pod.mark(), nets.count("DEL", "looks"));
        let out = garbage.gc(&[&nets.flag]);
        for name in ["looks", "ptp"] {
            assert!(out.stderr.contains(&format!("executing net-plugin {name}")), "{out}");
        }
        out.ok();
        assert_eq!(nets.count("DEL", "looks"), before + 1);
        let again = garbage.gc(&[&nets.flag]);
        assert_eq!(again.code, Some(0), "{again}");
        assert!(!netns.exists());
        garbage.remove();
    }
    Ok(())
}

fn newer_plugins_are_told_less_only_when_they_refuse(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    let reservations = t.dir.join("reservations");
    for (real, words) in [("ptp", "A=1;B=2"), ("bridge", "MAC=c2:11:22:33:44:55")] {
        let text = json!({
            "Name": real, "Type": "proxy", "IpMasq": true, "IsGateway": false, "bridge": "bridge7", "args": ["X=1", "Y=2"],
            "Ipam": {"Type": "host-local", "Subnet": "10.7.0.0/24", "dataDir": reservations},
        });
        nets.write("10-x.conf", &text.to_string());
        nets.plugin("proxy", &format!("{PLUGINS}/{real} <$input"));
        let seen = nets.calls().len();
        let (pod, monitor) = host.boot(&json!([]), &[&format!("--net={real}:{words}"), &nets.flag]);
        let found = addresses(&pod);
        assert!(found.iter().any(|(name, at)| name == "eth0" && at.starts_with("10.7.0.")), "{found:?}");
        let calls: Vec<Call> = nets.calls().into_iter().skip(seen).collect();
        let adds: Vec<&Call> = calls.iter().filter(|call| call.command == "ADD").collect();
        let (first, last) = (adds.first().expect("ADD"), adds.last().expect("ADD"));
        assert_eq!(first.input, text.to_string());
        assert!(first.env.contains(&format!("CNI_ARGS={words}")), "{first:?}");
        let told: Value = serde_json::from_str(&last.input)?;
        let keys: Vec<String> = told.as_object().expect("an object").keys().map(|key| key.to_lowercase()).collect();
        assert_eq!(keys.len(), text.as_object().map_or(0, |all| all.len()) - 1, "{told}");
        assert!(!keys.contains(&"args".to_owned()) && keys.contains(&"isgateway".to_owned()), "{told}");
        assert!(last.env.contains(&format!("CNI_ARGS=IgnoreUnknown=1;{words}")), "{last:?}");
        pod.stop(false, monitor);
        pod.collect(2);
        let left: Vec<_> = fs::read_dir(reservations.join(real))?.flatten().map(|e| e.file_name()).collect();
        assert!(!left.iter().any(|name| name.to_string_lossy().starts_with("10.7.")), "{left:?}");
    }
    Ok(())
}

fn networks_that_are_built_in(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    nets.network("looks", &empty_answer());
    for (net, interface, start, masquerades) in [
        ("default", "eth0", "172.16.28.", true),
        ("", "eth0", "172.16.28.", true),
        ("default-restricted", "eth0", "172.31.", false),
        ("looks", "eth1", "172.31.", false),
    ] {
        let (pod, monitor) = host.boot(&json!([]), &[&format!("--net={net}"), &nets.flag]);
        let found = addresses(&pod);
        let prefix = if masquerades { "/24" } else { "/16" };
        let ours = |(name, at): &(String, String)| name == interface && at.starts_with(start) && at.ends_with(prefix);
        assert!(found.len() == 1 && found.iter().all(ours), "{net}: {found:?}");
        let rules = run(Command::new("iptables-save").args(["-t", "nat"])).ok();
        assert_eq!(rules.contains("MASQUERADE"), masquerades, "{net}: {rules}");
        pod.stop(false, monitor);
        pod.collect(1);
    }
    Ok(())
}

fn names_as_lists_in_one_text(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    let dns = json!({"nameservers": ["1.2.3.4", "4.3.2.1"], "search": ["one.example, two.example", "three.example"],
        "domain": "a.example", "options": ["ndots:2", "rotate"]});
    nets.network("names", &json!({"cniVersion": "0.4.0", "dns": dns}));
    let (mut pod, monitor) = host.boot(&json!([]), &["--net=names", &nets.flag]);
    pod.add("one", &["/probe", "sleep", "inf"], &json!([]));
    pod.start_app("one").ok();
    let text = run(&mut pod.enter(Some("one"), &["/probe", "cat", "/etc/resolv.conf"])).ok();
    let lines = |word: &str| text.lines().filter(|line| line.starts_with(word)).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(lines("search"), ["search one.example two.example three.example"]);
    assert_eq!(lines("nameserver"), ["nameserver 1.2.3.4", "nameserver 4.3.2.1"]);
    pod.stop(false, monitor);
    pod.collect(1);
    Ok(())
}

/// The error of a pod whose `run` must fail, which must leave nothing behind.
#[track_caller]
fn refused(host: &MiniHost, nets: &Networks, net: &str) -> String {
    let pod = host.prepare(&json!([]));
    let uuid = pod.uuid.clone();
    let out = pod.run_to_end(&[&format!("--net={net}"), &nets.flag]);
    assert!(out.code.is_some_and(|code| code != 0), "{out}");
    assert!(out.stderr.contains("stage1: failed to setup network"), "{out}");
    assert!(!namespace(&uuid).exists());
    pod.collect(2);
    out.stderr
}

fn one_broken_file_concerns_its_own_network(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    nets.network("good", &empty_answer());
    nets.write("01-cut.conf", "{\"name\": \"cut\", \"type\": \"good\", ");
    nets.write("02-typeless.conf", "{\"Name\": \"typeless\"}");
    nets.write("03-empty.conf", "");
    nets.write("04-plugin.conf", "{\"name\": \"outside\", \"type\": \"../../bin/sh\"}");
    for net in ["good", "default"] {
        let (pod, monitor) = host.boot(&json!([]), &[&format!("--net={net}"), &nets.flag]);
        assert!(!addresses(&pod).is_empty());
        pod.stop(false, monitor);
        pod.collect(1);
    }
    for (net, why) in [
        ("cut", "01-cut.conf"),
        ("typeless", "02-typeless.conf"),
        ("outside", "04-plugin.conf"),
        ("good,cut", "01-cut.conf"),
        ("nowhere", "03-empty.conf"),
        ("all", "01-cut.conf"),
    ] {
        let said = refused(&host, &nets, net);
        assert!(said.contains(why), "--net={net}: {said}");
    }
    assert_eq!(nets.count("ADD", "good"), 1);
    Ok(())
}

fn set_up_that_fails_says_so(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    nets.network("good", &empty_answer());
    for (name, script, why) in [
        (
            "x-exits",
            r#"[ $CNI_COMMAND = DEL ] || { echo '{"cniVersion":"0.1.0","code":100,"msg":"no luck"}'; exit 1; }"#,
            "no luck",
        ),
        ("x-crashes", "[ $CNI_COMMAND = DEL ] || kill -9 $$", "SIGKILL"),
        ("x-babbles", "echo nothing", "not JSON"),
    ] {
        nets.network(name, &json!({}));
        nets.plugin(name, script);
        let said = refused(&host, &nets, &format!("good,{name}"));
        assert!(said.contains(why) && said.contains(name), "{said}");
        assert!(nets.count("DEL", name) > 0, "what may be there in part is removed");
    }
    assert_eq!(nets.count("ADD", "good"), 3, "{:#?}", nets.calls());
    assert!(nets.count("DEL", "good") >= 3);
    nets.write("50-gone.conf", r#"{"name":"gone","type":"gone"}"#);
    assert!(refused(&host, &nets, "gone").contains("\"gone\" is missing"));
    assert!(refused(&host, &nets, "never-heard-of").contains("never-heard-of"));
    Ok(())
}

/// A damaged record, or a plugin that fails, does not keep the other networks from being removed.
fn teardown_goes_on(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    for name in ["first", "second", "third"] {
        nets.network(name, &empty_answer());
    }
    let (pod, mut monitor) = host.boot(&json!([]), &["--net=first,second,third", &nets.flag]);
    monitor.kill()?;
    monitor.wait()?;
    wait_for("the pod's end", 20, || (!pod.is_locked()).then_some(()));
    let uuid = pod.uuid.clone();
    nets.plugin("first", "echo '{\"code\":5,\"msg\":\"not now\"}'; exit 1");
    let garbage = pod.mark();
    let record = garbage.dir().join("net/eth1.json");
    let kept = fs::read(&record)?;
    fs::write(&record, "{")?;
    let out = garbage.gc(&[&nets.flag]);
    assert!(out.code.is_some_and(|code| code != 0), "{out}");
    assert!(out.stderr.contains("eth1.json") && out.stderr.contains("not now"), "both are reported: {out}");
    assert_eq!(["first", "second", "third"].map(|name| nets.count("DEL", name)), [1, 0, 1]);
    assert_eq!(cgroups_named_after(&uuid), Vec::<PathBuf>::new(), "the cgroups are gone");
    fs::write(&record, kept)?;
    nets.plugin("first", "");
    let out = garbage.gc(&[&nets.flag]);
    assert_eq!(out.code, Some(0), "{out}");
    assert!(out.stderr.contains("network first: an earlier DEL failed"), "{out}");
    assert!(!out.stderr.contains("network second"), "{out}");
    assert_eq!(["first", "second", "third"].map(|name| nets.count("DEL", name)), [2, 1, 1]);
    garbage.remove();
    Ok(())
}

/// Other programs name network namespaces in the same directory, and bind-mount it on itself when they first do.
fn names_of_namespaces_are_shared_with_others(t: &Context) -> Verdict {
    let (nets, host) = (Networks::new(t), t.minihost());
    nets.network("looks", &empty_answer());
    let other = format!("e2e-{}", std::process::id());
    let (pod, monitor) = host.boot(&json!([]), &["--net=looks", &nets.flag]);
    run(Command::new("ip").args(["netns", "add", &other])).ok();
    assert!(run(Command::new("ip").args(["netns", "list"])).ok().contains(&format!("cni-{}", pod.uuid)));
    let (second, two) = host.boot(&json!([]), &["--net=looks", &nets.flag]);
    for (pod, monitor) in [(pod, monitor), (second, two)] {
        let netns = namespace(&pod.uuid);
        pod.stop(false, monitor);
        pod.collect(1);
        assert!(!netns.exists());
    }
    run(Command::new("ip").args(["netns", "delete", &other])).ok();
    Ok(())
}

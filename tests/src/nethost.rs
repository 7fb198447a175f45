//! A host with networks, for tests of pods that join them: configurations, plugins that are scripts, a list of all that
//! a network can change, and servers on the host.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::Context;
use crate::podctl::{Pod, Podctl};
use crate::process::{mountinfo, run, wait_for};

/// Debian's plugins.
pub const PLUGINS: &str = "/usr/lib/cni";
/// The bridge that the plugin makes and never removes.
pub const BRIDGE: &str = "bridge0";

/// A host with three networks: `br`, a bridge with its own name servers, and the two built-in ones, with reservations
/// in the test's directory in place of the machine's.
#[derive(Debug)]
pub struct Host<'a> {
    t: &'a Context,
    /// Our host manager.
    pub podctl: Podctl,
    /// The option that names the configurations.
    pub local: String,
}

impl<'a> Host<'a> {
    /// Writes the configurations of the networks.
    pub fn new(t: &'a Context) -> Self {
        let podctl = t.podctl();
        podctl.import_probe();
        let local = t.dir.join("etc");
        fs::create_dir_all(local.join("net.d")).expect("mkdir net.d");
        let host = Self { t, podctl, local: format!("--local-config={}", local.display()) };
        host.configure(
            "10-br.conflist",
            &json!({
                "cniVersion": "1.0.0", "name": "br",
                "plugins": [
                    {"type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": true, "ipam": host.ipam(1, true),
                     "dns": {"nameservers": ["10.77.1.1"], "search": ["test.example"]}},
                    {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
                ],
            }),
        );
        host.configure(
            "20-default.conf",
            &json!({
                "cniVersion": "0.4.0", "name": "default", "type": "ptp", "ipMasq": true, "ipam": host.ipam(2, true),
            }),
        );
        host.configure(
            "30-restricted.conf",
            &json!({
                "cniVersion": "0.3.1", "name": "default-restricted", "type": "ptp", "ipam": host.ipam(3, false),
            }),
        );
        host
    }

    /// Adds a configuration.
    pub fn configure(&self, file: &str, network: &Value) {
        fs::write(self.t.dir.join("etc/net.d").join(file), network.to_string()).expect("write a network");
    }

    /// An `ipam` section for addresses in 10.77.NET.0/24, with a default route if `out`.
    pub fn ipam(&self, net: u8, out: bool) -> Value {
        let mut ipam = json!({"type": "host-local", "dataDir": self.reservations().display().to_string(),
            "ranges": [[{"subnet": format!("10.77.{net}.0/24")}]]});
        if out {
            ipam["routes"] = json!([{"dst": "0.0.0.0/0"}]);
        }
        ipam
    }

    /// Directory in which host-local reserves addresses.
    pub fn reservations(&self) -> PathBuf {
        self.t.dir.join("reservations")
    }

    /// Boots a pod with the option for these networks.
    pub fn sandbox(&self, options: &[&str]) -> Pod<'_> {
        self.podctl.pod(&[&[self.local.as_str()], options].concat())
    }

    /// Has the plugins make what they make once for a host and keep: the bridge, and the chains that all forwarded
    /// ports share.
    pub fn warm_up(&self) {
        self.sandbox(&["--net=br", "--port=x:tcp:1:1"]).end();
    }

    /// Everything on the host that a network can change, one line each.
    pub fn picture(&self) -> Vec<String> {
        let mut lines = interfaces();
        let mut reserved = Vec::new();
        for network in fs::read_dir(self.reservations()).into_iter().flatten().flatten() {
            let files = fs::read_dir(network.path()).expect("reservations");
            reserved.extend(files.map(|file| file.expect("a reservation").path().display().to_string()));
        }
        // Except for the files that host-local keeps per network: the last address, and its lock.
        lines.extend(reserved.into_iter().filter(|file| !file.contains("last_reserved") && !file.ends_with("lock")));
        for table in ["iptables-save", "ip6tables-save"] {
            let rules = run(&mut Command::new(table)).ok();
            lines.extend(rules.lines().filter(|line| line.starts_with("-A") || line.starts_with(":")).map(|line| {
                // Without the counters.
                line.split(" [").next().unwrap_or(line).to_owned()
            }));
        }
        lines.extend(run(Command::new("ip").args(["-o", "address"])).ok().lines().map(address));
        let routes = run(Command::new("ip").args(["route"])).ok();
        lines.extend(routes.lines().map(|line| line.trim_end().trim_end_matches(" linkdown").to_owned()));
        lines.sort();
        lines
    }

    /// Number of mounts that pin the pod's network namespace.
    pub fn pinned(&self, uuid: &str) -> usize {
        mountinfo("self").iter().filter(|fields| fields[4].ends_with(uuid)).count()
    }

    /// Makes plugins that are shell scripts; returns a value of CNI_PATH with them and, after them, Debian's.
    pub fn scripts(&self, scripts: &[(&str, &str)]) -> String {
        let dir = self.t.dir.join("plugins");
        fs::create_dir_all(&dir).expect("mkdir plugins");
        for (name, text) in scripts {
            let file = dir.join(name);
            fs::write(&file, format!("#!/bin/sh\necho \"$CNI_COMMAND {name}\" >>{}\n{text}\n", self.log().display()))
                .expect("write a plugin");
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        format!("{}:{PLUGINS}", dir.display())
    }

    /// The file to which the scripts write a line for each call.
    pub fn log(&self) -> PathBuf {
        self.t.dir.join("calls")
    }

    /// The calls of the scripts, in order, since the last call of this function.
    pub fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        fs::write(self.log(), "").expect("empty the log");
        text.lines().map(str::to_owned).collect()
    }

    /// podctl with CNI_PATH set.
    pub fn with_path(&self, path: &str, args: &[&str]) -> Command {
        let mut command = self.podctl.command(&[args, &[self.local.as_str()]].concat());
        command.env("CNI_PATH", path);
        command
    }

    /// Number of pods.
    pub fn pods(&self) -> usize {
        self.podctl.json(&["list", "--format=json"]).as_array().map_or(0, Vec::len)
    }
}

/// Path of the pin of a pod's network namespace.
pub fn namespace(uuid: &str) -> PathBuf {
    PathBuf::from(format!("/var/run/netns/cni-{uuid}"))
}

/// Interfaces in the test's network namespace.
fn interfaces() -> Vec<String> {
    let text = fs::read_to_string("/proc/net/dev").expect("/proc/net/dev");
    text.lines().skip(2).filter_map(|line| Some(line.split(':').next()?.trim().to_owned())).collect()
}

/// A line of `ip -o address` without the fields that change by themselves.
fn address(line: &str) -> String {
    line.split_whitespace().skip(1).take(3).collect::<Vec<_>>().join(" ")
}

/// Fails unless two results of [`Host::picture`] are the same.
#[track_caller]
pub fn same(before: &[String], after: &[String], when: &str) {
    let lines = |list: &[String]| list.iter().cloned().collect::<BTreeSet<_>>();
    let (old, new) = (lines(before), lines(after));
    let left: Vec<_> = new.difference(&old).chain(old.difference(&new)).collect();
    assert!(left.is_empty() && before.len() == after.len(), "{when}: changed: {left:#?}");
}

/// The pod's networks in the output of `podctl status`.
pub fn networks(pod: &Pod<'_>) -> Vec<Value> {
    let status = pod.podctl.json(&["status", &pod.uuid, "--format=json"]);
    status["networks"].as_array().cloned().unwrap_or_default()
}

/// The pod's address in a network.
#[track_caller]
pub fn ip_of(pod: &Pod<'_>, network: &str) -> String {
    let networks = networks(pod);
    let found = networks.iter().find(|one| one["netName"] == network).unwrap_or_else(|| panic!("{networks:?}"));
    found["ip"].as_str().expect("an address").to_owned()
}

/// Starts an app that answers on a port with its name.
pub fn serve(pod: &Pod<'_>, app: &str, protocol: &str, port: &str) {
    pod.add(app, &[], &["answer", protocol, port, app]);
    pod.app("start", app, &[]).ok();
}

/// Has the probe in an app connect to `at` until there is an answer; returns that.
#[track_caller]
pub fn ask(pod: &Pod<'_>, app: &str, protocol: &str, at: &str) -> String {
    let ask = ["/probe", "ask", protocol, at];
    wait_for(&format!("an answer from {at} in {app}"), 20, || {
        let out = pod.enter(app, &ask);
        (out.code == Some(0)).then(|| out.stdout.trim().to_owned())
    })
}

/// Connects from the host to `at` until there is an answer; returns that.
#[track_caller]
pub fn ask_from_here(protocol: &str, at: &str) -> String {
    wait_for(&format!("an answer from {at}"), 20, || {
        let out = run(Command::new(crate::image::probe()).args(["ask", protocol, at]));
        (out.code == Some(0)).then(|| out.stdout.trim().to_owned())
    })
}

/// Starts a TCP server on the host that answers with `words`, until the test ends.
pub fn host_serves(port: u16, words: &'static str) {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("listen");
    std::thread::spawn(move || {
        for peer in listener.incoming() {
            use std::io::Write;
            peer.and_then(|mut peer| peer.write_all(words.as_bytes())).expect("answer");
        }
    });
}

/// Starts a name server on the host, until the test ends: every name has the address 10.9.8.7 and no IPv6 address. The
/// names that it was asked for are sent to the channel.
pub fn host_resolves() -> std::sync::mpsc::Receiver<String> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 53)).expect("bind port 53");
    let (asked, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((read, peer)) = socket.recv_from(&mut query) {
            let question = &query[12..read];
            let end = question.iter().position(|byte| *byte == 0).expect("the end of a name") + 1;
            let wants_a = question[end..end + 2] == [0, 1];
            let mut labels = Vec::new();
            let mut at = 0;
            while question[at] != 0 {
                let length = question[at] as usize;
                labels.push(String::from_utf8_lossy(&question[at + 1..at + 1 + length]).into_owned());
                at += 1 + length;
            }
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(wants_a), 0, 0, 0, 0]);
            answer.extend(&question[..end + 4]);
            if wants_a {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 9, 8, 7]);
            }
            socket.send_to(&answer, peer).expect("answer");
            if asked.send(labels.join(".")).is_err() {
                return;
            }
        }
    });
    receiver
}

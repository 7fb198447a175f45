//! Ports of the host that are forwarded to pods, changed while these run.

use std::process::{Output, Stdio};

use tests::Verdict;
use tests::harness::Context;
use tests::nethost::{Host, ask_from_here, host_serves, ip_of, serve};
use tests::process::wait_for;

tests::cases! {
    native ports_come_and_go_while_the_pod_runs;
    native of_two_that_ask_for_one_port_at_once_one_gets_it;
}

fn ports_come_and_go_while_the_pod_runs(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    host_serves(7000, "host");
    let other = host.sandbox(&["--net=br", "-p", "8000:80", "--name=other"]);
    // One network whose plugins forward ports, and one that needs a further plugin for it.
    for net in ["--net=br", "--net=default"] {
        let pod = host.sandbox(&[net, "--name=web"]);
        serve(&pod, "one", "tcp", "80");
        serve(&pod, "two", "tcp", "81");
        let podctl = &host.podctl;
        podctl.ok(&["port", "add", "web", "8080:80", "127.0.0.1:8081:81"]);
        assert_eq!(ask_from_here("tcp", "127.0.0.1:8080"), "one", "{net}");
        assert_eq!(ask_from_here("tcp", "127.0.0.1:8081"), "two", "{net}");
        podctl.ok(&["port", "add", "web", "8082:81"]);
        let shown = ["8080->80/tcp", "127.0.0.1:8081->81/tcp", "8082->81/tcp"];
        assert_eq!(podctl.ok(&["port", "list", "web"]).lines().collect::<Vec<_>>(), shown);
        assert_eq!(podctl.json(&["port", "list", "web", "--format=json"])[1]["hostPort"], 8081, "{net}");
        let chosen = podctl.ok(&["port", "web", "--format=host ip,pod port"]);
        assert_eq!(chosen.lines().nth(2).map(|line| line.split_whitespace().collect()), Some(vec!["127.0.0.1", "81"]));
        assert!(podctl.ok(&["status", "web"]).contains(&format!("ports={}", shown.join(", "))));
        assert!(podctl.ok(&["list"]).contains("8080->80/tcp"));
        // A port that is taken is refused before anything is made.
        let local = host.local.as_str();
        for (args, why) in [
            (&["port", "add", "web", "8000:80"][..], "leads to pod other"),
            (&["port", "add", "other", "127.0.0.1:8082:80"], "leads to pod web"),
            (&["port", "add", "web", "7000:80"], "7000/tcp of the host is in use"),
            (&["port", "add", "web", "8080:81"], "leads to pod web"),
            (&["port", "rm", "web", "8080/udp"], "does not lead to it"),
            (&["sandbox", local, "--net=br", "-p", "8080:80"], "leads to pod web"),
            (&["run", local, "--net=br", "-p", "7000:80", "probe"], "7000/tcp of the host is in use"),
        ] {
            let line = podctl.fails(args);
            assert!(line.contains(why), "{args:?}: {line}");
        }
        assert_eq!(podctl.json(&["list", "--format=json"]).as_array().map(Vec::len), Some(2));
        podctl.ok(&["port", "rm", "web", "8080"]);
        assert_eq!(ask_from_here("tcp", "127.0.0.1:8082"), "two", "{net}");
        let there = |address: &str| std::net::TcpStream::connect(address).is_ok();
        assert!(!there("127.0.0.1:8080"), "{net}: it still leads there");
        // The pod also has them after its next start.
        podctl.ok(&["restart", "web"]);
        wait_for("the app to serve again", 15, || there(&format!("{}:81", ip_of(&pod, &net[6..]))).then_some(()));
        assert_eq!(ask_from_here("tcp", "127.0.0.1:8082"), "two", "{net}");
        podctl.ok(&["port", "rm", "web", "8081/tcp", "8082"]);
        assert_eq!(podctl.ok(&["port", "list", "web"]), "");
        pod.end();
    }
    other.end();
    assert_eq!(host.picture(), before);
    let none = host.sandbox(&["--net=none"]);
    let line = host.podctl.fails(&["port", "add", &none.uuid, "8080:80"]);
    assert!(line.contains("has not joined a network"), "{line}");
    none.end();
    Ok(())
}

/// Whoever asks: pods that are made, and one that runs.
fn of_two_that_ask_for_one_port_at_once_one_gets_it(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let local = host.local.as_str();
    let running = host.sandbox(&["--net=br", "--name=running"]);
    for _ in 0..4 {
        let sandbox = ["sandbox", local, "--net=br", "-p", "8090:80"];
        let add = ["port", "add", "running", "8090:80"];
        let begin = |args: &[&str]| {
            let mut command = host.podctl.command(args);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
        };
        let asking = [begin(&sandbox)?, begin(&sandbox)?, begin(&add)?];
        let answers: Vec<Output> =
            asking.into_iter().map(|child| child.wait_with_output()).collect::<Result<_, _>>()?;
        let (got, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status.success());
        let words: Vec<String> =
            refused.iter().map(|answer| String::from_utf8_lossy(&answer.stderr).into_owned()).collect();
        assert_eq!(got.len(), 1, "{words:?}");
        assert!(words.iter().all(|line| line.contains("port 8090/tcp of the host leads to pod")), "{words:?}");
        let uuid = String::from_utf8_lossy(&got[0].stdout).trim().to_owned();
        if uuid.is_empty() {
            host.podctl.ok(&["port", "rm", "running", "8090"]);
        } else {
            host.podctl.ok(&["stop", &uuid]);
            host.podctl.ok(&["rm", &uuid]);
        }
        assert_eq!(host.podctl.ok(&["list", "-q"]), running.uuid, "nothing is left of the others");
    }
    running.end();
    Ok(())
}

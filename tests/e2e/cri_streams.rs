//! Exec, attach and port-forward of the Kubernetes runtime, by WebSocket and by SPDY.

use tests::Verdict;
use tests::cri::api::{
    AttachRequest, ContainerConfig, ContainerState, ExecRequest, LinuxPodSandboxConfig, LinuxSandboxSecurityContext,
    NamespaceOption, PodSandboxConfig, PortForwardRequest, PortMapping, Protocol, RemovePodSandboxRequest,
    RunPodSandboxRequest,
};
use tests::cri::{Server, probe, sandbox};
use tests::cri_streams::{Channels, Said, Spdy, status_line};
use tests::harness::Context;
use tests::nethost::{Host, ask_from_here};
use tests::process::{all, wait_for};
use tonic::{Code, Status};

tests::cases! {
    both commands_and_containers_are_talked_to 180;
    native ports_of_a_pod_are_reached 120;
    native ports_of_the_host_lead_to_a_pod 120;
}

fn exec(server: &Server<'_>, container: &str, words: &[&str], tty: bool, stdin: bool) -> Result<String, Status> {
    let cmd = words.iter().map(|&word| word.to_owned()).collect();
    let request = ExecRequest { container_id: container.to_owned(), cmd, tty, stdin, stdout: true, stderr: !tty };
    Ok(server.runtime(|mut client| async move { client.exec(request).await })?.url)
}

fn attach(server: &Server<'_>, container: &str, tty: bool, stdin: bool) -> Result<String, Status> {
    let request = AttachRequest { container_id: container.to_owned(), tty, stdin, stdout: true, stderr: !tty };
    Ok(server.runtime(|mut client| async move { client.attach(request).await })?.url)
}

const ECHO: [&str; 8] = ["/probe", "warn", "begun", "+", "cat", "/dev/stdin", "+", "exit"];

fn commands_and_containers_are_talked_to(t: &Context) -> Verdict {
    let podctl = t.podctl();
    podctl.import_probe();
    let server = Server::start(&podctl, &[]);
    let logs = t.dir.join("logs");
    let pod = server.sandbox(&PodSandboxConfig { log_directory: logs.display().to_string(), ..sandbox("talk") });
    let reader = ContainerConfig {
        stdin: true,
        stdin_once: true,
        log_path: "reader.log".into(),
        ..probe("reader", &["print", "before", "+", "cat", "/dev/stdin", "+", "exit", "6"])
    };
    let reader = server.container(&pod, reader);
    assert_eq!(
        exec(&server, &reader, &["/probe"], false, false).expect_err("not started").code(),
        Code::FailedPrecondition
    );
    server.start_container(&reader);
    let echo = [&ECHO[..], &["7"]].concat();

    // by WebSocket: input with an end, both outputs, the exit code
    let url = exec(&server, &reader, &echo, false, true)?;
    let mut channels = Channels::connect(&url, "v5.channel.k8s.io");
    channels.send(0, b"one ");
    channels.send(0, b"two");
    channels.send(255, &[0]);
    let said = channels.finish();
    assert_eq!((said.stdout.as_str(), said.stderr.as_str(), said.code()), ("one two", "begun\n", 7));
    assert!(status_line(&url).contains(" 404 "), "a URL is good once");
    assert!(status_line(&url.replace("exec", "attach")).contains(" 404 "));
    let url = exec(&server, &reader, &["/probe", "long", "2999999"], false, false)?;
    let said = Channels::connect(&url, "v4.channel.k8s.io").finish();
    assert_eq!((said.stdout.len(), said.code()), (3_000_000, 0));
    let url = exec(&server, &reader, &["/no/such/program"], false, false)?;
    let said = Channels::connect(&url, "v5.channel.k8s.io").finish();
    assert!(said.code() != 0 && said.stderr.contains("/no/such/program"), "{said:?}");

    // by SPDY, as of today's kubelet
    let url = exec(&server, &reader, &echo, false, true)?;
    let mut spdy = Spdy::connect(&url, "v4.channel.k8s.io");
    let [error, stdin, stdout, stderr] =
        ["error", "stdin", "stdout", "stderr"].map(|name| spdy.open(&[("streamtype", name)]));
    spdy.write(stdin, b"three", false);
    spdy.write(stdin, b" four", true);
    assert_eq!((spdy.read(stdout), spdy.read(stderr)), ("three four".into(), "begun\n".into()));
    let said = Said { status: spdy.read(error), ..Said::default() };
    assert_eq!(said.code(), 7);

    // a terminal has the client's size, and every change of it
    let size = |number: u8| format!("{{\"Width\":{number},\"Height\":24}}");
    let words =
        ["/probe", "sized", "81", "+", "print", "first", "+", "sized", "91", "+", "print", "second", "+", "take", "2"];
    let mut spdy = Spdy::connect(&exec(&server, &reader, &words, true, true)?, "v5.channel.k8s.io");
    let [error, stdin, stdout, resize] =
        ["error", "stdin", "stdout", "resize"].map(|name| spdy.open(&[("streamtype", name)]));
    spdy.write(resize, size(81).as_bytes(), false);
    spdy.read_until(stdout, |text| text.contains("first"));
    spdy.write(resize, size(91).as_bytes(), false);
    spdy.read_until(stdout, |text| text.contains("second"));
    spdy.write(stdin, b"x\r", false);
    let text = spdy.read(stdout);
    assert_eq!(Said { status: spdy.read(error), ..Said::default() }.code(), 0);
    assert_eq!(text, "first\r\nsecond\r\nx\r\nx\r\n\r\n", "what is typed is echoed once, and lines are a terminal's");
    let mut channels = Channels::connect(&exec(&server, &reader, &words, true, true)?, "v5.channel.k8s.io");
    let mut said = Said::default();
    channels.send(4, size(81).as_bytes());
    channels.read_until(&mut said, |said| said.stdout.contains("first"));
    channels.send(4, size(91).as_bytes());
    channels.read_until(&mut said, |said| said.stdout.contains("second"));
    channels.send(0, b"x\r");
    channels.read_until(&mut said, |said| !said.status.is_empty());
    assert_eq!((said.code(), said.stdout.as_str()), (0, text.as_str()));

    // with its client goes the command, and nothing else
    let nap = format!("27182{}", std::process::id());
    let url = exec(&server, &reader, &["/probe", "print", "on", "+", "sleep", &nap], false, false)?;
    let mut channels = Channels::connect(&url, "v5.channel.k8s.io");
    channels.read_until(&mut Said::default(), |said| said.stdout.contains("on"));
    drop(channels);
    wait_for("the end of the command", 20, || (!all().iter().any(|p| p.words.ends_with(&nap))).then_some(()));
    assert_eq!(server.status(&reader)?.state(), ContainerState::ContainerRunning);

    // attach: what was written before is in the log alone; the end of the first client's input is the container's
    let is_logged = |name: &str| {
        wait_for("the first line", 20, || {
            std::fs::read_to_string(logs.join(name)).is_ok_and(|text| text.contains("before")).then_some(())
        });
    };
    is_logged("reader.log");
    assert_eq!(attach(&server, &reader, true, true).expect_err("no terminal").code(), Code::InvalidArgument);
    let mut spdy = Spdy::connect(&attach(&server, &reader, false, true)?, "v4.channel.k8s.io");
    let [error, stdin, stdout, stderr] =
        ["error", "stdin", "stdout", "stderr"].map(|name| spdy.open(&[("streamtype", name)]));
    spdy.write(stdin, b"hello", true);
    assert_eq!((spdy.read(stdout), spdy.read(stderr)), ("hello".into(), String::new()));
    assert_eq!(Said { status: spdy.read(error), ..Said::default() }.code(), 0);
    assert_eq!(server.end_of(&reader).exit_code, 6);
    let shell = ContainerConfig {
        stdin: true,
        tty: true,
        log_path: "shell.log".into(),
        ..probe("shell", &["print", "before", "+", "take", "2", "+", "exit", "0"])
    };
    let shell = server.container(&pod, shell);
    server.start_container(&shell);
    is_logged("shell.log");
    let mut channels = Channels::connect(&attach(&server, &shell, true, true)?, "v5.channel.k8s.io");
    channels.send(0, b"y\r");
    let said = channels.finish();
    assert!(said.stdout.starts_with("y\r\n") && said.code() == 0, "{said:?}");
    server.end_of(&shell);
    let request = RemovePodSandboxRequest { pod_sandbox_id: pod };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await })?;
    Ok(())
}

/// A network of the pod's own.
fn own_network() -> Option<LinuxPodSandboxConfig> {
    let namespaces = Some(NamespaceOption::default());
    let context = LinuxSandboxSecurityContext { namespace_options: namespaces, ..Default::default() };
    Some(LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() })
}

fn ports_of_the_host_lead_to_a_pod(t: &Context) -> Verdict {
    let host = Host::new(t);
    host.warm_up();
    let before = host.picture();
    let server = Server::start(&host.podctl, &[&host.local]);
    let mapped = |protocol: Protocol, container_port, host_port, host_ip: &str| PortMapping {
        protocol: protocol.into(),
        container_port,
        host_port,
        host_ip: host_ip.to_owned(),
    };
    let port_mappings = vec![
        mapped(Protocol::Tcp, 80, 8080, ""),
        mapped(Protocol::Tcp, 80, 8081, "127.0.0.1"),
        mapped(Protocol::Udp, 99, 9900, "10.77.1.1"),
        // not of the host
        mapped(Protocol::Tcp, 81, 0, ""),
    ];
    let config = PodSandboxConfig { linux: own_network(), port_mappings, ..sandbox("mapped") };
    let pod = server.sandbox(&config);
    for (name, protocol, port) in [("web", "tcp", "80"), ("talk", "udp", "99")] {
        server.start_container(&server.container(&pod, probe(name, &["answer", protocol, port, name])));
    }
    assert_eq!(ask_from_here("tcp", "127.0.0.1:8080"), "web");
    assert_eq!(ask_from_here("tcp", "127.0.0.1:8081"), "web");
    assert_eq!(ask_from_here("udp", "10.77.1.1:9900"), "talk");
    let leads = |address: &str| std::net::TcpStream::connect(address).is_ok();
    assert!(leads("10.77.1.1:8080"), "without an address the port is that of all of the host's");
    assert!(!leads("10.77.1.1:8081"), "the port is that of one address");
    assert!(!leads("127.0.0.1:81"), "a port without one of the host leads nowhere");
    // the port of a pod that is there is taken
    let again = RunPodSandboxRequest {
        config: Some(PodSandboxConfig {
            linux: own_network(),
            port_mappings: vec![mapped(Protocol::Tcp, 80, 8080, "")],
            ..sandbox("again")
        }),
        runtime_handler: String::new(),
    };
    let taken = server.runtime(|mut client| async move { client.run_pod_sandbox(again).await }).expect_err("taken");
    assert!(taken.message().contains("8080"), "{taken}");
    let request = RemovePodSandboxRequest { pod_sandbox_id: pod };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await })?;
    assert!(!leads("127.0.0.1:8080"));
    tests::nethost::same(&before, &host.picture(), "after the pod");
    Ok(())
}

fn ports_of_a_pod_are_reached(t: &Context) -> Verdict {
    let host = Host::new(t);
    let server = Server::start(&host.podctl, &[&host.local]);
    let pod = server.sandbox(&PodSandboxConfig { linux: own_network(), ..sandbox("ports") });
    let web = server.container(&pod, probe("web", &["answer", "tcp", "7171", "hello from inside"]));
    server.start_container(&web);
    // it listens as soon as it is asked with success
    wait_for("the port", 30, || {
        server.exec(&web, &["/probe", "ask", "tcp", "127.0.0.1:7171"], 10).is_ok_and(|a| a.exit_code == 0).then_some(())
    });
    let forward = |port: Vec<i32>| {
        let request = PortForwardRequest { pod_sandbox_id: pod.clone(), port };
        server.runtime(|mut client| async move { client.port_forward(request).await }).map(|answer| answer.url)
    };
    let mut tunnel = Spdy::tunneled(&forward(vec![7171])?);
    let mut spdy = Spdy::connect(&forward(vec![7171])?, "portforward.k8s.io");
    for session in [&mut tunnel, &mut spdy] {
        for round in ["0", "1"] {
            let [error, data] = ["error", "data"]
                .map(|kind| session.open(&[("streamtype", kind), ("port", "7171"), ("requestid", round)]));
            session.write(data, b"", true);
            assert!(session.read(data).contains("hello from inside"));
            assert_eq!(session.read(error), "");
        }
    }
    // by WebSocket without SPDY each port has two channels, which begin with it
    let came = Channels::connect(&forward(vec![7171, 7172])?, "v4.channel.k8s.io").all(4);
    assert_eq!(came[0], [&7171_u16.to_le_bytes()[..], b"hello from inside"].concat());
    assert_eq!((&came[1][..], &came[2][..]), (&7171_u16.to_le_bytes()[..], &7172_u16.to_le_bytes()[..]));
    assert!(String::from_utf8_lossy(&came[3][2..]).starts_with("connect to port 7172: "), "{came:?}");
    // a port that nobody listens at, one that was not asked for: a line, and the connection goes on
    for (port, words) in [("7172", "none that was asked for"), ("7171", "")] {
        let [error, data] =
            ["error", "data"].map(|kind| spdy.open(&[("streamtype", kind), ("port", port), ("requestid", port)]));
        spdy.write(data, b"", true);
        assert!(spdy.read(error).contains(words));
    }
    let mut any = Spdy::connect(&forward(Vec::new())?, "portforward.k8s.io");
    let [error, _data] =
        ["error", "data"].map(|kind| any.open(&[("streamtype", kind), ("port", "7172"), ("requestid", "0")]));
    let refused = any.read(error);
    assert!(refused.contains("connect to port 7172") && refused.contains("refused"), "{refused}");
    assert_eq!(forward(vec![70_000]).expect_err("no port").code(), Code::InvalidArgument);
    let request = RemovePodSandboxRequest { pod_sandbox_id: pod.clone() };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await })?;
    assert_eq!(forward(vec![7171]).expect_err("it is gone").code(), Code::NotFound);
    let refused = host.podctl.fails(&["cri", "--listen=unix:///run/x.sock", "--stream=0.0.0.0:1234"]);
    assert!(refused.contains("loopback"), "{refused}");
    Ok(())
}

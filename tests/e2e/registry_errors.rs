//! What podctl says when a registry can't be used: one line with the server, the reason, and what to do.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;

use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::registry::Certificates;
use tests::server::{Reply, Request, Server};

tests::cases! {
    native each_failure_has_one_line_that_tells_what_to_do;
}

fn each_failure_has_one_line_that_tells_what_to_do(t: &Context) -> Verdict {
    let podctl = t.podctl();
    let pull = |host: &str, options: &[&str]| {
        let name = format!("{host}/x:1");
        let line = podctl.fails(&[&["image", "pull", &name][..], options].concat());
        let start = format!("podctl: pull \"{name}\": ");
        line.strip_prefix(&start).unwrap_or_else(|| panic!("{line}")).to_owned()
    };
    let free = TcpListener::bind("127.0.0.1:0")?;
    let nobody = format!("localhost:{}", free.local_addr()?.port());
    drop(free);
    let refused = "it refuses the connection: check that a registry listens there, and its port";
    assert_eq!(pull(&nobody, &[]), format!("no answer from {nobody}: {refused}"));
    assert_eq!(pull(&nobody, &["--tls-verify=false"]), format!("no answer from {nobody}: {refused}"));

    // One server for each answer: the answers of all requests but the first one, which asks for the API.
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let tls = Some((certificates.certificate.as_path(), certificates.key.as_path()));
    let server = |reply: Reply| {
        Server::start(tls, move |request: &Request| match request.path.as_str() {
            "/v2/" => Reply::new(200, "{}"),
            _ => reply.clone(),
        })
    };
    let trust = certificates.option();
    let auth_file = t.dir.join("auth.json");
    let known = format!("--authfile={}", auth_file.display());
    let denied = r#"{"errors":[{"code":"DENIED","message":"not you"}]}"#;
    let now = |status: u16| Reply::new(status, "").header("Retry-After", "0");
    for (reply, options, expected) in [
        (Reply::new(404, ""), &[&*trust][..], "HOST has no x:1"),
        (
            Reply::new(403, denied),
            &[&*trust],
            "https://HOST/v2/x/manifests/1 answers 403 Forbidden: DENIED: not you: x does not exist, or needs a login: \
             podctl login HOST",
        ),
        (
            Reply::new(403, denied),
            &[&*trust, &*known],
            "https://HOST/v2/x/manifests/1 answers 403 Forbidden: DENIED: not you: the user may not do this, or the \
             password is no longer right: podctl login HOST",
        ),
        (
            now(429),
            &[&*trust],
            "https://HOST/v2/x/manifests/1 answers 429 Too Many Requests: it limits how often it is asked: try again later",
        ),
        (
            now(503),
            &[&*trust],
            "https://HOST/v2/x/manifests/1 answers 503 Service Unavailable: it does not work at the moment: try again later",
        ),
        (
            Reply { cut: Some(10), ..Reply::new(200, vec![b' '; 1000]) },
            &[&*trust],
            "download from HOST: the connection broke after 10 of 1000 bytes (it was closed early): try again",
        ),
        (
            Reply::new(404, ""),
            &[],
            "no answer from HOST: its certificate is of an authority that this machine does not know: put the authority's \
             certificate at /etc/containers/certs.d/HOST/ca.crt, or trust it unverified with --tls-verify=false",
        ),
    ] {
        let server = server(reply);
        // me:secret
        let auths = json!({ "auths": { &server.host: { "auth": "bWU6c2VjcmV0" } } });
        fs::write(&auth_file, auths.to_string())?;
        assert_eq!(pull(&server.host, options), expected.replace("HOST", &server.host));
    }
    // What a server without TLS says to one who begins with TLS.
    let plain = TcpListener::bind("127.0.0.1:0")?;
    let host = format!("localhost:{}", plain.local_addr()?.port());
    std::thread::spawn(move || -> std::io::Result<()> {
        for stream in plain.incoming() {
            let mut stream = stream?;
            if stream.read(&mut [0; 1 << 16])? == 0 {
                continue;
            }
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTPS request to an HTTP server.\n")?;
        }
        Ok(())
    });
    let expected = "it does not speak TLS: check its port; if it is a registry without TLS, add --tls-verify=false";
    assert_eq!(pull(&host, &[]), format!("no answer from {host}: {expected}"));
    Ok(())
}

//! Reaching a registry, and authenticating: proxies, client certificates, tokens, credential helpers; images for
//! several platforms; blobs that a registry already has.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::oci::{MANIFEST, OciImage, digest};
use tests::process::{Output, run, run_with_input};
use tests::registry::{Certificates, ELSEWHERE, PASSWORD, Registry, USER, Users};
use tests::server::{Proxy, Reply, Request, Server, ranged};

tests::cases! {
    native a_platform_is_chosen_of_an_index;
    native servers_are_reached_by_a_proxy;
    native a_client_shows_its_certificate;
    native an_identity_token_is_changed_for_others;
    native a_helper_keeps_and_forgets;
    native blobs_are_taken_over_inside_a_registry;
}

/// The last part of a path, without the query.
fn last(request: &Request) -> &str {
    request.path.split('?').next().unwrap_or_default().rsplit('/').next().unwrap_or_default()
}

/// The true answers of a registry with one image.
fn honest(image: &OciImage, request: &Request) -> Reply {
    match image.blobs.get(last(request)) {
        Some(bytes) => ranged(request, bytes),
        None if request.path == "/v2/" => Reply::new(200, "{}"),
        None => Reply::new(200, image.manifest.clone()).header("Content-Type", MANIFEST),
    }
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn a_platform_is_chosen_of_an_index(t: &Context) -> Verdict {
    let image = |name: &str, architecture: &str, variant: Option<&str>| {
        OciImage::new(&t.dir.join(name), &[]).configured(|config| {
            config["architecture"] = json!(architecture);
            config["os"] = json!("linux");
            if let Some(variant) = variant {
                config["variant"] = json!(variant);
            }
        })
    };
    let (ours, theirs) = (image("ours", "amd64", None), image("theirs", "arm64", Some("v8")));
    let pointer = |image: &OciImage, platform: Value| json!({ "mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(), "platform": platform });
    let attestation = json!({ "mediaType": MANIFEST, "digest": digest(b"x"), "size": 1,
        "platform": { "os": "unknown", "architecture": "unknown" } });
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [
        attestation,
        pointer(&theirs, json!({ "os": "linux", "architecture": "arm64", "variant": "v8" })),
        pointer(&ours, json!({ "os": "linux", "architecture": "amd64" })),
    ]})
    .to_string();
    let all = [ours.clone(), theirs.clone()];
    let list = index.clone();
    let server = Server::start(None, move |request| {
        let name = last(request);
        match all.iter().find(|one| one.digest() == name || one.blobs.contains_key(name)) {
            Some(one) => honest(one, request),
            None if request.path == "/v2/" => Reply::new(200, "{}"),
            None => Reply::new(200, list.clone()).header("Content-Type", INDEX),
        }
    });
    let podctl = t.podctl();
    let pull = |name: &str, more: &[&str]| {
        podctl.run(&[&["image", "pull", "--tls-verify=false", &format!("{}/{name}", server.host)], more].concat())
    };
    let architecture = |id: &str| podctl.json(&["image", "inspect", id])[0]["architecture"].clone();
    let id = pull("x:1", &[]).ok();
    assert_eq!((id.as_str(), architecture(&id)), (ours.config.as_str(), json!("amd64")));
    assert_eq!(pull(&format!("x@{}", digest(index.as_bytes())), &[]).ok(), id);
    for platform in ["linux/arm64", "linux/aarch64", "linux/arm64/v8"] {
        let id = pull("x:1", &["--platform", platform]).ok();
        assert_eq!((id.as_str(), architecture(&id)), (theirs.config.as_str(), json!("arm64")), "{platform}");
    }
    let none = pull("x:1", &["--platform=linux/riscv64"]).complaint();
    assert!(none.contains("linux/riscv64") && none.contains("linux/arm64/v8, linux/amd64"), "{none}");
    assert!(pull("x:1", &["--platform=amd64"]).complaint().contains("OS/ARCHITECTURE"));
    Ok(())
}

fn servers_are_reached_by_a_proxy(t: &Context) -> Verdict {
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let tls = Some((certificates.certificate.as_path(), certificates.key.as_path()));
    let image = OciImage::new(&t.dir.join("image"), &[200_000]);
    let served = image.clone();
    let server = Server::start(tls, move |request| honest(&served, request));
    let proxy = Proxy::new();
    // nothing listens there; only the proxy can reach it
    run(Command::new("ip").args(["address", "add", ELSEWHERE, "dev", "lo"])).ok();
    let name = format!("{ELSEWHERE}:{}", server.host.rsplit(':').next().unwrap_or_default());
    let podctl = t.podctl();
    let pull = |host: &str, variables: &[(&str, &str)]| {
        let mut command = podctl.command(&["image", "pull", &certificates.option(), &format!("{host}/x:1")]);
        run(command.envs(variables.iter().copied()))
    };
    let with_password = format!("http://me:pass%20word@{}", proxy.host);
    pull(&name, &[]).complaint();
    assert_eq!(pull(&name, &[("HTTPS_PROXY", &with_password)]).ok(), image.config);
    let asked = proxy.asked();
    assert!(asked.len() >= 3, "{asked:?}");
    // me:pass word
    assert!(asked.iter().all(|(to, who)| *to == name && who == "Basic bWU6cGFzcyB3b3Jk"), "{asked:?}");
    podctl.ok(&["image", "rm", &image.config]);
    pull(&name, &[("all_proxy", &format!("http://{}", proxy.host))]).ok();
    assert_eq!(proxy.asked().last(), Some(&(name.clone(), String::new())));
    podctl.ok(&["image", "rm", &image.config]);
    // excepted hosts, and this machine, are reached directly
    let before = proxy.asked().len();
    for exception in [name.as_str(), ELSEWHERE, "10.0.0.0/8", "*"] {
        pull(&name, &[("https_proxy", &with_password), ("NO_PROXY", exception)]).complaint();
    }
    pull(&server.host, &[("HTTPS_PROXY", &with_password)]).ok();
    assert_eq!(proxy.asked().len(), before, "{:?}", proxy.asked());
    let nonsense = pull(&name, &[("HTTPS_PROXY", "gopher://secret@x")]).complaint();
    assert!(nonsense.contains("HTTPS_PROXY") && !nonsense.contains("secret"), "{nonsense}");
    Ok(())
}

fn a_client_shows_its_certificate(t: &Context) -> Verdict {
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let known = certificates.known_client();
    let registry = Registry::start(&t.dir.join("registry"), &certificates, 5000, Users::Certificate);
    let image = OciImage::new(&t.dir.join("image"), &[1000]);
    let name = format!("{}/app:1", registry.host);
    let layout = image.layout(&t.dir.join("layout"), "1");
    run(Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", "--preserve-digests", "--dest-cert-dir"])
        .arg(&known)
        .args([layout, format!("docker://{name}")]))
    .ok();
    let podctl = t.podctl();
    let refused = podctl.fails(&["image", "pull", &name, &certificates.option()]);
    assert!(refused.to_lowercase().contains("certificate"), "{refused}");
    let dir = format!("--cert-dir={}", known.display());
    assert_eq!(podctl.ok(&["image", "pull", &name, &dir]), image.config);
    assert_eq!(podctl.ok(&["image", "push", &name, &format!("{}/copy:2", registry.host), &dir]), image.digest());
    let began = Instant::now();
    // a certificate and a key that do not belong together, and each without the other one
    let key = known.join("client.key");
    fs::copy(&certificates.key, &key)?;
    assert!(podctl.fails(&["image", "pull", &name, &dir]).contains("do not belong together"));
    fs::remove_file(&key)?;
    assert!(podctl.fails(&["image", "pull", &name, &dir]).contains("client.key"));
    fs::copy(&certificates.key, &key)?;
    fs::remove_file(known.join("client.cert"))?;
    assert!(podctl.fails(&["image", "pull", &name, &dir]).contains("no .cert is beside it"));
    // permanent errors: each would take 15 s if it were retried
    assert!(began.elapsed() < Duration::from_secs(12), "it took {:?}", began.elapsed());
    Ok(())
}

fn an_identity_token_is_changed_for_others(t: &Context) -> Verdict {
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let tls = Some((certificates.certificate.as_path(), certificates.key.as_path()));
    let image = Arc::new(OciImage::new(&t.dir.join("image"), &[1000]));
    let (own, theirs) = (Arc::new(Mutex::new(String::new())), Arc::clone(&image));
    let host = Arc::clone(&own);
    let server = Server::start(tls, move |request| {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        match request.header("authorization") {
            _ if request.path == "/token" && request.method == "POST" => {
                match body.contains("refresh_token=identity") {
                    true => Reply::new(200, json!({ "access_token": "short", "expires_in": 60 }).to_string()),
                    false => Reply::new(401, ""),
                }
            }
            Some("Bearer short") => honest(&theirs, request),
            _ => {
                let host = host.lock().expect("the host").clone();
                let challenge = format!("Bearer realm=\"https://{host}/token\",service=\"a service\"");
                Reply::new(401, "").header("WWW-Authenticate", challenge)
            }
        }
    });
    own.lock().expect("the host").clone_from(&server.host);
    let podctl = t.podctl();
    let auth = t.dir.join("auth.json");
    let pull = |token: &str| {
        fs::write(&auth, json!({ "auths": { &server.host: { "identitytoken": token } } }).to_string()).expect("write");
        let name = format!("{}/x:1", server.host);
        podctl.run(&["image", "pull", &name, &certificates.option(), &format!("--authfile={}", auth.display())])
    };
    let refused = pull("stale").complaint();
    assert!(refused.contains("refuses these credentials") && !refused.contains("stale"), "{refused}");
    assert_eq!(pull("identity").ok(), image.config);
    let mut asked = server.asked().into_iter().filter(|request| request.method == "POST");
    let last = asked.next_back().map(|request| String::from_utf8_lossy(&request.body).into_owned()).unwrap_or_default();
    for part in ["grant_type=refresh_token", "service=a%20service", "scope=repository%3Ax%3Apull"] {
        assert!(last.split('&').any(|one| one == part), "{part}: {last}");
    }
    Ok(())
}

fn a_helper_keeps_and_forgets(t: &Context) -> Verdict {
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let registry = Registry::start(&t.dir.join("registry"), &certificates, 5000, Users::Password);
    let image = OciImage::new(&t.dir.join("image"), &[1000]);
    let name = format!("{}/app:1", registry.host);
    registry.copy(&image.layout(&t.dir.join("layout"), "1"), &format!("docker://{name}"));
    let bin = t.dir.join("bin");
    fs::create_dir_all(&bin)?;
    let script = "#!/bin/sh\ncd \"$(dirname \"$0\")\"\ncase $1 in\nstore) cat >kept ;;\nerase) cat >erased; rm kept ;;\n\
                  get) cat >asked; [ -e kept ] && exec cat kept; echo credentials not found in native keychain; exit 1 ;;\n\
                  esac\n";
    fs::write(bin.join("docker-credential-test"), script)?;
    fs::set_permissions(bin.join("docker-credential-test"), fs::Permissions::from_mode(0o755))?;
    let auth = t.dir.join("auth.json");
    let podctl = t.podctl();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let command = |words: &[&str]| {
        let mut command = podctl.command(words);
        command.arg(format!("--authfile={}", auth.display())).env("PATH", &path);
        command
    };
    let trust = certificates.option();
    let host = registry.host.as_str();
    let pull = || -> Output { run(&mut command(&["image", "pull", &name, &trust])) };
    for file in [json!({ "credHelpers": { host: "test" } }), json!({ "credsStore": "test" })] {
        fs::write(&auth, file.to_string())?;
        assert!(pull().complaint().contains("podctl login"), "the helper has nothing");
        let login = ["login", "--username", USER, "--password-stdin", host, &trust];
        let told = run_with_input(&mut command(&login), PASSWORD);
        assert!(told.code == Some(0), "{told}");
        let kept: Value = serde_json::from_slice(&fs::read(bin.join("kept"))?)?;
        assert_eq!(kept, json!({ "ServerURL": host, "Username": USER, "Secret": PASSWORD }));
        assert_eq!(serde_json::from_slice::<Value>(&fs::read(&auth)?)?, file, "the file has no secret");
        assert_eq!(pull().ok(), image.config);
        run(&mut command(&["logout", host])).ok();
        assert_eq!((fs::read_to_string(bin.join("erased"))?.as_str(), bin.join("kept").exists()), (host, false));
        podctl.ok(&["image", "rm", &image.config]);
    }
    Ok(())
}

fn blobs_are_taken_over_inside_a_registry(t: &Context) -> Verdict {
    let image = Arc::new(OciImage::new(&t.dir.join("image"), &[100_000]));
    let podctl = t.podctl();
    // a registry that can mount blobs, and one that begins an upload instead
    for can in [true, false] {
        let theirs = Arc::clone(&image);
        let server = Server::start(None, move |request| {
            let elsewhere = request.path.starts_with("/v2/copy/");
            match request.method.as_str() {
                "HEAD" if elsewhere => Reply::new(404, ""),
                "POST" if can && request.path.contains("mount=") => Reply::new(201, "").header("Location", "/v2/"),
                "POST" => Reply::new(202, "").header("Location", "/v2/copy/blobs/uploads/1"),
                "PUT" => Reply::new(201, ""),
                "DELETE" => Reply::new(204, ""),
                _ => honest(&theirs, request),
            }
        });
        let from = format!("{}/x:1", server.host);
        podctl.ok(&["image", "pull", "--tls-verify=false", &from]);
        let before = server.asked().len();
        let to = format!("{}/copy:2", server.host);
        assert_eq!(podctl.ok(&["image", "push", "--tls-verify=false", &from, &to]), image.digest());
        let asked: Vec<Request> = server.asked().split_off(before);
        let count = |method: &str, part: &str| {
            asked.iter().filter(|one| one.method == method && one.path.contains(part)).count()
        };
        let blobs = image.blobs.len();
        assert_eq!(count("POST", "&from=x"), blobs, "{asked:?}");
        assert_eq!(count("PUT", "/v2/copy/manifests/2"), 1);
        let sent = if can { 0 } else { blobs };
        assert_eq!((count("PUT", "/blobs/uploads/1?digest="), count("DELETE", "/blobs/uploads/1")), (sent, sent));
        for (digest, bytes) in image.blobs.iter().filter(|_| !can) {
            let is_it = |one: &&Request| one.method == "PUT" && one.path.ends_with(&digest["sha256:".len()..]);
            assert_eq!(asked.iter().find(is_it).map(|one| &one.body), Some(bytes), "{digest}");
        }
        podctl.ok(&["image", "rm", &image.config]);
    }
    Ok(())
}

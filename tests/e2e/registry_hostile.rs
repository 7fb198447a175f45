//! Registries that break off, lie, redirect elsewhere, and never end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tests::Verdict;
use tests::harness::Context;
use tests::oci::{MANIFEST, OciImage, digest};
use tests::podctl::Podctl;
use tests::registry::Certificates;
use tests::server::{Reply, Request, Server, ranged};

tests::cases! {
    native what_breaks_off_is_resumed 120;
    native what_is_overloaded_is_waited_for 120;
    native a_token_goes_to_no_other_host 120;
    native lies_are_refused_and_leave_nothing 180;
}

/// The false answer of a registry, if any.
type Change = dyn Fn(&OciImage, &Request) -> Option<Reply> + Send + Sync;

/// The last part of a path: a digest or a tag.
fn last(request: &Request) -> &str {
    let path = request.path.split('?').next().unwrap_or_default();
    path.rsplit('/').next().unwrap_or_default()
}

/// The true answers of a registry with one image.
fn honest(image: &OciImage, request: &Request) -> Reply {
    match image.blobs.get(last(request)) {
        Some(bytes) => ranged(request, bytes),
        None if request.path == "/v2/" => Reply::new(200, "{}"),
        None if request.path.contains("/manifests/") => {
            Reply::new(200, image.manifest.clone()).header("Content-Type", MANIFEST)
        }
        None => Reply::new(404, "{}"),
    }
}

fn pull(podctl: &Podctl, server: &Server) -> tests::process::Output {
    podctl.run(&["image", "pull", "--tls-verify=false", &format!("{}/x:1", server.host)])
}

fn what_breaks_off_is_resumed(t: &Context) -> Verdict {
    let image = Arc::new(OciImage::new(&t.dir.join("image"), &[1_500_000]));
    let big = image.layers[1].clone();
    let (theirs, broken) = (Arc::clone(&image), big.clone());
    let server = Server::start(None, move |request| {
        let reply = honest(&theirs, request);
        if last(request) == broken { Reply { cut: Some(400_000), ..reply } } else { reply }
    });
    let podctl = t.podctl();
    pull(&podctl, &server).ok();
    let ranges: Vec<Option<String>> = server
        .asked()
        .iter()
        .filter(|request| last(request) == big)
        .map(|request| request.header("range").map(str::to_owned))
        .collect();
    assert!(ranges.len() >= 4 && ranges[0].is_none() && ranges[1..].iter().all(Option::is_some), "{ranges:?}");

    // a server that starts again each time never completes, and podctl says so
    let theirs = Arc::clone(&image);
    let stubborn = Server::start(None, move |request| {
        let mut plain = request.clone();
        plain.headers.clear();
        let reply = honest(&theirs, &plain);
        let is_first = last(request) == theirs.layers[1] && request.header("range").is_none();
        if is_first { Reply { cut: Some(400_000), ..reply } } else { reply }
    });
    let other = Podctl::new(&tests::dist().join("podctl"), &t.dir.join("other"), &t.dir);
    pull(&other, &stubborn).ok();
    Ok(())
}

fn what_is_overloaded_is_waited_for(t: &Context) -> Verdict {
    let image = Arc::new(OciImage::new(&t.dir.join("image"), &[1000]));
    let (theirs, count) = (Arc::clone(&image), AtomicUsize::new(0));
    let server = Server::start(None, move |request| match count.fetch_add(1, Ordering::SeqCst) {
        0 | 3 => Reply::new(429, "").header("Retry-After", "1"),
        1 | 4 => Reply::new(503, "").header("Retry-After", "Wed, 21 Oct 2015 07:28:00 GMT"),
        5 => Reply::new(500, ""),
        _ => honest(&theirs, request),
    });
    let began = Instant::now();
    let podctl = t.podctl();
    // the first request over HTTPS, which the server does not understand, does no harm
    pull(&podctl, &server).ok();
    assert!(began.elapsed() >= Duration::from_secs(2), "it took {:?}", began.elapsed());

    let never = Server::start(None, |_| Reply::new(429, "").header("Retry-After", "86400"));
    let began = Instant::now();
    let words = pull(&podctl, &never).complaint();
    assert!(words.contains("asks for a pause of 86400 s"), "{words}");
    assert!(began.elapsed() < Duration::from_secs(30), "it took {:?}", began.elapsed());
    Ok(())
}

fn a_token_goes_to_no_other_host(t: &Context) -> Verdict {
    let image = Arc::new(OciImage::new(&t.dir.join("image"), &[1000]));
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let tls = Some((certificates.certificate.as_path(), certificates.key.as_path()));
    let theirs = Arc::clone(&image);
    let store = Arc::new(Server::start(tls, move |request| honest(&theirs, request)));
    let theirs = Arc::clone(&image);
    let plain = Server::start(None, move |request| honest(&theirs, request));
    let registry = |to: String| {
        let theirs = Arc::clone(&image);
        let own = Arc::new(std::sync::OnceLock::<String>::new());
        let name = Arc::clone(&own);
        let server = Server::start(tls, move |request| {
            let host = own.get().cloned().unwrap_or_default();
            match request.header("authorization") {
                _ if request.path.starts_with("/token") => {
                    Reply::new(200, json!({ "token": "very-secret" }).to_string())
                }
                Some("Bearer very-secret") if request.path.contains("/blobs/") => {
                    Reply::new(307, "").header("Location", format!("{to}/v2/x/blobs/{}?signed=1", last(request)))
                }
                Some("Bearer very-secret") => honest(&theirs, request),
                _ => Reply::new(401, "")
                    .header("WWW-Authenticate", format!("Bearer realm=\"https://{host}/token\",service=\"s\"")),
            }
        });
        name.set(server.host.clone()).expect("once");
        server
    };
    let podctl = t.podctl();
    let pull =
        |server: &Server| podctl.run(&["image", "pull", &certificates.option(), &format!("{}/x:1", server.host)]);
    let good = registry(format!("https://{}", store.host));
    pull(&good).ok();
    assert!(good.asked().iter().any(|request| request.header("authorization").is_some()));
    assert!(!store.asked().is_empty());
    for request in store.asked() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
    podctl.ok(&["image", "rm", &format!("{}/x:1", good.host)]);

    let bad = registry(format!("http://{}", plain.host));
    let words = pull(&bad).complaint();
    assert!(words.contains("is not secure"), "{words}");
    assert!(plain.asked().is_empty(), "{:?}", plain.asked());
    Ok(())
}

fn lies_are_refused_and_leave_nothing(t: &Context) -> Verdict {
    let image = Arc::new(OciImage::new(&t.dir.join("image"), &[200_000]));
    let layer = image.layers[1].clone();
    let podctl = t.podctl();
    let attack = |what: &str, words: &str, change: Box<Change>| {
        let theirs = Arc::clone(&image);
        let server =
            Server::start(None, move |request| change(&theirs, request).unwrap_or_else(|| honest(&theirs, request)));
        let began = Instant::now();
        let said = pull(&podctl, &server).complaint();
        assert!(said.contains(words), "{what}: {said}");
        assert!(began.elapsed() < Duration::from_secs(40), "{what}: {:?}", began.elapsed());
        assert_eq!(podctl.json(&["image", "list", "--format", "json"]), json!([]), "{what}");
        let left: Vec<_> = podctl.data.join("tmp").read_dir().into_iter().flatten().collect();
        assert!(left.is_empty(), "{what}: {left:?}");
        assert!(!podctl.data.join("blobs").exists(), "{what}");
    };
    let blob = |reply: fn(Vec<u8>) -> Reply| {
        let layer = layer.clone();
        Box::new(move |image: &OciImage, request: &Request| {
            (last(request) == layer).then(|| reply(image.blobs[&layer].clone()))
        })
    };
    attack(
        "another content",
        "another hash",
        blob(|mut bytes| {
            bytes[100] ^= 1;
            Reply::new(200, bytes)
        }),
    );
    attack(
        "a shorter one",
        "the registry announces",
        blob(|mut bytes| {
            bytes.pop();
            Reply::new(200, bytes)
        }),
    );
    attack("an endless body", "has more than", blob(|bytes| Reply { endless: true, ..Reply::new(200, bytes) }));
    let manifest = |change: fn(&OciImage) -> Reply| {
        Box::new(move |image: &OciImage, request: &Request| request.path.contains("/manifests/").then(|| change(image)))
    };
    attack("a manifest of 5 MB", "is larger than 4194304 bytes", manifest(|_| Reply::new(200, vec![b' '; 5 << 20])));
    attack(
        "an endless manifest",
        "is larger than",
        manifest(|_| Reply { endless: true, ..Reply::new(200, vec![b' '; 1 << 16]) }),
    );
    attack(
        "a digest that is not its",
        "another hash",
        manifest(|image| {
            Reply::new(200, image.manifest.clone())
                .header("Content-Type", MANIFEST)
                .header("Docker-Content-Digest", digest(b"something else"))
        }),
    );
    attack(
        "a digest that is a path",
        "is neither sha256 nor sha512",
        manifest(|image| {
            let mut manifest = image.describe();
            manifest["layers"][0]["digest"] = json!("../../../../etc/passwd");
            Reply::new(200, manifest.to_string()).header("Content-Type", MANIFEST)
        }),
    );
    attack(
        "an index and a manifest",
        "at the same time",
        manifest(|image| {
            let mut manifest = image.describe();
            manifest["manifests"] = json!([]);
            Reply::new(200, manifest.to_string()).header("Content-Type", MANIFEST)
        }),
    );
    attack(
        "more than the disk",
        "bytes",
        manifest(|image| {
            let mut manifest = image.describe();
            manifest["layers"][0]["size"] = json!(u64::MAX);
            manifest["layers"][1]["size"] = json!(u64::MAX);
            Reply::new(200, manifest.to_string()).header("Content-Type", MANIFEST)
        }),
    );
    attack(
        "2000 layers",
        "more than 1000 layers",
        manifest(|image| {
            let mut manifest = image.describe();
            manifest["layers"] = json!(vec![manifest["layers"][0].clone(); 2000]);
            Reply::new(200, manifest.to_string()).header("Content-Type", MANIFEST)
        }),
    );
    attack(
        "an artifact",
        "and not an image",
        manifest(|image| {
            let mut manifest = image.describe();
            manifest["config"]["mediaType"] = json!("application/vnd.example.sbom");
            Reply::new(200, manifest.to_string()).header("Content-Type", MANIFEST)
        }),
    );
    attack(
        "headers without an end",
        "",
        Box::new(|_, request: &Request| {
            request.path.contains("/manifests/").then(|| Reply::new(200, "").header("X-Long", "y".repeat(1 << 20)))
        }),
    );
    attack(
        "a circle",
        "more than 5 redirects",
        Box::new(|_, request: &Request| {
            request.path.contains("/manifests/").then(|| Reply::new(302, "").header("Location", request.path.clone()))
        }),
    );
    attack(
        "another scheme",
        "not a valid URL",
        Box::new(|_, request: &Request| {
            request.path.contains("/manifests/").then(|| Reply::new(302, "").header("Location", "file:///etc/passwd"))
        }),
    );
    attack(
        "an index within itself",
        "",
        Box::new(|image, request: &Request| {
            let index = json!({ "schemaVersion": 2, "manifests": [{
                "mediaType": "application/vnd.oci.image.index.v1+json", "digest": image.digest(), "size": 1,
            }]});
            request.path.contains("/manifests/").then(|| {
                Reply::new(200, index.to_string()).header("Content-Type", "application/vnd.oci.image.index.v1+json")
            })
        }),
    );
    attack("no registry at all", "it is not a registry", Box::new(|_, _| Some(Reply::new(404, "<html>"))));
    Ok(())
}

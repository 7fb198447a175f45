//! Pulling images from registries and pushing them, with skopeo as the other client.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::Verdict;
use tests::harness::Context;
use tests::oci::{OciImage, digest};
use tests::podctl::Podctl;
use tests::process::{Output, run, run_with_input, wait_for};
use tests::registry::{Certificates, PASSWORD, Registry, USER, Users, token};
use tests::server::{Reply, Request, Server};

tests::cases! {
    native pull_push_and_pull_elsewhere_give_the_same_digests 180;
    native what_is_kept_is_pushed_without_its_registry 180;
    native a_token_server_says_who_may 120;
    native names_are_given_and_taken 120;
    native configuration_of_the_container_tools_counts 120;
    native credentials_are_kept_where_others_find_them 120;
    native killed_at_any_time_the_store_is_whole 180;
    native an_interrupted_pull_leaves_nothing 120;
}

/// A registry with an image in it, and a podctl that uses it.
struct Scene {
    registry: Registry,
    image: OciImage,
    podctl: Podctl,
    auth: PathBuf,
}

impl Scene {
    fn new(t: &Context, sizes: &[usize]) -> Self {
        let certificates = Certificates::new(&t.dir.join("certificates"));
        let registry = Registry::start(&t.dir.join("registry"), &certificates, 5000, Users::Password);
        let image = OciImage::new(&t.dir.join("image"), sizes);
        let layout = image.layout(&t.dir.join("layout"), "1");
        registry.copy(&layout, &format!("docker://{}/app/web:1", registry.host));
        Self { registry, image, podctl: t.podctl(), auth: t.dir.join("auth.json") }
    }

    fn options(&self) -> [String; 2] {
        [self.registry.certificates.option(), format!("--authfile={}", self.auth.display())]
    }

    /// The full name.
    fn name(&self, rest: &str) -> String {
        format!("{}/{rest}", self.registry.host)
    }

    fn command(&self, podctl: &Podctl, words: &[&str]) -> Command {
        let mut command = podctl.command(words);
        command.args(self.options());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        run(&mut self.command(&self.podctl, words))
    }

    fn login(&self, password: &str) -> Output {
        let host = self.registry.host.as_str();
        let words = ["login", "--username", USER, "--password-stdin", host];
        run_with_input(&mut self.command(&self.podctl, &words), password)
    }
}

fn files_below(dir: &Path) -> Vec<String> {
    let found = run(Command::new("find").arg(dir).args(["-mindepth", "1"])).stdout;
    found.lines().map(str::to_owned).collect()
}

fn pull_push_and_pull_elsewhere_give_the_same_digests(t: &Context) -> Verdict {
    let scene = Scene::new(t, &[300_000, 5_000]);
    let digest = scene.image.digest();
    let refused = scene.run(&["image", "pull", &scene.name("app/web:1")]).complaint();
    assert!(refused.contains("podctl login localhost:5000"), "{refused}");
    let refused = scene.login("wrong").complaint();
    assert!(refused.contains("refuses the user or the password"), "{refused}");
    assert!(!scene.auth.exists(), "a login that failed has left credentials");
    scene.login(PASSWORD).ok();

    // without its certificate authority the registry is not trusted
    let auth = format!("--authfile={}", scene.auth.display());
    let stranger = scene.podctl.fails(&["image", "pull", &scene.name("app/web:1"), &auth]);
    assert!(stranger.contains("UnknownIssuer") || stranger.contains("certificate"), "{stranger}");

    let id = scene.run(&["image", "pull", &scene.name("app/web:1")]).ok();
    let shown = scene.podctl.json(&["image", "show", &id, "--format", "json"]);
    assert_eq!(shown["digests"], json!([digest]));
    assert_eq!(shown["names"], json!([scene.name("app/web:1")]));
    let again = scene.run(&["image", "pull", &scene.name("app/web:1")]).ok();
    assert_eq!(id, again);

    // the pulled image runs with its configuration
    let uuid = scene.podctl.ok(&["prepare", "--net=host", "web:1"]);
    let out = run(scene.podctl.command(&["run-prepared", &uuid, "--rm"]).stdin(Stdio::null()));
    assert!(out.code == Some(0) && out.stdout.contains("pulled"), "{out}");

    // pushed elsewhere the image is the same, for podctl and for skopeo
    let pushed = scene.run(&["image", "push", "web:1", &scene.name("copies/web:2")]).ok();
    assert_eq!(pushed, digest);
    assert_eq!(scene.registry.raw_manifest("copies/web:2").as_bytes(), scene.image.manifest);
    let other = Podctl::new(&tests::dist().join("podctl"), &t.dir.join("other"), &t.dir);
    let copy = run(&mut scene.command(&other, &["image", "pull", &scene.name("copies/web:2")])).ok();
    let shown = other.json(&["image", "show", &copy, "--format", "json"]);
    assert_eq!(shown["digests"], json!([digest]));
    let back = t.dir.join("back");
    scene.registry.copy(&format!("docker://{}", scene.name("copies/web:2")), &format!("oci:{}:x", back.display()));
    for (digest, bytes) in &scene.image.blobs {
        let path = back.join("blobs/sha256").join(&digest["sha256:".len()..]);
        assert_eq!(fs::read(&path)?, *bytes, "{}", path.display());
    }

    // skopeo writes the pushed image in all its formats, and podctl imports each
    let creds = format!("{USER}:{PASSWORD}");
    let skopeo = |words: &[&str]| {
        let mut command = Command::new("skopeo");
        let (side, more) =
            if words[0] == "copy" { ("src-", &["--quiet", "--insecure-policy"][..]) } else { ("", &[][..]) };
        command.arg(words[0]).args(more).arg(format!("--{side}creds={creds}"));
        command.arg(format!("--{side}cert-dir={}", scene.registry.certificates.client_dir.display()));
        run(command.args(&words[1..])).ok()
    };
    let pushed = format!("docker://{}", scene.name("copies/web:2"));
    let seen: Value = serde_json::from_str(&skopeo(&["inspect", &pushed]))?;
    assert_eq!((&seen["Digest"], &seen["Layers"]), (&json!(digest), &json!(scene.image.layers)));
    let layers = other.json(&["image", "inspect", &copy])[0]["layers"].clone();
    for (kind, tag) in [("oci", ":2"), ("oci-archive", ":2"), ("dir", ""), ("docker-archive", ":example.com/web:2")] {
        let place = format!("{kind}:{}{tag}", t.dir.join(format!("as-{kind}")).display());
        skopeo(&["copy", &pushed, &place]);
        let taken = other.ok(&["image", "import", &place, "--name", kind]);
        // Docker's format has another configuration
        assert!(taken == id || kind == "docker-archive", "{kind}: {taken}");
        assert_eq!(other.json(&["image", "inspect", kind])[0]["layers"], layers, "{kind}");
    }

    // by digest, too
    let by_digest = scene.name(&format!("app/web@{digest}"));
    assert_eq!(scene.run(&["image", "pull", &by_digest]).ok(), id);
    assert_eq!(scene.podctl.json(&["image", "show", &digest, "--format", "json"])["id"], json!(id));

    // an image that did not come from a registry can't be pushed
    scene.podctl.import_probe();
    let refused = scene.run(&["image", "push", "probe", &scene.name("app/probe:1")]).complaint();
    assert!(refused.contains("did not come from a registry"), "{refused}");
    let missing = scene.run(&["image", "pull", &scene.name("app/none:1")]).complaint();
    assert!(missing.contains("has no app/none:1"), "{missing}");

    // the manifest of a pulled image is kept, and removed with the last image that needs it
    assert!(scene.podctl.data.join("blobs/sha256").read_dir()?.count() == 1);
    scene.podctl.ok(&["image", "rm", &id]);
    assert!(scene.podctl.data.join("blobs/sha256").read_dir()?.count() == 0);
    Ok(())
}

fn what_is_kept_is_pushed_without_its_registry(t: &Context) -> Verdict {
    let scene = Scene::new(t, &[300_000]);
    scene.login(PASSWORD).ok();
    let name = scene.name("app/web:1");
    let id = scene.run(&["image", "pull", &name]).ok();
    let keeper = Podctl::new(&tests::dist().join("podctl"), &t.dir.join("keeper"), &t.dir);
    assert_eq!(run(&mut scene.command(&keeper, &["image", "pull", "--keep-blobs", &name])).ok(), id);
    assert_eq!(keeper.data.join("blobs/sha256").read_dir()?.count(), 4);
    // the layers exist: only the manifest and the configuration are fetched
    let Scene { registry, image, podctl, auth } = scene;
    let certificates = registry.certificates.clone();
    drop(registry);
    let registry = Registry::start(&t.dir.join("other"), &certificates, 5001, Users::Password);
    let scene = Scene { registry, image, podctl, auth };
    scene.login(PASSWORD).ok();
    let to = scene.name("copies/web:2");
    let refused = scene.run(&["image", "push", "web:1", &to]).complaint();
    assert!(refused.contains("can't be reached") && refused.contains("--keep-blobs"), "{refused}");
    assert_eq!(run(&mut scene.command(&keeper, &["image", "push", "web:1", &to])).ok(), scene.image.digest());
    assert_eq!(scene.registry.raw_manifest("copies/web:2").as_bytes(), scene.image.manifest);
    keeper.ok(&["image", "verify"]);
    Ok(())
}

fn a_token_server_says_who_may(t: &Context) -> Verdict {
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let signer = certificates.clone();
    // user:secret
    let known = "Basic dXNlcjpzZWNyZXQ=";
    let answer = move |request: &Request| {
        let query = request.path.split_once('?').map_or("", |(_, query)| query).replace("%3A", ":").replace("%2F", "/");
        let scopes: Vec<String> = query
            .split('&')
            .filter_map(|one| one.strip_prefix("scope="))
            .map(|scope| scope.replace("%2C", ","))
            .collect();
        match request.header("authorization") {
            Some(given) if given == known => {
                let token = token(&signer, &scopes);
                Reply::new(200, json!({ "token": token, "expires_in": 300 }).to_string())
            }
            _ => Reply::new(401, ""),
        }
    };
    let server = Server::start(Some((&certificates.certificate, &certificates.key)), answer);
    let realm = format!("https://{}/token", server.host);
    let registry = Registry::start(&t.dir.join("registry"), &certificates, 5000, Users::Token(&realm));
    let image = OciImage::new(&t.dir.join("image"), &[1000]);
    registry.copy(&image.layout(&t.dir.join("layout"), "1"), &format!("docker://{}/app:1", registry.host));
    let scene = Scene { registry, image, podctl: t.podctl(), auth: t.dir.join("auth.json") };

    let refused = scene.run(&["image", "pull", &scene.name("app:1")]).complaint();
    assert!(refused.contains("wants credentials"), "{refused}");
    let refused = scene.login("wrong").complaint();
    assert!(refused.contains("refuses these credentials"), "{refused}");
    scene.login(PASSWORD).ok();
    scene.run(&["image", "pull", &scene.name("app:1")]).ok();
    let pushed = scene.run(&["image", "push", &scene.name("app:1"), &scene.name("other/app:2")]).ok();
    assert_eq!(pushed, scene.image.digest());
    assert_eq!(scene.registry.raw_manifest("other/app:2").as_bytes(), scene.image.manifest);
    // a token per repository, with no more rights than needed
    let asked: Vec<String> = server.asked().into_iter().map(|request| request.path).collect();
    let has = |scope: &str| asked.iter().any(|path| path.ends_with(scope));
    assert!(has("scope=repository%3Aapp%3Apull"), "{asked:?}");
    assert!(has("scope=repository%3Aother%2Fapp%3Apull%2Cpush"), "{asked:?}");
    Ok(())
}

fn names_are_given_and_taken(t: &Context) -> Verdict {
    let scene = Scene::new(t, &[1000]);
    scene.login(PASSWORD).ok();
    let podctl = &scene.podctl;
    let id = scene.run(&["image", "pull", &scene.name("app/web:1")]).ok();
    assert_eq!(
        podctl.ok(&["image", "tag", "web:1", "mine", "quay.example/a/b:x"]),
        "localhost/mine:latest\nquay.example/a/b:x"
    );
    let listed = podctl.json(&["image", "list", "--format", "json"]);
    let names = "localhost/mine:latest, localhost:5000/app/web:1, quay.example/a/b:x";
    assert_eq!(listed[0]["name"], json!(names));
    assert_eq!(listed[0]["digest"], json!(scene.image.digest()));
    for name in ["mine", "mine:latest", "localhost/mine", "b:x", "a/b:x", "docker://quay.example/a/b:x", "app/web:1"] {
        assert_eq!(podctl.json(&["image", "show", name, "--format", "json"])["id"], json!(id), "{name}");
    }
    // an appc identifier is a name as before
    podctl.import_with("mine", &json!({}));
    assert_ne!(podctl.json(&["image", "show", "mine", "--format", "json"])["id"], json!(id));
    podctl.ok(&["image", "tag", "mine", "other.example/x/b:x"]);
    assert!(podctl.fails(&["image", "show", "b:x"]).contains("ambiguous"));
    assert_eq!(
        podctl.ok(&["image", "untag", "quay.example/a/b:x", "localhost/mine"]),
        "quay.example/a/b:x\nlocalhost/mine:latest"
    );
    assert!(podctl.fails(&["image", "untag", "quay.example/a/b:x"]).contains("no image has the name"));
    assert!(podctl.fails(&["image", "show", "a/b:x"]).contains("there is no image"));
    for bad in ["UPPER", "../x", "a b", "x@sha256:00", ""] {
        podctl.fails(&["image", "tag", "web:1", bad]);
    }

    // the pull policies of an image that an app needs
    podctl.ok(&["image", "rm", &id]);
    let name = scene.name("app/web:1");
    let environment = |command: &mut Command| {
        command.env("REGISTRY_AUTH_FILE", &scene.auth).env("SSL_CERT_FILE", scene.registry.certificates.authority());
    };
    let never = podctl.fails(&["prepare", "--net=host", &name, "--pull=never"]);
    assert!(never.contains("there is no image"), "{never}");
    let mut ran = podctl.command(&["run", "--net=host", "--rm", &name]);
    environment(&mut ran);
    let out = run(&mut ran);
    assert!(out.code == Some(0) && out.stdout.contains("pulled"), "{out}");
    podctl.ok(&["image", "show", &name]);

    // the registry has a newer image under the same name
    let newer = OciImage::new(&t.dir.join("newer"), &[2000, 3000]);
    scene.registry.copy(&newer.layout(&t.dir.join("layout2"), "1"), &format!("docker://{name}"));
    let pod = podctl.pod(&[]);
    for (when, digest) in [("missing", scene.image.digest()), ("always", newer.digest())] {
        let mut add = podctl.command(&["app", "add", &pod.uuid, &name, "--name", when, &format!("--pull={when}")]);
        environment(&mut add);
        run(&mut add).ok();
        assert_eq!(podctl.json(&["image", "show", &name, "--format", "json"])["digests"], json!([digest]), "{when}");
    }
    pod.end();
    let lost = podctl.fails(&["prepare", "--net=host", "nowhere"]);
    assert!(lost.contains("there is no image \"nowhere\""), "{lost}");
    Ok(())
}

/// Runs a command with this directory as `/etc/containers`.
fn with_etc(etc: &Path, command: &Command) -> Output {
    let script = "mkdir -p /etc/containers && mount --bind \"$1\" /etc/containers && shift && exec \"$@\"";
    let mut shell = Command::new("unshare");
    shell.args(["-m", "sh", "-c", script, "sh"]).arg(etc).arg(command.get_program()).args(command.get_args());
    shell.env("HOME", etc.join("home"));
    run(&mut shell)
}

fn configuration_of_the_container_tools_counts(t: &Context) -> Verdict {
    let scene = Scene::new(t, &[1000]);
    scene.login(PASSWORD).ok();
    let etc = t.dir.join("etc");
    let host = scene.registry.host.as_str();
    let certs = etc.join("certs.d").join(host);
    fs::create_dir_all(&certs)?;
    fs::create_dir_all(etc.join("registries.conf.d"))?;
    fs::copy(scene.registry.certificates.authority(), certs.join("ca.crt"))?;
    let auth = format!("--authfile={}", scene.auth.display());
    let pull = |name: &str| with_etc(&etc, &scene.podctl.command(&["image", "pull", name, &auth]));
    let id = pull(&scene.name("app/web:1")).ok();

    fs::write(
        etc.join("registries.conf"),
        format!(
            "unqualified-search-registries = [\"{host}\"]\n\
             [[registry]]\nprefix = \"hub.example/library\"\nlocation = \"gone.example\"\n\
             [[registry.mirror]]\nlocation = \"localhost:1/none\"\n[[registry.mirror]]\nlocation = \"{host}/app\"\n\
             [[registry]]\nlocation = \"evil.example\"\nblocked = true\n"
        ),
    )?;
    fs::write(etc.join("registries.conf.d/alias.conf"), format!("[aliases]\nshort = \"{host}/app/web\"\n"))?;
    assert_eq!(pull("app/web:1").ok(), id);
    assert_eq!(pull("short:1").ok(), id);
    // a mirror that can't be reached, then one that has it; the image keeps the requested name
    assert_eq!(pull("hub.example/library/web:1").ok(), id);
    let names = scene.podctl.json(&["image", "show", &id, "--format", "json"])["names"].to_string();
    assert!(names.contains("hub.example/library/web:1"), "{names}");
    let blocked = pull("evil.example/x").complaint();
    assert!(blocked.contains("blocks evil.example/x"), "{blocked}");

    // a registry without TLS only if it may be insecure
    let image = OciImage::new(&t.dir.join("plain"), &[]);
    let (manifest, blobs) = (image.manifest.clone(), image.blobs.clone());
    let plain = Server::start(None, move |request| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        match blobs.get(name) {
            Some(bytes) => Reply::new(200, bytes.clone()),
            None if request.path == "/v2/" => Reply::new(200, "{}"),
            None => Reply::new(200, manifest.clone()).header("Content-Type", tests::oci::MANIFEST),
        }
    });
    let name = format!("{}/x:1", plain.host);
    pull(&name).complaint();
    fs::write(
        etc.join("registries.conf.d/plain.conf"),
        format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", plain.host),
    )?;
    pull(&name).ok();
    fs::write(etc.join("registries.conf.d/bad.conf"), "\n[[registry]]\nlocation = 3\n")?;
    let bad = pull(&name).complaint();
    assert!(bad.contains("bad.conf") && bad.contains("line 3"), "{bad}");
    Ok(())
}

fn credentials_are_kept_where_others_find_them(t: &Context) -> Verdict {
    let scene = Scene::new(t, &[1000]);
    scene.login(PASSWORD).ok();
    assert_eq!(fs::metadata(&scene.auth)?.permissions().mode() & 0o777, 0o600);
    // podctl and skopeo use each other's credentials
    let skopeo = |words: &[&str]| {
        let mut command = Command::new("skopeo");
        command.args(words).arg("--authfile").arg(&scene.auth);
        command.arg("--cert-dir").arg(&scene.registry.certificates.client_dir);
        command
    };
    run(skopeo(&["inspect"]).arg(format!("docker://{}", scene.name("app/web:1")))).ok();
    let host = scene.registry.host.as_str();
    run(&mut scene.podctl.command(&["logout", host, &format!("--authfile={}", scene.auth.display())])).ok();
    run(&mut scene.podctl.command(&["logout", host, &format!("--authfile={}", scene.auth.display())])).complaint();
    scene.run(&["image", "pull", &scene.name("app/web:1")]).complaint();
    run_with_input(skopeo(&["login", "--username", USER, "--password-stdin"]).arg(host), PASSWORD).ok();
    scene.run(&["image", "pull", &scene.name("app/web:1")]).ok();
    scene.podctl.ok(&["image", "rm", "app/web:1"]);

    // a credential helper has them
    let bin = t.dir.join("bin");
    fs::create_dir_all(&bin)?;
    let helper = bin.join("docker-credential-test");
    let words = format!("{{\"ServerURL\":\"x\",\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}");
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = get ] && read -r url; echo \"$url\" >>{0}/asked\necho '{words}'\n",
        t.dir.display()
    );
    fs::write(&helper, script)?;
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755))?;
    fs::write(&scene.auth, json!({ "credHelpers": { host: "test" } }).to_string())?;
    let path = format!("{}:{}", bin.display(), std::env::var("PATH")?);
    let pull = || {
        let mut command = scene.command(&scene.podctl, &["image", "pull", &scene.name("app/web:1")]);
        command.env("PATH", &path);
        run(&mut command)
    };
    pull().ok();
    assert_eq!(fs::read_to_string(t.dir.join("asked"))?, format!("{host}\n"));
    fs::write(&helper, "#!/bin/sh\necho it is broken; exit 1\n")?;
    let broken = pull().complaint();
    assert!(broken.contains("docker-credential-test get") && broken.contains("it is broken"), "{broken}");
    fs::write(&scene.auth, json!({ "credsStore": "../../bin/sh" }).to_string())?;
    assert!(pull().complaint().contains("not the name of a program"));
    fs::write(&scene.auth, format!("{{\"auths\": \"{PASSWORD}"))?;
    let damaged = pull().complaint();
    assert!(damaged.contains("auth.json") && !damaged.contains(PASSWORD), "{damaged}");
    Ok(())
}

fn killed_at_any_time_the_store_is_whole(t: &Context) -> Verdict {
    let scene = Scene::new(t, &[2_000_000, 1_000_000, 500_000]);
    scene.login(PASSWORD).ok();
    let whole = Podctl::new(&tests::dist().join("podctl"), &t.dir.join("whole"), &t.dir);
    let name = scene.name("app/web:1");
    let began = std::time::Instant::now();
    let id = run(&mut scene.command(&whole, &["image", "pull", &name])).ok();
    let time = began.elapsed();
    let points = 16;
    let mut killed = 0;
    for point in 0..points {
        let mut child = scene.command(&scene.podctl, &["image", "pull", &name]);
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        std::thread::sleep(time * point / points);
        child.kill()?;
        killed += u32::from(!child.wait()?.success());
        let listed = scene.podctl.json(&["image", "list", "--format", "json"]);
        for image in listed.as_array().expect("a list") {
            assert_eq!(image["id"], json!(id));
            let health = scene.podctl.json(&["image", "verify", "--format", "json"]);
            assert_eq!(health[0]["health"], "whole", "{health}");
        }
    }
    assert!(killed > 4, "only {killed} of {points} were killed in the middle");
    assert_eq!(scene.run(&["image", "pull", &name]).ok(), id);
    assert_eq!(scene.run(&["image", "push", &name, &scene.name("again:1")]).ok(), scene.image.digest());
    assert_eq!(files_below(&scene.podctl.data.join("tmp")), Vec::<String>::new());
    scene.podctl.ok(&["image", "rm", &id]);
    assert_eq!(files_below(&scene.podctl.data.join("blobs/sha256")), Vec::<String>::new());
    Ok(())
}

fn an_interrupted_pull_leaves_nothing(t: &Context) -> Verdict {
    let image = OciImage::new(&t.dir.join("image"), &[4_000_000]);
    let slow = image.layers[1].clone();
    let (manifest, blobs) = (image.manifest.clone(), image.blobs.clone());
    let server = Server::start(None, move |request| {
        let name = request.path.rsplit('/').next().unwrap_or_default();
        match blobs.get(name) {
            Some(bytes) => {
                let pause = if name == slow { Duration::from_millis(400) } else { Duration::ZERO };
                Reply { pause, ..Reply::new(200, bytes.clone()) }
            }
            None if request.path == "/v2/" => Reply::new(200, "{}"),
            None => Reply::new(200, manifest.clone()).header("Content-Type", tests::oci::MANIFEST),
        }
    });
    let podctl = t.podctl();
    let name = format!("{}/x:1", server.host);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let mut command = podctl.command(&["image", "pull", "--tls-verify=false", &name]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let layer = podctl.data.join("tmp");
        wait_for("a part of the layer", 20, || {
            let found = files_below(&layer);
            found
                .iter()
                .any(|path| fs::metadata(path).is_ok_and(|stat| stat.is_file() && stat.len() > 100_000))
                .then_some(())
        });
        let began = std::time::Instant::now();
        kill(Pid::from_raw(child.id().cast_signed()), signal)?;
        let out = child.wait_with_output()?;
        assert!(began.elapsed() < Duration::from_secs(3), "it took {:?}", began.elapsed());
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(out.status.signal(), Some(signal as i32), "{out:?}");
        let words = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(words.lines().count() == 1 && words.contains(&format!("interrupted by {signal}")), "{words}");
        assert_eq!(files_below(&layer), Vec::<String>::new());
        assert_eq!(podctl.json(&["image", "list", "--format", "json"]), json!([]));
    }
    assert_eq!(digest(&image.manifest), image.digest());
    Ok(())
}

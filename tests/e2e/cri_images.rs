//! The Kubernetes runtime: images as volumes of containers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tests::Verdict;
use tests::cri::api::{
    AuthConfig, ContainerConfig, IdMapping, ImageSpec, LinuxPodSandboxConfig, LinuxSandboxSecurityContext, Mount,
    NamespaceMode, NamespaceOption, PodSandboxConfig, PullImageRequest, RemoveContainerRequest, RemoveImageRequest,
    RemovePodSandboxRequest, UserNamespace,
};
use tests::cri::{Server, probe, sandbox};
use tests::harness::Context;
use tests::nethost::Host;
use tests::oci::OciImage;
use tests::registry::{Certificates, Registry, USER, Users, token};
use tests::server::{Reply, Server as Http};
use tonic::{Code, Status};

tests::cases! {
    native images_are_volumes_of_containers 120;
    native a_registry_token_is_sent_to_its_registry_alone 120;
}

fn said(server: &Server<'_>, id: &str, words: &[&str]) -> String {
    let words: Vec<&str> = ["/probe"].iter().chain(words).copied().collect();
    let answer = server.exec(id, &words, 30).expect("an answer");
    String::from_utf8_lossy(&answer.stdout).trim_end().to_owned()
}

fn remove_image(server: &Server<'_>, id: &str) -> Result<(), Status> {
    let request = RemoveImageRequest { image: Some(ImageSpec { image: id.to_owned(), ..Default::default() }) };
    server.images(|mut client| async move { client.remove_image(request).await }).map(drop)
}

fn remove_sandbox(server: &Server<'_>, id: &str) {
    let request = RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
    server.runtime(|mut client| async move { client.remove_pod_sandbox(request).await }).expect("a removal");
}

/// A pod on the network that is configured, with ids of its own.
fn with_own_ids(name: &str) -> PodSandboxConfig {
    let ids = vec![IdMapping { host_id: 4_000_000, container_id: 0, length: 65536 }];
    let users = UserNamespace { mode: NamespaceMode::Pod.into(), uids: ids.clone(), gids: ids };
    let options = NamespaceOption { userns_options: Some(users), ..NamespaceOption::default() };
    let context = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    let linux = Some(LinuxPodSandboxConfig { security_context: Some(context), ..Default::default() });
    PodSandboxConfig { linux, ..sandbox(name) }
}

/// How many mounts of the host lie below the data directory.
fn mounts(data: &Path) -> usize {
    let table = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    table.lines().filter(|line| line.contains(&data.display().to_string())).count()
}

fn images_are_volumes_of_containers(t: &Context) -> Verdict {
    let host = Host::new(t);
    // two layers: the upper one hides a file of the lower one, and has a file for root alone
    let upper = t.dir.join("upper");
    fs::create_dir_all(upper.join("words"))?;
    fs::create_dir_all(upper.join("home"))?;
    fs::write(upper.join("words/first"), "from a layer")?;
    fs::set_permissions(upper.join("words/first"), fs::Permissions::from_mode(0o600))?;
    fs::write(upper.join("home/.wh.readme"), "")?;
    let layout = OciImage::stack(&t.dir.join("image"), &[upper]).layout(&t.dir.join("layout"), "1");
    let id = host.podctl.ok(&["image", "import", &layout, "--name", "example.com/words"]);
    let server = Server::start(&host.podctl, &[&host.local]);
    let spec = |image: &str| Some(ImageSpec { image: image.to_owned(), ..Default::default() });
    let at = |path: &str, part: &str| Mount {
        container_path: path.to_owned(),
        readonly: true,
        image: spec(&id),
        image_sub_path: part.to_owned(),
        ..Default::default()
    };
    for config in [sandbox("host-ids"), with_own_ids("own-ids")] {
        let pod = server.sandbox(&config);
        let before = mounts(&host.podctl.data);
        let config = ContainerConfig {
            // one layer, several, and a part
            mounts: vec![Mount { image: spec("probe"), ..at("/single", "") }, at("/whole", ""), at("/part", "words")],
            ..probe("reader", &["sleep", "inf"])
        };
        let reader = server.container(&pod, config);
        server.start_container(&reader);
        for (path, text) in [
            ("/single/data/kept", "from the image"),
            ("/whole/words/first", "from a layer"),
            ("/whole/data/kept", "from the image"),
            ("/part/first", "from a layer"),
        ] {
            assert_eq!(said(&server, &reader, &["cat", path]), text, "{path}");
            let stat: serde_json::Value = serde_json::from_str(&said(&server, &reader, &["stat", path]))?;
            assert_eq!((stat["uid"].as_u64(), stat["gid"].as_u64()), (Some(0), Some(0)), "{path}");
        }
        assert_eq!(said(&server, &reader, &["open", "r", "/whole/home/readme"]), "ENOENT", "an upper layer hides it");
        for path in ["/single/data/kept", "/whole/words/first", "/part/first"] {
            assert_eq!(said(&server, &reader, &["open", "w", path]), "EROFS", "{path}");
        }
        let programs = server.exec(&reader, &["/whole/probe", "print", "executed"], 30)?;
        assert_eq!(String::from_utf8_lossy(&programs.stdout), "executed\n");
        let told = server.status(&reader)?.mounts;
        let told: Vec<_> = told
            .iter()
            .map(|mount| {
                let image = mount.image.as_ref().expect("the image");
                (mount.container_path.as_str(), image.image_ref.as_str(), mount.image_sub_path.as_str())
            })
            .collect();
        assert_eq!(told[1..], [("/whole", id.as_str(), ""), ("/part", id.as_str(), "words")]);
        assert!(told[0].1.starts_with("sha512-"), "{told:?}");

        let used = remove_image(&server, &id).expect_err("the container uses it");
        assert!(used.message().contains("pods use it"), "{used}");
        let refused = |mount: Mount| {
            let config = ContainerConfig { mounts: vec![mount], ..probe("refused", &[]) };
            server.try_container(&pod, config).expect_err("it makes no sense")
        };
        let others = vec![IdMapping { host_id: 5_000_000, container_id: 0, length: 65536 }];
        for (mount, code, why) in [
            (Mount { readonly: false, ..at("/x", "") }, Code::InvalidArgument, "read-only"),
            (Mount { image: spec("example.com/none"), ..at("/x", "") }, Code::NotFound, "example.com/none"),
            (Mount { host_path: "/tmp".into(), ..at("/x", "") }, Code::InvalidArgument, "host_path"),
            (
                Mount { uid_mappings: others.clone(), gid_mappings: others, ..at("/x", "") },
                Code::InvalidArgument,
                "mappings",
            ),
            (at("/x", "no/such"), Code::Unknown, "no/such"),
            (at("/x", "../.."), Code::Unknown, "not a path below it"),
        ] {
            let status = refused(mount);
            assert!(status.code() == code && status.message().contains(why), "{status}");
        }
        let request = RemoveContainerRequest { container_id: reader };
        server.runtime(|mut client| async move { client.remove_container(request).await })?;
        assert_eq!(mounts(&host.podctl.data), before, "all that was mounted for the container is gone");
        remove_sandbox(&server, &pod);
    }
    remove_image(&server, &id)?;
    Ok(())
}

fn a_registry_token_is_sent_to_its_registry_alone(t: &Context) -> Verdict {
    let certificates = Certificates::new(&t.dir.join("certificates"));
    let signer = certificates.clone();
    let scope = |actions: &str| [format!("repository:app:{actions}")];
    let pushing = token(&signer, &scope("pull,push"));
    // whoever puts the image into the registry asks here; podctl must not
    let issued = pushing.clone();
    let tls = Some((certificates.certificate.as_path(), certificates.key.as_path()));
    let issuer = Http::start(tls, move |_| Reply::new(200, serde_json::json!({ "token": issued }).to_string()));
    let realm = format!("https://{}/token", issuer.host);
    let registry = Registry::start(&t.dir.join("registry"), &certificates, 5000, Users::Token(&realm));
    let image = OciImage::new(&t.dir.join("image"), &[5_000]);
    registry.copy(&image.layout(&t.dir.join("layout"), "1"), &format!("docker://{}/app:1", registry.host));
    let asked_before = issuer.asked().len();

    let trusting = format!("export SSL_CERT_FILE={}", certificates.authority().display());
    let podctl = t.podctl().called_after(&trusting);
    let server = Server::start(&podctl, &[]);
    let pull = |auth: AuthConfig| {
        let image = Some(ImageSpec { image: format!("{}/app:1", registry.host), ..Default::default() });
        let request = PullImageRequest { image, auth: Some(auth), sandbox_config: None };
        server.images(|mut client| async move { client.pull_image(request).await })
    };
    let with = |token: &str| AuthConfig { registry_token: token.to_owned(), ..AuthConfig::default() };
    let pulling = token(&signer, &scope("pull"));
    for (token, why) in [
        (token(&signer, &["repository:other:pull".to_owned()]), "does not allow this, or has expired"),
        (pulling.replace('.', ".x"), "does not allow this, or has expired"),
        ("a b".to_owned(), "invalid characters"),
    ] {
        let refused = pull(with(&token)).expect_err("it is not for this image");
        assert!(refused.message().contains(why) && !refused.message().contains(&token), "{refused}");
    }
    assert_eq!(issuer.asked().len(), asked_before, "the token of the call is the registry's");
    // one that is for another server is not sent; the server of tokens is asked without credentials instead
    pull(AuthConfig { server_address: "https://other.example/v2/".into(), ..with("of-another-server") })?;
    let asked = &issuer.asked()[asked_before..];
    assert!(!asked.is_empty() && asked.iter().all(|request| request.header("authorization").is_none()), "{asked:?}");
    let (asked_before, id) = (issuer.asked().len(), image.config.clone());
    remove_image(&server, &id)?;
    // with a password, too, the token counts
    for auth in [
        with(&pulling),
        AuthConfig { server_address: registry.host.clone(), ..with(&pulling) },
        AuthConfig { username: USER.into(), password: "wrong".into(), ..with(&pulling) },
    ] {
        assert_eq!(pull(auth)?.image_ref, id);
        remove_image(&server, &id)?;
    }
    assert_eq!(issuer.asked().len(), asked_before);
    Ok(())
}

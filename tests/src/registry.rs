//! Debian's registry on the loopback interface, with TLS and users, and skopeo as another client of it.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::process::{run, wait_for};

/// The user that the registry knows.
pub const USER: &str = "user";
/// That user's password.
pub const PASSWORD: &str = "secret";
/// A further address that the certificates are valid for, which a test may add to an interface.
pub const ELSEWHERE: &str = "10.99.0.1";
/// User and password, as `htpasswd -B` writes them.
const HTPASSWD: &str = "user:$2y$04$G8j2xZo/lCMfgM4hxpRhUuvW5FHz3d7VVqx3NlWTX8CjbeLYbfp5e\n";

/// A certificate authority and a certificate of it for this machine's loopback.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// Directory with the authority's certificate, `ca.crt`, for clients.
    pub client_dir: PathBuf,
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Certificates {
    /// Makes them in a new directory.
    pub fn new(dir: &Path) -> Self {
        let client_dir = dir.join("client");
        fs::create_dir_all(&client_dir).unwrap_or_else(|e| panic!("{}: {e}", client_dir.display()));
        let at = |name: &str| dir.join(name).display().to_string();
        let ca = client_dir.join("ca.crt").display().to_string();
        let openssl = |args: &[&str]| run(Command::new("openssl").args(args)).ok();
        openssl(&[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=test authority",
            "-keyout",
            &at("ca.key"),
            "-out",
            &ca,
        ]);
        openssl(&[
            "req",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
            "-keyout",
            &at("server.key"),
            "-out",
            &at("server.csr"),
        ]);
        let names = format!("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:{ELSEWHERE}\n");
        fs::write(dir.join("extensions"), names).expect("write");
        openssl(&[
            "x509",
            "-req",
            "-in",
            &at("server.csr"),
            "-CA",
            &ca,
            "-CAkey",
            &at("ca.key"),
            "-CAcreateserial",
            "-days",
            "2",
            "-extfile",
            &at("extensions"),
            "-out",
            &at("server.crt"),
        ]);
        Self { client_dir, certificate: dir.join("server.crt"), key: dir.join("server.key") }
    }

    /// The authority's certificate.
    pub fn authority(&self) -> PathBuf {
        self.client_dir.join("ca.crt")
    }

    /// The directory for a client with a certificate of its own.
    pub fn known_client(&self) -> PathBuf {
        let dir = self.client_dir.with_file_name("known");
        fs::create_dir_all(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        fs::copy(self.authority(), dir.join("ca.crt")).expect("copy");
        let at = |name: &str| dir.join(name).display().to_string();
        let above = |name: &str| self.certificate.with_file_name(name).display().to_string();
        let openssl = |args: &[&str]| run(Command::new("openssl").args(args)).ok();
        let (key, request) = (at("client.key"), above("client.csr"));
        openssl(&["req", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=client", "-keyout", &key, "-out", &request]);
        let (ca, ca_key) = (at("ca.crt"), above("ca.key"));
        fs::write(above("client.ext"), "extendedKeyUsage=clientAuth\n").expect("write");
        let extensions = above("client.ext");
        let sign = ["x509", "-req", "-CAcreateserial", "-days", "2", "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
        openssl(&[&sign[..], &["-extfile", &extensions, "-out", &at("client.cert")]].concat());
        for rest in
            dir.read_dir().expect("read").flatten().filter(|rest| rest.path().extension() == Some("srl".as_ref()))
        {
            fs::remove_file(rest.path()).expect("remove");
        }
        dir
    }

    /// The options by which podctl trusts it.
    pub fn option(&self) -> String {
        format!("--cert-dir={}", self.client_dir.display())
    }
}

/// How the registry authenticates its users.
#[derive(Debug, Clone, Copy)]
pub enum Users<'a> {
    /// By a password.
    Password,
    /// By a token of this server.
    Token(&'a str),
    /// By a certificate of the authority.
    Certificate,
}

/// A running registry, which is killed when the value is dropped.
#[derive(Debug)]
pub struct Registry {
    child: Child,
    /// `localhost:PORT`
    pub host: String,
    /// Its certificates.
    pub certificates: Certificates,
}

impl Registry {
    /// Starts it on this port, with its data in a new directory.
    pub fn start(dir: &Path, certificates: &Certificates, port: u16, users: Users<'_>) -> Self {
        fs::create_dir_all(dir.join("data")).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
        fs::write(dir.join("htpasswd"), HTPASSWD).expect("write");
        let auth = match users {
            Users::Certificate => String::new(),
            Users::Password => {
                format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", dir.join("htpasswd").display())
            }
            Users::Token(realm) => format!(
                "auth:\n  token:\n    realm: {realm}\n    service: test-registry\n    issuer: test-issuer\n    rootcertbundle: {}\n",
                certificates.authority().display()
            ),
        };
        let trust = match users {
            Users::Certificate => format!("    clientcas:\n      - {}\n", certificates.authority().display()),
            _ => String::new(),
        };
        let config = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  \
             addr: 127.0.0.1:{port}\n  tls:\n    certificate: {}\n    key: {}\n{trust}{auth}",
            dir.join("data").display(),
            certificates.certificate.display(),
            certificates.key.display(),
        );
        let file = dir.join("config.yml");
        fs::write(&file, config).expect("write");
        let log = fs::File::create(dir.join("log")).expect("create");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("docker-registry: {e}"));
        wait_for("the registry", 20, || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, host: format!("localhost:{port}"), certificates: certificates.clone() }
    }

    /// The manifest of `docker://HOST/NAME`, unchanged, by skopeo.
    #[track_caller]
    pub fn raw_manifest(&self, name: &str) -> String {
        let out = run(Command::new("skopeo")
            .args(["inspect", "--raw", "--creds", &format!("{USER}:{PASSWORD}"), "--cert-dir"])
            .arg(&self.certificates.client_dir)
            .arg(format!("docker://{}/{name}", self.host)));
        assert_eq!(out.code, Some(0), "{out}");
        out.stdout
    }

    /// `skopeo copy` to or from the registry.
    #[track_caller]
    pub fn copy(&self, from: &str, to: &str) {
        let credentials = format!("{USER}:{PASSWORD}");
        let mut command = Command::new("skopeo");
        command.args(["copy", "--quiet", "--insecure-policy", "--preserve-digests"]);
        for (side, place) in [("src", from), ("dest", to)] {
            if place.starts_with("docker:") {
                command.arg(format!("--{side}-creds={credentials}"));
                command.arg(format!("--{side}-cert-dir={}", self.certificates.client_dir.display()));
            }
        }
        run(command.args([from, to])).ok();
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Fails if it has ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn base64url(bytes: &[u8]) -> String {
    let out = run_bytes(Command::new("base64").arg("-w0"), bytes);
    String::from_utf8_lossy(&out).trim().replace('+', "-").replace('/', "_").replace('=', "")
}

fn run_bytes(command: &mut Command, input: &[u8]) -> Vec<u8> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a command");
    child.stdin.take().expect("a pipe").write_all(input).expect("write");
    child.wait_with_output().expect("its output").stdout
}

/// A token for a registry with [`Users::Token`], signed with the key of its certificate: for `repository:NAME:ACTIONS`.
pub fn token(certificates: &Certificates, scopes: &[String]) -> String {
    let pem = fs::read_to_string(&certificates.certificate).expect("a certificate");
    let der: String = pem.lines().filter(|line| !line.starts_with("-----")).collect();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the time").as_secs();
    let access: Vec<Value> = scopes
        .iter()
        .filter_map(|scope| {
            let mut parts = scope.split(':');
            let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
            Some(json!({ "type": kind, "name": name, "actions": actions.split(',').collect::<Vec<_>>() }))
        })
        .collect();
    let head = json!({ "typ": "JWT", "alg": "RS256", "x5c": [der] });
    let claims = json!({
        "iss": "test-issuer", "sub": USER, "aud": "test-registry", "exp": now + 300, "nbf": now - 60, "iat": now,
        "jti": "1", "access": access,
    });
    let text = format!("{}.{}", base64url(head.to_string().as_bytes()), base64url(claims.to_string().as_bytes()));
    let key = certificates.key.display().to_string();
    let signature = run_bytes(Command::new("openssl").args(["dgst", "-sha256", "-sign", &key]), text.as_bytes());
    format!("{text}.{}", base64url(&signature))
}

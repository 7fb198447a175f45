//! Credentials for registries: `auth.json` (containers-auth.json(5)), Docker's `config.json`, credential helpers.

use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use stage1::error::{Context, Error, Result};

use super::credentials::Credentials;
use super::helper;
use super::reference::HUB;
use super::registries_conf::Registries;
use crate::fsutil::atomic;

/// The key of docker.io in Docker's files.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The entry of `credential-helpers` in `registries.conf` that stands for the files, not for a helper.
const FILE_HELPER: &str = "containers-auth.json";
/// The size limit of a file of credentials, in bytes.
const MAX_FILE: u64 = 4 << 20;
/// Permissions of a file of credentials.
const SECRET: u32 = 0o600;

/// Where to find credentials, and where to keep them.
#[derive(Debug)]
pub struct Keyring {
    /// The files to search, in this order; they may be missing.
    files: Vec<PathBuf>,
    /// The credential helpers to ask first.
    helpers: Vec<String>,
    /// Credentials that come before all files and helpers, and the only registry that they are for, if there is one.
    given: Option<(Credentials, Option<String>)>,
}

impl Keyring {
    /// Uses these credentials before all others: for the registry `server`, a host or a URL, or for every registry if it
    /// is `None`.
    #[must_use]
    pub fn preferring(self, credentials: Credentials, server: Option<&str>) -> Self {
        let url = |server: &str| if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
        Self { given: Some((credentials, server.map(url))), ..self }
    }

    /// Uses the credential helpers of `registries.conf`, and `file`; if it is `None`, the file that
    /// `REGISTRY_AUTH_FILE` names; if that is not set, the files of the container tools and of Docker. A file may be
    /// missing.
    pub fn find(file: Option<&Path>, registries: &Registries) -> Self {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = file.map(Path::to_owned).or_else(|| variable("REGISTRY_AUTH_FILE"));
        let helpers = registries.helpers().to_vec();
        if let Some(file) = named {
            return Self { files: vec![file], helpers, given: None };
        }
        let uid = rustix::process::getuid().as_raw();
        let runtime = match variable("XDG_RUNTIME_DIR") {
            Some(dir) => dir.join("containers/auth.json"),
            None => PathBuf::from(format!("/run/containers/{uid}/auth.json")),
        };
        let home = variable("HOME");
        let config = variable("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
        let docker = variable("DOCKER_CONFIG").or_else(|| Some(home.as_ref()?.join(".docker")));
        let further = [config.map(|dir| dir.join("containers/auth.json")), docker.map(|dir| dir.join("config.json"))];
        Self { files: std::iter::once(runtime).chain(further.into_iter().flatten()).collect(), helpers, given: None }
    }

    /// The credentials for `HOST[:PORT]/REPOSITORY`: those that are preferred, those of the first helper that has some, else the entry with the
    /// longest matching key in the first file that has one. `None` if there are none.
    ///
    /// # Errors
    /// A file can't be read or is malformed, or a helper fails or gives a malformed answer.
    pub fn credentials(&self, location: &str) -> Result<Option<Credentials>> {
        let registry = location.split('/').next().unwrap_or_default();
        match &self.given {
            Some((given, server)) if server.as_ref().is_none_or(|server| key_is(server, registry)) => {
                return Ok(Some(given.clone()));
            }
            _ => {}
        }
        for name in self.helpers.iter().filter(|name| *name != FILE_HELPER) {
            if let Some(found) = helper::get(name, registry)? {
                return Ok(Some(found));
            }
        }
        for path in &self.files {
            let Some(file) = AuthFile::read(path)? else { continue };
            if let Some(found) = file.credentials(location).context(|| format!("{path:?}"))? {
                log::debug!("credentials for {location} from {path:?}");
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Stores credentials for a registry, in the first file or with the helper that it names; returns the path or the
    /// name of the helper.
    ///
    /// # Errors
    /// The file can't be read, is malformed or can't be written, or the helper fails.
    pub fn keep(&self, registry: &str, credentials: &Credentials) -> Result<String> {
        let path = self.first()?;
        let mut file = AuthFile::read(path)?.unwrap_or_default();
        if let Some(name) = file.helper(registry) {
            helper::store(&name, &key_for_helper(registry), credentials)?;
            return Ok(format!("docker-credential-{name}"));
        }
        file.auths_mut()?.insert(registry.to_owned(), credentials.entry());
        file.write(path)?;
        Ok(path.display().to_string())
    }

    /// Removes the credentials for a registry, or for all registries of the first file if it is `None`; returns the
    /// keys removed.
    ///
    /// # Errors
    /// The file can't be read, is malformed or can't be written, or the helper fails.
    pub fn forget(&self, registry: Option<&str>) -> Result<Vec<String>> {
        let path = self.first()?;
        let mut file = AuthFile::read(path)?.unwrap_or_default();
        let mut gone = Vec::new();
        if let Some(registry) = registry
            && let Some(name) = file.helper(registry)
        {
            helper::erase(&name, &key_for_helper(registry))?;
            gone.push(registry.to_owned());
        }
        let auths = file.auths_mut()?;
        let is_meant = |key: &String| registry.is_none_or(|registry| key_is(key, registry));
        let keys: Vec<String> = auths.keys().filter(|key| is_meant(key)).cloned().collect();
        if !keys.is_empty() {
            keys.iter().for_each(|key| drop(auths.remove(key)));
            file.write(path)?;
            gone.extend(keys);
        }
        gone.dedup();
        Ok(gone)
    }

    fn first(&self) -> Result<&Path> {
        self.files.first().map(PathBuf::as_path).context(|| "no file for credentials")
    }
}

/// The content of `auth.json` or Docker's `config.json`, with all unknown fields.
#[derive(Default)]
struct AuthFile(Map<String, Value>);

impl AuthFile {
    /// Reads a file; `None` if it is missing or empty.
    fn read(path: &Path) -> Result<Option<Self>> {
        let shown = || format!("read {path:?}");
        match path.metadata() {
            Ok(stat) if stat.len() > MAX_FILE => return Err(Error::new(format!("{path:?} is too large"))),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::caused_by(shown(), error)),
        }
        let bytes = std::fs::read(path).context(shown)?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        // serde's message would quote the file, which holds secrets
        serde_json::from_slice(&bytes).ok().map(Self).context(|| format!("{path:?} is not a JSON object")).map(Some)
    }

    /// The credentials for `HOST[:PORT]/REPOSITORY`.
    fn credentials(&self, location: &str) -> Result<Option<Credentials>> {
        let registry = location.split('/').next().unwrap_or_default();
        if let Some(name) = self.named_helper(registry) {
            return helper::get(&name, &key_for_helper(registry));
        }
        let none = Map::new();
        let auths = self.0.get("auths").and_then(Value::as_object).unwrap_or(&none);
        let mut key = location;
        loop {
            let entry = auths.get(key).or_else(|| auths.iter().find(|(name, _)| key_is(name, key)).map(|(_, v)| v));
            if let Some(found) = entry.map(Credentials::of_entry).transpose().context(|| format!("{key:?}"))?.flatten()
            {
                return Ok(Some(found));
            }
            match key.rsplit_once('/') {
                Some((above, _)) => key = above,
                None => break,
            }
        }
        match self.0.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty()) {
            Some(name) => helper::get(name, &key_for_helper(registry)),
            None => Ok(None),
        }
    }

    /// The helper that `credHelpers` names for this registry.
    fn named_helper(&self, registry: &str) -> Option<String> {
        let helpers = self.0.get("credHelpers").and_then(Value::as_object)?;
        let name = helpers.get(registry).or_else(|| helpers.get(&key_for_helper(registry)))?;
        name.as_str().filter(|name| !name.is_empty()).map(str::to_owned)
    }

    /// The helper that keeps a registry's credentials: that of `credHelpers`, else `credsStore`.
    fn helper(&self, registry: &str) -> Option<String> {
        let store = || self.0.get("credsStore").and_then(Value::as_str).filter(|name| !name.is_empty());
        self.named_helper(registry).or_else(|| store().map(str::to_owned))
    }

    fn auths_mut(&mut self) -> Result<&mut Map<String, Value>> {
        let auths = self.0.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        auths.as_object_mut().context(|| "\"auths\" is not an object")
    }

    /// Replaces the file, with permissions for its owner only.
    fn write(&self, path: &Path) -> Result<()> {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .context(|| format!("make directory {dir:?}"))?;
        // replace the file that a symbolic link points to, not the link
        let path = path.canonicalize().unwrap_or_else(|_| dir.join(path.file_name().unwrap_or_default()));
        let text = serde_json::to_vec_pretty(&self.0).context(|| format!("write {path:?}"))?;
        match std::fs::set_permissions(&path, Permissions::from_mode(SECRET)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::caused_by(format!("chmod({path:?})"), error))
            }
            _ => atomic::write(&path, &text, SECRET),
        }
    }
}

/// Whether a file's key means the registry or namespace `wanted`; Docker also writes keys as URLs.
fn key_is(key: &str, wanted: &str) -> bool {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let plain = match rest {
        // Docker's key for its own registry has a path
        Some(rest) => rest.split('/').next().unwrap_or_default(),
        None => key.trim_end_matches('/'),
    };
    let plain = match plain {
        "index.docker.io" | "registry-1.docker.io" => HUB,
        other => other,
    };
    plain == wanted
}

/// The key of a registry for credential helpers.
fn key_for_helper(registry: &str) -> String {
    if registry == HUB { HUB_KEY.to_owned() } else { registry.to_owned() }
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde_json::json;

    use super::*;

    fn file(text: &str) -> AuthFile {
        AuthFile(serde_json::from_str(text).unwrap())
    }

    #[test]
    fn the_longest_matching_key_applies() {
        let auth = |text: &str| STANDARD.encode(text);
        let file = file(&format!(
            r#"{{"auths":{{"a.test":{{"auth":"{}"}},"a.test/x":{{"auth":"{}"}},"a.test/x/y":{{"auth":"{}"}},
                "{HUB_KEY}":{{"auth":"{}"}},"https://b.test:5000/v2/":{{"identitytoken":"t"}},"c.test":{{}}}}}}"#,
            auth("u:1"),
            auth("u:2"),
            auth("u:3:4"),
            auth("hub:p"),
        ));
        let find = |location| file.credentials(location).unwrap();
        let password = |user: &str, password: &str| Some(Credentials::password(user, password).unwrap());
        assert_eq!(find("a.test/z"), password("u", "1"));
        assert_eq!(find("a.test/x"), password("u", "2"));
        assert_eq!(find("a.test/x/y"), password("u", "3:4"));
        assert_eq!(find("a.test/xx"), password("u", "1"));
        assert_eq!(find("docker.io/library/busybox"), password("hub", "p"));
        assert_eq!(find("b.test:5000/x"), Some(Credentials::Identity("t".into())));
        assert_eq!(find("c.test/x"), None);
        assert_eq!(find("a.test:5000/x"), None);
        assert_eq!(find("aa.test/x"), None);
    }

    #[test]
    fn a_damaged_entry_is_an_error_without_its_secret() {
        let error = file(r#"{"auths":{"a.test":{"auth":"c2VjcmV0"}}}"#).credentials("a.test/x").unwrap_err().one_line();
        assert!(error.contains("a.test") && !error.contains("c2Vj") && !error.contains("secret"), "{error}");
        assert!(!format!("{:?}", Credentials::password("u", "hidden").unwrap()).contains("hidden"));
        for (user, password) in [("a:b", "c"), ("", "c"), ("a", ""), ("a\r\nX: y", "c"), ("a", "b\n")] {
            assert!(Credentials::password(user, password).is_err());
        }
    }

    #[test]
    fn preferred_credentials_go_to_their_server_alone() {
        let token =
            Credentials::of_entry(&json!({ "registrytoken": "abc", "username": "u", "password": "p" })).unwrap();
        assert_eq!(token, Some(Credentials::Registry("abc".into())));
        for bad in ["a b", "a\r\nX: y", "\u{e9}", &"x".repeat(50_000)] {
            let error = Credentials::of_entry(&json!({ "registrytoken": bad })).unwrap_err().one_line();
            assert!(error.contains("registry token") && !error.contains(bad), "{error}");
        }
        let given = token.unwrap();
        assert!(!format!("{given:?}").contains("abc"));
        let find = |server: Option<&str>, location: &str| {
            let ring = Keyring { files: Vec::new(), helpers: Vec::new(), given: None };
            ring.preferring(given.clone(), server).credentials(location).unwrap().is_some()
        };
        for (server, location, has) in [
            (None, "a.test/x", true),
            (Some("a.test"), "a.test/x", true),
            (Some("a.test"), "a.test:5000/x", false),
            (Some("a.test"), "b.test/a.test", false),
            (Some("https://a.test:5000/v2/"), "a.test:5000/x", true),
            (Some("http://a.test/"), "a.test/x/y", true),
            (Some(HUB_KEY), "docker.io/library/busybox", true),
            (Some(HUB_KEY), "a.test/x", false),
        ] {
            assert_eq!(find(server, location), has, "{server:?} for {location}");
        }
    }

    #[test]
    fn what_is_kept_is_found_and_forgotten_and_the_rest_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/auth.json");
        let ring = Keyring { files: vec![path.clone()], helpers: Vec::new(), given: None };
        assert_eq!(ring.credentials("a.test/x").unwrap(), None);
        let credentials = Credentials::password("u", "p").unwrap();
        ring.keep("a.test", &credentials).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ring.credentials("a.test/x").unwrap(), Some(credentials.clone()));
        let mut value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        value["other"] = json!(1);
        std::fs::write(&path, value.to_string()).unwrap();
        ring.keep("b.test", &credentials).unwrap();
        assert_eq!(ring.forget(Some("a.test")).unwrap(), ["a.test"]);
        assert_eq!(ring.forget(Some("a.test")).unwrap(), Vec::<String>::new());
        assert_eq!(ring.forget(None).unwrap(), ["b.test"]);
        let value: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(value, json!({"auths": {}, "other": 1}));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}

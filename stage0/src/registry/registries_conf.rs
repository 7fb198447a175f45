//! containers-registries.conf(5): mirrors and other locations of images, short names, blocked and insecure registries.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use stage1::error::{Context, Error, Result};

use super::reference::{Name, Reference, ShortName};

/// The merged configuration files.
#[derive(Debug, Default)]
pub struct Registries {
    unqualified: Vec<String>,
    enforcing: bool,
    aliases: BTreeMap<String, String>,
    registries: Vec<Registry>,
    helpers: Vec<String>,
}

/// A location of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The name of the image at this location.
    pub reference: Reference,
    /// Whether to accept any certificate, and plain HTTP.
    pub insecure: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<String>,
    credential_helpers: Option<Vec<String>>,
    aliases: BTreeMap<String, String>,
    registry: Vec<Registry>,
    /// Only the format version 1 has this table.
    registries: Option<toml::Table>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Registry {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct Mirror {
    location: String,
    insecure: bool,
    pull_from_mirror: Option<String>,
}

impl Registries {
    /// Reads the file that `CONTAINERS_REGISTRIES_CONF` names, or the user's, or `/etc/containers/registries.conf`;
    /// then those in the directories `registries.conf.d`.
    ///
    /// # Errors
    /// A file can't be read, is not valid TOML, has the format version 1, or has an invalid value.
    pub fn load() -> Result<Self> {
        let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config/containers"));
        let named = std::env::var_os("CONTAINERS_REGISTRIES_CONF").map(PathBuf::from);
        let system = Path::new("/etc/containers");
        let own_file = own.as_ref().map(|own| own.join("registries.conf")).filter(|file| file.exists());
        let must_exist = named.is_some();
        let main = named.or(own_file).unwrap_or_else(|| system.join("registries.conf"));
        let mut found = Self::default();
        if must_exist || main.exists() {
            found.add(&main)?;
        }
        for dir in [Some(system), own.as_deref()].into_iter().flatten() {
            let dir = dir.join("registries.conf.d");
            let mut files = crate::fsutil::dir::names_in(&dir)?;
            files.sort();
            for file in files.iter().map(|name| dir.join(name)) {
                if file.extension().is_some_and(|end| end == "conf") {
                    found.add(&file)?;
                }
            }
        }
        Ok(found)
    }

    fn add(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).context(|| format!("read {path:?}"))?;
        self.parse(&text).context(|| format!("{path:?}"))
    }

    /// Merges the text of a file, whose values take precedence over those of earlier files.
    fn parse(&mut self, text: &str) -> Result<()> {
        // make one line of the library's message, which quotes the text over several lines
        let file: File = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            Error::new(format!("line {line}: {}", error.message()))
        })?;
        if file.registries.is_some() {
            return Err(Error::new("[registries.…] belongs to version 1 of this format, which is not supported"));
        }
        if let Some(list) = file.unqualified_search_registries {
            self.unqualified = list;
        }
        match file.short_name_mode.as_deref() {
            None | Some("") => {}
            Some("enforcing") => self.enforcing = true,
            Some("permissive" | "disabled") => self.enforcing = false,
            Some(other) => {
                return Err(Error::new(format!("short-name-mode {other:?} is not enforcing, permissive or disabled")));
            }
        }
        if let Some(helpers) = file.credential_helpers {
            self.helpers = helpers;
        }
        for (name, target) in file.aliases {
            // an empty alias removes that of an earlier file
            match target.is_empty() {
                true => drop(self.aliases.remove(&name)),
                false => drop(self.aliases.insert(name, target)),
            }
        }
        for mut registry in file.registry {
            registry.check()?;
            self.registries.retain(|other| other.prefix != registry.prefix);
            self.registries.push(registry);
        }
        Ok(())
    }

    /// The credential helpers to ask for every registry, in order; `containers-auth.json` stands for the auth files.
    pub(crate) fn helpers(&self) -> &[String] {
        &self.helpers
    }

    /// The full names to try for a name, in order: itself, or for a short name its alias, or the search registries.
    ///
    /// # Errors
    /// A short name has no alias and there are no search registries, its alias is invalid, or several search registries
    /// apply and `short-name-mode` is `enforcing`.
    pub fn candidates(&self, name: &Name) -> Result<Vec<Reference>> {
        let short = match name {
            Name::Full(reference) => return Ok(vec![reference.clone()]),
            Name::Short(short) => short,
        };
        if let Some(target) = self.aliases.get(&short.repository) {
            return Ok(vec![short.instead(target).context(|| format!("alias {:?}", short.repository))?]);
        }
        let found: Vec<Reference> =
            self.unqualified.iter().map(|registry| short.at(registry)).collect::<Result<_>>()?;
        match found.as_slice() {
            [] => Err(nowhere(short)),
            [_, _, ..] if self.enforcing => {
                let all: Vec<String> = found.iter().map(Reference::to_string).collect();
                let name = &short.repository;
                Err(Error::new(format!("{name:?} may be any of {}: write the one that you mean", all.join(", "))))
            }
            _ => Ok(found),
        }
    }

    /// The locations of an image, in the order to try: mirrors first, the registry itself last.
    ///
    /// # Errors
    /// The configuration blocks the image, or has an invalid location for it.
    pub fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>> {
        let location = reference.location();
        let fitting = self.registries.iter().filter_map(|registry| Some((registry.covers(&location)?, registry)));
        let Some((covered, registry)) = fitting.max_by_key(|(length, _)| *length) else {
            return Ok(vec![Endpoint { reference: reference.clone(), insecure: false }]);
        };
        if registry.blocked {
            let prefix = &registry.prefix;
            return Err(Error::new(format!("registries.conf blocks {reference} (prefix {prefix:?})")));
        }
        let at = |to: &str, insecure: bool| {
            let moved = match to {
                "" => location.clone(),
                to => format!("{to}{}", &location[covered..]),
            };
            let reference = reference.moved_to(&moved).context(|| format!("registries.conf: location {to:?}"))?;
            Ok(Endpoint { reference, insecure })
        };
        let by_digest = reference.digest().is_some();
        let mut all = Vec::new();
        for mirror in &registry.mirror {
            let serves = match mirror.pull_from_mirror.as_deref() {
                Some("digest-only") => by_digest,
                Some("tag-only") => !by_digest,
                _ => by_digest || !registry.mirror_by_digest_only,
            };
            if serves {
                all.push(at(&mirror.location, mirror.insecure)?);
            }
        }
        all.push(at(&registry.location, registry.insecure)?);
        Ok(all)
    }

    /// Whether a registry as a whole is insecure, for requests without a repository.
    pub fn is_insecure(&self, registry: &str) -> bool {
        let fitting = self.registries.iter().filter_map(|one| Some((one.covers(registry)?, one)));
        fitting.max_by_key(|(length, _)| *length).is_some_and(|(_, one)| one.insecure)
    }
}

impl Registry {
    /// Fills in a missing prefix; fails for invalid values.
    fn check(&mut self) -> Result<()> {
        for location in [&mut self.prefix, &mut self.location] {
            location.truncate(location.trim_end_matches('/').len());
        }
        if self.prefix.is_empty() {
            self.prefix.clone_from(&self.location);
        }
        if self.prefix.is_empty() {
            return Err(Error::new("a [[registry]] has neither prefix nor location"));
        }
        for location in std::iter::once(&self.location).chain(self.mirror.iter().map(|mirror| &mirror.location)) {
            if location.contains("://") {
                return Err(Error::new(format!("location {location:?}: a registry has no scheme in front of it")));
            }
        }
        for mirror in &self.mirror {
            if mirror.location.is_empty() {
                return Err(Error::new(format!("a mirror of {:?} has no location", self.prefix)));
            }
            if let Some(other) = mirror.pull_from_mirror.as_deref()
                && !matches!(other, "all" | "digest-only" | "tag-only")
            {
                return Err(Error::new(format!("pull-from-mirror {other:?} is not all, digest-only or tag-only")));
            }
        }
        Ok(())
    }

    /// The length of the part of a location that the prefix matches, in bytes; `None` if it does not match.
    fn covers(&self, location: &str) -> Option<usize> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let host = location.split('/').next().unwrap_or_default();
            let (name, port) = host.rsplit_once(':').unwrap_or((host, ""));
            let length = if domain.contains(':') { name.len() + 1 + port.len() } else { name.len() };
            return (domain.starts_with('.') && host[..length.min(host.len())].ends_with(domain)).then_some(host.len());
        }
        let rest = location.strip_prefix(self.prefix.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then_some(self.prefix.len())
    }
}

fn nowhere(short: &ShortName) -> Error {
    let name = &short.repository;
    Error::new(format!(
        "{name:?} names no registry, and registries.conf has neither an alias for it nor unqualified-search-registries"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(texts: &[&str]) -> Registries {
        let mut all = Registries::default();
        texts.iter().for_each(|text| all.parse(text).unwrap());
        all
    }

    fn places(all: &Registries, text: &str) -> Vec<String> {
        let endpoints = all.endpoints(&Reference::parse(text).unwrap()).unwrap();
        let mark = |one: &Endpoint| format!("{}{}", if one.insecure { "!" } else { "" }, one.reference);
        endpoints.iter().map(mark).collect()
    }

    #[test]
    fn mirrors_prefixes_and_blocked_registries() {
        let all = registries(&[
            r#"
            [[registry]]
            prefix = "docker.io/library"
            location = "mirror.test/hub"
            [[registry.mirror]]
            location = "near.test:5000/cache"
            insecure = true
            [[registry.mirror]]
            location = "digests.test"
            pull-from-mirror = "digest-only"
            [[registry]]
            location = "bad.test"
            blocked = true
            [[registry]]
            prefix = "*.wild.test"
            insecure = true
            [[registry]]
            location = "bad.test/good/"
        "#,
            "[[registry]]\nlocation = \"later.test\"\n",
            "[[registry]]\nlocation = \"later.test\"\ninsecure = true\n",
        ]);
        assert_eq!(
            places(&all, "docker.io/busybox:1"),
            ["!near.test:5000/cache/busybox:1", "mirror.test/hub/busybox:1"]
        );
        let digest = format!("sha256:{}", "a".repeat(64));
        let found = places(&all, &format!("docker.io/busybox@{digest}"));
        assert_eq!(found[1], format!("digests.test/busybox@{digest}"));
        assert_eq!(places(&all, "docker.io/other/busybox"), ["docker.io/other/busybox:latest"]);
        assert_eq!(places(&all, "docker.io/librarys/x"), ["docker.io/librarys/x:latest"]);
        assert_eq!(places(&all, "a.b.wild.test:1/x"), ["!a.b.wild.test:1/x:latest"]);
        assert_eq!(places(&all, "wild.test/x"), ["wild.test/x:latest"]);
        assert_eq!(places(&all, "bad.test/good/x"), ["bad.test/good/x:latest"]);
        assert_eq!(places(&all, "later.test/x"), ["!later.test/x:latest"]);
        let error = all.endpoints(&Reference::parse("bad.test/x").unwrap()).unwrap_err().one_line();
        assert!(error.contains("blocks bad.test/x"), "{error}");
    }

    #[test]
    fn short_names_by_alias_then_by_search() {
        let all = registries(&[
            "unqualified-search-registries = [\"a.test\", \"b.test\"]\n[aliases]\n\"box\" = \"docker.io/library/busybox\"",
            "[aliases]\n\"gone\" = \"\"",
        ]);
        let find = |all: &Registries, text| {
            let found = all.candidates(&Name::parse(text).unwrap());
            found.map(|list| list.iter().map(Reference::to_string).collect::<Vec<_>>())
        };
        assert_eq!(find(&all, "box:1").unwrap(), ["docker.io/library/busybox:1"]);
        assert_eq!(find(&all, "x/y").unwrap(), ["a.test/x/y:latest", "b.test/x/y:latest"]);
        assert_eq!(find(&all, "c.test/x/y").unwrap(), ["c.test/x/y:latest"]);
        let none = registries(&[]);
        assert!(find(&none, "x").unwrap_err().one_line().contains("names no registry"));
        let mut strict = all;
        strict.parse("short-name-mode = \"enforcing\"").unwrap();
        assert!(find(&strict, "x").unwrap_err().one_line().contains("may be any of"));
    }

    #[test]
    fn invalid_values_are_reported_with_their_line() {
        let mut all = Registries::default();
        for (bad, word) in [
            ("unqualified-search-registries = 3", "line 1"),
            ("\n[[registry]]\nblocked = true", "neither prefix nor location"),
            ("[registries.search]\nregistries = []", "version 1"),
            ("[[registry]]\nlocation = \"https://x.test\"", "no scheme"),
            ("short-name-mode = \"maybe\"", "not enforcing"),
        ] {
            let error = all.parse(bad).unwrap_err().one_line();
            assert!(error.contains(word), "{bad}: {error}");
        }
    }
}

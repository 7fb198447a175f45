//! URLs of a registry's API, and resolving the redirects in its answers.

use stage1::error::{Error, Result};
use ureq::http::Uri;
use ureq::http::uri::{Authority, PathAndQuery, Scheme};

/// `http://HOST[:PORT]/PATH` or `https://…`, without a user, a password or a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url(pub(super) Uri);

impl Url {
    /// Parses an absolute URL.
    ///
    /// # Errors
    /// The text is not a URL, its scheme is neither `http` nor `https`, it has no host, or it has a user.
    pub fn parse(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::new(format!("URL {text:?}: {why}"));
        let uri: Uri = text.parse().map_err(|_| bad("not a valid URL"))?;
        if uri.scheme() != Some(&Scheme::HTTP) && uri.scheme() != Some(&Scheme::HTTPS) {
            return Err(bad("neither http nor https"));
        }
        let authority = uri.authority().map_or("", Authority::as_str);
        if authority.contains('@') || uri.host().is_none_or(str::is_empty) {
            return Err(bad("it must have a host and no user"));
        }
        Ok(Self(uri))
    }

    /// Resolves a server's `Location` relative to this URL.
    ///
    /// # Errors
    /// The result is not a valid URL, or leads from HTTPS to HTTP.
    pub fn join(&self, location: &str) -> Result<Self> {
        let scheme = self.0.scheme_str().unwrap_or("https");
        let joined = if location.starts_with("//") {
            Self::parse(&format!("{scheme}:{location}"))?
        } else if location.contains("://") && !location.starts_with(['/', '?']) {
            Self::parse(location)?
        } else {
            let authority = self.0.authority().map_or("", Authority::as_str);
            let path = match location.as_bytes().first() {
                Some(b'/') => location.to_owned(),
                Some(b'?') => format!("{}{location}", self.0.path()),
                Some(_) => format!("{}/{location}", self.0.path().rsplit_once('/').map_or("", |(above, _)| above)),
                None => return Err(Error::new("an empty Location")),
            };
            Self::parse(&format!("{scheme}://{authority}{path}"))?
        };
        if self.is_secure() && !joined.is_secure() {
            return Err(Error::new(format!("it leads from {self} to {joined}, which is not secure")));
        }
        Ok(joined)
    }

    /// This URL with a further parameter in its query.
    ///
    /// # Errors
    /// The result is not a URL.
    pub fn with_query(&self, name: &str, value: &str) -> Result<Self> {
        let separator = if self.0.query().is_some() { '&' } else { '?' };
        Self::parse(&format!("{}{separator}{name}={}", self.0, escape(value)))
    }

    /// Whether it is HTTPS.
    pub fn is_secure(&self) -> bool {
        self.0.scheme() == Some(&Scheme::HTTPS)
    }

    /// `HOST` or `HOST:PORT`.
    pub fn authority(&self) -> &str {
        self.0.authority().map_or("", Authority::as_str)
    }

    /// Whether both URLs have the same scheme, host and port: then secrets for one may be sent to the other.
    pub fn is_same_server(&self, other: &Self) -> bool {
        let port = |url: &Self| url.0.port_u16().unwrap_or(if url.is_secure() { 443 } else { 80 });
        let host = |url: &Self| url.0.host().unwrap_or_default().to_ascii_lowercase();
        self.is_secure() == other.is_secure() && host(self) == host(other) && port(self) == port(other)
    }

    fn path(&self) -> &str {
        self.0.path_and_query().map_or("/", PathAndQuery::as_str)
    }
}

/// Leaves out the query, which may hold a signature.
impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.0.scheme_str().unwrap_or_default(), self.authority(), self.0.path())
    }
}

/// Percent-encodes a value for a query or a form.
pub(super) fn escape(value: &str) -> String {
    let mut out = String::new();
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// The URL with this path, which must need no escaping, as repositories, tags and digests do not.
pub(super) fn url(scheme: &str, authority: &str, path: &str) -> Result<Url> {
    let url = Url::parse(&format!("{scheme}://{authority}{path}"))?;
    if url.path() != path {
        return Err(Error::new(format!("{path:?} is not a path")));
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations() {
        let base = Url::parse("https://a.test:5000/v2/x/blobs/uploads/").unwrap();
        let join = |location: &str| base.join(location).map(|url| url.0.to_string());
        assert_eq!(join("/v2/y?z=1").unwrap(), "https://a.test:5000/v2/y?z=1");
        assert_eq!(join("uuid").unwrap(), "https://a.test:5000/v2/x/blobs/uploads/uuid");
        assert_eq!(join("?a=b").unwrap(), "https://a.test:5000/v2/x/blobs/uploads/?a=b");
        assert_eq!(join("//b.test/c").unwrap(), "https://b.test/c");
        assert_eq!(join("https://b.test/c").unwrap(), "https://b.test/c");
        for bad in ["http://a.test:5000/x", "ftp://a.test/x", "https://user@b.test/", "https://", "", "file:///etc/x"] {
            assert!(base.join(bad).is_err(), "{bad}");
        }
        let plain = Url::parse("http://a.test/").unwrap();
        assert!(plain.join("http://b.test/").is_ok());
    }

    #[test]
    fn the_same_server_is_the_same_scheme_host_and_port() {
        let same = |a: &str, b: &str| Url::parse(a).unwrap().is_same_server(&Url::parse(b).unwrap());
        assert!(same("https://A.test/x", "https://a.test:443/y"));
        assert!(!same("https://a.test", "https://a.test:444"));
        assert!(!same("https://a.test", "http://a.test:443"));
        assert!(!same("https://a.test", "https://a.test.evil"));
    }
}

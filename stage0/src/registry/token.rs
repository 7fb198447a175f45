//! Token authentication (distribution's "Token Authentication" and "OAuth2 Token" specs): the registry's challenge, and
//! the token of its token server.

use std::time::{Duration, Instant};

use serde::Deserialize;
use stage1::error::{Context, Error, Result};
use ureq::http::Method;
use ureq::http::header::{HeaderMap, WWW_AUTHENTICATE};

use super::credentials::{Credentials, is_token};
use super::transport::{Ask, Content, Transport};
use super::url::{Url, escape};

/// The size limit of a token server's answer, in bytes.
const MAX_ANSWER: u64 = 256 << 10;
/// The lifetime, by the spec, of a token whose answer has none.
const SHORT_LIFE: Duration = Duration::from_secs(60);
/// How long before its end a token is no longer used.
const MARGIN: Duration = Duration::from_secs(5);

/// How a registry authenticates clients (RFC 9110, `WWW-Authenticate`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// By user name and password in each request.
    Basic,
    /// By a token of a token server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// The service to name to it.
        service: Option<String>,
    },
}

impl Challenge {
    /// The challenge of an answer with the status 401; prefers Bearer over Basic. `None` if it has neither.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
        let all: Vec<Self> = texts.flat_map(challenges).collect();
        all.iter().find(|one| **one != Self::Basic).or(all.first()).cloned()
    }
}

/// Parses all challenges of a header: `Bearer realm="…",service="…", Basic realm="…"`.
fn challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let length = rest.find(|c: char| c.is_whitespace() || matches!(c, '=' | ',')).unwrap_or(rest.len());
        let (word, after) = rest.split_at(length);
        let value = after.trim_start().strip_prefix('=');
        match (value, found.last_mut()) {
            (Some(value), Some((_, parameters))) if !word.is_empty() => {
                let (value, after) = parameter_value(value.trim_start());
                parameters.push((word.to_ascii_lowercase(), value));
                rest = after;
            }
            _ => {
                if !word.is_empty() {
                    found.push((word.to_ascii_lowercase(), Vec::new()));
                }
                rest = if word.is_empty() { after.get(1..).unwrap_or_default() } else { after };
            }
        }
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == ',');
    }
    let understand = |(scheme, parameters): (String, Vec<(String, String)>)| {
        let get = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        match scheme.as_str() {
            "basic" => Some(Challenge::Basic),
            "bearer" => Some(Challenge::Bearer { realm: get("realm")?, service: get("service") }),
            _ => None,
        }
    };
    found.into_iter().filter_map(understand).collect()
}

/// The value at the start of a text, in quotation marks or not, and the rest of the text.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let length = text.find(|c: char| c.is_whitespace() || c == ',').unwrap_or(text.len());
        return (text[..length].to_owned(), &text[length..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, c)| c)),
            c => value.push(c),
        }
    }
    (value, "")
}

/// A token, and the time until which to use it.
#[derive(Clone)]
pub(super) struct Token {
    /// The value of `Authorization`.
    pub(super) authorization: String,
    pub(super) until: Instant,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

/// Fetches a token from a registry's token server. Credentials are sent to it only over HTTPS, unless the registry
/// itself was reached over HTTP.
///
/// # Errors
/// The server's URL is invalid or, for a registry reached over HTTPS, not HTTPS; the server can't be reached, refuses
/// the credentials, or sends a malformed answer.
pub(super) fn fetch(
    transport: &Transport,
    (realm, service): (&str, Option<&str>),
    scopes: &[String],
    credentials: Option<&Credentials>,
    registry: (&Url, bool),
) -> Result<Token> {
    let (asked, insecure) = registry;
    let what = || format!("token server {realm:?}");
    let mut url = Url::parse(realm).context(what)?;
    if asked.is_secure() && !url.is_secure() {
        return Err(Error::new(format!("{} wants a token from {url}, which is not secure", asked.authority())));
    }
    let service = service.map(|service| ("service", service));
    // "insecure" applies to the registry, so to the token server only if it is the same host
    let insecure = insecure && url.authority() == asked.authority();
    let answer = match credentials {
        Some(Credentials::Identity(token)) => {
            let known = [("grant_type", "refresh_token"), ("client_id", "podctl"), ("refresh_token", token.as_str())];
            // OAuth2 takes all scopes in one parameter
            let scope = scopes.join(" ");
            let scope = Some(("scope", scope.as_str())).filter(|_| !scopes.is_empty());
            let form = known.into_iter().chain(service).chain(scope);
            let form = form.map(|(name, value)| format!("{name}={}", escape(value))).collect::<Vec<_>>().join("&");
            let mut ask = Ask::new(Method::POST, url).header("content-type", "application/x-www-form-urlencoded");
            ask.content = Content::Bytes(form.as_bytes());
            transport.ask_patiently(&ask, insecure)
        }
        other => {
            for (name, value) in service.into_iter().chain(scopes.iter().map(|scope| ("scope", scope.as_str()))) {
                url = url.with_query(name, value)?;
            }
            let mut ask = Ask::new(Method::GET, url);
            ask.authorization = other.and_then(Credentials::basic);
            transport.ask_patiently(&ask, insecure)
        }
    };
    let answer = answer.context(what)?;
    match answer.status {
        200 => {}
        401 | 403 => {
            let hint = match credentials {
                Some(_) => "refuses these credentials",
                None => "wants credentials: podctl login",
            };
            return Err(Error::new(format!("{} {hint}", what())));
        }
        _ => return Err(answer.complaint()),
    }
    let bytes = answer.read(MAX_ANSWER).context(what)?;
    // serde's message would quote the answer, which holds a secret
    let reply: Option<Reply> = serde_json::from_slice(&bytes).ok();
    let reply = reply.context(|| format!("{}: its answer is not a JSON object", what()))?;
    let token = reply.token.or(reply.access_token).filter(|token| !token.is_empty());
    let token = token.context(|| format!("{}: its answer has no token", what()))?;
    if !is_token(&token) {
        return Err(Error::new(format!("{}: its token is too long or has invalid characters", what())));
    }
    let life = reply.expires_in.map_or(SHORT_LIFE, |seconds| Duration::from_secs(seconds.min(86400))).max(MARGIN);
    Ok(Token { authorization: format!("Bearer {token}"), until: Instant::now() + life - MARGIN })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: Option<&str>) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) }
    }

    #[test]
    fn challenges_in_all_forms() {
        let text = r#"Bearer realm="https://a.test/token",service="reg, istry",scope="repository:a:pull""#;
        assert_eq!(challenges(text), [bearer("https://a.test/token", Some("reg, istry"))]);
        assert_eq!(challenges("Basic realm=x"), [Challenge::Basic]);
        assert_eq!(
            challenges(r#"Digest nonce="a", Basic realm="a\"b", bearer realm = "r""#),
            [Challenge::Basic, bearer("r", None)]
        );
        assert_eq!(challenges("Bearer service=x"), []);
        for nonsense in ["", ",,,", "=", "Bearer =", "Bearer realm=\"", "\"", "Bearer realm", "= = =", "Bearer é=\"x"]
        {
            challenges(nonsense);
        }
    }

    #[test]
    fn bearer_is_preferred_over_basic() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, "Basic realm=x".parse().unwrap());
        headers.append(WWW_AUTHENTICATE, "Bearer realm=y".parse().unwrap());
        assert_eq!(Challenge::of(&headers), Some(bearer("y", None)));
        assert_eq!(Challenge::of(&HeaderMap::new()), None);
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_parsed_without_panic(text in ".{0,80}") {
            challenges(&text);
        }
    }
}

//! One repository of one registry, by the distribution protocol.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use stage1::error::{Context, Error, Result};
use ureq::http::Method;

use super::credentials::Credentials;
use super::patience::{Patience, is_passing, may_pass, retry_after};
use super::reference::{HUB, Reference};
use super::registries_conf::Endpoint;
use super::token::{self, Challenge, Token};
use super::transport::{Answer, Ask, Content, Progress, Transport};
use super::url::{Url, url};
use crate::fsutil::digest::Digest;

/// An index or a manifest beyond this is refused, as the protocol allows.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The server of docker's registry.
const HUB_SERVER: &str = "registry-1.docker.io";
/// What a manifest may be.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// What is wanted of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Reading.
    Pull,
    /// Writing as well.
    Push,
}

/// A repository.
#[derive(Debug)]
pub struct Repository<'a> {
    transport: &'a Transport,
    reference: Reference,
    /// Its root: `https://HOST/v2/`.
    root: Url,
    insecure: bool,
    purpose: Purpose,
    credentials: Option<Credentials>,
    state: Mutex<Login>,
}

#[derive(Default)]
struct Login {
    challenge: Option<Challenge>,
    /// By the scopes that they are for.
    tokens: HashMap<Vec<String>, Token>,
}

/// Nothing secret is printed.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({:?})", self.challenge)
    }
}

/// A manifest or an index, as it came.
#[derive(Debug)]
pub struct Document {
    /// Its bytes, which have the digest.
    pub bytes: Vec<u8>,
    /// By its own word, or the registry's.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
}

impl<'a> Repository<'a> {
    /// Connects, and finds out what the registry wants to know.
    ///
    /// # Errors
    /// It can't be reached, or is not a registry.
    pub fn connect(
        transport: &'a Transport,
        endpoint: &Endpoint,
        purpose: Purpose,
        credentials: Option<Credentials>,
    ) -> Result<Self> {
        let reference = endpoint.reference.clone();
        let host = if reference.registry() == HUB { HUB_SERVER } else { reference.registry() };
        let insecure = endpoint.insecure || transport.is_insecure();
        let secure = url("https", host, "/v2/")?;
        let knock = Ask::new(Method::GET, secure.clone());
        // who may be insecure may speak HTTP alone, which is found out by one try
        let root = match insecure.then(|| transport.ask(&knock, insecure)) {
            Some(Err(error)) => {
                log::debug!("{}: trying HTTP", error.one_line());
                url("http", host, "/v2/")?
            }
            _ => secure,
        };
        let answer = transport.ask_patiently(&Ask::new(Method::GET, root.clone()), insecure)?;
        let mut state = Login::default();
        match answer.status {
            200 => {}
            401 => {
                state.challenge = Challenge::of(&answer.headers);
                if state.challenge.is_none() {
                    return Err(Error::new(format!("{root} wants to know who asks, in a way that is not known here")));
                }
            }
            429 | 500.. => return Err(answer.complaint()),
            status => return Err(Error::new(format!("{root} answers {status}: it is not a registry"))),
        }
        Ok(Self { transport, reference, root, insecure, purpose, credentials, state: Mutex::new(state) })
    }

    /// The image it was opened for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Checks the credentials.
    ///
    /// # Errors
    /// The registry refuses them.
    pub fn check_credentials(&self) -> Result<()> {
        let mut ask = Ask::new(Method::GET, self.root.clone());
        ask.authorization = self.authorization(&[])?;
        let answer = self.transport.ask_patiently(&ask, self.insecure)?;
        match answer.status {
            200 => Ok(()),
            401 | 403 => Err(Error::new("it refuses the user or the password")),
            _ => Err(answer.complaint()),
        }
    }

    fn scope(&self) -> String {
        let actions = if self.purpose == Purpose::Push { "pull,push" } else { "pull" };
        format!("repository:{}:{actions}", self.reference.repository())
    }

    /// The value of `Authorization` for what is to be asked.
    fn authorization(&self, scopes: &[String]) -> Result<Option<String>> {
        // held while a token is fetched: one for all threads
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match state.challenge.clone() {
            None => Ok(None),
            Some(Challenge::Basic) => match self.credentials.as_ref().map(Credentials::basic) {
                Some(Some(basic)) => Ok(Some(basic)),
                Some(None) => Err(Error::new(format!("{} takes a password and no token", self.root.authority()))),
                None => Err(Error::new(format!(
                    "{0} wants credentials: podctl login {1}",
                    self.root.authority(),
                    self.reference.registry()
                ))),
            },
            Some(Challenge::Bearer { realm, service }) => {
                if let Some(token) = state.tokens.get(scopes).filter(|token| token.until > Instant::now()) {
                    return Ok(Some(token.authorization.clone()));
                }
                let asked = (&self.root, self.insecure);
                let server = (realm.as_str(), service.as_deref());
                let token = token::fetch(self.transport, server, scopes, self.credentials.as_ref(), asked)?;
                let authorization = token.authorization.clone();
                state.tokens.insert(scopes.to_vec(), token);
                Ok(Some(authorization))
            }
        }
    }

    /// Asks once, authorised; what the registry answers to a token that it takes no more is a new one.
    fn ask(&self, ask: &Ask<'_>) -> Result<Answer> {
        self.ask_for(ask, &[self.scope()])
    }

    /// The same for what takes more than this repository.
    fn ask_for(&self, ask: &Ask<'_>, scopes: &[String]) -> Result<Answer> {
        let mut ask = ask.clone();
        let is_ours = ask.url.is_same_server(&self.root);
        for attempt in 0.. {
            if is_ours {
                ask.authorization = self.authorization(scopes)?;
            }
            let answer = self.transport.ask(&ask, self.insecure)?;
            if answer.status != 401 || attempt > 0 || !is_ours || !answer.url.is_same_server(&self.root) {
                return Ok(answer);
            }
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.tokens.clear();
            let known = state.challenge.clone();
            state.challenge = Challenge::of(&answer.headers).or(known);
        }
        Err(Error::new("asked for ever"))
    }

    /// Asks until the registry has time.
    fn ask_patiently(&self, ask: &Ask<'_>) -> Result<Answer> {
        let mut patience = Patience::new();
        loop {
            match self.ask(ask) {
                Ok(answer) if is_passing(answer.status) && patience.is_left() => {
                    let asked = retry_after(answer.header("retry-after"));
                    log::debug!("{} answers {}: trying again", answer.url, answer.status);
                    drop(answer);
                    patience.wait(asked)?;
                }
                Err(error) if patience.is_left() && may_pass(&error) => {
                    log::debug!("{}: trying again", error.one_line());
                    patience.wait(None)?;
                }
                other => return other,
            }
        }
    }

    /// The URL of something in the repository; all parts have been checked.
    fn url(&self, kind: &str, name: &str) -> Result<Url> {
        let path = format!("/v2/{}/{kind}/{name}", self.reference.repository());
        url(if self.root.is_secure() { "https" } else { "http" }, self.root.authority(), &path)
    }

    /// What failed, in words that a person can use.
    fn refusal(&self, answer: Answer) -> Error {
        let hint = match answer.status {
            401 | 403 if self.credentials.is_none() => format!("; podctl login {}", self.reference.registry()),
            _ => String::new(),
        };
        let error = answer.complaint();
        Error::new(format!("{}{hint}", error.one_line()))
    }

    /// A manifest or an index, by tag or digest.
    ///
    /// # Errors
    /// There is none, it is too large, or it is not what its digest says.
    pub fn manifest(&self, version: &str) -> Result<Document> {
        let ask = Ask::new(Method::GET, self.url("manifests", version)?).header("accept", ACCEPTED);
        let answer = self.ask_patiently(&ask)?;
        match answer.status {
            200 => {}
            404 => {
                return Err(Error::new(format!(
                    "{} has no {}:{version}",
                    self.root.authority(),
                    self.reference.repository()
                )));
            }
            _ => return Err(self.refusal(answer)),
        }
        let told = answer.header("content-type").unwrap_or_default().split(';').next().unwrap_or_default().to_owned();
        let claimed = answer.header("docker-content-digest").map(Digest::new).transpose().context(|| "header")?;
        let bytes = answer.read(MAX_MANIFEST)?;
        let digest = match Digest::new(version) {
            Ok(digest) => digest,
            Err(_) => claimed.clone().unwrap_or_else(|| Digest::sha256_of(&bytes)),
        };
        if !digest.is_of(&bytes) || claimed.is_some_and(|claimed| !claimed.is_of(&bytes)) {
            return Err(Error::new(format!(
                "{} gives another manifest than {digest}: its content has another hash",
                self.root.authority()
            )));
        }
        let own: Option<MediaType> = serde_json::from_slice(&bytes).ok();
        let media_type = own.and_then(|own| own.media_type).filter(|text| !text.is_empty()).unwrap_or(told);
        Ok(Document { bytes, media_type, digest })
    }

    /// A blob from `offset` on: once, without patience.
    ///
    /// # Errors
    /// The registry can't be reached.
    pub(super) fn blob(&self, digest: &Digest, offset: u64) -> Result<Answer> {
        let mut ask = Ask::new(Method::GET, self.url("blobs", &digest.to_string())?);
        if offset > 0 {
            ask = ask.header("range", format!("bytes={offset}-"));
        }
        self.ask(&ask)
    }

    /// What a blob's refusal means.
    pub(super) fn blob_refusal(&self, answer: Answer) -> Error {
        self.refusal(answer)
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// The registry refuses to tell.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let answer = self.ask_patiently(&Ask::new(Method::HEAD, self.url("blobs", &digest.to_string())?))?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refusal(answer)),
        }
    }

    /// Has the registry take a blob from another of its repositories. Tells whether it did: not every registry can, and
    /// not everybody may.
    ///
    /// # Errors
    /// The request can't be made.
    pub fn mount_blob(&self, digest: &Digest, from: &str) -> Result<bool> {
        let uploads = self.url("blobs", "uploads/")?;
        let place = uploads.with_query("mount", &digest.to_string())?.with_query("from", from)?;
        let scopes = [self.scope(), format!("repository:{from}:pull")];
        let answer = match self.ask_for(&Ask::new(Method::POST, place), &scopes) {
            Ok(answer) => answer,
            Err(error) => {
                log::debug!("{}: the blob is sent instead", error.one_line());
                return Ok(false);
            }
        };
        if let (202, Some(location)) = (answer.status, answer.header("location")) {
            // it has begun an upload, which is not wanted in this way
            let ended = self.ask(&Ask::new(Method::DELETE, answer.url.join(location)?));
            log::debug!("the upload that was not asked for: {:?}", ended.map(|answer| answer.status));
        }
        Ok(answer.status == 201)
    }

    /// Puts a blob there, which is a file.
    ///
    /// # Errors
    /// The registry refuses it, also after several tries.
    pub fn put_blob(&self, digest: &Digest, file: &Path, progress: &Progress<'_>) -> Result<()> {
        let mut patience = Patience::new();
        loop {
            match self.try_put_blob(digest, file, progress) {
                Ok(answer) if answer.status == 201 => return Ok(()),
                Ok(answer) if is_passing(answer.status) && patience.is_left() => {
                    let asked = retry_after(answer.header("retry-after"));
                    log::debug!("{} answers {}: sending it again", answer.url, answer.status);
                    drop(answer);
                    patience.wait(asked)?;
                }
                Ok(answer) => return Err(self.refusal(answer)),
                Err(error) if patience.is_left() && may_pass(&error) => {
                    log::debug!("{}: sending it again", error.one_line());
                    patience.wait(None)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The last answer.
    fn try_put_blob(&self, digest: &Digest, file: &Path, progress: &Progress<'_>) -> Result<Answer> {
        let begun = self.ask(&Ask::new(Method::POST, self.url("blobs", "uploads/")?))?;
        if begun.status != 202 {
            return Ok(begun);
        }
        let location = begun.header("location").context(|| format!("{} tells no place to upload to", begun.url))?;
        let place = begun.url.join(location).context(|| "the place to upload to")?;
        let mut ask = Ask::new(Method::PUT, place.with_query("digest", &digest.to_string())?)
            .header("content-type", "application/octet-stream");
        ask.content = Content::File(file, progress);
        self.ask(&ask)
    }

    /// Puts a manifest there, under a tag or its digest.
    ///
    /// # Errors
    /// The registry refuses it, or keeps it under another digest.
    pub fn put_manifest(&self, version: &str, document: &Document) -> Result<()> {
        let mut ask =
            Ask::new(Method::PUT, self.url("manifests", version)?).header("content-type", document.media_type.clone());
        ask.content = Content::Bytes(&document.bytes);
        let answer = self.ask_patiently(&ask)?;
        if !matches!(answer.status, 200..=202) {
            return Err(self.refusal(answer));
        }
        match answer.header("docker-content-digest") {
            Some(other) if other.starts_with("sha256:") && other != document.digest.to_string() => {
                Err(Error::new(format!("the registry keeps it as {other}, not as {}", document.digest)))
            }
            _ => Ok(()),
        }
    }
}

#[derive(serde::Deserialize)]
struct MediaType {
    #[serde(rename = "mediaType", default)]
    media_type: Option<String>,
}

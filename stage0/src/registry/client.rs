//! A repository of a registry, by the OCI distribution spec.

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

/// The size limit of an index or a manifest, in bytes: the one that the spec recommends.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// The server of docker.io.
const HUB_SERVER: &str = "registry-1.docker.io";
/// The media types of manifests and indexes that podctl accepts.
const ACCEPTED: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// The access to a repository that podctl asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To read.
    Pull,
    /// To read and write.
    Push,
}

/// A repository of a registry that was reached.
#[derive(Debug)]
pub struct Repository<'a> {
    transport: &'a Transport,
    reference: Reference,
    /// The root of the API: `https://HOST/v2/`.
    root: Url,
    insecure: bool,
    purpose: Purpose,
    credentials: Option<Credentials>,
    state: Mutex<Login>,
}

#[derive(Default)]
struct Login {
    challenge: Option<Challenge>,
    /// The tokens by their scopes.
    tokens: HashMap<Vec<String>, Token>,
}

/// Leaves out the tokens.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login({:?})", self.challenge)
    }
}

/// A manifest or an index.
#[derive(Debug)]
pub struct Document {
    /// Its unchanged bytes, which have the digest.
    pub bytes: Vec<u8>,
    /// Its media type: its own `mediaType`, else the registry's `Content-Type`.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
}

impl<'a> Repository<'a> {
    /// Reaches the registry and learns how it authenticates clients.
    ///
    /// # Errors
    /// The registry can't be reached, does not serve the API, or asks for an authentication scheme other than Basic and
    /// Bearer.
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
        // an insecure registry may speak plain HTTP only: try HTTPS once
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
                    return Err(Error::new(format!("{root} asks for an authentication other than Basic and Bearer")));
                }
            }
            429 | 500.. => return Err(answer.complaint()),
            status => return Err(Error::new(format!("{root} answers {status}: it is not a registry"))),
        }
        Ok(Self { transport, reference, root, insecure, purpose, credentials, state: Mutex::new(state) })
    }

    /// The image that it was opened for.
    pub fn reference(&self) -> &Reference {
        &self.reference
    }

    /// Checks the credentials with the registry.
    ///
    /// # Errors
    /// The registry or its token server refuses them, or can't be reached.
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

    /// The value of `Authorization` for a request with these scopes; `None` if the registry needs none.
    fn authorization(&self, scopes: &[String]) -> Result<Option<String>> {
        // held while a token is fetched, so that all threads use one token
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let challenge = state.challenge.clone();
        if let (Some(Challenge::Bearer { .. }), Some(Credentials::Registry(token))) = (&challenge, &self.credentials) {
            return Ok(Some(format!("Bearer {token}")));
        }
        match challenge {
            None => Ok(None),
            Some(Challenge::Basic) => match self.credentials.as_ref().map(Credentials::basic) {
                Some(Some(basic)) => Ok(Some(basic)),
                Some(None) => Err(Error::new(format!("{} takes a password, not a token", self.root.authority()))),
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

    /// Sends a request with authorization; once more, with a new token, if the registry answers 401.
    fn ask(&self, ask: &Ask<'_>) -> Result<Answer> {
        self.ask_for(ask, &[self.scope()])
    }

    /// [`Self::ask`] with other scopes than this repository's.
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

    /// [`Self::ask`], repeated with pauses while the failure may be temporary.
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

    /// The URL of a blob, a manifest or an upload of the repository. The caller must have checked `name`.
    fn url(&self, kind: &str, name: &str) -> Result<Url> {
        let path = format!("/v2/{}/{kind}/{name}", self.reference.repository());
        url(if self.root.is_secure() { "https" } else { "http" }, self.root.authority(), &path)
    }

    /// The error of a refused request, with a hint what to do about it.
    fn refusal(&self, answer: Answer) -> Error {
        if !matches!(answer.status, 401 | 403) {
            return answer.complaint();
        }
        let login = format!("podctl login {}", self.reference.registry());
        let hint = match self.credentials {
            None => format!("{} does not exist, or needs a login: {login}", self.reference.repository()),
            Some(Credentials::Registry(_)) => "the registry token does not allow this, or has expired".to_owned(),
            Some(_) => format!("the user may not do this, or the password is no longer right: {login}"),
        };
        let (status, words) = answer.status_and_words();
        Error::new(format!("{status}{words}: {hint}"))
    }

    /// Fetches a manifest or an index by tag or digest.
    ///
    /// # Errors
    /// The registry can't be reached, refuses or lacks it, or it is larger than [`MAX_MANIFEST`] or has another digest.
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
                "{} sent another manifest, which has another hash than {digest}",
                self.root.authority()
            )));
        }
        let own: Option<MediaType> = serde_json::from_slice(&bytes).ok();
        let media_type = own.and_then(|own| own.media_type).filter(|text| !text.is_empty()).unwrap_or(told);
        Ok(Document { bytes, media_type, digest })
    }

    /// Requests a blob from the byte `offset` on, once.
    ///
    /// # Errors
    /// The registry can't be reached, or no token can be had.
    pub(super) fn blob(&self, digest: &Digest, offset: u64) -> Result<Answer> {
        let mut ask = Ask::new(Method::GET, self.url("blobs", &digest.to_string())?);
        if offset > 0 {
            ask = ask.header("range", format!("bytes={offset}-"));
        }
        self.ask(&ask)
    }

    /// The error of a refused request for a blob.
    pub(super) fn blob_refusal(&self, answer: Answer) -> Error {
        self.refusal(answer)
    }

    /// Whether the repository has a blob.
    ///
    /// # Errors
    /// The registry can't be reached, or refuses the request.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        let answer = self.ask_patiently(&Ask::new(Method::HEAD, self.url("blobs", &digest.to_string())?))?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(self.refusal(answer)),
        }
    }

    /// Asks the registry to mount a blob from its repository `from` (distribution spec, "Mounting a blob from another
    /// repository"); returns whether it did. Registries need not support it, or may refuse it to this user.
    ///
    /// # Errors
    /// The URL of the request, or that of an upload that the registry began instead, is invalid.
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
            // the registry did not mount the blob but began an upload: cancel it
            let ended = self.ask(&Ask::new(Method::DELETE, answer.url.join(location)?));
            log::debug!("cancel the upload: {:?}", ended.map(|answer| answer.status));
        }
        Ok(answer.status == 201)
    }

    /// Uploads a blob from a file; repeats it with pauses while the failure may be temporary.
    ///
    /// # Errors
    /// The file can't be read, or the registry can't be reached or refuses the blob.
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

    /// Uploads a blob once; returns the registry's last answer.
    fn try_put_blob(&self, digest: &Digest, file: &Path, progress: &Progress<'_>) -> Result<Answer> {
        let begun = self.ask(&Ask::new(Method::POST, self.url("blobs", "uploads/")?))?;
        if begun.status != 202 {
            return Ok(begun);
        }
        let location = begun.header("location").context(|| format!("{} gives no location to upload to", begun.url))?;
        let place = begun.url.join(location).context(|| "the place to upload to")?;
        let mut ask = Ask::new(Method::PUT, place.with_query("digest", &digest.to_string())?)
            .header("content-type", "application/octet-stream");
        ask.content = Content::File(file, progress);
        self.ask(&ask)
    }

    /// Uploads a manifest under a tag or its digest.
    ///
    /// # Errors
    /// The registry can't be reached, refuses the manifest, or reports another digest for it.
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

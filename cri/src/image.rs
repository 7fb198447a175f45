//! The image service: the images of the store. Stage1 images, which pods themselves are made of, are not listed.

use std::path::Path;

use serde_json::json;
use stage0::entrypoint::spawn::Entrypoint;
use stage0::image::archive::ImageId;
use stage0::image::options::ImportOptions;
use stage0::image::store::{self, Image, find, names};
use stage0::image::{gc, pull};
use stage0::registry::{Access, Credentials, Name, Reference, Tls};
use stage1::error::Error;
use tonic::Code;

use crate::api::{
    AuthConfig, Image as Described, ImageSpec, ImageStatusRequest, ImageStatusResponse, Int64Value, ListImagesRequest,
    ListImagesResponse, PullImageRequest, PullImageResponse, RemoveImageRequest, RemoveImageResponse,
};
use crate::fault::{Fault, Result};
use crate::node::Node;

/// `ListImages`: all images, or the one that the filter names.
///
/// # Errors
/// The filter matches several images, or the store can't be read.
pub fn list(node: &Node, request: &ListImagesRequest) -> Result<ListImagesResponse> {
    let wanted = request.filter.as_ref().and_then(|filter| filter.image.as_ref()).map(|spec| spec.image.as_str());
    let only = match wanted.filter(|text| !text.is_empty()) {
        Some(text) => match find::look_up(&node.store, text)? {
            Some(id) => Some(id),
            None => return Ok(ListImagesResponse { images: Vec::new() }),
        },
        None => None,
    };
    let all = find::list(&node.store)?.into_iter().filter(|(image, _)| !is_stage1(image));
    let found = all.filter(|(image, _)| only.as_ref().is_none_or(|only| *only == image.id));
    Ok(ListImagesResponse { images: found.map(|(image, names)| describe(&image, &names)).collect() })
}

/// Whether it is a stage1 image: it has no app, and names a `run` entrypoint.
fn is_stage1(image: &Image) -> bool {
    image.parsed.app.is_none() && Entrypoint::Run.named_by(&image.parsed).is_ok()
}

/// `ImageStatus`: describes one image. If it does not exist, the answer has no image; that is not an error.
///
/// # Errors
/// The request names no image, the name matches several, or the store can't be read.
pub fn status(node: &Node, request: &ImageStatusRequest) -> Result<ImageStatusResponse> {
    let Some(id) = named(node, request.image.as_ref())? else { return Ok(ImageStatusResponse::default()) };
    let image = store::load(&node.store, &id)?;
    let names = names::names_of(&node.store, &id)?;
    let info = json!({ "imageSpec": store::config(&node.store, &id)? });
    Ok(ImageStatusResponse {
        image: Some(describe(&image, &names)),
        info: request.verbose.then(|| ("info".to_owned(), info.to_string())).into_iter().collect(),
    })
}

/// `RemoveImage`: removes an image with all its names; does nothing if it does not exist.
///
/// # Errors
/// The request names no image, the name matches several, a pod uses the image, another image depends on it, or the
/// store can't be changed.
pub fn remove(node: &Node, request: &RemoveImageRequest) -> Result<RemoveImageResponse> {
    if let Some(id) = named(node, request.image.as_ref())? {
        gc::remove(&node.store, &id).map_err(|error| Fault::not_now(error.one_line()))?;
    }
    Ok(RemoveImageResponse {})
}

/// `PullImage`: pulls an image from its registry and returns its id.
///
/// # Errors
/// The name or the credentials are invalid, the registry does not give the image, or the store can't be changed.
pub fn pull(node: &Node, request: PullImageRequest) -> Result<PullImageResponse> {
    let text = request.image.map(|spec| spec.image).unwrap_or_default();
    let name = Name::parse(&text).map_err(|error| Fault::invalid(error.one_line()))?;
    let mut access = Access::new(Tls::default(), None, None)?;
    if let Some(auth) = request.auth
        && let Some(credentials) = credentials(&auth)?
    {
        let server = Some(auth.server_address.as_str()).filter(|server| !server.is_empty());
        access.keyring = access.keyring.preferring(credentials, server);
    }
    let pulled =
        pull::pull(&node.store, &access, &name, &ImportOptions::default()).map_err(|error| refused(&text, &error))?;
    Ok(PullImageResponse { image_ref: pulled.imported.image.id.to_string() })
}

fn refused(text: &str, error: &Error) -> Fault {
    Fault { code: Code::Unknown, message: format!("pull {text:?}: {}", error.one_line()) }
}

/// The credentials that the request brings; `None` if it brings none.
///
/// # Errors
/// They are invalid.
fn credentials(auth: &AuthConfig) -> Result<Option<Credentials>> {
    let entry = json!({
        "username": auth.username,
        "password": auth.password,
        "auth": auth.auth,
        "identitytoken": auth.identity_token,
        "registrytoken": auth.registry_token,
    });
    Credentials::of_entry(&entry).map_err(|error| Fault::invalid(format!("auth: {}", error.one_line())))
}

/// The id of the image that the request names; `None` if no image matches.
fn named(node: &Node, spec: Option<&ImageSpec>) -> Result<Option<ImageId>> {
    match spec.map(|spec| spec.image.as_str()) {
        None | Some("") => Err(Fault::invalid("no image is named")),
        Some(text) => Ok(find::look_up(&node.store, text)?),
    }
}

fn describe(image: &Image, names: &[String]) -> Described {
    let has_digest = |name: &String| Reference::parse(name).is_ok_and(|reference| reference.digest().is_some());
    let (mut repo_digests, repo_tags): (Vec<String>, Vec<String>) = names.iter().cloned().partition(has_digest);
    for kept in &image.info.kept {
        let digest = kept.from.as_ref().map(|from| format!("{from}@{}", kept.manifest));
        repo_digests.extend(digest.filter(|digest| !repo_digests.contains(digest)));
    }
    let user = image.parsed.app.as_ref().map(|app| app.user.as_str()).unwrap_or_default();
    let (uid, username) = match user.parse::<u32>() {
        Ok(uid) => (Some(Int64Value { value: uid.into() }), String::new()),
        Err(_) if matches!(user, "" | "root") => (Some(Int64Value { value: 0 }), String::new()),
        Err(_) => (None, user.to_owned()),
    };
    Described {
        id: image.id.to_string(),
        spec: Some(ImageSpec { image: names.first().cloned().unwrap_or_default(), ..ImageSpec::default() }),
        repo_tags,
        repo_digests,
        size: image.info.size,
        uid,
        username,
        pinned: false,
    }
}

/// The directories of the store that images are in, of those that exist.
pub fn directories(node: &Node) -> Vec<std::path::PathBuf> {
    let store = &node.store;
    let all = [store.images(), store.trees(), store.layers(), store.blobs()];
    all.into_iter().filter(|dir| Path::new(dir).is_dir()).collect()
}

//! Images in the formats of OCI (image-spec) and Docker.
//!
//! [`Layout`] opens blobs by name, in a directory or in a tar file, which is not unpacked; [`index`], [`docker`] and
//! [`directory`] choose one image; [`conversion`] makes its appc manifest.

pub(crate) mod account;
pub(crate) mod config;
pub(crate) mod conversion;
mod layout;

use std::collections::BTreeMap;
use std::io::Read;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use stage1::error::{Context, Error, Result};

pub use layout::Layout;

use crate::fsutil::digest::{Digest, Verified};
use crate::image::platform::{ImageChoice, Platform};
use config::Config;

/// The size limit of an index, a manifest or a configuration, in bytes.
const JSON_BYTES: u64 = 4 << 20;
/// The deepest nesting of indexes.
pub(crate) const MAX_NESTING: usize = 4;
/// The most layers of an image.
const MAX_LAYERS: usize = 1000;

/// A reference to a blob (descriptor.md).
#[derive(Clone, Debug, Deserialize)]
struct Descriptor {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: Option<u64>,
    #[serde(default)]
    platform: Option<Platform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// One image of a `docker save` archive.
#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers", default)]
    layers: Option<Vec<String>>,
}

/// The chosen image.
#[derive(Debug)]
pub struct Found {
    /// The names of its layers' blobs, the lowest first, each with its digest if the manifest has it.
    layers: Vec<(String, Option<Digest>)>,
    pub(crate) config: Config,
    /// Its platform, in the names that the spec prescribes.
    platform: Platform,
    config_digest: Option<String>,
    /// The bytes of its configuration, unchanged.
    pub(crate) raw_config: Vec<u8>,
    annotations: BTreeMap<String, String>,
    /// Its name, with or without a tag.
    reference: Option<String>,
}

impl Found {
    /// The digests of its uncompressed layers, the lowest first.
    ///
    /// # Errors
    /// A digest is invalid, the image has more than 1000 layers, or its manifest and its configuration have different
    /// numbers of layers.
    pub(crate) fn diffs(&self) -> Result<Vec<Digest>> {
        if self.layers.len() > MAX_LAYERS {
            return Err(Error::new(format!("more than {MAX_LAYERS} layers")));
        }
        let diffs = self.config.layers()?;
        if diffs.len() != self.layers.len() {
            return Err(Error::new(format!(
                "the configuration lists {} layers, the manifest {}",
                diffs.len(),
                self.layers.len()
            )));
        }
        Ok(diffs)
    }

    /// The name of a layer's blob.
    pub(crate) fn layer_name(&self, number: usize) -> &str {
        self.layers.get(number).map_or("", |(name, _)| name)
    }

    /// The digest of a layer's blob, if the manifest has it.
    pub(crate) fn layer_digest(&self, number: usize) -> Option<&Digest> {
        self.layers.get(number).and_then(|(_, digest)| digest.as_ref())
    }
}

/// The image that a registry's manifest and configuration describe. The caller must have verified their digests.
///
/// # Errors
/// The manifest or the configuration is malformed, a layer has an unknown type, or the image is for another platform.
pub(crate) fn described(manifest: &[u8], config: &[u8], reference: &str, wanted: &ImageChoice) -> Result<Found> {
    let manifest: Manifest = serde_json::from_slice(manifest).context(|| "it is not a manifest")?;
    let parsed: Config = serde_json::from_slice(config).context(|| "configuration")?;
    let platform = parsed.must_fit(&wanted.platform()?)?;
    let layer = |layer: &Descriptor| {
        must_be_known(layer)?;
        Digest::new(&layer.digest).map(|digest| (digest.to_string(), Some(digest)))
    };
    Ok(Found {
        layers: manifest.layers.iter().flatten().map(layer).collect::<Result<_>>()?,
        config: parsed,
        platform,
        config_digest: Some(manifest.config.digest),
        raw_config: config.to_vec(),
        annotations: manifest.annotations.unwrap_or_default(),
        reference: Some(reference.to_owned()),
    })
}

/// Fails if a layer has an unknown media type.
fn must_be_known(layer: &Descriptor) -> Result<()> {
    let known = layer.media_type.is_empty()
        || [".tar", ".tar.gzip", "+gzip", "+zstd"].iter().any(|end| layer.media_type.ends_with(end));
    if known { Ok(()) } else { Err(Error::new(format!("a layer of the unknown type {:?}", layer.media_type))) }
}

/// Chooses an image from the index of an OCI layout (image-index.md).
///
/// # Errors
/// A file is missing, damaged or malformed, indexes are nested more than 4 deep, or no image or several images match.
pub fn index(layout: &Layout, wanted: &ImageChoice) -> Result<Found> {
    let mut index: Index = json(layout, "index.json", None)?;
    let platform = wanted.platform()?;
    let mut reference = None;
    for _ in 0..MAX_NESTING {
        let chosen = choose(index.manifests.unwrap_or_default(), wanted, &platform, reference.is_some())?;
        reference = reference.or_else(|| reference_of(&chosen));
        let digest = Digest::new(&chosen.digest)?;
        if chosen.media_type.ends_with(".image.index.v1+json") || chosen.media_type.ends_with(".manifest.list.v2+json")
        {
            index = json(layout, &blob(&digest), Some(&digest))?;
            continue;
        }
        let manifest: Manifest = json(layout, &blob(&digest), Some(&digest))?;
        return found(layout, manifest, reference, &platform, blob)
            .context(|| format!("manifest {}", short(&chosen.digest)));
    }
    Err(Error::new(format!("the index has more than {MAX_NESTING} indexes within each other")))
}

/// The content of a document that a registry sent.
#[derive(Debug)]
pub(crate) enum Listed {
    /// An index: the digest of the manifest for the platform.
    Index(Digest),
    /// A manifest: the configuration, then the layers, the lowest first, each with its size in bytes.
    Image(Vec<(Digest, u64)>),
}

/// Reads a manifest or an index that a registry sent with the type `media_type`.
///
/// # Errors
/// The document is malformed or does not have this type, is both a manifest and an index, is an artifact but not an
/// image, has no image for the platform, more than 1000 layers or a configuration that is too large.
pub(crate) fn listed(bytes: &[u8], media_type: &str, wanted: &ImageChoice) -> Result<Listed> {
    let shape: Shape = serde_json::from_slice(bytes).context(|| "it is not a manifest")?;
    let (is_index, is_image) = (shape.manifests.is_some(), shape.config.is_some() || shape.layers.is_some());
    // clients that go by the type and clients that go by the content must see the same document
    if is_index && is_image {
        return Err(Error::new("it is an index and a manifest at the same time"));
    }
    if media_type.ends_with(".image.index.v1+json") || media_type.ends_with(".manifest.list.v2+json") {
        if is_image {
            return Err(Error::new(format!("it is a manifest, but has the type {media_type:?}")));
        }
        let index: Index = serde_json::from_slice(bytes).context(|| "it is not an index")?;
        let chosen = choose(index.manifests.unwrap_or_default(), wanted, &wanted.platform()?, true)?;
        return Digest::new(&chosen.digest).map(Listed::Index);
    }
    if !media_type.ends_with(".image.manifest.v1+json") && !media_type.ends_with(".manifest.v2+json") {
        return Err(Error::new(format!("{media_type:?} is not the type of an image; schema 1 is not supported")));
    }
    if is_index {
        return Err(Error::new(format!("it is an index, but has the type {media_type:?}")));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).context(|| "it is not a manifest")?;
    let kind = manifest.config.media_type.as_str();
    if !kind.ends_with(".image.config.v1+json") && !kind.ends_with(".container.image.v1+json") {
        return Err(Error::new(format!("it is an artifact of the type {kind:?}, and not an image")));
    }
    let layers = manifest.layers.unwrap_or_default();
    if layers.len() > MAX_LAYERS {
        return Err(Error::new(format!("more than {MAX_LAYERS} layers")));
    }
    let pointer = |one: &Descriptor| {
        let size = one.size.context(|| format!("{} has no size", short(&one.digest)))?;
        Ok((Digest::new(&one.digest)?, size))
    };
    let all: Vec<_> = std::iter::once(&manifest.config).chain(&layers).map(pointer).collect::<Result<_>>()?;
    if all[0].1 > JSON_BYTES {
        return Err(Error::new(format!("its configuration has more than {JSON_BYTES} bytes")));
    }
    Ok(Listed::Image(all))
}

/// The fields that tell an index from a manifest.
#[derive(Deserialize)]
struct Shape {
    #[serde(default)]
    manifests: Option<serde_json::Value>,
    #[serde(default)]
    config: Option<serde_json::Value>,
    #[serde(default)]
    layers: Option<serde_json::Value>,
}

/// The path of a blob in an OCI layout.
fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.digits())
}

fn short(digest: &str) -> String {
    digest.chars().take(19).collect()
}

fn reference_of(descriptor: &Descriptor) -> Option<String> {
    let annotations = descriptor.annotations.as_ref()?;
    let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];
    names.iter().find_map(|name| annotations.get(*name)).filter(|name| !name.is_empty()).cloned()
}

/// Chooses by platform, and by reference unless `named` says that this was done.
fn choose(all: Vec<Descriptor>, wanted: &ImageChoice, platform: &Platform, named: bool) -> Result<Descriptor> {
    let total = all.len();
    let references: Vec<String> = all.iter().filter_map(reference_of).collect();
    let is_meant = |descriptor: &Descriptor| match &wanted.reference {
        Some(text) if !named => reference_of(descriptor)
            .is_some_and(|name| name == *text || name.rsplit_once(':').is_some_and(|(_, tag)| tag == text)),
        _ => true,
    };
    let meant: Vec<Descriptor> = all.into_iter().filter(is_meant).collect();
    if let (true, Some(text)) = (meant.is_empty(), &wanted.reference) {
        return Err(Error::new(format!("it holds no image {text:?}, only: {}", references.join(", "))));
    }
    let platforms: Vec<String> =
        meant.iter().filter_map(|one| one.platform.as_ref()).map(Platform::to_string).collect();
    let fits = |one: &Descriptor| one.platform.as_ref().is_none_or(|its| its.fits(platform));
    let mut fitting: Vec<Descriptor> = meant.into_iter().filter(fits).collect();
    // of several variants prefer the image without a variant
    fitting.sort_by_key(|one| one.platform.as_ref().is_none_or(|its| its.variant.is_some()));
    let different = |one: &Descriptor| reference_of(one) != fitting.first().and_then(reference_of);
    match fitting.as_slice() {
        [] if total == 0 => Err(Error::new("it holds no image")),
        [] => Err(Error::new(format!(
            "it holds no image for {platform}, only for: {}; --platform chooses",
            platforms.join(", ")
        ))),
        several if several.iter().any(different) || (several.len() > 1 && several[1].platform.is_none()) => {
            Err(Error::new(format!("it holds several images; choose with --reference: {}", references.join(", "))))
        }
        _ => Ok(fitting.swap_remove(0)),
    }
}

/// The image of a directory in the format of skopeo's `dir:`.
///
/// # Errors
/// A file is missing, damaged or malformed, or no image is for the platform.
pub fn directory(layout: &Layout, wanted: &ImageChoice) -> Result<Found> {
    let bytes = bytes(layout, "manifest.json", None)?;
    let shape: Shape = serde_json::from_slice(&bytes).context(|| "\"manifest.json\" is not a manifest")?;
    let name = |digest: &Digest| digest.digits().to_owned();
    let platform = wanted.platform()?;
    let manifest: Manifest = match shape.manifests {
        Some(_) => {
            let index: Index = serde_json::from_slice(&bytes).context(|| "\"manifest.json\" is not an index")?;
            let chosen = choose(index.manifests.unwrap_or_default(), wanted, &platform, true)?;
            let digest = Digest::new(&chosen.digest)?;
            json(layout, &format!("{}.manifest.json", digest.digits()), Some(&digest))?
        }
        None => serde_json::from_slice(&bytes).context(|| "\"manifest.json\" is malformed")?,
    };
    found(layout, manifest, None, &platform, name)
}

/// The image that a manifest describes; `name` gives the path of a blob.
fn found(
    layout: &Layout,
    manifest: Manifest,
    reference: Option<String>,
    wanted: &Platform,
    name: impl Fn(&Digest) -> String,
) -> Result<Found> {
    let digest = Digest::new(&manifest.config.digest)?;
    let raw_config = bytes(layout, &name(&digest), Some(&digest)).context(|| "configuration")?;
    let config: Config = serde_json::from_slice(&raw_config).context(|| "configuration")?;
    let platform = config.must_fit(wanted)?;
    let layer = |layer: Descriptor| {
        must_be_known(&layer)?;
        let digest = Digest::new(&layer.digest)?;
        layout.must_have(&name(&digest), layer.size)?;
        Ok((name(&digest), Some(digest)))
    };
    let layers = manifest.layers.unwrap_or_default().into_iter().map(layer).collect::<Result<Vec<_>>>()?;
    let annotations = manifest.annotations.unwrap_or_default();
    let config_digest = Some(manifest.config.digest);
    Ok(Found { layers, config, platform, config_digest, raw_config, annotations, reference })
}

/// Chooses an image from an archive of `docker save`.
///
/// # Errors
/// A file is missing, damaged or malformed, no image or several images match, or the image is for another platform.
pub fn docker(layout: &Layout, wanted: &ImageChoice) -> Result<Found> {
    let images: Vec<Saved> = json(layout, "manifest.json", None)?;
    let tags: Vec<String> = images.iter().filter_map(|image| image.tags.clone()).flatten().collect();
    let is_meant = |image: &Saved| match &wanted.reference {
        Some(text) => image
            .tags
            .iter()
            .flatten()
            .any(|name| name == text || name.rsplit_once(':').is_some_and(|(_, tag)| tag == text)),
        None => true,
    };
    let mut meant: Vec<Saved> = images.into_iter().filter(is_meant).collect();
    let image = match meant.len() {
        1 => meant.swap_remove(0),
        0 => return Err(Error::new(format!("it holds no such image, only: {}", tags.join(", ")))),
        _ => return Err(Error::new(format!("it holds several images; choose with --reference: {}", tags.join(", ")))),
    };
    // Docker names the configuration DIGITS.json or blobs/sha256/DIGITS
    let digits = image.config.strip_suffix(".json").unwrap_or(&image.config).rsplit('/').next().unwrap_or_default();
    let digest = Digest::new(&format!("sha256:{digits}")).context(|| "configuration")?;
    let raw_config = bytes(layout, &image.config, Some(&digest)).context(|| "configuration")?;
    let config: Config = serde_json::from_slice(&raw_config).context(|| "configuration")?;
    let platform = config.must_fit(&wanted.platform()?)?;
    let layers: Vec<(String, Option<Digest>)> =
        image.layers.unwrap_or_default().into_iter().map(|name| (name, None)).collect();
    let reference = match &wanted.reference {
        Some(text) => image.tags.iter().flatten().find(|tag| tag.ends_with(text.as_str())).cloned(),
        None => image.tags.iter().flatten().next().cloned(),
    };
    let config_digest = Some(format!("sha256:{digits}"));
    Ok(Found { layers, config, platform, config_digest, raw_config, annotations: BTreeMap::new(), reference })
}

/// Reads a file of the layout as JSON, and verifies its digest if one is given.
fn json<T: DeserializeOwned>(layout: &Layout, name: &str, digest: Option<&Digest>) -> Result<T> {
    let bytes = bytes(layout, name, digest)?;
    serde_json::from_slice(&bytes).context(|| format!("{name:?} is malformed"))
}

/// Reads a small file of the layout, and verifies its digest if one is given.
fn bytes(layout: &Layout, name: &str, digest: Option<&Digest>) -> Result<Vec<u8>> {
    let shown = || format!("{name:?}");
    let mut bytes = Vec::new();
    let file = layout.open(name)?;
    file.take(JSON_BYTES + 1).read_to_end(&mut bytes).context(shown)?;
    if bytes.len() as u64 > JSON_BYTES {
        return Err(Error::new(format!("{name:?} is larger than {JSON_BYTES} bytes")));
    }
    if let Some(digest) = digest {
        Verified::new(&bytes[..], digest, JSON_BYTES).finish().context(shown)?;
    }
    Ok(bytes)
}

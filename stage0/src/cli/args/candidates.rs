//! The candidates for completing a word in a shell: the pods, apps, images and volumes that exist.
//!
//! These functions print no error: a user who may not read the directories just gets no candidates.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};

use crate::image::store::find;
use crate::poddir::find as pods;
use crate::poddir::manifest;
use crate::store::{self, Store};
use crate::volume::named;

/// Completes pods by their names, or by their UUIDs if they have none.
pub fn a_pod() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| matching(word, names_of_pods()))
}

/// Completes the apps of the pod that an earlier word names.
pub fn an_app() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| matching(word, names_of_apps()))
}

/// Completes images by their names.
pub fn an_image() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| matching(word, names_of_images()))
}

/// Completes named volumes.
pub fn a_volume() -> ArgValueCompleter {
    ArgValueCompleter::new(|word: &OsStr| matching(word, names_of_volumes()))
}

fn matching(word: &OsStr, found: Option<Vec<(String, String)>>) -> Vec<CompletionCandidate> {
    let word = word.to_string_lossy();
    let fitting = found.unwrap_or_default().into_iter().filter(|(name, _)| name.starts_with(&*word));
    fitting.map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into()))).collect()
}

fn names_of_pods() -> Option<Vec<(String, String)>> {
    let pods = pods::list(&store()?).ok()?;
    let shown = pods.into_iter().map(|pod| {
        let name = pod.name().ok().flatten().map_or_else(|| pod.uuid().to_string(), |name| name.to_string());
        (name, pod.state().word().to_owned())
    });
    Some(shown.collect())
}

fn names_of_apps() -> Option<Vec<(String, String)>> {
    let store = store()?;
    let pod = words().into_iter().find_map(|word| pods::find(&store, word.to_str()?).ok())?;
    let manifest = manifest::read(pod.dir()).ok()?;
    Some(manifest.apps.into_iter().map(|app| (app.name.to_string(), String::new())).collect())
}

fn names_of_images() -> Option<Vec<(String, String)>> {
    let images = find::list(&store()?).ok()?;
    Some(images.into_iter().flat_map(|(_, names)| names).map(|name| (name, String::new())).collect())
}

fn names_of_volumes() -> Option<Vec<(String, String)>> {
    let volumes = named::list(&store()?).ok()?;
    Some(volumes.into_iter().map(|volume| (volume.name.to_string(), String::new())).collect())
}

/// The words of the command line that the shell asks about, without the command's name.
fn words() -> Vec<OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(2).collect()
}

fn store() -> Option<Store> {
    let words = words();
    let mut dir = PathBuf::from(store::USUAL);
    for (number, word) in words.iter().enumerate() {
        match word.to_str().and_then(|word| word.strip_prefix("--dir")) {
            Some("") => dir = words.get(number + 1)?.into(),
            Some(rest) => dir = rest.strip_prefix('=').map_or(dir, PathBuf::from),
            None => {}
        }
    }
    Store::open(&dir).ok()
}

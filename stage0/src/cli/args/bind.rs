//! Volumes as other tools write them

use serde_json::Map;
use stage1::appc::{AcName, Mount, Volume, VolumeKind};
use stage1::error::{Context, Error, Result};

use super::volume::absolute;
use crate::fsutil::dir::must_exist;

/// `SOURCE:TARGET[:ro|rw]`. A source with a slash is a path of the host, mounted for this app alone; else it is the name
/// of a volume of the pod.
///
/// # Errors
/// It is anything else, or a path that is not there.
pub fn mount(text: &str) -> Result<Mount> {
    read(text).context(|| format!("-v {text:?}"))
}

fn read(text: &str) -> Result<Mount> {
    const FORM: &str = "it is written HOSTPATH:PATH[:ro], or NAME:PATH for a volume of the pod";
    let words: Vec<&str> = text.split(':').collect();
    let (source, target, read_only) = match words.as_slice() {
        [source, target] | [source, target, "rw"] => (*source, *target, false),
        [source, target, "ro"] => (*source, *target, true),
        [_, _, other] => return Err(Error::new(format!("{other:?} is neither ro nor rw"))),
        _ => return Err(Error::new(FORM)),
    };
    if source.is_empty() || target.is_empty() {
        return Err(Error::new(FORM));
    }
    let path = absolute(target).context(|| "where the app sees it")?;
    if !source.contains('/') {
        let volume = source.parse().context(|| FORM)?;
        if read_only {
            return Err(Error::new("a volume of the pod is read-only for all: --volume NAME,kind=…,readOnly=true"));
        }
        return Ok(Mount { volume, path, app_volume: None, other: Map::new() });
    }
    let source = match source.starts_with('/') {
        true => absolute(source)?,
        false => {
            let path = std::path::Path::new(source).canonicalize().context(|| format!("the source {source:?}"))?;
            path.into_os_string().into_string().map_err(|path| Error::new(format!("{path:?} is not UTF-8")))?
        }
    };
    must_exist(&source)?;
    let name = name(&path)?;
    let volume = Volume {
        name: name.clone(),
        kind: VolumeKind::Host,
        source: Some(source),
        read_only: Some(read_only),
        recursive: None,
        mode: None,
        uid: None,
        gid: None,
        other: Map::new(),
    };
    Ok(Mount { volume: name, path, app_volume: Some(volume), other: Map::new() })
}

/// What a volume is called that is mounted at `target` and has no name: `host-srv-data`.
fn name(target: &str) -> Result<AcName> {
    let words: String =
        target.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect();
    let words: Vec<&str> = ["host"].into_iter().chain(words.split('-').filter(|word| !word.is_empty())).collect();
    words.join("-").parse()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_host_and_volumes_of_the_pod() {
        let host = mount("/tmp:/srv/my.data:ro").unwrap();
        let volume = host.app_volume.unwrap();
        assert_eq!((host.volume.as_ref(), host.path.as_str()), ("host-srv-my-data", "/srv/my.data"));
        assert_eq!((volume.name, volume.source.as_deref()), (host.volume, Some("/tmp")));
        assert_eq!(volume.read_only, Some(true));
        assert_eq!(mount("/tmp:/x").unwrap().app_volume.unwrap().read_only, Some(false));
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let relative = mount("./:/x").unwrap().app_volume.unwrap().source;
        assert_eq!(relative.as_deref(), here.to_str());

        let of_pod = mount("data:/x").unwrap();
        assert_eq!((of_pod.volume.as_ref(), of_pod.app_volume), ("data", None));
        for bad in ["", "/tmp", "/tmp:", ":/x", "/tmp:x", "/tmp:/x:z", "/no/such:/x", "data:/x:ro", "a b:/x", "a:b:c:d"]
        {
            let line = mount(bad).unwrap_err().one_line();
            assert!(line.starts_with("-v "), "{line}");
        }
    }
}

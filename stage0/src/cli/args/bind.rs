//! Volumes as other tools write them

use stage1::appc::Mount;
use stage1::error::{Context, Error, Result};

use super::volume::absolute;
use crate::app::mounts::{self, Bind};
use crate::fsutil::dir::must_exist;

/// What is mounted.
#[derive(Debug, PartialEq)]
pub enum Source {
    /// A path of the host.
    Host(Mount),
    /// A volume, by its name.
    Named(Bind),
}

/// `SOURCE:TARGET[:ro|rw]`. A source with a slash is a path of the host, mounted for this app alone; else it is the name
/// of a volume of the pod, or of a named one.
///
/// # Errors
/// It is anything else, or a path that is not there.
pub fn mount(text: &str) -> Result<Source> {
    read(text).context(|| format!("-v {text:?}"))
}

fn read(text: &str) -> Result<Source> {
    const FORM: &str = "it is written HOSTPATH:PATH[:ro], or NAME:PATH[:ro] for a volume";
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
        return Ok(Source::Named(Bind { volume: source.parse().context(|| FORM)?, path, read_only }));
    }
    let source = match source.starts_with('/') {
        true => absolute(source)?,
        false => {
            let path = std::path::Path::new(source).canonicalize().context(|| format!("the source {source:?}"))?;
            path.into_os_string().into_string().map_err(|path| Error::new(format!("{path:?} is not UTF-8")))?
        }
    };
    must_exist(&source)?;
    mounts::host(&path, &source, read_only).map(Source::Host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Mount {
        match mount(text).unwrap() {
            Source::Host(mount) => mount,
            named => panic!("{named:?}"),
        }
    }

    #[test]
    fn paths_of_the_host_and_volumes_by_name() {
        let mounted = host("/tmp:/srv/my.data:ro");
        let volume = mounted.app_volume.unwrap();
        assert_eq!((mounted.volume.as_ref(), mounted.path.as_str()), ("host-srv-my-data", "/srv/my.data"));
        assert_eq!((volume.name, volume.source.as_deref()), (mounted.volume, Some("/tmp")));
        assert_eq!(volume.read_only, Some(true));
        assert_eq!(host("/tmp:/x").app_volume.unwrap().read_only, Some(false));
        let here = std::env::current_dir().unwrap().canonicalize().unwrap();
        let relative = host("./:/x").app_volume.unwrap().source;
        assert_eq!(relative.as_deref(), here.to_str());

        let Source::Named(bind) = mount("pg_data:/x:ro").unwrap() else { panic!() };
        assert_eq!((bind.volume.as_str(), bind.path.as_str(), bind.read_only), ("pg_data", "/x", true));
        for bad in ["", "/tmp", "/tmp:", ":/x", "/tmp:x", "/tmp:/x:z", "/no/such:/x", "a b:/x", "a:b:c:d"] {
            let line = mount(bad).unwrap_err().one_line();
            assert!(line.starts_with("-v "), "{line}");
        }
    }
}

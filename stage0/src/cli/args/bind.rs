//! The option `-v`: volumes in the form of docker and podman

use stage1::appc::Mount;
use stage1::error::{Context, Error, Result};
use stage1::sys::mount::Propagation;

use crate::app::mounts::{self, Bind, absolute};
use crate::fsutil::dir::must_exist;

/// The source of a mount.
#[derive(Debug, PartialEq)]
pub enum Source {
    /// A path of the host.
    Host(Mount),
    /// A volume of the pod or a named volume, by its name.
    Named(Bind),
}

/// Parses `SOURCE:TARGET[:WORD[,WORD…]]`. A source with a slash is a path of the host, mounted for this app alone;
/// without one it is the name of a volume of the pod or of a named volume.
///
/// # Errors
/// The text does not have this form, or the path of the host does not exist.
pub fn mount(text: &str) -> Result<Source> {
    read(text).context(|| format!("-v {text:?}"))
}

fn read(text: &str) -> Result<Source> {
    const FORM: &str = "expected HOSTPATH:PATH[:ro], or NAME:PATH[:ro] for a volume";
    let words: Vec<&str> = text.split(':').collect();
    let (source, target, words) = match words.as_slice() {
        [source, target] => (*source, *target, ""),
        [source, target, words] => (*source, *target, *words),
        _ => return Err(Error::new(FORM)),
    };
    let Words { read_only, below_as_it_is, propagation } = Words::read(words)?;
    if source.is_empty() || target.is_empty() {
        return Err(Error::new(FORM));
    }
    let path = absolute(target).context(|| "where the app sees it")?;
    if !source.contains('/') {
        if propagation.is_some() || below_as_it_is {
            return Err(Error::new(
                "only ro and rw apply to a volume's name; the other words are for a path of the host",
            ));
        }
        return Ok(Source::Named(Bind { volume: source.parse().context(|| FORM)?, path, read_only }));
    }
    let source = match source.starts_with('/') {
        true => absolute(source)?,
        false => {
            must_exist(source)?;
            let path = std::path::Path::new(source).canonicalize().context(|| format!("the source {source:?}"))?;
            path.into_os_string().into_string().map_err(|path| Error::new(format!("{path:?} is not UTF-8")))?
        }
    };
    must_exist(&source)?;
    let mount = mounts::host(&path, &source, read_only)?;
    Ok(Source::Host(mounts::with_ways(mount, propagation, below_as_it_is)))
}

/// The words after the target.
#[derive(Default)]
struct Words {
    read_only: bool,
    below_as_it_is: bool,
    propagation: Option<Propagation>,
}

impl Words {
    fn read(text: &str) -> Result<Self> {
        let mut found = Self::default();
        let mut is_said = false;
        for word in text.split(',').filter(|_| !text.is_empty()) {
            match word {
                "ro" | "rw" if !is_said => (found.read_only, is_said) = (word == "ro", true),
                "bind-recursive=writable" => found.below_as_it_is = true,
                word if found.propagation.is_none() => {
                    let known = word.parse().ok();
                    found.propagation = Some(known.context(|| {
                        format!("{word:?}: expected ro, rw, private, slave, shared, or bind-recursive=writable with ro")
                    })?);
                }
                _ => return Err(Error::new(format!("{word:?} contradicts a word before it"))),
            }
        }
        if found.below_as_it_is && !found.read_only {
            return Err(Error::new("bind-recursive=writable needs ro"));
        }
        if found.read_only && !found.below_as_it_is && found.propagation.is_some_and(|p| p != Propagation::Private) {
            return Err(Error::new(
                "with slave or shared, later mounts would be writable: ro needs bind-recursive=writable, too",
            ));
        }
        Ok(found)
    }
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

        let ways = host("/tmp:/x:ro,rslave,bind-recursive=writable").app_volume.unwrap();
        assert_eq!((ways.propagation().unwrap(), ways.is_read_only_below()), (Some(Propagation::Slave), false));
        let ways = host("/tmp:/x:shared").app_volume.unwrap();
        assert_eq!((ways.propagation().unwrap(), ways.is_read_only_below()), (Some(Propagation::Shared), true));
        for (words, why) in [
            ("z", "expected ro, rw, private"),
            ("ro,rw", "\"rw\""),
            ("slave,shared", "contradicts"),
            ("bind-recursive=writable", "needs ro"),
            ("ro,slave", "later mounts would be writable"),
        ] {
            let line = mount(&format!("/tmp:/x:{words}")).unwrap_err().one_line();
            assert!(line.contains(why), "{words}: {line}");
        }
        assert!(mount("data:/x:slave").unwrap_err().one_line().contains("only ro and rw"));

        let Source::Named(bind) = mount("pg_data:/x:ro").unwrap() else { panic!() };
        assert_eq!((bind.volume.as_str(), bind.path.as_str(), bind.read_only), ("pg_data", "/x", true));
        for bad in ["", "/tmp", "/tmp:", ":/x", "/tmp:x", "/tmp:/x:z", "/no/such:/x", "a b:/x", "a:b:c:d"] {
            let line = mount(bad).unwrap_err().one_line();
            assert!(line.starts_with("-v "), "{line}");
        }
    }
}

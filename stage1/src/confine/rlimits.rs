//! Resource limits of an app's processes: setrlimit(2).

use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// Annotation of an app: limits separated by blanks, each `NAME=SOFT[:HARD]`, such as `nofile=1024:4096`.
pub const ULIMITS: &str = "podctl.io/ulimits";

/// Names of the limits, as Docker has them.
const NAMES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// A limit. `None` means no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimit {
    name: String,
    soft: Option<u64>,
    hard: Option<u64>,
}

impl std::str::FromStr for ResourceLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let form = || format!("limit {text:?}: expected NAME=SOFT[:HARD], such as nofile=1024:4096; -1 is no limit");
        let (name, values) = text.split_once('=').context(form)?;
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let value = |text: &str| match text {
            "-1" | "unlimited" => Ok(None),
            number => number.parse().map(Some).context(form),
        };
        let limit = Self { name: name.to_owned(), soft: value(soft)?, hard: value(hard)? };
        limit.resource()?;
        if limit.hard.is_some_and(|hard| limit.soft.is_none_or(|soft| soft > hard)) {
            return Err(Error::new(format!("limit {text:?}: the soft limit is above the hard one")));
        }
        Ok(limit)
    }
}

impl ResourceLimit {
    /// Parses the value of the annotation [`ULIMITS`].
    ///
    /// # Errors
    /// A limit has another form, an unknown name, or a soft limit above the hard one.
    pub fn parse_all(text: &str) -> Result<Vec<Self>> {
        text.split_whitespace().map(str::parse).collect()
    }

    fn resource(&self) -> Result<Resource> {
        let found = NAMES.iter().find(|(name, _)| *name == self.name);
        found.map(|(_, resource)| *resource).context(|| {
            let names: Vec<_> = NAMES.iter().map(|(name, _)| *name).collect();
            format!("unknown limit {:?}: expected one of {}", self.name, names.join(", "))
        })
    }

    /// Sets it for this process. Pod side.
    ///
    /// # Errors
    /// The kernel refuses it, for example above the current hard limit without CAP_SYS_RESOURCE.
    pub(super) fn set(&self) -> Result<()> {
        let limit = Rlimit { current: self.soft, maximum: self.hard };
        rustix::process::setrlimit(self.resource()?, limit)
            .context(|| format!("setrlimit({}, {:?}, {:?})", self.name, self.soft, self.hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_docker_reads_them() {
        let limits = ResourceLimit::parse_all("nofile=10:20 core=0  memlock=-1").unwrap();
        let of = |name: &str, soft, hard| ResourceLimit { name: name.into(), soft, hard };
        let expected = [of("nofile", Some(10), Some(20)), of("core", Some(0), Some(0)), of("memlock", None, None)];
        assert_eq!(limits, expected);
        for bad in ["nofile", "nofile=", "nofile=x", "banana=1", "nofile=20:10", "nofile=-1:10", "NOFILE=1"] {
            assert!(bad.parse::<ResourceLimit>().is_err(), "{bad}");
        }
    }
}

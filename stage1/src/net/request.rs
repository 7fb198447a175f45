//! The value of `--net`. Pure.

use crate::error::{Error, Result};

/// The built-in network with a default route.
pub const DEFAULT: &str = "default";
/// The built-in network that reaches the host only. It is added to other networks unless [`DEFAULT`] is among them.
pub const RESTRICTED: &str = "default-restricted";
/// A word among the names of networks that keeps [`RESTRICTED`] from being added.
const UNRESTRICTED: &str = "!default-restricted";

/// The networks that are requested for a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkRequest {
    /// The host's network namespace.
    Host,
    /// Its own network namespace, with the loopback interface only.
    None,
    /// Its own network namespace, which joins networks.
    Contained(Selection),
}

/// The networks that a pod joins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Whether it joins every configured network.
    pub all: bool,
    /// Whether [`RESTRICTED`] is not added.
    pub only: bool,
    /// Networks by name, each with its arguments (`KEY=VALUE;…`).
    pub named: Vec<(String, String)>,
}

impl NetworkRequest {
    /// Parses a list of `NAME[:KEY=VALUE;…]`; an empty list means the network [`DEFAULT`].
    ///
    /// # Errors
    /// A name or an argument is not valid, a network is given twice, or `host` or `none` is combined with others.
    pub fn parse(list: &[String]) -> Result<Self> {
        let mut selection = Selection::default();
        match list {
            [] => selection.named.push((DEFAULT.into(), String::new())),
            [one] if one == "host" => return Ok(Self::Host),
            [one] if one == "none" => return Ok(Self::None),
            several => {
                let refused = |why: String| Error::new(format!("--net={}: {why}", several.join(",")));
                for network in several {
                    selection.add(network).map_err(refused)?;
                }
                if selection.only && selection.named.is_empty() && !selection.all {
                    return Err(refused(format!("{UNRESTRICTED} needs another network")));
                }
            }
        }
        Ok(Self::Contained(selection))
    }

    /// Whether the pod has a network namespace of its own.
    pub fn is_own(&self) -> bool {
        *self != Self::Host
    }
}

impl Selection {
    fn add(&mut self, network: &str) -> Result<(), String> {
        let (name, arguments) = network.split_once(':').unwrap_or((network, ""));
        match name {
            "host" | "none" => return Err(format!("{name} can't be combined with other networks or arguments")),
            "all" if !arguments.is_empty() => return Err("all has no arguments".into()),
            UNRESTRICTED => {
                self.only = true;
                return Ok(());
            }
            "all" if self.all => return Err("all is given twice".into()),
            "all" => {
                self.all = true;
                return Ok(());
            }
            _ => {}
        }
        if !is_name(name) {
            return Err(format!("{name:?} is not a network name"));
        }
        if self.arguments(name).is_some() {
            return Err(format!("{name} is given twice"));
        }
        if let Some(bad) = arguments.split(';').find(|pair| !arguments.is_empty() && !is_argument(pair)) {
            return Err(format!("the argument {bad:?} of {name} is not NAME=VALUE"));
        }
        self.named.push((name.to_owned(), arguments.to_owned()));
        Ok(())
    }

    /// The arguments of a network in `named`; `None` if it is not in there.
    pub fn arguments(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(other, _)| other == name).map(|(_, arguments)| arguments.as_str())
    }
}

/// Whether `name` is a network name of the CNI specification.
pub fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn is_argument(pair: &str) -> bool {
    pair.split_once('=').is_some_and(|(name, _)| !name.is_empty()) && !pair.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<NetworkRequest> {
        let list: Vec<String> = text.split(',').filter(|net| !net.is_empty()).map(str::to_owned).collect();
        NetworkRequest::parse(&list)
    }

    fn contained(all: bool, named: &[(&str, &str)]) -> NetworkRequest {
        let named = named.iter().map(|&(name, arguments)| (name.into(), arguments.into())).collect();
        NetworkRequest::Contained(Selection { all, named, only: false })
    }

    #[test]
    fn as_rkt_documents_them() {
        assert_eq!(parse("host").unwrap(), NetworkRequest::Host);
        assert_eq!(parse("none").unwrap(), NetworkRequest::None);
        assert_eq!(parse("").unwrap(), contained(false, &[("default", "")]));
        assert_eq!(parse("default").unwrap(), contained(false, &[("default", "")]));
        assert_eq!(parse("all").unwrap(), contained(true, &[]));
        let two = parse("all,net1:IP=10.0.0.1,b:A=1;B=x:y=z").unwrap();
        let alone = NetworkRequest::Contained(Selection {
            named: vec![("a".into(), "A=1".into())],
            only: true,
            ..Selection::default()
        });
        assert_eq!(parse("a:A=1,!default-restricted").unwrap(), alone);
        assert_eq!(two, contained(true, &[("net1", "IP=10.0.0.1"), ("b", "A=1;B=x:y=z")]));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, why) in [
            ("host,none", "host can't be combined with other networks"),
            ("a,none", "none can't be combined with other networks"),
            ("a,b,a:X=1", "a is given twice"),
            ("all,all", "all is given twice"),
            ("all:A=1", "all has no arguments"),
            ("../a", "\"../a\" is not a network name"),
            ("-a", "\"-a\" is not a network name"),
            ("a:", ""),
            ("a:X", "the argument \"X\" of a"),
            ("a:A=1;", "the argument \"\" of a"),
            ("!default-restricted", "needs another network"),
            ("a:=1", "the argument \"=1\" of a"),
        ] {
            match parse(text) {
                Ok(_) => assert!(why.is_empty(), "{text}"),
                Err(error) => {
                    let line = error.one_line();
                    assert!(!why.is_empty() && line.contains(why) && line.contains(text), "{line}");
                }
            }
        }
    }
}

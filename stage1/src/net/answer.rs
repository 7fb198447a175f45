//! The result of a plugin's ADD: addresses and DNS settings, in any version of the CNI specification. Pure.

use std::net::IpAddr;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::{Context, Error, Result};
use crate::json::{self, or_default};

/// An address of the pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address, as it was written.
    pub ip: String,
    /// Length of the network's prefix, in bits.
    pub prefix: u8,
    /// The gateway's address, if there is one.
    pub gateway: Option<String>,
}

/// DNS settings: resolv.conf(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dns {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// The local domain, or empty.
    pub domain: String,
    /// The search list.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A parsed result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// The pod's addresses.
    pub addresses: Vec<Address>,
    /// The pod's DNS settings.
    pub dns: Dns,
}

/// A result in JSON.
#[derive(Deserialize)]
struct AnswerJson {
    #[serde(default, deserialize_with = "or_default")]
    interfaces: Vec<Value>,
    #[serde(default, deserialize_with = "or_default")]
    ips: Vec<IpJson>,
    ip4: Option<OldIpJson>,
    ip6: Option<OldIpJson>,
    dns: Option<DnsJson>,
}

#[derive(Deserialize)]
struct IpJson {
    address: String,
    #[serde(default, deserialize_with = "or_default")]
    gateway: String,
    interface: Option<u64>,
}

/// An address in versions before 0.3.0.
#[derive(Deserialize)]
struct OldIpJson {
    ip: String,
    #[serde(default, deserialize_with = "or_default")]
    gateway: String,
}

#[derive(Deserialize)]
struct DnsJson {
    #[serde(default, deserialize_with = "or_default")]
    nameservers: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    domain: String,
    #[serde(default, deserialize_with = "or_default")]
    search: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    options: Vec<String>,
}

impl Answer {
    /// Interprets a result.
    ///
    /// # Errors
    /// `value` is not a result of the CNI specification.
    pub fn of(value: &Value) -> Result<Self> {
        let written: AnswerJson = json::from_value(value.clone())?;
        let in_pod = |index: u64| {
            let interface = usize::try_from(index).ok().and_then(|index| written.interfaces.get(index));
            interface.is_none_or(|one| one["sandbox"].as_str().is_some_and(|sandbox| !sandbox.is_empty()))
        };
        let mut addresses = Vec::new();
        for ip in written.ips.iter().filter(|ip| ip.interface.is_none_or(in_pod)) {
            addresses.push(address(&ip.address, &ip.gateway)?);
        }
        for ip in [written.ip4, written.ip6].into_iter().flatten() {
            addresses.push(address(&ip.ip, &ip.gateway)?);
        }
        let dns = written.dns.map_or_else(|| Ok(Dns::default()), Dns::of).context(|| "\"dns\"")?;
        Ok(Self { addresses, dns })
    }

    /// Converts the result of a plugin before version 0.3.0 to version 0.4.0, for the next plugin.
    pub fn as_newer(&self) -> Value {
        let ips = self.addresses.iter().map(|address| {
            let version = if address.is_v6() { "6" } else { "4" };
            let mut ip = json!({"version": version, "address": address.to_string()});
            if let Some(gateway) = &address.gateway {
                ip["gateway"] = gateway.clone().into();
            }
            ip
        });
        json!({"cniVersion": "0.4.0", "ips": ips.collect::<Vec<_>>()})
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl Address {
    /// Whether it is an IPv6 address.
    pub fn is_v6(&self) -> bool {
        self.ip.contains(':')
    }

    /// The netmask.
    pub fn mask(&self) -> String {
        // The part of the mask in the `width` bits that begin at bit `from`.
        let bits = |from: u8, width: u8| (1u32 << width) - (1 << (width - self.prefix.saturating_sub(from).min(width)));
        if !self.is_v6() {
            return [0, 8, 16, 24].map(|from| bits(from, 8).to_string()).join(".");
        }
        let groups = (0..8).map(|group| bits(group * 16, 16)).take_while(|group| *group != 0);
        let groups: Vec<String> = groups.map(|group| format!("{group:x}")).collect();
        if groups.len() == 8 { groups.join(":") } else { format!("{}::", groups.join(":")) }
    }
}

fn address(text: &str, gateway: &str) -> Result<Address> {
    let parse = || {
        let (ip, prefix) = text.split_once('/')?;
        let (parsed, prefix) = (ip.parse::<IpAddr>().ok()?, prefix.parse::<u8>().ok()?);
        let longest = if parsed.is_ipv4() { 32 } else { 128 };
        let is_gateway = gateway.is_empty() || gateway.parse::<IpAddr>().is_ok();
        let gateway = (!gateway.is_empty()).then(|| gateway.to_owned());
        (is_gateway && prefix <= longest).then(|| Address { ip: ip.to_owned(), prefix, gateway })
    };
    parse().context(|| format!("{text:?} with the gateway {gateway:?} is not an IP address"))
}

/// Splits the items of a list: some configurations write several words as one item, `"a, b"`.
fn words(texts: Vec<String>) -> Vec<String> {
    let words = texts.iter().flat_map(|text| text.split([' ', '\t', ',']));
    words.filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

impl Dns {
    fn of(written: DnsJson) -> Result<Self> {
        let dns = Self {
            servers: written.nameservers,
            domain: written.domain,
            search: words(written.search),
            options: words(written.options),
        };
        // Each becomes one word in resolv.conf.
        let words = dns.servers.iter().chain(&dns.search).chain(&dns.options).chain([&dns.domain]);
        let bad = words.into_iter().find(|word| word.contains(|c: char| c.is_whitespace() || c.is_control())).cloned();
        match bad {
            Some(word) => Err(Error::new(format!("{word:?} is not a word of resolv.conf"))),
            None => Ok(dns),
        }
    }

    /// Adds the items of `other` that this lacks, and its domain if this has none.
    pub fn merge(&mut self, other: &Self) {
        let lists = [
            (&mut self.servers, &other.servers),
            (&mut self.search, &other.search),
            (&mut self.options, &other.options),
        ];
        for (ours, theirs) in lists {
            for word in theirs {
                if !ours.contains(word) {
                    ours.push(word.clone());
                }
            }
        }
        if self.domain.is_empty() {
            self.domain.clone_from(&other.domain);
        }
    }

    /// The text of a resolv.conf(5); `None` if there are no settings.
    pub fn to_file(&self) -> Option<String> {
        if *self == Self::default() {
            return None;
        }
        let mut text = String::new();
        if !self.domain.is_empty() {
            text += &format!("domain {}\n", self.domain);
        }
        if !self.search.is_empty() {
            text += &format!("search {}\n", self.search.join(" "));
        }
        for server in &self.servers {
            text += &format!("nameserver {server}\n");
        }
        if !self.options.is_empty() {
            text += &format!("options {}\n", self.options.join(" "));
        }
        Some(text)
    }
}

/// Parses a result; also returns it as JSON.
///
/// # Errors
/// `text` is not JSON, or not a result of the CNI specification.
pub fn parse(text: &[u8]) -> Result<(Value, Answer)> {
    let read = || -> Result<(Value, Answer)> {
        let value: Value = json::parse(text)?;
        let answer = Answer::of(&value)?;
        Ok((value, answer))
    };
    read().map_err(|error| Error::caused_by("its output is not a result as the CNI specification defines it", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version() {
        let new = br#"{"cniVersion":"1.0.0","interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/run/x"}],
            "ips":[{"interface":1,"address":"10.0.0.2/24","gateway":"10.0.0.1"},{"interface":0,"address":"10.0.0.1/24"},
            {"address":"fd00::2/64"}],"dns":{"nameservers":["10.0.0.1"],"search":["a.b","c"],"domain":"d","options":null}}"#;
        let (_, answer) = parse(new).unwrap();
        let shown: Vec<_> = answer.addresses.iter().map(|a| (a.to_string(), a.mask(), a.gateway.is_some())).collect();
        let expected = [("10.0.0.2/24", "255.255.255.0", true), ("fd00::2/64", "ffff:ffff:ffff:ffff::", false)];
        assert_eq!(shown, expected.map(|(a, m, g)| (a.to_owned(), m.to_owned(), g)));
        assert_eq!(answer.dns.to_file().unwrap(), "domain d\nsearch a.b c\nnameserver 10.0.0.1\n");

        let lists = br#"{"dns":{"search":["a, b","c"],"options":["ndots:2 rotate"]}}"#;
        let (_, answer) = parse(lists).unwrap();
        assert_eq!(answer.dns.to_file().unwrap(), "search a b c\noptions ndots:2 rotate\n");

        let old = br#"{"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.3/32","gateway":"10.0.0.1","routes":[]},"dns":{}}"#;
        let (_, answer) = parse(old).unwrap();
        assert_eq!(answer.addresses[0].mask(), "255.255.255.255");
        assert_eq!(answer.dns.to_file(), None);
        assert_eq!(Answer::of(&answer.as_newer()).unwrap(), answer);
        assert_eq!(parse(b"{}").unwrap().1, Answer::default());
    }

    #[test]
    fn what_is_none_is_named() {
        for (text, why) in [
            ("", "not JSON"),
            (r#"{"ips":[{"address":"10.0.0.2"}]}"#, "\"10.0.0.2\" with the gateway \"\" is not an IP address"),
            (r#"{"ips":[{"address":"10.0.0.2/33"}]}"#, "is not an IP address"),
            (r#"{"ips":[{"address":"10.0.0.2/3","gateway":"x"}]}"#, "is not an IP address"),
            (r#"{"ips":7}"#, "ips: invalid type: integer `7`, expected a sequence"),
            (r#"{"dns":{"nameservers":["a\nsearch b"]}}"#, "is not a word of resolv.conf"),
        ] {
            let line = parse(text.as_bytes()).unwrap_err().one_line();
            assert!(line.starts_with("its output is not a result") && line.contains(why), "{line}");
        }
    }

    #[test]
    fn names_of_several_networks() {
        let mut all = Dns { servers: vec!["1.1.1.1".into()], ..Dns::default() };
        let more = Dns { servers: vec!["1.1.1.1".into(), "2.2.2.2".into()], domain: "d".into(), ..Dns::default() };
        all.merge(&more);
        all.merge(&Dns { domain: "e".into(), options: vec!["ndots:2".into()], ..Dns::default() });
        assert_eq!(all.to_file().unwrap(), "domain d\nnameserver 1.1.1.1\nnameserver 2.2.2.2\noptions ndots:2\n");
    }

    proptest::proptest! {
        #[test]
        fn masks_are_those_of_the_library(prefix in 0u8..=128, v6 in proptest::bool::ANY) {
            let ip = if v6 { "fd00::1" } else { "10.0.0.1" };
            if let Ok(address) = address(&format!("{ip}/{prefix}"), "") {
                let shift = u32::from(prefix);
                let mask: IpAddr = match v6 {
                    true => IpAddr::V6(u128::MAX.checked_shl(128 - shift).unwrap_or(0).into()),
                    false => IpAddr::V4(u32::MAX.checked_shl(32 - shift).unwrap_or(0).into()),
                };
                assert_eq!(address.mask().parse::<IpAddr>().unwrap(), mask);
            }
        }
    }
}

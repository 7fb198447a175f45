//! The options for a pod's resolv.conf and hosts file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use stage1::error::{Context, Error, Result};

use crate::pod::name_files::{NameFiles, Source};

/// The word for the host's file.
const HOST: &str = "host";
/// The word for no file, so that the image's own stays.
const NONE: &str = "none";

/// The options for a pod's resolv.conf and hosts file.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct NameOptions {
    /// Add a name server to the pod's resolv.conf; host: use the host's file; none: keep the image's file, even if
    /// networks have name servers
    #[arg(long, value_name = "ADDRESS")]
    dns: Vec<String>,
    /// Set the local domain (resolv.conf(5))
    #[arg(long, value_name = "DOMAIN")]
    dns_domain: Option<String>,
    /// Add a search domain
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Add an option to resolv.conf
    #[arg(long, value_name = "OPTION")]
    dns_opt: Vec<String>,
    /// Add lines to the pod's hosts file, separated by commas; host: use the host's file
    #[arg(long = "hosts-entry", value_name = "ADDRESS=NAME")]
    hosts: Vec<String>,
}

impl NameOptions {
    /// The sources of the two files.
    ///
    /// # Errors
    /// A value is not an address or not a word, or options exclude each other.
    pub fn understand(&self) -> Result<NameFiles> {
        Ok(NameFiles { resolv: self.resolv()?, hosts: self.hosts().context(|| "--hosts-entry")? })
    }

    fn resolv(&self) -> Result<Option<Source>> {
        let more = self.dns_domain.is_some() || !self.dns_search.is_empty() || !self.dns_opt.is_empty();
        if let Some(magic) = self.dns.iter().find(|server| [HOST, NONE].contains(&server.as_str())) {
            if more || self.dns.len() > 1 {
                return Err(Error::new(format!("--dns={magic} excludes every other --dns option")));
            }
            return Ok(Some(if magic == HOST { Source::Host } else { Source::None }));
        }
        if !more && self.dns.is_empty() {
            return Ok(None);
        }
        for server in &self.dns {
            server.parse::<IpAddr>().context(|| format!("--dns={server}: expected an IP address, host or none"))?;
        }
        for word in self.dns_domain.iter().chain(&self.dns_search).chain(&self.dns_opt) {
            check_word(word)?;
        }
        let mut text = String::from("# Made by podctl\n");
        let mut line = |name: &str, words: &[String]| {
            if !words.is_empty() {
                text += &format!("{name} {}\n", words.join(" "));
            }
        };
        line("search", &self.dns_search);
        self.dns.iter().for_each(|server| line("nameserver", std::slice::from_ref(server)));
        line("options", &self.dns_opt);
        self.dns_domain.iter().for_each(|domain| line("domain", std::slice::from_ref(domain)));
        Ok(Some(Source::Text(text)))
    }

    fn hosts(&self) -> Result<Option<Source>> {
        let entries: Vec<&str> = self.hosts.iter().flat_map(|text| text.split(',')).collect();
        if entries.is_empty() {
            return Ok(None);
        }
        if entries.contains(&HOST) {
            let alone = entries.iter().all(|entry| *entry == HOST);
            return if alone { Ok(Some(Source::Host)) } else { Err(Error::new("host excludes every other entry")) };
        }
        let mut names: BTreeMap<IpAddr, Vec<&str>> = BTreeMap::new();
        for entry in entries {
            let (ip, name) = entry.split_once('=').context(|| format!("expected ADDRESS=NAME, found {entry:?}"))?;
            let ip = ip.parse().context(|| format!("{ip:?} is not an IP address"))?;
            check_word(name)?;
            names.entry(ip).or_default().push(name);
        }
        let lines = names.iter().map(|(ip, names)| format!("{ip}\t{}\n", names.join(" ")));
        Ok(Some(Source::Text(lines.collect())))
    }
}

fn check_word(word: &str) -> Result<()> {
    if word.is_empty() || word.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(Error::new(format!("{word:?} is not a word: it may have no blanks, control characters or #")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser, Debug)]
    struct Line {
        #[command(flatten)]
        names: NameOptions,
    }

    fn understand(words: &str) -> Result<NameFiles> {
        let words = std::iter::once("x").chain(words.split(' ').filter(|word| !word.is_empty()));
        Line::try_parse_from(words).unwrap().names.understand()
    }

    #[test]
    fn as_rkt_documents_them() {
        let files = understand(
            "--dns=8.8.8.8 --dns=4.2.2.2 --dns-domain=example.org --dns-opt=debug --dns-opt=rotate \
             --dns-search=example.com --dns-search=example.gov --hosts-entry 198.51.100.0=host1,198.51.100.1=host2 \
             --hosts-entry 198.51.100.0=host3",
        )
        .unwrap();
        let text = "# Made by podctl\nsearch example.com example.gov\nnameserver 8.8.8.8\nnameserver 4.2.2.2\n\
            options debug rotate\ndomain example.org\n";
        assert_eq!(files.resolv, Some(Source::Text(text.into())));
        assert_eq!(files.hosts, Some(Source::Text("198.51.100.0\thost1 host3\n198.51.100.1\thost2\n".into())));
        assert_eq!(files.mode(None, false).unwrap(), "resolv=stage0,hosts=stage0");
        assert_eq!(files.mode(Some("hosts=host"), false).unwrap(), "resolv=stage0,hosts=host");
        let files = understand("--dns=none --hosts-entry=host").unwrap();
        assert_eq!(files.mode(None, false).unwrap(), "resolv=none,hosts=host");
        assert_eq!(understand("--dns=host").unwrap().mode(None, false).unwrap(), "resolv=host");
        assert_eq!(understand("").unwrap().mode(None, false), None);
        let on_host = |asked| understand("").unwrap().mode(asked, true).unwrap();
        assert_eq!(on_host(None), "resolv=host");
        assert_eq!(on_host(Some("resolv=default,hosts=host")), "resolv=default,hosts=host");
        assert_eq!(understand("").unwrap().or(files.clone()), files);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (words, why) in [
            ("--dns=here", "--dns=here: expected an IP address, host or none"),
            ("--dns=host --dns=1.1.1.1", "--dns=host excludes every other"),
            ("--dns=none --dns-opt=rotate", "--dns=none excludes every other"),
            ("--dns-search=", "\"\" is not a word"),
            ("--hosts-entry=a", "--hosts-entry: expected ADDRESS=NAME, found \"a\""),
            ("--hosts-entry=a=b", "\"a\" is not an IP address"),
            ("--hosts-entry=1.1.1.1=a,host", "host excludes every other entry"),
            ("--hosts-entry=1.1.1.1=", "\"\" is not a word"),
        ] {
            let line = understand(words).unwrap_err().one_line();
            assert!(line.contains(why), "{line}");
        }
    }
}

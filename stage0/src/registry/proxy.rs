//! Choosing the proxy for a server from the environment.

use stage1::error::{Error, Result};
use ureq::Proxy;

use super::url::Url;

/// The proxy for a URL by `HTTPS_PROXY` or `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, in capitals or not; `None` for a
/// direct connection.
///
/// # Errors
/// The variable does not hold the URL of a proxy.
pub(super) fn proxy(url: &Url) -> Result<Option<Proxy>> {
    let variable = |names: &[&str]| names.iter().find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()));
    let own: &[&str] = if url.is_secure() { &["HTTPS_PROXY", "https_proxy"] } else { &["HTTP_PROXY", "http_proxy"] };
    let Some(text) = variable(own).or_else(|| variable(&["ALL_PROXY", "all_proxy"])) else { return Ok(None) };
    let host = url.0.host().unwrap_or_default().trim_matches(['[', ']']);
    let is_here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if is_here || variable(&["NO_PROXY", "no_proxy"]).is_some_and(|list| is_excepted(host, url.0.port_u16(), &list)) {
        return Ok(None);
    }
    // do not show the URL, which may hold a password
    Proxy::new(&text).map(Some).map_err(|_| Error::new(format!("{} is not the URL of a proxy", own.join(" or "))))
}

/// Whether `NO_PROXY`, a list of hosts, domains (`.example.com`), addresses and networks (`10.0.0.0/8`), has the host.
fn is_excepted(host: &str, port: Option<u16>, list: &str) -> bool {
    let address = host.parse::<std::net::IpAddr>().ok();
    let fits = |one: &str| {
        if let (Some((network, length)), Some(address)) = (one.split_once('/'), address) {
            return network.parse().is_ok_and(|n| length.parse().is_ok_and(|l| is_in_network(address, n, l)));
        }
        let (name, its_port) = match one.rsplit_once(':') {
            Some((name, number)) if address.is_none_or(|a| a.is_ipv4()) => (name, number.parse::<u16>().ok()),
            _ => (one, None),
        };
        let name = name.trim_start_matches("*").trim_start_matches('.').to_ascii_lowercase();
        let host = host.to_ascii_lowercase();
        let is_below = host.strip_suffix(name.as_str()).is_some_and(|above| above.is_empty() || above.ends_with('.'));
        one == "*" || (!name.is_empty() && is_below && (its_port.is_none() || its_port == port))
    };
    list.split(',').map(str::trim).any(fits)
}

fn is_in_network(address: std::net::IpAddr, network: std::net::IpAddr, length: u32) -> bool {
    use std::net::IpAddr::{V4, V6};
    match (address, network) {
        (V4(a), V4(n)) if length <= 32 => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            (a.to_bits() ^ n.to_bits()) & mask == 0
        }
        (V6(a), V6(n)) if length <= 128 => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            (a.to_bits() ^ n.to_bits()) & mask == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_without_a_proxy() {
        for (host, list) in [
            ("a.test", "b.test, a.test"),
            ("x.a.test", ".a.test"),
            ("x.a.test", "*.a.test"),
            ("x.a.test", "a.test"),
            ("10.1.2.3", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("fd00::1", "fd00::/8"),
            ("a.test", "a.test:5000"),
            ("any", "*"),
        ] {
            assert!(is_excepted(host, Some(5000), list), "{host} {list}");
        }
        for (host, list) in
            [("a.test", "xa.test"), ("ba.test", "a.test"), ("a.test", "a.test:1"), ("11.0.0.1", "10.0.0.0/8")]
        {
            assert!(!is_excepted(host, Some(5000), list), "{host} {list}");
        }
    }
}

//! Published ports in the form of other tools

use std::net::IpAddr;

use stage1::error::{Context, Error, Result};

/// Converts `[HOSTIP:]HOSTPORT:PODPORT[/PROTOCOL]` to the form of `--port`: `tcp-8080:tcp:80:HOSTIP:8080`.
///
/// # Errors
/// The text has another form.
pub fn port(text: &str) -> Result<String> {
    const FORM: &str = "expected [HOSTIP:]HOSTPORT:PODPORT[/tcp|udp|sctp]";
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !["tcp", "udp", "sctp"].contains(&protocol) {
        return Err(Error::new(FORM));
    }
    let (host, pod) = numbers.rsplit_once(':').context(|| FORM)?;
    let (ip, host) = host.rsplit_once(':').unwrap_or(("", host));
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|number| number > 0);
    if !(ip.is_empty() || ip.parse::<IpAddr>().is_ok()) || !is_port(host) || !is_port(pod) {
        return Err(Error::new(FORM));
    }
    Ok(format!("{protocol}-{host}:{protocol}:{pod}:{ip}:{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_the_words_of_other_tools() {
        for (theirs, ours) in [
            ("8080:80", "tcp-8080:tcp:80::8080"),
            ("127.0.0.1:53:5353/udp", "udp-53:udp:5353:127.0.0.1:53"),
            ("[::1]:8080:80", "tcp-8080:tcp:80:::1:8080"),
        ] {
            assert_eq!(port(theirs).unwrap(), ours);
        }
        for bad in ["", "80", "8080:", ":80", "x:80", "0:80", "8080:80/icmp", "1.2.3:8080:80", "80-90:80-90", "70000:1"]
        {
            assert!(port(bad).unwrap_err().one_line().contains("HOSTPORT:PODPORT"), "{bad}");
        }
    }
}

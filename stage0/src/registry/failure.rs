//! Failed connections in plain words: which server, why, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};

use stage1::error::Error;
use ureq::Timeout;

use super::proxy::proxy;
use super::url::Url;

/// A failed connection. Shows its words, not the cause that they explain.
#[derive(Debug)]
pub(super) struct Failure {
    words: String,
    /// The cause, by which podctl decides whether to try again.
    pub(super) cause: ureq::Error,
}

impl Failure {
    /// The error of a request for `url` that got no answer; `verify` says whether the certificate counted.
    pub(super) fn of_request(url: &Url, verify: bool, cause: ureq::Error) -> Error {
        log::debug!("{url}: {cause}");
        let words = why(url, verify, &cause);
        Error::caused_by(format!("no answer from {}", url.authority()), Self { words, cause })
    }

    /// The error of an answer for `url` that broke after `have` bytes of `size`, if that is known.
    pub(super) fn of_body(url: &Url, have: u64, size: Option<u64>, cause: io::Error) -> Error {
        let cause = ureq::Error::from(cause);
        log::debug!("read {url}: {cause}");
        let came = size.map_or_else(|| format!("{have} bytes"), |size| format!("{have} of {size} bytes"));
        let words = match &cause {
            ureq::Error::Timeout(_) => format!("nothing more came after {came}: try again later"),
            other => format!("the connection broke after {came} ({}): try again", plain(other)),
        };
        Error::caused_by(format!("download from {}", url.authority()), Self { words, cause })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

impl StdError for Failure {}

/// Why a request failed, and what to do.
fn why(url: &Url, verify: bool, cause: &ureq::Error) -> String {
    // a proxy is whom podctl connects to; its URL may hold a password
    let (it, its_name, check) = match proxy(url) {
        Ok(Some(proxy)) => {
            let it = format!("the proxy {}:{}", proxy.host(), proxy.port());
            let its_name = format!("the name of {it}");
            (it, its_name, "check the proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names")
        }
        _ => ("it".to_owned(), "its name".to_owned(), "check that a registry listens there, and its port"),
    };
    let unknown = || format!("{its_name} can't be resolved: check the spelling, /etc/resolv.conf and the network");
    match cause {
        ureq::Error::Timeout(Timeout::Resolve) => {
            format!("{its_name} was not resolved in time: check /etc/resolv.conf and the network")
        }
        ureq::Error::Timeout(Timeout::Connect) => {
            format!("{it} did not accept the connection in time: check the network and the firewall")
        }
        ureq::Error::Timeout(_) => format!("{it} sent nothing in time: try again later"),
        ureq::Error::HostNotFound => unknown(),
        ureq::Error::ConnectProxyFailed(words) => format!("{it} does not connect to it ({words}): {check}"),
        ureq::Error::Rustls(error) => tls(url.authority(), verify, error),
        ureq::Error::LargeResponseHeader(..) => "its header is too large: it is not a registry".into(),
        ureq::Error::Protocol(words) => format!("{it} gives an answer that is not valid HTTP ({words}): {check}"),
        ureq::Error::Io(io) => match (tls_error(io), io.kind()) {
            (Some(error), _) => tls(url.authority(), verify, error),
            (_, ErrorKind::ConnectionRefused) => format!("{it} refuses the connection: {check}"),
            (_, ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable | ErrorKind::AddrNotAvailable) => {
                format!("there is no route to {it}: check this machine's network")
            }
            (_, ErrorKind::TimedOut) => format!("{it} does not answer: check the network and the firewall"),
            (
                _,
                ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof,
            ) => format!("{it} closed the connection: {check}"),
            _ if is_of_resolver(io) => unknown(),
            _ => format!("{io}"),
        },
        other => other.to_string(),
    }
}

/// Whether an I/O error is one of name resolution, for which the standard library has no kind.
pub(super) fn is_of_resolver(io: &io::Error) -> bool {
    io.to_string().starts_with("failed to lookup address information")
}

fn tls_error(io: &io::Error) -> Option<&rustls::Error> {
    io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
}

/// Why TLS failed, and what to do.
fn tls(host: &str, verify: bool, error: &rustls::Error) -> String {
    use rustls::CertificateError as Bad;
    use rustls::{AlertDescription, Error};
    let distrust = |why: &str, what: &str| {
        let or = if verify { ", or trust it unverified with --tls-verify=false" } else { "" };
        format!("its certificate {why}: {what}{or}")
    };
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer) => distrust(
            "is of an authority that this machine does not know",
            &format!("put the authority's certificate at /etc/containers/certs.d/{host}/ca.crt"),
        ),
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            distrust("is for another name", "use the name that it has")
        }
        Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            distrust("has expired", "check this machine's clock, or have the certificate renewed")
        }
        Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            distrust("is not valid yet", "check this machine's clock")
        }
        Error::InvalidCertificate(other) => {
            distrust(&format!("is not valid ({other:?})"), "have a valid one made for it")
        }
        // what a server answers that speaks plain HTTP
        Error::InvalidMessage(_) => {
            "it does not speak TLS: check its port; if it is a registry without TLS, add --tls-verify=false".into()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired | AlertDescription::BadCertificate) => format!(
            "it wants a client certificate that it trusts: put client.cert and client.key into \
             /etc/containers/certs.d/{host}"
        ),
        Error::AlertReceived(alert) => format!("it refuses TLS with podctl ({alert:?}): its log may tell more"),
        other => format!("TLS failed: {other}"),
    }
}

/// The reason of a broken connection, without names of libraries.
fn plain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(io) if io.kind() == ErrorKind::UnexpectedEof => "it was closed early".into(),
        ureq::Error::Io(io) if io.kind() == ErrorKind::ConnectionReset => "it was reset".into(),
        ureq::Error::Io(io) => io.to_string(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_words() {
        let tls = |error| ureq::Error::Io(io::Error::new(ErrorKind::InvalidData, error));
        let bad = rustls::Error::InvalidCertificate;
        let lookup = "failed to lookup address information: Try again";
        for (cause, expected) in [
            (ErrorKind::ConnectionRefused.into(), "it refuses the connection: check that a registry listens there"),
            (ErrorKind::HostUnreachable.into(), "there is no route to it: check"),
            (ErrorKind::ConnectionReset.into(), "it closed the connection: check"),
            (ErrorKind::TimedOut.into(), "it does not answer: check"),
            (io::Error::other(lookup), "its name can't be resolved: check the spelling"),
        ]
        .map(|(io, expected): (io::Error, _)| (ureq::Error::Io(io), expected))
        .into_iter()
        .chain([
            (ureq::Error::Timeout(Timeout::Connect), "it did not accept the connection in time: check"),
            (ureq::Error::Timeout(Timeout::PerRead), "it sent nothing in time: try again later"),
            (ureq::Error::HostNotFound, "its name can't be resolved: check"),
            (tls(bad(rustls::CertificateError::UnknownIssuer)), "certs.d/reg.test:5000/ca.crt, or trust it"),
            (tls(bad(rustls::CertificateError::Expired)), "has expired: check this machine's clock"),
            (tls(bad(rustls::CertificateError::NotValidForName)), "is for another name: use"),
            (tls(rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType)), "does not speak TLS"),
        ]) {
            let url = Url::parse("https://reg.test:5000/v2/").unwrap();
            let said = Failure::of_request(&url, true, cause).one_line();
            assert!(said.starts_with("no answer from reg.test:5000: ") && said.contains(expected), "{said}");
            assert!(!said.contains("io:") && !said.contains("os error"), "{said}");
        }
    }
}

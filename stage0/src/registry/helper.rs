//! Credential helpers: programs `docker-credential-NAME` that keep secrets (Docker's credential helper protocol).

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use stage1::error::{Context, Error, Result};

use super::credentials::Credentials;
use crate::interrupt;

/// How long a helper may take, as it may ask the user.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of a helper's answer is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// The answer, by the protocol, of a helper without credentials for the registry.
const NOTHING: &str = "credentials not found in native keychain";

/// The credentials that a helper has for a registry; `None` if it has none.
///
/// # Errors
/// The helper can't be run, fails, times out, or gives a malformed answer.
pub(super) fn get(name: &str, registry: &str) -> Result<Option<Credentials>> {
    let (succeeded, answer) = ask(name, "get", registry.as_bytes())?;
    let program = format!("docker-credential-{name} get");
    if !succeeded {
        let words = String::from_utf8_lossy(&answer).trim().to_owned();
        if words == NOTHING {
            return Ok(None);
        }
        return Err(Error::new(format!("{program} for {registry}: {}", words.chars().take(300).collect::<String>())));
    }
    // serde's message would quote the answer, which holds a secret
    let answer: Option<BTreeMap<String, Value>> = serde_json::from_slice(&answer).ok();
    from_helper(&answer.context(|| format!("{program} for {registry}: its answer is not a JSON object"))?)
}

/// Stores credentials with a helper.
///
/// # Errors
/// As [`get`], or they are a registry token, for which the protocol has no form.
pub(super) fn store(name: &str, registry: &str, credentials: &Credentials) -> Result<()> {
    let (user, secret) = match credentials {
        Credentials::Password(user, password) => (user.as_str(), password.as_str()),
        Credentials::Identity(token) => ("<token>", token.as_str()),
        Credentials::Registry(_) => {
            return Err(Error::new(format!(
                "docker-credential-{name} for {registry}: a helper keeps no registry tokens"
            )));
        }
    };
    let words = json!({ "ServerURL": registry, "Username": user, "Secret": secret }).to_string();
    must_succeed(name, "store", registry, words.as_bytes())
}

/// Removes a registry's credentials from a helper.
///
/// # Errors
/// As [`get`].
pub(super) fn erase(name: &str, registry: &str) -> Result<()> {
    must_succeed(name, "erase", registry, registry.as_bytes())
}

fn must_succeed(name: &str, verb: &str, registry: &str, words: &[u8]) -> Result<()> {
    let (succeeded, answer) = ask(name, verb, words)?;
    if succeeded {
        return Ok(());
    }
    let answer: String = String::from_utf8_lossy(&answer).trim().chars().take(300).collect();
    Err(Error::new(format!("docker-credential-{name} {verb} for {registry}: {answer}")))
}

/// Runs a helper with `words` on its standard input; returns whether it succeeded, and its output.
fn ask(name: &str, verb: &str, words: &[u8]) -> Result<(bool, Vec<u8>)> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        return Err(Error::new(format!("credential helper {name:?} is not the name of a program")));
    }
    let program = format!("docker-credential-{name}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context(|| format!("run the credential helper {program}"))?;
    let spoken = converse(&mut child, words).context(|| format!("{program} {verb}"));
    if spoken.is_err() {
        // fails if it has ended by itself
        let _ = child.kill();
    }
    let status = child.wait().context(|| format!("wait for {program}"))?;
    Ok((status.success(), spoken?))
}

fn converse(child: &mut Child, words: &[u8]) -> Result<Vec<u8>> {
    if let Some(mut pipe) = child.stdin.take() {
        match pipe.write_all(words) {
            // the helper did not read its input
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            other => other.context(|| "write to it")?,
        }
    }
    let out = child.stdout.take().context(|| "no pipe")?;
    let reader = std::thread::spawn(move || {
        let mut answer = Vec::new();
        out.take(MAX_ANSWER).read_to_end(&mut answer).map(|_| answer)
    });
    let end = Instant::now() + PATIENCE;
    while !reader.is_finished() {
        interrupt::check()?;
        if Instant::now() > end {
            return Err(Error::new(format!("timed out after {} s", PATIENCE.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let read = reader.join().map_err(|_| Error::new("a thread failed"))?;
    read.context(|| "read its answer")
}

/// The credentials in a helper's answer.
fn from_helper(answer: &BTreeMap<String, Value>) -> Result<Option<Credentials>> {
    let text = |name: &str| answer.get(name).and_then(Value::as_str).unwrap_or_default();
    match (text("Username"), text("Secret")) {
        ("", "") => Ok(None),
        ("<token>", token) => Ok(Some(Credentials::Identity(token.to_owned()))),
        (user, password) => Credentials::password(user, password).map(Some),
    }
}

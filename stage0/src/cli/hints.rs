//! Hints for users of other tools: one line that names podctl's word for an option or verb.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Options of other tools, and podctl's equivalent.
const OPTIONS: &[(&[&str], &str)] = &[
    (&["-d", "--detach"], "for a pod in the background: podctl sandbox, then podctl app add and podctl app start"),
    (
        &["--privileged"],
        "--disable-capabilities-restriction, --disable-seccomp and --disable-paths leave an app unconfined",
    ),
    (&["--cap-add", "--cap-drop"], "capabilities: --caps-retain CAP_A,CAP_B or --caps-remove CAP_A"),
    (&["--userns", "--userns-remap"], "user ids of its own: --private-users"),
    (&["--security-opt"], "--no-new-privileges, or --seccomp mode=retain|remove,CALL,…"),
    (&["--log-opt"], "--log-max-size and --log-max-files, of the pod"),
    (&["--add-host"], "lines of /etc/hosts: --hosts-entry"),
    (&["--time", "--stop-time"], "how long a stop may take: --timeout"),
    (&["--link"], "apps of one pod share its network: they meet at localhost"),
    (&["-f", "--force"], "podctl stop --force ends it at once, podctl rm then removes it"),
];

/// Verbs of other tools, and podctl's equivalent.
const VERBS: &[(&[&str], &str)] = &[
    (&["create"], "podctl prepare makes a pod to be run later, podctl sandbox one that takes apps"),
    (
        &["pull", "fetch", "push", "tag", "import", "load", "save", "rmi"],
        "images: podctl image pull, push, tag, import, export, rm",
    ),
    (&["build"], "podctl builds no images; podctl image import takes what another tool has built"),
    (&["prune"], "podctl gc removes ended pods, podctl image gc images that no pod uses"),
    (&["pod"], "a pod is what podctl itself is about: podctl sandbox, list, stop, rm"),
    (&["version"], "podctl --version"),
    (&["add"], "podctl app add POD IMAGE"),
];

/// Verbs that take a command after `--`.
const WITH_COMMAND: &[&str] = &["enter", "exec"];

/// The hint for a usage error, if there is one; `words` is the command line.
pub fn hint(error: &clap::Error, words: &[String]) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::InvalidSubcommand => look_up(VERBS, text(ContextKind::InvalidSubcommand)?).map(str::to_owned),
        ErrorKind::UnknownArgument => {
            let word = text(ContextKind::InvalidArg)?;
            match (look_up(OPTIONS, word.split('=').next().unwrap_or(word)), before_command(words)) {
                (Some(ours), _) => Some(ours.to_owned()),
                (None, Some(verb)) if !word.starts_with('-') => {
                    Some(format!("put -- before the command: podctl {verb} POD APP -- {word}"))
                }
                (None, None) if !word.starts_with('-') && words.iter().any(|verb| verb == "commit") => {
                    Some(format!("the image's name follows --tag: podctl commit POD APP --tag {word}"))
                }
                _ => None,
            }
        }
        ErrorKind::MissingRequiredArgument => match (before_command(words), words.iter().any(|word| word == "--")) {
            (Some(verb), false) => Some(format!("the command follows after --: podctl {verb} POD APP -- COMMAND")),
            _ => network_for_image(words),
        },
        _ => None,
    }
}

/// The verb on the command line, if it takes a command after `--`.
fn before_command(words: &[String]) -> Option<&'static str> {
    let typed = words.iter().skip(1).find(|word| !word.starts_with('-'))?;
    if typed == "app" && words.iter().any(|word| word == "exec") {
        return Some("app exec");
    }
    WITH_COMMAND.iter().find(|verb| *verb == typed).copied()
}

/// The hint for `--net IMAGE`, where clap takes the image for the network.
fn network_for_image(words: &[String]) -> Option<String> {
    let place = words.iter().position(|word| word == "--net" || word == "--network")?;
    let word = words.get(place + 1).filter(|word| !word.starts_with('-'))?;
    Some(format!("{word:?} was read as the network; --net=default joins the default one"))
}

fn look_up(table: &'static [(&[&str], &str)], word: &str) -> Option<&'static str> {
    table.iter().find(|(theirs, _)| theirs.contains(&word)).map(|(_, ours)| *ours)
}

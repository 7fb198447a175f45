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
    (&["--userns", "--userns-remap"], "user ids of its own: --private-users, of the pod"),
    (&["--security-opt"], "--no-new-privileges, or --seccomp mode=retain|remove,CALL,…"),
    (&["--log-opt"], "--log-max-size and --log-max-files, of the pod"),
    (&["--add-host"], "lines of /etc/hosts: --hosts-entry, of the pod"),
    (&["--time", "--stop-time"], "how long a stop may take: --timeout"),
    (&["--link"], "apps of one pod share its network: they meet at localhost"),
    (&["-f", "--force"], "podctl stop --force ends it at once, podctl rm then removes it"),
    (&["--rm"], "podctl app rm removes an app; podctl run --rm a pod when it ends"),
    (
        &["-i", "--interactive"],
        "its standard input: --stdin=stream, or tty for a terminal; podctl attach connects to it",
    ),
    (&["-t", "--tty", "-it", "-ti"], "a terminal of its own: --stdin=tty --stdout=tty; podctl attach connects to it"),
    (&["-a", "--attach"], "podctl attach POD APP, when it runs"),
    (&["--volume"], "a path of the host or a named volume: -v SOURCE:PATH"),
    (&["--volumes-from"], "apps of one pod share a volume by its name: -v NAME:PATH in each"),
    (&["--pod"], "the pod is the first word: podctl app add POD IMAGE"),
    (&["--group-add"], "a supplementary group: --supplementary-gid GID"),
    (&["--blkio-weight"], "the share of the disk: --io-weight"),
    (&["--cpuset-cpus", "--cpuset-mems"], "podctl limits the amount of CPU, not which ones: --cpus, --cpu-shares"),
    (&["--memory-reservation"], "podctl has no such limit, but --memory"),
    (&["--platform", "--arch"], "the platform of an image: podctl image pull --platform"),
    (&["--expose", "-P", "--publish-all"], "publish the ports by number: -p HOSTPORT:PORT, of the pod"),
    (&["--init"], "a pod has an init of its own, systemd, which reaps"),
    (&["--systemd", "--runtime", "--storage-opt"], "podctl has no such choice"),
    (&["--no-healthcheck"], "--health-cmd none"),
    (&["--ip", "--mac-address"], "an address in a network: --net NETWORK:IP=ADDRESS, of the pod"),
    (&["--uts"], "the host name: --hostname, of the pod"),
    (&["--tz"], "the time zone is a variable: -e TZ=Europe/Berlin"),
];

/// Options that are those of a pod, which verbs for an app do not have.
const OF_POD: &[&str] = &[
    "-p",
    "--publish",
    "--port",
    "--net",
    "--network",
    "--hostname",
    "--dns",
    "--dns-search",
    "--dns-opt",
    "--dns-option",
    "--hosts-entry",
    "--sysctl",
    "--ipc",
    "--log-driver",
    "--log-max-size",
    "--log-max-files",
    "--private-users",
    "--cgroup-parent",
    "--pod-memory",
    "--pod-cpu",
    "--pod-pids",
];

/// Verbs of other tools, and podctl's equivalent.
const VERBS: &[(&[&str], &str)] = &[
    (&["create"], "podctl prepare makes a pod to be run later, podctl sandbox one that takes apps"),
    (
        &[
            "pull",
            "fetch",
            "push",
            "tag",
            "untag",
            "import",
            "load",
            "save",
            "rmi",
            "pull-tar",
            "pull-raw",
            "import-tar",
        ],
        "images: podctl image pull, push, tag, untag, import, export, rm",
    ),
    (
        &["import-raw", "import-fs", "list-images", "image-status", "show-image"],
        "images: podctl image import, list, show",
    ),
    (&["export-tar", "export-raw"], "podctl export writes the files of an app"),
    (
        &["build", "builder", "buildx", "bake"],
        "podctl builds no images; podctl image import takes what another tool has built",
    ),
    (
        &["prune", "clean"],
        "podctl gc removes ended pods, podctl image gc images and podctl volume prune volumes that no pod uses",
    ),
    (&["system"], "podctl info, podctl stats, podctl events; podctl gc and podctl image gc remove what is not used"),
    (&["df"], "podctl info shows what the data directory holds"),
    (
        &["pod", "container", "containers"],
        "a pod is what podctl itself is about: podctl sandbox, list, inspect, logs, stop, rm",
    ),
    (&["kube", "play", "apply"], "pods of a file: podctl up -f FILE, podctl down -f FILE, podctl generate kube POD"),
    (&["delete", "remove", "terminate", "poweroff"], "podctl stop, then podctl rm; podctl down does both"),
    (&["reboot"], "podctl restart"),
    (&["get", "describe"], "podctl list, podctl status POD, podctl inspect POD"),
    (&["show"], "podctl status POD, podctl inspect POD"),
    (&["version"], "podctl --version"),
    (&["add"], "podctl app add POD IMAGE"),
    (
        &["network"],
        "networks are files in /etc/rkt/net.d; podctl run --net NETWORK joins one, podctl status shows a pod's",
    ),
    (&["search"], "podctl searches no registry; podctl image pull takes the full name of an image"),
    (&["rename"], "a pod keeps its name; podctl image tag gives an image another one"),
    (&["history"], "podctl image inspect shows an image's configuration"),
    (&["manifest"], "podctl image cat-manifest"),
    (
        &["mount", "unmount", "umount"],
        "podctl cp copies files, podctl export writes all; podctl inspect shows where a pod is",
    ),
    (&["copy-to", "copy-from"], "podctl cp"),
    (&["shell"], "podctl enter POD, podctl exec POD APP -- COMMAND"),
    (&["healthcheck"], "podctl status shows the health of apps; podctl wait --healthy waits for it"),
    (&["exists"], "podctl list -q --filter name=NAME, podctl inspect NAME"),
    (&["secret", "config"], "files for an app: --secret NAME=PATH; or a Secret in a file for podctl up"),
    (&["set-limit"], "podctl update POD APP"),
    (&["bind"], "volumes are mounted when an app is added: -v SOURCE:PATH"),
    (&["clone"], "podctl generate kube POD writes a file, of which podctl up makes a pod with another name"),
    (&["auto-update"], "podctl up pulls with imagePullPolicy: Always, and replaces what differs"),
    (&["checkpoint", "restore"], "podctl pause freezes a pod; it saves none"),
    (&["compose", "stack", "service", "swarm", "node"], "podctl up starts the pods of a Kubernetes file"),
    (&["context", "machine", "plugin", "farm", "trust", "quadlet", "artifact"], "podctl has nothing of that kind"),
    (&["unshare"], "podctl runs as root; --private-users gives a pod user ids of its own"),
    (&["init"], "podctl sandbox starts a pod without apps"),
];

/// Verbs below others that other tools have there, and podctl's equivalent.
const BELOW: &[(&str, &[&str], &str)] = &[
    ("app", &["create", "run"], "podctl app add POD IMAGE, then podctl app start POD APP"),
    ("app", &["delete", "remove"], "podctl app rm POD APP"),
    (
        "app",
        &["logs", "inspect", "attach", "kill", "top", "cp", "update", "pause", "unpause"],
        "it is a verb of podctl itself, which takes POD APP",
    ),
    ("app", &["enter"], "podctl enter POD APP, podctl exec POD APP -- COMMAND"),
    ("image", &["load", "fetch"], "podctl image import FILE, podctl image pull NAME"),
    ("image", &["save"], "podctl image export NAME FILE"),
    ("image", &["remove", "delete", "rmi"], "podctl image rm NAME"),
    ("image", &["history"], "podctl image inspect NAME"),
    ("image", &["build"], "podctl builds no images; podctl image import takes what another tool has built"),
    ("volume", &["remove", "delete"], "podctl volume rm NAME"),
    ("volume", &["exists"], "podctl volume inspect NAME"),
    ("volume", &["import", "export", "mount", "unmount"], "podctl cp copies files to and from an app that mounts it"),
    ("port", &["remove", "delete"], "podctl port rm POD HOSTPORT"),
    ("generate", &["pod", "spec"], "podctl generate kube POD"),
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
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            let [verb, _] = verbs(words);
            match BELOW.iter().find(|(above, theirs, _)| *above == verb && theirs.contains(&word)) {
                Some((_, _, ours)) => Some((*ours).to_owned()),
                None if verb == word => look_up(VERBS, word).map(str::to_owned),
                None => None,
            }
        }
        ErrorKind::UnknownArgument => {
            let word = text(ContextKind::InvalidArg)?;
            let option = word.split('=').next().unwrap_or(word);
            if let Some(hint) = of_pod(verbs(words), option) {
                return Some(hint);
            }
            match (look_up(OPTIONS, option), before_command(words)) {
                (Some(ours), _) => Some(ours.to_owned()),
                (None, Some(verb)) if !word.starts_with('-') => {
                    Some(format!("write -- before the command: podctl {verb} POD APP -- {word}"))
                }
                (None, None) if !word.starts_with('-') && runs_an_image(words) => Some(format!(
                    "write -- before arguments of the image's command: -- {word}; another command is --exec {word}"
                )),
                (None, None) if !word.starts_with('-') && words.iter().any(|verb| verb == "commit") => {
                    Some(format!("the image's name follows --tag: podctl commit POD APP --tag {word}"))
                }
                _ => None,
            }
        }
        ErrorKind::ArgumentConflict => {
            let verb = before_command(words).filter(|_| !words.iter().any(|word| word == "--"))?;
            Some(format!("write -- before the command: podctl {verb} POD --app APP -- COMMAND"))
        }
        ErrorKind::MissingRequiredArgument => match (before_command(words), words.iter().any(|word| word == "--")) {
            (Some(verb), false) => Some(format!("write -- before the command: podctl {verb} POD APP -- COMMAND")),
            _ => network_for_image(words),
        },
        _ => None,
    }
}

/// The first two words of the command line that are not options; empty if there are fewer.
fn verbs(words: &[String]) -> [&str; 2] {
    let mut left = words.iter().skip(1);
    let mut next = || loop {
        match left.next().map(String::as_str) {
            Some("--dir") => drop(left.next()),
            Some(option) if option.starts_with('-') => {}
            other => return other.unwrap_or_default(),
        }
    };
    [next(), next()]
}

/// The hint for an option of a pod at a verb for an app.
fn of_pod(verbs: [&str; 2], option: &str) -> Option<String> {
    if !matches!(verbs, ["app", "add" | "replace"]) || !OF_POD.contains(&option) {
        return None;
    }
    let live = match option {
        "-p" | "--publish" | "--port" => "; on a running pod: podctl port add POD HOSTPORT:PORT",
        option if option.starts_with("--pod-") => "; on a running pod: podctl update POD",
        _ => "",
    };
    Some(format!("it is the pod's: give it to podctl sandbox, run or prepare, which make the pod{live}"))
}

/// The verb on the command line, if it takes a command after `--`.
fn before_command(words: &[String]) -> Option<&'static str> {
    let [typed, _] = verbs(words);
    if typed == "app" && words.iter().any(|word| word == "exec") {
        return Some("app exec");
    }
    WITH_COMMAND.iter().find(|verb| **verb == typed).copied()
}

/// Whether the verb on the command line makes an app of an image.
fn runs_an_image(words: &[String]) -> bool {
    matches!(verbs(words), ["run" | "prepare", _] | ["app", "add" | "replace"])
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Podctl;

    /// The hint for a command line; `None` if podctl takes it, or takes it but for what is missing.
    #[track_caller]
    fn hinted(line: &str) -> Option<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        match Podctl::parse(words.iter().map(Into::into).collect()) {
            Ok(_) => None,
            Err(error) => {
                let is_unknown = matches!(error.kind(), ErrorKind::InvalidSubcommand | ErrorKind::UnknownArgument);
                let hint = hint(&error, &words);
                assert!(!is_unknown || hint.is_some(), "{line}: no hint");
                hint.filter(|_| is_unknown)
            }
        }
    }

    #[test]
    fn verbs_of_other_tools_work_or_lead_to_ours() {
        let docker = "attach build builder buildx commit compose container context cp create diff events exec export \
                      history image images import info inspect kill load login logout logs manifest network pause \
                      plugin port ps pull push rename restart rm rmi run save search start stats stop swarm system \
                      tag top trust unpause update version volume wait";
        let podman = "artifact auto-update farm generate healthcheck init kube machine mount play pod quadlet secret \
                      unmount unshare untag apply down clone exists prune checkpoint restore";
        let machinectl = "list status show login shell enable disable poweroff reboot terminate kill copy-to copy-from \
                          bind list-images image-status show-image remove set-limit clean pull-tar pull-raw \
                          import-tar import-raw import-fs export-tar export-raw";
        let kubectl = "apply delete get describe logs exec cp top";
        for verb in [docker, podman, machinectl, kubectl].iter().flat_map(|verbs| verbs.split_whitespace()) {
            hinted(&format!("podctl {verb}"));
        }
        for (verb, list) in [
            (
                "app",
                "create run start stop rm delete remove logs inspect attach kill top cp update pause exec enter ls ps",
            ),
            ("image", "ls load save rm rmi remove history build pull push tag untag prune inspect import export"),
            ("volume", "create ls rm remove inspect prune exists import export mount"),
            ("port", "ls add rm remove web"),
            ("generate", "kube systemd spec pod"),
        ] {
            for word in list.split_whitespace() {
                hinted(&format!("podctl {verb} {word}"));
            }
        }
        assert!(hinted("podctl network ls").unwrap().contains("/etc/rkt/net.d"));
        assert!(hinted("podctl --dir /x container ls").unwrap().contains("podctl sandbox, list"));
        assert!(hinted("podctl app delete web").unwrap().contains("podctl app rm"));
        assert_eq!(hinted("podctl port web"), None);
        assert_eq!(hinted("podctl up shop.yaml"), None);
        assert_eq!(hinted("podctl app start web db api"), None);
    }

    #[test]
    fn options_of_other_tools_work_or_lead_to_ours() {
        let run = "--add-host --attach --blkio-weight --cap-add --cap-drop --cpus --cpu-shares --cpuset-cpus --detach \
                   --device --dns --dns-search --dns-opt --entrypoint --env --env-file --expose --group-add \
                   --health-cmd --hostname --init --interactive --tty -it --ip --ipc --label --link --log-driver \
                   --log-opt --mac-address --memory --memory-swap --memory-reservation --mount --name --network \
                   --no-healthcheck --oom-score-adj --pid --pids-limit --platform --privileged -p --publish -P \
                   --publish-all --pull --read-only --restart --rm --runtime --security-opt --shm-size --stop-signal \
                   --stop-timeout --storage-opt --sysctl --tmpfs --ulimit --user --userns --uts -v --volume \
                   --volumes-from --workdir --pod --systemd --tz";
        for option in run.split_whitespace() {
            for verb in ["run", "app add web"] {
                hinted(&format!("podctl {verb} {option}"));
            }
        }
        for option in OF_POD {
            let hint = hinted(&format!("podctl app add web nginx {option}=x")).unwrap_or_default();
            assert!(hint.contains("it is the pod's: give it to podctl sandbox"), "{option}: {hint}");
        }
        assert!(hinted("podctl app add web nginx -p 8080:80").unwrap().contains("podctl port add POD"));
        assert!(hinted("podctl app replace web nginx --hostname x").unwrap().contains("it is the pod's"));
    }
}

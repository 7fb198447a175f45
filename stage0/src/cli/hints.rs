//! Hints for users of other tools: one line that names podctl's word for an option or verb.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Verbs that make an app or a pod.
const MAKING: &[&str] = &["run", "prepare", "sandbox", "app add", "app replace"];
/// Verbs that make an app of an image.
const WITH_IMAGE: &[&str] = &["run", "prepare", "app add", "app replace"];
/// Verbs for an app that exists, or for a whole pod.
const ON_PODS: &[&str] = &["stop", "start", "restart", "rm", "kill", "wait", "down", "pause", "unpause", "inspect"];

/// Options of other tools: the verbs at which they are typed, their words, and podctl's equivalent there. An option that
/// an equivalent names is one of the verb itself, or of the verb that `podctl` before it names.
const OPTIONS: &[(&[&str], &[&str], &str)] = &[
    (
        WITH_IMAGE,
        &["-d", "--detach"],
        "for a pod in the background: podctl sandbox, then podctl app add and podctl app start",
    ),
    (&["sandbox"], &["-d", "--detach"], "the pod runs in the background in any case"),
    (
        WITH_IMAGE,
        &["--privileged"],
        "to leave all apps of a new pod unconfined: podctl run --disable-capabilities-restriction --disable-seccomp \
         --disable-paths",
    ),
    (WITH_IMAGE, &["--cap-add", "--cap-drop"], "capabilities: --caps-retain CAP_A,CAP_B or --caps-remove CAP_A"),
    (
        MAKING,
        &["--userns", "--userns-remap"],
        "user ids of its own are the pod's: podctl run --private-users, podctl sandbox --private-users",
    ),
    (MAKING, &["--security-opt"], "of an app: podctl run --no-new-privileges, podctl run --seccomp mode=retain,CALL"),
    (MAKING, &["--log-opt"], "the pod's: podctl sandbox --log-max-size SIZE --log-max-files NUMBER"),
    (MAKING, &["--add-host"], "lines of /etc/hosts are the pod's: podctl sandbox --hosts-entry IP=NAME"),
    (MAKING, &["--stop-time"], "how long a stop may take: podctl run --stop-timeout DURATION"),
    (MAKING, &["--link"], "apps of one pod share its network: they meet at localhost"),
    (MAKING, &["-f", "--force"], "podctl stop --force ends a pod at once, podctl rm then removes it"),
    (&["app add", "app replace"], &["--rm"], "podctl app rm removes an app; podctl run --rm a pod when it ends"),
    (&["prepare", "sandbox"], &["--rm"], "podctl run --rm removes a pod when it ends; podctl gc removes ended pods"),
    (
        &["sandbox", "app add", "app replace"],
        &["-i", "--interactive", "-t", "--tty", "-it", "-ti"],
        "of an app: podctl run --interactive; podctl app add --stdin=tty --stdout=tty, then podctl attach",
    ),
    (MAKING, &["-a", "--attach"], "podctl attach POD APP, when it runs"),
    (&["app add", "app replace"], &["--volume"], "a path of the host or a named volume: podctl run -v SOURCE:PATH"),
    (MAKING, &["--volumes-from"], "apps of one pod share a volume by its name: podctl run -v NAME:PATH in each"),
    (MAKING, &["--pod"], "the pod is the first word: podctl app add POD IMAGE"),
    (MAKING, &["--group-add"], "a supplementary group: podctl run --supplementary-gid GID"),
    (MAKING, &["--blkio-weight"], "the share of the disk: podctl run --io-weight NUMBER"),
    (
        MAKING,
        &["--cpuset-cpus", "--cpuset-mems"],
        "podctl limits the amount of CPU, not which ones: podctl run --cpu QUANTITY, podctl run --cpu-shares NUMBER",
    ),
    (MAKING, &["--memory-reservation"], "podctl has no such limit: podctl run --memory QUANTITY"),
    (MAKING, &["--platform", "--arch"], "the platform of an image: podctl image pull --platform OS/ARCH"),
    (
        MAKING,
        &["--expose", "-P", "--publish-all"],
        "publish the ports by number: podctl run -p HOSTPORT:PORT, podctl sandbox -p HOSTPORT:PORT",
    ),
    (MAKING, &["--init"], "a pod has an init of its own, systemd, which reaps"),
    (MAKING, &["--systemd", "--runtime", "--storage-opt"], "podctl has no such choice"),
    (MAKING, &["--no-healthcheck"], "podctl run --health-cmd none"),
    (MAKING, &["--ip", "--mac-address"], "an address in a network is the pod's: podctl run --net NETWORK:IP=ADDRESS"),
    (MAKING, &["--uts"], "the host name is the pod's: podctl run --hostname NAME"),
    (MAKING, &["--tz"], "the time zone is a variable: podctl run -e TZ=Europe/Berlin"),
    (
        &["stop", "kill", "pause", "unpause", "restart", "wait", "start", "inspect"],
        &["-a", "--all", "-A", "--latest", "-l"],
        "pods are named one by one; podctl list -q --filter state=running prints those that run",
    ),
    (&["rm"], &["-a", "--all", "-A"], "podctl gc removes all pods that have ended"),
    (
        &["rm"],
        &["-f", "--force", "-t", "--time"],
        "podctl stop --force ends it at once, podctl rm then removes it; podctl down ends it in order and removes it",
    ),
    (&["rm"], &["-v", "--volumes"], "volumes without a name go with their pod; podctl volume rm removes a named one"),
    (&["stop", "restart"], &["-f"], "podctl stop --force kills a pod at once"),
    (
        &["app rm"],
        &["-f", "-a", "--all", "-t", "--time"],
        "apps are named one by one, and one that runs is stopped first",
    ),
    (ON_PODS, &["-i", "--ignore"], "a pod that does not exist is an error"),
    (&["stop", "restart"], &["-s", "--signal"], "of each app, when it is made: podctl run --stop-signal SIGNAL"),
    (&["kill"], &["-n"], "the signal follows -s: -s SIGNAL"),
    (
        &["up"],
        &["--build", "--pull", "--quiet-pull"],
        "podctl builds no images; imagePullPolicy in the file says when one is pulled",
    ),
    (&["up"], &["--force-recreate", "--force"], "podctl up --replace makes the pod anew if it must"),
    (&["up"], &["--remove-orphans", "--prune"], "apps that are no longer in the file are removed in any case"),
    (&["up"], &["--wait"], "podctl up returns when all apps run; podctl wait --healthy POD"),
    (&["up", "down"], &["-n", "--namespace", "-p", "--project-name"], "a pod has the name that the file gives it"),
    (
        &["down"],
        &["--rmi", "--remove-orphans", "-t", "--timeout"],
        "podctl stop --timeout DURATION POD, then podctl rm",
    ),
    (&["logs"], &["-p", "--previous", "--details"], "podctl logs shows what all runs of an app have written"),
    (&["logs"], &["-u", "--unit"], "the app is the second word: podctl logs POD APP"),
    (&["logs"], &["-e", "--pager-end"], "the last lines: -n NUMBER"),
    (
        &["exec", "enter", "app exec"],
        &["-d", "--detach"],
        "podctl exec waits for its command: an & of the shell does not",
    ),
    (&["exec", "enter", "app exec"], &["-T", "--no-tty"], "no terminal: --tty=never"),
    (&["exec", "enter", "app exec"], &["--env-file"], "variables one by one: -e NAME=VALUE"),
    (
        &["list", "logs", "exec", "inspect", "status", "stop", "rm", "top"],
        &["-n", "--namespace", "--all-namespaces", "-A"],
        "podctl has no namespaces: podctl list shows all pods",
    ),
    (&["list"], &["-l", "--selector"], "--filter label=NAME=VALUE"),
    (&["list"], &["-f", "--field-selector"], "--filter KEY=VALUE"),
    (&["list"], &["-w", "--watch"], "podctl events -f prints what happens"),
    (&["list"], &["-n", "--last", "--latest", "--sort", "-s", "--size"], "podctl list shows all, the newest first"),
    (&["list", "images", "image list"], &["--no-headers", "--noheading", "--no-legend"], "--format json, or -q"),
    (&["list"], &["-p", "--pod", "-t", "--type", "--state"], "--filter KEY=VALUE, for example state=running"),
    (&["status", "logs", "diff", "app status", "image inspect", "events"], &["-o", "--output"], "--format json"),
    (&["inspect"], &["-o", "--output", "-f", "--format", "-t", "--type"], "podctl inspect prints JSON in any case"),
    (&["status"], &["-n", "--lines", "-l", "--full", "-a", "--all"], "podctl logs -n NUMBER shows the last lines"),
    (&["enable"], &["--now"], "podctl start starts a pod now"),
    (&["disable"], &["--now"], "podctl stop stops a pod now"),
    (&["cp"], &["-a", "--archive", "-L", "--follow-link", "-c"], "the app is part of the path: POD/APP:PATH"),
    (&["port"], &["-p", "--publish"], "podctl port add POD HOSTPORT:PORT"),
    (&["top"], &["-e", "-f", "-x"], "columns: --format COLUMN,COLUMN"),
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
    (&["secret", "config"], "files for an app: podctl run --secret NAME=PATH; or a Secret in a file for podctl up"),
    (&["set-limit"], "podctl update POD APP"),
    (&["bind"], "volumes are mounted when an app is added: podctl app add -v SOURCE:PATH"),
    (&["clone"], "podctl generate kube POD writes a file, of which podctl up makes a pod with another name"),
    (&["auto-update"], "podctl up pulls with imagePullPolicy: Always, and replaces what differs"),
    (&["checkpoint", "restore"], "podctl pause freezes a pod; it saves none"),
    (&["compose", "stack", "service", "swarm", "node"], "podctl up starts the pods of a Kubernetes file"),
    (&["context", "machine", "plugin", "farm", "trust", "quadlet", "artifact"], "podctl has nothing of that kind"),
    (&["unshare"], "podctl runs as root; podctl run --private-users gives a pod user ids of its own"),
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
            if let Some(hint) = of_pod(verbs(words), option).or_else(|| signal(words, option)) {
                return Some(hint);
            }
            match (at_verb(verbs(words), option), before_command(words)) {
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

/// Podctl's equivalent of another tool's option at this verb.
fn at_verb([first, second]: [&str; 2], option: &str) -> Option<&'static str> {
    let typed = match first {
        "ls" | "ps" => "list".to_owned(),
        "app" | "image" | "volume" => format!("{first} {second}"),
        _ => first.to_owned(),
    };
    let typed = match typed.as_str() {
        "image ls" => "image list",
        other => other,
    };
    let row = OPTIONS.iter().find(|(verbs, theirs, _)| verbs.contains(&typed) && theirs.contains(&option));
    row.map(|(_, _, ours)| *ours)
}

/// The hint for a signal as an option of its own, as in kill(1).
fn signal(words: &[String], option: &str) -> Option<String> {
    let [verb, _] = verbs(words);
    // clap names the first letter only
    let signal = words.iter().find(|word| word.starts_with(option))?.strip_prefix('-')?;
    let is_signal = stage1::app::parse_stop_signal(signal).is_ok();
    (verb == "kill" && is_signal).then(|| format!("the signal follows -s: -s {signal}"))
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
    use clap::CommandFactory;

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

    /// The command at these words; panics if there is none.
    fn command_at(path: &[&str]) -> clap::Command {
        let mut command = Podctl::command();
        command.build();
        for word in path {
            let below = command.find_subcommand(word).unwrap_or_else(|| panic!("{path:?}"));
            command = below.clone();
        }
        command
    }

    fn has_option(command: &clap::Command, option: &str) -> bool {
        let mut options = command.get_arguments();
        options.any(|arg| match option.strip_prefix("--") {
            Some(long) => arg.get_long_and_visible_aliases().unwrap_or_default().contains(&long),
            None => {
                let short = option.chars().nth(1).unwrap_or(' ');
                arg.get_short_and_visible_aliases().unwrap_or_default().contains(&short)
            }
        })
    }

    /// Checks that each option in the text is one of the verb that `podctl` before it names, else of the verb at `path`.
    #[track_caller]
    fn options_exist(path: &[&str], text: &str) {
        let mut command = command_at(path);
        let mut in_verb = false;
        for word in text.split_whitespace() {
            let word = word.trim_matches([',', ';', ':', '"', '(', ')']);
            if word == "podctl" {
                (command, in_verb) = (command_at(&[]), true);
            } else if word == "--" {
                in_verb = false;
            } else if word.starts_with('-') {
                let option = word.split('=').next().unwrap_or(word);
                assert!(has_option(&command, option), "{path:?}: {option} is not an option: {text}");
                in_verb = false;
            } else if in_verb {
                match command.find_subcommand(word).cloned() {
                    Some(below) => command = below,
                    None => in_verb = false,
                }
            }
        }
    }

    #[test]
    fn options_that_hints_name_are_the_verbs_own() {
        let mut unread = Vec::new();
        for (verbs, theirs, ours) in OPTIONS {
            for verb in *verbs {
                let path: Vec<&str> = verb.split(' ').collect();
                options_exist(&path, ours);
                let command = command_at(&path);
                if theirs.iter().all(|option| has_option(&command, option)) {
                    unread.push((verb, theirs));
                }
            }
        }
        assert!(unread.is_empty(), "these options work, so nobody reads their hints: {unread:?}");
        for (_, ours) in VERBS {
            options_exist(&[], ours);
        }
        for (above, _, ours) in BELOW {
            options_exist(&[above], ours);
        }
    }

    #[test]
    fn what_is_typed_works_or_leads_to_an_option_of_its_verb() {
        for line in [
            "podctl stop -t 1 web",
            "podctl stop --time 1 web",
            "podctl restart -t 1 web",
            "podctl app stop -t 1 web db",
            "podctl up -d -f shop.yaml",
            "podctl logs -c db web",
            "podctl logs web/db",
            "podctl list -o json",
            "podctl list -o wide",
            "podctl ps -aq",
            "podctl exec -it web -- sh",
            "podctl exec -it web -c db -- sh",
            "podctl run -it nginx",
            "podctl run -p 8080:80 -v a:/b -e A=1 nginx",
            "podctl down -v -f shop.yaml",
        ] {
            assert_eq!(hinted(line), None, "{line}");
        }
        for (line, hint) in [
            ("podctl stop -a", "podctl list -q"),
            ("podctl kill -9 web db", "-s 9"),
            ("podctl kill -TERM web db", "-s TERM"),
            ("podctl rm -fa", "podctl down"),
            ("podctl rm -a", "podctl gc"),
            ("podctl run -d nginx", "podctl sandbox"),
            ("podctl app add web nginx -it", "podctl app add --stdin=tty"),
            ("podctl up --build -f x", "imagePullPolicy"),
            ("podctl ps -w", "podctl events -f"),
            ("podctl ls -n 3", "no namespaces"),
            ("podctl status -o json web", "--format json"),
            ("podctl exec -d web -- sh", "of the shell"),
            ("podctl app kill -9 web db", "takes POD APP"),
        ] {
            let said = hinted(line).unwrap_or_default();
            assert!(said.contains(hint), "{line}: {said}");
        }
        // an option of a verb that has no such thing is not explained by another verb's
        let error = Podctl::parse(["podctl", "stop", "--privileged", "web"].map(Into::into).into()).unwrap_err();
        assert_eq!(hint(&error, &["podctl", "stop", "--privileged", "web"].map(str::to_owned)), None);
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

//! The examples at the end of each help page. A test parses each of them, and checks that every verb has some.

use clap::Command;

/// The words of a verb, with example command lines.
type Examples = (&'static str, &'static [&'static str]);

/// The examples of each verb.
const EXAMPLES: &[Examples] = &[
    ("", &["podctl run docker.io/library/nginx:1.29", "podctl up -f shop.yaml", "podctl list"]),
    ("image", &["podctl image pull docker.io/library/nginx:1.29", "podctl image list"]),
    ("volume", &["podctl volume create data", "podctl volume list"]),
    ("app", &["podctl app add web nginx --name front", "podctl app start web front", "podctl app list web"]),
    ("port", &["podctl port add web 8080:80", "podctl port list web"]),
    ("generate", &["podctl generate kube web", "podctl generate systemd web"]),
    (
        "image import",
        &[
            "podctl image import app.tar --name app",
            "skopeo copy docker://nginx docker-archive:/dev/stdout | podctl image import - --name nginx",
        ],
    ),
    ("image pull", &["podctl image pull docker.io/library/nginx:1.29"]),
    ("image push", &["podctl image push app registry.example.com/team/app:2"]),
    ("image tag", &["podctl image tag app app:stable"]),
    ("image untag", &["podctl image untag app:stable"]),
    ("image list", &["podctl image list", "podctl image list --format json"]),
    ("image show", &["podctl image show nginx"]),
    ("image inspect", &["podctl image inspect nginx"]),
    ("image cat-manifest", &["podctl image cat-manifest nginx"]),
    ("image verify", &["podctl image verify", "podctl image verify nginx"]),
    ("image rm", &["podctl image rm app:1"]),
    ("image gc", &["podctl image gc"]),
    ("image prune", &["podctl image prune"]),
    ("image export", &["podctl image export app app.tar"]),
    ("image render", &["podctl image render app /srv/app"]),
    ("images", &["podctl images", "podctl images --format json"]),
    ("volume create", &["podctl volume create shop-db --label app=shop"]),
    ("volume list", &["podctl volume list"]),
    ("volume inspect", &["podctl volume inspect shop-db"]),
    ("volume rm", &["podctl volume rm shop-db"]),
    ("volume prune", &["podctl volume prune"]),
    ("login", &["podctl login registry.example.com --username me --password-stdin"]),
    ("logout", &["podctl logout registry.example.com"]),
    ("sandbox", &["podctl sandbox --name web", "podctl sandbox --name web --net default -p 8080:80"]),
    (
        "run",
        &["podctl run nginx", "podctl run --rm -it busybox", "podctl run --name shop db --- web --env LEVEL=debug"],
    ),
    ("prepare", &["podctl prepare --name job worker -- --once"]),
    ("run-prepared", &["podctl run-prepared job"]),
    (
        "app add",
        &[
            "podctl app add web nginx",
            "podctl app add web postgres --name db --memory 512m --restart always -v db:/var/lib/postgresql",
        ],
    ),
    ("app start", &["podctl app start web db"]),
    ("app stop", &["podctl app stop web db --timeout 30s"]),
    ("app restart", &["podctl app restart web db"]),
    ("app rm", &["podctl app rm web db"]),
    ("app list", &["podctl app list web"]),
    ("app status", &["podctl app status web db --format json"]),
    ("app exec", &["podctl app exec web db -- psql -U postgres"]),
    ("app replace", &["podctl app replace web db --image postgres:17"]),
    ("app reopen-log", &["podctl app reopen-log web db"]),
    ("enter", &["podctl enter web db -- /bin/sh", "podctl enter --user root web db -- id"]),
    ("logs", &["podctl logs web", "podctl logs -f -n 20 web db", "podctl logs web --since 10m --format json"]),
    ("attach", &["podctl attach web db"]),
    ("exec", &["podctl exec web db -- psql -U postgres", "podctl exec -it web -- /bin/sh"]),
    ("list", &["podctl list", "podctl list --filter state=running --no-trunc"]),
    ("status", &["podctl status web", "podctl status web --format json"]),
    ("inspect", &["podctl inspect web", "podctl inspect web db"]),
    ("stats", &["podctl stats", "podctl stats --no-stream --format json"]),
    ("top", &["podctl top web db"]),
    ("events", &["podctl events web", "podctl events -f --format json", "podctl events --since 10m web db"]),
    ("tree", &["podctl tree", "podctl tree web"]),
    (
        "cp",
        &[
            "podctl cp nginx.conf web/nginx:/etc/nginx/",
            "podctl cp web/db:/var/lib/data/. backup",
            "podctl cp web/db:/var/log - | tar t",
        ],
    ),
    ("diff", &["podctl diff web db"]),
    ("export", &["podctl export web db -o db.tar"]),
    ("commit", &["podctl commit web db --tag db-with-schema"]),
    ("update", &["podctl update web db --memory 1g --cpu 2"]),
    ("port list", &["podctl port list web"]),
    ("port add", &["podctl port add web 8080:80"]),
    ("port rm", &["podctl port rm web 8080"]),
    ("pause", &["podctl pause web", "podctl pause web db"]),
    ("unpause", &["podctl unpause web"]),
    ("kill", &["podctl kill web db --signal HUP", "podctl kill web"]),
    (
        "up",
        &["podctl up -f shop.yaml", "podctl up -f shop.yaml --dry-run", "kubectl get pod web -o yaml | podctl up -f -"],
    ),
    ("down", &["podctl down shop", "podctl down -f shop.yaml --volumes"]),
    ("generate kube", &["podctl generate kube shop > shop.yaml"]),
    ("generate systemd", &["podctl generate systemd shop > /etc/systemd/system/podctl-shop.service"]),
    ("enable", &["podctl enable shop"]),
    ("disable", &["podctl disable shop"]),
    ("wait", &["podctl wait web", "podctl wait --healthy web --timeout 60"]),
    ("stop", &["podctl stop web", "podctl stop --timeout 30s web db"]),
    ("start", &["podctl start web"]),
    ("restart", &["podctl restart web"]),
    ("rm", &["podctl rm web"]),
    ("doctor", &["podctl doctor"]),
    ("info", &["podctl info", "podctl info --format json"]),
    ("cri", &["podctl cri"]),
    ("completion", &["source <(podctl completion bash)"]),
    ("gc", &["podctl gc", "podctl gc --grace-period 10m"]),
];

/// Adds each verb's examples at the end of its help page.
pub fn with_examples(command: Command) -> Command {
    add(command, "")
}

fn add(command: Command, verb: &str) -> Command {
    let path = |name: &str| if verb.is_empty() { name.to_owned() } else { format!("{verb} {name}") };
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    let command = names.into_iter().fold(command, |command, name| {
        let path = path(&name);
        command.mut_subcommand(name, |sub| add(sub, &path))
    });
    let Some((_, lines)) = EXAMPLES.iter().find(|(of, _)| *of == verb) else { return command };
    let heading = if lines.len() == 1 { "Example" } else { "Examples" };
    let examples = format!("{heading}:\n  {}", lines.join("\n  "));
    let text = match command.get_after_help() {
        Some(more) => format!("{more}\n\n{examples}"),
        None => examples,
    };
    command.after_help(text)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::cli::Podctl;

    /// The verbs that are not hidden, by their words, with those that have subcommands.
    fn verbs(command: &Command, path: &[&str], found: &mut Vec<String>) {
        let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set() && sub.get_name() != "help");
        found.push(path.join(" "));
        subs.for_each(|sub| verbs(sub, &[path, &[sub.get_name()]].concat(), found));
    }

    /// The arguments that a shell passes to the podctl in a line.
    fn words(line: &str) -> Vec<OsString> {
        let words = line.split_whitespace().skip_while(|word| !word.ends_with("podctl"));
        let words = words.take_while(|word| !matches!(*word, "|" | ">"));
        words.map(|word| word.trim_matches(['(', ')', '<']).into()).collect()
    }

    #[test]
    fn every_verb_has_examples_that_are_understood() {
        let mut all = Vec::new();
        verbs(&Podctl::commands(), &[], &mut all);
        assert!(all.len() > 60, "{all:?}");
        for verb in &all {
            let (_, lines) = EXAMPLES.iter().find(|(of, _)| of == verb).unwrap_or_else(|| panic!("{verb}: no example"));
            for line in *lines {
                assert!(line.contains(&format!("podctl {verb}")), "{line} is not of {verb}");
                Podctl::understand(words(line)).unwrap_or_else(|error| panic!("{line}: {error}"));
            }
        }
        for (verb, _) in EXAMPLES {
            assert!(all.iter().any(|there| there == verb), "there is no verb {verb}");
        }
    }

    /// The global options have a heading of their own at the end of a page, and the examples are below them.
    #[test]
    fn help_ends_with_global_options_and_examples() {
        for verb in [&["list"][..], &["image", "pull"], &["app", "add"], &["up"], &["run"], &["start"]] {
            let words: Vec<&str> = [&["podctl"], verb, &["--help"]].concat();
            let help = Podctl::commands().try_get_matches_from(words).expect_err("help").to_string();
            let place = |text: &str| help.find(text).unwrap_or_else(|| panic!("{verb:?}: no {text:?} in {help}"));
            assert!(place("--help") < place("Global options:"), "{help}");
            assert!(place("Global options:") < place("--dir"), "{help}");
            assert!(place("--debug") < place("Example"), "{help}");
            assert!(!matches!(verb, ["run"]) || help.contains("More apps follow after ---"), "{help}");
        }
    }
}

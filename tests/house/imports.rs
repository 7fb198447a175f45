//! Which module of a crate uses which, read from its source text.
//!
//! Counted are paths that begin with `crate::`, `super::` or `self::`, in imports and elsewhere. Not counted are
//! comments, tests, and what is between a folder's module and the modules in that folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module, as its path from the crate's root.
type Module = Vec<String>;

/// Users and what they use within one folder, each pair with the places that show it.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The modules of a crate.
pub struct Sources {
    texts: BTreeMap<Module, String>,
}

impl Sources {
    /// Reads every module below a crate's `src`, but for `src/bin` and files of tests.
    pub fn of(src: &Path) -> Self {
        let mut texts = BTreeMap::new();
        read(src, &mut Vec::new(), &mut texts);
        Self { texts }
    }

    /// Every circle: its folder, the modules in it, and for each of their uses of each other one place.
    pub fn circles(&self) -> Vec<(String, BTreeSet<String>, Vec<String>)> {
        let mut all = Vec::new();
        for (folder, graph) in self.graphs() {
            let reach: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|m| (m, reachable(&graph, m))).collect();
            let mut told = BTreeSet::new();
            for (module, reached) in &reach {
                if !reached.contains(module) || !told.insert(*module) {
                    continue;
                }
                let circle: BTreeSet<String> = reached
                    .iter()
                    .filter(|other| reach.get(*other).is_some_and(|r| r.contains(module)))
                    .map(|other| (*other).clone())
                    .collect();
                told.extend(reach.keys().filter(|m| circle.contains(**m)));
                let mut witnesses = Vec::new();
                for user in &circle {
                    for (used, places) in graph[user].iter().filter(|(used, _)| circle.contains(*used)) {
                        let place = places.first().expect("a place");
                        witnesses.push(format!("{user} uses {used}: {place} ({} in all)", places.len()));
                    }
                }
                all.push((folder.join("/"), circle, witnesses));
            }
        }
        all
    }

    /// Who uses whom, by folder.
    fn graphs(&self) -> BTreeMap<Module, Graph> {
        let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
        for (user, text) in &self.texts {
            for path in paths(text, user) {
                let used = self.module_of(&path);
                let common = user.iter().zip(used).take_while(|(a, b)| a == b).count();
                if common == user.len() || common == used.len() {
                    continue;
                }
                let graph = graphs.entry(user[..common].to_vec()).or_default();
                graph.entry(used[common].clone()).or_default();
                let uses = graph.entry(user[common].clone()).or_default().entry(used[common].clone()).or_default();
                uses.insert(format!("{} has {}", user.join("/"), path.join("::")));
            }
        }
        graphs
    }

    /// The module that has an item: the longest beginning of its path that is one.
    fn module_of<'a>(&self, path: &'a [String]) -> &'a [String] {
        let longest = (0..=path.len()).rev().find(|n| self.texts.contains_key(&path[..*n]));
        &path[..longest.unwrap_or(0)]
    }
}

/// Reads a folder of modules.
fn read(dir: &Path, module: &mut Module, into: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
        let path = entry.expect("an entry").path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).expect("a name in UTF-8").to_owned();
        if path.is_dir() {
            if module.is_empty() && stem == "bin" {
                continue;
            }
            module.push(stem);
            read(&path, module, into);
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") && !stem.ends_with("tests") {
            let mut name = module.clone();
            if !(stem == "mod" || module.is_empty() && (stem == "lib" || stem == "main")) {
                name.push(stem);
            }
            into.insert(name, code(&fs::read_to_string(&path).expect("source text")));
        }
    }
}

/// A source text without comments, and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split_once("#[cfg(test)]\nmod tests {").map_or(text, |(before, _)| before);
    text.lines().map(|line| line.split_once("//").map_or(line, |(before, _)| before)).collect::<Vec<_>>().join("\n")
}

/// What a module names by a path from the crate's root, from itself, or from the module above.
fn paths(text: &str, module: &[String]) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    for (at, _) in text.match_indices("::") {
        let before = &text[..at];
        let from = before.rfind(|c: char| !is_word(c)).map_or(0, |n| n + 1);
        if before[..from].ends_with("::") {
            continue;
        }
        let start = match &before[from..] {
            "crate" => Vec::new(),
            "self" => module.to_vec(),
            "super" => module[..module.len().saturating_sub(1)].to_vec(),
            _ => continue,
        };
        tree(&text[at + 2..], start, &mut found);
    }
    found
}

/// Reads what may follow `::` (a name, names, or a list in braces) and gives what is left of the text.
fn tree<'a>(text: &'a str, mut path: Module, found: &mut BTreeSet<Module>) -> &'a str {
    let mut rest = text.trim_start();
    if let Some(list) = rest.strip_prefix('{') {
        rest = list;
        loop {
            rest = tree(rest, path.clone(), found).trim_start();
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => return rest.strip_prefix('}').unwrap_or(rest),
            }
        }
    }
    let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
    match &rest[..end] {
        "" | "self" => {}
        "super" => {
            path.pop();
        }
        name => path.push(name.to_owned()),
    }
    rest = &rest[end..];
    if let Some(more) = rest.strip_prefix("::") {
        return tree(more, path, found);
    }
    found.insert(path);
    // `as NAME`, in a list
    match rest.trim_start().strip_prefix("as ") {
        Some(name) => name.trim_start().trim_start_matches(is_word),
        None => rest.strip_prefix('*').unwrap_or(rest),
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What a module uses, directly or by what it uses.
fn reachable<'a>(graph: &'a Graph, module: &str) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut next: Vec<&String> = graph[module].keys().collect();
    while let Some(module) = next.pop() {
        if reached.insert(module) {
            next.extend(graph.get(module).into_iter().flat_map(BTreeMap::keys));
        }
    }
    reached
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crate_of(files: &[(&str, &str)]) -> Sources {
        let module = |name: &str| name.split('/').filter(|n| !n.is_empty()).map(str::to_owned).collect();
        Sources { texts: files.iter().map(|(name, text)| (module(name), code(text))).collect() }
    }

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let found = crate_of(files).circles();
        found.into_iter().map(|(folder, names, _)| format!("{folder}: {}", Vec::from_iter(names).join(" "))).collect()
    }

    #[test]
    fn a_circle_is_found_however_it_is_written() {
        assert_eq!(circles(&[("a", "use crate::b::{C, d as e};"), ("b", "fn f() { crate::a::g() }")]), [": a b"]);
        assert_eq!(
            circles(&[("a", "use crate::{x, b};"), ("b", "use super::c::D;"), ("c", "use super::a;")]),
            [": a b c"]
        );
        assert_eq!(
            circles(&[("a", ""), ("a/b", "use super::c::D;"), ("a/c", "use crate::a::{self, b::{E, F}};")]),
            ["a: b c"]
        );
        assert_eq!(
            circles(&[("a/b", "use crate::c::{\n    D,\n    E,\n};"), ("a", ""), ("c", "use crate::a::*;")]),
            [": a c"]
        );
    }

    #[test]
    fn what_is_no_circle_is_not_told() {
        let tests = "use crate::b;\n#[cfg(test)]\nmod tests {\n    use super::*;\n}\n";
        assert!(circles(&[("a", tests), ("b", "// crate::a is above\nuse std::a::B;")]).is_empty());
        assert!(circles(&[("a", "mod b;\nuse self::b::C;"), ("a/b", "use super::D;")]).is_empty());
        assert!(
            circles(&[("a", "use crate::b::C;"), ("b", "#[cfg(test)]\nmod tests {\n    use crate::a::X;\n}\n")])
                .is_empty()
        );
    }
}

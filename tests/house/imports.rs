//! Finds out from the source text which modules of a crate use which.
//!
//! Paths count if they begin with `crate::`, `super::`, `self::`, the name of a module in the same folder, or the name
//! of an imported module. Comments, tests and a module's own re-exports (`pub use`) do not count: a use of a
//! re-exported item is a use of the file that defines it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// A module, as its path from the crate's root.
type Module = Vec<String>;

/// Users and what they use within one folder, each pair with the paths that show it.
type Graph = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// A circle of modules or files.
pub struct Circle {
    /// The folder whose modules form it; empty for a circle of files.
    pub folder: String,
    /// The modules of that folder, or the files.
    pub names: BTreeSet<String>,
    /// A line for each use of one by another, with a path that shows it.
    pub witnesses: Vec<String>,
}

/// The modules of a crate.
pub struct Sources {
    texts: BTreeMap<Module, String>,
    /// Re-exports: the path of the item, by the path under which it is re-exported.
    exports: BTreeMap<Module, Module>,
}

impl Sources {
    /// Reads every module below a crate's `src`, except for `src/bin` and files of tests.
    pub fn of(src: &Path) -> Self {
        let mut texts = BTreeMap::new();
        read(src, &mut Vec::new(), &mut texts);
        Self::new(texts)
    }

    fn new(texts: BTreeMap<Module, String>) -> Self {
        let mut exports = BTreeMap::new();
        for (module, text) in &texts {
            for (at, _) in text.match_indices("pub").filter(|(at, _)| !text[..*at].ends_with(is_word)) {
                let Some((visible, tree)) = text[at..].split_once(" use ") else { continue };
                if visible.contains(|c: char| !(is_word(c) || c == '(' || c == ')')) {
                    continue;
                }
                let tree = tree.split_once(';').map_or(tree, |(tree, _)| tree);
                for path in paths(tree, module, &children(&texts, module)) {
                    let mut named = module.clone();
                    named.extend(path.last().cloned());
                    exports.insert(named, path);
                }
            }
        }
        exports.retain(|named, path| named != path);
        Self { texts, exports }
    }

    /// The circles of the modules of one folder. A module uses another one if any file in it does.
    pub fn module_circles(&self) -> Vec<Circle> {
        let mut graphs: BTreeMap<Module, Graph> = BTreeMap::new();
        for (user, used, path) in self.uses() {
            let common = user.iter().zip(&used).take_while(|(a, b)| a == b).count();
            if common == user.len() || common == used.len() {
                continue;
            }
            add(graphs.entry(user[..common].to_vec()).or_default(), &user[common], &used[common], &user, &path);
        }
        graphs.iter().flat_map(|(folder, graph)| circles(&folder.join("/"), graph)).collect()
    }

    /// The uses between modules of the crate's root, as pairs of user and used.
    pub fn top_uses(&self) -> BTreeSet<(String, String)> {
        let uses = self.uses().into_iter();
        let tops = uses.filter_map(|(user, used, _)| Some((user.first()?.clone(), used.first()?.clone())));
        tops.filter(|(user, used)| user != used).collect()
    }

    /// The circles of files, wherever they are.
    pub fn file_circles(&self) -> Vec<Circle> {
        let mut graph = Graph::new();
        for (user, used, path) in self.uses() {
            if !(used.is_empty() || user == used) {
                add(&mut graph, &user.join("/"), &used.join("/"), &user, &path);
            }
        }
        circles("", &graph)
    }

    /// All uses, as user, used and the path that shows it.
    fn uses(&self) -> Vec<(Module, Module, Module)> {
        let mut uses = Vec::new();
        for (user, text) in &self.texts {
            let text = without_exports(text);
            let mut names = children(&self.texts, user);
            for path in paths(&text, user, &names) {
                if let Some(name) = path.last().filter(|_| self.texts.contains_key(&path)) {
                    names.entry(name.clone()).or_insert(path);
                }
            }
            for path in paths(&text, user, &names) {
                uses.push((user.clone(), self.module_of(&path).to_vec(), path));
            }
        }
        uses
    }

    /// The module that defines an item: the longest prefix of its path that is a module, after re-exports are resolved.
    fn module_of<'a>(&'a self, path: &'a [String]) -> &'a [String] {
        let mut path = path;
        for _ in 0..8 {
            let exported = (1..=path.len()).rev().find_map(|n| self.exports.get(&path[..n]));
            match exported {
                Some(there) if !self.texts.contains_key(path) => path = there,
                _ => break,
            }
        }
        let longest = (0..=path.len()).rev().find(|n| self.texts.contains_key(&path[..*n]));
        &path[..longest.unwrap_or(0)]
    }
}

/// The modules in a folder, by name.
fn children(texts: &BTreeMap<Module, String>, module: &[String]) -> BTreeMap<String, Module> {
    let below = texts.keys().filter(|m| m.len() == module.len() + 1 && m.starts_with(module) && !module.is_empty());
    below.map(|m| (m[module.len()].clone(), m.clone())).collect()
}

/// A text without its re-exports.
fn without_exports(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = ["pub use ", "pub(crate) use ", "pub(super) use "].iter().filter_map(|w| rest.find(w)).min() {
        kept.push_str(&rest[..at]);
        rest = rest[at..].split_once(';').map_or("", |(_, rest)| rest);
    }
    kept + rest
}

fn add(graph: &mut Graph, user: &str, used: &str, by: &[String], path: &[String]) {
    graph.entry(used.to_owned()).or_default();
    let uses = graph.entry(user.to_owned()).or_default().entry(used.to_owned()).or_default();
    uses.insert(format!("{} has {}", by.join("/"), path.join("::")));
}

/// Every circle of a graph.
fn circles(folder: &str, graph: &Graph) -> Vec<Circle> {
    let mut all = Vec::new();
    let reach: BTreeMap<&String, BTreeSet<&String>> = graph.keys().map(|m| (m, reachable(graph, m))).collect();
    let mut told = BTreeSet::new();
    for (module, reached) in &reach {
        if !reached.contains(module) || !told.insert(*module) {
            continue;
        }
        let names: BTreeSet<String> = reached
            .iter()
            .filter(|other| reach.get(*other).is_some_and(|r| r.contains(module)))
            .map(|other| (*other).clone())
            .collect();
        told.extend(reach.keys().filter(|m| names.contains(**m)));
        let mut witnesses = Vec::new();
        for user in &names {
            for (used, places) in graph[user].iter().filter(|(used, _)| names.contains(*used)) {
                let place = places.first().expect("a place");
                witnesses.push(format!("{user} uses {used}: {place} ({} in all)", places.len()));
            }
        }
        all.push(Circle { folder: folder.to_owned(), names, witnesses });
    }
    all
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
    let tests = ["#[cfg(test)]\nmod tests {", "#[cfg(test)]\npub(super) mod tests {"];
    let text = &text[..tests.iter().filter_map(|start| text.find(start)).min().unwrap_or(text.len())];
    text.lines().map(|line| line.split_once("//").map_or(line, |(before, _)| before)).collect::<Vec<_>>().join("\n")
}

/// All paths in a text that begin at the crate's root, at the module itself, at the module above, or at a module in
/// `names`.
fn paths(text: &str, module: &[String], names: &BTreeMap<String, Module>) -> BTreeSet<Module> {
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
            name => match names.get(name) {
                Some(named) => named.clone(),
                None => continue,
            },
        };
        tree(&text[at + 2..], start, &mut found);
    }
    found
}

/// Parses what may follow `::` (a name, names, or a list in braces); returns the rest of the text.
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

/// The modules that a module uses, directly or indirectly.
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
        Sources::new(files.iter().map(|(name, text)| (module(name), code(text))).collect())
    }

    fn circles(files: &[(&str, &str)]) -> Vec<String> {
        let found = crate_of(files).module_circles();
        found.into_iter().map(|c| format!("{}: {}", c.folder, Vec::from_iter(c.names).join(" "))).collect()
    }

    fn circles_of_files(files: &[(&str, &str)]) -> Vec<String> {
        crate_of(files).file_circles().into_iter().map(|c| Vec::from_iter(c.names).join(" ")).collect()
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

    #[test]
    fn a_circle_of_files_is_found_within_a_folder() {
        let child = ("a/b", "use super::D;");
        assert_eq!(circles_of_files(&[("a", "mod b;\nuse b::C;"), child]), ["a a/b"]);
        assert_eq!(circles_of_files(&[("a", "mod b;\nfn f() { b::c() }"), child]), ["a a/b"]);
        assert_eq!(circles_of_files(&[("a", "use self::b::C;"), child]), ["a a/b"]);
        // No two modules of one folder use each other: x uses a/c, which uses a/b, which uses x.
        let files = [
            ("a", ""),
            ("a/b", "use crate::x::X;"),
            ("a/c", "use super::b::B;"),
            ("x", "use crate::a;\nfn f() { a::c::d() }"),
        ];
        assert_eq!(circles_of_files(&files), ["a/b a/c x"]);
    }

    #[test]
    fn who_names_what_is_re_exported_uses_the_file_that_has_it() {
        let facade = ("a", "mod b;\nmod c;\npub use b::{B, E as F};\npub(crate) use self::c::C;");
        assert!(circles_of_files(&[facade, ("a/b", ""), ("a/c", "use super::B;")]).is_empty());
        assert_eq!(circles_of_files(&[facade, ("a/b", "use super::C;"), ("a/c", "use super::B;")]), ["a/b a/c"]);
    }
}

//! Rules of the source tree that the compiler does not check. These tests need neither root nor a build of the product.

use std::fs;
use std::path::{Path, PathBuf};

mod imports;

use imports::{Circle, Sources};

/// The root of the repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// Tolerated circles: folder, and the modules in it that may use each other. No entry is ever added.
const KNOWN: &[(&str, &[&str])] = &[];

/// Tolerated circles of files, by crate. No entry is ever added.
const KNOWN_FILES: &[(&str, &[&str])] = &[];

/// The modules of a folder use each other in one direction, so that each can be understood and tested without those
/// that use it.
#[test]
fn modules_form_no_circle() {
    check(Sources::module_circles, KNOWN);
}

/// Files use each other in one direction, whatever folder they are in.
#[test]
fn files_form_no_circle() {
    check(Sources::file_circles, KNOWN_FILES);
}

/// The list of modules in `stage1/src/lib.rs` has each module below those that it uses.
#[test]
fn modules_are_listed_bottom_up() {
    let src = root().join("stage1/src");
    let text = fs::read_to_string(src.join("lib.rs")).expect("lib.rs");
    let listed: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let place = |name: &str| listed.iter().position(|listed| *listed == name).expect("a module that is listed");
    for (user, used) in Sources::of(&src).top_uses() {
        assert!(place(&used) < place(&user), "{user} uses {used}, which is listed below it");
    }
}

/// Fails for a circle that is not tolerated.
fn check(circles: fn(&Sources) -> Vec<Circle>, known: &[(&str, &[&str])]) {
    let mut new = Vec::new();
    for name in ["stage0", "stage1", "cri"] {
        for Circle { folder, names, witnesses } in circles(&Sources::of(&root().join(name).join("src"))) {
            let folder = format!("{name}/{folder}");
            let listed = |(at, modules): &(&str, &[&str])| {
                *at == folder && names.iter().all(|module| modules.contains(&module.as_str()))
            };
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let told = format!("{folder}: {}\n    {}", names.join(" "), witnesses.join("\n    "));
            if known.iter().any(listed) {
                println!("known: {told}");
            } else {
                new.push(told);
            }
        }
    }
    assert!(new.is_empty(), "these use each other in a circle:\n{}", new.join("\n"));
}

/// Every package inherits `rust-version`: without it cargo accepts an older Rust, and clippy features that it lacks.
#[test]
fn every_package_names_the_oldest_rust() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("Cargo.toml");
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = ")).expect("members");
    for member in members.split('"').skip(1).step_by(2) {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).expect("a member");
        assert!(manifest.contains("\nrust-version.workspace = true\n"), "{member}/Cargo.toml inherits no rust-version");
    }
}

/// The end-to-end tests in the list of a module; `None` if the module does not exist.
fn tests_of(module: &str) -> Option<Vec<String>> {
    let module = module.replace("::", "/");
    let places = [format!("tests/e2e/{module}.rs"), format!("tests/e2e/{module}/mod.rs")];
    let source = places.iter().find_map(|place| fs::read_to_string(root().join(place)).ok())?;
    let listed = |line: &str| {
        let rest = line.trim().strip_prefix("both ").or_else(|| line.trim().strip_prefix("native "))?;
        Some(rest.split([' ', ';']).next()?.to_owned())
    };
    Some(source.lines().filter_map(listed).collect())
}

/// The filters that scripts/test gives to its virtual machines name existing tests. Without this a wrong filter would be
/// noticed only at the end of a run.
#[test]
fn filters_for_the_virtual_machine_name_tests() {
    let script = fs::read_to_string(root().join("scripts/test")).expect("scripts/test");
    let lines = script.lines().filter_map(|line| line.trim_start().strip_prefix("in_virtual_machine "));
    let filters: Vec<&str> = lines.flat_map(str::split_whitespace).filter(|word| !word.starts_with('-')).collect();
    assert!(!filters.is_empty());
    for filter in filters {
        let (module, name) = filter.rsplit_once("::").expect("MODULE::NAME");
        let tests = tests_of(module).unwrap_or_else(|| panic!("there is no module {module}"));
        assert!(tests.iter().any(|test| test.starts_with(name)), "no end-to-end test is called {filter}");
    }
}

/// The tests that docs/contract.md names exist, and each fact of the sections 9 and 10 has a row with tests.
#[test]
fn the_contract_names_tests_that_are_there() {
    let page = fs::read_to_string(root().join("docs/contract.md")).expect("docs/contract.md");
    let (facts, table) = page.split_once("## What shows it").expect("What shows it");
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let tests = row.trim_end_matches([' ', '|']).rsplit('|').next().expect("a column");
        for name in tests.split('`').skip(1).step_by(2) {
            named += 1;
            let is_module = tests_of(name).is_some();
            let is_test = name.rsplit_once("::").is_some_and(|(module, name)| {
                tests_of(module).is_some_and(|tests| tests.iter().any(|test| test == name))
            });
            assert!(is_module || is_test, "docs/contract.md names {name}, which is not an end-to-end test or module");
        }
    }
    assert!(named > 50, "{named}");
    for section in [9, 10] {
        let (_, text) = facts.split_once(&format!("\n## {section}. ")).expect("the section");
        let text = text.split("\n## ").next().unwrap_or_default();
        let (_, rows) = table.split_once(&format!("Each fact of section {section}:\n")).expect("its table");
        let rows = rows.trim_start().lines().take_while(|line| line.starts_with('|')).skip(2);
        let facts = text.lines().filter(|line| line.starts_with("- ")).count();
        assert_eq!(rows.count(), facts, "section {section} of docs/contract.md: rows and facts");
    }
}

/// Each row of the table in docs/pod-files.md names an existing test.
#[test]
fn the_table_of_pod_files_names_tests_that_are_there() {
    let page = fs::read_to_string(root().join("docs/pod-files.md")).expect("docs/pod-files.md");
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() > 25, "{}", rows.len());
    for row in rows {
        let test = row.trim_end_matches([' ', '|']).rsplit('|').next().expect("a column").trim().trim_matches('`');
        let (module, name) = test.rsplit_once("::").unwrap_or_else(|| panic!("no test in {row}"));
        let tests = tests_of(module).unwrap_or_else(|| panic!("there is no module {module}"));
        assert!(tests.iter().any(|test| test == name), "docs/pod-files.md names {test}, which is not there");
    }
}

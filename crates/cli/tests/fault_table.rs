//! `docs/faults.md` is made from the names of the tests, so that it lists what is tried and nothing else.
//!
//! `KEYROLL_WRITE_TABLE=1 cargo test --test fault_table` writes it anew.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// The files whose tests are faults, and what they have in common.
const FILES: [(&str, &str); 15] = [
    ("containers/refusals", "Before anything changes"),
    ("rights", "Without the rights it needs"),
    ("containers/failures", "A step fails"),
    ("containers/faults", "The machine, its disks, the terminal"),
    ("containers/env_file_faults", "The env file"),
    ("containers/postgres_faults", "The database"),
    ("containers/container_faults", "The containers"),
    ("containers/http_faults", "The way to the application"),
    ("containers/engine", "The container engine"),
    (
        "containers/endings",
        "After the point of no return, and endings that need an operator",
    ),
    (
        "containers/interrupts",
        "keyroll is stopped or killed while others work for it",
    ),
    ("containers/own_files", "What keyroll itself needs is gone"),
    (
        "containers/exams",
        "Every step, in every way that it can fail",
    ),
    ("kills", "keyroll is killed around a record of its journal"),
    ("containers/recover", "The machine goes down and comes up"),
];

const HEAD: &str = "# Faults

What is tried on real containers: Docker Engine, compose, PostgreSQL, a real application. Each line is the name of a test, which says the fault and the ending that must follow. Most then look, with other eyes than keyroll's, at the env file, the
role, the containers and the admin's login. What cannot be brought about on real machines is tried in the [simulation](simulation.md).

This page is made from the tests (`crates/cli/tests/fault_table.rs`).
";

/// The names of a file's tests, in their order.
fn tests(source: &str) -> Vec<&str> {
    let mut names = vec![];
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        if !matches!(line, "#[tokio::test]" | "#[test]") {
            continue;
        }
        // Attributes may stand in between, and a long name ends on the next line.
        let name = lines.find_map(|l| l.trim_start_matches("async ").strip_prefix("fn "));
        names.extend(name.and_then(|n| n.split('(').next()));
    }
    names
}

fn sentence(name: &str) -> String {
    let text = name.replace('_', " ");
    let mut letters = text.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}", first.unwrap_or_default(), letters.as_str())
}

#[test]
fn the_table_of_faults_is_what_is_tried() {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut table = HEAD.to_owned();
    for (file, title) in FILES {
        let source = fs::read_to_string(own.join(format!("tests/{file}.rs"))).unwrap();
        let names = tests(&source);
        assert!(!names.is_empty(), "{file} has no tests");
        let _ = write!(table, "\n## {title}\n\n`crates/cli/tests/{file}.rs`\n\n");
        for name in names {
            let _ = writeln!(table, "- {}", sentence(name));
        }
    }
    let path = own.join("../../docs/faults.md");
    if std::env::var_os("KEYROLL_WRITE_TABLE").is_some() {
        fs::write(&path, &table).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == table,
        "docs/faults.md is not what is tried; write it anew with KEYROLL_WRITE_TABLE=1 cargo test --test fault_table"
    );
}

/// A file that nobody names is not compiled, and its tests say nothing.
#[test]
fn every_file_of_tests_on_containers_is_part_of_their_program() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/containers");
    let program = fs::read_to_string(directory.join("main.rs")).unwrap();
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let named = program.lines().any(|l| l == format!("mod {name};"));
        assert!(named || name == "main", "main.rs does not name {name}");
    }
}

#[test]
fn names_are_found_behind_attributes_and_across_lines() {
    let source = "#[tokio::test]\nasync fn one_thing() {\n}\n#[test]\n#[ignore = \"x\"]\nfn another(\n) {\n}\nfn no_test() {}\n";
    assert_eq!(tests(source), ["one_thing", "another"]);
    assert_eq!(sentence("one_thing"), "One thing");
}

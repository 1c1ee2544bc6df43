//! What each dialect makes of the files in the table, and what parsing promises.

mod table;

use keyroll_envfile::{Dialect, EnvFile, EnvFileError, Readers, Reading, Seen, Why};
use table::{Case, Expect, Readings, cases};

fn readings(text: &str, dialect: Dialect) -> Option<Vec<(String, Reading)>> {
    let file = EnvFile::parse_for(text.as_bytes(), Readers::only(dialect)).ok()?;
    let mut keys: Vec<&str> = file.keys().collect();
    keys.sort_unstable();
    keys.dedup();
    let reading = |key: &str| file.get(key).expect("a key of the file").clone();
    Some(keys.iter().map(|k| ((*k).to_owned(), reading(k))).collect())
}

fn matches(found: Option<&[(String, Reading)]>, expected: Readings) -> bool {
    match (found, expected) {
        (None, None) => true,
        (Some(found), Some(expected)) => {
            found.len() == expected.len()
                && expected.iter().all(|(key, expect)| {
                    found.iter().any(|(name, reading)| {
                        name == key
                            && match (reading, expect) {
                                (Reading::Value(v), Expect::Is(text))
                                | (Reading::Interpolated(v), Expect::Refers(text)) => {
                                    v.expose() == *text
                                }
                                (Reading::Inherited, Expect::Bare) => true,
                                _ => false,
                            }
                    })
                })
        }
        _ => false,
    }
}

fn check(dialect: Dialect, expected: fn(&Case) -> Readings) {
    let wrong: Vec<&str> = cases()
        .filter(|case| !matches(readings(case.text, dialect).as_deref(), expected(case)))
        .map(|case| case.name)
        .collect();
    assert!(
        wrong.is_empty(),
        "{dialect} reads these otherwise: {wrong:#?}"
    );
}

#[test]
fn the_table_has_at_least_a_hundred_different_cases() {
    let mut texts: Vec<&str> = cases().map(|case| case.text).collect();
    texts.sort_unstable();
    texts.dedup();
    assert!(texts.len() >= 100 && texts.len() == cases().count());
}

#[test]
fn docker_compose_reads_the_table_as_it_does() {
    check(Dialect::ComposeGo, |case| case.compose);
}

#[test]
fn compose_v1_reads_the_table_as_it_does() {
    check(Dialect::PythonDotenv, |case| case.python);
}

#[test]
fn node_dotenv_reads_the_table_as_it_does() {
    check(Dialect::NodeDotenv, |case| case.node);
}

#[test]
fn the_raw_format_reads_the_table_as_it_does() {
    check(Dialect::Raw, |case| case.raw);
}

#[test]
fn bytes_come_back_as_they_were() {
    for case in cases() {
        for dialect in [
            Dialect::ComposeGo,
            Dialect::PythonDotenv,
            Dialect::NodeDotenv,
            Dialect::Raw,
        ] {
            if let Ok(file) = EnvFile::parse_for(case.text.as_bytes(), Readers::only(dialect)) {
                assert_eq!(file.as_bytes(), case.text.as_bytes(), "{}", case.name);
            }
        }
    }
}

#[test]
fn a_refusal_names_the_line_and_what_was_expected_and_shows_no_value() {
    for (text, line, expected) in [
        ("A=1\nB!=hunter2\n", 2, "letters, digits"),
        ("A=1\n\nB C=hunter2\n", 3, "without spaces"),
        ("# c\nA=\"hunter2\nB=2\n", 2, "closing \""),
        ("A='x\ny'\nB='hunter2\n", 3, "closing '"),
        ("A=1\nB=hunter2${\n", 2, "`$$`"),
        ("A=\"x\" hunter2!\n", 1, "closing quote"),
        ("=hunter2\n", 1, "a name before"),
        // Compose takes the name for a value without a name here, which no container can be given.
        ("A=1\nhunter2", 2, "line break"),
    ] {
        match EnvFile::parse(text.as_bytes()) {
            Err(error @ EnvFileError::Syntax { line: found, .. }) => {
                assert_eq!(found, line, "{text:?}");
                let shown = error.to_string();
                assert!(shown.contains(expected), "{shown}");
                assert!(!format!("{shown} {error:?}").contains("hunter2"), "{shown}");
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }
}

#[test]
fn what_is_not_text_is_refused_with_its_line() {
    for (bytes, at) in [(&b"A=1\nB=\xff\n"[..], 2), (b"A=1\n\nB=\0\n", 3)] {
        assert!(matches!(EnvFile::parse(bytes), Err(EnvFileError::NotText { line }) if line == at));
    }
}

#[test]
fn debug_shows_keys_and_no_values() {
    let file = EnvFile::parse(b"PASSWORD=hunter2\nURL=x://u:hunter2@h\nT=hunter2$X\n").unwrap();
    let shown = format!("{file:?} {:?} {:?}", file.get("T"), file.ambiguities());
    assert!(
        shown.contains("PASSWORD") && !shown.contains("hunter2"),
        "{shown}"
    );
}

fn ambiguity(text: &str) -> Vec<(usize, Option<String>, String)> {
    let file = EnvFile::parse(text.as_bytes()).unwrap();
    file.ambiguities()
        .into_iter()
        .map(|a| (a.line, a.key.clone(), a.to_string()))
        .collect()
}

#[test]
fn values_of_safe_characters_are_read_alike_by_all_three() {
    assert_eq!(
        ambiguity("A=x\nexport B=y-1_Z\nC='a b'\nD=\"e#f\"\nE='m\nn'\nF= g \n\n# c\nH=1 # c\nI=\n"),
        []
    );
}

#[test]
fn every_disagreement_is_reported_with_line_key_and_who_sees_what() {
    for (text, line, key, words) in [
        ("A=1\nB=x#y\n", 2, "B", "Node dotenv: another value"),
        ("A: x\n", 1, "A", "docker-compose v1: no value"),
        (
            "A=`x`\n",
            1,
            "A",
            "docker-compose v1: the same, Node dotenv: another value",
        ),
        (
            "A=p$x\n",
            1,
            "A",
            "docker compose: references to other variables",
        ),
        ("A=p$$x\n", 1, "A", "docker-compose v1: another value"),
        ("A='p${X}'\n", 1, "A", "docker-compose v1: references"),
        ("A='it\\'s'\n", 1, "A", "Node dotenv: another value"),
        ("A=1\nB=2\nA=3\n", 3, "A", "defined on lines 1, 3"),
    ] {
        let found = ambiguity(text);
        assert!(
            found.iter().any(|(l, k, shown)| *l == line
                && k.as_deref() == Some(key)
                && shown.contains(words)),
            "{text:?}: {found:#?}"
        );
    }
}

#[test]
fn only_a_rotations_own_keys_and_whole_file_refusals_block_it() {
    let file = EnvFile::parse_for(
        b"GOOD=1\nODD=x#y\nexport THIRD=3\n",
        Readers::default().and(Dialect::Raw),
    )
    .unwrap();
    let found = file.ambiguities();
    let whole: Vec<_> = found.iter().filter(|a| a.blocks(&["GOOD"])).collect();
    assert!(
        matches!(whole.as_slice(), [one] if one.key.is_none() && one.line == 3
            && matches!(one.why, Why::Refused { dialect: Dialect::Raw, .. })),
        "{found:#?}"
    );
    assert!(
        found
            .iter()
            .any(|a| a.key.as_deref() == Some("ODD") && a.blocks(&["ODD"]))
    );
}

#[test]
fn keys_that_a_parser_loses_in_a_quote_that_closes_later_for_it_are_reported() {
    // Compose v2 reads two backslashes; for v1 the second one escapes the quote, and B is inside A.
    let file = EnvFile::parse(b"A='x\\\\'\nB=secret\nC='y'\n").unwrap();
    let found = file.ambiguities();
    let seen = found
        .iter()
        .find(|a| a.blocks(&["B"]))
        .map(|a| a.why.clone());
    assert_eq!(
        seen,
        Some(Why::ReadDifferently(vec![
            (Dialect::ComposeGo, Seen::Same),
            (Dialect::PythonDotenv, Seen::Nothing),
            (Dialect::NodeDotenv, Seen::Same),
        ])),
        "{found:#?}"
    );
}

#[test]
fn a_dialect_that_is_not_among_the_readers_can_be_asked() {
    let file = EnvFile::parse(b"A='x'\n").unwrap();
    assert!(
        matches!(file.get_as("A", Dialect::Raw), Some(Reading::Value(v)) if v.expose() == "'x'")
    );
    assert!(file.get_as("B", Dialect::Raw).is_none());
}

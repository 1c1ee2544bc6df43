//! Setting values, comparing files, and taking values back.

use keyroll_envfile::{Dialect, EnvFile, EnvFileError, Quote, Readers, Reading, Reverted};
use keyroll_secret::Secret;

fn file(text: &str) -> EnvFile {
    EnvFile::parse(text.as_bytes()).unwrap()
}

fn text(file: &EnvFile) -> &str {
    std::str::from_utf8(file.as_bytes()).unwrap()
}

fn value(file: &EnvFile, key: &str) -> String {
    match file.get(key) {
        Some(Reading::Value(value)) => value.expose().to_owned(),
        other => panic!("{key}: {other:?}"),
    }
}

#[test]
fn only_the_bytes_of_the_value_change() {
    for (before, after) in [
        ("P=old\n", "P=NEW\n"),
        ("P=old", "P=NEW"),
        ("P=\n", "P=NEW\n"),
        ("P=", "P=NEW"),
        ("P=\r\nQ=1\r\n", "P=NEW\r\nQ=1\r\n"),
        ("P=  \nQ=1\n", "P=NEW  \nQ=1\n"),
        ("P=''\n", "P='NEW'\n"),
        ("P=\"\" # c\n", "P=\"NEW\" # c\n"),
        ("export P=old\n", "export P=NEW\n"),
        (
            "  export\tP = old \t # it's here\n",
            "  export\tP = NEW \t # it's here\n",
        ),
        ("P='old'\n", "P='NEW'\n"),
        ("P=\"old\"#c\n", "P=\"NEW\"#c\n"),
        ("P=\"a\nb\"\nQ=1\n", "P=\"NEW\"\nQ=1\n"),
        ("P=old\r\nQ=1\r\n", "P=NEW\r\nQ=1\r\n"),
        ("\u{feff}P=old\nQ=1\n", "\u{feff}P=NEW\nQ=1\n"),
        (
            "# P=old\n\nQ=old\nP=old # old\nR=old\n",
            "# P=old\n\nQ=old\nP=NEW # old\nR=old\n",
        ),
        ("MY_P=old\nP=old\nP_2=old\n", "MY_P=old\nP=NEW\nP_2=old\n"),
        (
            "Q='x\nP=inner\n'\nR=pä\nP=old\n",
            "Q='x\nP=inner\n'\nR=pä\nP=NEW\n",
        ),
        ("P=old words here\n", "P=NEW\n"),
    ] {
        let mut edited = file(before);
        let change = edited
            .set("P", &Secret::new("NEW"))
            .unwrap_or_else(|e| panic!("{before:?}: {e}"));
        assert_eq!(text(&edited), after);
        assert_eq!(value(&edited, "P"), "NEW");
        assert_eq!(change.key, "P");
        assert!(edited.differs_only_in(&file(before), &["P"]));
    }
}

#[test]
fn a_change_names_its_line() {
    let mut edited = file("A=1\nB='x\ny'\nP=old\n");
    assert_eq!(edited.set("P", &Secret::new("n")).unwrap().line, 4);
}

#[test]
fn a_missing_key_is_an_error_and_nothing_is_appended() {
    let mut edited = file("A=1\n# P=x\n");
    let error = edited.set("P", &Secret::new("new")).unwrap_err();
    assert!(matches!(error, EnvFileError::MissingKey { ref key } if key == "P"));
    assert_eq!(text(&edited), "A=1\n# P=x\n");
}

#[test]
fn what_cannot_be_rotated_in_place_is_refused_with_the_reason_and_nothing_changes() {
    for (before, words) in [
        ("P=1\nA=2\nP=3\n", "defined on lines 1, 3"),
        ("P\nA=1\n", "without a value"),
        ("P=${OTHER}\n", "refers to other variables"),
        ("P=$OTHER\n", "refers to other variables"),
        ("P: old\n", "docker-compose v1: no value"),
        ("P=ol#d\n", "Node dotenv: another value"),
        ("P=`old`\n", "differently"),
        ("P='o\\'d'\n", "differently"),
        ("Q='x\\'\nP='old'\n", "refuses the whole file"),
    ] {
        let Ok(mut edited) = EnvFile::parse(before.as_bytes()) else {
            assert!(words.contains("whole file"), "{before:?}");
            continue;
        };
        let error = edited
            .set("P", &Secret::new("new"))
            .unwrap_err()
            .to_string();
        assert!(error.contains(words), "{before:?}: {error}");
        assert_eq!(text(&edited), before);
    }
}

#[test]
fn a_value_that_the_quotes_cannot_carry_alike_for_every_reader_is_refused() {
    for (before, new, carried) in [
        ("P=old\n", "a b", true),
        ("P=old\n", "a=b/c+d:e@f,g%h!i*j(k)~", true),
        ("P=old\n", "a#b", false),
        ("P=old\n", "a #b", false),
        ("P=old\n", "a$b", false),
        ("P=old\n", "a$$b", false),
        ("P=old\n", "a$", true),
        ("P=old\n", "a\nb", false),
        ("P=old\n", " a", false),
        ("P=old\n", "a ", false),
        ("P=old\n", "'a'", false),
        ("P=old\n", "`a`", false),
        ("P=old\n", "it's", true),
        ("P='old'\n", "a#b $c \"d\" `e`", true),
        ("P='old'\n", "a\nb", true),
        ("P='old'\n", "it's", false),
        ("P='old'\n", "a${b}", false),
        ("P='old'\n", "a\\", false),
        ("P='old'\n", "a\\b", true),
        ("P='old'\n", "a\\\\b", false),
        ("P=\"old\"\n", "it's #1", true),
        ("P=\"old\"\n", "a\"b", false),
        ("P=\"old\"\n", "a$b", false),
        ("P=\"old\"\n", "a\\b", false),
        ("P=\"old\"\n", "a\\nb", false),
        ("P=old\n", "a\0b", false),
    ] {
        let mut edited = file(before);
        match edited.set("P", &Secret::new(new)) {
            Ok(_) => {
                assert!(carried, "{before:?} took {new:?}");
                assert_eq!(value(&edited, "P"), new);
            }
            Err(EnvFileError::CannotCarry { .. }) => {
                assert!(!carried, "{before:?} refused {new:?}");
                assert_eq!(text(&edited), before);
            }
            Err(other) => panic!("{before:?} {new:?}: {other}"),
        }
    }
}

#[test]
fn the_refusal_of_a_value_names_the_reader_and_the_quotes_and_not_the_value() {
    let mut edited = file("A=1\nP=old\n");
    let error = edited.set("P", &Secret::new("hunter2#x")).unwrap_err();
    assert!(matches!(
        error,
        EnvFileError::CannotCarry {
            line: 2,
            dialect: Dialect::NodeDotenv,
            quote: Quote::Bare,
            ..
        }
    ));
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[test]
fn an_empty_value_is_never_set() {
    let mut edited = file("P='old'\n");
    let error = edited.set("P", &Secret::new("")).unwrap_err();
    assert!(matches!(error, EnvFileError::EmptyValue { .. }));
    assert_eq!(text(&edited), "P='old'\n");
}

#[test]
fn fewer_readers_carry_more() {
    let mut edited = EnvFile::parse_for(b"P: old#1\n", Readers::only(Dialect::ComposeGo)).unwrap();
    edited.set("P", &Secret::new("new#2")).unwrap();
    assert_eq!(text(&edited), "P: new#2\n");
}

#[test]
fn a_raw_file_is_edited_without_quotes_in_mind() {
    let mut edited = EnvFile::parse_for(b"P='old'  \r\n", Readers::only(Dialect::Raw)).unwrap();
    edited.set("P", &Secret::new("a #$b\"")).unwrap();
    assert_eq!(text(&edited), "P=a #$b\"\r\n");
}

#[test]
fn changed_keys_are_those_that_a_reader_reads_otherwise() {
    let before = file("A=1\nB='2'\nC=3 # c\nD=4\nE=x\n");
    let after = file("A=1\nB=\"2\"\nC=4 # d\nF=5\nE=x#y\n");
    let changed = before.changed_keys(&after);
    assert_eq!(
        changed.into_iter().collect::<Vec<_>>(),
        ["C", "D", "E", "F"]
    );
}

#[test]
fn differs_only_in_sees_every_byte_outside_the_values_of_the_keys() {
    let before = file("A=1\nP='old' # c\nB=2\n");
    for (other, only) in [
        ("A=1\nP='new' # c\nB=2\n", true),
        ("A=1\nP='old' # c\nB=2\n", true),
        ("A=1\nP=\"new\" # c\nB=2\n", false),
        ("A=1\nP='new' # d\nB=2\n", false),
        ("A=1\nP='new' # c\nB=3\n", false),
        ("A=1\nB=2\nP='new' # c\n", false),
        ("A=1\nP='new' # c\nB=2", false),
    ] {
        assert_eq!(
            before.differs_only_in(&file(other), &["P"]),
            only,
            "{other:?}"
        );
    }
}

#[test]
fn only_our_keys_go_back_when_somebody_edited_the_file_meanwhile() {
    let before = file("# head\nP='old' # c\nURL=x://u:old@h/db\nB=2\n");
    let mut written = before.clone();
    written.set("P", &Secret::new("fresh")).unwrap();
    written
        .set("URL", &Secret::new("x://u:fresh@h/db"))
        .unwrap();
    // Somebody adds a key, changes another, and moves ours.
    let mut now = file("# head\nNEW=1\nB=3\nURL=x://u:fresh@h/db\nP='fresh' # c\n");
    assert_eq!(
        now.revert(&before, &written, &["P", "URL"]),
        [
            ("P".to_owned(), Reverted::Restored),
            ("URL".to_owned(), Reverted::Restored)
        ]
    );
    assert_eq!(
        text(&now),
        "# head\nNEW=1\nB=3\nURL=x://u:old@h/db\nP='old' # c\n"
    );
}

#[test]
fn a_value_that_is_not_ours_any_more_is_left_alone_and_named() {
    let before = file("A=old\nB=old\nC=old\nD=old#1\nE=old\nF=old\n");
    let written = file("A=new\nB=new\nC=new\nD=new\nE=new\nF=new\n");
    let mut now = file("A=theirs\nB=old\nD='new'\nE='new'\nF=new\nF=new\n");
    let outcome = now.revert(&before, &written, &["A", "B", "C", "D", "E", "F"]);
    assert_eq!(
        outcome.iter().map(|(_, o)| *o).collect::<Vec<_>>(),
        [
            Reverted::Foreign,
            Reverted::AlreadyOld,
            Reverted::Gone,
            Reverted::Restored,
            Reverted::Restored,
            Reverted::Foreign
        ]
    );
    assert_eq!(
        text(&now),
        "A=theirs\nB=old\nD='old#1'\nE='old'\nF=new\nF=new\n"
    );
}

#[test]
fn a_value_goes_back_only_where_it_reads_as_it_did() {
    let before = file("A=\"say \\\"x\\\"\"\n");
    let mut now = file("A=new\n");
    // In quotes it was escaped; unquoted the same text would be read with other bytes around it.
    assert_eq!(
        now.revert(&before, &file("A=\"new\"\n"), &["A"]),
        [("A".to_owned(), Reverted::Restored)]
    );
    assert_eq!(value(&now, "A"), "say \"x\"");
    let before = file("A='a # b'\n");
    let mut now = file("A=new\n");
    assert_eq!(
        now.revert(&before, &file("A='new'\n"), &["A"]),
        [("A".to_owned(), Reverted::CannotCarry)]
    );
    assert_eq!(text(&now), "A=new\n");
}

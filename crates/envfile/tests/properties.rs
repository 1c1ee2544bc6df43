//! Whatever the file looks like: an edit changes one value and nothing else.

use keyroll_envfile::{Dialect, EnvFile, EnvFileError, Readers, Reading, Reverted, Scope};
use keyroll_secret::Secret;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

const DIALECTS: [Dialect; 4] = [
    Dialect::ComposeGo,
    Dialect::PythonDotenv,
    Dialect::NodeDotenv,
    Dialect::Raw,
];

/// Pieces that parsers trip over.
const PIECES: &[&str] = &[
    "a", "b", "0", "-", "_", ".", " ", "  ", "\t", "#", " #", "$", "$$", "$A", "${A}", "${A:-x}",
    "\\", "\\\\", "\\n", "\\\"", "\\'", "\"", "'", "`", "=", ":", "\r", "\u{a0}", "\u{b}", "é",
    "@", "%40", "://",
];

fn value() -> impl Strategy<Value = String> {
    let body = || vec(select(PIECES), 0..6).prop_map(|pieces| pieces.concat());
    prop_oneof![
        4 => "[A-Za-z0-9_-]{0,8}",
        2 => body(),
        2 => body().prop_map(|b| b.replace(['\'', '\\', '\r'], "")).prop_map(|b| format!("'{b}'")),
        2 => body().prop_map(|b| b.replace(['"', '\\', '$', '\r'], "")).prop_map(|b| format!("\"{b}\"")),
        1 => Just("'x\ny'".to_owned()),
        1 => Just("\"x\nB=1\ny\"".to_owned()),
    ]
}

fn line() -> impl Strategy<Value = String> {
    let head = (
        select(&["", "", "", "export ", "  "][..]),
        select(&["A", "B", "C_1", "D.x", "E-f", "P"][..]),
        select(&["=", "=", "=", " = ", ": ", "= "][..]),
    );
    let tail = select(&["", "", "", " # c", " ", "\t"][..]);
    prop_oneof![
        8 => (head, value(), tail).prop_map(|((a, k, s), v, t)| format!("{a}{k}{s}{v}{t}")),
        1 => select(&["", "# A=1", "  # it's", "BARE"][..]).prop_map(str::to_owned),
    ]
}

fn text() -> impl Strategy<Value = String> {
    (
        select(&["", "", "", "\u{feff}"][..]),
        vec(line(), 0..6),
        select(&["\n", "\n", "\r\n"][..]),
        any::<bool>(),
    )
        .prop_map(|(bom, lines, end, last)| {
            format!("{bom}{}{}", lines.join(end), if last { end } else { "" })
        })
}

fn all_readings(file: &EnvFile) -> Vec<(String, Option<Reading>)> {
    let mut keys: Vec<&str> = file.keys().collect();
    keys.extend(["A", "B", "C_1", "D.x", "E-f", "P", "BARE"]);
    keys.iter()
        .flat_map(|key| {
            DIALECTS[..3]
                .iter()
                .map(move |d| (format!("{d}: {key}"), file.get_as(key, *d)))
        })
        .collect()
}

fn same(a: Option<&Reading>, b: Option<&Reading>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => a.same_as(b),
        (None, None) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn parsing_never_panics_and_gives_the_bytes_back(bytes in vec(any::<u8>(), 0..200)) {
        for dialect in DIALECTS {
            if let Ok(file) = EnvFile::parse_for(&bytes, Readers::only(dialect)) {
                prop_assert_eq!(file.as_bytes(), &bytes[..]);
            }
        }
    }

    #[test]
    fn text_comes_back_as_it_was(text in text()) {
        for dialect in DIALECTS {
            if let Ok(file) = EnvFile::parse_for(text.as_bytes(), Readers::only(dialect)) {
                prop_assert_eq!(file.as_bytes(), text.as_bytes());
            }
        }
    }

    #[test]
    fn setting_a_value_changes_nothing_else(text in text(), at in any::<prop::sample::Index>(), new in "[A-Za-z0-9_-]{1,12}|[ -~]{0,12}") {
        let Ok(before) = EnvFile::parse(text.as_bytes()) else { return Ok(()) };
        let keys: Vec<String> = before.keys().map(str::to_owned).collect();
        if keys.is_empty() { return Ok(()) }
        let key = at.get(&keys).as_str();
        let mut after = before.clone();
        if after.set(key, &Secret::new(new.as_str())).is_err() {
            prop_assert_eq!(before.as_bytes(), after.as_bytes());
            return Ok(());
        }
        // Outside the value every byte is the same.
        prop_assert!(before.differs_only_in(&after, &[key]));
        // Every reader reads the new value there, and everything else as before; asked anew, not from what the file kept.
        let reread = EnvFile::parse(after.as_bytes()).unwrap();
        for dialect in &DIALECTS[..3] {
            let now = reread.get_as(key, *dialect);
            prop_assert!(matches!(&now, Some(Reading::Value(v)) if v.expose() == new), "{} {:?}", dialect, now);
        }
        for ((name, was), (_, now)) in all_readings(&before).iter().zip(&all_readings(&reread)) {
            prop_assert!(name.ends_with(&format!(": {key}")) || same(was.as_ref(), now.as_ref()), "{}", name);
        }
    }

    #[test]
    fn a_safe_value_can_be_set_wherever_the_readers_agree(text in text(), new in "[A-Za-z0-9_-]{1,43}") {
        let Ok(file) = EnvFile::parse(text.as_bytes()) else { return Ok(()) };
        let ambiguities = file.ambiguities();
        for key in file.keys().filter(|key| ambiguities.iter().all(|a| !a.blocks(&[key]))) {
            match (file.get(key), file.clone().set(key, &Secret::new(new.as_str()))) {
                (Some(Reading::Value(_)), outcome) => prop_assert!(outcome.is_ok(), "{key}: {:?}", outcome),
                (Some(Reading::Interpolated(_)), outcome) => prop_assert!(matches!(outcome, Err(EnvFileError::Interpolated { .. })), "{}", key),
                (_, outcome) => prop_assert!(matches!(outcome, Err(EnvFileError::NoValue { .. })), "{}", key),
            }
        }
    }

    #[test]
    fn a_rewritten_secret_is_gone_and_the_way_back_restores_every_byte(text in text(), quote in select(&["", "'", "\""][..]), new in "[A-Za-z0-9_-]{20,43}") {
        const OLD: &str = "oldPassword-123_x";
        let text = format!("{text}\nURL={quote}pg://u:{OLD}@h/db{quote}\nCOPY={quote}{OLD}{quote}\n");
        let Ok(before) = EnvFile::parse(text.as_bytes()) else { return Ok(()) };
        let mut after = before.clone();
        let (old, new) = (Secret::new(OLD), Secret::new(new));
        let found = after.replace_embedded(&old, &new, &Scope::default());
        let keys: Vec<&str> = found.derived.iter().map(|d| d.key.as_str()).collect();
        prop_assert!(before.differs_only_in(&after, &keys));
        if found.unknown.is_empty() && keys == ["URL", "COPY"] {
            prop_assert!(!String::from_utf8_lossy(after.as_bytes()).contains(OLD));
        }
        let back = after.replace_embedded(&new, &old, &Scope::default());
        prop_assert_eq!(back.derived.len(), found.derived.len());
        prop_assert_eq!(before.as_bytes(), after.as_bytes());
    }

    #[test]
    fn reverting_restores_our_key_under_any_other_edit(before in text(), added in line(), new in "[A-Za-z0-9_-]{8,20}") {
        let before = format!("{before}\nOURS='old value' # c\n");
        let Ok(original) = EnvFile::parse(before.as_bytes()) else { return Ok(()) };
        let mut written = original.clone();
        if written.set("OURS", &Secret::new(new)).is_err() { return Ok(()) }
        let theirs = format!("{}{added}\n", String::from_utf8_lossy(written.as_bytes()));
        let Ok(mut now) = EnvFile::parse(theirs.as_bytes()) else { return Ok(()) };
        let agreed = now.ambiguities().iter().all(|a| !a.blocks(&["OURS"]));
        let outcome = now.revert(&original, &written, &["OURS"]);
        if outcome[0].1 != Reverted::Restored {
            // Only where what they added makes the readers disagree about our key.
            prop_assert!(!agreed && outcome[0].1 == Reverted::CannotCarry, "{:?}", outcome);
            prop_assert_eq!(String::from_utf8_lossy(now.as_bytes()), theirs);
            return Ok(());
        }
        prop_assert_eq!(String::from_utf8_lossy(now.as_bytes()), format!("{before}{added}\n"));
    }
}

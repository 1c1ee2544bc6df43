//! What was done to a trail is found.

mod common;

use common::{at, bodies, chain, lines, rotation};
use keyroll_audit::{Body, Break, Broken, Head, Record, export, show, verify};
use proptest::prelude::*;
use serde_json::json;

fn broken(lines: &[String], expected: Option<&Head>) -> Break {
    verify(lines, expected).unwrap_err()
}

#[test]
fn an_untouched_trail_is_whole_and_reads_back_as_it_was_written() {
    let records = chain(bodies());
    let lines = lines();
    let head = verify(&lines, None).unwrap();
    assert_eq!(head, records.last().unwrap().head());
    for (line, record) in lines.iter().zip(&records) {
        assert_eq!(&Record::parse(line).unwrap(), record);
        assert!(!line.contains('\n'));
    }
    assert_eq!(verify(&[] as &[&str], None).unwrap(), Head::none());
    for record in &records {
        verify(&lines, Some(&record.head())).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn any_single_change_of_any_byte_is_found_at_its_record(
        pick: prop::sample::Index,
        position: prop::sample::Index,
        by in 1_u8..,
    ) {
        let mut lines = lines();
        let index = pick.index(lines.len());
        let mut bytes = lines[index].clone().into_bytes();
        let place = position.index(bytes.len());
        bytes[place] ^= by;
        // A line that is not UTF-8 any more cannot even be read from the database as text; as `from_utf8_lossy` shows it, it differs too.
        lines[index] = String::from_utf8_lossy(&bytes).into_owned();
        let found = broken(&lines, None);
        prop_assert_eq!(found.at, Some(index as u64 + 1));
    }

    #[test]
    fn a_byte_put_in_or_taken_out_is_found(pick: prop::sample::Index, position: prop::sample::Index, put: Option<char>) {
        let mut lines = lines();
        let index = pick.index(lines.len());
        let boundaries: Vec<usize> = lines[index].char_indices().map(|(i, _)| i).collect();
        let place = boundaries[position.index(boundaries.len())];
        match put {
            Some(character) => lines[index].insert(place, character),
            None => drop(lines[index].remove(place)),
        }
        prop_assert_eq!(broken(&lines, None).at, Some(index as u64 + 1));
    }

    #[test]
    fn any_other_selection_or_order_of_the_records_is_found_with_the_head_from_outside(
        picks in prop::collection::vec(0_usize..7, 0..10),
    ) {
        let all = lines();
        let head = verify(&all, None).unwrap();
        let other: Vec<String> = picks.iter().map(|i| all[*i].clone()).collect();
        prop_assert_eq!(verify(&other, Some(&head)).is_ok(), other == all);
    }

    #[test]
    fn whatever_a_record_says_it_reads_back(reason: String, host: String, name: String, number: i64) {
        let mut body = rotation();
        body.reason = reason;
        body.operator.host = host;
        body.steps[0].name = name;
        body.steps[0].facts = json!({ "number": number });
        let records = chain([Body::Rotation(Box::new(body))]);
        prop_assert_eq!(&Record::parse(records[0].line()).unwrap(), &records[0]);
        verify([records[0].line()], None).unwrap();
    }

    // A fraction may read back a last digit off (serde_json is not exact there). An encoding made anew from what was read
    // would then call an untouched record changed; the stored bytes do not.
    #[test]
    fn a_fraction_that_does_not_read_back_exactly_breaks_nothing(number: f64) {
        let mut body = rotation();
        body.steps[0].facts = json!({ "number": number });
        let records = chain([Body::Rotation(Box::new(body))]);
        let read = Record::parse(records[0].line()).unwrap();
        prop_assert_eq!(read.line(), records[0].line());
        verify([read.line()], None).unwrap();
    }

    #[test]
    fn no_text_makes_the_reader_panic(line: String, head: String) {
        let _ = Record::parse(&line);
        let _ = verify([line], None);
        let _ = head.parse::<Head>();
    }
}

#[test]
fn removed_inserted_and_moved_records_are_told_at_their_place() {
    let mut removed = lines();
    removed.remove(2);
    assert_eq!(broken(&removed, None).at, Some(3));
    assert_eq!(
        broken(&lines()[1..], None).at,
        Some(1),
        "the first one is missed too"
    );

    let mut moved = lines();
    moved.swap(1, 2);
    assert_eq!(broken(&moved, None).what, Broken::Number { found: 3 });

    let mut twice = lines();
    let copy = twice[3].clone();
    twice.insert(3, copy);
    assert_eq!(broken(&twice, None).at, Some(5));

    // Whole in itself and with the right number, but not of this chain.
    let mut foreign = lines();
    let elsewhere = Head {
        sequence: 3,
        hash: "1".repeat(64),
    };
    foreign[3] = Record::chain(&elsewhere, bodies().remove(0), at(0))
        .line()
        .to_owned();
    let found = broken(&foreign, None);
    assert_eq!((found.at, found.what), (Some(4), Broken::Follows));
}

#[test]
fn a_record_that_was_changed_and_hashed_again_breaks_the_next_one() {
    let mut lines = lines();
    let former = Record::parse(&lines[1]).unwrap().head();
    let mut body = rotation();
    body.operator.login = Some("somebody else".into());
    lines[2] = Record::chain(&former, Body::Rotation(Box::new(body)), at(120))
        .line()
        .to_owned();
    let found = broken(&lines, None);
    assert_eq!((found.at, found.what), (Some(4), Broken::Follows));
}

#[test]
fn a_cut_off_tail_and_a_trail_written_anew_are_found_with_a_head_from_outside_alone() {
    let whole = lines();
    let head = verify(&whole, None).unwrap();
    let cut = &whole[..whole.len() - 2];
    verify(cut, None).unwrap();
    let found = broken(cut, Some(&head));
    assert!(matches!(found.what, Broken::CutOff { .. }), "{found}");
    assert!(found.to_string().contains("cut off"), "{found}");
    assert!(matches!(
        broken(&[], Some(&head)).what,
        Broken::CutOff { .. }
    ));

    let anew: Vec<String> = chain(bodies().into_iter().rev())
        .iter()
        .map(|r| r.line().to_owned())
        .collect();
    verify(&anew, None).unwrap();
    let found = broken(&anew, Some(&head));
    assert!(matches!(found.what, Broken::Rewritten { .. }), "{found}");
    let early = Record::parse(&whole[0]).unwrap().head();
    assert_eq!(broken(&anew, Some(&early)).at, Some(1));
}

#[test]
fn a_head_survives_its_text_and_other_text_is_refused() {
    let head = verify(lines(), None).unwrap();
    assert_eq!(head.to_string().parse::<Head>().unwrap(), head);
    assert_eq!(
        Head::none().to_string().parse::<Head>().unwrap(),
        Head::none()
    );
    let hash = "a".repeat(64);
    for bad in [
        String::new(),
        "12".into(),
        "x:y".into(),
        format!("+1:{hash}"),
        format!("1:{hash}0"),
        format!(":{hash}"),
    ] {
        assert!(bad.parse::<Head>().is_err(), "{bad:?}");
    }
}

#[test]
fn nothing_is_chained_to_a_last_record_that_was_changed() {
    assert_eq!(Head::after(None).unwrap(), Head::none());
    let lines = lines();
    let last = lines.last().unwrap();
    assert_eq!(
        Head::after(Some(last)).unwrap(),
        verify(&lines, None).unwrap()
    );
    let error = Head::after(Some(&last.replace("42 tables", "43 tables"))).unwrap_err();
    assert_eq!(error.what, Broken::Changed);
}

#[test]
fn a_record_of_a_newer_keyroll_stays_in_the_chain_and_is_shown_as_it_is() {
    let mut all = bodies();
    all.insert(
        1,
        Body::Unknown(json!({"kind": "rekeyed", "who": "ada", "n": 1.0})),
    );
    let records = chain(all);
    let lines: Vec<_> = records.iter().map(|r| r.line().to_owned()).collect();
    verify(&lines, None).unwrap();
    let read = Record::parse(&lines[1]).unwrap();
    assert!(matches!(read.body(), Body::Unknown(_)));
    let shown = show(&read);
    assert!(shown.headline.contains("rekeyed") && shown.facts.iter().any(|f| f.1.contains("ada")));
}

#[test]
fn an_export_is_the_stored_bytes() {
    let mut out = Vec::new();
    export(lines(), &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    assert_eq!(text.lines().collect::<Vec<_>>(), lines());
    assert!(text.ends_with("\"}\n"));
}

/// Without what changes with every release.
fn steady(mut text: String) -> String {
    for record in chain(bodies()) {
        let head = record.head();
        text = text.replace(&head.hash, &format!("[hash of {}]", head.sequence));
    }
    text.replace(env!("CARGO_PKG_VERSION"), "[version]")
}

#[test]
fn one_record_as_it_is_stored() {
    insta::assert_snapshot!(steady(lines()[0].clone()));
}

#[test]
fn records_as_they_are_shown() {
    let all: Vec<_> = chain(bodies()).iter().map(show).collect();
    insta::assert_snapshot!(steady(serde_json::to_string_pretty(&all).unwrap()));
}

/// The file was written by keyroll 0.1.0 and is never written again: what is in an archive must stay checkable.
#[test]
fn a_trail_of_the_first_format_stays_whole_for_ever() {
    let golden = include_str!("golden/format-1.jsonl");
    let head = verify(golden.lines(), None).unwrap();
    assert_eq!(
        head.to_string(),
        include_str!("golden/format-1.head").trim()
    );
    let kinds: Vec<_> = golden
        .lines()
        .map(|line| Record::parse(line).unwrap())
        .filter(|record| !matches!(record.body(), Body::Unknown(_)))
        .collect();
    assert_eq!(kinds.len(), 7, "and is still understood");
}

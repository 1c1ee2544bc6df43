//! The script in the guide, run as it stands there.

mod common;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use common::lines;
use keyroll_audit::{Head, export, verify};

struct Script {
    tmp: tempfile::TempDir,
}

impl Script {
    /// `None` where there is no Python and the run allows that.
    fn new() -> Option<Self> {
        let python = Command::new("python3")
            .arg("-V")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !python.is_ok_and(|s| s.success()) {
            let full = std::env::var_os("KEYROLL_CONTAINER_TESTS").is_some_and(|v| v == "1");
            assert!(!full, "python3 is needed in the full run");
            eprintln!("SKIPPED: python3 is not installed");
            return None;
        }
        let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guides/audit.md");
        let guide = fs::read_to_string(guide).unwrap();
        let (_, rest) = guide.split_once("```python\n").unwrap();
        let (script, _) = rest.split_once("```").unwrap();
        assert!(
            script.lines().filter(|l| !l.is_empty()).count() <= 20,
            "20 lines were promised"
        );
        let tmp = tempfile::tempdir().unwrap();
        fs::write(tmp.path().join("check.py"), script).unwrap();
        Some(Self { tmp })
    }

    /// Whether the script finds the trail whole, and what it says.
    fn run(&self, trail: &[u8], head: Option<&Head>) -> (bool, String) {
        let file = self.tmp.path().join("trail.jsonl");
        fs::write(&file, trail).unwrap();
        let output = Command::new("python3")
            .arg(self.tmp.path().join("check.py"))
            .arg(file)
            .args(head.map(ToString::to_string))
            .output()
            .unwrap();
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }
}

fn exported(lines: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    export(lines, &mut out).unwrap();
    out
}

#[test]
fn the_script_agrees_with_keyroll_on_a_whole_trail_and_its_head() {
    let Some(script) = Script::new() else { return };
    let all = lines();
    let head = verify(&all, None).unwrap();
    let early = verify(&all[..2], None).unwrap();
    for expected in [None, Some(&head), Some(&early)] {
        let (whole, says) = script.run(&exported(&all), expected);
        assert!(whole && says.contains(&head.to_string()), "{says}");
    }
    assert!(script.run(b"", None).0, "an empty trail is whole");
}

#[test]
fn the_script_finds_what_keyroll_finds() {
    let Some(script) = Script::new() else { return };
    let all = lines();
    let head = verify(&all, None).unwrap();
    let change = |edit: &dyn Fn(&mut Vec<String>)| {
        let mut lines = all.clone();
        edit(&mut lines);
        assert!(verify(&lines, Some(&head)).is_err());
        script.run(&exported(&lines), Some(&head))
    };
    let found = [
        change(&|l| l[2] = l[2].replace("scheduled", "Scheduled")),
        change(&|l| l[2] = l[2].replace("\"format\":1", "\"format\": 1")),
        change(&|l| drop(l.remove(0))),
        change(&|l| drop(l.remove(3))),
        change(&|l| l.swap(4, 5)),
        change(&|l| l.truncate(4)),
        change(&|l| l.clear()),
        change(&|l| l[1].push(' ')),
        change(&|l| l[1].push('\r')),
    ];
    for (whole, says) in found {
        assert!(!whole, "{says}");
        assert!(!says.contains("Traceback"), "{says}");
    }
    let mut cut = exported(&all);
    cut.pop();
    assert!(!script.run(&cut, None).0);
}

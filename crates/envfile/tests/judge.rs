//! Compose itself as the judge: what `docker compose config` reads from an env file is what this crate says it reads, before
//! and after an edit.
//!
//! Needs the compose v2 plugin, no engine. Without it the tests print a line and pass, unless `KEYROLL_CONTAINER_TESTS=1`.

mod table;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Command, Output};

use keyroll_envfile::{Dialect, EnvFile, Readers, Reading};
use keyroll_secret::Secret;
use table::cases;

type Environment = BTreeMap<String, Option<String>>;

/// Scrubbed, so that a variable of this shell cannot answer for the file.
fn compose(dir: &Path, args: &[&str]) -> std::io::Result<Output> {
    let mut command = Command::new("docker");
    command
        .arg("compose")
        .args(args)
        .current_dir(dir)
        .env_clear();
    for name in ["PATH", "HOME", "DOCKER_CONFIG"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command.output()
}

fn compose_is_there() -> bool {
    let there = compose(Path::new("/"), &["version"]).is_ok_and(|o| o.status.success());
    if !there {
        assert!(
            std::env::var_os("KEYROLL_CONTAINER_TESTS").is_none_or(|v| v != "1"),
            "KEYROLL_CONTAINER_TESTS=1, but `docker compose version` fails: install the compose v2 plugin"
        );
        println!("skipped: `docker compose version` fails, so that compose cannot judge");
    }
    there
}

/// What compose gives a service for each file; none when it refuses the lot.
fn ask(files: &[&[u8]], format: &str) -> Option<Vec<Environment>> {
    let dir = tempfile::tempdir().unwrap();
    let mut yaml = String::from("name: judged\nservices:\n");
    for (i, bytes) in files.iter().enumerate() {
        std::fs::write(dir.path().join(format!("{i}.env")), bytes).unwrap();
        write!(
            yaml,
            "  s{i}:\n    image: scratch\n    env_file:\n      - path: {i}.env\n{format}"
        )
        .unwrap();
    }
    std::fs::write(dir.path().join("compose.yml"), yaml).unwrap();
    let output = compose(
        dir.path(),
        &["-f", "compose.yml", "config", "--format", "json"],
    )
    .unwrap();
    if !output.status.success() {
        return None;
    }
    let config: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let environment = |i: usize| {
        let map = config["services"][format!("s{i}")]["environment"].as_object();
        map.into_iter()
            .flatten()
            // `config` doubles every dollar sign, so that its output can be read again.
            .map(|(k, v)| {
                (
                    k.replace("$$", "$"),
                    v.as_str().map(|v| v.replace("$$", "$")),
                )
            })
            .collect()
    };
    Some((0..files.len()).map(environment).collect())
}

fn disagreement(file: &EnvFile, judged: &Environment) -> Option<String> {
    let mut keys: Vec<&str> = file.keys().collect();
    keys.extend(judged.keys().map(String::as_str));
    keys.into_iter()
        .find(|key| {
            let judged = judged.get(*key);
            match file.get(key) {
                Some(Reading::Value(value)) => judged != Some(&Some(value.expose().to_owned())),
                // Depends on the environment: that compose has the key is all that can be compared.
                Some(Reading::Interpolated(_)) => judged.is_none(),
                Some(_) => judged.is_some_and(Option::is_some),
                None => true,
            }
        })
        .map(str::to_owned)
}

fn judge(dialect: Dialect, format: &str) {
    let (mut accepted, mut refused) = (Vec::new(), Vec::new());
    for case in cases() {
        match EnvFile::parse_for(case.text.as_bytes(), Readers::only(dialect)) {
            Ok(file) => accepted.push((case, file)),
            Err(_) => refused.push(case),
        }
    }
    let bytes: Vec<&[u8]> = accepted.iter().map(|(_, file)| file.as_bytes()).collect();
    let judged = ask(&bytes, format).expect("compose accepts every file that this crate accepts");
    for ((case, file), judged) in accepted.iter().zip(&judged) {
        assert_eq!(disagreement(file, judged), None, "{}", case.name);
    }
    for case in refused {
        assert!(
            ask(&[case.text.as_bytes()], format).is_none(),
            "compose accepts: {}",
            case.name
        );
    }
}

#[test]
fn compose_reads_every_file_of_the_table_as_this_crate_says() {
    if compose_is_there() {
        judge(Dialect::ComposeGo, "");
    }
}

#[test]
fn compose_reads_every_file_of_the_table_raw_as_this_crate_says() {
    const RAW: &str = "        format: raw\n";
    if !compose_is_there() {
        return;
    }
    if ask(&[b"A=1\n"], RAW).is_none() {
        println!("skipped: this compose does not know `format: raw` (it came with 2.30)");
        return;
    }
    judge(Dialect::Raw, RAW);
}

#[test]
fn compose_reads_an_edited_file_with_the_new_value_and_nothing_else_changed() {
    if !compose_is_there() {
        return;
    }
    let new = Secret::new("new-Value_1");
    let mut edited = Vec::new();
    for case in cases() {
        let Ok(file) = EnvFile::parse_for(case.text.as_bytes(), Readers::only(Dialect::ComposeGo))
        else {
            continue;
        };
        for key in file.keys() {
            let mut copy = file.clone();
            if copy.set(key, &new).is_ok() {
                edited.push((case.name, key.to_owned(), file.clone(), copy));
            }
        }
    }
    assert!(
        edited.len() > 100,
        "only {} edits were possible",
        edited.len()
    );
    let before: Vec<&[u8]> = edited
        .iter()
        .map(|(_, _, file, _)| file.as_bytes())
        .collect();
    let after: Vec<&[u8]> = edited
        .iter()
        .map(|(_, _, _, copy)| copy.as_bytes())
        .collect();
    let (before, after) = (ask(&before, "").unwrap(), ask(&after, "").unwrap());
    for (((name, key, ..), mut before), after) in edited.iter().zip(before).zip(after) {
        before.insert(key.clone(), Some(new.expose().to_owned()));
        assert_eq!(before, after, "{name}: {key}");
    }
}

//! An operator opens a backup without keyroll, with the tools that are everywhere.

mod common;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Bench, at, may_skip};
use keyroll_backup::BackupWriter;
use keyroll_secret::Recipients;

fn there(tool: &str) -> bool {
    let found = Command::new(tool)
        .arg("--help")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    found || !may_skip(&format!("{tool} is not installed"))
}

/// What `age -d` gives; fails with its own words.
fn age(identity: &Path, file: &Path) -> Vec<u8> {
    let output = Command::new("age")
        .arg("-d")
        .arg("-i")
        .arg(identity)
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

#[test]
fn the_stock_age_tool_and_tar_unpack_an_archive_with_keyrolls_identity() {
    if !there("age") || !there("tar") {
        return;
    }
    let bench = Bench::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(150));
    bench.put(&long, b"deep");
    std::os::unix::fs::symlink("x/".repeat(120), bench.path("stack/long link")).unwrap();
    let done = {
        bench.put("app/a", b"content");
        let writer = bench.writer();
        writer
            .add_globs("application", &bench.path("stack"), &["**"])
            .unwrap();
        writer.finish().unwrap()
    };
    let plain = age(
        &bench.path("identity"),
        &done.directory.join("application.tar.gz.age"),
    );
    let into = bench.path("untar");
    fs::create_dir(&into).unwrap();
    let mut tar = Command::new("tar")
        .args(["-xzf", "-", "-C"])
        .arg(&into)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&plain).unwrap();
    assert!(tar.wait().unwrap().success());
    assert_eq!(fs::read(into.join("app/a")).unwrap(), b"content");
    assert_eq!(fs::read(into.join(long)).unwrap(), b"deep");
    assert_eq!(
        fs::read_link(into.join("long link")).unwrap(),
        Path::new(&"x/".repeat(120))
    );
    let contents = age(
        &bench.path("identity"),
        &done.directory.join("contents.json.age"),
    );
    assert!(
        serde_json::from_slice::<serde_json::Value>(&contents).unwrap()["archives"][0]["members"]
            .is_array()
    );
}

#[test]
fn an_operators_ssh_key_opens_every_part() {
    if !there("age") || !there("ssh-keygen") {
        return;
    }
    let bench = Bench::new();
    let key = bench.path("operator");
    let made = Command::new("ssh-keygen")
        .args([
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            "operator@example",
            "-f",
        ])
        .arg(&key)
        .status()
        .unwrap();
    assert!(made.success());
    let public = fs::read_to_string(key.with_extension("pub")).unwrap();
    let recipients = Recipients::new(&bench.identity, [public.as_str()]).unwrap();
    let writer = BackupWriter::create(&bench.path("backups"), at(), recipients).unwrap();
    let mut stream = writer.stream("roles").unwrap();
    stream
        .write_all(&b"CREATE ROLE panel;\n".repeat(10_000))
        .unwrap();
    stream.finish().unwrap();
    writer
        .add_files("files", &[bench.put(".env", b"A=1")])
        .unwrap();
    let done = writer.finish().unwrap();
    for identity in [&key, &bench.path("identity")] {
        assert_eq!(
            age(identity, &done.directory.join("roles.age")).len(),
            190_000
        );
        for item in &done.manifest.files {
            assert!(!age(identity, &done.directory.join(&item.file)).is_empty());
        }
    }
}

#[test]
fn the_manifest_is_checked_by_sha256sum_alone() {
    let bench = Bench::new();
    let done = bench.small();
    for item in &done.manifest.files {
        let output = Command::new("sha256sum")
            .arg(done.directory.join(&item.file))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with(&item.sealed.sha256), "{text}");
    }
}

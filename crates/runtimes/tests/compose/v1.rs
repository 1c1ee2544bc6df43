//! `docker-compose` 1 (Debian 12's package `docker-compose`, which `cargo xtask test` installs).

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use keyroll_runtimes::compose::{
    Cli, Compose, Engine, MovedImage, Project, Recreate, Surroundings, Waiting, compare_env,
};

use crate::support::{Stack, surroundings, wanted};

const COMPOSE: &str = r#"
version: "3.8"
services:
  db:
    image: IMAGE
    command: ["sleep", "infinity"]
    init: true
    stop_grace_period: 1s
    environment: {PASSWORD: "${PASSWORD}"}
    volumes: ["data:/data"]
  api:
    image: IMAGE
    command: ["sh", "-c", "exec sleep infinity # $$HOME"]
    init: true
    stop_grace_period: 1s
    env_file: [../.env.production]
    environment: {LITERAL: "a$$b", N: 5, EXP: "1e3"}
    depends_on: [db]
volumes: {data: {}}
"#;
const OLD: &str = "PASSWORD=old-value\nDSN=postgres://u:old-value@db/d\n";

/// A path with nothing but `docker-compose` 1 and what it needs.
fn v1_alone(dir: &Path) -> OsString {
    let path = std::env::var_os("PATH").unwrap();
    let found: PathBuf = std::env::split_paths(&path)
        .map(|dir| dir.join("docker-compose"))
        .find(|program| {
            let said = Command::new(program).args(["version", "--short"]).output();
            said.is_ok_and(|said| said.stdout.starts_with(b"1."))
        })
        .expect("docker-compose 1 is installed (`cargo xtask test` does it)");
    let bin = dir.join("bin");
    std::fs::create_dir(&bin).unwrap();
    symlink(found, bin.join("docker-compose")).unwrap();
    bin.into_os_string()
}

#[tokio::test]
async fn version_1_alone_is_used_for_all_of_it() {
    if !wanted() {
        return;
    }
    let stack = Stack::write("v1", COMPOSE, OLD);
    let path = v1_alone(stack.dir.path());
    let up = |arguments: &[&str]| {
        let done = Command::new(Path::new(&path).join("docker-compose"))
            .args(&stack.options)
            .args(arguments)
            .current_dir(stack.dir.path())
            .output()
            .unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
    };
    up(&["up", "-d"]);
    let engine = Engine::connect(Path::new(Engine::DEFAULT_SOCKET))
        .await
        .unwrap();
    let project = Project::discover(&engine, &stack.wanted()).await.unwrap();
    assert!(project.made_by_v1());
    let alone = Surroundings {
        path,
        ..surroundings()
    };
    let cli = Cli::connect(&engine, project, alone).await.unwrap();
    assert!(
        matches!(cli.compose(), Compose::V1(v) if v.starts_with("1.")),
        "{}",
        cli.compose()
    );

    let containers = stack.containers(&engine).await;
    assert_eq!(cli.drift(&engine, &containers, &[]).await.unwrap(), []);
    let resolved = cli.resolved(None).await.unwrap();
    for c in &containers {
        let expected = &resolved.services[&c.service].environment;
        assert_eq!(compare_env(c, expected), [], "{}", c.service);
    }
    let read = cli.read_env(&stack.path(".env.production")).await.unwrap();
    assert_eq!(read["DSN"].expose(), "postgres://u:old-value@db/d");
    std::fs::write(stack.path("broken"), "A=1\nB='hunter2\nC=3\n").unwrap();
    let error = cli
        .read_env(&stack.path("broken"))
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("could not parse") && !error.contains("hunter2"),
        "{error}"
    );

    stack.put(".env.production", &OLD.replace("old-value", "new-value"));
    let images: BTreeMap<String, String> = containers
        .iter()
        .map(|c| (c.service.clone(), c.image_id.clone()))
        .collect();
    let wanted = Recreate {
        services: vec!["api".into()],
        images,
        moved: MovedImage::Refuse,
        build: false,
        addresses: BTreeMap::new(),
        limit: Duration::from_secs(60),
    };
    let done = cli.recreate(&engine, &wanted).await.unwrap();
    let ids: Vec<String> = done.containers.iter().map(|c| c.id.clone()).collect();
    engine
        .wait_healthy(&ids, &Waiting::at_most(Duration::from_secs(20)))
        .await
        .unwrap();
    assert_eq!(
        done.containers[0].env["DSN"].expose(),
        "postgres://u:new-value@db/d"
    );
    let after = stack.containers(&engine).await;
    let drift = cli.drift(&engine, &after, &[]).await.unwrap();
    let services: Vec<&str> = drift.iter().map(|d| d.service.as_str()).collect();
    assert_eq!(services, ["db"], "left alone, so stale");
}

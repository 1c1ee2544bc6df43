//! Rotations on a host that has `docker-compose` 1 and no `docker compose`.
//!
//! Version 1 starts the stack, and keyroll runs where docker finds no plugin: in a mount namespace of its own, with an empty
//! directory over each of the directories in which docker looks.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::common::{Bench, DONE, GOING_BACK, ROLLED_BACK, ROTATE, docker};
use keyroll_testkit::{DbLogin, Door, Keyroll, StackOptions, containers_wanted};

/// Where docker looks for plugins when `HOME` is root's.
const PLUGINS: [&str; 5] = [
    "/root/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
];

/// A stack of version 1, and a keyroll that has nothing else.
async fn bench() -> Bench {
    let mut bench = Bench::start(StackOptions::new().compose_v1()).await;
    let binary = bench.stack.root().with_file_name("keyroll");
    let script = bench.stack.root().with_file_name("keyroll-without-v2");
    let text = format!(
        r#"#!/bin/sh
set -eu
if [ "${{HIDDEN:-}}" != 1 ]; then
    HIDDEN=1 exec unshare --mount --propagation private "$0" "$@"
fi
unset HIDDEN
empty=$(mktemp -d -p "$HOME")
for plugins in {}; do
    if [ -d "$plugins" ]; then mount --bind "$empty" "$plugins"; fi
done
if HOME=/root docker compose version >/dev/null 2>&1; then
    echo "docker compose is still there" >&2
    exit 99
fi
exec {} "$@"
"#,
        PLUGINS.join(" "),
        binary.display()
    );
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    bench.keyroll = Keyroll::new(&script).unwrap();
    for service in ["postgres", "api", "worker"] {
        made_by_v1(&bench, service).await;
    }
    bench
}

/// Its container was made by version 1, as its label and its name say.
async fn made_by_v1(bench: &Bench, service: &str) {
    let container = bench.stack.container(service).await.unwrap();
    let version = &container.labels["com.docker.compose.version"];
    assert!(version.starts_with("1."), "{service}: {version}");
    assert_eq!(container.name, bench.stack.container_name(service));
}

#[tokio::test]
async fn a_full_rotation_with_compose_1_alone_completes_and_kills_the_old_set() {
    if !containers_wanted() {
        return;
    }
    let bench = bench().await;
    let before = bench.before().await;
    let database = bench.stack.container("postgres").await.unwrap();
    let volumes = |project: &str| {
        let label = format!("label=com.docker.compose.project={project}");
        docker(&["volume", "ls", "-q", "--filter", &label])
    };
    let had = volumes(bench.stack.project());

    let outcome = bench.rotate().await;

    assert_eq!(outcome["ending"], "completed", "{outcome}");
    bench.runs_new_values(&before).await;
    for service in ["api", "worker"] {
        made_by_v1(&bench, service).await;
        let container = bench.stack.container(service).await.unwrap();
        assert_eq!(container.health.as_deref(), Some("healthy"), "{service}");
        for (key, value) in &container.env {
            let old = before.values.iter().find(|old| value.same_as(old));
            assert!(old.is_none(), "{service} still has the old {key}");
        }
    }
    let kept = bench.stack.container("postgres").await.unwrap();
    assert_eq!(
        (kept.id, kept.started_at),
        (database.id, database.started_at)
    );
    assert_eq!(volumes(bench.stack.project()), had);
    let old = before.value("POSTGRES_PASSWORD");
    assert_eq!(
        bench.stack.db_login(old, Door::Network).await,
        DbLogin::Refused
    );
    assert_eq!(bench.login(before.value("ADMIN_PASSWORD")).await, 401);
    let tokens = before.tokens.as_ref().unwrap();
    assert_eq!(bench.access(&tokens.access).await, 401);
    assert_eq!(bench.refresh(&tokens.refresh).await, 401);

    // Nothing is taken for drift, and what was done can be taken back.
    let verify = bench.run(&["verify"]).await;
    assert_eq!(verify.code, DONE, "{verify:?}");
    let plan = bench.run(&["plan", "production"]).await;
    assert_eq!(plan.code, DONE, "{plan:?}");
    let rotation = outcome["rotation"].as_str().unwrap();
    bench.json(&["rollback", rotation, "--yes"]).await;
    assert!(
        fs::read(bench.stack.env_path()).unwrap() == before.env,
        "the file is not byte for byte as it was"
    );
    bench.runs(&before.values).await;
}

#[tokio::test]
async fn a_rotation_with_compose_1_alone_that_fails_ends_on_the_old_set() {
    if !containers_wanted() {
        return;
    }
    let bench = bench().await;
    let before = bench.before().await;
    let fault = bench.stack.fault("seed-exit1");
    fault.set();
    let run = bench.run(&ROTATE).await;
    assert_eq!(run.code, ROLLED_BACK, "{run:?}");
    assert!(run.stderr.contains(GOING_BACK), "{run:?}");
    bench.old_set_is_back(&before).await;
    for service in ["api", "worker"] {
        made_by_v1(&bench, service).await;
    }
    bench
        .trail_says("compensated", &["the seed command failed"])
        .await;
    fault.clear();
    bench.rotate().await;
    bench.runs(&bench.in_force()).await;
}

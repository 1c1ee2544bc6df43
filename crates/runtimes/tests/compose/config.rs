//! compose as the judge: hashes, resolved configuration, env files, drift, consumers.

use std::collections::BTreeMap;

use keyroll_runtimes::compose::{
    CliError, DriftKind, Form, Place, SeenIn, StaleByChoice, compare_env, consumers,
};
use keyroll_secret::Secret;

use crate::support::{IMAGE, Stack, docker, wanted};

/// What a configuration hash may depend on, in one file.
const RICH: &str = r#"
x-common: &common
  init: true
  stop_grace_period: 0s
  command: ["sleep", "infinity"]
services:
  db:
    <<: *common
    image: IMAGE
    environment: {PASSWORD: "${PASSWORD}"}
    volumes: ["data:/data", "/anonymous"]
  built:
    <<: *common
    build: {context: ., args: {TOKEN: "${TOKEN}"}}
  rich:
    <<: *common
    image: IMAGE
    hostname: h
    env_file:
      - path: ../.env.production
      - path: nope.env
        required: false
    environment: ["N=${TOKEN}", "EMPTY=", "UNSET", "LITERAL=a$$b"]
    labels: {a.b: "${TOKEN}", c: ""}
    ports: ["127.0.0.1::80", {target: 53, protocol: udp}]
    volumes: ["./file.txt:/file:ro", {type: tmpfs, target: /t, tmpfs: {size: 1000000}}]
    secrets: [s1]
    configs: [c1]
    networks: {front: {aliases: [x]}, default: {}}
    depends_on: {db: {condition: service_started, restart: true}, built: {condition: service_started}}
    ulimits: {nofile: {soft: 1024, hard: 2048}}
    extra_hosts: ["foo:10.0.0.1"]
    logging: {driver: json-file, options: {max-size: "10m"}}
    deploy: {resources: {limits: {cpus: "0.5", memory: 100M}}}
    healthcheck: {test: "true # ${TOKEN}", interval: 5s}
    restart: on-failure:3
    entrypoint: ["sh", "-c", "exec \"$$@\"", "--"]
  many:
    <<: *common
    image: IMAGE
    deploy: {replicas: 2}
  extra:
    <<: *common
    image: IMAGE
    profiles: [extra]
secrets: {s1: {file: ./secret.txt}}
configs: {c1: {file: ./file.txt}}
volumes: {data: {}}
networks: {front: {}}
"#;
const ENV: &str = "PASSWORD='p@ss$word'\nTOKEN=tok-en-123\nDSN=postgres://u:p%40ss%24word@db/d\n";

fn rich() -> Stack {
    let mut stack = Stack::write("config", RICH, ENV);
    stack.put("infra/file.txt", "file");
    stack.put("infra/secret.txt", "p@ss$word\n");
    // Built by hand: the way of building is not what is tested here.
    let name = format!("{}-built", stack.name);
    docker(&["tag", IMAGE, &name]);
    stack.images.push(name);
    stack.compose(&["up", "-d", "--no-build"]);
    stack
}

#[tokio::test]
async fn hashes_equal_the_labels_of_a_fresh_stack_and_nothing_drifts() {
    if !wanted() {
        return;
    }
    let stack = rich();
    let (engine, cli) = stack.cli().await;
    let containers = stack.containers(&engine).await;
    assert_eq!(containers.len(), 5, "many has two, extra none");
    let hashes = cli.hashes().await.unwrap();
    for c in &containers {
        assert_eq!(
            c.config_hash.as_ref(),
            hashes.get(&c.service),
            "{}",
            c.service
        );
    }
    assert_eq!(cli.drift(&engine, &containers, &[]).await.unwrap(), []);
    stack.compose(&["--profile", "extra", "up", "-d", "--no-build", "extra"]);
    let containers = stack.containers(&engine).await;
    assert_eq!(cli.drift(&engine, &containers, &[]).await.unwrap(), []);
}

#[tokio::test]
async fn edits_moved_images_and_removed_services_drift_and_chosen_staleness_does_not() {
    if !wanted() {
        return;
    }
    let base = r#"
services:
  db: {image: "DB_IMAGE", command: [sleep, infinity], init: true, environment: {PASSWORD: "${PASSWORD}"}}
  api: {image: IMAGE, command: [sleep, infinity], init: true, env_file: [../.env.production]}
"#;
    let mut stack = Stack::write("drift", base, ENV);
    let image = stack.own_image();
    let compose = base.replace("DB_IMAGE", &image).replace("IMAGE", IMAGE);
    stack.put("infra/compose.yml", &compose);
    stack.compose(&["up", "-d"]);
    let (engine, cli) = stack.cli().await;
    let containers = stack.containers(&engine).await;
    let kinds = async |accepted: &[StaleByChoice]| -> Vec<(String, DriftKind)> {
        let found = cli.drift(&engine, &containers, accepted).await.unwrap();
        found.into_iter().map(|d| (d.service, d.what)).collect()
    };
    assert_eq!(kinds(&[]).await, []);

    // Only the content of `env_file:` changes for api: `config --hash` alone would not see it.
    stack.put(".env.production", &ENV.replace("tok-en-123", "tok-en-456"));
    assert_eq!(
        kinds(&[]).await,
        [("api".to_owned(), DriftKind::ConfigHash)]
    );

    stack.put(".env.production", &ENV.replace("p@ss$word", "n3w"));
    let both = [
        ("api".to_owned(), DriftKind::ConfigHash),
        ("db".to_owned(), DriftKind::ConfigHash),
    ];
    assert_eq!(kinds(&[]).await, both);
    let db = containers.iter().find(|c| c.service == "db").unwrap();
    let accepted = [StaleByChoice {
        service: "db".into(),
        container_id: db.id.clone(),
        desired_hash: cli.hashes().await.unwrap()["db"].clone(),
    }];
    assert_eq!(
        kinds(&accepted).await,
        [("api".to_owned(), DriftKind::ConfigHash)]
    );

    stack.put(".env.production", ENV);
    let other = docker(&["commit", "-c", "LABEL other=1", &db.id, &image]);
    assert!(other.starts_with("sha256:"));
    assert_eq!(kinds(&[]).await, [("db".to_owned(), DriftKind::ImageId)]);
    docker(&["rmi", &image]);
    assert_eq!(kinds(&[]).await, [("db".to_owned(), DriftKind::ImageGone)]);
    docker(&["tag", IMAGE, &image]);

    stack.put("infra/compose.yml", &compose.replace("  api:", "  api2:"));
    let moved = [
        ("api".to_owned(), DriftKind::Orphan),
        ("api2".to_owned(), DriftKind::Missing),
    ];
    assert_eq!(kinds(&[]).await, moved);
}

#[tokio::test]
async fn the_resolved_configuration_is_what_containers_get() {
    if !wanted() {
        return;
    }
    let stack = rich();
    let (engine, cli) = stack.cli().await;
    let resolved = cli.resolved(None).await.unwrap();
    for c in stack.containers(&engine).await {
        let expected = &resolved.services[&c.service].environment;
        assert_eq!(compare_env(&c, expected), [], "{}", c.service);
    }
    let env = &resolved.services["rich"].environment;
    assert_eq!(env["PASSWORD"].expose(), "p@ss$word");
    assert_eq!(env["LITERAL"].expose(), "a$b");
    assert!(env.contains_key("EMPTY") && !env.contains_key("UNSET"));

    // A candidate is read for `${…}`; what services name under `env_file:` stays the real file.
    stack.put("candidate", &ENV.replace("tok-en-123", "tok-en-456"));
    let candidate = cli.resolved(Some(&stack.path("candidate"))).await.unwrap();
    let env = &candidate.services["rich"].environment;
    assert_eq!(
        (env["N"].expose(), env["TOKEN"].expose()),
        ("tok-en-456", "tok-en-123")
    );
}

#[tokio::test]
async fn consumers_are_found_by_value_wherever_it_stands() {
    if !wanted() {
        return;
    }
    let stack = rich();
    let (engine, cli) = stack.cli().await;
    let resolved = cli.resolved(None).await.unwrap();
    let containers = stack.containers(&engine).await;
    let secrets = [
        ("PASSWORD".to_owned(), Secret::new("p@ss$word")),
        ("TOKEN".to_owned(), Secret::new("tok-en-123")),
    ];
    let uses = consumers(&secrets, &resolved, &containers, &BTreeMap::new());
    assert_eq!(uses.not_searched, []);
    let found: Vec<_> = uses
        .consumers
        .iter()
        .map(|c| {
            (
                c.secret.as_str(),
                c.service.as_str(),
                c.place.to_string(),
                c.form,
                c.seen_in,
            )
        })
        .collect();
    for expected in [
        (
            "PASSWORD",
            "db",
            Place::Env("PASSWORD".into()),
            Form::Whole,
            SeenIn::Both,
        ),
        (
            "PASSWORD",
            "rich",
            Place::Env("DSN".into()),
            Form::UrlEncoded,
            SeenIn::Both,
        ),
        (
            "PASSWORD",
            "rich",
            Place::Env("PASSWORD".into()),
            Form::Whole,
            SeenIn::Both,
        ),
        (
            "PASSWORD",
            "rich",
            Place::Mounted("s1".into()),
            Form::Whole,
            SeenIn::Config,
        ),
        (
            "TOKEN",
            "built",
            Place::BuildArg("TOKEN".into()),
            Form::Whole,
            SeenIn::Config,
        ),
        (
            "TOKEN",
            "rich",
            Place::Env("N".into()),
            Form::Whole,
            SeenIn::Both,
        ),
        (
            "TOKEN",
            "rich",
            Place::Env("TOKEN".into()),
            Form::Whole,
            SeenIn::Both,
        ),
        (
            "TOKEN",
            "rich",
            Place::Healthcheck,
            Form::Embedded,
            SeenIn::Both,
        ),
        (
            "TOKEN",
            "rich",
            Place::Label("a.b".into()),
            Form::Whole,
            SeenIn::Both,
        ),
    ] {
        let (secret, service, place, form, seen) = expected;
        let expected = (secret, service, place.to_string(), form, seen);
        assert!(
            found.contains(&expected),
            "{expected:?} is not in {found:#?}"
        );
    }
    assert_eq!(found.len(), 9, "{found:#?}");
}

#[tokio::test]
async fn compose_itself_reads_an_env_file_at_any_path() {
    if !wanted() {
        return;
    }
    let one = "services:\n  s: {image: IMAGE, command: [sleep, infinity], init: true}\n";
    let stack = Stack::start("judge", one, "A=1\n");
    let (_, cli) = stack.cli().await;
    let candidate = stack.path("odd $name.candidate");
    let content = "export A=one # note\nB='si$ngle'\nC=\"dou${A}ble\"\nBARE\nCOLON: v\nHASH=a#b\nM='two\nlines'\nPATH=/mine\nA=last\n";
    std::fs::write(&candidate, content).unwrap();
    let read = cli.read_env(&candidate).await.unwrap();
    let shown: Vec<(&str, &str)> = read.iter().map(|(k, v)| (k.as_str(), v.expose())).collect();
    let expected = [
        ("A", "last"),
        ("B", "si$ngle"),
        ("C", "douoneble"),
        ("COLON", "v"),
        ("HASH", "a#b"),
        ("M", "two\nlines"),
        ("PATH", "/mine"),
    ];
    assert_eq!(shown, expected);
    let keys = read.keys().map(String::as_str).chain(["NOT_THERE"]);
    let replaced = cli.interpolated(&candidate, keys).await.unwrap();
    assert_eq!(replaced["B"].expose(), "si$ngle");
    assert_ne!(
        replaced["PATH"].expose(),
        "/mine",
        "the environment wins over --env-file"
    );
    assert!(!replaced.contains_key("NOT_THERE"));

    for (broken, kind) in [
        (
            "A=1\nSECRET=\"hunter2-start\nNEXT=hunter2-next\n",
            "unterminated",
        ),
        ("A B=hunter2\n", "space"),
        ("A$B=hunter2\nNEXT=hunter2\n", "unexpected character"),
    ] {
        std::fs::write(&candidate, broken).unwrap();
        let error = cli.read_env(&candidate).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, CliError::Failed { .. }), "{text}");
        assert!(text.contains(kind) && text.contains("line "), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    let missing = cli.read_env(&stack.path("missing")).await.unwrap_err();
    assert!(missing.to_string().contains("missing"), "{missing}");
}

#[tokio::test]
async fn an_exported_variable_of_the_caller_does_not_reach_compose() {
    if !wanted() {
        return;
    }
    // PATH is the one variable that this test's process surely exports with another value than the file's.
    let compose = "services:\n  s: {image: IMAGE, command: [sleep, infinity], init: true, environment: {X: \"${CARGO_MANIFEST_DIR:-none}\"}}\n";
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    let stack = Stack::start("scrub", compose, "A=1\n");
    let (_, cli) = stack.cli().await;
    let resolved = cli.resolved(None).await.unwrap();
    assert_eq!(resolved.services["s"].environment["X"].expose(), "none");
}

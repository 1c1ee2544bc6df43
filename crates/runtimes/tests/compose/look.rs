//! Discovery, and what the engine says about containers.

use std::collections::BTreeSet;
use std::time::Duration;

use keyroll_runtimes::compose::{
    DiscoverError, Health, Project, Restart, State, Wanted, Why, sickness,
};
use keyroll_secret::{Redactor, Secret};

use crate::support::{Stack, docker, eventually, wanted};

const COMPOSE: &str = r#"
services:
  db:
    image: IMAGE
    command: ["sleep", "infinity"]
    init: true
    restart: unless-stopped
    environment: {PASSWORD: "${PASSWORD}"}
    volumes: ["data:/data"]
  job:
    image: IMAGE
    command: ["sh", "-c", "echo done"]
  api:
    image: IMAGE
    command: ["sh", "-c", "echo connecting with $$DSN; echo started >&2; exec sleep infinity"]
    init: true
    env_file: [../.env.production]
    ports: ["127.0.0.1::3000"]
    depends_on: {db: {condition: service_started}}
    healthcheck: {test: ["CMD", "test", "-e", "/healthy"], interval: 1s, retries: 1}
volumes: {data: {}}
"#;
const ENV: &str = "PASSWORD='p@ss$word'\nDSN=\"postgres://u:p%40ss%24word@db/d\" # comment\n";

#[tokio::test]
async fn a_stack_is_found_by_its_labels_and_its_containers_are_described() {
    if !wanted() {
        return;
    }
    let stack = Stack::start("look", COMPOSE, ENV);
    let engine = stack.engine().await;
    let project = Project::discover(&engine, &stack.wanted()).await.unwrap();
    assert_eq!(project.name, stack.name);
    assert_eq!(project.working_dir, stack.path("infra"));
    assert_eq!(project.env_files, [stack.path(".env.production")]);
    assert!(project.made_by.starts_with('2'), "{}", project.made_by);

    let ended = async || stack.container(&engine, "job").await.state == State::Exited(0);
    eventually("the end of the job", ended).await;
    let api = stack.container(&engine, "api").await;
    assert_eq!(api.env["DSN"].expose(), "postgres://u:p%40ss%24word@db/d");
    assert_eq!((api.state, api.restart), (State::Running, Restart::No));
    assert_ne!(api.health, Health::None);
    assert_eq!(api.published.len(), 1);
    assert!(api.published[0].host.port() > 0 && api.published[0].port == 3000);
    assert_eq!(api.networks[0].0, format!("{}_default", stack.name));
    assert!(api.started_at.is_some() && api.pid.is_some() && api.config_hash.is_some());
    let db = stack.container(&engine, "db").await;
    assert_eq!(
        db.volumes.iter().collect::<Vec<_>>(),
        [&format!("{}_data", stack.name)]
    );
    assert_eq!(db.health, Health::None);

    let unhealthy = async || stack.container(&engine, "api").await.health == Health::Unhealthy;
    eventually("an unhealthy api", unhealthy).await;
    let sick = sickness(&stack.containers(&engine).await);
    assert_eq!(sick.len(), 1, "{sick:?}");
    assert_eq!(
        (sick[0].service.as_str(), sick[0].why),
        ("api", Why::Unhealthy)
    );
}

#[tokio::test]
async fn a_twin_from_the_same_file_is_refused_until_the_profile_names_one() {
    if !wanted() {
        return;
    }
    let one = "services:\n  s: {image: IMAGE, command: [sleep, infinity], init: true}\n";
    let mut stack = Stack::start("twin", one, "A=1\n");
    let twin = format!("{}-twin", stack.name);
    let first = std::mem::replace(&mut stack.options[1], twin.clone());
    stack.compose(&["up", "-d"]);
    let engine = stack.engine().await;
    let both = Project::discover(&engine, &stack.wanted()).await;
    let named = |name: &str| Wanted {
        project: Some(name.into()),
        ..stack.wanted()
    };
    let chosen = Project::discover(&engine, &named(&twin)).await;
    let wrong = Project::discover(&engine, &named("no-such-project")).await;
    stack.compose(&["down", "-t", "0"]);
    stack.options[1] = first;
    assert!(
        matches!(&both, Err(DiscoverError::Several { projects, .. }) if projects.len() == 2),
        "{both:?}"
    );
    assert_eq!(chosen.unwrap().name, twin);
    assert!(
        matches!(wrong, Err(DiscoverError::OtherName { .. })),
        "{wrong:?}"
    );
}

#[tokio::test]
async fn logs_since_a_moment_are_read_without_values() {
    if !wanted() {
        return;
    }
    let stack = Stack::start("logs", COMPOSE, ENV);
    let mut redactor = Redactor::new();
    redactor.learn("PASSWORD", &Secret::new("p@ss$word"));
    let engine = stack.engine().await.redacting(redactor);
    let api = stack.container(&engine, "api").await;
    let from = api.created_at.unwrap();
    let written = async || engine.logs_since(&api.id, from, 10).await.unwrap().len() == 2;
    eventually("two lines", written).await;
    let lines = engine.logs_since(&api.id, from, 10).await.unwrap();
    // Two streams: which line the engine reads first is its own affair.
    let texts: BTreeSet<&str> = lines.iter().map(|l| l.text.as_str()).collect();
    let expected = ["connecting with postgres://u:[PASSWORD]@db/d", "started"];
    assert_eq!(texts, BTreeSet::from(expected));
    let later = lines[1].at.checked_add(Duration::from_nanos(1)).unwrap();
    assert_eq!(engine.logs_since(&api.id, later, 10).await.unwrap(), []);
    docker(&["rm", "-f", &api.id]);
    let gone = engine.logs_since(&api.id, from, 10).await.unwrap_err();
    assert!(gone.to_string().contains("not there"), "{gone}");
}

#[tokio::test]
async fn a_container_that_compose_did_not_make_is_seen_by_its_own_name() {
    if !wanted() {
        return;
    }
    let mut stack = Stack::write("foreign", COMPOSE, ENV);
    let image = stack.own_image();
    let name = stack.name.clone();
    docker(&[
        "run", "-d", "--name", &name, "-e", "DSN=x", &image, "sleep", "1000",
    ]);
    let engine = stack.engine().await;
    let all = engine.all_containers().await;
    docker(&["rm", "-f", &name]);
    let all = all.unwrap();
    let foreign = all.iter().find(|c| c.name == name).unwrap();
    assert_eq!(
        (foreign.service.as_str(), foreign.project.as_str()),
        (name.as_str(), "")
    );
    assert_eq!(foreign.env["DSN"].expose(), "x");
}

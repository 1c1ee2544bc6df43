//! Recreating the consumers, and nothing else.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use keyroll_runtimes::compose::{
    ActError, Container, DriftKind, Engine, MovedImage, Recreate, StaleByChoice, Waiting,
};
use keyroll_runtimes::orphans;

use crate::support::{IMAGE, Stack, docker, eventually, unique, wanted};

/// A database whose own environment has the password, a job, and two consumers, one of which waits for the other.
const COMPOSE: &str = r#"
services:
  db:
    image: IMAGE
    command: ["sleep", "infinity"]
    init: true
    stop_grace_period: 0s
    environment: {PASSWORD: "${PASSWORD}"}
    volumes: ["data:/data", "/anonymous"]
    healthcheck: {test: ["CMD", "true"], interval: 1s}
  job:
    image: IMAGE
    command: ["sh", "-c", "echo ran"]
    env_file: [../.env.production]
    depends_on: {db: {condition: service_healthy}}
  api:
    image: API_IMAGE
    command: ["sleep", "infinity"]
    init: true
    stop_grace_period: 0s
    env_file: [../.env.production]
    volumes: ["/anonymous"]
    healthcheck: {test: ["CMD", "true"], interval: 1s}
    depends_on: {db: {condition: service_healthy}, job: {condition: service_completed_successfully}}
  worker:
    image: IMAGE
    command: ["sleep", "infinity"]
    init: true
    stop_grace_period: 0s
    environment: {PASSWORD: "${PASSWORD}"}
    depends_on: {api: {condition: service_healthy}}
  other:
    image: IMAGE
    command: ["sleep", "infinity"]
    init: true
    stop_grace_period: 0s
volumes: {data: {}}
"#;
const OLD: &str = "PASSWORD=old-value\n";
const NEW: &str = "PASSWORD=new-value\n";

fn start(what: &str) -> (Stack, String) {
    let mut stack = Stack::write(what, COMPOSE, OLD);
    let image = stack.own_image();
    let compose = COMPOSE.replace("API_IMAGE", &image).replace("IMAGE", IMAGE);
    stack.put("infra/compose.yml", &compose);
    stack.compose(&["up", "-d"]);
    (stack, image)
}

fn consumers(containers: &[Container]) -> Recreate {
    let images: BTreeMap<String, String> = containers
        .iter()
        .map(|c| (c.service.clone(), c.image_id.clone()))
        .collect();
    Recreate {
        services: vec!["api".into(), "worker".into()],
        images,
        moved: MovedImage::Refuse,
        build: false,
        addresses: BTreeMap::new(),
        limit: Duration::from_secs(60),
    }
}

fn by_service(containers: Vec<Container>) -> BTreeMap<String, Container> {
    containers
        .into_iter()
        .map(|c| (c.service.clone(), c))
        .collect()
}

#[tokio::test]
async fn only_the_consumers_are_recreated_with_what_they_had_and_the_new_value() {
    if !wanted() {
        return;
    }
    let (stack, _) = start("recreate");
    let (engine, cli) = stack.cli().await;
    let before = stack.containers(&engine).await;
    stack.put(".env.production", NEW);
    let wanted = consumers(&before);
    let done = cli.recreate(&engine, &wanted).await.unwrap();
    assert_eq!(done.containers.len(), 2);
    let ids: Vec<String> = done.containers.iter().map(|c| c.id.clone()).collect();
    let mut waiting = Waiting::at_most(Duration::from_secs(30));
    waiting.since = Some(done.began);
    engine.wait_healthy(&ids, &waiting).await.unwrap();

    let (before, after) = (
        by_service(before),
        by_service(stack.containers(&engine).await),
    );
    for same in ["db", "job", "other"] {
        assert_eq!(before[same].id, after[same].id, "{same}");
        assert_eq!(before[same].started_at, after[same].started_at, "{same}");
    }
    for new in ["api", "worker"] {
        assert_ne!(before[new].id, after[new].id, "{new}");
        assert_eq!(after[new].env["PASSWORD"].expose(), "new-value");
        assert_eq!(before[new].image_id, after[new].image_id);
        assert_eq!(before[new].name, after[new].name);
        assert_eq!(
            before[new].volumes, after[new].volumes,
            "the anonymous volume stays"
        );
        for (was, is) in [
            (&before[new].config_files, &after[new].config_files),
            (&before[new].env_files, &after[new].env_files),
        ] {
            assert_eq!(was, is);
        }
    }
    assert!(
        after["worker"].started_at > after["api"].started_at,
        "in the order of their dependencies"
    );

    // The next preflight: what was left alone by choice is none, and neither is a hash without dependencies.
    let containers = stack.containers(&engine).await;
    let hashes = cli.hashes().await.unwrap();
    let accepted: Vec<StaleByChoice> = ["db", "job"]
        .map(|service| StaleByChoice {
            service: service.into(),
            container_id: after[service].id.clone(),
            desired_hash: hashes[service].clone(),
        })
        .into();
    assert_eq!(
        cli.drift(&engine, &containers, &accepted).await.unwrap(),
        []
    );
    let drift = cli.drift(&engine, &containers, &[]).await.unwrap();
    let services: Vec<&str> = drift.iter().map(|d| d.service.as_str()).collect();
    assert_eq!(services, ["db", "job"]);
    assert!(drift.iter().all(|d| d.what == DriftKind::ConfigHash));
}

#[tokio::test]
async fn a_moved_image_is_refused_forward_and_pointed_back_on_the_way_back() {
    if !wanted() {
        return;
    }
    let (stack, image) = start("moved");
    let (engine, cli) = stack.cli().await;
    let before = stack.containers(&engine).await;
    let api = before.iter().find(|c| c.service == "api").unwrap();
    let other = docker(&["commit", "-c", "LABEL other=1", &api.id, &image])
        .trim()
        .to_owned();
    stack.put(".env.production", NEW);

    let mut wanted = consumers(&before);
    let refused = cli.recreate(&engine, &wanted).await.unwrap_err();
    assert!(
        matches!(&refused, ActError::NotApplied(why) if why.contains(&image)),
        "{refused}"
    );
    assert_eq!(stack.container(&engine, "api").await.id, api.id);

    wanted.moved = MovedImage::PointBack;
    let done = cli.recreate(&engine, &wanted).await.unwrap();
    assert_eq!(done.pointed_back.len(), 1);
    assert_eq!(done.pointed_back[0].from.as_ref(), Some(&other));
    assert_eq!(stack.container(&engine, "api").await.image_id, api.image_id);
    assert_eq!(
        engine.image_id(&image).await.unwrap().as_ref(),
        Some(&api.image_id)
    );
    docker(&["rmi", "-f", &other]);
}

#[tokio::test]
async fn a_missing_volume_or_service_is_refused_before_anything_stops() {
    if !wanted() {
        return;
    }
    let (stack, _) = start("refuse");
    let (engine, cli) = stack.cli().await;
    let before = stack.containers(&engine).await;
    let compose = std::fs::read_to_string(stack.path("infra/compose.yml")).unwrap();
    let unknown = Recreate {
        services: vec!["nope".into()],
        ..consumers(&before)
    };
    let unknown = cli.recreate(&engine, &unknown).await.unwrap_err();
    assert!(
        matches!(&unknown, ActError::NotApplied(why) if why.contains("nope")),
        "{unknown}"
    );

    let edited = compose
        .replace("volumes: [\"/anonymous\"]", "volumes: [\"fresh:/fresh\"]")
        .replace("volumes: {data: {}}", "volumes: {data: {}, fresh: {}}");
    stack.put("infra/compose.yml", &edited);
    let refused = cli
        .recreate(&engine, &consumers(&before))
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, ActError::NotApplied(why) if why.contains("fresh")),
        "{refused}"
    );

    stack.put("infra/compose.yml", "services: {broken");
    let refused = cli
        .recreate(&engine, &consumers(&before))
        .await
        .unwrap_err();
    assert!(matches!(&refused, ActError::NotApplied(_)), "{refused}");
    let ids = |all: &[Container]| all.iter().map(|c| c.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&before), ids(&stack.containers(&engine).await));
}

#[tokio::test]
async fn a_service_that_was_scaled_by_hand_keeps_its_number() {
    if !wanted() {
        return;
    }
    let (stack, _) = start("scale");
    stack.compose(&["up", "-d", "--no-recreate", "--scale", "worker=3", "worker"]);
    let (engine, cli) = stack.cli().await;
    stack.put(".env.production", NEW);
    let before = stack.containers(&engine).await;
    let done = cli.recreate(&engine, &consumers(&before)).await.unwrap();
    let workers: Vec<u32> = done
        .containers
        .iter()
        .filter(|c| c.service == "worker")
        .map(|c| c.number)
        .collect();
    assert_eq!(workers, [1, 2, 3]);
}

#[tokio::test]
async fn services_that_are_recreated_together_keep_their_addresses() {
    if !wanted() {
        return;
    }
    let service = |name: &str| {
        format!(
            "  {name}:\n    image: IMAGE\n    command: [\"sleep\", \"infinity\"]\n    init: true\n    stop_grace_period: 0s\n    environment: {{PASSWORD: \"${{PASSWORD}}\"}}\n"
        )
    };
    let names = ["a", "b", "c", "d"];
    let all: String = names.iter().map(|n| service(n)).collect();
    let stack = Stack::start("addresses", &format!("services:\n{all}"), OLD);
    let (engine, cli) = stack.cli().await;
    let addresses = async || -> BTreeMap<String, Vec<IpAddr>> {
        let all = stack.containers(&engine).await.into_iter();
        all.map(|c| {
            let own = c.networks.into_iter().map(|(_, ip)| ip).collect();
            (c.service, own)
        })
        .collect()
    };
    let first = addresses().await;
    for _ in 0..2 {
        let before = stack.containers(&engine).await;
        let wanted = Recreate {
            services: names.map(str::to_owned).into(),
            addresses: first.clone(),
            ..consumers(&before)
        };
        let done = cli.recreate(&engine, &wanted).await.unwrap();
        assert_eq!(done.containers.len(), 4);
        assert_eq!(addresses().await, first);
    }
}

#[tokio::test]
async fn a_recreation_that_was_killed_is_found_and_completed_by_another() {
    if !wanted() {
        return;
    }
    let (stack, _) = start("killed");
    let (engine, cli) = stack.cli().await;
    let before = stack.containers(&engine).await;
    stack.put(".env.production", NEW);
    let rotation = unique("rotation");
    let cli = cli.for_rotation(&rotation);
    let old = stack.container(&engine, "api").await.id;
    let running = tokio::spawn({
        let (engine, cli, wanted) = (engine.clone(), cli.clone(), consumers(&before));
        async move { cli.recreate(&engine, &wanted).await }
    });
    // In the middle: the old api is gone, and the worker waits for the new one.
    let midway = async || stack.containers(&engine).await.iter().all(|c| c.id != old);
    eventually("the end of the old api", midway).await;
    let found = orphans::find(&rotation).unwrap();
    assert!(
        !found.orphans.is_empty(),
        "compose carries the rotation's id"
    );
    running.abort();
    let _ = running.await;
    let left = orphans::find(&rotation).unwrap();
    orphans::end(&left.orphans, Duration::from_secs(20))
        .await
        .unwrap();
    assert_eq!(orphans::find(&rotation).unwrap().orphans, []);

    // Killed between making a container and renaming it, compose trips over its own name the next time, and is past it the
    // time after: that is what "indeterminate" means, and whoever gets it acts again.
    let mut done = cli.recreate(&engine, &consumers(&before)).await;
    for _ in 0..2 {
        if let Err(ActError::Indeterminate(_)) = &done {
            done = cli.recreate(&engine, &consumers(&before)).await;
        }
    }
    let done = done.unwrap();
    assert_eq!(done.containers.len(), 2, "{:?}", names(&done.containers));
    for c in &done.containers {
        assert_eq!(c.env["PASSWORD"].expose(), "new-value");
        assert_eq!(c.name, format!("{}-{}-1", stack.name, c.service));
    }
}

#[tokio::test]
async fn what_a_killed_compose_left_under_odd_names_is_cleared_up_first() {
    if !wanted() {
        return;
    }
    let (stack, _) = start("leftovers");
    let (engine, cli) = stack.cli().await;
    let before = stack.containers(&engine).await;
    stack.put(".env.production", NEW);
    let own = |service: &str| format!("{}-{service}-1", stack.name);
    let odd = |service: &str| format!("a5595faaf0ed_{}", own(service));
    // The old api is gone and the new one was not renamed yet; the new worker was made, and the old one still runs.
    docker(&["rename", &own("api"), &odd("api")]);
    let labels = [
        format!("com.docker.compose.project={}", stack.name),
        "com.docker.compose.service=worker".to_owned(),
        "com.docker.compose.container-number=1".to_owned(),
        "com.docker.compose.oneoff=False".to_owned(),
    ];
    let mut create = vec!["create".to_owned(), "--name".to_owned(), odd("worker")];
    create.extend(labels.into_iter().flat_map(|l| ["--label".to_owned(), l]));
    create.extend([IMAGE.to_owned(), "true".to_owned()]);
    docker(&create.iter().map(String::as_str).collect::<Vec<_>>());

    let done = cli.recreate(&engine, &consumers(&before)).await.unwrap();

    assert_eq!(done.containers.len(), 2, "{:?}", names(&done.containers));
    for c in &done.containers {
        assert_eq!(c.env["PASSWORD"].expose(), "new-value");
        assert_eq!(c.name, own(&c.service));
    }
    let now = stack.containers(&engine).await;
    assert_eq!(now.len(), before.len(), "{:?}", names(&now));
}

#[tokio::test]
async fn a_recreation_that_takes_too_long_is_ended_and_indeterminate() {
    if !wanted() {
        return;
    }
    let (stack, _) = start("late");
    let (engine, cli) = stack.cli().await;
    let before = stack.containers(&engine).await;
    stack.put(".env.production", NEW);
    let rotation = unique("rotation");
    let cli = cli.for_rotation(&rotation);
    let hurried = Recreate {
        limit: Duration::from_millis(300),
        ..consumers(&before)
    };
    let error = cli.recreate(&engine, &hurried).await.unwrap_err();
    assert!(
        matches!(&error, ActError::Indeterminate(why) if why.contains("was ended")),
        "{error}"
    );
    assert_eq!(orphans::find(&rotation).unwrap().orphans, []);
    assert_running_engine(&engine, &stack).await;
}

async fn assert_running_engine(engine: &Engine, stack: &Stack) {
    assert!(!stack.containers(engine).await.is_empty());
}

fn names(containers: &[Container]) -> Vec<&str> {
    containers.iter().map(|c| c.name.as_str()).collect()
}

#[tokio::test]
async fn images_are_built_first_when_asked_and_a_failed_build_touches_nothing() {
    if !wanted() {
        return;
    }
    let compose = r#"
services:
  api:
    build: .
    command: ["sleep", "infinity"]
    init: true
    stop_grace_period: 0s
"#;
    let mut stack = Stack::write("build", compose, OLD);
    let image = format!("{}-api", stack.name);
    stack.images.push(image.clone());
    stack.put("infra/Dockerfile", &format!("FROM {IMAGE}\nLABEL n=1\n"));
    stack.compose(&["up", "-d"]);
    let (engine, cli) = stack.cli().await;
    let before = stack.containers(&engine).await;
    let wanted = Recreate {
        services: vec!["api".into()],
        build: true,
        ..consumers(&before)
    };

    stack.put("infra/Dockerfile", &format!("FROM {IMAGE}\nRUN exit 7\n"));
    let failed = cli.recreate(&engine, &wanted).await.unwrap_err();
    assert!(
        matches!(&failed, ActError::NotApplied(why) if why.contains("building failed")),
        "{failed}"
    );
    let now = stack.container(&engine, "api").await;
    assert_eq!(now.id, before[0].id);
    assert_eq!(
        engine.image_id(&image).await.unwrap().as_ref(),
        Some(&now.image_id)
    );

    stack.put("infra/Dockerfile", &format!("FROM {IMAGE}\nLABEL n=2\n"));
    let done = cli.recreate(&engine, &wanted).await.unwrap();
    assert_ne!(done.containers[0].image_id, before[0].image_id);

    // On the way back the image that ran is named again.
    let back = Recreate {
        moved: MovedImage::PointBack,
        build: false,
        ..wanted
    };
    let done = cli.recreate(&engine, &back).await.unwrap();
    assert_eq!(done.containers[0].image_id, before[0].image_id);
    assert_eq!(done.pointed_back.len(), 1);
}

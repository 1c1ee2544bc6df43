//! The sandbox stack behaves as the deployments it stands for, so that tests against it mean something.

use std::fs;
use std::path::Path;
use std::time::Duration;

use keyroll_secret::{Alphabet, Format, Secret};
use keyroll_testkit::{
    DbLogin, Door, Keyroll, Stack, StackOptions, TestkitError, containers_wanted, eventually,
    remove_project, sweep,
};

const LIMIT: Duration = Duration::from_secs(15);
const PAGES: [&str; 4] = ["/rbac", "/profile", "/system", "/audit-logs"];

fn random() -> Secret {
    Format::strong(Alphabet::UrlSafe).generate().unwrap()
}

async fn plain() -> Stack {
    Stack::start(StackOptions::new()).await.unwrap()
}

/// Sets a key of the env file, in place.
fn set_env(stack: &Stack, key: &str, value: &Secret) {
    let text = std::fs::read_to_string(stack.env_path()).unwrap();
    let old = format!("{key}={}", stack.env(key).unwrap().expose());
    assert!(text.contains(&old));
    let new = format!("{key}={}", value.expose());
    std::fs::write(stack.env_path(), text.replace(&old, &new)).unwrap();
}

async fn login_status(stack: &Stack, password: &Secret) -> u16 {
    let email = stack.env("ADMIN_EMAIL").unwrap();
    stack
        .panel()
        .unwrap()
        .login(email.expose(), password)
        .await
        .unwrap()
        .status
}

#[tokio::test]
async fn the_panel_answers_only_those_who_logged_in() {
    if !containers_wanted() {
        return;
    }
    let stack = plain().await;
    let panel = stack.panel().unwrap();
    let email = stack.env("ADMIN_EMAIL").unwrap();
    let password = stack.env("ADMIN_PASSWORD").unwrap();
    assert_eq!(panel.health().await.unwrap(), 200);
    assert_eq!(panel.page("/", None).await.unwrap(), 200);

    assert_eq!(login_status(&stack, &random()).await, 401);
    let tokens = panel
        .login(email.expose(), &password)
        .await
        .unwrap()
        .tokens
        .expect("the right password");
    for page in PAGES {
        assert_eq!(panel.page(page, None).await.unwrap(), 401, "{page}");
        assert_eq!(panel.page(page, Some(&random())).await.unwrap(), 401);
        // A refresh token is no access token: it is signed with the other key.
        let wrong_kind = panel.page(page, Some(&tokens.refresh)).await.unwrap();
        assert_eq!(wrong_kind, 401);
        let with = panel.page(page, Some(&tokens.access)).await.unwrap();
        assert_eq!(with, 200, "{page}");
    }

    assert_eq!(stack.open_sessions().await.unwrap(), 1);
    let renewed = panel.refresh(&tokens.refresh).await.unwrap();
    let access = renewed.access.expect("a new access token");
    assert_eq!(panel.page("/profile", Some(&access)).await.unwrap(), 200);
    assert_eq!(panel.refresh(&tokens.access).await.unwrap().status, 401);

    stack
        .sql(r#"UPDATE "AuthSession" SET "revokedAt" = now()"#)
        .await
        .unwrap();
    assert_eq!(panel.refresh(&tokens.refresh).await.unwrap().status, 401);
    // As in most panels, an access token outlives its session.
    let page = panel.page("/profile", Some(&tokens.access)).await.unwrap();
    assert_eq!(page, 200);
}

#[tokio::test]
async fn wrong_passwords_are_refused_over_the_network_and_taken_on_loopback() {
    if !containers_wanted() {
        return;
    }
    let stack = plain().await;
    let right = stack.env("POSTGRES_PASSWORD").unwrap();
    assert_eq!(
        stack.db_login(&right, Door::Network).await,
        DbLogin::Accepted
    );
    assert_eq!(
        stack.db_login(&random(), Door::Network).await,
        DbLogin::Refused
    );
    assert_eq!(
        stack.db_login(&random(), Door::Loopback).await,
        DbLogin::Accepted
    );
    assert!(
        stack
            .stored_verifier()
            .await
            .unwrap()
            .starts_with("SCRAM-SHA-256$")
    );
}

#[tokio::test]
async fn the_database_reads_its_password_at_the_first_start_only() {
    if !containers_wanted() {
        return;
    }
    let stack = plain().await;
    let old = stack.env("POSTGRES_PASSWORD").unwrap();
    let new = random();
    set_env(&stack, "POSTGRES_PASSWORD", &new);
    stack
        .compose(&["up", "-d", "--wait", "--no-deps", "postgres"])
        .await
        .unwrap();
    let inside = stack.container("postgres").await.unwrap();
    assert!(inside.env["POSTGRES_PASSWORD"].same_as(&new), "recreated");
    assert_eq!(stack.db_login(&old, Door::Network).await, DbLogin::Accepted);
    assert_eq!(stack.db_login(&new, Door::Network).await, DbLogin::Refused);
}

#[tokio::test]
async fn both_consumers_hold_the_password_and_only_fail_with_a_new_connection() {
    if !containers_wanted() {
        return;
    }
    let stack = plain().await;
    let password = stack.env("POSTGRES_PASSWORD").unwrap();
    let worker = stack.container("worker").await.unwrap();
    assert!(worker.env["PGPASSWORD"].same_as(&password));
    let api = stack.container("api").await.unwrap();
    let url = api.env["DATABASE_URL"].expose();
    assert!(url.contains(password.expose()));

    let role = stack.role();
    let alter = format!("ALTER ROLE {role} PASSWORD '{}'", random().expose());
    stack.sql(&alter).await.unwrap();
    let panel = stack.panel().unwrap();
    assert_eq!(panel.health().await.unwrap(), 200, "pooled connections");
    stack
        .sql("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")
        .await
        .unwrap();
    assert_eq!(panel.health().await.unwrap(), 503);
    stack
        .health_becomes("worker", "unhealthy", LIMIT)
        .await
        .unwrap();

    let back = format!("ALTER ROLE {role} PASSWORD '{}'", password.expose());
    stack.sql(&back).await.unwrap();
    stack.healthy("worker", LIMIT).await.unwrap();
    stack.healthy("api", LIMIT).await.unwrap();
}

#[tokio::test]
async fn a_seed_updates_the_admin_unless_it_is_the_usual_upsert() {
    if !containers_wanted() {
        return;
    }
    let stack = plain().await;
    let old = stack.env("ADMIN_PASSWORD").unwrap();
    let before = stack.admin_hash().await.unwrap();
    stack.seed().await.unwrap();
    assert_eq!(stack.admin_hash().await.unwrap(), before, "nothing to do");

    let new = random();
    set_env(&stack, "ADMIN_PASSWORD", &new);
    stack
        .compose(&["up", "-d", "--wait", "--no-deps", "api"])
        .await
        .unwrap();

    let noop = stack.fault("seed-noop");
    noop.set();
    let said = stack.seed().await.unwrap();
    assert!(said.contains("seeded"), "{said}");
    assert_eq!(login_status(&stack, &new).await, 401);
    noop.clear();

    let fail = stack.fault("seed-exit1");
    fail.set();
    let error = stack.seed().await.unwrap_err();
    assert!(matches!(error, TestkitError::Command { .. }));
    fail.clear();

    stack.seed().await.unwrap();
    assert_eq!(login_status(&stack, &new).await, 200);
    assert_eq!(login_status(&stack, &old).await, 401);
}

#[tokio::test]
async fn wrong_logins_in_a_row_lock_the_account_and_a_right_one_starts_the_count_again() {
    if !containers_wanted() {
        return;
    }
    let stack = Stack::start(StackOptions::new().env("PANEL_LOGIN_LIMIT", "3"))
        .await
        .unwrap();
    let right = stack.env("ADMIN_PASSWORD").unwrap();
    for _ in 0..2 {
        assert_eq!(login_status(&stack, &random()).await, 401);
    }
    assert_eq!(login_status(&stack, &right).await, 200);
    for _ in 0..3 {
        assert_eq!(login_status(&stack, &random()).await, 401);
    }
    assert_eq!(login_status(&stack, &right).await, 423);
}

#[tokio::test]
async fn faults_take_effect_at_once_and_can_be_taken_back() {
    if !containers_wanted() {
        return;
    }
    let stack = plain().await;
    let panel = stack.panel().unwrap();
    let email = stack.env("ADMIN_EMAIL").unwrap();
    let password = stack.env("ADMIN_PASSWORD").unwrap();
    let tokens = panel.login(email.expose(), &password).await.unwrap();
    let tokens = tokens.tokens.unwrap();

    let fault = stack.fault("login-500");
    fault.set();
    assert_eq!(login_status(&stack, &password).await, 500);
    fault.clear();
    assert_eq!(login_status(&stack, &password).await, 200);

    stack.fault("health-503").set();
    assert_eq!(panel.health().await.unwrap(), 503);
    stack.fault("health-503").clear();
    stack.fault("page-500").set();
    let page = panel.page("/rbac", Some(&tokens.access)).await.unwrap();
    assert_eq!(page, 500);
    stack.fault("page-500").clear();

    stack
        .sql(r#"UPDATE "AuthSession" SET "revokedAt" = now()"#)
        .await
        .unwrap();
    stack.fault("refresh-accept-any").set();
    assert_eq!(panel.refresh(&tokens.refresh).await.unwrap().status, 200);
    stack.fault("refresh-accept-any").clear();
    assert_eq!(panel.refresh(&tokens.refresh).await.unwrap().status, 401);

    let nobodys = sign_with_another_key(&tokens.access);
    assert_eq!(panel.page("/rbac", Some(&nobodys)).await.unwrap(), 401);
    stack.fault("access-accept-any").set();
    assert_eq!(panel.page("/rbac", Some(&nobodys)).await.unwrap(), 200);
    stack.fault("access-accept-any").clear();

    for (service, fault) in [("api", "start-fail"), ("worker", "worker-start-fail")] {
        stack.fault(fault).set();
        assert!(recreate(&stack, service).await.is_err());
        stack.fault(fault).clear();
        stack.healthy(service, LIMIT).await.unwrap();
    }
}

/// The same claims with a signature that no key made.
fn sign_with_another_key(token: &Secret) -> Secret {
    let (claims, signature) = token.expose().rsplit_once('.').unwrap();
    let reversed: String = signature.chars().rev().collect();
    Secret::new(format!("{claims}.{reversed}"))
}

async fn recreate(stack: &Stack, service: &str) -> Result<String, TestkitError> {
    let up = ["up", "-d", "--wait", "--wait-timeout", "20"];
    let arguments = [&up[..], &["--no-deps", "--force-recreate", service]].concat();
    stack.compose(&arguments).await
}

#[tokio::test]
async fn a_seed_that_is_the_usual_upsert_makes_an_admin_and_never_changes_one() {
    if !containers_wanted() {
        return;
    }
    let stack = Stack::start(StackOptions::new().env("PANEL_SEED_MODE", "noop"))
        .await
        .unwrap();
    let first = stack.env("ADMIN_PASSWORD").unwrap();
    assert_eq!(login_status(&stack, &first).await, 200);
    set_env(&stack, "ADMIN_PASSWORD", &random());
    recreate(&stack, "api").await.unwrap();
    stack.seed().await.unwrap();
    assert_eq!(login_status(&stack, &first).await, 200);
}

#[tokio::test]
async fn a_hanging_seed_goes_on_after_its_client_was_killed() {
    if !containers_wanted() {
        return;
    }
    let stack = plain().await;
    stack.fault("seed-hang").set();
    let seeding = async || {
        let all = stack.processes("api").await.unwrap();
        all.iter().any(|p| p.arguments == ["panel", "seed"])
    };
    assert!(!seeding().await);
    let name = stack.container_name("api");
    let docker = Keyroll::new("docker").unwrap();
    let client = docker
        .spawn(["exec", name.as_str(), "npm", "run", "prisma:seed"])
        .unwrap();
    eventually("the seed runs", LIMIT, async || {
        seeding().await.then_some(())
    })
    .await
    .unwrap();
    client.kill_hard().await.unwrap();
    assert!(seeding().await);
}

#[tokio::test]
async fn a_lost_database_is_503_until_it_is_back_and_every_service_stops_by_itself() {
    if !containers_wanted() {
        return;
    }
    let stack = plain().await;
    let panel = stack.panel().unwrap();
    stack.compose(&["stop", "postgres"]).await.unwrap();
    assert_eq!(panel.health().await.unwrap(), 503);
    stack.compose(&["start", "postgres"]).await.unwrap();
    eventually("the panel is back", LIMIT, async || {
        (panel.health().await.ok()? == 200).then_some(())
    })
    .await
    .unwrap();
    let api = stack.container("api").await.unwrap();
    assert_eq!(api.restarts, 0, "it held out");

    stack.compose(&["stop"]).await.unwrap();
    for service in ["postgres", "api", "worker"] {
        let container = stack.container(service).await.unwrap();
        assert_eq!(container.state, "exited");
        assert_eq!(container.exit_code, 0, "{service} was killed");
    }
}

#[tokio::test]
async fn the_options_change_what_they_say() {
    if !containers_wanted() {
        return;
    }
    let odd = Secret::new("p+ss/w:rd");
    let options = StackOptions::new()
        .secret("POSTGRES_PASSWORD", odd.clone())
        .env_file("infra/deploy/.env.extra", "EXTRA=1\nNODE_ENV=staging\n")
        .md5_password()
        .postgres_arguments("-c log_statement=all")
        .own_panel_image();
    let stack = Stack::start(options).await.unwrap();
    assert!(stack.stored_verifier().await.unwrap().starts_with("md5"));
    let logged = stack.logs("postgres").await.unwrap();
    assert!(logged.contains("statement: ") && !logged.contains(odd.expose()));
    assert_eq!(stack.db_login(&odd, Door::Network).await, DbLogin::Accepted);
    assert_eq!(stack.panel().unwrap().health().await.unwrap(), 200);
    assert_eq!(stack.env("EXTRA").unwrap().expose(), "1");
    assert_eq!(stack.env("NODE_ENV").unwrap().expose(), "staging");

    let ran = stack.container("api").await.unwrap().image_id;
    stack.rebuild_panel_image().await.unwrap();
    stack
        .compose(&["up", "-d", "--wait", "--no-deps", "api"])
        .await
        .unwrap();
    assert_ne!(stack.container("api").await.unwrap().image_id, ran);
}

#[tokio::test]
async fn a_database_may_trust_everybody_and_log_everything() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new()
        .host_auth_method("trust")
        .postgres_arguments("-c log_statement=all");
    let stack = Stack::start(options).await.unwrap();
    assert_eq!(
        stack.db_login(&random(), Door::Network).await,
        DbLogin::Accepted
    );
    stack.sql("SELECT 'a marker'").await.unwrap();
    assert!(stack.logs("postgres").await.unwrap().contains("a marker"));
}

#[tokio::test]
async fn stacks_run_side_by_side_and_leave_nothing_behind() {
    if !containers_wanted() {
        return;
    }
    let (one, two) = tokio::join!(
        Stack::start(StackOptions::new()),
        Stack::start(StackOptions::new().project_from_directory())
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.project(), two.project());
    assert_eq!(two.project(), "deploy");
    assert_ne!(one.base_url(), two.base_url());
    let theirs = two.env("ADMIN_PASSWORD").unwrap();
    assert_eq!(login_status(&two, &theirs).await, 200);
    assert_eq!(login_status(&one, &theirs).await, 401);

    let (project, root) = (one.project().to_owned(), one.root().to_owned());
    drop(one);
    assert!(!Path::new(&root).exists());
    assert!(!exists(&project), "containers, a volume or a network");
    assert_eq!(two.panel().unwrap().health().await.unwrap(), 200);
}

#[tokio::test]
async fn the_first_password_may_come_from_a_file_but_not_from_both() {
    if !containers_wanted() {
        return;
    }
    let stack = Stack::start(StackOptions::new().password_file())
        .await
        .unwrap();
    let database = stack.container("postgres").await.unwrap();
    assert!(!database.env.contains_key("POSTGRES_PASSWORD"));
    let right = stack.env("POSTGRES_PASSWORD").unwrap();
    assert_eq!(
        stack.db_login(&right, Door::Network).await,
        DbLogin::Accepted
    );

    let both = StackOptions::new().password_file().replace_in_compose(
        "      POSTGRES_DB: ${POSTGRES_DB}\n",
        "      POSTGRES_DB: ${POSTGRES_DB}\n      POSTGRES_PASSWORD: x\n",
    );
    let error = Stack::start(both).await.unwrap_err().to_string();
    assert!(error.contains("are exclusive"), "{error}");
}

#[tokio::test]
async fn a_panicking_test_takes_its_stack_with_it() {
    if !containers_wanted() {
        return;
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let panicked = tokio::spawn(async {
        let stack = plain().await;
        sender.send(stack.project().to_owned()).unwrap();
        panic!("on purpose");
    })
    .await;
    assert!(panicked.is_err());
    assert!(!exists(&receiver.await.unwrap()));
}

/// Not a test: what [`what_a_killed_test_leaves_behind_is_swept`] kills.
#[tokio::test]
#[ignore = "waits to be killed"]
async fn a_stack_to_be_killed() {
    let stack = plain().await;
    println!("project={}", stack.project());
    tokio::time::sleep(Duration::from_secs(60)).await;
}

/// A test is killed, and what it left is swept once nobody uses it any more.
async fn killed_and_swept(and_then: impl Fn(&str)) {
    let tests = Keyroll::new(std::env::current_exe().unwrap()).unwrap();
    let running = tests
        .spawn([
            "--exact",
            "a_stack_to_be_killed",
            "--ignored",
            "--nocapture",
        ])
        .unwrap();
    let project = eventually("the stack is up", Duration::from_secs(60), async || {
        let said = running.stdout_so_far().ok()?;
        let line = said.lines().find_map(|l| l.split_once("project="))?;
        Some(line.1.to_owned())
    })
    .await
    .unwrap();
    sweep().unwrap();
    assert!(exists(&project), "it is still in use");
    running.kill_hard().await.unwrap();
    and_then(&project);
    // Another test may be sweeping it already.
    eventually("it is swept", LIMIT, async || {
        sweep().unwrap();
        (!exists(&project)).then_some(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn what_a_killed_test_leaves_behind_is_swept() {
    if !containers_wanted() {
        return;
    }
    killed_and_swept(|_| {}).await;
}

#[tokio::test]
async fn what_a_killed_test_of_a_clone_that_is_gone_leaves_behind_is_swept() {
    if !containers_wanted() {
        return;
    }
    killed_and_swept(|project| {
        let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target");
        let stacks = target.join("sandbox/stacks");
        fs::remove_file(stacks.join(format!("{project}.lock"))).unwrap();
        fs::remove_dir_all(stacks.join(project)).unwrap();
    })
    .await;
}

#[tokio::test]
async fn a_stack_that_cannot_start_says_why_and_is_removed() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new().replace_in_compose(
        r#"command: ["panel", "worker"]"#,
        r#"command: ["panel", "nonsense"]"#,
    );
    let error = Stack::start(options).await.unwrap_err().to_string();
    assert!(error.contains("unknown command \"nonsense\""), "{error}");
    let project = error
        .split_whitespace()
        .find(|word| word.starts_with("keyroll-test-"))
        .expect("the command names the project");
    assert!(!exists(project));

    let error = Stack::start(StackOptions::new().replace_in_compose("not there", "x")).await;
    assert!(matches!(error, Err(TestkitError::Unexpected(_))));
}

/// Whether the engine knows anything of a project.
fn exists(project: &str) -> bool {
    let filter = format!("label=com.docker.compose.project={project}");
    [
        &["ps", "-aq"][..],
        &["volume", "ls", "-q"],
        &["network", "ls", "-q"],
    ]
    .into_iter()
    .any(|list| {
        let found = std::process::Command::new("docker")
            .args(list)
            .args(["--filter", &filter])
            .output()
            .unwrap();
        assert!(found.status.success());
        !found.stdout.is_empty()
    })
}

#[test]
fn removing_a_project_that_is_not_there_does_nothing() {
    if !containers_wanted() {
        return;
    }
    assert!(remove_project("keyroll-test-never-was"));
}

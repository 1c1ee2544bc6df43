//! What keyroll refuses on real containers, with the reason, and with nothing changed; and what it takes on all the same.

use std::fs;
use std::path::Path;

use crate::common::{
    Bench, DONE, LIMIT, REFUSED, ROTATE, Stranger, Tmpfs, USAGE, append, docker, names_in,
};
use keyroll_secret::Secret;
use keyroll_testkit::{Keyroll, StackOptions, containers_wanted, eventually, remove_project};
use serde_json::Value;

const KNOWN: &str = "sandbox-known-5b1f0c94d7e2463a";

/// Runs keyroll without a stack.
async fn alone(arguments: &[&str]) -> keyroll_testkit::Run {
    let keyroll = Keyroll::new(env!("CARGO_BIN_EXE_keyroll")).unwrap();
    keyroll.run(arguments).await.unwrap()
}

// Usage.

#[tokio::test]
async fn a_wrong_profile_is_refused_with_file_line_and_what_was_expected() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("mine.toml");
    fs::write(
        &path,
        "extends = \"proxpanel\"\n\n[limits]\nkeep_days = \"a week\"\n",
    )
    .unwrap();
    let run = alone(&["plan", "production", "--profile", path.to_str().unwrap()]).await;
    assert_eq!(run.code, USAGE, "{run:?}");
    let place = format!("{}:4", path.display());
    assert!(run.stderr.contains(&place), "{run:?}");
    assert!(run.stderr.contains("keep_days"), "{run:?}");
}

#[tokio::test]
async fn without_a_terminal_nothing_is_rotated_unless_yes_is_said() {
    let run = alone(&["rotate", "production"]).await;
    assert_eq!(run.code, USAGE, "{run:?}");
    assert!(run.stderr.contains("--yes"), "{run:?}");
}

#[tokio::test]
async fn whoever_says_no_or_presses_ctrl_c_when_asked_gets_nothing_changed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before_without_login().await;
    for answer in ["n\n", "\x03"] {
        let mut terminal = bench.terminal(&["rotate", "production"]);
        terminal.shows("Rotate now? [y/N] ");
        terminal.types(answer);
        let said = terminal.reads_to_its_end();
        assert!(
            said.contains("not confirmed; nothing was changed"),
            "{said}"
        );
    }
    bench.nothing_changed(&before).await;
    let mut terminal = bench.terminal(&["rotate", "production"]);
    terminal.shows("Rotate now? [y/N] ");
    terminal.types("y\n");
    let said = terminal.reads_to_its_end();
    assert!(said.contains("Completed"), "{said}");
}

#[tokio::test]
async fn a_plan_opens_no_session_and_tries_no_login_unless_it_is_told_to() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let sessions = r#"SELECT count(*) FROM "AuthSession""#;
    let wrong = r#"SELECT "failedLogins" FROM "User" WHERE "role" = 'ADMIN'"#;
    let seen = async || {
        let [sessions, wrong] = [sessions, wrong].map(|sql| bench.stack.sql_value(sql));
        (sessions.await.unwrap(), wrong.await.unwrap())
    };
    // A wrong login would count up from here, a right one back to none.
    assert_eq!(bench.login(&Secret::new("wrong")).await, 401);
    let before = seen().await;
    assert_eq!(before.1, "1");
    let plan = bench.run(&["plan", "production"]).await;
    assert_eq!(plan.code, DONE, "{plan:?}");
    assert!(
        plan.stdout.contains("not tried: the admin's login"),
        "{plan:?}"
    );
    assert_eq!(seen().await, before);

    let plan = bench.run(&["plan", "production", "--log-in"]).await;
    assert_eq!(plan.code, DONE, "{plan:?}");
    assert!(!plan.stdout.contains("not tried"), "{plan:?}");
    assert_ne!(seen().await, before);
}

#[tokio::test]
async fn an_unknown_secret_an_override_without_an_incident_and_a_void_page_are_refused() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    bench
        .refuses(
            &["rotate", "JWT_SECERT", "--yes"],
            "selection",
            &["JWT_SECERT", "payments, production, ADMIN_PASSWORD"],
        )
        .await;
    bench
        .refuses(
            &["rotate", "production", "--yes", "--force-unhealthy"],
            "sick",
            &["--reason incident"],
        )
        .await;
    // Served to anybody: that it opens with a session would prove nothing.
    let page = ["--set", "http.pages=[\"/profile\", \"/api/health\"]"];
    bench
        .refuses(
            &[&ROTATE[..], &page].concat(),
            "vacuous",
            &["/api/health is served without a session"],
        )
        .await;
}

// The project.

#[tokio::test]
async fn a_stack_that_runs_under_another_project_name_or_twice_is_refused() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    // Not `deploy`: a stack of that name may run beside this one.
    let other = ["--set", "compose.project=elsewhere"];
    bench
        .refuses(
            &[&ROTATE[..], &other].concat(),
            "project",
            &["the profile says elsewhere", "docker compose ls"],
        )
        .await;

    // A twin with an empty volume, as a forgotten `-p` makes it.
    let twin = format!("{}-twin", bench.stack.project());
    let arguments = bench.stack.compose_arguments();
    let mut compose: Vec<&str> = vec!["compose"];
    compose.extend(arguments.iter().map(|a| {
        if a == bench.stack.project() {
            twin.as_str()
        } else {
            a.as_str()
        }
    }));
    compose.push("create");
    docker(&compose);
    bench
        .refuses(&ROTATE, "project", &[&twin, bench.stack.project()])
        .await;
    let named = format!("compose.project={}", bench.stack.project());
    let plan = bench.run(&["plan", "production", "--set", &named]).await;
    remove_project(&twin);
    assert_eq!(plan.code, DONE, "{plan:?}");
}

#[tokio::test]
async fn a_stack_named_after_its_directory_is_rotated_as_it_runs() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().project_from_directory()).await;
    let plan = bench.json(&["plan", "production"]).await;
    assert_eq!(plan["project"], "deploy", "{plan}");
    bench.rotate().await;
    let volumes = docker(&["volume", "ls", "-q", "--filter", "name=postgres-data"]);
    let twins = volumes.lines().filter(|v| v.starts_with("panel_"));
    assert_eq!(twins.count(), 0, "a twin's volume: {volumes}");
}

#[tokio::test]
async fn a_stack_that_was_started_with_another_env_file_besides_is_refused() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new().env_file(".env.local", "LOG_LEVEL=debug\n");
    let bench = Bench::start(options).await;
    bench.refuses(&ROTATE, "project", &[".env.local"]).await;
}

// Drift.

#[tokio::test]
async fn an_image_that_was_tagged_again_since_is_drift() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().own_panel_image()).await;
    bench.stack.rebuild_panel_image().await.unwrap();
    bench
        .refuses(&ROTATE, "drift", &["runs image", "would deploy it"])
        .await;
}

#[tokio::test]
async fn a_compose_file_or_an_env_file_that_was_edited_since_is_drift() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let path = bench.stack.compose_path();
    let good = fs::read_to_string(&path).unwrap();
    let edited = good.replace("\"worker\"]", "\"worker\"]\n    hostname: edited");
    assert_ne!(edited, good);
    fs::write(&path, edited).unwrap();
    bench
        .refuses(&ROTATE, "drift", &["worker", "another configuration"])
        .await;
    fs::write(&path, good).unwrap();

    append(&bench.stack.env_path(), "NEW_FEATURE=on\n");
    bench
        .refuses(&ROTATE, "drift", &["api", "another configuration"])
        .await;
}

// Health, and checks that can fail.

#[tokio::test]
async fn a_sick_worker_is_refused_and_an_incident_goes_on_and_records_it() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    // The heartbeat cannot be written any more; a container made anew is well.
    bench.inside("worker", "mkdir /tmp/worker-heartbeat.next");
    bench
        .stack
        .health_becomes("worker", "unhealthy", LIMIT)
        .await
        .unwrap();
    let worker = bench.stack.container_name("worker");
    bench
        .refuses(&ROTATE, "sick", &[&worker, "is unhealthy"])
        .await;
    let incident = [&ROTATE[..], &["--reason", "incident"]].concat();
    bench
        .refuses(&incident, "sick", &["is unhealthy", "--force-unhealthy"])
        .await;

    let old = bench.stack.env("ADMIN_PASSWORD").unwrap();
    let forced = [&incident[..], &["--force-unhealthy"]].concat();
    let run = bench.run(&forced).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(bench.login(&old).await, 401);
    bench
        .trail_says("completed", &["incident", "is unhealthy"])
        .await;
}

#[tokio::test]
async fn a_database_that_trusts_everybody_makes_the_check_void() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().host_auth_method("trust")).await;
    bench
        .refuses(&ROTATE, "vacuous", &["lets a wrong password in", "trust"])
        .await;
}

#[tokio::test]
async fn a_database_password_that_is_not_the_env_files_is_refused() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let role = bench.stack.role();
    let change = format!("ALTER ROLE \"{role}\" PASSWORD 'changed-by-hand'");
    bench.stack.sql(&change).await.unwrap();
    bench.refuses(&ROTATE, "database", &["refused"]).await;
}

#[tokio::test]
async fn an_admin_password_that_was_changed_in_the_panel_is_refused_and_taken_from_a_file() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let changed = Secret::new("changed-in-the-panel-8c41");
    let given = format!("ADMIN_PASSWORD={}", changed.expose());
    let api = bench.stack.container_name("api");
    docker(&["exec", "-e", &given, &api, "npm", "run", "prisma:seed"]);
    bench
        .refuses(
            &ROTATE,
            "panel",
            &["admin@example.com", "--current-admin-password-file"],
        )
        .await;

    let file = bench.home("admin");
    fs::write(&file, format!("{}\n", changed.expose())).unwrap();
    let with = ["--current-admin-password-file", file.to_str().unwrap()];
    let run = bench.run(&[&ROTATE[..], &with].concat()).await;
    assert_eq!(run.code, DONE, "{run:?}");
    assert_eq!(bench.login(&changed).await, 401);
    let new = bench.stack.env("ADMIN_PASSWORD").unwrap();
    assert_eq!(bench.login(&new).await, 200);
}

#[tokio::test]
async fn an_admin_password_alone_is_rotated_although_the_env_file_has_a_former_one() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let written = bench.stack.env("ADMIN_PASSWORD").unwrap();
    let changed = Secret::new("changed-in-the-panel-77d0");
    let given = format!("ADMIN_PASSWORD={}", changed.expose());
    let api = bench.stack.container_name("api");
    docker(&["exec", "-e", &given, &api, "npm", "run", "prisma:seed"]);
    let file = bench.home("admin");
    fs::write(&file, format!("{}\n", changed.expose())).unwrap();
    let with = [
        "rotate",
        "ADMIN_PASSWORD",
        "--yes",
        "--current-admin-password-file",
        file.to_str().unwrap(),
    ];

    let run = bench.run(&with).await;

    assert_eq!(run.code, DONE, "{run:?}");
    for dead in [&changed, &written] {
        assert_eq!(bench.login(dead).await, 401);
    }
    let new = bench.stack.env("ADMIN_PASSWORD").unwrap();
    assert_eq!(bench.login(&new).await, 200);
    // Everything that had the former one from the file was made anew.
    let env = docker(&["exec", &api, "env"]);
    assert!(env.contains(&format!("ADMIN_PASSWORD={}", new.expose())));
}

// Consumers.

#[tokio::test]
async fn a_container_outside_of_the_project_that_has_the_password_is_named() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let name = format!("{}-report", bench.stack.project());
    let file = bench.home("report.env");
    let url = bench.stack.env("DATABASE_URL").unwrap();
    fs::write(&file, format!("REPORT_DSN={}\n", url.expose())).unwrap();
    let stranger = Stranger(name.clone());
    docker(&[
        "run",
        "-d",
        "--name",
        &name,
        "--env-file",
        file.to_str().unwrap(),
        "--entrypoint",
        "sleep",
        "keyroll-sandbox-panel:1",
        "600",
    ]);
    bench
        .refuses(
            &ROTATE,
            "consumer",
            &[&name, "POSTGRES_PASSWORD", "REPORT_DSN"],
        )
        .await;
    // Secrets that it does not have can be rotated.
    let plan = bench.run(&["plan", "JWT_SECRET"]).await;
    assert_eq!(plan.code, DONE, "{plan:?}");
    drop(stranger);
    let plan = bench.run(&["plan", "production"]).await;
    assert_eq!(plan.code, DONE, "{plan:?}");
}

#[tokio::test]
async fn a_copy_of_the_password_in_a_second_env_file_is_named() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new()
        .secret("POSTGRES_PASSWORD", Secret::new(KNOWN))
        .prepare(|root| {
            fs::write(
                root.join(".env.reports"),
                format!("REPORT_PASSWORD={KNOWN}\n"),
            )
            .unwrap();
            Ok(())
        })
        .replace_in_compose(
            "      - ../../.env.production\n    ports:",
            "      - ../../.env.production\n      - ../../.env.reports\n    ports:",
        );
    let bench = Bench::start(options).await;
    bench
        .refuses(
            &ROTATE,
            "consumer",
            &["service api", "REPORT_PASSWORD", "POSTGRES_PASSWORD"],
        )
        .await;
}

#[tokio::test]
async fn a_password_written_into_the_compose_file_is_named() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new()
        .secret("POSTGRES_PASSWORD", Secret::new(KNOWN))
        .replace_in_compose(
            "PGPASSWORD: ${POSTGRES_PASSWORD}",
            &format!("PGPASSWORD: {KNOWN}"),
        );
    let bench = Bench::start(options).await;
    bench
        .refuses(
            &ROTATE,
            "consumer",
            &["service worker", "PGPASSWORD", "somewhere else"],
        )
        .await;
}

// The env file.

#[tokio::test]
async fn a_key_that_is_in_the_env_file_twice_is_refused_with_its_line() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new().prepare(|root| {
        append(&root.join(".env.production"), "JWT_SECRET=another-value\n");
        Ok(())
    });
    let bench = Bench::start(options).await;
    bench
        .refuses(&ROTATE, "env-file", &["JWT_SECRET", ".env.production:"])
        .await;
}

#[tokio::test]
async fn an_env_file_that_is_a_symbolic_link_is_refused() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new().prepare(|root| {
        let link = root.join(".env.production");
        fs::rename(&link, root.join("env.real")).unwrap();
        std::os::unix::fs::symlink("env.real", &link).unwrap();
        Ok(())
    });
    let bench = Bench::start(options).await;
    bench.refuses(&ROTATE, "env-file", &["link"]).await;
    let link = fs::read_link(bench.stack.env_path()).unwrap();
    assert_eq!(link, Path::new("env.real"));
}

// keyroll's own places.

#[tokio::test]
async fn a_backup_root_without_room_is_refused_with_what_is_needed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let small = Tmpfs::mount(bench.home("small"), "4m");
    let root = ["--backup-root", small.path()];
    bench
        .refuses(
            &[&ROTATE[..], &root].concat(),
            "space",
            &[small.path(), "MiB"],
        )
        .await;
    assert_eq!(names_in(Path::new(small.path())).len(), 0);

    // A file where the directory should be.
    let file = bench.home("not-a-directory");
    fs::write(&file, "").unwrap();
    let before = bench.before_without_login().await;
    let root = ["--backup-root", file.to_str().unwrap()];
    let run = bench.run(&[&ROTATE[..], &root].concat()).await;
    assert!(matches!(run.code, Some(3 | 4)), "{run:?}");
    bench.nothing_changed(&before).await;
}

#[tokio::test]
async fn a_second_keyroll_is_refused_while_the_first_is_there_even_suspended() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before_without_login().await;
    let first = bench.spawn(&ROTATE);
    first.says("preflight: ").await.unwrap();
    first.suspend().unwrap();
    let pid = first.pid().unwrap();
    eventually("it is suspended", LIMIT, async || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.contains(") T ").then_some(())
    })
    .await
    .unwrap();
    for command in [&ROTATE[..], &["plan", "production"]] {
        bench
            .refuses_since(&before, command, "locked", &[&pid.to_string()])
            .await;
    }
    // What holds the lock is a process, and not a file that one forgot.
    first.kill_hard().await.unwrap();
    let plan = bench.run(&["plan", "production"]).await;
    assert_eq!(plan.code, DONE, "{plan:?}");
    bench.nothing_changed(&before).await;
}

#[tokio::test]
async fn a_refusal_in_json_has_code_and_what_to_type_next() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let other = ["--json", "--set", "compose.project=deploy"];
    let run = bench.run(&[&ROTATE[..], &other].concat()).await;
    assert_eq!(run.code, REFUSED, "{run:?}");
    let told: Value = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(told["exit_code"], 3, "{told}");
    assert_eq!(told["refusals"][0]["code"], "project", "{told}");
    assert!(told["refusals"][0]["next"].as_str().is_some(), "{told}");
    assert!(!bench.home("backups").exists(), "a directory was made");
}

#[tokio::test]
async fn a_key_that_encrypts_what_is_kept_is_refused_unless_the_profile_says_that_nothing_is() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let spec = "secrets.BACKUP_ENCRYPTION_KEY={ kind = \"environment\" }";
    let rotate = ["rotate", "BACKUP_ENCRYPTION_KEY", "--yes", "--set"];
    let command = [&rotate[..], &[spec]].concat();
    let says = [
        "BACKUP_ENCRYPTION_KEY encrypts what is kept",
        "every old backup",
    ];
    bench.refuses(&command, "at-rest", &says).await;
    let all = [
        &rotate[..],
        &[spec, "--reason", "incident", "--force-unhealthy"],
    ]
    .concat();
    bench.refuses(&all, "at-rest", &says).await;

    let knows = "secrets.BACKUP_ENCRYPTION_KEY={ kind = \"environment\", keeps_nothing = true }";
    let run = bench.run(&[&rotate[..], &[knows]].concat()).await;
    assert_eq!(run.code, DONE, "{run:?}");
}

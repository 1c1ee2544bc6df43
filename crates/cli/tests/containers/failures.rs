//! Each step made to fail in turn, on real containers: the stack ends on the complete old set, well, and the trail says why.

use std::fs;
use std::os::unix::fs::chown;

use crate::common::{
    Bench, DONE, GOING_BACK, LIMIT, ROLLED_BACK_AFTER_INCIDENT, ROTATE, Tmpfs, append, at, docker,
    went_back,
};
use keyroll_secret::Secret;
use keyroll_testkit::{StackOptions, TestkitError, containers_wanted};

/// A fault that is there from the step that it breaks until the rotation turns back.
async fn fails_while(options: StackOptions, fault: &str, from: &'static str, trail: &[&str]) {
    let bench = Bench::start(options).await;
    let before = bench.before().await;
    let fault = bench.stack.fault(fault);
    let run = bench
        .interfere(
            &ROTATE,
            vec![at(from, || fault.set()), at(GOING_BACK, || fault.clear())],
        )
        .await;
    went_back(&run);
    bench.old_set_is_back(&before).await;
    bench.trail_says("compensated", trail).await;
}

// Step 2: the backup.

#[tokio::test]
async fn a_dump_that_fails_or_is_cut_off_ends_the_rotation_before_anything_changed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let real = "/usr/lib/postgresql/15/bin/pg_dump";
    bench.inside(
        "postgres",
        &format!(
            "mv {real} {real}.real; printf '#!/bin/sh\\necho out of luck >&2; exit 1\\n' >{real}; chmod +x {real}"
        ),
    );
    let containers = bench.stack.containers().await.unwrap();
    let run = bench.run(&ROTATE).await;
    went_back(&run);
    bench.trail_says("compensated", &["out of luck"]).await;

    // The program says that all is well, and half of the dump is missing: only reading it shows that.
    bench.inside(
        "postgres",
        &format!(
            "printf '#!/bin/sh\\ncase $1 in -V|--version) exec {real}.real -V;; esac\\n{real}.real \"$@\" | head -c 4000\\n' >{real}"
        ),
    );
    let run = bench.run(&ROTATE).await;
    went_back(&run);
    bench
        .trail_says("compensated", &["the dump cannot be read back"])
        .await;

    bench.inside("postgres", &format!("mv {real}.real {real}"));
    bench.old_set_is_back(&before).await;
    bench.same_containers(&containers).await;
}

// Step 3: generate and seal.

#[tokio::test]
async fn values_that_cannot_be_sealed_never_take_effect() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let state = Tmpfs::mount(bench.home("small-state"), "1m");
    let at_state = ["--state-dir", state.path()];
    let plan = bench
        .run(&[&["plan", "production"][..], &at_state].concat())
        .await;
    assert_eq!(plan.code, DONE, "{plan:?}");
    // Fills the file system; writing ends with an error when it is full.
    let _ = fs::write(bench.home("small-state").join("filler"), vec![0; 2 << 20]);

    let run = bench.run(&[&ROTATE[..], &at_state].concat()).await;

    assert!(
        matches!(run.code, Some(1 | 3 | 7)),
        "neither done nor half done: {run:?}"
    );
    bench.nothing_changed(&before).await;
    fs::remove_file(bench.home("small-state").join("filler")).unwrap();
    let again = bench.run(&[&["resume"][..], &at_state].concat()).await;
    assert_eq!(again.code, DONE, "{again:?}");
    let again = bench.run(&[&ROTATE[..], &at_state].concat()).await;
    assert_eq!(again.code, DONE, "{again:?}");
}

// Step 4: the env file.

#[tokio::test]
async fn an_env_file_that_an_operator_edits_before_the_rename_is_left_to_the_operator() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.env_path();
    let edit = "# edited while the backup was made\n";
    let run = bench
        .interfere(&ROTATE, vec![at("backup: started", || append(&path, edit))])
        .await;
    went_back(&run);
    let expected = [&before.env, edit.as_bytes()].concat();
    assert!(fs::read(&path).unwrap() == expected, "the operator's edit");
    bench.old_set_but_for_the_file(&before).await;
    bench.trail_says("compensated", &["env"]).await;
}

#[tokio::test]
async fn an_env_file_that_an_operator_edits_after_the_rename_keeps_the_edit_and_gets_the_old_values_back()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.env_path();
    let edit = "# edited while the containers started\n";
    let noop = bench.stack.fault("seed-noop");
    let run = bench
        .interfere(
            &ROTATE,
            vec![at("env-file: done", || {
                append(&path, edit);
                noop.set();
            })],
        )
        .await;
    went_back(&run);
    assert!(run.stderr.contains("their edit stays"), "{run:?}");
    let expected = [&before.env, edit.as_bytes()].concat();
    assert!(fs::read(&path).unwrap() == expected, "edit or old values");
    bench.old_set_but_for_the_file(&before).await;
    bench.trail_says("compensated", &["their edit stays"]).await;
}

// Step 5: the database password.

#[tokio::test]
async fn a_database_that_stops_before_the_alter_lands_keeps_the_old_password() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    // So that the ALTER waits while the server is stopped.
    let _held = bench.hold_the_role();
    let name = bench.stack.container_name("postgres");
    let running = bench.spawn(&ROTATE);
    running.says("database-password: started").await.unwrap();
    bench.waits_for("Lock").await;
    docker(&["stop", "-t", "5", &name]);
    running.says(GOING_BACK).await.unwrap();
    docker(&["start", &name]);
    let run = running.wait(LIMIT * 3).await.unwrap();
    went_back(&run);
    bench.old_set_is_back(&before).await;
    bench
        .trail_says("compensated", &["database-password"])
        .await;
}

// Step 6: the containers.

#[tokio::test]
async fn a_compose_file_that_breaks_after_preflight_leaves_the_running_containers_alone() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.compose_path();
    let good = fs::read(&path).unwrap();
    let run = bench
        .interfere(
            &ROTATE,
            vec![at("backup: done", || {
                fs::write(&path, "services: [this is\n").unwrap();
            })],
        )
        .await;
    went_back(&run);
    assert!(run.stderr.contains("recreate: failed"), "{run:?}");
    fs::write(&path, good).unwrap();
    bench.old_set_is_back(&before).await;
    bench.trail_says("compensated", &["recreate"]).await;
}

#[tokio::test]
async fn a_service_that_an_edited_compose_file_would_change_too_is_named_and_not_deployed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.compose_path();
    let good = fs::read_to_string(&path).unwrap();
    let worker = bench.stack.container("worker").await.unwrap();
    // The worker does not use this secret, so nobody expects it to be recreated.
    let run = bench
        .interfere(
            &["rotate", "JWT_SECRET", "--yes"],
            vec![at("backup: started", || {
                let edited = good.replace(
                    "panel\", \"worker\"]",
                    "panel\", \"worker\"]\n    hostname: edited",
                );
                assert_ne!(edited, good);
                fs::write(&path, edited).unwrap();
            })],
        )
        .await;
    went_back(&run);
    assert!(run.stderr.contains("worker"), "{run:?}");
    let now = bench.stack.container("worker").await.unwrap();
    assert_eq!(now.id, worker.id);
    fs::write(&path, good).unwrap();
    bench.old_set_is_back(&before).await;
}

#[tokio::test]
async fn an_api_that_cannot_start_with_the_new_values_is_back_on_the_old_ones() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new()
        .secret("JWT_SECRET", Secret::new("sandbox-old-3f9c2a7e51d84b06"))
        .replace_in_compose(
            "command: [\"panel\", \"api\"]",
            "command: [\"sh\", \"-c\", \"case $$JWT_SECRET in sandbox-old-*) exec panel api;; esac; echo I only know the old key; exit 1\"]",
        );
    let bench = Bench::start(options).await;
    let before = bench.before().await;
    let run = bench.run(&ROTATE).await;
    went_back(&run);
    bench.old_set_is_back(&before).await;
    bench
        .trail_says("compensated", &["recreate", "I only know the old key"])
        .await;
}

#[tokio::test]
async fn a_worker_that_cannot_start_turns_the_rotation_back() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new();
    fails_while(options, "worker-start-fail", "env-file: done", &["worker"]).await;
}

#[tokio::test]
async fn an_api_that_never_becomes_healthy_turns_the_rotation_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let fault = bench.stack.fault("health-503");
    let command = [&ROTATE[..], &["--set", "limits.healthy_seconds=15"]].concat();
    let run = bench
        .interfere(
            &command,
            vec![
                at("recreate: started", || fault.set()),
                at(GOING_BACK, || fault.clear()),
            ],
        )
        .await;
    went_back(&run);
    bench.old_set_is_back(&before).await;
    let api = bench.stack.container_name("api");
    bench.trail_says("compensated", &["recreate", &api]).await;
}

#[tokio::test]
async fn an_image_that_is_tagged_again_in_the_middle_is_not_deployed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().own_panel_image()).await;
    let before = bench.before().await;
    let ran = bench.stack.container("api").await.unwrap().image_id;
    let running = bench.spawn(&ROTATE);
    running.says("backup: started").await.unwrap();
    running.suspend().unwrap();
    bench.stack.rebuild_panel_image().await.unwrap();
    running.proceed().unwrap();
    let run = running.wait(LIMIT * 3).await.unwrap();
    for service in ["api", "worker"] {
        let now = bench.stack.container(service).await.unwrap();
        assert_eq!(now.image_id, ran, "{service}: {run:?}");
    }
    went_back(&run);
    let tag = docker(&[
        "inspect",
        "-f",
        "{{.Config.Image}}",
        &bench.stack.container_name("api"),
    ]);
    docker(&["tag", &ran, tag.trim()]);
    bench.old_set_is_back(&before).await;
}

#[tokio::test]
async fn a_consumer_whose_configuration_is_edited_in_the_middle_is_not_deployed() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let path = bench.stack.compose_path();
    let good = fs::read_to_string(&path).unwrap();
    let run = bench
        .interfere(
            &ROTATE,
            vec![at("backup: started", || {
                let edited = good.replace(
                    "panel\", \"api\"]",
                    "panel\", \"api\"]\n    hostname: edited",
                );
                assert_ne!(edited, good);
                fs::write(&path, edited).unwrap();
            })],
        )
        .await;
    went_back(&run);
    fs::write(&path, good).unwrap();
    bench.old_set_is_back(&before).await;
}

#[tokio::test]
async fn a_second_env_file_that_is_edited_in_the_middle_is_not_deployed() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new()
        .prepare(|root| {
            let path = root.join("worker.env");
            fs::write(&path, "WORKER_COLOUR=blue\n")
                .map_err(|e| TestkitError::Unexpected(e.to_string()))
        })
        .replace_in_compose(
            "    command: [\"panel\", \"worker\"]\n",
            "    command: [\"panel\", \"worker\"]\n    env_file: [../../worker.env]\n",
        );
    let bench = Bench::start(options).await;
    let before = bench.before().await;
    let path = bench.stack.root().join("worker.env");
    let run = bench
        .interfere(
            &ROTATE,
            vec![at("backup: started", || {
                fs::write(&path, "WORKER_COLOUR=red\n").unwrap();
            })],
        )
        .await;
    went_back(&run);
    fs::write(&path, "WORKER_COLOUR=blue\n").unwrap();
    bench.old_set_is_back(&before).await;
    let says = "configuration of worker was edited since preflight";
    bench.trail_says("compensated", &[says]).await;
}

// Step 7: the seed, and the sessions.

#[tokio::test]
async fn a_seed_that_exits_1_turns_the_rotation_back_and_the_next_one_completes() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new().prepare(|root| {
        chown(root.join(".env.production"), Some(12_345), Some(12_346)).unwrap();
        Ok(())
    });
    let bench = Bench::start(options).await;
    let before = bench.before().await;
    let fault = bench.stack.fault("seed-exit1");
    fault.set();
    let run = bench.run(&ROTATE).await;
    went_back(&run);
    bench.old_set_is_back(&before).await;
    let words = ["npm run prisma:seed", "the seed command failed"];
    bench.trail_says("compensated", &words).await;

    fault.clear();
    bench.rotate().await;
    bench.trail_says("completed", &[]).await;
    assert_eq!(bench.login(before.value("ADMIN_PASSWORD")).await, 401);
}

#[tokio::test]
async fn a_seed_that_changes_nothing_is_recognised_and_named() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new().env("PANEL_SEED_MODE", "noop")).await;
    let before = bench.before().await;
    let run = bench.run(&ROTATE).await;
    went_back(&run);
    let words = ["exited with 0 and changed nothing", "npm run prisma:seed"];
    for word in words {
        assert!(run.stderr.contains(word), "{run:?}");
    }
    bench.old_set_is_back(&before).await;
    bench.trail_says("compensated", &words).await;
}

#[tokio::test]
async fn a_seed_that_hangs_is_given_up_and_taken_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    bench.stack.fault("seed-hang").set();
    let limit = ["--set", "limits.seed_seconds=3"];
    let run = bench.run(&[&ROTATE[..], &limit].concat()).await;
    went_back(&run);
    bench.old_set_is_back(&before).await;
    let words = ["admin-password", "took longer than 3s"];
    bench.trail_says("compensated", &words).await;
}

#[tokio::test]
async fn sessions_that_cannot_be_revoked_turn_the_rotation_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let guard = r#"
        CREATE FUNCTION no_revoking() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN RAISE EXCEPTION 'sessions are append-only here'; END$$;
        CREATE TRIGGER no_revoking BEFORE UPDATE ON "AuthSession"
            FOR EACH ROW EXECUTE FUNCTION no_revoking();"#;
    bench.stack.sql(guard).await.unwrap();
    let run = bench.run(&ROTATE).await;
    went_back(&run);
    let ungard = "DROP TRIGGER no_revoking ON \"AuthSession\"; DROP FUNCTION no_revoking();";
    bench.stack.sql(ungard).await.unwrap();
    bench.old_set_is_back(&before).await;
    bench.trail_says("compensated", &["app-sessions"]).await;
}

// Step 8: the verification.

#[tokio::test]
async fn a_login_that_answers_500_after_the_recreation_turns_the_rotation_back() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new();
    fails_while(options, "login-500", "recreate: done", &["500"]).await;
}

#[tokio::test]
async fn an_application_that_accepts_any_refresh_token_is_found_out() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new();
    let says = ["verify", "a refresh token that must be dead is accepted"];
    fails_while(options, "refresh-accept-any", "recreate: done", &says).await;
}

#[tokio::test]
async fn an_application_that_accepts_any_access_token_is_found_out() {
    if !containers_wanted() {
        return;
    }
    let options = StackOptions::new();
    let says = ["verify", "a session that must be dead"];
    fails_while(options, "access-accept-any", "recreate: done", &says).await;
}

// The operator, and incidents.

#[tokio::test]
async fn an_operator_who_presses_ctrl_c_gets_the_old_set_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let running = bench.spawn(&ROTATE);
    running.says("recreate: started").await.unwrap();
    running.interrupt().unwrap();
    let run = running.wait(LIMIT * 3).await.unwrap();
    went_back(&run);
    bench.old_set_is_back(&before).await;
    bench.trail_says("compensated", &["asked to stop"]).await;
}

#[tokio::test]
async fn after_an_incident_a_failed_rotation_says_that_leaked_values_are_in_force_and_reopens_no_session()
 {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let mut before = bench.before().await;
    let fault = bench.stack.fault("page-500");
    let command = [&ROTATE[..], &["--reason", "incident"]].concat();
    let run = bench
        .interfere(
            &command,
            vec![
                at("app-sessions: done", || fault.set()),
                at(GOING_BACK, || fault.clear()),
            ],
        )
        .await;
    assert_eq!(run.code, ROLLED_BACK_AFTER_INCIDENT, "{run:?}");
    assert!(
        run.stdout
            .contains("values that may have leaked are in force again"),
        "{run:?}"
    );
    let tokens = before.tokens.take().unwrap();
    bench.old_set_is_back(&before).await;
    assert_eq!(bench.refresh(&tokens.refresh).await, 401, "was reopened");
    bench.trail_says("compensated", &["incident"]).await;
}

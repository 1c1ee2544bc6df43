//! The exams that every step of a rotation passes, on a real stack: its act fails in each way, is repeated, its undo fails and is
//! repeated, and looking changes nothing.
//!
//! No step is named here: they are those of the built-in profile's `production`, and of a secret that is kept in a setting. A new one
//! is examined as soon as it is planned.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::common::{Bench, SECRETS};
use keyroll_rotate::exam::{Act, Examiner, Undo};
use keyroll_rotate::{
    Control, Ending, Keyroll, Operator, Outcome, Profile, Quiet, Request, StepName,
};
use keyroll_secret::Format;
use keyroll_testkit::{StackOptions, containers_wanted};

/// Where an exam's rotation is turned back, so that everything before it is taken back.
const LAST: &str = "verify";
/// A secret that is kept in this setting.
const HASH: &str = "FLUTTERWAVE_WEBHOOK_HASH";
const SETTING: &str = "payments.flutterwave.webhookHash";

/// One rotation's exam: what becomes of the first attempt at each step.
struct Exam {
    act: Box<dyn Fn(&str) -> Act + Send + Sync>,
    undo: Undo,
    bench: Arc<Bench>,
    seen: Mutex<Vec<(String, String)>>,
    looks: Mutex<Vec<String>>,
}

impl std::fmt::Debug for Exam {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Exam")
    }
}

impl Exam {
    fn new(bench: &Arc<Bench>, act: impl Fn(&str) -> Act + Send + Sync + 'static) -> Self {
        Self {
            act: Box::new(act),
            undo: Undo::Works,
            bench: Arc::clone(bench),
            seen: Mutex::default(),
            looks: Mutex::default(),
        }
    }

    /// Turned back at the end, with this fate of the first attempt at each act and undo.
    fn turned_back(bench: &Arc<Bench>, act: Act, undo: Undo) -> Self {
        let act = move |step: &str| if step == LAST { Act::NotDone } else { act };
        Self {
            undo,
            ..Self::new(bench, act)
        }
    }
}

impl Examiner for Exam {
    fn act(&self, step: &StepName, attempt: u32) -> Act {
        match attempt {
            1 => (self.act)(step.as_str()),
            _ => Act::Works,
        }
    }

    fn undo(&self, _: &StepName, attempt: u32) -> Undo {
        match attempt {
            1 => self.undo,
            _ => Undo::Works,
        }
    }

    fn before_look(&self, step: &StepName) {
        let seen = (step.to_string(), world(&self.bench));
        self.seen.lock().unwrap().push(seen);
    }

    fn after_look(&self, step: &StepName) {
        let mut all = self.seen.lock().unwrap();
        let at = all.iter().position(|(name, _)| name == step.as_str());
        let (_, before) = all.swap_remove(at.expect("it looked before"));
        drop(all);
        assert_eq!(
            before,
            world(&self.bench),
            "looking changed something: {step}"
        );
        self.looks.lock().unwrap().push(step.to_string());
    }
}

/// Everything that a look must leave alone, with other eyes than keyroll's: the env file, the role, the admin, the application's
/// sessions, the containers.
fn world(bench: &Bench) -> String {
    let file = bench.stack.env_path();
    let meta = fs::symlink_metadata(&file).unwrap();
    let text = fs::read_to_string(&file).unwrap();
    let rows = r#"SELECT md5(string_agg(r, '|' ORDER BY r)) FROM (
        SELECT 'role ' || coalesce(rolpassword, '') AS r FROM pg_authid
        UNION ALL SELECT 'user ' || u::text FROM "User" u
        UNION ALL SELECT 'setting ' || s::text FROM "Setting" s
        UNION ALL SELECT 'session ' || s."id" || coalesce(s."revokedAt"::text, '') FROM "AuthSession" s) all_rows"#;
    let database = psql(bench, rows);
    let containers = ["api", "worker", "postgres"].map(|service| {
        let name = bench.stack.container_name(service);
        let shown = ["inspect", "--format", "{{.Id}} {{.State.StartedAt}}", &name];
        output(&shown)
    });
    // A digest, since it is printed where it differs.
    let mut digest = DefaultHasher::new();
    text.hash(&mut digest);
    format!(
        "env file {} {} {:o} {:x}, database {database}, containers {containers:?}",
        meta.ino(),
        meta.uid(),
        meta.mode(),
        digest.finish()
    )
}

fn psql(bench: &Bench, sql: &str) -> String {
    let name = bench.stack.container_name("postgres");
    let login = ["-U", bench.stack.role(), "-d", bench.stack.database()];
    let psql = ["exec", &name, "psql", "-At", "-c", sql];
    output(&[&psql[..], &login].concat()).trim().to_owned()
}

/// What docker says; of a container that is just being made anew, that there is none.
fn output(arguments: &[&str]) -> String {
    let done = Command::new("docker").args(arguments).output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}

fn keyroll(bench: &Bench) -> Keyroll {
    let arguments = bench.keyroll.stack_arguments(&bench.stack);
    let layers: Vec<String> = arguments
        .chunks(2)
        .map(|pair| {
            let (option, value) = (pair[0].to_str().unwrap(), pair[1].to_str().unwrap());
            match option {
                "--root" => format!("root={value}"),
                "--base-url" => format!("http.base_url={value}"),
                "--state-dir" => format!("paths.state={value}"),
                "--identity" => format!("paths.identity={value}"),
                "--backup-root" => format!("paths.backups={value}"),
                "--summary-dir" => format!("paths.summaries={value}"),
                "--set" => value.to_owned(),
                other => panic!("{other} is not known here"),
            }
        })
        .collect();
    let operator = Operator {
        login: "root".into(),
        sudo_user: None,
        host: "exam".into(),
        given: None,
    };
    Keyroll::new(Profile::load("proxpanel", &layers).unwrap(), operator)
}

async fn sits(exam: Exam) -> (Outcome, Vec<String>) {
    let keyroll = keyroll(&exam.bench);
    let exam = Arc::new(exam);
    let control = Control {
        examiner: Some(exam.clone()),
        ..Control::default()
    };
    let before = hashes(&exam.bench);
    let hash = Format::default().generate().unwrap();
    let request = Request {
        names: rotated(),
        values: BTreeMap::from([(HASH.to_owned(), hash.clone())]),
        replace_grace: true,
        ..Request::default()
    };
    let outcome = keyroll.rotate(&request, &Quiet, &|_| true, &control).await;
    let looks = exam.looks.lock().unwrap().clone();
    let outcome = outcome.unwrap();
    let (now, was) = (hashes(&exam.bench), &before[0]);
    match outcome.ending {
        Ending::Completed => assert_eq!(now, [hash.expose(), was.as_str()]),
        _ => assert_eq!(now, before),
    }
    (outcome, looks)
}

/// `production` is what others rotate too; the setting is this file's own.
fn rotated() -> Vec<String> {
    let all = SECRETS.iter().chain([&HASH]);
    all.map(|&name| name.to_owned()).collect()
}

/// What the settings of the present and the previous hash hold.
fn hashes(bench: &Bench) -> Vec<String> {
    let both = ["", "_previous"].map(|end| {
        let row = format!(r#"SELECT "value" FROM "Setting" WHERE "key" = '{SETTING}{end}'"#);
        psql(bench, &row)
    });
    both.to_vec()
}

/// A stack whose panel has a hash in its settings, and another one before it.
async fn start() -> Arc<Bench> {
    let bench = Bench::start(StackOptions::new()).await;
    let rows = ["", "_previous"].map(|end| format!("('{SETTING}{end}', 'a-first-hash{end}')"));
    let sql = format!(
        r#"INSERT INTO "Setting" ("key", "value") VALUES {}"#,
        rows.join(", ")
    );
    bench.stack.sql(&sql).await.unwrap();
    Arc::new(bench)
}

/// The steps before the point of no return, and all of them.
fn steps(bench: &Bench) -> (Vec<String>, Vec<String>) {
    let shape = keyroll(bench).profile().plan_shape(&rotated());
    let before = shape.before.iter().map(|s| s.name.to_string()).collect();
    (before, shape.names().map(ToString::to_string).collect())
}

#[tokio::test]
async fn every_act_whose_answer_is_lost_or_that_is_repeated_ends_on_the_new_set_and_no_look_changes_anything()
 {
    if !containers_wanted() {
        return;
    }
    let bench = start().await;
    let (_, all) = steps(&bench);
    for act in [Act::Unheard, Act::Unanswered, Act::Repeated] {
        let before = bench.before().await;
        let (outcome, looks) = sits(Exam::new(&bench, move |_| act)).await;
        assert_eq!(outcome.ending, Ending::Completed, "{act:?}: {outcome:?}");
        bench.runs_new_values(&before).await;
        let trail = keyroll(&bench).trail().unwrap();
        let told = trail
            .iter()
            .filter(|line| line.contains(outcome.rotation.as_str()));
        assert_eq!(told.count(), 1, "{act:?}: told twice");
        for step in &all {
            assert!(
                looks.contains(step),
                "{act:?}: {step} did not look: {looks:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_undo_that_fails_at_first_or_is_repeated_or_whose_act_was_ends_on_the_old_set() {
    if !containers_wanted() {
        return;
    }
    let bench = start().await;
    for (act, undo) in [
        (Act::Works, Undo::NotDone),
        (Act::Works, Undo::Repeated),
        (Act::Repeated, Undo::Works),
    ] {
        let before = bench.before().await;
        let (outcome, _) = sits(Exam::turned_back(&bench, act, undo)).await;
        assert_eq!(
            outcome.ending,
            Ending::Compensated,
            "{act:?} {undo:?}: {outcome:?}"
        );
        bench.old_set_is_back(&before).await;
    }
}

#[tokio::test]
async fn an_act_that_is_not_done_or_said_not_to_be_ends_on_the_old_set_before_and_on_the_new_one_after_the_point_of_no_return()
 {
    if !containers_wanted() {
        return;
    }
    let bench = start().await;
    let (mut back, all) = steps(&bench);
    let pivot = all[back.len()].clone();
    for act in [Act::Denied, Act::NotDone] {
        if act == Act::NotDone {
            // The point of no return is a commit of keyroll's own journal: that says what it has done, and never denies it.
            back.push(pivot.clone());
        }
        for step in &back {
            let before = bench.before().await;
            let failing = step.clone();
            let exam = Exam::new(
                &bench,
                move |name| if name == failing { act } else { Act::Works },
            );
            let (outcome, _) = sits(exam).await;
            assert_eq!(
                outcome.ending,
                Ending::Compensated,
                "{act:?} {step}: {outcome:?}"
            );
            let reason = outcome.reason.unwrap_or_default();
            assert!(reason.contains(step.as_str()), "{act:?} {step}: {reason}");
            bench.old_set_is_back(&before).await;
        }
        let before = bench.before().await;
        let (reversible, pivot) = (back.clone(), pivot.clone());
        let forward = move |name: &str| {
            if reversible.iter().any(|step| step == name) || name == pivot {
                Act::Works
            } else {
                act
            }
        };
        let (outcome, _) = sits(Exam::new(&bench, forward)).await;
        assert_eq!(outcome.ending, Ending::Completed, "{act:?}: {outcome:?}");
        bench.runs_new_values(&before).await;
    }
}

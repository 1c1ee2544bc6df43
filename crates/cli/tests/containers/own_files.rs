//! What keyroll itself needs, gone when it is needed: its identity, and the backup.

use std::fs;
use std::path::PathBuf;

use crate::common::{Bench, DONE, REFUSED, ROLLED_BACK, ROTATE, UNFINISHED, at, restore};
use keyroll_testkit::{StackOptions, containers_wanted};

impl Bench {
    /// The one backup directory.
    fn backup(&self) -> PathBuf {
        let mut all = fs::read_dir(self.home("backups")).unwrap();
        all.next().expect("a backup").unwrap().path()
    }
}

#[tokio::test]
async fn an_identity_that_is_gone_is_not_made_anew_and_a_rotation_goes_on_when_it_is_back() {
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    bench.rotate().await;
    let (identity, away) = (bench.home("identity"), bench.home("away"));
    let named = identity.to_str().unwrap();
    fs::rename(&identity, &away).unwrap();
    let refused = bench.run(&ROTATE).await;
    assert_eq!(refused.code, REFUSED, "{refused:?}");
    assert!(
        refused.stderr.contains("  state: ") && refused.stderr.contains(named),
        "{refused:?}"
    );
    assert!(!identity.exists(), "another one was made");
    fs::rename(&away, &identity).unwrap();

    let before = bench.before().await;
    bench.killed_when(&ROTATE, "recreate: started").await;
    fs::rename(&identity, &away).unwrap();
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, UNFINISHED, "{resumed:?}");
    assert!(resumed.stderr.contains(named), "{resumed:?}");
    assert!(!identity.exists(), "another one was made");
    // Somebody else's does not open what is sealed.
    let other = bench.home("other-identity");
    let elsewhere = ["plan", "production", "--identity", other.to_str().unwrap()];
    let state = bench.home("other-state");
    let made = [&elsewhere[..], &["--state-dir", state.to_str().unwrap()]].concat();
    bench.run(&made).await;
    fs::copy(&other, &identity).unwrap();
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, UNFINISHED, "{resumed:?}");
    fs::rename(&away, &identity).unwrap();
    let resumed = bench.run(&["resume"]).await;
    assert_eq!(resumed.code, DONE, "{resumed:?}");
    bench.runs_new_values(&before).await;
}

#[tokio::test]
async fn a_backup_that_is_gone_keeps_no_rotation_from_going_back_and_no_restore_from_being_refused()
{
    if !containers_wanted() {
        return;
    }
    let bench = Bench::start(StackOptions::new()).await;
    let before = bench.before().await;
    let seed = bench.stack.fault("seed-exit1");
    seed.set();
    let gone = || fs::remove_dir_all(bench.backup()).unwrap();
    let ended = bench
        .interfere(&ROTATE, vec![at("recreate: started", gone)])
        .await;
    assert_eq!(ended.code, ROLLED_BACK, "{ended:?}");
    bench.old_set_is_back(&before).await;
    seed.clear();

    let done = bench.rotate().await;
    let rotation = done["rotation"].as_str().unwrap();
    fs::remove_dir_all(bench.backup()).unwrap();
    let now = bench.before().await;
    for what in ["--restore-files", "--restore-database"] {
        let refused = bench.run(&restore(rotation, what)).await;
        assert_eq!(refused.code, REFUSED, "{refused:?}");
        assert!(refused.stderr.contains("  backup: "), "{refused:?}");
    }
    bench.runs(&now.values).await;
    // Taking the rotation back needs no backup: the old values are sealed in the state database.
    let back = bench.run(&["rollback", rotation, "--yes"]).await;
    assert_eq!(back.code, DONE, "{back:?}");
    bench.runs(&before.values).await;
}

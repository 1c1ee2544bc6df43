//! The database, from the dump, beside the present one and then in its place.
//!
//! Until the two change places nothing that runs has noticed anything: the dump goes into a database of another name, is compared with
//! its own table of contents, and is fitted there to what is in force. Only then the consumers are stopped, both databases are
//! renamed in one transaction, and the consumers are started again. So a restore that fails, or is killed, leaves the present
//! database in its place; and the consumers stand still for a second, not for the time that a dump takes.
//!
//! A second run finds what a killed one left by name: its processes, its sessions, and the database beside, which is dropped if
//! nobody uses it. Which containers must run again, and under which names the two databases would be found, it reads in the intent;
//! whether they have changed places it asks the server.

use std::time::{Duration, Instant};

use keyroll_secret::Identity;

use super::intent::{Consumer, DATABASE, Part, Swap, command};
use super::server::{Server, maintenance};
use super::statements::{CLEAR, END_OWN, SWAP};
use super::{Bench, DatabasePlan, DatabaseRestored, Origin};
use crate::error::RotateError;
use crate::panel::Finding;
use crate::profile::SecretKind;
use crate::world::{Set, World};

/// Time for a container to stop by itself or be killed.
const STOP: Duration = Duration::from_secs(60);
/// Time to get every other session off the two databases.
pub(super) const QUIET: Duration = Duration::from_secs(30);

/// What was looked at before anything was done.
#[derive(Debug)]
pub(super) struct Database {
    pub(super) world: World,
    pub(super) server: Server,
    pub(super) identity: Identity,
    pub(super) live: String,
    pub(super) side: String,
    pub(super) kept: String,
    /// Containers of the services that use the database.
    pub(super) consumers: Vec<Consumer>,
    pub(super) needed: u64,
    pub(super) free: u64,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) restored: DatabaseRestored,
    pub(super) seen: Vec<String>,
    pub(super) found: Vec<String>,
}

impl Database {
    pub(super) fn plan(&self, changed_places: bool) -> DatabasePlan {
        DatabasePlan {
            name: self.live.clone(),
            kept_as: self.kept.clone(),
            changed_places,
            stopped: self.services(),
            needed_bytes: self.needed,
            free_bytes: self.free,
        }
    }

    /// What the intent says of it.
    pub(super) fn swap(&self) -> Swap {
        Swap {
            live: self.live.clone(),
            side: self.side.clone(),
            kept: self.kept.clone(),
            consumers: self.consumers.clone(),
            restored: None,
        }
    }

    fn services(&self) -> Vec<String> {
        self.consumers.iter().map(|c| c.service.clone()).collect()
    }

    pub(super) fn base(&self) -> &'static str {
        maintenance(&self.live)
    }

    pub(super) async fn sql(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
        let names = [
            ("live", self.live.as_str()),
            ("side", self.side.as_str()),
            ("kept", self.kept.as_str()),
        ];
        self.server.sql(&self.world, database, &names, sql).await
    }

    /// All of it.
    pub(super) async fn restore(
        &self,
        bench: &Bench<'_>,
        part: &Part,
    ) -> Result<Done, RotateError> {
        let (from, progress) = (bench.from, bench.progress);
        let again = command(&[part.open()]);
        progress.doing(&format!(
            "restoring the dump into {} beside {}",
            self.side, self.live
        ));
        let ready = match self.beside(from).await {
            Ok(_) if bench.control.stop.requested() => Err("it was asked to stop".to_owned()),
            Ok(done) => {
                // Known to whoever finishes it: the trail's record must say what was put in force.
                let mut known = part.intent.clone();
                let swap = known.swap.as_mut().expect("the part of a database has one");
                swap.restored = Some(done.0.clone());
                let written = bench.writer.begin_restore(&[part.open_with(&known)]);
                written.map(|()| done).map_err(|e| e.to_string())
            }
            Err(why) => Err(why),
        };
        let (restored, mut seen) = match ready {
            Ok(done) => done,
            Err(why) => return Err(self.untouched(bench, &why, &again).await),
        };
        progress.doing(&format!(
            "stopping {}, then giving {} its place",
            self.services().join(", "),
            self.live
        ));
        bench.fence()?;
        let swapped = match self.stop().await {
            Ok(()) => {
                bench.fence()?;
                self.change_places().await
            }
            Err(why) => Swapped::Not(why),
        };
        bench.fence()?;
        let started = self.start().await;
        match (swapped, &started) {
            (Swapped::Done, _) => {}
            (Swapped::Not(why), Ok(())) => return Err(self.untouched(bench, &why, &again).await),
            (Swapped::Not(why), Err(not_started)) => {
                return Err(RotateError::Failed(format!(
                    "the database was not restored: {}; {} is in its place as it was, but {not_started}; or mend that and run `{again}` again",
                    self.world.clean(&why),
                    self.live
                )));
            }
            (Swapped::Unknown(why), _) => {
                return Err(RotateError::Failed(format!(
                    "the two databases may have changed places: {}; when the server answers, run `{again}` again: if {} is there, the restored one is in force and it is finished, if not, {} is as it was and it begins anew",
                    self.world.clean(&why),
                    self.kept,
                    self.live
                )));
            }
        }
        seen.push(format!(
            "{} is the restored database; the replaced one is kept as {}",
            self.live, self.kept
        ));
        Ok(self.afterwards(bench, restored, seen, started).await)
    }

    /// What is left to do where the two have changed places already.
    pub(super) async fn finish(&self, bench: &Bench<'_>, part: &Part) -> Result<Done, RotateError> {
        let swap = part.intent.swap.as_ref();
        let restored = swap.and_then(|s| s.restored.clone()).ok_or_else(|| {
            RotateError::Failed(format!(
                "{} is there, and the journal does not know the database that took its place; see docs/guides/restore.md",
                self.kept
            ))
        })?;
        bench.progress.doing(&format!(
            "{} was given its place before: starting {}",
            self.live,
            self.services().join(", ")
        ));
        bench.fence()?;
        let started = self.start().await;
        let seen = vec![format!(
            "{} is the restored database since the run that was interrupted; the replaced one is kept as {}",
            self.live, self.kept
        )];
        Ok(self.afterwards(bench, restored, seen, started).await)
    }

    /// Looks as a consumer would, and sees to the admin's password.
    async fn afterwards(
        &self,
        bench: &Bench<'_>,
        mut restored: DatabaseRestored,
        mut seen: Vec<String>,
        started: Result<(), String>,
    ) -> Done {
        let mut found: Vec<String> = started.err().into_iter().collect();
        let doing = "waiting until the consumers are well, then checking as they would";
        bench.progress.doing(doing);
        let limit = Duration::from_secs(self.world.about.profile.limits.healthy_seconds);
        match self.world.wait_healthy(&self.services(), limit).await {
            Ok(()) => seen.push(format!("{} are well", self.services().join(", "))),
            Err(why) => found.push(why.to_string()),
        }
        match self.admin(bench.from).await {
            Ok(Some(says)) => restored.admin = says,
            Ok(None) => {}
            Err(why) => {
                "not shown".clone_into(&mut restored.admin);
                found.push(self.world.clean(&why));
            }
        }
        match self.world.prove(Set::Old, None).await {
            Ok(lines) => seen.extend(lines),
            Err(why) => found.push(self.world.clean(&why.to_string())),
        }
        if !found.is_empty() {
            found.push(self.way_back());
        }
        Done {
            restored,
            seen,
            found,
        }
    }

    /// Nothing has changed, or is as it was again: the part is closed, and the error says so.
    async fn untouched(&self, bench: &Bench<'_>, why: &str, again: &str) -> RotateError {
        // A later run drops it, too; the database may be what does not answer.
        let _ = self.drop_side().await;
        let open = match bench.writer.drop_restore(DATABASE) {
            Ok(()) => String::new(),
            Err(e) => format!(" (the journal still has it as unfinished: {e})"),
        };
        RotateError::Failed(format!(
            "the database was not restored: {}; {} is in its place as it was, and its consumers run{open}; mend that, then run `{again}` again",
            self.world.clean(why),
            self.live
        ))
    }

    /// Whether the two have changed places, as the server says. Nothing of the killed run is at work on it any more.
    pub(super) async fn changed_places(&self) -> Result<bool, String> {
        self.end_own().await?;
        let there = "SELECT count(*) FILTER (WHERE datname = :'live'), count(*) FILTER (WHERE datname = :'kept') FROM pg_database;";
        let rows = self.sql(self.base(), there).await?;
        let row: Vec<&str> = rows.iter().flatten().map(String::as_str).collect();
        match row[..] {
            ["1", "1"] => Ok(true),
            ["1", "0"] => Ok(false),
            _ => Err(format!(
                "the server has no database {}, which neither a finished nor an interrupted restore leaves so; rename the one that is to be in force (`docker exec {} psql -U {} -d {} -l` lists them)",
                self.live,
                self.container(),
                self.server.endpoint.role,
                self.base()
            )),
        }
    }

    /// Ends the sessions of a killed run, whatever they do. A statement that was sent goes on although its client is gone.
    async fn end_own(&self) -> Result<(), String> {
        let own = self.server.application()?;
        let names = [("own", own.as_str())];
        let begun = Instant::now();
        loop {
            let (world, base) = (&self.world, self.base());
            let left = self.server.value(world, base, &names, END_OWN).await?;
            match left.as_deref() {
                Some("0") => return Ok(()),
                _ if begun.elapsed() > QUIET => {
                    return Err("a database session of the killed run does not end".into());
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The killed run changed nothing that is not as it was once its services run again.
    pub(super) async fn as_before(&self, may_be_stopped: bool) -> Result<(), String> {
        if may_be_stopped {
            // The engine may still be about to stop one that runs: only after another stop it is certain that a start counts.
            self.stop().await?;
            self.start().await?;
        }
        // In use by somebody else, it is told when it is needed.
        let _ = self.drop_side().await;
        Ok(())
    }

    /// The server's container, as people name it.
    fn container(&self) -> &str {
        let id = &self.server.container;
        id.get(..12).unwrap_or(id)
    }

    /// The consumers' containers, for a command line.
    fn names(&self) -> String {
        let names: Vec<&str> = self.consumers.iter().map(|c| c.name.as_str()).collect();
        names.join(" ")
    }

    /// How to undo the swap by hand.
    fn way_back(&self) -> String {
        let names = self.names();
        format!(
            "to go back to the replaced database: docker stop {names}; docker exec -i {} psql -U {} -d {} \
             <<< 'BEGIN; ALTER DATABASE \"{live}\" RENAME TO \"{}\"; ALTER DATABASE \"{}\" RENAME TO \"{live}\"; COMMIT;'; docker start {names}",
            self.container(),
            self.server.endpoint.role,
            self.base(),
            self.side,
            self.kept,
            live = self.live,
        )
    }

    /// The password in the env file logs the admin in; if not, the seed command is run. Says how it came to be.
    async fn admin(&self, from: &Origin) -> Result<Option<String>, String> {
        let world = &self.world;
        let Some(spec) = &world.about.profile.admin else {
            return Ok(None);
        };
        let (Ok(panel), Some(email)) = (world.panel(), world.about.admin_email.as_deref()) else {
            return Ok(None);
        };
        let password = world
            .value_of(SecretKind::AdminPassword, Set::Old)
            .map_err(|e| e.to_string())?;
        if !panel.has_login() {
            return Ok(None);
        }
        match panel.log_in(email, password).await {
            Ok(_) => return Ok(None),
            Err(Finding::Unknown(why)) => return Err(why),
            Err(Finding::Wrong(_) | Finding::Alive(_)) => {}
        }
        let limit = Duration::from_secs(world.about.profile.limits.seed_seconds);
        let command = spec.seed.command.join(" ");
        world
            .exec(
                &from.rotation,
                &spec.seed.service,
                &spec.seed.command,
                limit,
            )
            .await
            .map_err(|e| e.to_string())?;
        match panel.log_in(email, password).await {
            Ok(_) => Ok(Some(format!("set by `{command}`"))),
            Err(why) => Err(format!(
                "`{command}` ran, and the password in the env file still does not log {email} in: {why}; what is stored is the hash from before the restore, or the dump's where there was none: set the password in the application, or make the seed write it"
            )),
        }
    }

    async fn stop(&self) -> Result<(), String> {
        let all = self
            .consumers
            .iter()
            .map(|c| self.world.engine.stop(&c.id, STOP));
        let results = futures_util::future::join_all(all).await;
        let failed = results.into_iter().find_map(Result::err);
        failed.map_or(Ok(()), |e| {
            Err(format!("a consumer could not be stopped: {e}"))
        })
    }

    /// Starts every consumer. One that runs is left as it is.
    async fn start(&self) -> Result<(), String> {
        let mut failed = vec![];
        for container in &self.consumers {
            if let Err(e) = self.world.engine.start(&container.id).await {
                failed.push(format!(
                    "{} could not be started: {e}; run `docker start {}`",
                    container.service, container.name
                ));
            }
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(failed.join("; "))
        }
    }

    /// Gives the two their names, in one transaction.
    async fn change_places(&self) -> Swapped {
        let begun = Instant::now();
        loop {
            let cleared = self.sql(self.base(), CLEAR).await;
            let Err(why) = (match cleared {
                Ok(_) => self.sql(self.base(), SWAP).await,
                failed => failed,
            }) else {
                return Swapped::Done;
            };
            // The answer may have been lost after the commit: the server is asked what is there.
            let there = "SELECT count(*) FROM pg_database WHERE datname = :'kept';";
            match self.sql(self.base(), there).await {
                Ok(rows) if rows.iter().flatten().any(|n| n == "1") => return Swapped::Done,
                // Somebody who is no consumer of the stack's connected in between.
                Ok(_)
                    if why.contains("being accessed by other users") && begun.elapsed() < QUIET => {
                }
                Ok(_) => return Swapped::Not(why),
                Err(_) if begun.elapsed() < QUIET => {}
                Err(blind) => return Swapped::Unknown(format!("{why}; {blind}")),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What came of the renaming.
enum Swapped {
    Done,
    /// Neither was renamed.
    Not(String),
    Unknown(String),
}

impl Done {
    pub(super) fn says(&self) -> String {
        let DatabaseRestored {
            name,
            kept_as,
            tables,
            rows,
            sessions_revoked,
            admin,
        } = &self.restored;
        let verdict = if self.found.is_empty() {
            "verified".to_owned()
        } else {
            format!("not well afterwards: {}", self.found[0])
        };
        format!(
            "database {name} restored with {tables} tables and {rows} rows, the replaced one kept as {kept_as}; {sessions_revoked} sessions revoked; admin: {admin}; {verdict}"
        )
    }
}

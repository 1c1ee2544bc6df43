//! The database, from the dump, beside the present one and then in its place.
//!
//! Until the two change places nothing that runs has noticed anything: the dump goes into a database of another name, is compared with
//! its own table of contents, and is fitted there to what is in force. Only then the consumers are stopped, both databases are
//! renamed in one transaction, and the consumers are started again. So a restore that fails, or is killed, leaves the present
//! database in its place; and the consumers stand still for a second, not for the time that a dump takes.
//!
//! A second run finds what a killed one left by name: its processes, its sessions, and the database beside, which is dropped if
//! nobody uses it.

use std::time::{Duration, Instant};

use keyroll_providers::postgres::{Cas, Cell};
use keyroll_runtimes::compose::Container;
use keyroll_secret::Identity;

use super::server::{Server, maintenance};
use super::statements::{CLEAR, COUNT, CREATE, SWAP, TAKE_OVER};
use super::{DatabasePlan, DatabaseRestored, Origin};
use crate::database;
use crate::error::RotateError;
use crate::operations::Control;
use crate::panel::Finding;
use crate::profile::SecretKind;
use crate::report::Progress;
use crate::world::{Set, World};

const DUMP: &str = "database.dump";
/// Time for a container to stop by itself or be killed.
const STOP: Duration = Duration::from_secs(60);
/// Time to get every other session off the two databases.
const QUIET: Duration = Duration::from_secs(30);

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
    pub(super) consumers: Vec<Container>,
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
    pub(super) fn plan(&self) -> DatabasePlan {
        DatabasePlan {
            name: self.live.clone(),
            kept_as: self.kept.clone(),
            stopped: self.services(),
            needed_bytes: self.needed,
            free_bytes: self.free,
        }
    }

    fn services(&self) -> Vec<String> {
        self.consumers.iter().map(|c| c.service.clone()).collect()
    }

    fn base(&self) -> &'static str {
        maintenance(&self.live)
    }

    async fn sql(&self, database: &str, sql: &str) -> Result<Vec<Vec<String>>, String> {
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
        from: &Origin,
        progress: &dyn Progress,
        control: &Control,
    ) -> Result<Done, RotateError> {
        let again = format!("keyroll rollback {} --restore-database", from.rotation);
        let untouched = |why: String| {
            RotateError::Failed(format!(
                "the database was not restored: {}; {} is in its place as it was, and its consumers run; mend that, then run `{again}` again",
                self.world.clean(&why),
                self.live
            ))
        };
        progress.doing(&format!(
            "restoring the dump into {} beside {}",
            self.side, self.live
        ));
        let beside = self.beside(from).await;
        let (mut restored, mut seen) = match beside {
            Ok(done) => done,
            Err(why) => {
                let _ = self.drop_side().await;
                return Err(untouched(why));
            }
        };
        if control.stop.requested() {
            let _ = self.drop_side().await;
            return Err(untouched("it was asked to stop".into()));
        }
        progress.doing(&format!(
            "stopping {}, then giving {} its place",
            self.services().join(", "),
            self.live
        ));
        let swapped = match self.stop().await {
            Ok(()) => self.swap().await,
            Err(why) => Swapped::Not(why),
        };
        let started = self.start().await;
        match (swapped, &started) {
            (Swapped::Done, _) => {}
            (Swapped::Not(why), Ok(())) => {
                let _ = self.drop_side().await;
                return Err(untouched(why));
            }
            (Swapped::Not(why), Err(not_started)) => {
                let _ = self.drop_side().await;
                return Err(RotateError::Failed(format!(
                    "the database was not restored: {why}; {} is in its place as it was, but {not_started}",
                    self.live
                )));
            }
            (Swapped::Unknown(why), _) => {
                return Err(RotateError::Failed(format!(
                    "the two databases may have changed places: {why}; look with `docker exec {} psql -U {} -d {} -l`: if {} is there, the restored one is in force, if {} is there, it is not; then run `docker start {}`, and `keyroll verify`",
                    self.container(),
                    self.server.endpoint.role,
                    self.base(),
                    self.kept,
                    self.side,
                    self.names()
                )));
            }
        }
        seen.push(format!(
            "{} is the restored database; the replaced one is kept as {}",
            self.live, self.kept
        ));
        let mut found: Vec<String> = started.err().into_iter().collect();
        progress.doing("waiting until the consumers are well, then checking as they would");
        let limit = Duration::from_secs(self.world.about.profile.limits.healthy_seconds);
        match self.world.wait_healthy(&self.services(), limit).await {
            Ok(()) => seen.push(format!("{} are well", self.services().join(", "))),
            Err(why) => found.push(why.to_string()),
        }
        match self.admin(from).await {
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
        Ok(Done {
            restored,
            seen,
            found,
        })
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

    /// A whole, compared and fitted database under the other name.
    async fn beside(&self, from: &Origin) -> Result<(DatabaseRestored, Vec<String>), String> {
        self.drop_side().await?;
        self.sql(self.base(), CREATE).await?;
        let options = [
            "-U",
            &self.server.endpoint.role,
            "-d",
            &self.side,
            "--exit-on-error",
            "--no-password",
        ];
        self.server
            .pg_restore(&self.world, &options, self.dump(from)?)
            .await?;
        self.sql(self.base(), TAKE_OVER).await?;
        let (tables, rows) = self.compare(from).await?;
        let (sessions_revoked, admin) = self.fit().await?;
        let restored = DatabaseRestored {
            name: self.live.clone(),
            kept_as: self.kept.clone(),
            tables,
            rows,
            sessions_revoked,
            admin,
        };
        let seen = vec![
            format!(
                "pg_restore brought back {tables} tables with {rows} rows: as many tables as the dump lists"
            ),
            format!("{sessions_revoked} application sessions in the dump were revoked"),
        ];
        Ok((restored, seen))
    }

    fn dump(&self, from: &Origin) -> Result<keyroll_backup::PlainReader, String> {
        keyroll_backup::open(from.directory(), DUMP, &self.identity).map_err(|e| e.to_string())
    }

    /// Drops what a former run left under the name beside, if nobody else uses it.
    async fn drop_side(&self) -> Result<(), String> {
        let there = "SELECT count(*) FROM pg_database WHERE datname = :'side';";
        let count = self.sql(self.base(), there).await?;
        if count
            .first()
            .and_then(|row| row.first())
            .is_none_or(|n| n == "0")
        {
            return Ok(());
        }
        // A server process goes on for a moment after its client is gone.
        let own = self.server.application()?;
        let end = "SELECT count(*), count(*) FILTER (WHERE application_name <> :'own'), \
                   count(CASE WHEN application_name = :'own' THEN pg_terminate_backend(pid) END) \
                   FROM pg_stat_activity WHERE datname = :'side' AND backend_type = 'client backend';";
        let names = [("side", self.side.as_str()), ("own", own.as_str())];
        let begun = Instant::now();
        loop {
            let rows = self
                .server
                .sql(&self.world, self.base(), &names, end)
                .await?;
            match rows.first().map(Vec::as_slice) {
                Some([all, _, _]) if all == "0" => break,
                Some([_, others, _]) if others != "0" => {
                    return Err(format!(
                        "database {} is there and {others} sessions that are not keyroll's use it; end them, or drop it yourself",
                        self.side
                    ));
                }
                _ if begun.elapsed() > QUIET => {
                    return Err(format!("sessions on database {} do not end", self.side));
                }
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        self.sql(self.base(), r#"DROP DATABASE :"side";"#)
            .await
            .map(drop)
    }

    /// As many tables as the dump lists; statistics are made, since a fresh database has none.
    async fn compare(&self, from: &Origin) -> Result<(u64, u64), String> {
        let toc = self
            .server
            .pg_restore(&self.world, &["--list"], self.dump(from)?)
            .await?;
        let listed = tables_in(&String::from_utf8_lossy(&toc));
        self.sql(&self.side, "ANALYZE;").await?;
        let counted = self.sql(&self.side, COUNT).await?;
        let numbers: Vec<u64> = counted
            .first()
            .into_iter()
            .flatten()
            .filter_map(|n| n.parse().ok())
            .collect();
        match numbers[..] {
            [tables, rows] if tables >= listed => Ok((tables, rows)),
            [tables, _] => Err(format!(
                "the dump lists {listed} tables with data, {tables} are there"
            )),
            _ => Err("the restored tables could not be counted".into()),
        }
    }

    /// In the database beside: sessions revoked, and the admin's hash that is in force now carried over.
    async fn fit(&self) -> Result<(usize, String), String> {
        let world = &self.world;
        let profile = &world.about.profile;
        let candidates = [&self.server.password];
        let rotation = &self.server.rotation;
        let open = async |name: &str| {
            let endpoint = self.server.database(name);
            database::session(&endpoint, rotation, &candidates)
                .await
                .map_err(|e| e.to_string())
        };
        let mut side = open(&self.side).await?;
        let mut revoked = 0;
        if let Some(spec) = &profile.sessions {
            let at = side.server_time().await.map_err(|e| e.to_string())?;
            let table = database::session_table(spec);
            let ids = side.revoke_sessions(&table, at).await;
            revoked = ids.map_err(|e| e.to_string())?.ids.len();
        }
        let mut says = "the restored hash, not touched".to_owned();
        if let (Some(spec), Some(email)) = (&profile.admin, &world.about.admin_email) {
            let place = database::admin_hash(spec, email);
            let live = match open(&self.live).await {
                Ok(session) => session.read_cell(&place).await.ok(),
                Err(_) => None,
            };
            let there = side.read_cell(&place).await.map_err(|e| e.to_string())?;
            if let (Some(Cell::Value(live)), Cell::Value(there)) = (live, there) {
                let set = side.compare_and_set_cell(&place, &there, &live).await;
                if set.map_err(|e| e.to_string())? == Cas::Done {
                    "the hash that was in force, taken over".clone_into(&mut says);
                }
            }
        }
        side.close().await;
        Ok((revoked, says))
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
            Err(Finding::Wrong(_)) => {}
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
            .await?;
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

    /// Starts every consumer, also one that a killed run had stopped.
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
    async fn swap(&self) -> Swapped {
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

/// How many tables a dump's table of contents lists with data.
fn tables_in(toc: &str) -> u64 {
    let lines = toc.lines().filter(|line| !line.starts_with(';'));
    let data = lines.filter(|line| {
        let mut words = line.split_whitespace().skip(3);
        words.next() == Some("TABLE") && words.next() == Some("DATA")
    });
    data.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_counted_by_their_data() {
        let toc = "; Archive created at 2026\n;\n\
                   215; 1259 16390 TABLE public User panel\n\
                   3342; 0 16390 TABLE DATA public User panel\n\
                   3343; 0 16400 TABLE DATA public AuthSession panel\n\
                   3200; 2606 16399 CONSTRAINT public User User_pkey panel\n";
        assert_eq!(tables_in(toc), 2);
    }
}

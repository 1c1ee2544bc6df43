//! The database beside the present one: made from the dump, compared with it, and fitted to what is in force.

use std::time::{Duration, Instant};

use keyroll_providers::postgres::{Cas, Cell};

use super::database::{Database, QUIET};
use super::statements::{COUNT, CREATE, TAKE_OVER};
use super::{DatabaseRestored, Origin};
use crate::database;

const DUMP: &str = "database.dump";

impl Database {
    /// A whole, compared and fitted database under the other name.
    pub(super) async fn beside(
        &self,
        from: &Origin,
    ) -> Result<(DatabaseRestored, Vec<String>), String> {
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
    pub(super) async fn drop_side(&self) -> Result<(), String> {
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
            // Anew: a dump takes its time, and containers come and go.
            let mut endpoint = world.endpoint().await.map_err(|e| e.to_string())?;
            name.clone_into(&mut endpoint.database);
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

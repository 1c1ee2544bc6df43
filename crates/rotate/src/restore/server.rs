//! The database server, by its own programs inside its container: `psql` for what is done to whole databases, `pg_restore` for
//! the dump. The password goes by standard input; no SQL here holds a value.

use std::io::Read;
use std::time::Duration;

use keyroll_journal::RotationId;
use keyroll_providers::postgres::{ApplicationName, Endpoint};
use keyroll_runtimes::compose::Exec;
use keyroll_secret::Secret;
use tokio::io::AsyncReadExt;

use crate::blocking::Blocking;
use crate::world::World;

/// Takes the password from the first line of standard input, so that it is in no argument and in no other environment.
const WITH_PASSWORD: &str = "IFS= read -r PGPASSWORD && export PGPASSWORD && exec \"$0\" \"$@\"";
/// What an identifier of `PostgreSQL` may be long, in bytes.
const NAME: usize = 63;
/// Time for a statement about whole databases.
const LIMIT: Duration = Duration::from_secs(120);

/// A server to work on, as a role that logs in.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) container: String,
    pub(super) endpoint: Endpoint,
    pub(super) password: Secret,
    pub(super) rotation: RotationId,
    /// Time for the dump.
    pub(super) patience: Duration,
}

/// The database that is always there, to work from while another is renamed.
pub(super) fn maintenance(live: &str) -> &'static str {
    if live == "postgres" {
        "template1"
    } else {
        "postgres"
    }
}

/// `<name>_keyroll_<end of the rotation's id>`: recognisably keyroll's own, and the same on every attempt.
pub(super) fn side_name(live: &str, rotation: &RotationId) -> String {
    let id = rotation.as_str();
    let end = id.rsplit('-').next().unwrap_or(id);
    with_suffix(live, &format!("_keyroll_{end}"))
}

/// `<name>_replaced_<UTC time>`.
pub(super) fn kept_name(live: &str, at: jiff::Timestamp) -> String {
    let at = at.strftime("%Y%m%dt%H%M%Sz");
    with_suffix(live, &format!("_replaced_{at}"))
}

/// The server would cut a long name off without a word, and two could become one.
fn with_suffix(name: &str, suffix: &str) -> String {
    let mut end = name.len().min(NAME.saturating_sub(suffix.len()));
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{suffix}", &name[..end])
}

impl Server {
    /// The name of keyroll's own sessions, by which a later run finds them.
    pub(super) fn application(&self) -> Result<ApplicationName, String> {
        ApplicationName::of_rotation(self.rotation.as_str()).map_err(|e| e.to_string())
    }

    fn exec(&self, program: &[&str], limit: Duration) -> Result<Exec, String> {
        let command = ["sh", "-c", WITH_PASSWORD].iter().chain(program).copied();
        Ok(Exec::new(&self.container, command)
            .limit(limit)
            .rotation(self.rotation.as_str())
            .env("PGAPPNAME", self.application()?.as_str()))
    }

    /// Runs SQL in a database; variables are quoted by `:'name'` and `:"name"`. Rows of the queries, as text.
    pub(super) async fn sql(
        &self,
        world: &World,
        database: &str,
        variables: &[(&str, &str)],
        sql: &str,
    ) -> Result<Vec<Vec<String>>, String> {
        let variables: Vec<String> = variables.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let mut program = vec![
            "psql",
            "-X",
            "-q",
            "-A",
            "-t",
            "-w",
            "-F",
            "\u{1f}",
            "-v",
            "ON_ERROR_STOP=1",
        ];
        program.extend(["-U", &self.endpoint.role, "-d", database]);
        for variable in &variables {
            program.extend(["-v", variable]);
        }
        program.extend(["-f", "-"]);
        let input = Secret::new(format!("{}\n{sql}\n", self.password.expose()));
        let mut out = Vec::new();
        let done = world
            .engine
            .exec_streamed(
                &self.exec(&program, LIMIT)?,
                Some(input.expose().as_bytes()),
                &mut out,
            )
            .await
            .map_err(|e| world.clean(&e.to_string()))?;
        if done.exit_code != 0 {
            return Err(world.clean(&format!(
                "psql exited with {}: {}",
                done.exit_code,
                done.stderr.trim()
            )));
        }
        let text = String::from_utf8_lossy(&out);
        Ok(text
            .lines()
            .map(|line| line.split('\u{1f}').map(str::to_owned).collect())
            .collect())
    }

    /// The first value of [`Self::sql`], if there is a row.
    pub(super) async fn value(
        &self,
        world: &World,
        database: &str,
        variables: &[(&str, &str)],
        sql: &str,
    ) -> Result<Option<String>, String> {
        let rows = self.sql(world, database, variables, sql).await?;
        Ok(rows.into_iter().flatten().next())
    }

    /// Feeds a dump to `pg_restore` with these options, and gives what it printed.
    pub(super) async fn pg_restore(
        &self,
        world: &World,
        options: &[&str],
        dump: impl Read + Send + Unpin,
    ) -> Result<Vec<u8>, String> {
        let mut program = vec!["pg_restore"];
        program.extend(options);
        let line = Secret::new(format!("{}\n", self.password.expose()));
        let mut out = Vec::new();
        let done = world
            .engine
            .exec_streamed(
                &self.exec(&program, self.patience)?,
                Some(AsyncReadExt::chain(
                    line.expose().as_bytes(),
                    Blocking(dump),
                )),
                &mut out,
            )
            .await
            .map_err(|e| world.clean(&e.to_string()))?;
        if done.exit_code == 0 {
            Ok(out)
        } else {
            Err(world.clean(&format!(
                "pg_restore exited with {}: {}",
                done.exit_code,
                done.stderr.trim()
            )))
        }
    }

    /// Free bytes where the server keeps its data, for whom it runs as.
    pub(super) async fn free_bytes(&self, world: &World, database: &str) -> Result<u64, String> {
        let directory = self
            .value(world, database, &[], "SHOW data_directory;")
            .await?
            .ok_or("the server does not say where its data is")?;
        let exec =
            Exec::new(&self.container, ["df", "-Pk", &directory]).rotation(self.rotation.as_str());
        let done = world.engine.exec(&exec).await.map_err(|e| e.to_string())?;
        let text = done.stdout.expose().to_owned();
        let free = text
            .lines()
            .nth(1)
            .and_then(|line| line.split_whitespace().nth(3)?.parse::<u64>().ok());
        free.map(|kib| kib.saturating_mul(1024))
            .ok_or_else(|| format!("df {directory}: {}", done.stderr.trim()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_what_the_server_keeps_and_do_not_split_characters() {
        let id = RotationId::from_text("20261123T231500Z-9f3c01ab");
        assert_eq!(side_name("panel", &id), "panel_keyroll_9f3c01ab");
        let at = "2026-11-23T23:15:00Z".parse().unwrap();
        assert_eq!(kept_name("panel", at), "panel_replaced_20261123t231500z");
        let long = "ä".repeat(31);
        for name in [side_name(&long, &id), kept_name(&long, at)] {
            assert!(name.len() <= NAME && name.starts_with('ä'), "{name}");
        }
    }

    #[test]
    fn the_maintenance_database_is_never_the_one_that_is_renamed() {
        assert_eq!(maintenance("panel"), "postgres");
        assert_eq!(maintenance("postgres"), "template1");
    }
}

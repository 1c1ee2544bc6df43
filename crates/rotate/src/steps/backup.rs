//! Step: the backup. Nothing changes before it is whole, and the dump was read back in full.
//!
//! The dump comes from the server's own `pg_dump`, inside its container, and goes through age to the disk: it is never plain
//! there. It is then decrypted and given to `pg_restore`, which must read all of it; `--list` would read the table of contents
//! alone.

use std::sync::Arc;
use std::time::Duration;

use keyroll_backup::{BackupStream, BackupWriter};
use keyroll_journal::{Backward, Evidence, Forward, Intended, Receipt, RotationId, StepName};
use keyroll_runtimes::compose::Exec;
use keyroll_saga::{
    ActError, BoxFuture, Compensate, ConfirmError, Observed, Step, StepCx, UndoError,
};
use keyroll_secret::{Recipients, Secret};
use serde_json::json;

use crate::blocking::{Blocking, here};
use crate::profile::SecretKind;
use crate::steps::names;
use crate::world::{Set, World};

const DUMP: &str = "database.dump";
const ROLES: &str = "roles.sql";

/// Takes the password from the first line of standard input, so that it is in no argument and in no other environment.
const WITH_PASSWORD: &str = "IFS= read -r PGPASSWORD && export PGPASSWORD && exec \"$0\" \"$@\"";

#[derive(Debug)]
pub(crate) struct Backup {
    pub(crate) world: Arc<World>,
}

impl Backup {
    fn command(program: &str, arguments: &[&str]) -> Vec<String> {
        ["sh", "-c", WITH_PASSWORD, program]
            .iter()
            .chain(arguments)
            .map(|s| (*s).to_owned())
            .collect()
    }

    /// Runs a `PostgreSQL` program beside the server, its output into a part of the backup.
    async fn program(
        &self,
        rotation: &RotationId,
        program: &str,
        arguments: &[&str],
        stream: &mut BackupStream,
    ) -> Result<(), String> {
        let world = &self.world;
        let spec = world
            .about
            .profile
            .database
            .as_ref()
            .ok_or("no [database]")?;
        let container = world
            .container(&spec.service)
            .await
            .map_err(|e| e.to_string())?;
        let password = world
            .value_of(SecretKind::PostgresPassword, Set::Old)
            .map_err(|e| e.to_string())?;
        let line = Secret::new(format!("{}\n", password.expose()));
        let limit = Duration::from_secs(world.about.profile.limits.dump_seconds);
        let exec = Exec::new(container.id, Self::command(program, arguments))
            .limit(limit)
            .rotation(rotation.as_str());
        let done = world
            .engine
            .exec_streamed(&exec, Some(line.expose().as_bytes()), &mut Blocking(stream))
            .await;
        let done = done.map_err(|e| e.to_string())?;
        if done.exit_code == 0 {
            Ok(())
        } else {
            Err(format!(
                "{program} exited with {}: {}",
                done.exit_code, done.stderr
            ))
        }
    }

    async fn dump(&self, rotation: &RotationId, writer: &BackupWriter) -> Result<u64, String> {
        let fact = self.world.about.database.as_ref().ok_or("no [database]")?;
        let mut stream = writer.stream(DUMP).map_err(|e| e.to_string())?;
        let arguments = [
            "-U",
            &fact.role,
            "-d",
            &fact.database,
            "-Fc",
            "--no-password",
        ];
        self.program(rotation, "pg_dump", &arguments, &mut stream)
            .await?;
        let bytes = stream.bytes();
        here(|| stream.finish()).map_err(|e| e.to_string())?;
        self.read_back(rotation, writer).await?;
        Ok(bytes)
    }

    async fn roles(&self, rotation: &RotationId, writer: &BackupWriter) -> Result<(), String> {
        let fact = self.world.about.database.as_ref().ok_or("no [database]")?;
        let mut stream = writer.stream(ROLES).map_err(|e| e.to_string())?;
        let arguments = [
            "-U",
            &fact.role,
            "-l",
            &fact.database,
            "--globals-only",
            "--no-password",
        ];
        self.program(rotation, "pg_dumpall", &arguments, &mut stream)
            .await?;
        here(|| stream.finish()).map_err(|e| e.to_string())?;
        Ok(())
    }

    /// Has `pg_restore` read the whole dump, as it was written.
    async fn read_back(&self, rotation: &RotationId, writer: &BackupWriter) -> Result<(), String> {
        let world = &self.world;
        let spec = world
            .about
            .profile
            .database
            .as_ref()
            .ok_or("no [database]")?;
        let container = world
            .container(&spec.service)
            .await
            .map_err(|e| e.to_string())?;
        let plain = writer
            .open(DUMP, &world.identity)
            .map_err(|e| e.to_string())?;
        let limit = Duration::from_secs(world.about.profile.limits.dump_seconds);
        let exec = Exec::new(container.id, ["pg_restore", "-f", "/dev/null"])
            .limit(limit)
            .rotation(rotation.as_str());
        let done = world
            .engine
            .exec_streamed(&exec, Some(Blocking(plain)), &mut tokio::io::sink())
            .await;
        let done = done.map_err(|e| e.to_string())?;
        if done.exit_code == 0 {
            return Ok(());
        }
        Err(format!(
            "the dump cannot be read back: pg_restore exited with {}: {}",
            done.exit_code, done.stderr
        ))
    }

    async fn save(&self, cx: &StepCx) -> Result<Receipt, String> {
        let rotation = cx.rotation();
        let about = &self.world.about;
        let profile = &about.profile;
        let recipients = Recipients::new(
            &self.world.identity,
            profile.backup.recipients.iter().map(String::as_str),
        )
        .map_err(|e| e.to_string())?;
        let writer = BackupWriter::create(&profile.paths.backups, cx.now(), recipients)
            .map_err(|e| e.to_string())?;
        let writer = Arc::new(writer);
        let files = {
            let (writer, own, root, globs) = (
                writer.clone(),
                crate::backup::files(about),
                profile.root.clone(),
                profile.backup.files.clone(),
            );
            tokio::task::spawn_blocking(move || {
                writer.add_files("stack", &own)?;
                writer.add_globs("application", &root, &globs)
            })
        };
        let database = async {
            if about.database.is_none() {
                return Ok(0);
            }
            let (dump, roles) =
                tokio::join!(self.dump(rotation, &writer), self.roles(rotation, &writer));
            roles.and(dump)
        };
        let (files, database) = tokio::join!(files, database);
        let added = files
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        let dump_bytes = database?;
        let writer =
            Arc::into_inner(writer).ok_or("a part of the backup is still being written")?;
        let finished = here(|| writer.finish()).map_err(|e| e.to_string())?;
        Ok(json!({
            "directory": finished.directory,
            "manifest_sha256": finished.sha256,
            "dump_bytes": dump_bytes,
            "application_files": added.members,
        }))
    }
}

impl Step for Backup {
    fn name(&self) -> StepName {
        names::BACKUP.into()
    }

    fn observe<'a>(&'a self, _: &'a StepCx) -> BoxFuture<'a, Observed> {
        // A backup that was not recorded as whole is made again; an unfinished directory is recognisable as such.
        Box::pin(async { Observed::Before })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async {
            cx.fence()?;
            self.save(cx)
                .await
                .map_err(|e| ActError::NotApplied(self.world.clean(&e)))
        })
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async move {
            let directory = receipt["directory"].as_str().unwrap_or_default().to_owned();
            let path = std::path::PathBuf::from(&directory);
            let sha256 = receipt["manifest_sha256"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            let identity = self.world.identity.clone();
            let verified = tokio::task::spawn_blocking(move || {
                keyroll_backup::verify(&path, &identity, Some(&sha256))
            })
            .await;
            verified
                .map_err(|e| ConfirmError::Unknown(e.to_string()))?
                .map_err(|e| ConfirmError::Refuted(e.to_string()))?;
            let says = match &self.world.about.database {
                Some(_) => {
                    format!("{directory}: every byte read back; pg_restore read the whole dump")
                }
                None => format!("{directory}: every byte read back"),
            };
            Ok(Evidence::with(says, receipt.clone()))
        })
    }
}

impl Compensate for Backup {
    fn undo<'a>(
        &'a self,
        _: &'a StepCx,
        _: Intended<Backward>,
    ) -> BoxFuture<'a, Result<Evidence, UndoError>> {
        Box::pin(async { Ok(Evidence::new("the backup is kept")) })
    }
}

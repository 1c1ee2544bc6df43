//! After the point of no return: the summary for the operator, with the new admin credentials and no other secret.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use keyroll_journal::{Event, Evidence, Forward, Intended, Receipt, StepName};
use keyroll_saga::{ActError, BoxFuture, ConfirmError, Observed, Step, StepCx};
use keyroll_secret::{Recipients, Secret};
use serde_json::json;

use crate::profile::SecretKind;
use crate::steps::names;
use crate::trail;
use crate::world::{Set, World};

#[derive(Debug)]
pub(crate) struct Summary {
    pub(crate) world: Arc<World>,
}

impl Summary {
    fn recipients(&self) -> &[String] {
        &self.world.about.profile.summary.recipients
    }

    /// Named by the rotation's beginning, so that writing it twice is writing it once.
    fn path(&self, cx: &StepCx) -> Result<PathBuf, String> {
        let begun = cx
            .writer()
            .rotation(cx.rotation())
            .map_err(|e| e.to_string())?
            .begun_at;
        let end = if self.recipients().is_empty() {
            "txt"
        } else {
            "txt.age"
        };
        let profile = &self.world.about.profile;
        let name = format!(
            "{}-secret-rotation-{}.{end}",
            profile.name,
            begun.strftime("%Y%m%dT%H%M%SZ")
        );
        Ok(profile.paths.summaries.join(name))
    }

    fn text(&self, cx: &StepCx) -> Result<Secret, String> {
        let about = &self.world.about;
        let rotation = cx
            .writer()
            .rotation(cx.rotation())
            .map_err(|e| e.to_string())?;
        let records = cx
            .writer()
            .records(cx.rotation())
            .map_err(|e| e.to_string())?;
        let mut text = format!(
            "Secret rotation of {}: Completed\n\nrotation   {}\nbegun      {}\noperator   {}\nsecrets    {}\n",
            about.profile.name,
            rotation.id,
            rotation.begun_at,
            about.operator,
            about
                .secrets
                .iter()
                .map(|s| s.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        );
        if let Some(backup) = trail::backup_of(&records) {
            let _ = writeln!(
                text,
                "backup     {}\n           manifest SHA-256 {}",
                backup.directory, backup.manifest_sha256
            );
        }
        for record in &records {
            match &record.event {
                Event::Applied { step, receipt, .. } if step.as_str() == names::TRAIL => {
                    let _ = writeln!(
                        text,
                        "trail head {}",
                        receipt["head"].as_str().unwrap_or_default()
                    );
                }
                _ => {}
            }
        }
        if about.rotates(SecretKind::AdminPassword) {
            let password = self
                .world
                .value_of(SecretKind::AdminPassword, Set::New)
                .map_err(|e| e.to_string())?;
            let email = about.admin_email.as_deref().unwrap_or_default();
            let _ = writeln!(
                text,
                "\nadmin      {email}\npassword   {}",
                password.expose()
            );
        }
        for name in about.graced() {
            let _ = writeln!(
                text,
                "\ngrace      the old value of {name} is accepted too; when its provider has cut over: keyroll finalize {name}"
            );
        }
        text.push_str("\nEvidence\n");
        for record in &records {
            if let Event::Confirmed { step, evidence } = &record.event {
                let _ = writeln!(text, "- {step}: {}", evidence.says);
            }
        }
        let _ = writeln!(
            text,
            "\nTo take it back within {} days: keyroll rollback {}",
            about.profile.limits.keep_days, rotation.id
        );
        Ok(Secret::new(text))
    }

    fn write(&self, cx: &StepCx) -> Result<Receipt, String> {
        let path = self.path(cx)?;
        let text = self.text(cx)?;
        let directory = path.parent().unwrap_or(&path);
        let io = |e: std::io::Error| format!("{}: {e}", path.display());
        fs::create_dir_all(directory).map_err(io)?;
        let beside = path.with_extension("partial");
        let _ = fs::remove_file(&beside);
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .map_err(io)?;
        if self.recipients().is_empty() {
            file.write_all(text.expose().as_bytes()).map_err(io)?;
        } else {
            let recipients = Recipients::operators(self.recipients().iter().map(String::as_str))
                .map_err(|e| e.to_string())?;
            let mut sealed = recipients.writer(&mut file).map_err(|e| e.to_string())?;
            sealed.write_all(text.expose().as_bytes()).map_err(io)?;
            sealed.finish().map_err(io)?;
        }
        file.sync_all().map_err(io)?;
        fs::rename(&beside, &path).map_err(io)?;
        fs::File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(io)?;
        Ok(json!({"path": path}))
    }
}

impl Step for Summary {
    fn name(&self) -> StepName {
        names::SUMMARY.into()
    }

    fn observe<'a>(&'a self, cx: &'a StepCx) -> BoxFuture<'a, Observed> {
        Box::pin(async {
            match self.path(cx) {
                Ok(path) if path.exists() => Observed::After(json!({"path": path})),
                Ok(_) => Observed::Before,
                Err(why) => Observed::Unknown(why),
            }
        })
    }

    fn act<'a>(
        &'a self,
        cx: &'a StepCx,
        _: Intended<Forward>,
    ) -> BoxFuture<'a, Result<Receipt, ActError>> {
        Box::pin(async { self.write(cx).map_err(ActError::NotApplied) })
    }

    fn confirm<'a>(
        &'a self,
        _: &'a StepCx,
        receipt: &'a Receipt,
    ) -> BoxFuture<'a, Result<Evidence, ConfirmError>> {
        Box::pin(async {
            let path = receipt["path"].as_str().unwrap_or_default();
            Ok(Evidence::with(
                format!("written to {path}"),
                receipt.clone(),
            ))
        })
    }
}

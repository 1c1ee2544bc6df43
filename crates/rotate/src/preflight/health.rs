//! Is the stack well, by checks that can fail; and is there room for the backup.

use keyroll_backup::space;
use keyroll_journal::RotationId;
use keyroll_providers::postgres::{Session, StoredPassword};
use keyroll_secret::Secret;

use super::Findings;
use super::project::Seen;
use crate::about::About;
use crate::database::{self, Free};
use crate::error::Code;
use crate::panel::{Finding, Panel};
use crate::profile::{Profile, SecretKind};
use crate::reach::Reach;
use crate::world::{Values, WITNESS_ACCESS, WITNESS_REFRESH};

/// What was seen besides the findings.
#[derive(Debug, Default)]
pub(super) struct Health {
    pub(super) database_bytes: Option<u64>,
    /// Tokens of a session that is alive now, to be shown dead later.
    pub(super) witness: Vec<(String, Secret)>,
    /// The session that looked at the database.
    pub(super) sessions: Free,
}

/// Room on the backup's file system, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Room {
    pub(super) needed: u64,
    pub(super) free: u64,
}

pub(super) async fn look(
    about: &About,
    seen: &Seen,
    values: &Values,
    panel: Option<&Panel>,
    id: &RotationId,
    log_in: bool,
    found: &mut Findings,
) -> Health {
    let value = |kind: SecretKind| -> Option<Secret> {
        let (name, _) = about.profile.secrets.iter().find(|(_, s)| s.kind == kind)?;
        let rotated = values.pairs.get(name).map(|p| p.old.clone());
        rotated.or_else(|| values.others.get(name).cloned())
    };
    let (database, application) = tokio::join!(
        look_at_database(about, seen, value(SecretKind::PostgresPassword), id),
        look_at_panel(about, panel, value(SecretKind::AdminPassword), log_in),
    );
    if !log_in && about.admin_email.is_some() && panel.is_some_and(Panel::has_login) {
        found.note(
            "not tried: the admin's login (it would open a session); `--log-in` tries it, as rotate does",
        );
    }
    let mut health = Health::default();
    match database {
        Ok(Some((bytes, session))) => {
            health.database_bytes = Some(bytes);
            health.sessions.put(session);
        }
        Ok(None) => {}
        Err((code, what, next)) => found.refuse(code, what, next),
    }
    match application {
        Ok(witness) => health.witness = witness,
        Err((code, what, next)) => found.refuse(code, what, next),
    }
    health
}

type Trouble = (Code, String, &'static str);

async fn look_at_database(
    about: &About,
    seen: &Seen,
    password: Option<Secret>,
    id: &RotationId,
) -> Result<Option<(u64, Session)>, Trouble> {
    let (Some(spec), Some(fact)) = (&about.profile.database, &about.database) else {
        return Ok(None);
    };
    let trouble = |what: String| {
        (
            Code::Database,
            what,
            "mend it, or correct [database] in the profile",
        )
    };
    let password = password
        .ok_or_else(|| trouble(format!("the env file has no value for {}", spec.password)))?;
    let reach = Reach {
        engine: &seen.engine,
        containers: &seen.containers,
        about,
        rotation: id,
    };
    let endpoint = reach.endpoint().await.map_err(trouble)?;
    match database::path_checks_passwords(&endpoint).await {
        Ok(()) => {}
        Err(Finding::Wrong(what) | Finding::Alive(what)) => {
            return Err((
                Code::Vacuous,
                what,
                "make pg_hba.conf ask for a password on this path; without that no rotation can be proven",
            ));
        }
        Err(Finding::Unknown(what)) => return Err(trouble(what)),
    }
    let session = database::session(&endpoint, id, &[&password])
        .await
        .map_err(|e| trouble(e.to_string()))?;
    let size = session
        .database_size()
        .await
        .map_err(|e| trouble(e.to_string()))?;
    if session.is_in_recovery() {
        return Err(trouble(format!(
            "{endpoint} is in recovery (a standby, or a server that is being restored) and takes no changes"
        )));
    }
    if !session.is_superuser() {
        return Err(trouble(format!(
            "role {} is no superuser: it can neither save roles and their verifiers nor set a password by verifier",
            fact.role
        )));
    }
    if about.rotates(SecretKind::PostgresPassword) {
        let facts = session
            .role_facts(&fact.role)
            .await
            .map_err(|e| trouble(e.to_string()))?;
        if facts.expired {
            return Err(trouble(format!(
                "the password of role {} has expired (VALID UNTIL)",
                fact.role
            )));
        }
        // Also shows that the verifier can be saved, before anything depends on it.
        match session.stored_password(&fact.role).await {
            Ok(StoredPassword::Verifier(_)) => {}
            Ok(_) => return Err(trouble(format!("role {} has no password", fact.role))),
            Err(error) => return Err(trouble(error.to_string())),
        }
    }
    if about.ends_sessions()
        && let Some(sessions) = &about.profile.sessions
    {
        session
            .open_sessions(&database::session_table(sessions))
            .await
            .map_err(|e| trouble(e.to_string()))?;
    }
    if let (true, Some(admin), Some(email)) = (
        about.rotates(SecretKind::AdminPassword),
        &about.profile.admin,
        &about.admin_email,
    ) {
        match session.read_cell(&database::admin_hash(admin, email)).await {
            Ok(keyroll_providers::postgres::Cell::Value(_)) => {}
            Ok(_) => {
                return Err(trouble(format!(
                    "{email} has no stored password hash in table {}",
                    admin.table
                )));
            }
            Err(error) => return Err(trouble(error.to_string())),
        }
    }
    Ok(Some((size, session)))
}

async fn look_at_panel(
    about: &About,
    panel: Option<&Panel>,
    password: Option<Secret>,
    log_in: bool,
) -> Result<Vec<(String, Secret)>, Trouble> {
    let Some(panel) = panel else {
        return Ok(vec![]);
    };
    let trouble = |finding: Finding| match finding {
        Finding::Wrong(what) | Finding::Alive(what) => (
            Code::Panel,
            what,
            "mend it; an admin who changed the password in the panel gives it with --current-admin-password-file",
        ),
        Finding::Unknown(what) => (
            Code::Panel,
            format!("could not look: {what}"),
            "mend it, or correct [http] in the profile",
        ),
    };
    panel.healthy().await.map_err(trouble)?;
    let Some(email) = about.admin_email.as_deref().filter(|_| panel.has_login()) else {
        return Ok(vec![]);
    };
    let password = password.ok_or_else(|| {
        (
            Code::Panel,
            "the env file has no admin password".to_owned(),
            "see [admin] in the profile",
        )
    })?;
    let vacuous = |finding: Finding| match finding {
        Finding::Wrong(what) | Finding::Alive(what) => (
            Code::Vacuous,
            what,
            "a check that cannot fail proves nothing; correct [http] in the profile",
        ),
        unknown @ Finding::Unknown(_) => trouble(unknown),
    };
    if !log_in {
        panel.pages_can_refuse().await.map_err(vacuous)?;
        return Ok(vec![]);
    }
    // The wrong login first: a right one resets the count of wrong ones in most applications.
    let (wrong_login, no_session) =
        tokio::join!(panel.login_can_fail(email), panel.pages_can_refuse());
    wrong_login.map_err(vacuous)?;
    no_session.map_err(vacuous)?;
    let tokens = panel.log_in(email, &password).await.map_err(trouble)?;
    panel.pages_open(&tokens.access).await.map_err(trouble)?;
    let mut witness = vec![(WITNESS_ACCESS.to_owned(), tokens.access)];
    witness.extend(
        tokens
            .refresh
            .map(|refresh| (WITNESS_REFRESH.to_owned(), refresh)),
    );
    Ok(witness)
}

/// Whether the summary can be written, before the point after which nothing goes back.
fn summary_has_a_place(profile: &Profile, found: &mut Findings) {
    let wanted = &profile.paths.summaries;
    let existing = wanted.ancestors().find(|p| p.exists()).unwrap_or(wanted);
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK);
    if !existing.is_dir() || writable.is_err() {
        found.refuse(
            Code::State,
            format!(
                "{}: the summary could not be written there",
                existing.display()
            ),
            "set paths.summaries to a directory that can be written to",
        );
    }
}

/// Measures what the backup will take and what there is.
pub(super) fn room(profile: &Profile, about: &About, found: &mut Findings) -> Room {
    summary_has_a_place(profile, found);
    let none = Room { needed: 0, free: 0 };
    let backups = &profile.paths.backups;
    let files = crate::backup::files(about);
    let measured = space::of_files(&files)
        .and_then(|own| Ok(own + space::of_globs(&profile.root, &profile.backup.files, backups)?))
        .and_then(|bytes| {
            Ok((
                space::needed(bytes, about.database_bytes.unwrap_or(0)),
                space::available(backups)?,
            ))
        });
    match measured {
        Ok((needed, free)) => {
            if needed > free {
                found.refuse(
                    Code::Space,
                    format!(
                        "{}: the backup may take {} MiB, {} MiB are free",
                        backups.display(),
                        needed >> 20,
                        free >> 20
                    ),
                    "make room, or set paths.backups to another file system",
                );
            }
            Room { needed, free }
        }
        Err(error) => {
            found.refuse(
                Code::Space,
                error.to_string(),
                "mend it, or correct backup.files in the profile",
            );
            none
        }
    }
}

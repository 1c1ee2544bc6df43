//! The database as keyroll uses it: logged in to by observation, with whichever value is in force.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use keyroll_journal::RotationId;
use keyroll_providers::postgres::{
    ApplicationName, CellAt, Endpoint, Login, Named, PathCheck, PostgresError, Session,
    SessionTable, Table, proves_passwords, try_login,
};
use keyroll_secret::Secret;

use crate::panel::Finding;
use crate::profile::{AdminSpec, SessionSpec};

/// Time for one statement or login. A login costs the server milliseconds; a lock held by somebody else may take longer.
const LIMIT: Duration = Duration::from_secs(10);

/// Which of two values a system accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InForce {
    Old,
    New,
    Both,
    Neither,
}

/// Asks with both values side by side.
pub(crate) async fn which_logs_in(
    endpoint: &Endpoint,
    old: &Secret,
    new: &Secret,
) -> Result<InForce, Finding> {
    let (old, new) = tokio::join!(
        try_login(endpoint, old, LIMIT),
        try_login(endpoint, new, LIMIT)
    );
    let unknown = |why: &dyn std::fmt::Display| Err(Finding::Unknown(format!("{endpoint}: {why}")));
    match (old, new) {
        (Login::Accepted, Login::Refused { .. }) => Ok(InForce::Old),
        (Login::Refused { .. }, Login::Accepted) => Ok(InForce::New),
        (Login::Refused { .. }, Login::Refused { .. }) => Ok(InForce::Neither),
        (Login::Accepted, Login::Accepted) => Ok(InForce::Both),
        (Login::Unknown(why), _) | (_, Login::Unknown(why)) => unknown(&why),
    }
}

/// This value logs in.
pub(crate) async fn accepts(endpoint: &Endpoint, password: &Secret) -> Result<(), Finding> {
    match try_login(endpoint, password, LIMIT).await {
        Login::Accepted => Ok(()),
        Login::Refused { code } => Err(Finding::Wrong(format!(
            "{endpoint} refuses the password ({code})"
        ))),
        Login::Unknown(why) => Err(Finding::Unknown(format!("{endpoint}: {why}"))),
    }
}

/// This value does not log in.
pub(crate) async fn refuses(endpoint: &Endpoint, password: &Secret) -> Result<(), Finding> {
    match try_login(endpoint, password, LIMIT).await {
        Login::Refused { .. } => Ok(()),
        Login::Accepted => Err(Finding::Alive(format!(
            "{endpoint} accepts a password that must be dead"
        ))),
        Login::Unknown(why) => Err(Finding::Unknown(format!("{endpoint}: {why}"))),
    }
}

/// The negative control of logins on this path: a password that nobody can have is refused.
pub(crate) async fn path_checks_passwords(endpoint: &Endpoint) -> Result<(), Finding> {
    match proves_passwords(endpoint, LIMIT).await {
        PathCheck::Proves => Ok(()),
        PathCheck::Void => Err(Finding::Wrong(format!(
            "{endpoint} lets a wrong password in (a `trust` line in pg_hba.conf): no check on this path proves anything"
        ))),
        PathCheck::Unknown(why) => Err(Finding::Unknown(format!("{endpoint}: {why}"))),
    }
}

/// A session named after the rotation, opened with the first of these values that is accepted.
pub(crate) async fn session(
    endpoint: &Endpoint,
    rotation: &RotationId,
    candidates: &[&Secret],
) -> Result<Session, PostgresError> {
    let name =
        ApplicationName::of_rotation(rotation.as_str()).expect("rotation ids are short ASCII");
    let mut last = None;
    for password in candidates {
        match Session::open(endpoint, password, &name, LIMIT).await {
            Err(refused @ PostgresError::Refused { .. }) => last = Some(refused),
            other => return other,
        }
    }
    Err(last.expect("there is at least one candidate"))
}

/// Sessions that nobody uses right now. To log in costs both sides more than most questions, so one that has answered is used again.
#[derive(Debug, Default)]
pub(crate) struct Free(Mutex<Vec<Session>>);

impl Free {
    /// One that is open, as far as this side knows.
    pub(crate) fn take(&self) -> Option<Session> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|session| !session.is_closed());
        all.pop()
    }

    /// Says goodbye on all of them, and waits until they are closed: one that goes through a container has a command running there.
    pub(crate) async fn close(&self) {
        while let Some(session) = self.take() {
            session.close().await;
        }
    }

    /// Takes one whose last question was answered. One that failed is dropped instead: whether it is well, nobody knows.
    pub(crate) fn put(&self, session: Session) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(session);
    }
}

/// Where the application keeps its sessions, as the profile says.
pub(crate) fn session_table(spec: &SessionSpec) -> SessionTable {
    SessionTable {
        table: table("sessions.table", &spec.table),
        id: Named::new("sessions.id_column", &spec.id_column),
        revoked: Named::new("sessions.revoked_column", &spec.revoked_column),
    }
}

/// Where the application keeps the hash of the admin's password.
pub(crate) fn admin_hash(spec: &AdminSpec, email: &str) -> CellAt {
    CellAt {
        table: table("admin.table", &spec.table),
        key_column: Named::new("admin.email_column", &spec.email_column),
        key: email.to_owned(),
        value_column: Named::new("admin.hash_column", &spec.hash_column),
    }
}

/// `schema.table`, or a table on the search path.
pub(crate) fn table(key: &str, name: &str) -> Table {
    match name.split_once('.') {
        Some((schema, table)) => Table {
            schema: Some(schema.to_owned()),
            name: Named::new(key, table),
        },
        None => Table {
            schema: None,
            name: Named::new(key, name),
        },
    }
}

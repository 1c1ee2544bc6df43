//! One change in one transaction, with an honest account of how it ended.

use std::future::Future;
use std::time::Duration;

use keyroll_secret::Secret;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Transaction};

use super::error::{PostgresError, words};

/// What is being done, where, and how long each answer may take.
pub(super) struct Scope {
    pub(super) at: String,
    pub(super) doing: &'static str,
    pub(super) wait: Duration,
    pub(super) superuser: bool,
}

/// An open transaction. Dropped without [`Tx::commit`], it is rolled back.
///
/// Only `commit` ever sends COMMIT, so every failure before it is certainly `NotApplied`, and every failure of it is
/// `Indeterminate`: even an error of the server, since an administrator's shutdown can interrupt the wait for a standby after
/// the commit is durable.
pub(super) struct Tx<'a> {
    inner: Transaction<'a>,
    scope: Scope,
}

impl Scope {
    pub(super) fn not_applied(&self, reason: String) -> PostgresError {
        PostgresError::NotApplied {
            at: self.at.clone(),
            doing: self.doing,
            reason,
        }
    }

    async fn bounded<T>(
        &self,
        hidden: &[&Secret],
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, PostgresError> {
        match tokio::time::timeout(self.wait, work).await {
            Ok(answer) => answer.map_err(|e| self.not_applied(words(&e, hidden))),
            Err(_) => Err(self.not_applied(format!("no answer within {:?}", self.wait))),
        }
    }
}

impl<'a> Tx<'a> {
    pub(super) fn new(inner: Transaction<'a>, scope: Scope) -> Self {
        Self { inner, scope }
    }

    pub(super) fn at(&self) -> String {
        self.scope.at.clone()
    }

    pub(super) fn doing(&self) -> &'static str {
        self.scope.doing
    }

    pub(super) fn is_superuser(&self) -> bool {
        self.scope.superuser
    }

    pub(super) async fn ask(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        self.scope.bounded(&[], self.inner.query(sql, params)).await
    }

    /// A question that the server may refuse for lack of the right `needs`.
    pub(super) async fn ask_with_right(
        &self,
        needs: &'static str,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, PostgresError> {
        match tokio::time::timeout(self.scope.wait, self.inner.query(sql, params)).await {
            Ok(Err(error)) if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => {
                Err(PostgresError::Forbidden {
                    at: self.at(),
                    doing: self.doing(),
                    needs,
                })
            }
            Ok(answer) => answer.map_err(|e| self.scope.not_applied(words(&e, &[]))),
            Err(_) => Err(self.scope.not_applied("no answer in time".into())),
        }
    }

    /// Runs a statement whose text or parameters hold `hidden`.
    pub(super) async fn run_hiding(
        &self,
        hidden: &Secret,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<(), PostgresError> {
        if params.is_empty() {
            // The simple protocol: utility statements need no plan.
            return self
                .scope
                .bounded(&[hidden], self.inner.batch_execute(sql))
                .await;
        }
        self.scope
            .bounded(&[hidden], self.inner.execute(sql, params))
            .await
            .map(|_| ())
    }

    /// Sends COMMIT.
    pub(super) async fn commit(self) -> Result<(), PostgresError> {
        let Self { inner, scope } = self;
        let reason = match tokio::time::timeout(scope.wait, inner.commit()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => words(&error, &[]),
            Err(_) => format!("no answer within {:?}", scope.wait),
        };
        Err(PostgresError::Indeterminate {
            at: scope.at,
            doing: scope.doing,
            reason,
        })
    }
}

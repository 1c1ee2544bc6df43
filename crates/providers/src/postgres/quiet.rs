//! Keeping one transaction's statements out of the server's records.
//!
//! A verifier or a password hash is not the password, but whoever reads it can guess at it offline. PostgreSQL would write it
//! to its log (`log_statement`, slow or sampled statements, a failed statement), to `pg_stat_activity`, and to the records of
//! `pg_stat_statements` and pgaudit. A superuser can turn all of that off for one transaction. Another role cannot: then
//! the settings are read, and the change is refused where they would record it.

use super::error::PostgresError;
use super::transaction::Tx;

/// Where the sensitive text stands in the statement to come.
#[derive(Clone, Copy)]
pub(super) enum Carries {
    /// In its text.
    Literal,
    /// In a bound parameter.
    Parameter,
}

/// Settings that would record a statement, and the value that keeps them from it. Unknown ones (an older server, an
/// extension that is not loaded) are passed over.
const SETTINGS: [(&str, &str); 11] = [
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_min_duration_sample", "-1"),
    ("log_min_error_statement", "panic"),
    ("log_parameter_max_length", "0"),
    ("log_parameter_max_length_on_error", "0"),
    ("track_activities", "off"),
    ("pg_stat_statements.track", "none"),
    ("auto_explain.log_min_duration", "-1"),
    ("pgaudit.log", "none"),
    ("pgaudit.role", ""),
];

/// Whether a whole transaction is logged is drawn when it begins, too early for `SET LOCAL`.
pub(super) const BEFORE_TRANSACTIONS: &str = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'log_transaction_sample_rate'";

/// Makes the rest of the transaction leave no trace of its statements, or refuses.
pub(super) async fn keep_quiet(tx: &Tx<'_>, carries: Carries) -> Result<(), PostgresError> {
    if tx.is_superuser() {
        let (names, values): (Vec<&str>, Vec<&str>) = SETTINGS.into_iter().unzip();
        tx.ask(
            "SELECT set_config(s.name, w.value, true) FROM unnest($1::text[], $2::text[]) AS w(name, value) \
             JOIN pg_settings s ON s.name = w.name",
            &[&names, &values],
        )
        .await?;
        return Ok(());
    }
    let rows = tx.ask("SELECT name, setting FROM pg_settings", &[]).await?;
    for row in rows {
        let (name, value): (&str, &str) = (row.get(0), row.get(1));
        if records(name, value, carries) {
            return Err(PostgresError::WouldBeLogged {
                at: tx.at(),
                doing: tx.doing(),
                setting: name.to_owned(),
                value: value.to_owned(),
            });
        }
    }
    Ok(())
}

/// Whether a server with this setting would keep the statement.
fn records(name: &str, value: &str, carries: Carries) -> bool {
    match (name, carries) {
        ("log_statement", Carries::Literal) | ("pgaudit.log", _) => value != "none",
        ("log_statement", Carries::Parameter) => value == "mod" || value == "all",
        ("log_min_duration_statement" | "log_min_duration_sample", _) => value != "-1",
        ("log_transaction_sample_rate", _)
        | ("log_parameter_max_length_on_error", Carries::Parameter) => value != "0",
        ("log_min_error_statement", Carries::Literal) => {
            !matches!(value, "log" | "fatal" | "panic")
        }
        // Parameters of ordinary statements are never in its records; the text of utility statements is.
        ("pg_stat_statements.track_utility", Carries::Literal) => value == "on",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_default_settings_keep_a_parameter_but_not_a_literal_out_of_the_log() {
        let defaults = [
            ("log_statement", "none"),
            ("log_min_duration_statement", "-1"),
            ("log_min_duration_sample", "-1"),
            ("log_transaction_sample_rate", "0"),
            ("log_min_error_statement", "error"),
            ("log_parameter_max_length_on_error", "0"),
        ];
        let recording = |carries| {
            defaults
                .iter()
                .filter(|(name, value)| records(name, value, carries))
                .map(|(name, _)| *name)
                .collect::<Vec<_>>()
        };
        assert_eq!(recording(Carries::Parameter), Vec::<&str>::new());
        assert_eq!(recording(Carries::Literal), ["log_min_error_statement"]);
    }
}

//! One set of values, proven to be in force as a consumer sees it, and the other one dead.
//!
//! The same checks serve three moments: a new set before the point of no return, an old set after unwinding, and `keyroll
//! verify` on any day. Whatever is refused here was, on the same path, shown to be accepted with the right value, and the
//! other way round.

use keyroll_providers::http::{Tokens, jwt};
use keyroll_secret::Secret;

use crate::database;
use crate::panel::{Finding, Panel};
use crate::profile::SecretKind;
use crate::settings::Edits;
use crate::world::{Set, World};

/// A token from before is refused; one whose time was up in any case proves nothing, and is called that.
fn refused(kind: &str, token: &Secret) -> String {
    let now = jiff::Timestamp::now().as_second();
    let expired = jwt::decode(token)
        .ok()
        .and_then(|t| t.expires())
        .is_some_and(|at| at <= now);
    if expired {
        format!(
            "the {kind} token from before is refused, but it has expired: this alone proves nothing"
        )
    } else {
        format!("the {kind} token from before is refused")
    }
}

/// What was seen, a line each.
pub(crate) type Seen = Vec<String>;

impl World {
    /// Everything about `set`: application, database, containers, side by side.
    pub(crate) async fn prove(&self, set: Set, witness: Option<&Tokens>) -> Result<Seen, Finding> {
        let edits = if set == Set::New {
            Edits::Wrong
        } else {
            Edits::Left
        };
        let (application, database, containers, settings) = tokio::join!(
            self.prove_application(set, witness),
            self.prove_database(set),
            self.prove_containers(set),
            self.prove_settings(set, edits)
        );
        let application = match application {
            // What could not be shown before cannot be asked for after; the database and the containers still are, and so is
            // that nothing dead is accepted.
            Err(finding) if self.about.panel_sick && !matches!(finding, Finding::Alive(_)) => {
                vec![format!(
                    "not shown: the application was not well before the rotation, and is not now: {}",
                    self.clean(&finding.to_string())
                )]
            }
            other => other?,
        };
        Ok([application, database?, containers?, settings?].concat())
    }

    pub(crate) async fn prove_database(&self, set: Set) -> Result<Seen, Finding> {
        if self.about.database.is_none() {
            return Ok(vec![]);
        }
        let endpoint = self.endpoint().await?;
        let right = self.value_of(SecretKind::PostgresPassword, set)?;
        let control = database::path_checks_passwords(&endpoint);
        let wrong = async {
            match self.both(SecretKind::PostgresPassword) {
                Some((old, new)) => {
                    database::refuses(&endpoint, if set == Set::New { old } else { new }).await
                }
                None => Ok(()),
            }
        };
        let (accepted, control, wrong) =
            tokio::join!(database::accepts(&endpoint, right), control, wrong);
        accepted.and(control).and(wrong)?;
        Ok(vec![match self.both(SecretKind::PostgresPassword) {
            Some(_) => format!(
                "{endpoint}: the password logs in; the other one and a made-up one are refused"
            ),
            None => format!("{endpoint}: the password logs in, a made-up one is refused"),
        }])
    }

    async fn prove_application(&self, set: Set, witness: Option<&Tokens>) -> Result<Seen, Finding> {
        if self.about.profile.http.is_none() {
            return Ok(vec![]);
        }
        let panel = self.panel()?;
        if self.about.panel_sick {
            self.answers().await?;
        } else {
            self.becomes_reachable().await?;
        }
        let mut seen = vec!["the health path answers".to_owned()];
        let Some(email) = self
            .about
            .admin_email
            .as_deref()
            .filter(|_| panel.has_login())
        else {
            return Ok(seen);
        };
        let admin = self.value_of(SecretKind::AdminPassword, set)?;
        // The right login ends a row of wrong ones, so going forward it comes last, and the account is left as it was. Going
        // back it comes first: the wrong logins that the application allows may be used up, and that the old set works is
        // what has to be shown. That a wrong one is refused was shown at preflight, on the same path.
        let (tokens, refused) = if set == Set::New {
            // A run that was killed in this check has left a row of them: without this, its one more would be one too many, and a
            // crash alone would turn the rotation back.
            if panel.has_wrong_logins() {
                panel.log_in(email, admin).await?;
            }
            self.refused_login(panel, set, email).await?;
            (panel.log_in(email, admin).await?, true)
        } else {
            let tokens = panel.log_in(email, admin).await?;
            let spare = panel.can_be_refused_once_more();
            if spare {
                self.refused_login(panel, set, email).await?;
            }
            (tokens, spare)
        };
        seen.push(match self.both(SecretKind::AdminPassword) {
            _ if !refused => format!(
                "{email} logs in with the password in force; a wrong one was not tried again, it could lock the account"
            ),
            Some(_) => {
                format!("{email} logs in with the password in force; the other one is refused")
            }
            None => format!("{email} logs in, a made-up password is refused"),
        });
        let (open, shut, dead, signed) = tokio::join!(
            panel.pages_open(&tokens.access),
            panel.pages_can_refuse(),
            self.prove_witness_dead(panel, set, witness),
            self.prove_signatures(panel, set, &tokens),
        );
        open.and(shut)?;
        seen.push(format!(
            "{} pages open with the session and are refused without one",
            panel.page_count()
        ));
        seen.extend(dead?);
        seen.extend(signed?);
        Ok(seen)
    }

    /// The password of the other set does not log in; where none is rotated, one that was just made up.
    async fn refused_login(&self, panel: &Panel, set: Set, email: &str) -> Result<(), Finding> {
        match self.both(SecretKind::AdminPassword) {
            Some((old, new)) => {
                let dead = if set == Set::New { old } else { new };
                panel.refuses_login(email, dead).await
            }
            None => panel.login_can_fail(email).await,
        }
    }

    /// Tokens from before the rotation, accepted then, are refused now.
    async fn prove_witness_dead(
        &self,
        panel: &Panel,
        set: Set,
        witness: Option<&Tokens>,
    ) -> Result<Seen, Finding> {
        let (Set::New, Some(witness)) = (set, witness) else {
            return Ok(vec![]);
        };
        let mut seen = vec![];
        if self.about.rotates(SecretKind::AccessTokenKey) && panel.page_count() > 0 {
            panel.pages_refuse(Some(&witness.access)).await?;
            seen.push(refused("access", &witness.access));
        }
        let ends = self.about.ends_sessions() && self.about.profile.sessions.is_some();
        if (ends || self.about.rotates(SecretKind::RefreshTokenKey))
            && let Some(refresh) = witness.refresh.as_ref().filter(|_| panel.has_refresh())
        {
            panel.refuses_refresh(refresh).await?;
            seen.push(refused("refresh", refresh));
        }
        Ok(seen)
    }

    /// The claims of a live session count under the key in force, and under no other: what is refused is the key, not the
    /// token's age or its session.
    async fn prove_signatures(
        &self,
        panel: &Panel,
        set: Set,
        live: &Tokens,
    ) -> Result<Seen, Finding> {
        let mut seen = vec![];
        let sign = |token: &Secret, key: &Secret| {
            jwt::resign(token, key)
                .map_err(|e| Finding::Unknown(format!("a token cannot be signed: {e}")))
        };
        if let Some((old, new)) = self.both(SecretKind::AccessTokenKey)
            && panel.page_count() > 0
        {
            let (right, wrong) = if set == Set::New {
                (new, old)
            } else {
                (old, new)
            };
            panel.pages_open(&sign(&live.access, right)?).await?;
            panel
                .pages_refuse(Some(&sign(&live.access, wrong)?))
                .await?;
            seen.push("a live session's claims are accepted under the access key in force and refused under the other".to_owned());
        }
        if let Some((old, new)) = self.both(SecretKind::RefreshTokenKey)
            && let Some(token) = live.refresh.as_ref().filter(|_| panel.has_refresh())
        {
            let (right, wrong) = if set == Set::New {
                (new, old)
            } else {
                (old, new)
            };
            // The wrong one first: an application that replaces refresh tokens accepts the right one only once.
            panel.refuses_refresh(&sign(token, wrong)?).await?;
            panel.refresh(&sign(token, right)?).await?;
            seen.push("a live session's refresh claims are accepted under the refresh key in force and refused under the other".to_owned());
        }
        Ok(seen)
    }
}
